"""A batch that the runner works on: its tasks, and what is left of them.

Nobody but a batch changes what it knows of itself: the others call its methods.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from umpteen.model.batch import BatchView
from umpteen.model.ranges import find_ranges
from umpteen.model.record import Record, RecordLine
from umpteen.model.states import NUMBER_OF, STATES, TaskState
from umpteen.runner.lanes.protocol import TaskKey, Ticket
from umpteen.runner.leftovers import Kept
from umpteen.store.base import Appender
from umpteen.store.layout import RecordsKey
from umpteen.store.records import EndLine

__all__ = ["ActiveBatch", "Past"]

_NOT_YET = 0xFF  # in place of the number of a state
_WAITING = NUMBER_OF[TaskState.WAITING.value]


class Past(NamedTuple):
    """What earlier starts of a batch did, and so what is left to do; tasks by their index."""

    todo: list[int]  # positions to run
    # Positions that run one at a time, before the others: they ran when two runners died.
    alone: list[int]
    attempts: dict[int, int]  # how many there were
    labels: dict[int, tuple[int, str]]  # number and runner of the newest attempt
    finals: dict[int, int]  # the number of the state that it came to
    tries: dict[int, list[RecordLine]]  # records of attempts that another is to follow
    # Tasks of which an attempt may have left outputs that no record names.
    unsure: set[int]
    seconds: dict[int, float]  # what the newest attempt took, or ran for until it was ended
    killer: int | None = None  # the position of the task that killed three runners


class ActiveBatch:
    """One start of a batch: its records file, and which of its tasks are still to come."""

    def __init__(
        self,
        view: BatchView,
        key: RecordsKey,
        file: Appender,
        past: Past,
        kept: Mapping[int, Kept],
        *,
        is_fenced: bool,
    ) -> None:
        self.view, self.key = view, key
        self.file = file  # of its records
        self.is_fenced = is_fenced  # outputs go below `attempts/`: an earlier start may live
        # By position, successes that a dead runner could not record: to be recorded now.
        self.kept = kept
        self.todo = [position for position in past.todo if position not in kept]
        self.alone, self.finals = past.alone, past.finals
        self.tries, self.unsure = past.tries, past.unsure
        self.left = len(past.alone) + len(past.todo)  # tasks without a final state
        self.states = bytearray([_NOT_YET]) * len(view.runs)  # by position, numbers or 0xff
        self._attempts, self._labels = past.attempts, past.labels
        self.seconds = past.seconds
        self._own_attempts: set[int] = set()  # indices of the tasks that this start tried before
        self._seconds = 0.0  # of all attempts together
        self._is_orphan = False  # it ends because what the engine had it watched by is gone
        self._positions: dict[int, int] = {}  # by index, once they were asked for

    # --- its tasks ----------------------------------------------------------------------

    def find_position(self, index: int) -> int | None:
        """A task's place in the batch; None where it is not in it."""
        if not self._positions:
            self._positions = {each: place for place, each in enumerate(self.view.indices)}
        return self._positions.get(index)

    def is_done(self, position: int) -> bool:
        """Whether this start has recorded the task."""
        return self.states[position] != _NOT_YET

    def count_attempts(self, index: int) -> int:
        """How often a task was tried, in all starts."""
        return self._attempts.get(index, 0)

    def build_ticket(self, key: TaskKey, devices: int) -> Ticket:
        """What a lane has to know of a task that is to start."""
        index = self.view.indices[key[1]]
        attempt = self._attempts.get(index, 0) + 1
        is_again = bool(self._own_attempts) and index in self._own_attempts
        return Ticket(*key, attempt, self.is_fenced, is_again, devices)

    def build_record(self, position: int, state: str, reason: str = "") -> Record:
        """For a task that comes to its end without being run."""
        index = self.view.indices[position]
        now = round(time.time(), 3)
        return Record(
            task=index,
            digest=self.view.digest(position),
            attempt=self._attempts.get(index, 0) + 1,
            state=state,
            start_s=now,
            end_s=now,
            reason=reason,
        )

    def take_label(self, index: int) -> tuple[int, str] | None:
        """Number and runner of the attempt whose outputs are in a task's folder, told once."""
        return self._labels.pop(index, None)

    # --- what happens to them ---------------------------------------------------------------

    def add_todo(self, position: int) -> None:
        """Have one more of its tasks run."""
        self.todo.append(position)

    def attempt_failed(self, record: RecordLine) -> None:
        """An attempt has failed, and another is to follow."""
        index = record["task"]
        self.tries.setdefault(index, []).append(record)
        self._attempts[index] = record["attempt"]
        self._own_attempts.add(index)

    def add_seconds(self, seconds: float) -> None:
        """An attempt took so long."""
        self._seconds += seconds

    def record_end(self, position: int, state: int) -> bool:
        """A task has come to a state; whether to its end, else another start goes on with it."""
        self.states[position] = state
        is_final = state != _WAITING
        self.left -= is_final
        return is_final

    def record_cancelled(self, reason: str = "", only: Container[int] | None = None) -> None:
        """Record what was not run, or `only` these task indices of it, as cancelled."""
        indices = self.view.indices
        chosen = [
            position
            for position in sorted([*self.alone, *self.todo])
            if not self.is_done(position) and (only is None or indices[position] in only)
        ]
        self.record_unrun(chosen, TaskState.CANCELLED.value, reason)
        self.left = 0 if only is None else self.left - len(chosen)
        dropped = set(chosen)
        self.alone = [position for position in self.alone if position not in dropped]
        self.todo = [position for position in self.todo if position not in dropped]

    def record_unrun(self, positions: Iterable[int], state: str, reason: str) -> None:
        """Record tasks that come to their end without being run."""
        lines = []
        for position in positions:
            lines.append(self.build_record(position, state, reason).to_line() + "\n")
            self.states[position] = NUMBER_OF[state]
        self.file.append("".join(lines).encode())

    # --- its end ------------------------------------------------------------------------

    def mark_orphaned(self) -> None:
        """Have its end say that what the engine had the runner watched by is gone."""
        self._is_orphan = True

    def build_end(self) -> bytes:
        """The closing line: which task of this start came to which state."""
        states = {}
        for number, state in enumerate(STATES):
            positions = [p for p, found in enumerate(self.states) if found == number]
            if positions:
                states[state] = find_ranges(sorted(self.view.indices[p] for p in positions))
        end = EndLine(
            round(time.time(), 3), self.left, round(self._seconds, 3), states, self._is_orphan
        )
        return end.to_line()
