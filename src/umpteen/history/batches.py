"""What is known of each batch of a job, and of each of its starts."""

from __future__ import annotations

from typing import Any

from umpteen.model.forms import parse_ranges
from umpteen.store.layout import RecordsKey
from umpteen.store.records import EndLine, StartLine

__all__ = ["BatchHistory", "StartHistory"]


class StartHistory:
    """One start of a batch, as far as its records file has been read."""

    __slots__ = ("has_ended", "is_copied", "key", "left", "offset", "opened")

    def __init__(self, key: RecordsKey) -> None:
        self.key = key
        self.offset = 0  # bytes of its file that have been read
        self.has_ended = False
        self.left = -1  # tasks that it had not finished when it ended; -1: not known
        self.is_copied = False  # of the store that this one is a copy of
        self.opened: StartLine | None = None  # the first line of its file

    def close(self, end: EndLine) -> None:
        """Its closing line was read: nothing more will come of it."""
        self.has_ended, self.left = True, end.left


class BatchHistory:
    """One batch: its tasks, where it was submitted to, and its starts."""

    def __init__(self, batch: str, number: int, indices: str) -> None:
        self.batch = batch
        self.number = number  # how many batches the job had before it
        self.indices = parse_ranges(indices)
        self.hand_in = 0  # the number of the newest submission that had it
        self.handle = ""  # what the executor answered to that; empty: nothing yet
        self.executor = ""
        self.settings: dict[str, Any] = {}
        self.is_closed = False  # no start of it may begin any more
        self.is_copied = False  # it was submitted in the store that this one is a copy of
        self.starts: list[StartHistory] = []  # the earliest first

    @property
    def has_ended(self) -> bool:
        """Whether its newest start closed its records, and no other start is to be expected.

        One is expected where the runner that it was submitted to last has not begun with it, or
        where something is left and an engine has it, which starts it as often as need be.
        """
        if not self.starts or not self.starts[-1].has_ended:
            return False
        expected = self.handle.rpartition("/")[2]
        is_met = not self.executor or any(start.key.token == expected for start in self.starts)
        return is_met or self.starts[-1].left == 0

    @property
    def lease(self) -> str:
        """The handle of its newest start's runner, as the local executor writes it; empty: none.

        There is no other handle where the submission was killed before it could write one, and
        where a batch was started by hand. A start that has ended has none.
        """
        newest = self.starts[-1] if self.starts else None
        if newest is None or newest.opened is None or newest.has_ended or newest.is_copied:
            return ""
        return f"{newest.opened.machine}/{newest.opened.boot}/{self.token}"

    @property
    def runner(self) -> str:
        """The token of the local runner that it was submitted to last, else of its newest start."""
        return self.handle.rpartition("/")[2] or self.token

    @property
    def token(self) -> str:
        """The runner of its newest start."""
        return self.starts[-1].key.token if self.starts else ""
