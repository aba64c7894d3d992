"""Tasks that are cancelled one by one while their batch is run.

One that waits is taken out of the queue. For one that was given out every lane is asked: the
lane that runs it ends it, and when each has said that it never will, it is recorded here.
Standard library alone.
"""

from __future__ import annotations

from umpteen.runner.active_batches import ActiveBatches
from umpteen.runner.lanes.group import Lanes
from umpteen.runner.lanes.protocol import CANCEL_ONE
from umpteen.runner.uploads import Uploads
from umpteen.store.job_files import CancelMark

__all__ = ["Cancellation"]


class Cancellation:
    """Those of one runner. revoked: indices of the tasks that are not to run.

    over: keys of tasks that are recorded as cancelled while a ticket of theirs is still about.
    """

    def __init__(self, batches: ActiveBatches, uploads: Uploads, lanes: Lanes) -> None:
        self.batches, self.uploads, self.lanes = batches, uploads, lanes
        self.revoked: set[int] = set()
        self.over: set[tuple[int, int]] = set()
        self._asked: dict[tuple[int, int], int] = {}  # lanes that may have it, or come to it

    def cancel(self, mark: CancelMark) -> None:
        """Those that the mark names one by one."""
        on_way = self.uploads.list_indices()
        for ordinal, active in self.batches.open.items():
            batch = active.view.batch
            if mark.tasks == active.marked or not batch.isdigit():
                continue
            active.marked = mark.tasks
            keys = set()
            for index, upto in mark.tasks.items():
                is_over = index in self.revoked or index in active.finals
                if not is_over and int(batch) <= upto:
                    position = active.find_position(index)
                    if position is not None:
                        self.revoked.add(index)
                        keys.add((ordinal, position))
            waiting = self.batches.scheduler.drop(keys)
            for key in waiting:
                self.batches.cancel_task(key)
            for key in keys - waiting:
                if not active.is_done(key[1]) and active.view.indices[key[1]] not in on_way:
                    self._asked[key] = len(self.lanes.controls)
                    self.lanes.order(CANCEL_ONE, key)
        self.batches.record_never_started()

    def take_back(self, told: bytes) -> None:
        """What a lane will never start; recorded once that is so of every lane."""
        on_way = self.uploads.list_indices()
        for pair in told.split(b","):
            ordinal, position = map(int, pair.split(b":"))
            key = ordinal, position
            self._asked[key] -= 1
            active = self.batches.open.get(ordinal)
            if self._asked[key] or active is None or active.is_done(position):
                continue
            if active.view.indices[position] in on_way:
                continue
            self.over.add(key)
            self.batches.scheduler.end(key)
            self.batches.cancel_task(key)

    def forget(self, key: tuple[int, int]) -> None:
        """The ticket of one that is `over` is no longer about."""
        self.over.discard(key)
