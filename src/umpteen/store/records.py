"""Records files: build lines, read them back, and fold the starts of a batch together.

A line is a record (it has `task`) or an event: `start`, `synced`, `end`, `moved`. A torn or
foreign line is passed over. Standard library alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from umpteen.errors import StoreError
from umpteen.model.forms import (
    MOST_TASKS,
    FormError,
    number,
    parse_ranges,
    table_of,
    text,
    truth,
    whole,
)
from umpteen.model.record import Record, parse_record
from umpteen.model.states import FORMAT_VERSION
from umpteen.store.base import Store
from umpteen.store.layout import RecordsKey, parse_records_key, records_folder, records_key
from umpteen.system.host import Machine

__all__ = [
    "Start",
    "build_line",
    "find_events",
    "list_starts",
    "parse_end",
    "parse_lines",
    "parse_start",
    "read_start",
    "refuse_newer",
    "trusted_size",
]

_ID = re.compile(r"[^/\x00-\x1f\x7f]{0,200}")  # of a machine, or of one of its boots


def build_line(content: dict[str, Any]) -> bytes:
    """One line of a records file."""
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def parse_lines(content: bytes) -> Iterator[dict[str, Any]]:
    """The lines that are whole; what is torn or no object is passed over."""
    for line in content.split(b"\n")[:-1]:
        if line[:1] != b"{":
            continue
        try:
            parsed = json.loads(line.decode(errors="replace"))
        except (ValueError, RecursionError):
            continue
        if isinstance(parsed, dict):
            yield parsed


def find_events(content: bytes, name: str) -> Iterator[dict[str, Any]]:
    """The events of that name, the last first. Only lines that have the word are parsed."""
    word = f'"{name}"'.encode()
    end = len(content)
    while (position := content.rfind(word, 0, end)) >= 0:
        end = content.rfind(b"\n", 0, position) + 1
        stop = content.find(b"\n", position) + 1
        for line in parse_lines(content[end:stop]):
            if line.get("event") == name:
                yield line


def parse_start(line: dict[str, Any]) -> dict[str, Any] | None:
    """The first line of a start: machine, boot and host are text. None for any other line."""
    if line.get("event") != "start":
        return None
    try:
        opened = {
            **line,
            **{name: text(line.get(name, "")) for name in ("machine", "boot", "host", "place")},
        }
        truth(line.get("take_over", False))
        whole(line.get("pid", 0))
    except FormError:
        return None
    are_ids = _ID.fullmatch(opened["machine"]) and _ID.fullmatch(opened["boot"])
    return opened if are_ids else None


def parse_end(line: dict[str, Any], below: int = MOST_TASKS) -> dict[str, Any] | None:
    """The last line of a start; None for any other line.
    below: more than the index of each task.
    """
    if line.get("event") != "end":
        return None
    try:
        whole(line.get("left", -1), -1, MOST_TASKS)
        number(line.get("seconds", 0.0))
        number(line.get("time", 0.0))
        for ranges in table_of(line.get("states", {})).values():
            parse_ranges(ranges, below)
    except FormError:
        return None
    return line


class Start(NamedTuple):
    """One start of a batch, as its records file tells it."""

    key: RecordsKey
    opened: dict[str, Any]
    records: list[Record]
    ended: dict[str, Any] | None


def list_starts(store: Store, batch: str) -> list[RecordsKey]:
    """Every start of a batch, the earliest first."""
    names = store.names(records_folder(batch))
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
        if record := parse_record(line):
            records.append(record)
        elif "task" not in line:
            opened = parse_start(line) or opened
            ended = parse_end(line) or ended
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
    told = (line.get("upto") for line in find_events(content, "synced"))
    upto = next((size for size in told if size and isinstance(size, int)), 0)
    return min(len(content), max(len(head), upto))


def refuse_newer(store: Store, content: Mapping[str, Any]) -> None:
    """Raises StoreError for a file that a later version wrote, in a form that is not known here."""
    version = content.get("version", 0)
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{store.address} was written by a later umpteen: its files have version {version}, "
            f"this one knows {FORMAT_VERSION}",
            "pip install --upgrade umpteen",
            path=store.address,
        )
