"""The batches that a runner has been given and not opened: one after the other is opened here.

All that opening one reads from the store is read here, in a thread of its own where the store is
no folder; while the store refuses, no lane starts anything. Standard library alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from umpteen.errors import StoreError
from umpteen.model.batch import BatchView
from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.batch_list import BatchList
from umpteen.runner.batch_start import Opener
from umpteen.runner.lanes.group import Lanes
from umpteen.runner.synced import copy_into, link_at, unpack_once
from umpteen.runner.trouble import Trouble
from umpteen.runner.working_folder import synced_place
from umpteen.store.address import is_remote
from umpteen.store.directory import DirectoryStore
from umpteen.store.job_files import CancelMark, read_cancel_mark
from umpteen.store.layout import batch_key, synced_key
from umpteen.system.background import BackgroundCall

__all__ = ["BatchLoader", "Opened"]

_AGAIN_S = 1.0  # until a batch that the store refused is tried again
_DROP_S = 5.0


class Opened(NamedTuple):
    """What came of opening a batch."""

    ordinal: int  # its place in the runner's list
    name: str
    batch: ActiveBatch | None  # None where another runner has it
    cancel: CancelMark


class BatchLoader:
    """Opens the batches of one runner, in their order."""

    def __init__(
        self,
        opener: Opener,
        batches: BatchList,
        folder: DirectoryStore,
        lanes: Lanes,
        patience_s: float,
    ) -> None:
        # (place, name), the next one last.
        self.unopened = [*enumerate(batches.names)][::-1]
        self._batches = batches
        self._begun: set[str] = set()  # names of those that were opened, or begun to be
        self.trouble = Trouble(patience_s)  # with the next one
        self._opener, self._store, self._lanes = opener, opener.store, lanes
        self._folder = folder  # that lanes read batch files from
        self._is_far = is_remote(self._store.address)
        self._opening: BackgroundCall[Opened] | None = None
        self._open_at_s = 0.0  # not earlier than this
        self._unpacked: set[tuple[str, str | None, str]] = set()

    def take_next(self, now_s: float, wait_s: float) -> Opened | None:
        """The next batch; None where it cannot be opened now, or not yet.

        now_s: of the monotonic clock. wait_s: for how long it is waited for where the store is far.
        """
        if now_s < self._open_at_s:
            return None
        self._begun.add(self.unopened[-1][1])
        try:
            found = self._await(wait_s) if self._is_far else self._read(*self.unopened[-1])
        except StoreError as error:
            self._note_refusal(error)
            return None
        if found is not None:
            self.trouble.end()
            self._lanes.hold("batch", is_on=False)
            self.unopened.pop()
            self.write_taken()
        return found

    def write_taken(self) -> None:
        """Say what is unopened, to whoever gives us batches."""
        self._batches.write_taken(self.list_unopened(), self._begun)

    def list_unopened(self) -> list[str]:
        """Those that may still be taken away, the next one first."""
        return [name for _, name in self.unopened[::-1] if name not in self._begun]

    def replace_unopened(self, wanted: Iterable[str]) -> None:
        """Have these be what is to be opened, in this order, but for what was opened already.

        All are on the list of batches.
        """
        ordinals = {name: ordinal for ordinal, name in enumerate(self._batches.names)}
        opening = [entry for entry in self.unopened[-1:] if entry[1] in self._begun]
        kept = [(ordinals[name], name) for name in wanted if name not in self._begun]
        self.unopened = [*kept[::-1], *opening]

    def _await(self, wait_s: float) -> Opened | None:
        """The next batch, read in a thread of its own; None until that is over."""
        if self._opening is None:
            self._opening = BackgroundCall(functools.partial(self._read, *self.unopened[-1]))
        if not self._opening.is_over(wait_s):
            return None
        opening, self._opening = self._opening, None
        return opening.take()

    def _read(self, ordinal: int, name: str) -> Opened:
        """All that opening a batch reads; raises StoreError, and can be called again."""
        if self._is_far:
            key = batch_key(name)
            self._store.fetch(key, self._folder.path(key))
        batch = self._opener.open(name)
        if batch is not None:
            self._unpack(batch.view)
            _refuse_lost(batch)
        return Opened(ordinal, name, batch, read_cancel_mark(self._store))

    def _note_refusal(self, error: StoreError) -> None:
        """Have nothing more started until the next batch can be opened, which is tried again."""
        self._open_at_s = time.monotonic() + _AGAIN_S  # that alone may have taken longer
        self.trouble.begin(str(error), error.hint, is_final=error.damaged)
        self._lanes.hold("batch", is_on=True)

    def _unpack(self, view: BatchView) -> None:
        """Have on this machine what the batch's tasks run with; raises StoreError."""
        for digest, destination, home in view.synced:
            if (digest, destination, home) in self._unpacked:
                continue
            key = synced_key(digest)
            try:
                content = unpack_once(digest, functools.partial(self._fetch_synced, key))
            except StoreError as error:
                if error.damaged:  # so of use to nobody: whoever hands in next sends it anew
                    with contextlib.suppress(StoreError):
                        self._store.delete(key)
                raise
            if destination:
                copy_into(content, synced_place(view, digest, destination))
            elif home:
                link_at(content, home)
            self._unpacked.add((digest, destination, home))

    def _fetch_synced(self, key: str, path: str) -> None:
        if not self._store.fetch(key, path):
            raise StoreError(f"{self._store.path(key)} is gone", "run the job again", damaged=True)

    # --- at the end ---------------------------------------------------------------------

    def finish_opening(self) -> Opened | None:
        """The batch that is just being opened, if there is one and that ends soon.

        Else it is left with the others, as opening it can be tried again.
        """
        opening = self._opening
        if opening is None or not opening.is_over(_DROP_S):
            return None
        with contextlib.suppress(StoreError):
            found = opening.take()
            self.unopened.pop()
            return found
        return None

    def open_rest(self) -> Iterator[tuple[int, ActiveBatch]]:
        """All that are left, but for those that somebody else has; raises StoreError."""
        while self.unopened:
            ordinal, name = self.unopened[-1]
            batch = self._opener.open(name)
            self.unopened.pop()
            if batch is not None:
                yield ordinal, batch


def _refuse_lost(batch: ActiveBatch) -> None:
    """Raises StoreError where commands would run in another folder than was meant."""
    view = batch.view
    is_there = not view.submitted_from or os.path.isdir(view.submitted_from)
    if is_there or view.synced or all(map(view.has_own_folder, [*batch.alone, *batch.todo])):
        return
    raise StoreError(
        f"the folder that the job was handed in from, {view.submitted_from}, is not there",
        "run the job file in the folder where it is now, bring that along with --sync, or give a "
        "cwd",
        damaged=True,  # as it will not come by itself
    )
