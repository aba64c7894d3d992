"""Which tasks of a job run again, each by what became of it. Pure: touches no file."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from umpteen.history.history import SUCCEEDED, BatchHistory, History
from umpteen.job.spec import Task
from umpteen.model.states import IS_FINAL, STATES

__all__ = [
    "RERUN_CHOICES",
    "Choice",
    "Chooser",
    "Chosen",
    "find_other_code",
    "list_code",
    "takes_behind",
]

# Of a task's index and the task, whether it is asked for.
Chosen = Callable[[int, Task], bool]

RERUN_CHOICES = ("default", "all", "failed", "changed", "behind", "code", "none")

_FAILURES = frozenset({"failed", "timed_out", "cancelled", "skipped"})

# Which of a task's conditions make it run, by what --rerun says.
_RERUN = {
    "default": {"new", "unfinished", "gone", "changed", "behind", *_FAILURES},
    "all": {"new", "unfinished", "gone", "changed", "behind", "succeeded", *_FAILURES},
    "code": {"new", "unfinished", "gone", "changed", "behind", "code", *_FAILURES},
    "failed": {*_FAILURES},
    "changed": {"changed"},
    "behind": {"behind"},
    "none": {"new"},
    "retry": {"behind", *_FAILURES},
    # What is left of a job that this process ran: nothing a second time.
    "rest": {"new", "unfinished", "gone", "changed", "behind"},
    "left": {"new", "unfinished", "gone", "changed"},
}


def takes_behind(rerun: str) -> bool:
    """Whether tasks that are behind run again."""
    return "behind" in _RERUN[rerun]


class Choice(NamedTuple):
    """Which of the tasks that were asked for run, and how many are left alone."""

    # Indices, in the order of the job.
    to_run: Sequence[int]
    # How many of them for which reason.
    why: dict[str, int]
    # How many tasks a living batch has, how many are done, and how many did not succeed and are
    # left alone.
    running: int = 0
    done: int = 0
    left_failed: int = 0


class Chooser:
    """Judges each task by its state, and by whether somebody runs it."""

    def __init__(
        self,
        history: History,
        living: Collection[str],
        rerun: str,
        changed: Collection[int],
        begun: Collection[int] | None,
        synced: Sequence[Sequence[Any]],
    ) -> None:
        """begun: as in KnownTasks. synced: the folders that the job has synced now."""
        self.history, self.changed, self.begun = history, changed, begun
        # Numbers of batches that somebody runs, and of those that had other code.
        self.living = history.numbers_of(living)
        self.other_code = find_other_code(history, synced)
        self.wanted = _RERUN[rerun]

    def choose(self, indices: Sequence[int], tasks: Sequence[Task], only: Chosen | None) -> Choice:
        """Of the tasks at these indices, those that are asked for and have a reason to run."""
        if not self.history.count and "new" in self.wanted and only is None:
            return Choice(indices, {"new": len(indices)} if len(indices) else {})
        if self._have_all_succeeded(indices):
            return Choice([], {}, done=len(indices))
        why: dict[str, int] = {}
        to_run = array("I")
        running = done = left_failed = 0
        for position, index in enumerate(indices):
            condition = self._judge(index)
            if only is not None and not only(index, tasks[position]):
                left_failed += condition in _FAILURES
            elif condition == "running":
                running += 1
            elif condition in self.wanted:
                to_run.append(index)
                why[condition] = why.get(condition, 0) + 1
            elif condition in _FAILURES:
                left_failed += 1
            elif condition == "succeeded":
                done += 1
        return Choice(to_run, why, running, done, left_failed)

    def count_other_code(self, indices: Sequence[int], to_run: Sequence[int]) -> int:
        """How many of those that are done and left alone were done with other code."""
        history = self.history
        if not self.other_code:
            return 0
        runs = set(to_run)
        return sum(
            index < history.count
            and history.states[index] == SUCCEEDED
            and history.batch_of[index] in self.other_code
            and index not in runs
            for index in indices
        )

    def is_open(self, index: int) -> bool:
        """Whether a task has come to no end, and nobody runs it."""
        return self._judge(index) in ("new", "unfinished", "gone", "changed")

    def _have_all_succeeded(self, indices: Sequence[int]) -> bool:
        """Whether all tasks are done and stay so; told without a look at each, as most jobs that
        are submitted again are like that.
        """
        states = self.history.states
        return (
            "succeeded" not in self.wanted
            and not ("code" in self.wanted and self.other_code)
            and not self.changed
            and isinstance(indices, range)
            and len(indices) <= len(states)
            and states.count(SUCCEEDED, 0, len(indices)) == len(indices)
        )

    def _judge(self, index: int) -> str:
        """A task's condition, as _RERUN has it, or `running`."""
        if index >= self.history.count:
            return "new"
        state = self.history.states[index]
        if not IS_FINAL[state] and self.history.batch_of[index] in self.living:
            return "running"
        if index in self.changed:
            return "changed"
        if state == SUCCEEDED:
            is_other = "code" in self.wanted and self.history.batch_of[index] in self.other_code
            return "code" if is_other else "succeeded"
        if index in self.history.gone:
            return "gone"
        if IS_FINAL[state]:
            return STATES[state]
        was_submitted = self.history.batch_of[index] >= 0
        has_begun = self.begun is None or index in self.begun
        return "unfinished" if was_submitted and has_begun else "new"


def find_other_code(history: History, synced: Sequence[Sequence[Any]]) -> frozenset[int]:
    """The numbers of batches that ran with other synced folders than these, by their digests."""
    now = sorted(digest for digest, *_ in synced)
    return frozenset(
        batch.number
        for batch in history.batches.values()
        if now and (before := list_code(batch)) and sorted(before) != now
    )


def list_code(batch: BatchHistory) -> list[str]:
    """The digests of what was synced for a batch."""
    return [str(digest) for digest, *_ in batch.settings.get("synced") or ()]
