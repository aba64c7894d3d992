"""Reads the records files of batches: of each start what is new since the last look.

Of a start that has ended only the closing line is read. What the lines say of tasks is not
weighed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec

from umpteen.history.batches import BatchHistory, StartHistory
from umpteen.model.forms import MOST_TASKS, MOST_TIME_S
from umpteen.model.record import parse_record
from umpteen.store.base import Store
from umpteen.store.identity import is_another
from umpteen.store.layout import CLOSED, parse_records_key, records_folder, records_key
from umpteen.store.records import EndLine, find_end, parse_lines, parse_start, trusted_size
from umpteen.system.host import Machine

__all__ = ["ClosingLine", "CountedLine", "NewLines", "StartReader", "parse_record_lines"]

_TAIL_BYTES, _HEAD_BYTES = 65536, 1024
_STARTS_AT_ONCE = 64

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=MOST_TIME_S)]
_State = Literal[
    "", "waiting", "running", "succeeded", "failed", "timed_out", "cancelled", "skipped"
]


class CountedLine(msgspec.Struct, gc=False):
    """The part of a record that counting needs; of an event its name."""

    task: Annotated[int, msgspec.Meta(ge=-1, lt=MOST_TASKS)] = -1
    state: _State = ""
    seconds: _Seconds = 0.0
    event: str = ""
    end_s: _Seconds = 0.0
    retry: bool = False


class NewLines(NamedTuple):
    """Lines of a start that were not read before."""

    batch: BatchHistory
    start: StartHistory
    content: bytes
    lines: Sequence[CountedLine]  # the same, decoded


class ClosingLine(NamedTuple):
    """The closing line of a start that had not been read before: it says all that came of it."""

    batch: BatchHistory
    start: StartHistory
    end: EndLine


class StartReader:
    """Reads the starts of one store. place: where that is, as `describe_place` writes it."""

    def __init__(self, store: Store, here: Machine, place: str) -> None:
        self.store, self.here, self.place = store, here, place

    def read_new(
        self, batches: Sequence[BatchHistory], below: int
    ) -> Iterator[NewLines | ClosingLine]:
        """Their starts, and what is new in those that had not ended.

        below: more than the index of each task.
        """
        folders = self.store.names_many([records_folder(batch.batch) for batch in batches])
        for batch, names in zip(batches, folders, strict=True):
            known = {start.key for start in batch.starts}
            found = sorted(key for name in names if (key := parse_records_key(name)))
            batch.starts += [StartHistory(key) for key in found if key not in known]
            batch.is_closed = CLOSED in names
        going = [(batch, start) for batch in batches for start in batch.starts]
        going = [(batch, start) for batch, start in going if not start.has_ended]
        for place in range(0, len(going), _STARTS_AT_ONCE):
            yield from self._read_starts(going[place : place + _STARTS_AT_ONCE], below)

    def _read_starts(
        self, going: Sequence[tuple[BatchHistory, StartHistory]], below: int
    ) -> Iterator[NewLines | ClosingLine]:
        asked = [
            (records_key(batch.batch, start.key), start.offset or -_TAIL_BYTES, -1)
            for batch, start in going
        ]
        contents = self.store.read_many(asked)
        for (batch, start), (key, _, _), content in zip(going, asked, contents, strict=True):
            yield self._read_start(batch, start, key, content or b"", below)

    def _read_start(
        self, batch: BatchHistory, start: StartHistory, key: str, content: bytes, below: int
    ) -> NewLines | ClosingLine:
        """content: what is new in its file, or the end of a file that was not read before."""
        if start.offset == 0 and len(content) >= _TAIL_BYTES:
            if end := self._find_closing_line(key, content, below):
                start.close(end)
                return ClosingLine(batch, start, end)
            content = self.store.read(key) or b""
        if start.offset == 0 and not self.store.is_lasting:
            size = trusted_size(content, self.here)
            start.has_ended = size < len(content)  # with its boot; the rest is not to be believed
            content = content[:size]
        content = content[: content.rfind(b"\n") + 1]
        start.offset += len(content)
        if start.opened is None:
            first = next(parse_lines(content[: content.find(b"\n") + 1]), {})
            start.opened = parse_start(first)
            start.is_copied = is_another(start.opened.place if start.opened else "", self.place)
        return NewLines(batch, start, content, parse_record_lines(content))

    def _find_closing_line(self, key: str, tail: bytes, below: int) -> EndLine | None:
        """The closing line of a start; None where that is not enough to know what it came to."""
        end = find_end(tail, below)
        if end and not self.store.is_lasting:
            head = self.store.read(key, size=_HEAD_BYTES) or b""
            if trusted_size(head, self.here) < len(head):  # from before a reboot: read with care
                return None
        return end


def parse_record_lines(content: bytes) -> Sequence[CountedLine]:
    """The parts of records that are counted; a line without the right form is ignored, as runners
    do.
    """
    try:
        lines: list[CountedLine] = _LINES.decode_lines(content)
        return lines
    except (msgspec.DecodeError, RecursionError):
        return list(_parse_each(content))


def _parse_each(content: bytes) -> Iterator[CountedLine]:
    for line in content.splitlines(keepends=True):
        try:
            yield _LINES.decode(line)
        except (msgspec.DecodeError, RecursionError):
            for parsed in parse_lines(line):
                if record := parse_record(parsed):
                    yield CountedLine(
                        task=record.task, state=record.state, seconds=record.seconds,  # type: ignore[arg-type]
                        end_s=record.end_s, retry=record.retry,
                    )  # fmt: skip
                elif parsed.get("event") == "end":
                    yield CountedLine(event="end")


_LINES = msgspec.json.Decoder(CountedLine)
