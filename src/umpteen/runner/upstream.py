"""Batches that other runners have, and whose tasks ours wait for. Standard library alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from umpteen.errors import StoreError
from umpteen.model.states import NUMBER_OF
from umpteen.runner.batch_start import Opener, read_batch
from umpteen.runner.lease import list_living
from umpteen.store.records import list_starts, read_start

__all__ = ["Upstream"]


class Upstream:
    """Those that one runner waits for. waited_for: batches from which more may come.

    begun_by_s: until then on the monotonic clock, one that nobody has begun may still be.
    """

    def __init__(self, opener: Opener, begun_by_s: float) -> None:
        self.opener, self.begun_by_s = opener, begun_by_s
        self.waited_for: set[str] = set()
        self._unread: set[str] = set()  # whose names were not needed yet
        self._names: dict[int, str] = {}

    def read(self, batches: set[str]) -> Iterator[tuple[int, int]]:
        """Wait for these, too; what came of their tasks: index, number of the state."""
        store, here = self.opener.store, self.opener.here
        self._unread |= batches - self.waited_for
        self.waited_for |= batches
        for batch in batches:
            try:
                keys = list_starts(store, batch)
                starts = [read_start(store, batch, key, here) for key in keys]
            except StoreError:  # looked for again
                continue
            for record in (record for start in starts for record in start.records):
                if record.is_final:
                    yield record.task, NUMBER_OF[record.state]
            is_expected = not starts and self._is_others_turn()
            if not is_expected and not any(
                self.opener.recovery.may_live(start) for start in starts
            ):
                self.waited_for.discard(batch)  # nothing more will come from there

    def _is_others_turn(self) -> bool:
        """Whether a runner may be there that has not come to all of its batches."""
        is_early = time.monotonic() < self.begun_by_s
        return is_early or bool(list_living(self.opener.identity) - {self.opener.token})

    def find_name(self, index: int) -> str | None:
        """The name of one of their tasks; None where none of them has it."""
        while index not in self._names and self._unread:
            with contextlib.suppress(StoreError):
                view = read_batch(self.opener.store, self._unread.pop())
                self._names.update(zip(view.indices, view.names))
        return self._names.get(index)
