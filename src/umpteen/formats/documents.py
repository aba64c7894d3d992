"""YAML and JSON as such: bytes in, plain values out, and the line of any of them.

Only syntax: knows no key and no task. Lines are searched for after an error, never before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from umpteen.errors import InputError

__all__ = [
    "Document",
    "Path",
    "Source",
    "SourcePosition",
    "check_encoding",
    "error_at",
    "syntax_error",
]

Path = Sequence["str | int"]


class Source(msgspec.Struct, frozen=True):
    """The bytes of one input; `name` as the user wrote it, `folder` where its tables are."""

    name: str
    data: bytes
    folder: str = "."


class SourcePosition(NamedTuple):
    """Where a value stands (line from 1) and what it is."""

    line: int
    value: Any


def check_encoding(source: Source) -> None:
    """Raises InputError, with line and column, where the bytes are not UTF-8 or hold a NUL."""
    begin = source.data[:64]
    is_wide = len(begin) > 3 and not (any(begin[::2]) and any(begin[1::2]))  # with no mark
    if is_wide or begin.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError("is UTF-16 text, not UTF-8", "save it as UTF-8", file=source.name)
    try:
        source.data.decode()
    except UnicodeDecodeError as error:
        raise syntax_error(source, "is not UTF-8 text", error.start) from None
    if b"\0" in source.data:
        raise syntax_error(source, "has a NUL byte", source.data.index(b"\0"))


def syntax_error(source: Source, message: str, offset: int) -> InputError:
    """An error that names the line and column of a byte."""
    before = source.data[:offset]
    line_start = before.rfind(b"\n") + 1
    column = len(before[line_start:].decode(errors="replace")) + 1
    return InputError(message, file=source.name, line=before.count(b"\n") + 1, column=column)


def error_at(
    source: Source,
    position: SourcePosition | None,
    message: str,
    hint: str | None = None,
    *,
    field: str | None = None,
) -> InputError:
    """An error that names the file, and the line where the value stands, if that is known."""
    line = (position.line or None) if position else None
    return InputError(message, hint, file=source.name or None, line=line, field=field)


class Document(Protocol):
    """A file with keys at its top, whichever syntax it is written in."""

    source: Source
    is_text: bool

    def list_keys(self) -> list[str]:
        """The top-level keys that have a value."""

    def value(self, key: str) -> Any:
        """The plain value, numbers with a point as text."""

    def free(self, key: str) -> Any:
        """The plain value, numbers as numbers."""

    def convert(self, key: str, kind: Any) -> Any:
        """The value as that type; lets msgspec.ValidationError through."""

    def convert_values(self, values: Mapping[str, Any], kind: Any) -> Any:
        """Values of this document as that type; lets msgspec.ValidationError through."""

    def find(self, path: Path) -> SourcePosition | None:
        """Where the value at `path` stands, or the nearest above it."""
