"""What running tasks print, brought to a store that is no folder while somebody follows.

Whoever follows a task puts a mark; the runner that has it puts what is new in pieces, one
after the other. Nobody follows: no piece is put (what is `live` is `outgoing`'s). Standard
library alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from umpteen.errors import StoreError
from umpteen.store.base import Store
from umpteen.store.layout import (
    FOLLOW,
    LiveKey,
    follow_key,
    live_folder,
    parse_live_key,
)
from umpteen.system.plain_files import open_below

__all__ = ["LiveOutputs", "LiveReader"]

_PIECE_BYTES = 4 << 20
_NAMES = ("stdout", "stderr")


class LiveOutputs:
    """The runner's half. wanted: indices of the tasks that are followed, as last seen."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.wanted: set[int] = set()
        self.sent: dict[tuple[str, str], tuple[int, int]] = {}

    def look(self) -> None:
        """Read the marks; raises StoreError."""
        self.wanted = {int(name) for name in self.store.list(FOLLOW) if name.isdecimal()}

    def send(self, running: Iterable[tuple[int, LiveKey, str]]) -> None:
        """Put what is new of those that are followed: (index, attempt, folder here) of each."""
        for index, key, folder in running:
            if index in self.wanted:
                for name in _NAMES:
                    self._send(live_folder(index, key), name, folder)

    def _send(self, target: str, name: str, folder: str) -> None:
        offset, number = self.sent.get((target, name), (0, 0))
        with contextlib.suppress(OSError), open(open_below(folder, name), "rb") as file:
            file.seek(offset)
            piece = file.read(_PIECE_BYTES)
            if piece:
                self.store.replace(f"{target}/{name}.{number}", piece)
                self.sent[target, name] = offset + len(piece), number + 1

    def forget(self, index: int) -> None:
        """Remove the mark and the pieces of a task whose outputs are in their place."""
        self.wanted.discard(index)
        top = live_folder(index)
        with contextlib.suppress(StoreError):
            pieces = [f"{top}/{name}" for name, _ in self.store.walk(top)]
            self.store.delete_many([*pieces, follow_key(index)])


class LiveReader:
    """The half of who follows: a task's stdout or stderr, piece by piece, from the beginning.

    key: the attempt that is being read: the newest that has a piece. offset: bytes read so far
    of it.
    """

    def __init__(self, store: Store, index: int, name: str) -> None:
        self.store, self.index, self.name = store, index, name
        self.key: LiveKey | None = None
        self.offset = self.number = 0

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
