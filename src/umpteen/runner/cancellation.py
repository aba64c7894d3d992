"""Tasks that are cancelled one by one while their batch is run.

One that waits is taken out of the queue. For one that was given out every lane is asked: the
lane that runs it ends it, and when each has said that it never will, it is recorded here.
Standard library alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.active_batches import ActiveBatches
from umpteen.runner.lanes.group import Lanes
from umpteen.runner.lanes.protocol import OrderKind, TaskKey
from umpteen.runner.uploads import Uploads
from umpteen.store.job_files import CancelMark

__all__ = ["Cancellation"]


class Cancellation:
    """The tasks of one runner that the cancel mark names."""

    def __init__(self, batches: ActiveBatches, uploads: Uploads, lanes: Lanes) -> None:
        self._batches, self._uploads, self._lanes = batches, uploads, lanes
        self._revoked: set[int] = set()  # indices of the tasks that are not to run
        self._done: dict[int, Mapping[int, int]] = {}  # by batch: what of the mark was done
        self._asked: dict[TaskKey, int] = {}  # how many lanes may still have it, or come to it
        # Recorded as cancelled, while a ticket is still on its way to a lane.
        self._recorded: set[TaskKey] = set()

    def is_revoked(self, index: int) -> bool:
        """Whether a task is not to run any more."""
        return index in self._revoked

    def cancel(self, mark: CancelMark) -> None:
        """Cancel those that the mark names one by one."""
        for ordinal, active in self._batches.open.items():
            batch = active.view.batch
            if batch.isdigit() and mark.tasks != self._done.get(ordinal, {}):
                self._done[ordinal] = mark.tasks
                named = [index for index, upto in mark.tasks.items() if int(batch) <= upto]
                self._cancel_in(ordinal, active, named)
        self._batches.record_never_started()

    def _cancel_in(self, ordinal: int, active: ActiveBatch, named: Iterable[int]) -> None:
        keys: set[TaskKey] = set()
        for index in named:
            position = active.find_position(index)
            is_over = index in self._revoked or index in active.finals
            if not is_over and position is not None:
                self._revoked.add(index)
                keys.add((ordinal, position))
        uploading = self._uploads.list_indices()
        waiting = self._batches.scheduler.drop(keys)
        for key in waiting:
            self._batches.cancel_task(key)
        for key in keys - waiting:
            if not active.is_done(key[1]) and active.view.indices[key[1]] not in uploading:
                self._asked[key] = len(self._lanes.controls)
                self._lanes.order(OrderKind.CANCEL_ONE, key)

    def lane_declined(self, keys: Iterable[TaskKey]) -> None:
        """A lane will never start these: recorded once that is so of every lane."""
        uploading = self._uploads.list_indices()  # their attempts have ended
        for key in keys:
            ordinal, position = key
            self._asked[key] -= 1
            active = self._batches.open.get(ordinal)
            if self._asked[key] or active is None or active.is_done(position):
                continue
            if active.view.indices[position] not in uploading:
                self._recorded.add(key)
                self._batches.scheduler.end(key)
                self._batches.cancel_task(key)

    def take_late(self, key: TaskKey) -> bool:
        """Whether what a lane says of a task comes after it was recorded here; asked once."""
        if key not in self._recorded:
            return False
        self._recorded.discard(key)
        return True
