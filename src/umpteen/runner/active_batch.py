"""A batch that the runner has open: its tasks, and what is left of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from umpteen.model.batch import BatchView
from umpteen.model.ranges import format_ranges
from umpteen.model.states import STATES
from umpteen.runner.lease import Kept
from umpteen.store.base import Appender
from umpteen.store.layout import RecordsKey

__all__ = ["ActiveBatch"]


_NOT_YET = 0xFF


class ActiveBatch:
    """One batch while it is worked on: its records file, and which tasks are still to come.

    todo: positions to run, after `alone`, which run one at a time because they ran when two
    runners died. states: by position, the number of its state in STATES, or 0xff. attempts:
    by task index, how many there were. fenced: outputs go below `attempts/`. finals: by task
    index, the state it came to in an earlier start. tries: by task index, records of attempts
    that another is to follow. own_attempts: indices of those that this start tried before.
    kept: by position, successes that a dead runner could not record, to be recorded now.
    labels: by task index, number and runner of its newest attempt before. unsure: indices of
    tasks of which an earlier attempt may have left outputs that no record tells of. is_orphan:
    whether it ends because what the engine had it watched by is gone.
    """

    def __init__(self, view: BatchView, key: RecordsKey, file: Appender) -> None:
        self.view, self.key, self.file = view, key, file
        self.todo: list[int] = []
        self.alone: list[int] = []
        self.kept: dict[int, Kept] = {}
        self.attempts: dict[int, int] = {}
        self.fenced = False
        self.finals: dict[int, int] = {}
        self.own_attempts: set[int] = set()
        self.labels: dict[int, tuple[int, str]] = {}
        self.unsure: set[int] = set()
        self.is_orphan = False
        self.tries: dict[int, list[dict[str, Any]]] = {}
        self.left = 0
        self.states = bytearray([_NOT_YET]) * len(view.runs)
        self.seconds = 0.0
        self.shown = b""
        self.shown_at_s = 0.0
        self.marked: Mapping[int, int] = {}  # what of the cancel mark was seen to
        self._positions: dict[int, int] = {}

    def find_position(self, index: int) -> int | None:
        """A task's place in the batch; None where it is not in it."""
        if not self._positions:
            self._positions = {each: place for place, each in enumerate(self.view.indices)}
        return self._positions.get(index)

    def is_done(self, position: int) -> bool:
        """Whether this start has recorded the task."""
        return self.states[position] != _NOT_YET

    def build_end(self) -> dict[str, Any]:
        """The closing line: which task of this start came to which state."""
        states = {}
        for number, state in enumerate(STATES):
            positions = [p for p, found in enumerate(self.states) if found == number]
            if positions:
                states[state] = format_ranges(sorted(self.view.indices[p] for p in positions))
        end = {
            "event": "end",
            "time": round(time.time(), 3),
            "left": self.left,
            "seconds": round(self.seconds, 3),
            "states": states,
        }
        return {**end, "orphan": True} if self.is_orphan else end
