"""Which outcome of a task lets the tasks after it start, and how a batch file writes that."""

from __future__ import annotations

from umpteen.model.states import TaskState

__all__ = ["FREE", "OUTCOMES", "link", "meets"]


# What may be asked of a task that another is after.
OUTCOMES = ("succeeded", "any", "failed")


# In place of a barrier: behind none.
FREE = -1


def link(number: int) -> int:
    """What stands for one task in place of a barrier, and the other way round."""
    return -2 - number


def meets(outcome: str, state: str) -> bool:
    """Whether a task that came to its end in `state` is what was asked of it."""
    if outcome == "any":
        return True
    if outcome == "succeeded":
        return state == TaskState.SUCCEEDED.value
    return state not in (TaskState.SUCCEEDED.value, TaskState.SKIPPED.value)
