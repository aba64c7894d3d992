"""`umpteen results`: the files that tasks left, listed or copied here."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from umpteen.cli.options import job_argument
from umpteen.errors import EXIT_SUCCEEDED, SettingsError
from umpteen.history import History
from umpteen.lookup import open_history
from umpteen.pulling import Pulled, list_task_files, pull
from umpteen.report import render_size, shorten_path
from umpteen.results.opening import make_absolute
from umpteen.task import STATES

__all__ = ["results_command"]

_SHOW_S = 1.0
_RESULTS = "results/"
_SHOWN = 3


@click.command(
    "results",
    short_help="List the files that tasks left as results, or copy them here.",
    epilog="""\b
Examples:
  umpteen results sweep
  umpteen results sweep ./here --include '*.csv'
  umpteen results sweep --json | jq -r '.folder'""",
)
@job_argument
@click.argument("dest", required=False, type=click.Path(file_okay=False))
@click.option("--include", multiple=True, metavar="GLOB", help="Only such files; may be repeated.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No such files; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="One object a task: name, state, files.")
def results_command(
    name: str,
    dest: str | None,
    *,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    as_json: bool,
) -> int:
    """List the result files of the job NAME, one path a line; with DEST, copy its outputs there.

    All that tasks left is copied to DEST/TASK, also from where it is in no folder. A GLOB
    without a / is for the last part of a path, such as '*.csv', else for all of it, such as
    'seed=1*/results/*'. Called again it copies only what is missing or has changed.
    """
    history = open_history(name)
    if dest is None and (include or exclude):
        raise SettingsError("--include and --exclude are for copies", "say where to: DEST")
    if dest is not None:
        make_absolute(dest)  # refuses what nobody can find again
        return _pull(history, dest, include, exclude, as_json=as_json)
    return _list(history, as_json=as_json)


def _pull(
    history: History,
    dest: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    *,
    as_json: bool,
) -> int:
    pulled, shown_s = Pulled(0, 0, 0), time.monotonic()
    complaints: list[str] = []
    for pulled in pull(history, dest, include, exclude, complaints):
        if time.monotonic() - shown_s > _SHOW_S and not as_json:
            shown_s = time.monotonic()
            size = render_size(pulled.size_bytes)
            sys.stderr.write(f"{pulled.files:,} files, {size} so far\n")
    if as_json:
        click.echo(json.dumps(pulled._asdict()))
    else:
        kept = f", {pulled.kept:,} of them were there" if pulled.kept else ""
        size = render_size(pulled.size_bytes)
        click.echo(f"{pulled.files:,} files, {size} in {shorten_path(dest)}{kept}", err=True)
    _complain(complaints)
    return EXIT_SUCCEEDED


def _list(history: History, *, as_json: bool) -> int:
    count = total = 0
    complaints: list[str] = []
    for index, task, outputs, found in list_task_files(history, complaints):
        files = [path[len(_RESULTS) :] for path, _ in found if path.startswith(_RESULTS)]
        total += 1
        count += bool(files)
        if as_json:
            shown: dict[str, Any] = {
                "name": task.name,
                "index": index,
                "state": STATES[history.states[index]],
                "parameters": task.parameters,
                "folder": outputs.address,
                "files": files,
            }
            click.echo(json.dumps(shown))
        else:
            for file in files:
                click.echo(shorten_path(os.path.join(outputs.address, _RESULTS, file)))
    if not as_json:
        where = shorten_path(history.store.address)
        click.echo(f"{count:,} of {total:,} tasks left results in {where}", err=True)
    _complain(complaints)
    return EXIT_SUCCEEDED


def _complain(complaints: Sequence[str]) -> None:
    """Say what was left out, the first few in full."""
    for complaint in complaints[:_SHOWN]:
        click.echo(f"left out: {complaint}", err=True)
    if (more := len(complaints) - _SHOWN) > 0:
        click.echo(f"left out: {more:,} more", err=True)
