"""Which task of a runner's batches starts next: in order, as far as it may and there is room.

Knows dependencies, what tasks need, and what the machine has. Is told what came to an end;
reads and writes nothing. Standard library alone.
"""

from __future__ import annotations

import bisect
import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

from umpteen.model.dependencies import FREE, OUTCOMES, link, meets
from umpteen.model.forms import parse_ranges
from umpteen.model.reasons import Reason, write_after, write_reason
from umpteen.model.states import IS_FINAL, NUMBER_OF, STATES, TaskState
from umpteen.system.resources import Capacity, in_bytes, list_lacks

__all__ = [
    "Assignment",
    "NeverStarted",
    "Resources",
    "Scheduler",
    "Tasks",
    "build_needs",
]

_UNKNOWN = 0xFF
_NEVER_S = float("inf")
_SUCCEEDED = NUMBER_OF[TaskState.SUCCEEDED.value]
_PASSED_MOST = 2  # times the slots: so many may start before a task that waits for room
_Key = tuple[int, int]  # a batch's place in the runner's list, a task's place in the batch


class Resources(NamedTuple):
    """What one attempt takes of the machine; 0: not said. memory: bytes."""

    cpus: int = 0
    memory: int = 0
    gpus: int = 0
    alone: bool = False


def build_needs(extra: Mapping[str, Any], *, alone: bool = False) -> Resources | None:
    """What a task's part of the batch file says that it needs; None where it says nothing."""
    needs = Resources(extra.get("cpus", 0), extra.get("memory", 0), extra.get("gpus", 0), alone)
    return needs if any(needs) else None


class Tasks(NamedTuple):
    """The tasks of one batch that are to run, by position.

    needs: of those that need anything. after: by position, the number of the barrier that a
    task is behind, FREE, or the `link` of the index of the one task whose success it waits
    for; empty where none waits. barriers: each with indices as ranges by outcome, or with
    `doomed`: why it will never open. seconds: what those took that ran before.
    """

    todo: Sequence[int]
    needs: Mapping[int, Resources]
    after: Sequence[int]
    barriers: Sequence[Mapping[str, str]]
    seconds: Mapping[int, float] = {}


class Assignment(NamedTuple):
    """A task to start, and the devices it may use as a mask of places in Capacity.gpus."""

    ordinal: int
    position: int
    devices: int


class NeverStarted(NamedTuple):
    """A task that comes to its end without being started."""

    ordinal: int
    position: int
    state: str
    reason: str


class _Barrier:
    """Tasks that wait for others: for how many still, and what has gone against them."""

    __slots__ = ("left", "reason", "waiting")

    def __init__(self, reason: str) -> None:
        self.left, self.reason = 0, reason
        self.waiting: list[_Key] = []


class Scheduler:
    """The tasks of open batches that have not started.

    slots: how many may run at once. name_of: tells a task's name by its index. is_tight: a task
    is given out only when a slot is free for it; else as many as are asked for, to wait in a
    pipe. never_started: tasks that will never start, for the caller to take from here.
    """

    def __init__(self, capacity: Capacity, slots: int, name_of: Callable[[int], str]) -> None:
        self.capacity, self.slots, self.name_of = capacity, slots, name_of
        self.is_tight = self.counts_cpus = False
        self.never_started: list[NeverStarted] = []
        self.under_way = 0
        self.lines: dict[Resources | None, deque[_Key]] = {}
        self.due: list[tuple[float, _Key]] = []
        self.needs_of: dict[_Key, Resources] = {}
        self.using: dict[_Key, tuple[Resources, int]] = {}
        self.cpus = self.memory = self.devices = self.passed = 0
        self.is_alone = False
        self.end_s, self.most_s = _NEVER_S, 0.0
        self.longest: list[tuple[float, _Key]] = []  # what tasks took before, the longest last
        self.has_begun = False
        self.too_long: set[_Key] = set()  # for what is left of the time
        self.states = bytearray()
        self.blocked: set[_Key] = set()
        self.shared: dict[tuple[str, ...], _Barrier] = {}
        self.watching: dict[int, list[tuple[_Barrier, str]]] = {}

    def end_at(self, end_s: float, began_s: float) -> None:
        """Start nothing any more that took longer before than is left until then.

        Both on the monotonic clock. What would not even fit in between is started all the same.
        """
        self.end_s, self.most_s = end_s, end_s - began_s

    @property
    def knows_end(self) -> bool:
        """Whether there is a time when everything is ended."""
        return self.end_s < _NEVER_S

    # --- what comes in ----------------------------------------------------------------

    def open(self, ordinal: int, tasks: Tasks) -> None:
        """Take in the tasks of one batch."""
        if not tasks.todo:
            return
        self._note_seconds({(ordinal, p): seconds for p, seconds in tasks.seconds.items()})
        if not tasks.needs and not tasks.after:
            self.lines.setdefault(None, deque()).extend((ordinal, p) for p in tasks.todo)
            return
        behind: dict[int, list[_Key]] = {}
        for position in tasks.todo:
            key = (ordinal, position)
            if position in tasks.needs and not self._note_needs(key, tasks.needs[position]):
                continue
            barrier = tasks.after[position] if tasks.after else FREE
            if barrier == FREE:
                self._enqueue(key)
            else:
                behind.setdefault(barrier, []).append(key)
        for number, keys in behind.items():
            is_link = number < FREE
            given = {"succeeded": str(link(number))} if is_link else tasks.barriers[number]
            self._put_behind(given, keys)

    def _note_seconds(self, seconds: Mapping[_Key, float]) -> None:
        """What tasks took before: from now on it is looked at as each starts."""
        if not self.knows_end or not seconds:
            return
        self.is_tight = True
        fitting = [(s, key) for key, s in seconds.items() if s <= self.most_s]
        self.longest = sorted([*self.longest, *fitting])

    def _note_needs(self, key: _Key, needs: Resources) -> bool:
        """False, and the task never started, where the machine can never have what it needs."""
        lacks = list_lacks(needs.cpus, needs.gpus, needs.memory, self.capacity)
        for wanted, most, what in map(in_bytes, lacks):
            reason = write_reason(Reason.TOO_LARGE, wanted=wanted, what=what, most=most)
            self.never_started.append(NeverStarted(*key, TaskState.FAILED.value, reason))
            return False
        self.needs_of[key] = needs
        self.is_tight = True
        self.counts_cpus |= needs.cpus > 0
        return True

    def _enqueue(self, key: _Key, *, first: bool = False) -> None:
        line = self.lines.setdefault(self.needs_of.get(key), deque())
        if first:
            line.appendleft(key)
        elif self.is_tight and line and key < line[-1]:  # else it would wait behind lesser ones
            line.insert(bisect.bisect_left(line, key), key)
        else:
            line.append(key)

    def _put_behind(self, given: Mapping[str, str], keys: list[_Key]) -> None:
        content = tuple(given.get(name, "") for name in (*OUTCOMES, "doomed"))
        barrier = self.shared.get(content)
        if barrier is None:
            barrier = self.shared[content] = _Barrier(given.get("doomed", ""))
            for outcome, ranges in zip(OUTCOMES, content):
                for index in (index for part in parse_ranges(ranges) for index in part):
                    self._wait_for(barrier, outcome, index)
        barrier.waiting += keys
        self.blocked.update(keys)
        self._release(barrier)

    def _wait_for(self, barrier: _Barrier, outcome: str, index: int) -> None:
        state = self.states[index] if index < len(self.states) else _UNKNOWN
        if state == _UNKNOWN:
            self.watching.setdefault(index, []).append((barrier, outcome))
            barrier.left += 1
        else:
            self._judge(barrier, outcome, index, state)

    def _judge(self, barrier: _Barrier, outcome: str, index: int, state: int) -> None:
        """Note where what a task came to is not what was asked of it."""
        if not barrier.reason and not meets(outcome, STATES[state]):
            barrier.reason = write_after(self.name_of(index), STATES[state])

    def requeue(
        self, key: _Key, at_s: float, needs: Resources | None, seconds: float = 0.0
    ) -> None:
        """A task that ended is to run again at a time of the monotonic clock.

        seconds: that it took.
        """
        self._note_seconds({key: seconds})
        if needs:
            here = self.capacity
            needs = needs._replace(memory=min(needs.memory, here.memory))
            self._note_needs(key, needs)
        heapq.heappush(self.due, (at_s, key))

    # --- what goes out ----------------------------------------------------------------

    def take(self, now_s: float) -> Assignment | None:
        """The next task; None where none may start now."""
        while self.due and self.due[0][0] <= now_s:
            self._enqueue(heapq.heappop(self.due)[1], first=True)
        if self.longest:
            self._drop_what_is_too_long(now_s)
        if not self.lines:
            return None
        if not self.is_tight:
            line = self.lines[None]
            ordinal, position = line.popleft()
            if not line:
                del self.lines[None]
            self.under_way += 1
            self.has_begun = True
            return Assignment(ordinal, position, 0)
        return self._take_what_fits()

    def _drop_what_is_too_long(self, now_s: float) -> None:
        """Leave to a later start what cannot end in time; a first one starts, so that some does."""
        too_long: set[_Key] = set()
        while self.longest and self.has_begun and now_s + self.longest[-1][0] > self.end_s:
            too_long.add(self.longest.pop()[1])
        if too_long:
            self.too_long |= self.drop(too_long)

    def _take_what_fits(self) -> Assignment | None:
        """The first that fits; small ones pass a big one only so often."""
        if self.under_way >= self.slots:
            return None
        for place, needs in enumerate(sorted(self.lines, key=lambda n: self.lines[n][0])):
            wanted = needs or Resources()
            if self._fits(wanted):
                self.passed = self.passed + 1 if place else 0
                return self._give(needs, wanted)
            if not place and self.passed >= _PASSED_MOST * self.slots:
                return None
        return None

    def _fits(self, needs: Resources) -> bool:
        here = self.capacity
        if self.is_alone or (needs.alone and self.under_way):
            return False
        uncounted = self.under_way - len(self.using)  # given out before anybody stated cpus
        if self.counts_cpus and self.cpus + uncounted + (needs.cpus or 1) > here.cpus:
            return False
        if self.memory + needs.memory > here.memory:
            return False
        return needs.gpus <= len(here.gpus) - bin(self.devices).count("1")

    def _give(self, line: Resources | None, needs: Resources) -> Assignment:
        key = self.lines[line].popleft()
        if not self.lines[line]:
            del self.lines[line]
        devices = 0
        for place in range(len(self.capacity.gpus)):
            if bin(devices).count("1") < needs.gpus and not self.devices >> place & 1:
                devices |= 1 << place
        self._use(needs, devices, 1)
        self.using[key] = (needs, devices)
        self.under_way += 1
        self.has_begun = True
        return Assignment(*key, devices)

    def _use(self, needs: Resources, devices: int, sign: int) -> None:
        self.cpus += sign * (needs.cpus or 1)
        self.memory += sign * needs.memory
        self.devices ^= devices
        self.is_alone = needs.alone and sign > 0

    # --- what came to an end ------------------------------------------------------------

    def end(self, key: _Key) -> None:
        """An attempt is over, whatever its outcome; what it used is free."""
        self.under_way -= 1
        if self.using and key in self.using:
            self._use(*self.using.pop(key), -1)

    def task_ended(self, index: int, state: int) -> None:
        """A task has come to its end: what waits for it may start, or never will."""
        if index >= len(self.states):
            self.states.extend(bytes([_UNKNOWN]) * (index + 1 - len(self.states)))
        if not IS_FINAL[state] or self.states[index] == _SUCCEEDED:
            return
        self.states[index] = state
        for barrier, outcome in self.watching.pop(index, ()):
            barrier.left -= 1
            self._judge(barrier, outcome, index, state)
            self._release(barrier)

    def _release(self, barrier: _Barrier) -> None:
        if barrier.left and not barrier.reason:
            return
        waiting, barrier.waiting = barrier.waiting, []
        for key in waiting:
            if key not in self.blocked:
                continue
            self.blocked.discard(key)
            if barrier.reason:
                self.never_started.append(
                    NeverStarted(*key, TaskState.SKIPPED.value, barrier.reason)
                )
            else:
                self._enqueue(key)

    def drop(self, keys: set[_Key]) -> set[_Key]:
        """Forget those of the tasks that have not been given out; which these were."""
        found = (self.blocked | self.too_long) & keys
        self.blocked -= found
        self.too_long -= found
        for needs, line in list(self.lines.items()):
            kept = deque(key for key in line if key not in keys)
            found.update(key for key in line if key in keys)
            self.lines[needs] = kept
            if not kept:
                del self.lines[needs]
        found.update(key for _, key in self.due if key in keys)
        self.due = [entry for entry in self.due if entry[1] not in keys]
        heapq.heapify(self.due)
        return found

    @property
    def is_ready(self) -> bool:
        """Whether there is something that could start if there were room."""
        return bool(self.lines)

    @property
    def is_empty(self) -> bool:
        """Whether everything has been given out."""
        return not (self.lines or self.due or self.blocked or self.never_started)

    def until_due_s(self, now_s: float) -> float:
        """Seconds until a task comes back; infinite where none does."""
        return max(0.0, self.due[0][0] - now_s) if self.due else float("inf")
