"""The batches that a runner has open, and what is left of each: until its last task is recorded.

Says what their tasks need, makes the tickets of those that start, notes what each came to and
what follows from that for others, and ends a batch of which nothing is left. It is told
what happened; the lanes run the commands. Standard library alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

from umpteen.errors import StoreError
from umpteen.model.reasons import Reason, write_reason
from umpteen.model.record import RecordLine
from umpteen.model.retries import Again, plan_retry
from umpteen.model.states import NUMBER_OF, TaskState
from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.batch_start import Opener
from umpteen.runner.heartbeat import Heartbeat
from umpteen.runner.lanes.group import Lanes
from umpteen.runner.lanes.protocol import OrderKind, TaskKey
from umpteen.runner.recorder import Recorder
from umpteen.runner.scheduler import (
    Assignment,
    NeverStarted,
    Resources,
    Scheduler,
    Tasks,
    build_needs,
)
from umpteen.runner.upstream import Upstream
from umpteen.system.resources import Capacity

__all__ = ["FAILURES", "SUCCEEDED", "ActiveBatches"]

SUCCEEDED = NUMBER_OF[TaskState.SUCCEEDED.value]
FAILURES = frozenset({NUMBER_OF[TaskState.FAILED.value], NUMBER_OF[TaskState.TIMED_OUT.value]})

_CANCELLED = NUMBER_OF[TaskState.CANCELLED.value]


class ActiveBatches:
    """The open batches of one runner.

    open: by their place in the runner's list. scheduler: their tasks that have not started.
    deadline_s: when the first of them is to be ended, on the monotonic clock. did_fail: whether
    a task came to another end than success. given_up: why nothing more is to be started.
    has_graph, has_rules: whether tasks wait for others, or may run again. gives_back: whether a
    task that needs more memory than we were given is left to another start, which may get it.
    """

    def __init__(
        self,
        opener: Opener,
        capacity: Capacity,
        slots: int,
        lanes: Lanes,
        recorder: Recorder,
        heartbeat: Heartbeat,
        upstream: Upstream,
    ) -> None:
        self.opener, self.lanes, self.recorder = opener, lanes, recorder
        self.heartbeat, self.upstream = heartbeat, upstream
        self.open: dict[int, ActiveBatch] = {}
        self.scheduler = Scheduler(capacity, slots, self._name_task)
        self.deadline_s = float("inf")
        self.failures = 0
        self.gives_back = False
        self.did_fail = self.has_graph = self.has_rules = self.is_orphan = False
        self.given_up = ""
        self._names: dict[int, str] = {}  # of those that may have to be told of, by index

    # --- their beginning ----------------------------------------------------------------

    def add(self, ordinal: int, active: ActiveBatch) -> None:
        """Have a batch that was opened, though none of its tasks may come to run."""
        self.open[ordinal] = active
        self.recorder.begin(active.file)

    def activate(self, ordinal: int, active: ActiveBatch) -> None:
        """Have a batch that was opened, and do what it says of itself and of the job."""
        self.add(ordinal, active)
        view = active.view
        if view.deadline_s:
            self.deadline_s = min(self.deadline_s, time.monotonic() + view.deadline_s - time.time())
        self.failures += sum(state in FAILURES for state in active.finals.values())
        self.did_fail |= any(state != SUCCEEDED for state in active.finals.values())
        self.has_graph |= view.has_graph
        self.has_rules |= any("retries" in extra for extra in (view.common, *view.extras.values()))
        self.scheduler.is_tight |= bool(view.max_failures) or view.has_priorities
        if view.has_graph:
            for index, state in active.finals.items():
                if state != SUCCEEDED:
                    self._names[index] = self._name_task(index)
                self.scheduler.task_ended(index, state)

    def read_upstream(self, batches: set[str]) -> None:
        """What came of tasks that ours wait for, in batches that others have."""
        for index, state in self.upstream.read(batches):
            self.scheduler.task_ended(index, state)

    def reread_upstream(self) -> None:
        """The same for all from which more may come."""
        if self.upstream.waited_for:
            self.read_upstream(set(self.upstream.waited_for))

    @property
    def waits_for_others(self) -> bool:
        """Whether more may come of tasks that ours wait for, in batches that others have."""
        return bool(self.upstream.waited_for)

    def enqueue(self, ordinal: int, active: ActiveBatch) -> None:
        """Have the tasks of a batch run."""
        self.scheduler.open(ordinal, self._list_tasks(active))

    def _list_tasks(self, active: ActiveBatch) -> Tasks:
        view = active.view
        seconds = self._find_seconds(active) if self.scheduler.knows_end else {}
        if not (active.alone or view.extras or view.common):
            return Tasks(active.todo, {}, view.after, view.barriers, seconds)
        alone = set(active.alone)
        needs = {
            position: found
            for position in (*active.alone, *active.todo)
            if (found := self._find_needs(active, position, alone=position in alone))
        }
        return Tasks([*active.alone, *active.todo], needs, view.after, view.barriers, seconds)

    def _find_seconds(self, active: ActiveBatch) -> dict[int, float]:
        """What tasks took before."""
        indices = active.view.indices
        return {
            position: active.seconds[indices[position]]
            for position in (*active.alone, *active.todo)
            if indices[position] in active.seconds
        }

    def _find_needs(self, active: ActiveBatch, position: int, *, alone: bool) -> Resources | None:
        """As the task says, or as its rules say after attempts of an earlier start."""
        terms = active.view.terms_of(position)
        needs = build_needs(terms, alone=alone) or Resources()
        tries = active.tries.get(active.view.indices[position], ())
        if again := plan_retry(terms.get("retries", ()), tries, needs.memory):
            needs = self._adapt(needs, again)
        return needs if any(needs) else None

    def _adapt(self, needs: Resources, again: Again) -> Resources:
        """What the next attempt needs; as much memory as there is has to do."""
        memory = min(again.memory or 0, self.scheduler.capacity.memory)
        return needs._replace(memory=memory, alone=needs.alone or again.alone)

    # --- their tasks --------------------------------------------------------------------

    def build_ticket(self, assignment: Assignment) -> bytes:
        """What a lane has to know of a task that is to start."""
        ordinal, position, devices = assignment
        return self.open[ordinal].build_ticket((ordinal, position), devices).encode()

    def try_again(self, key: TaskKey, record: RecordLine, again: Again) -> None:
        """Have a task whose attempt failed run once more, as its rules say."""
        active = self.open[key[0]]
        active.attempt_failed(record)
        is_left = self.gives_back and (again.memory or 0) > self.scheduler.capacity.memory
        if not self.lanes.is_fed and not is_left:
            needs = self._adapt(build_needs(active.view.terms_of(key[1])) or Resources(), again)
            at_s = time.monotonic() + again.wait_s
            seconds = record.get("seconds", 0.0)
            self.scheduler.requeue(key, at_s, needs if any(needs) else None, seconds)

    def cancel_task(self, key: TaskKey) -> None:
        """Have one that no lane runs, and that is not in the queue, recorded as cancelled."""
        self.scheduler.never_started.append(NeverStarted(*key, TaskState.CANCELLED.value, ""))

    def record_end(self, active: ActiveBatch, position: int, state: int) -> None:
        """Note what a task came to, and what follows from that for others."""
        if not active.record_end(position, state):  # this runner ended it
            return
        if self.has_graph:
            index = active.view.indices[position]
            if state != SUCCEEDED:
                self._names[index] = active.view.names[position]
            self.scheduler.task_ended(index, state)
        if state == SUCCEEDED:
            return
        self.did_fail = True
        self.failures += state in FAILURES
        limit = active.view.max_failures
        if limit and self.failures >= limit and not self.given_up:
            self.given_up = write_reason(Reason.TOO_MANY_FAILURES, failures=self.failures)
            self.lanes.close_tickets()
            if active.view.fail_fast:
                self.lanes.order(OrderKind.CANCEL_ALL)

    def record_never_started(self) -> None:
        """Record the tasks that will never start, and those that follow from them.

        Batches of which nothing is left are ended.
        """
        while self.scheduler.never_started:
            never_started, self.scheduler.never_started = self.scheduler.never_started, []
            for ordinal, position, state, reason in never_started:
                active = self.open[ordinal]
                record = active.build_record(position, state, reason)
                self.recorder.append(active.file, record.to_line().encode() + b"\n")
                self.record_end(active, position, NUMBER_OF[state])
        for ordinal in [ordinal for ordinal, active in self.open.items() if not active.left]:
            self.end(ordinal)

    def _name_task(self, index: int) -> str:
        if index in self._names:
            return self._names[index]
        for active in self.open.values():
            position = active.find_position(index)
            if position is not None:
                return active.view.names[position]
        return self.upstream.find_name(index) or f"task {index}"

    # --- their end ----------------------------------------------------------------------

    def mark_orphaned(self) -> None:
        """Have the ends say that what the engine had the runner watched by is gone."""
        self.is_orphan = True

    def end(self, ordinal: int) -> None:
        """Close a batch, whatever is left of it."""
        active = self.open.pop(ordinal)
        self.did_fail |= _CANCELLED in active.states
        if active.is_fenced:
            with contextlib.suppress(OSError, StoreError):
                self.opener.move_fenced(active)
        if self.is_orphan:
            active.mark_orphaned()
        self.recorder.append(active.file, active.build_end())
        self.recorder.end(active.file)
        self.heartbeat.remove_running(ordinal, active)

    def cancel_rest(self, unopened: Iterable[tuple[int, ActiveBatch]]) -> None:
        """Record as cancelled what was not started, here and in batches that are opened for it."""
        for active in self.open.values():
            active.record_cancelled(self.given_up)
        for ordinal, active in unopened:
            active.record_cancelled(self.given_up)
            self.add(ordinal, active)
