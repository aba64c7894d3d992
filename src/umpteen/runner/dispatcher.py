"""Keeps a runner's lanes busy: opens batches, and gives out the tickets of their tasks.

Only here is it decided that there is nothing more to come. Standard library alone.
"""

from __future__ import annotations

import itertools
import time

from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.active_batches import ActiveBatches
from umpteen.runner.batch_list import BatchList
from umpteen.runner.batch_loader import BatchLoader
from umpteen.runner.cancellation import Cancellation
from umpteen.runner.completions import Completions
from umpteen.runner.lanes.group import Lanes
from umpteen.runner.lanes.protocol import TICKET_BYTES
from umpteen.runner.uploads import Uploads
from umpteen.store.job_files import CancelMark

__all__ = ["Dispatcher"]

_OPEN_MOST = 8  # batches whose tasks all wait for others, before no more are opened
_TICKETS_AT_ONCE = 4096 // TICKET_BYTES  # written as one, so that none is ever torn
_IDLE_S = 0.05  # for how long a batch from afar is waited for where nothing runs


class Dispatcher:
    """Decides what the lanes of one runner get to do next."""

    def __init__(
        self,
        own_batches: BatchList,
        batch_loader: BatchLoader,
        batches: ActiveBatches,
        completions: Completions,
        cancellation: Cancellation,
        uploads: Uploads,
        lanes: Lanes,
    ) -> None:
        self.passed_over: set[str] = set()  # of our batches, those that another runner has
        self._given_away: set[str] = set()  # of our batches, those that others are to have
        self._own_batches = own_batches
        self._batch_loader, self._batches, self._completions = batch_loader, batches, completions
        self._cancellation, self._uploads, self._lanes = cancellation, uploads, lanes
        self._chunk = b""  # tickets that did not fit into the pipe

    def push(self) -> None:
        """Fill the pipe as far as it goes; close it when all tickets are in it."""
        lanes = self._lanes
        while not lanes.is_fed:
            ready = itertools.islice(iter(self._next_ticket, None), _TICKETS_AT_ONCE)
            self._chunk = self._chunk or b"".join(ready)
            if lanes.is_fed:  # given up, or stopped by a store that refuses, meanwhile
                return
            if not self._chunk:
                if self._is_exhausted():
                    lanes.close_tickets()
                return
            if not lanes.give(self._chunk):
                return
            self._chunk = b""

    def _next_ticket(self) -> bytes | None:
        """The next ticket, None where there is none now."""
        batches = self._batches
        while not batches.given_up:
            batches.record_never_started()
            now_s = time.monotonic()
            assignment = batches.scheduler.take(now_s)
            if assignment is not None:
                return batches.build_ticket(assignment)
            if not self._open_next(now_s):
                return None
        return None

    def _open_next(self, now_s: float) -> bool:
        """Open another batch, if there is one and it is of use now; whether one was."""
        batches = self._batches
        if not self._batch_loader.unopened or batches.scheduler.is_ready:
            return False
        if batches.scheduler.under_way and len(batches.open) >= _OPEN_MOST:
            return False
        wait_s = 0.0 if batches.scheduler.under_way else _IDLE_S
        found = self._batch_loader.take_next(now_s, wait_s)
        if found is None:
            return False
        if found.batch is not None:
            self._activate(found.ordinal, found.batch, found.cancel)
        else:
            self.passed_over.add(found.name)
            if batches.has_graph:
                batches.read_upstream({found.name})
        return True

    def take_given(self) -> None:
        """Have what somebody gave us, or took away, since the last call be what is opened next."""
        given = None if self._lanes.is_fed else self._own_batches.read_given()
        if given is None:
            return
        loader = self._batch_loader
        before = set(loader.list_unopened())
        self._own_batches.number_new(given, list(self._lanes.controls))
        loader.replace_unopened(given)
        left = loader.list_unopened()
        gone = before.difference(left)
        self._given_away = self._given_away.difference(left) | gone
        if gone and self._batches.has_graph:
            self._batches.read_upstream(gone)
        loader.write_taken()

    def _activate(self, ordinal: int, active: ActiveBatch, mark: CancelMark) -> None:
        """Have the tasks of a batch that was opened run."""
        batches = self._batches
        batches.activate(ordinal, active)
        if active.view.has_graph:
            own = set(self._own_batches.names) - self.passed_over - self._given_away
            batches.read_upstream(set(active.view.waits) - own)
        if kept := self._uploads.send_kept(ordinal, active):
            self._completions.record(kept)
        batches.enqueue(ordinal, active)
        self._cancellation.cancel(mark)

    def _is_exhausted(self) -> bool:
        """Whether no ticket will follow, not even when what is under way has ended."""
        scheduler = self._batches.scheduler
        if self._batch_loader.unopened or not scheduler.is_empty:
            return self._is_stuck()
        may_follow = self._batches.has_rules or self._own_batches.may_grow
        return not scheduler.under_way or not may_follow

    def _is_stuck(self) -> bool:
        """Whether what is left waits for tasks that nobody will bring to an end."""
        scheduler = self._batches.scheduler
        if (
            self._batch_loader.unopened
            or scheduler.is_ready
            or scheduler.due
            or scheduler.never_started
            or scheduler.under_way
        ):
            return False
        # Others may wait for what is on its way.
        return not self._batches.waits_for_others and not self._uploads.count_left()
