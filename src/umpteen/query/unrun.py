"""The tasks of a job that did not succeed: those that failed, and counts of those that never ran.

What was skipped or cancelled is counted by why: there may be a million of them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from umpteen.errors import StoreError
from umpteen.history.history import History
from umpteen.model.reasons import Reason, read_reason
from umpteen.model.record import Record
from umpteen.model.states import read_end
from umpteen.query.failures import Failure, describe_end, is_failure, read_failure
from umpteen.system.terminal import clean

__all__ = ["NAMES_SHOWN", "EndedTasks", "UnrunCause", "UnrunCounts", "UnrunGroup", "read_ended"]

NAMES_SHOWN = 3  # of a group with no more tasks than these all names are known
_GROUPS_ALIKE = 2  # of one kind; more are told as one


class UnrunCause(NamedTuple):
    """Why a task did not run."""

    # The task that it was after and whose end was not as asked; empty where these were several,
    # or that one was skipped itself; None where it was for another reason.
    after: str | None
    # The state in which that one ended.
    end: str
    # The other reason, in words; empty where its state says it all.
    reason: str


class UnrunGroup(NamedTuple):
    """Tasks that did not run for one reason."""

    tasks: int
    # `skipped` or `cancelled`.
    state: str
    cause: UnrunCause
    # Of the first few.
    names: list[str]


_Alike = dict[UnrunCause, tuple[int, list[str]]]


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
        # By state and kind of cause; in each by cause: how many, and the names of the first.
        self._found: dict[tuple[str, UnrunCause], _Alike] = {}

    def add(self, history: History, batch: str, record: Record) -> None:
        """Count one more."""
        cause = _find_cause(record)
        alike = self._found.setdefault((record.state, _find_kind(cause)), {})
        count, names = alike.get(cause, (0, []))
        if count <= NAMES_SHOWN and len(alike) <= NAMES_SHOWN:
            names.append(clean(_read_name(history, batch, record)))
        alike[cause] = (count + 1, names)

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
    for batch, record in history.failures.read_all():
        if is_failure(record):
            failed.append((batch, record))
        else:
            unrun.add(history, batch, record)
    shown = [read_failure(history, *entry) for entry in failed[max(0, len(failed) - most) :]]
    return EndedTasks(shown, len(failed), unrun.list_groups())


def _group(state: str, kind: UnrunCause, alike: _Alike) -> Iterator[UnrunGroup]:
    if len(alike) > _GROUPS_ALIKE:
        names = [name for _, some in alike.values() for name in some]
        yield UnrunGroup(sum(count for count, _ in alike.values()), state, kind, names)
        return
    for cause, (count, some) in alike.items():
        yield UnrunGroup(count, state, cause, some)


def _read_name(history: History, batch: str, record: Record) -> str:
    try:
        return history.describe_task(batch, record.task)[0]
    except StoreError:  # counted all the same
        return f"task {record.task}"


def _find_cause(record: Record) -> UnrunCause:
    """Why a task never ran: the same for a whole chain of tasks that were skipped one after
    another, but for the first.
    """
    if record.state == "skipped" and (found := _read_after(record.reason)):
        after, end = found
        return UnrunCause("" if end == "skipped" else after, end, "")
    return UnrunCause(None, "", describe_end(record))


@functools.lru_cache(4096)  # a million tasks may be skipped for one reason
def _read_after(reason: str) -> tuple[str, str] | None:
    found = read_reason(reason)
    if found is None or found.reason is not Reason.AFTER:
        return None
    return found.parts["task"], read_end(found.parts["end"])


def _find_kind(cause: UnrunCause) -> UnrunCause:
    """A reason without the name of the task that it was after, so that such ones are one kind."""
    return cause if cause.after is None else cause._replace(after="")
