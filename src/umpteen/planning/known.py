"""What a plan needs of a job's files beside the states of tasks, read before anything is decided.

The one module of planning that has files read.
"""

from __future__ import annotations

from typing import NamedTuple

from umpteen.history.history import History
from umpteen.job.spec import Job, Task

__all__ = ["KnownTasks", "read_known"]


class KnownTasks(NamedTuple):
    """What the files of a job say of its tasks."""

    # As they were submitted, by index; None where the job's are sure to be the same, as for a
    # million tasks that were read from the same file.
    tasks: list[Task] | None
    # Indices of those that have come to no end, and have begun; None where nobody asks for it.
    begun: frozenset[int] | None = None


def read_known(job: Job, history: History, rerun: str = "default") -> KnownTasks:
    """What the files of a job say of its tasks. rerun: as of `build_plan`. Raises StoreError."""
    tasks: list[Task] | None = []
    if history.count:
        tasks = None if _is_same(job, history) else history.read_tasks()
    return KnownTasks(tasks, _read_begun(history) if rerun == "none" else None)


def _is_same(job: Job, history: History) -> bool:
    """Whether the job's tasks were read from what they were read from last time."""
    newest = next((each for each in reversed(history.hand_ins) if each.source), None)
    if newest is None or not newest.is_plain or newest.source != job.source_digest:
        return False
    return all(index >= len(job.tasks) for index in history.dropped)


def _read_begun(history: History) -> frozenset[int]:
    waiting = [index for index, state in enumerate(history.states) if not state]
    records = history.read_records(waiting)
    return frozenset(index for index in waiting if records[index])
