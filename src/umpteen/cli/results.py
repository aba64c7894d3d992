"""`umpteen results`: the files that tasks left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import click

from umpteen.cli.options import job_argument
from umpteen.history import History
from umpteen.lookup import find_outputs, open_history
from umpteen.report import shorten_path
from umpteen.task import STATES

__all__ = ["results_command"]


@click.command(
    "results",
    short_help="List the files that tasks left as results.",
    epilog="""\b
Examples:
  umpteen results sweep
  umpteen results sweep --json | jq -r '.folder'""",
)
@job_argument
@click.option("--json", "as_json", is_flag=True, help="One object a task: name, state, files.")
def results_command(name: str, *, as_json: bool) -> int:
    """List the result files of the job NAME, one path a line."""
    history = open_history(name)
    tasks = history.read_tasks()
    count = 0
    for index, task in enumerate(tasks):
        if index in history.dropped:
            continue
        folder = find_outputs(history, task, "", None).address
        files = sorted(_list_files(f"{folder}/results"))
        count += bool(files)
        if as_json:
            shown = {
                "name": task.name,
                "index": index,
                "state": _state(history, index),
                "parameters": task.parameters,
                "folder": folder,
                "files": files,
            }
            click.echo(json.dumps(shown))
        else:
            for file in files:
                click.echo(shorten_path(f"{folder}/results/{file}"))
    if not as_json:
        where = shorten_path(history.store.address)
        total = len(tasks) - len(history.dropped)
        click.echo(f"{count:,} of {total:,} tasks left results in {where}", err=True)
    return 0


def _state(history: History, index: int) -> str:
    return STATES[history.states[index]]


def _list_files(folder: str) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        below = os.path.relpath(parent, folder)
        for name in names:
            yield name if below == "." else os.path.join(below, name)
