"""Records files: build lines, read them back, and fold the starts of a batch together.

A line is a record (it has `task`) or an event: `start`, `synced`, `end`, `moved`. A torn or
foreign line is passed over. Standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from umpteen.errors import StoreError
from umpteen.process import Machine
from umpteen.results.base import RecordsKey, Store, parse_records_key, records_folder, records_key
from umpteen.task import FORMAT_VERSION, Record

__all__ = [
    "Start",
    "build_line",
    "format_ranges",
    "list_starts",
    "parse_lines",
    "parse_ranges",
    "parse_record",
    "read_start",
    "refuse_newer",
    "trusted_size",
]

_FIELDS = frozenset(Record._fields)


def build_line(content: dict[str, Any]) -> bytes:
    """One line of a records file."""
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def parse_lines(content: bytes) -> Iterator[dict[str, Any]]:
    """The lines that are whole; what is torn or no object is passed over."""
    for line in content.split(b"\n")[:-1]:
        if line[:1] != b"{":
            continue
        try:
            parsed = json.loads(line)
        except ValueError:
            continue
        if isinstance(parsed, dict):
            yield parsed


def parse_record(line: dict[str, Any]) -> Record | None:
    """The record that a line is; None for an event. Fields of later versions are passed over."""
    if "task" not in line:
        return None
    return Record(**{key: value for key, value in line.items() if key in _FIELDS})


class Start(NamedTuple):
    """One start of a batch, as its records file tells it."""

    key: RecordsKey
    opened: dict[str, Any]
    records: list[Record]
    ended: dict[str, Any] | None


def list_starts(store: Store, batch: str) -> list[RecordsKey]:
    """Every start of a batch, the earliest first."""
    names = store.list(records_folder(batch))
    return sorted(key for name in names if (key := parse_records_key(name)))


def read_start(store: Store, batch: str, key: RecordsKey, here: Machine) -> Start:
    """All that a start recorded, less what an earlier boot of this machine had not synced."""
    content = store.read(records_key(batch, key)) or b""
    if not store.is_lasting:
        content = content[: trusted_size(content, here)]
    opened: dict[str, Any] = {}
    ended = None
    records = []
    for line in parse_lines(content):
        record = parse_record(line)
        if record:
            records.append(record)
        elif line.get("event") == "start":
            opened = line
        elif line.get("event") == "end":
            ended = line
    return Start(key, opened, records, ended)


def trusted_size(content: bytes, here: Machine) -> int:
    """How many bytes of a records file can be believed after a power loss.

    Records that bear this machine's id and another boot's are trusted up to what the last
    `synced` line says; all others wholly.
    """
    head = content[: content.find(b"\n") + 1]
    opened = next(parse_lines(head), {})
    same_machine = opened.get("machine") == here.machine and here.machine != ""
    if not same_machine or opened.get("boot") == here.boot:
        return len(content)
    upto, end = 0, len(content)
    while not upto and (position := content.rfind(b'{"event":"synced"', 0, end)) >= 0:
        line = next(parse_lines(content[position:end]), {})  # empty where it is torn
        upto, end = int(line.get("upto", 0)), position
    return min(len(content), max(len(head), upto))


def refuse_newer(store: Store, content: dict[str, Any]) -> None:
    """Raises StoreError for a file that a later version wrote, in a form that is not known here."""
    version = content.get("version", 0)
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{store.address} was written by a later umpteen: its files have version {version}, "
            f"this one knows {FORMAT_VERSION}",
            "pip install --upgrade umpteen",
            path=store.address,
        )


def format_ranges(numbers: Iterable[int]) -> str:
    """Rising numbers as text: `0-4999,6000`."""
    if isinstance(numbers, range) and numbers.step == 1 and len(numbers) > 1:
        return f"{numbers.start}-{numbers.stop - 1}"
    parts: list[str] = []
    first = last = -2
    for number in numbers:
        if number != last + 1:
            if last >= 0:
                parts.append(f"{first}-{last}" if last > first else str(first))
            first = number
        last = number
    if last >= 0:
        parts.append(f"{first}-{last}" if last > first else str(first))
    return ",".join(parts)


def parse_ranges(text: str) -> list[range]:
    """What `format_ranges` wrote, as ranges in the same order."""
    ranges = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        ranges.append(range(int(first), int(last or first) + 1))
    return ranges
