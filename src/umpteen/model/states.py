"""The states of a task: their order, which of them are final, and how a sentence says each end.

Beside them: the version of the files of a store, and the most slots. Standard library alone.
"""

from __future__ import annotations

import enum

__all__ = [
    "FORMAT_VERSION",
    "IS_FINAL",
    "NUMBER_OF",
    "SLOTS_MOST",
    "STATES",
    "TaskState",
    "read_end",
    "tell_end",
]

FORMAT_VERSION = 1  # of the files of a store; all that were ever released can be read
SLOTS_MOST = 10_000  # tasks at once of one runner, each of which has its processes


class TaskState(str, enum.Enum):
    """How far a task is. `lost` is what a reader concludes, so it is not here."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        """Whether the attempt is over: nothing follows it but another attempt."""
        return self not in (TaskState.WAITING, TaskState.RUNNING)

    def may_become(self, other: TaskState) -> bool:
        """Whether `other` may follow within one attempt.

        A runner that ends a running task itself puts it back to `waiting`.
        """
        if self.is_final or other is self:
            return False
        if self is TaskState.WAITING:
            return other in (TaskState.RUNNING, TaskState.CANCELLED, TaskState.SKIPPED)
        return other is not TaskState.SKIPPED


# States are told as small numbers where there are many of them: by their place here.
STATES = tuple(state.value for state in TaskState)
NUMBER_OF = {state: number for number, state in enumerate(STATES)}
IS_FINAL = tuple(state.is_final for state in TaskState)


_ENDS = {"timed_out": "timed out", "cancelled": "was cancelled", "skipped": "was skipped"}


def tell_end(state: str) -> str:
    """`failed`, `timed out`, `was skipped`: what a task did, as a sentence has it."""
    return _ENDS.get(state, state)


_TOLD = {told: state for state in STATES for told in (state, tell_end(state))}


def read_end(text: str) -> str:
    """The state that `tell_end` has told, or that is written plainly; any other text as it is."""
    return _TOLD.get(text, text)
