"""Records files: build lines, read them back, and fold the starts of a batch together.

A line is a record (it has `task`) or an event, of which each kind has a class here. A torn or
foreign line is passed over. Standard library alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
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
from umpteen.model.ranges import format_ranges
from umpteen.model.record import Record, parse_record
from umpteen.model.states import FORMAT_VERSION
from umpteen.store.base import Store
from umpteen.store.layout import RecordsKey, parse_records_key, records_folder, records_key
from umpteen.system.host import Machine

__all__ = [
    "EndLine",
    "MovedLine",
    "Start",
    "StartLine",
    "SyncedLine",
    "build_line",
    "find_end",
    "list_starts",
    "parse_lines",
    "parse_start",
    "read_start",
    "refuse_newer",
    "trusted_size",
]

_ID = re.compile(r"[^/\x00-\x1f\x7f]{0,200}")  # of a machine, or of one of its boots


def build_line(content: Mapping[str, object]) -> bytes:
    """One line of a records file."""
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def parse_lines(content: bytes) -> Iterator[dict[str, object]]:
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


# --- events -------------------------------------------------------------------------------
# The fields are in the order of the lines.


class StartLine(NamedTuple):
    """The first line of a start: who began it, and where.

    `version`, `token`, `time` and `slots` are for other programs: here they are not read back.
    """

    version: int = FORMAT_VERSION
    token: str = ""  # of the runner, as in the name of the file
    machine: str = ""
    boot: str = ""
    host: str = ""
    pid: int = 0
    time: float = 0.0  # seconds since 1970
    slots: int = 0
    take_over: bool = False  # an earlier start that lives on this machine is to end
    place: str = ""  # of the store, as `describe_place` writes it

    def to_line(self) -> bytes:
        """The line in its file."""
        return build_line({"event": "start", **self._asdict()})


class SyncedLine(NamedTuple):
    """So many bytes of the file, and all that they vouch for, are on the disk."""

    upto: int

    def to_line(self) -> bytes:
        """The line in its file."""
        return build_line({"event": "synced", **self._asdict()})


class MovedLine(NamedTuple):
    """The outputs of a task were brought from `attempts/` to its folder. Nobody reads it back."""

    moved: int  # the task's index

    def to_line(self) -> bytes:
        """The line in its file."""
        return build_line({"event": "moved", **self._asdict()})


class EndLine(NamedTuple):
    """The closing line of a start: what it brought its tasks to."""

    time: float = 0.0  # seconds since 1970
    left: int = -1  # tasks that are not finished; -1: not known
    seconds: float = 0.0  # that all its attempts took together
    states: Mapping[str, Sequence[range]] = {}  # indices by state
    orphan: bool = False  # what the engine had the runner watched by is gone

    def to_line(self) -> bytes:
        """The line in its file."""
        states = {name: ",".join(map(format_ranges, found)) for name, found in self.states.items()}
        content = {"event": "end", **self._asdict(), "states": states}
        if not self.orphan:
            del content["orphan"]
        return build_line(content)


def parse_start(line: Mapping[str, object]) -> StartLine | None:
    """The first line of a start; None for any other line, and one without its form."""
    if line.get("event") != "start":
        return None
    try:
        found = StartLine(
            machine=text(line.get("machine", "")),
            boot=text(line.get("boot", "")),
            host=text(line.get("host", "")),
            pid=whole(line.get("pid", 0)),
            take_over=truth(line.get("take_over", False)),
            place=text(line.get("place", "")),
        )
    except FormError:
        return None
    return found if _ID.fullmatch(found.machine) and _ID.fullmatch(found.boot) else None


def _parse_synced(line: Mapping[str, object]) -> SyncedLine | None:
    try:
        return SyncedLine(whole(line.get("upto"), 1))
    except FormError:
        return None


def _parse_end(line: Mapping[str, object], below: int) -> EndLine | None:
    """below: more than the index of each task."""
    if line.get("event") != "end":
        return None
    try:
        states = table_of(line.get("states", {}))
        return EndLine(
            time=number(line.get("time", 0.0)),
            left=whole(line.get("left", -1), -1, MOST_TASKS),
            seconds=number(line.get("seconds", 0.0)),
            states={state: parse_ranges(ranges, below) for state, ranges in states.items()},
            orphan=bool(line.get("orphan")),
        )
    except FormError:
        return None


def find_end(content: bytes, below: int = MOST_TASKS) -> EndLine | None:
    """The closing line in a part of a records file; None where there is none.

    below: more than the index of each task.
    """
    found = (_parse_end(line, below) for line in _find_events(content, "end"))
    return next(filter(None, found), None)


def _find_events(content: bytes, name: str) -> Iterator[dict[str, object]]:
    """The events of that name, the last first. Only lines that have the word are parsed."""
    word = f'"{name}"'.encode()
    end = len(content)
    while (position := content.rfind(word, 0, end)) >= 0:
        end = content.rfind(b"\n", 0, position) + 1
        stop = content.find(b"\n", position) + 1
        for line in parse_lines(content[end:stop]):
            if line.get("event") == name and "task" not in line:
                yield line


# --- starts -------------------------------------------------------------------------------


class Start(NamedTuple):
    """One start of a batch, as its records file tells it."""

    key: RecordsKey
    opened: StartLine | None  # None: killed before its first line, as far as is known
    records: list[Record]
    ended: EndLine | None


def list_starts(store: Store, batch: str) -> list[RecordsKey]:
    """Every start of a batch, the earliest first."""
    names = store.names(records_folder(batch))
    return sorted(key for name in names if (key := parse_records_key(name)))


def read_start(store: Store, batch: str, key: RecordsKey, here: Machine) -> Start:
    """All that a start recorded, less what an earlier boot of this machine had not synced."""
    content = store.read(records_key(batch, key)) or b""
    if not store.is_lasting:
        content = content[: trusted_size(content, here)]
    opened = ended = None
    records = []
    for line in parse_lines(content):
        if record := parse_record(line):
            records.append(record)
        elif "task" not in line:
            opened = parse_start(line) or opened
            ended = _parse_end(line, MOST_TASKS) or ended
    return Start(key, opened, records, ended)


def trusted_size(content: bytes, here: Machine) -> int:
    """How many bytes of a records file can be believed after a power loss.

    Records that bear this machine's id and another boot's are trusted up to what the last
    `synced` line says; all others wholly.
    """
    head = content[: content.find(b"\n") + 1]
    opened = next(parse_lines(head), {})  # as it is: damage elsewhere in it makes nothing true
    is_ours = opened.get("machine") == here.machine and here.machine != ""
    if not is_ours or opened.get("boot") == here.boot:
        return len(content)
    told = map(_parse_synced, _find_events(content, "synced"))
    upto = next((line.upto for line in told if line), 0)
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
