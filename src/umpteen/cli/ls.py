"""`umpteen ls`: the jobs of this user, from any folder."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Sequence

import click

from umpteen.errors import StoreError
from umpteen.query.job_list import Pending, read_far, read_near
from umpteen.query.registry import RESULTS_FOLDER, list_entries
from umpteen.query.status import DAMAGED, UNREAD, JobStatus
from umpteen.report.printing import count_columns, say
from umpteen.report.status import status_to_dict
from umpteen.report.text import measure, render_ago, render_table, shorten_place
from umpteen.store.address import is_remote

__all__ = ["ls_command"]


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
    if pending:
        from umpteen.system.openssh import ask_nothing

        ask_nothing()  # of many hosts
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
    head, *rows = _render([*near, *(each.silent for each in pending)])
    _print([head, *rows[: len(near)]])
    sys.stdout.flush()
    if not pending:
        return near
    far = sorted(read_far(pending), key=_order)
    _print(_render([*near, *far])[1 + len(near) :])
    return [*near, *far]


def _print(rows: Iterable[Sequence[str]]) -> None:
    for line in itertools.chain.from_iterable(rows):
        say(line)


def _render(found: Sequence[JobStatus]) -> list[list[str]]:
    """The lines of the head, and of a row for each.

    Where jobs are called the same, places tell them apart: in a column, or whole on lines of their
    own where the terminal has no room for them.
    """
    head = ["name", "executor", "tasks", "done", "failed", "running", "started", "state"]
    rows = [_cells(status) for status in found]
    plain = [[line] for line in render_table(head, rows, right="llrrrr")]
    names = {status.name for status in found}
    if len(names) == len(found):
        return plain
    places = _places(found)
    beside = [[*row, place] for row, place in zip(rows, places, strict=True)]
    lines = render_table([*head, "folder"], beside, right="llrrrr")
    if (width := count_columns()) and max(map(measure, lines)) > width:
        return [plain[0], *([*row, f"  {at}"] for row, at in zip(plain[1:], places, strict=True))]
    return [[line] for line in lines]


def _places(found: Sequence[JobStatus]) -> list[str]:
    """Where each is, in short: for what was run as usual the folder that it was run in."""
    known = {status.address for status in found}
    places = []
    for status in found:
        folder = status.address.removesuffix(f"/{RESULTS_FOLDER}/{status.name}") or "/"
        place = status.address if folder in known else folder
        places.append(status.address if is_remote(status.address) else shorten_place(place))
    return places


def _cells(status: JobStatus) -> list[str]:
    if status.state in UNREAD:
        # What is damaged is named as such in the text.
        state = "" if status.state == DAMAGED else f"{status.state}: "
        return [status.name, *"------", f"{state}{status.trouble}"]
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
