"""The tasks of a job that did not succeed: those that failed, and counts of those that never ran.

What was skipped or cancelled is counted by why: there may be a million of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from umpteen.errors import StoreError
from umpteen.history.history import History
from umpteen.model.record import Record
from umpteen.query.failures import Failure, describe_end, is_failure, read_failure
from umpteen.system.terminal import clean

__all__ = ["NAMES_SHOWN", "EndedTasks", "UnrunCounts", "UnrunGroup", "read_ended"]

NAMES_SHOWN = 3  # of a group with no more tasks than these all names are known
_GROUPS_ALIKE = 2  # of one kind; more are told as one
_AFTER_WHICH = re.compile(r" after .+, which (.+)", re.DOTALL)
_PLURAL = {"was skipped": "were skipped", "was cancelled": "were cancelled"}


class UnrunGroup(NamedTuple):
    """Tasks that did not run for one reason."""

    tasks: int
    # `skipped` or `cancelled`.
    state: str
    # What follows the state in a sentence; empty where it says all.
    why: str
    # Of the first few.
    names: list[str]


class EndedTasks(NamedTuple):
    """The tasks of a job that came to an end without success."""

    # The newest that failed, as many as were asked for; the newest last.
    failures: list[Failure]
    # How many failed in all.
    failed: int
    unrun: list[UnrunGroup]


class UnrunCounts:
    """Counts tasks that were skipped or cancelled by why, with the names of a few."""

    def __init__(self) -> None:
        # By state and kind; in each by reason.
        self._found: dict[tuple[str, str], dict[str, tuple[int, list[str]]]] = {}

    def add(self, history: History, batch: str, record: Record) -> None:
        """Count one more."""
        why = _say_unrun(record)
        alike = self._found.setdefault((record.state, _say_kind(why)), {})
        count, names = alike.get(why, (0, []))
        if count <= NAMES_SHOWN and len(alike) <= NAMES_SHOWN:
            names.append(clean(_read_name(history, batch, record)))
        alike[why] = (count + 1, names)

    def list_groups(self) -> list[UnrunGroup]:
        """The groups, the largest first.

        Where many differ in nothing but whom their tasks were after, these are one group.
        """
        found = [
            group
            for (state, kind), alike in self._found.items()
            for group in _group(state, kind, alike)
        ]
        return sorted(found, key=lambda group: -group.tasks)


def read_ended(history: History, most: int) -> EndedTasks:
    """What did not succeed of a job; no more than `most` failures are read."""
    failed: list[tuple[str, Record]] = []
    unrun = UnrunCounts()
    for batch, record in history.read_failures():
        if is_failure(record):
            failed.append((batch, record))
        else:
            unrun.add(history, batch, record)
    shown = [read_failure(history, *entry) for entry in failed[max(0, len(failed) - most) :]]
    return EndedTasks(shown, len(failed), unrun.list_groups())


def _group(state: str, kind: str, alike: dict[str, tuple[int, list[str]]]) -> Iterator[UnrunGroup]:
    if len(alike) > _GROUPS_ALIKE:
        names = [name for _, some in alike.values() for name in some]
        yield UnrunGroup(sum(count for count, _ in alike.values()), state, kind, names)
        return
    for why, (count, some) in alike.items():
        yield UnrunGroup(count, state, why, some)


def _read_name(history: History, batch: str, record: Record) -> str:
    try:
        return history.describe_task(batch, record.task)[0]
    except StoreError:  # counted all the same
        return f"task {record.task}"


def _say_unrun(record: Record) -> str:
    """What follows `skipped` or `cancelled`; alike for all but the first of a chain."""
    how = describe_end(record)
    if record.state == "skipped" and how.endswith(", which was skipped"):
        return " after tasks that were skipped"
    if record.state == "skipped" and how.startswith("after "):
        return f" {how}"
    return f": {how}" if how else ""


def _say_kind(why: str) -> str:
    """The same for all that differ in the name of what they were after alone."""
    found = _AFTER_WHICH.fullmatch(why)
    return f" after tasks that {_PLURAL.get(found[1], found[1])}" if found else why
