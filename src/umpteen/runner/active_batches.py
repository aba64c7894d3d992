"""The batches that a runner has open, and what is left of each: until its last task is recorded.

Says what their tasks need, makes the tickets of those that start, notes what each came to and
what follows from that for others, and ends a batch of which nothing is left. Is told what
happened; the commands themselves are the lanes'. Standard library alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import Any

from umpteen.errors import StoreError
from umpteen.model.states import NUMBER_OF, TaskState
from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.batch_start import Opener
from umpteen.runner.heartbeat import Heartbeat
from umpteen.runner.lanes.group import Lanes
from umpteen.runner.lanes.protocol import AGAIN, CANCEL_ALL, FENCED, TICKET
from umpteen.runner.recorder import Recorder
from umpteen.runner.retries import Again, plan_retry
from umpteen.runner.scheduler import NeverStarted, Resources, Scheduler, Tasks, build_needs
from umpteen.runner.upstream import Upstream
from umpteen.store.records import build_line

__all__ = ["FAILURES", "SUCCEEDED", "ActiveBatches"]

SUCCEEDED = NUMBER_OF[TaskState.SUCCEEDED.value]
FAILURES = frozenset({NUMBER_OF[TaskState.FAILED.value], NUMBER_OF[TaskState.TIMED_OUT.value]})

_WAITING = NUMBER_OF[TaskState.WAITING.value]
_CANCELLED = NUMBER_OF[TaskState.CANCELLED.value]


class ActiveBatches:
    """The open batches of one runner.

    open: by their place in the runner's list. queue: their tasks that have not started.
    deadline_s: when the first of them is to be ended, on the monotonic clock. did_fail: whether
    a task came to another end than success. given_up: why nothing more is to be started.
    has_graph, has_rules: whether tasks wait for others, or may run again.
    """

    def __init__(
        self,
        opener: Opener,
        lanes: Lanes,
        recorder: Recorder,
        others: Heartbeat,
        foreign: Upstream,
    ) -> None:
        self.opener, self.lanes, self.recorder = opener, lanes, recorder
        self.others, self.foreign = others, foreign
        self.open: dict[int, ActiveBatch] = {}
        self.queue = Scheduler(lanes.capacity, lanes.work.slots, self._name_task)
        self.deadline_s = float("inf")
        self.failures = 0
        self.did_fail = self.has_graph = self.has_rules = self.is_orphan = False
        self.given_up = ""
        self._names: dict[int, str] = {}  # of those that may have to be told of, by index

    # --- their beginning ----------------------------------------------------------------

    def add(self, ordinal: int, opened: ActiveBatch) -> None:
        """Have a batch that was opened, though none of its tasks may come to run."""
        self.open[ordinal] = opened
        self.recorder.begin(opened.file)

    def take_on(self, ordinal: int, opened: ActiveBatch) -> None:
        """Have a batch that was opened, and heed what it says of itself and of the job."""
        self.add(ordinal, opened)
        view = opened.view
        if view.deadline_s:
            self.deadline_s = min(self.deadline_s, time.monotonic() + view.deadline_s - time.time())
        self.failures += sum(state in FAILURES for state in opened.finals.values())
        self.did_fail |= any(state != SUCCEEDED for state in opened.finals.values())
        self.has_graph |= view.has_graph
        self.has_rules |= any("retries" in extra for extra in (view.common, *view.extras.values()))
        self.queue.is_tight |= bool(view.max_failures) or view.has_priorities
        if view.has_graph:
            for index, state in opened.finals.items():
                if state != SUCCEEDED:
                    self._names[index] = self._name_task(index)
                self.queue.learn(index, state)

    def learn_of(self, batches: set[str]) -> None:
        """What came of tasks that ours wait for, in batches that others have."""
        for index, state in self.foreign.read(batches):
            self.queue.learn(index, state)

    def learn_of_others(self) -> None:
        """The same for all from which more may come."""
        if self.foreign.waited_for:
            self.learn_of(set(self.foreign.waited_for))

    def line_up(self, ordinal: int, opened: ActiveBatch) -> None:
        """Have the tasks of a batch run."""
        self.queue.open(ordinal, self._list_tasks(opened))

    def _list_tasks(self, opened: ActiveBatch) -> Tasks:
        view = opened.view
        if not (opened.alone or view.extras or view.common):
            return Tasks(opened.todo, {}, view.after, view.barriers)
        alone = set(opened.alone)
        needs = {
            position: found
            for position in (*opened.alone, *opened.todo)
            if (found := self._find_needs(opened, position, alone=position in alone))
        }
        return Tasks([*opened.alone, *opened.todo], needs, view.after, view.barriers)

    def _find_needs(self, opened: ActiveBatch, position: int, *, alone: bool) -> Resources | None:
        """As the task says, or as its rules say after attempts of an earlier start."""
        terms = opened.view.terms_of(position)
        needs = build_needs(terms, alone=alone) or Resources()
        tries = opened.tries.get(opened.view.indices[position], ())
        if again := plan_retry(terms.get("retries", ()), tries, needs.memory):
            needs = self._adapt(needs, again)
        return needs if any(needs) else None

    def _adapt(self, needs: Resources, again: Again) -> Resources:
        """What the next attempt needs; as much memory as there is has to do."""
        memory = min(again.memory or 0, self.queue.capacity.memory)
        return needs._replace(memory=memory, alone=needs.alone or again.alone)

    # --- their tasks --------------------------------------------------------------------

    def build_ticket(self, ordinal: int, position: int, devices: int) -> bytes:
        """What a lane has to know of a task that is to start."""
        opened = self.open[ordinal]
        index = opened.view.indices[position]
        attempt = opened.attempts.get(index, 0) + 1
        flags = FENCED * opened.fenced
        if opened.own_attempts and index in opened.own_attempts:
            flags |= AGAIN
        return TICKET.pack(ordinal, position, attempt, flags, devices)

    def try_again(self, key: tuple[int, int], record: dict[str, Any], again: Again) -> None:
        """Have a task whose attempt failed run once more, as its rules say."""
        opened, index = self.open[key[0]], record["task"]
        opened.tries.setdefault(index, []).append(record)
        opened.attempts[index] = record["attempt"]
        opened.own_attempts.add(index)
        if not self.lanes.is_fed:
            needs = self._adapt(build_needs(opened.view.terms_of(key[1])) or Resources(), again)
            at_s = time.monotonic() + again.wait_s
            self.queue.come_back(key, at_s, needs if any(needs) else None)

    def cancel_task(self, key: tuple[int, int]) -> None:
        """Have one that no lane runs, and that is not in the queue, settled as cancelled."""
        self.queue.unrun.append(NeverStarted(*key, TaskState.CANCELLED.value, ""))

    def settle(self, opened: ActiveBatch, position: int, state: int) -> None:
        """Note what a task came to, and what follows from that for others."""
        opened.states[position] = state
        if state == _WAITING:  # this runner ended it, and another start goes on
            return
        opened.left -= 1
        if self.has_graph:
            index = opened.view.indices[position]
            if state != SUCCEEDED:
                self._names[index] = opened.view.names[position]
            self.queue.learn(index, state)
        if state == SUCCEEDED:
            return
        self.did_fail = True
        self.failures += state in FAILURES
        limit = opened.view.max_failures
        if limit and self.failures >= limit and not self.given_up:
            self.given_up = f"not started after {self.failures} failed"
            self.lanes.close_tickets()
            if opened.view.fail_fast:
                self.lanes.order(CANCEL_ALL)

    def settle_unrun(self) -> None:
        """Record the tasks that will never start, and those that follow from them."""
        while self.queue.unrun:
            unrun, self.queue.unrun = self.queue.unrun, []
            for ordinal, position, state, reason in unrun:
                opened = self.open[ordinal]
                record = self.opener.build_record(opened, position, state, reason)
                self.recorder.append(opened.file, record.to_line().encode() + b"\n")
                self.settle(opened, position, NUMBER_OF[state])
        for ordinal in [ordinal for ordinal, opened in self.open.items() if not opened.left]:
            self.end(ordinal)

    def _name_task(self, index: int) -> str:
        if index in self._names:
            return self._names[index]
        for opened in self.open.values():
            position = opened.find_position(index)
            if position is not None:
                return opened.view.names[position]
        return self.foreign.find_name(index) or f"task {index}"

    # --- their end ----------------------------------------------------------------------

    def be_orphaned(self) -> None:
        """Have the ends say that what the engine had the runner watched by is gone."""
        self.is_orphan = True

    def end(self, ordinal: int) -> None:
        """Close a batch, whatever is left of it."""
        opened = self.open.pop(ordinal)
        self.did_fail |= _CANCELLED in opened.states
        if opened.fenced:
            with contextlib.suppress(OSError, StoreError):
                self.opener.move_fenced(opened)
        opened.is_orphan = self.is_orphan
        self.recorder.append(opened.file, build_line(opened.build_end()))
        self.recorder.end(opened.file)
        self.others.remove_running(opened)

    def cancel_rest(self, unopened: Iterable[tuple[int, ActiveBatch]]) -> None:
        """Record as cancelled what was not started, here and in batches that are opened for it."""
        for opened in self.open.values():
            self.opener.record_cancelled(opened, self.given_up)
        for ordinal, opened in unopened:
            self.opener.record_cancelled(opened, self.given_up)
            self.add(ordinal, opened)
