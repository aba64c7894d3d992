"""What running tasks print, read through a store that is no folder."""

from __future__ import annotations

import contextlib

from umpteen.errors import StoreError
from umpteen.store.base import Store
from umpteen.store.layout import LiveKey, follow_key, live_folder, parse_live_key

__all__ = ["LiveReader"]


class LiveReader:
    """Reads a task's stdout or stderr from the beginning, in pieces that its runner writes.

    Its runner writes them for as long as a file in the store asks for that; see
    `runner.live_output`.
    """

    # index: of the task. name: `stdout` or `stderr`.
    def __init__(self, store: Store, index: int, name: str) -> None:
        self.store, self.index, self.name = store, index, name
        self.key: LiveKey | None = None  # the attempt that is read: the newest that has a piece
        self.offset = 0  # bytes of it that were read
        self.number = 0  # of its next piece

    def begin(self) -> None:
        """Ask for it; raises StoreError."""
        self.store.replace(follow_key(self.index), b"1")

    def end(self) -> None:
        """Ask no more."""
        with contextlib.suppress(StoreError):
            self.store.delete(follow_key(self.index))

    def read(self) -> bytes:
        """What came since the last call; raises StoreError."""
        found: dict[LiveKey, set[str]] = {}
        for path, _ in self.store.walk(live_folder(self.index)):
            attempt, _, name = path.partition("/")
            if key := parse_live_key(attempt):
                found.setdefault(key, set()).add(name)
        if not found:
            return b""
        newest = max(found)
        if newest != self.key:
            self.key, self.offset, self.number = newest, 0, 0
        pieces = []
        while f"{self.name}.{self.number}" in found[newest]:
            piece = self.store.read(f"{live_folder(self.index, newest)}/{self.name}.{self.number}")
            if piece is None:
                break
            pieces.append(piece)
            self.number += 1
            self.offset += len(piece)
        return b"".join(pieces)
