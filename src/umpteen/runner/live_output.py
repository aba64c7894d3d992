"""What running tasks print, brought to a store that is no folder while somebody follows.

Whoever follows a task puts a mark; the runner that has it puts what is new in pieces, one
after the other. Nobody follows: no piece is put (what is `live` is `uploads`'s). Standard
library alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from umpteen.errors import StoreError
from umpteen.store.base import Store
from umpteen.store.layout import FOLLOW, LiveKey, follow_key, live_folder
from umpteen.system.plain_files import open_below

__all__ = ["LiveOutputs"]

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
        self.wanted = {int(name) for name in self.store.names(FOLLOW) if name.isdecimal()}

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
