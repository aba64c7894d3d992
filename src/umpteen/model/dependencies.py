"""Which outcome of a task lets the tasks after it start, and how a batch file writes that."""

from __future__ import annotations

from umpteen.model.states import TaskState

__all__ = ["FREE", "OUTCOMES", "Behind", "link", "meets"]


# What may be asked of a task that another is after.
OUTCOMES = ("succeeded", "any", "failed")


FREE = -1  # what a task is behind that waits for nothing


class Behind(int):
    """What a task waits for, in the number that graphs and batch files have for it.

    FREE for nothing, from 0 on a barrier, and below FREE one task whose success is waited for.
    """

    @property
    def task(self) -> int | None:
        """The one task that it waits for; None where it is free, or behind a barrier."""
        return link(self) if self < FREE else None

    @property
    def barrier(self) -> int | None:
        """The barrier that it is behind; None where there is none."""
        return int(self) if self >= 0 else None


def link(task: int) -> int:
    """The number that stands for one task, which is the task of that number, too."""
    return -2 - task


def meets(outcome: str, state: str) -> bool:
    """Whether a task that came to its end in `state` is what was asked of it."""
    if outcome == "any":
        return True
    if outcome == "succeeded":
        return state == TaskState.SUCCEEDED.value
    return state not in (TaskState.SUCCEEDED.value, TaskState.SKIPPED.value)
