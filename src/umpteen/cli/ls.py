"""`umpteen ls`: the jobs of this user, from any folder."""

from __future__ import annotations

import json
import shutil
import sys

import click

from umpteen.errors import UmpteenError
from umpteen.history import History
from umpteen.lookup import read_status
from umpteen.registry import Entry, list_entries
from umpteen.report import cut_middle, render_ago, render_table, shorten_path, status_to_dict
from umpteen.results.opening import is_remote, open_store
from umpteen.status import JobStatus

__all__ = ["ls_command"]

_AT_ONCE = 16
_LEAST = 12  # columns that a path keeps


@click.command(
    "ls",
    short_help="List the jobs of this user.",
    epilog="""\b
Examples:
  umpteen ls
  umpteen ls --json""",
)
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def ls_command(*, as_json: bool) -> int:
    """List the jobs that were opened by this user, the newest first, wherever they are."""
    found = _read_all(list_entries())
    found.sort(key=lambda status: -status.started_s)
    if as_json:
        click.echo(json.dumps([status_to_dict(status) for status in found]))
        return 0
    if not found:
        click.echo("no jobs yet: umpteen run … starts one", err=True)
        return 0
    head = ["name", "executor", "tasks", "done", "failed", "running", "started", "state"]
    names = [status.name for status in found]
    has_twins = len(set(names)) < len(names)  # told apart by where they are
    head += ["results"] * has_twins
    paths = [shorten_path(status.address) for status in found]
    rows = [
        [
            status.name,
            status.executor,
            f"{status.total:,}",
            f"{status.counts['succeeded']:,}",
            f"{status.not_succeeded:,}",
            f"{status.counts['running']:,}",
            render_ago(status.started_s),
            status.state,
            *([path] if has_twins else []),
        ]
        for status, path in zip(found, paths, strict=True)
    ]
    lines = render_table(head, rows, right="llrrrr")
    if has_twins and sys.stdout.isatty():
        widest = max(map(len, paths))
        spare = shutil.get_terminal_size().columns - max(map(len, lines)) + widest
        for row in rows:
            row[-1] = cut_middle(row[-1], max(spare, _LEAST))
        lines = render_table(head, rows, right="llrrrr")
    for line in lines:
        click.echo(line)
    return 0


def _read_all(entries: list[Entry]) -> list[JobStatus]:
    """All at once where some are far: one that does not answer is not to keep the others."""
    if not any(is_remote(entry.address) for entry in entries):
        return list(filter(None, map(_read, entries)))
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(filter(None, pool.map(_read, entries)))


def _read(entry: Entry) -> JobStatus | None:
    """The status, or None for a store that cannot be read: it shall not hide the others."""
    try:
        history = History(open_store(entry.address))
        history.refresh()
        return read_status(history)
    except UmpteenError as error:
        click.echo(f"{entry.name}: {error}", err=True)
        return None
