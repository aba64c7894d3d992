"""What of a job came to its end without success since somebody looked last, for who watches it."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from umpteen.errors import StoreError
from umpteen.history.history import History
from umpteen.model.record import Record
from umpteen.query.failures import Failure, choose_failures, is_failure, read_failure
from umpteen.query.unrun import UnrunCounts

__all__ = ["FailureFeed", "News"]


class News(NamedTuple):
    """What is to be shown of what came to its end without success."""

    # Those since the last look, the newest last.
    failures: Sequence[Failure]
    # What was skipped or cancelled until now.
    unrun: UnrunCounts


class FailureFeed:
    """Gives each failure once; a store that does not answer is asked again at the next call."""

    def __init__(self) -> None:
        # What was skipped or cancelled of all that `take_failed` was given.
        self.unrun = UnrunCounts()
        self._unread: collections.deque[tuple[str, Record]] = collections.deque()

    def take_failed(self, history: History, most: int) -> list[Failure]:
        """What failed since the last call, the newest last; no more than `most`."""
        failed: collections.deque[tuple[str, Record]] = collections.deque(maxlen=most)
        for batch, record in _take_recent(history):
            if is_failure(record):
                failed.append((batch, record))
            else:
                self.unrun.add(history, batch, record)
        return self._read(history, failed)

    def take_all(self, history: History, most: int) -> list[Failure]:
        """What did not succeed since the last call; where it is too much, what failed first."""
        return self._read(history, choose_failures(_take_recent(history), most))

    def _read(self, history: History, entries: Iterable[tuple[str, Record]]) -> list[Failure]:
        self._unread.extend(entries)
        failures = []
        with contextlib.suppress(StoreError):
            while self._unread:
                failures.append(read_failure(history, *self._unread[0]))
                self._unread.popleft()
        return failures


def _take_recent(history: History) -> list[tuple[str, Record]]:
    with contextlib.suppress(StoreError):
        return list(history.failures.take_recent())
    return []
