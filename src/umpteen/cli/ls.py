"""`umpteen ls`: the jobs of this user, from any folder."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence

import click

from umpteen.cli.printing import say
from umpteen.errors import StoreError
from umpteen.job_list import Pending, read_far, read_near
from umpteen.registry import list_entries
from umpteen.report import cut_middle, render_ago, render_table, shorten_path, status_to_dict
from umpteen.status import UNREAD, JobStatus

__all__ = ["ls_command"]

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
    """List the jobs that were opened by this user: those on this machine, then those far away,
    the newest first.

    Where a job cannot be read its row says why, and the exit code is 3.
    """
    near, pending = read_near(list_entries())
    near.sort(key=_order)
    if as_json:
        found = sorted([*near, *read_far(pending)], key=_order)
        click.echo(json.dumps([status_to_dict(status) for status in found]))
    elif near or pending:
        found = _show(near, pending)
    else:
        say("no jobs yet: umpteen run … starts one", err=True)
        return 0
    return StoreError.exit_code if any(status.state in UNREAD for status in found) else 0


def _order(status: JobStatus) -> float:
    return -status.started_s


def _show(near: list[JobStatus], pending: Sequence[Pending]) -> list[JobStatus]:
    """Print the table, the jobs on this machine before others are waited for; all of them."""
    head, *lines = _render([*near, *(each.silent for each in pending)])
    for line in [head, *lines[: len(near)]]:
        say(line)
    sys.stdout.flush()
    if not pending:
        return near
    far = sorted(read_far(pending), key=_order)
    for line in _render([*near, *far])[1 + len(near) :]:
        say(line)
    return [*near, *far]


def _render(found: Sequence[JobStatus]) -> list[str]:
    """The head, and a row for each."""
    head = ["name", "executor", "tasks", "done", "failed", "running", "started", "state"]
    names = [status.name for status in found]
    has_twins = len(set(names)) < len(names)  # told apart by where they are
    head += ["results"] * has_twins
    paths = [shorten_path(status.address) for status in found]
    rows = [
        [*_cells(status), *([path] if has_twins else [])]
        for status, path in zip(found, paths, strict=True)
    ]
    lines = render_table(head, rows, right="llrrrr")
    if has_twins and sys.stdout.isatty():
        widest = max(map(len, paths))
        spare = shutil.get_terminal_size().columns - max(map(len, lines)) + widest
        for row in rows:
            row[-1] = cut_middle(row[-1], max(spare, _LEAST))
        lines = render_table(head, rows, right="llrrrr")
    return lines


def _cells(status: JobStatus) -> list[str]:
    if status.state in UNREAD:
        return [status.name, *"------", f"{status.state}: {status.trouble}"]
    return [
        status.name,
        status.executor,
        f"{status.total:,}",
        f"{status.counts['succeeded']:,}",
        f"{status.not_succeeded:,}",
        f"{status.counts['running']:,}",
        render_ago(status.started_s),
        status.state,
    ]
