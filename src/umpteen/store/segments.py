"""Records where a file cannot be appended to: a few segments, of which the last is put again.

`S-TOKEN.jsonl` is `S-TOKEN.0.jsonl`, `S-TOKEN.1.jsonl` and so on, one after the other. All but
the last have 1 MB or more and never change. Standard library alone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from umpteen.store.base import Appender, Store
from umpteen.store.layout import RECORDS, parse_records_key

__all__ = [
    "SEGMENT_BYTES",
    "Segment",
    "Segments",
    "is_records_folder",
    "is_records_key",
    "join_names",
    "plan_read",
]

SEGMENT_BYTES = 1024 * 1024
_FOLDER = re.compile(rf"{re.escape(RECORDS)}/[^/]+")
_SEGMENT = re.compile(r"([0-9]{1,10}-[0-9a-f]{1,64})\.([0-9]{1,10})\.jsonl")
_SUFFIX = ".jsonl"


class Segment(NamedTuple):
    """One of the files that the records of a start are in; size: bytes when it was listed."""

    number: int
    name: str
    size: int


class Segments(Appender):
    """The records of one start on an object store.

    Lines are kept until `flush`, which may be called by another thread than `append`.
    """

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key
        self.pending = b""
        self.size = 0
        self.synced = 0
        self.number = 0
        self.last = b""  # what the last segment has in the store
        self.lock = threading.Lock()
        self.flushing = threading.Lock()

    def append(self, lines: bytes) -> None:
        """Keep whole lines until the next flush."""
        with self.lock:
            self.pending += lines

    def flush(self) -> None:
        """Put what is pending; raises StoreError and keeps it."""
        with self.flushing:
            new = self.pending
            if not new:
                return
            content = self.last + new
            self.store.replace(f"{self.key[: -len(_SUFFIX)]}.{self.number}{_SUFFIX}", content)
            with self.lock:
                self.pending = self.pending[len(new) :]
                self.size += len(new)
            is_full = len(content) >= SEGMENT_BYTES
            self.last, self.number = (b"", self.number + 1) if is_full else (content, self.number)

    def close(self) -> None:
        """Nothing is open; nothing may be pending."""


def is_records_folder(folder: str) -> bool:
    """Whether a folder is that of the records of a batch."""
    return _FOLDER.fullmatch(folder) is not None


def is_records_key(key: str) -> bool:
    """Whether a file of the store is the records of a start."""
    folder, _, name = key.rpartition("/")
    return is_records_folder(folder) and parse_records_key(name) is not None


def join_names(entries: Iterable[tuple[str, int]]) -> tuple[list[str], dict[str, list[Segment]]]:
    """The names of a records folder as readers know them, and the segments of each records file.

    entries: names with their bytes. A file that was put under the name itself comes first.
    """
    names: list[str] = []
    found: dict[str, list[Segment]] = {}
    for name, size in entries:
        match = _SEGMENT.fullmatch(name)
        joined = match[1] + _SUFFIX if match else name
        if match or parse_records_key(name):
            number = int(match[2]) if match else -1
            found.setdefault(joined, []).append(Segment(number, name, size))
        else:
            names.append(name)
    for segments in found.values():
        segments.sort()
    return names + list(found), found


def plan_read(segments: Sequence[Segment], offset: int) -> list[tuple[str, int]]:
    """(name, offset in it) of each segment to be read from `offset` of the whole on.

    offset: -n for the last n bytes. The last one that counts is read to its end, wherever
    that is by now; one that is not full is the last, whatever a slow listing says of others.
    """
    segments = _take_certain(segments)
    if offset < 0:
        offset = max(0, sum(segment.size for segment in segments) + offset)
    parts = []
    for segment in segments:
        if offset < segment.size:
            parts.append((segment.name, max(0, offset)))
        offset -= segment.size
    return parts


def _take_certain(segments: Sequence[Segment]) -> list[Segment]:
    certain = []
    for segment in segments:
        certain.append(segment)
        if segment.number >= 0 and segment.size < SEGMENT_BYTES:
            break
    return certain
