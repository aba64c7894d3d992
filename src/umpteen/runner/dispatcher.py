"""Gives a runner's lanes as much to do as they take: opens batches, and pushes tickets.

Only here is it decided that there is nothing more to come. Standard library alone.
"""

from __future__ import annotations

import itertools
import time

from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.active_batches import ActiveBatches
from umpteen.runner.batch_loader import BatchLoader
from umpteen.runner.cancellation import Cancellation
from umpteen.runner.completions import Completions
from umpteen.runner.lanes.group import Lanes
from umpteen.runner.lanes.protocol import TICKET
from umpteen.runner.uploads import Uploads
from umpteen.store.job_files import CancelMark

__all__ = ["Dispatcher"]

_OPEN_MOST = 8  # batches whose tasks all wait for others, before no more are opened
_TICKETS_AT_ONCE = 4096 // TICKET.size  # written as one, so that none is ever torn
_IDLE_S = 0.05  # for how long a batch from afar is waited for where nothing runs


class Dispatcher:
    """What the lanes of one runner get to do. chunk: tickets that did not fit into the pipe."""

    def __init__(
        self,
        intake: BatchLoader,
        batches: ActiveBatches,
        attempts: Completions,
        recalls: Cancellation,
        outgoing: Uploads,
        lanes: Lanes,
    ) -> None:
        self.intake, self.batches, self.attempts = intake, batches, attempts
        self.recalls, self.outgoing, self.lanes = recalls, outgoing, lanes
        self.chunk = b""
        self.passed_over: set[str] = set()  # of our batches, those that somebody else has

    def push(self) -> None:
        """Fill the pipe as far as it goes; close it when all tickets are in it."""
        lanes = self.lanes
        while not lanes.is_fed:
            ready = itertools.islice(iter(self._next_ticket, None), _TICKETS_AT_ONCE)
            self.chunk = self.chunk or b"".join(ready)
            if lanes.is_fed:  # given up, or stopped by a store that refuses, meanwhile
                return
            if not self.chunk:
                if self._is_exhausted():
                    lanes.close_tickets()
                return
            if not lanes.give(self.chunk):
                return
            self.chunk = b""

    def _next_ticket(self) -> bytes | None:
        """The next ticket, None where there is none now."""
        batches = self.batches
        while not batches.given_up:
            batches.settle_unrun()
            taken = batches.queue.take(time.monotonic())
            if taken is not None:
                return batches.build_ticket(*taken)
            if not self._open_next():
                return None
        return None

    def _open_next(self) -> bool:
        """Open another batch, if there is one and it is of use now; whether one was."""
        batches = self.batches
        if not self.intake.unopened or batches.queue.is_ready:
            return False
        if batches.queue.under_way and len(batches.open) >= _OPEN_MOST:
            return False
        found = self.intake.take_next(0.0 if batches.queue.under_way else _IDLE_S)
        if found is None:
            return False
        if found.batch is not None:
            self._take_on(found.ordinal, found.batch, found.cancel)
        else:
            self.passed_over.add(found.name)
            if batches.has_graph:
                batches.learn_of({found.name})
        return True

    def _take_on(self, ordinal: int, opened: ActiveBatch, mark: CancelMark) -> None:
        """Have the tasks of a batch that was opened run."""
        batches = self.batches
        batches.take_on(ordinal, opened)
        if opened.view.has_graph:
            own = set(self.lanes.work.batches) - self.passed_over
            batches.learn_of(set(opened.view.waits) - own)
        if kept := self.outgoing.send_kept(ordinal, opened):
            self.attempts.note(kept)
        batches.line_up(ordinal, opened)
        self.recalls.cancel(mark)
        if not opened.left and ordinal in batches.open:
            batches.end(ordinal)

    def _is_exhausted(self) -> bool:
        """Whether no ticket will follow, not even when what is under way has ended."""
        queue = self.batches.queue
        if self.intake.unopened or not queue.is_empty:
            return self._is_stuck()
        return not queue.under_way or not self.batches.has_rules

    def _is_stuck(self) -> bool:
        """Whether what is left waits for tasks that nobody will bring to an end."""
        queue = self.batches.queue
        if self.intake.unopened or queue.is_ready or queue.due or queue.unrun or queue.under_way:
            return False
        # Others may wait for what is on its way.
        return not self.batches.foreign.waited_for and not self.outgoing.count_left()
