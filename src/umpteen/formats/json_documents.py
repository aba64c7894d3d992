"""JSON and JSON-lines as such: bytes in, plain values out, and the line of any of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

import msgspec

from umpteen.errors import InputError
from umpteen.formats.documents import Path, Source, SourcePosition, check_encoding, syntax_error

__all__ = [
    "JsonDocument",
    "JsonLinesDocument",
    "decode_json",
    "decode_json_lines",
    "find_in_json",
    "find_in_json_lines",
    "split_json",
]


_JSON_BLANK = re.compile(r"[ \t\r\n]*")


def split_json(source: Source) -> dict[str, msgspec.Raw]:
    """The top-level values of a JSON object, not decoded yet."""
    try:
        found: dict[str, msgspec.Raw] = decode_json(source, source.data, dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        hint = 'write {"tasks": [{"command": "echo hello"}]}'
        raise InputError("is no JSON object or list", hint, file=source.name) from None
    return found


def decode_json(
    source: Source,
    data: bytes | msgspec.Raw,
    kind: Any,
    float_hook: Callable[[str], Any] | None = str,
) -> Any:
    """The value, typed; untyped numbers with a point keep their text unless told otherwise.

    Raises InputError where it is no JSON, and lets msgspec.ValidationError through.
    """
    try:
        return msgspec.json.Decoder(kind, float_hook=float_hook).decode(data)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _json_error(source, error) from None
    except RecursionError:
        raise InputError("the values are nested too deeply", file=source.name) from None


def decode_json_lines(source: Source, kind: Any) -> list[Any]:
    """One value a line; raises InputError, lets msgspec.ValidationError through."""
    try:
        found: list[Any] = msgspec.json.Decoder(kind, float_hook=str).decode_lines(source.data)
        return found
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _json_lines_error(source, kind) or _json_error(source, error) from None


def _json_lines_error(source: Source, kind: Any) -> InputError | None:
    """The error of the first line that is wrong by itself."""
    check_encoding(source)
    decoder = msgspec.json.Decoder(kind)
    for number, line in enumerate(source.data.split(b"\n"), 1):
        try:
            if line.strip():
                decoder.decode(line)
        except msgspec.ValidationError:
            continue
        except (msgspec.DecodeError, RecursionError) as error:
            reason, offset = _read_json_reason(error, len(line))
            message = f"not valid JSON: {reason}"
            return InputError(message, file=source.name, line=number, column=offset + 1)
    return None


def _json_error(source: Source, error: Exception) -> InputError:
    check_encoding(source)
    # The offset that msgspec tells is within the part it was given, so the whole is read again.
    try:
        msgspec.json.decode(source.data, type=msgspec.Raw)
        msgspec.json.decode(source.data)
    except (msgspec.DecodeError, RecursionError) as whole:
        error = whole
    reason, offset = _read_json_reason(error, len(source.data.rstrip()))
    return syntax_error(source, f"not valid JSON: {reason}", offset)


def _read_json_reason(error: Exception, size: int) -> tuple[str, int]:
    """What is wrong, and the offset of it, from msgspec's message."""
    match = re.fullmatch(r"JSON is malformed: (.*) \(byte (\d+)\)", str(error))
    if match:
        # Of these msgspec counts one too many.
        return match[1], int(match[2]) - (match[1] == "trailing characters")
    return ("the text ends too early" if "truncated" in str(error) else str(error)), size


def find_in_json(source: Source, path: Path) -> SourcePosition | None:
    """Where the value at `path` stands, or the nearest above it."""
    text = source.data.decode(errors="replace")
    at = mark = _skip_blank(text, 0)
    try:
        for step in path:
            found = _descend(text, at, step)
            if found is None:
                return SourcePosition(text.count("\n", 0, mark) + 1, None)
            mark, at = found
        value = json.JSONDecoder(parse_float=str).raw_decode(text, at)[0]
    except (ValueError, IndexError, RecursionError):
        value = None
    return SourcePosition(text.count("\n", 0, mark) + 1, value)


def find_in_json_lines(source: Source, path: Path) -> SourcePosition | None:
    """As `find_in_json`, where the first step counts the lines that hold something."""
    if not path or not isinstance(path[0], int):
        return None
    seen = -1
    for number, line in enumerate(source.data.split(b"\n"), 1):
        seen += bool(line.strip())
        if seen == path[0]:
            inner = find_in_json(Source(source.name, line), path[1:])
            return SourcePosition(number, inner.value if inner else None)
    return None


def _descend(text: str, at: int, step: str | int) -> tuple[int, int] | None:
    """The places of a member's start and of its value, by stepping over those before it."""
    if text[at] not in "{[":
        return None
    is_object, index, decoder = text[at] == "{", 0, json.JSONDecoder()
    at = _skip_blank(text, at + 1)
    while text[at] not in "}]":
        mark, key = at, ""
        if is_object:
            key, at = decoder.raw_decode(text, at)
            at = _skip_blank(text, _skip_blank(text, at) + 1)
        if step == (key if is_object else index):
            return mark, at
        at = _skip_blank(text, decoder.raw_decode(text, at)[1])
        if text[at] == ",":
            at = _skip_blank(text, at + 1)
        index += 1
    return None


def _skip_blank(text: str, at: int) -> int:
    match = _JSON_BLANK.match(text, at)
    return match.end() if match else at


class JsonDocument:
    """A JSON object; with `list_key` a JSON array that stands for the value of that key."""

    is_text = False

    def __init__(self, source: Source, *, list_key: str | None = None) -> None:
        self.source = source
        self._list_key = list_key
        raws = {list_key: msgspec.Raw(source.data)} if list_key else split_json(source)
        self._raws = {key: raw for key, raw in raws.items() if not _is_null(raw)}

    def list_keys(self) -> list[str]:
        """The top-level keys that have a value."""
        return list(self._raws)

    def value(self, key: str) -> Any:
        """The plain value, numbers with a point as text."""
        return decode_json(self.source, self._raws[key], Any)

    def free(self, key: str) -> Any:
        """The plain value, numbers as numbers."""
        return decode_json(self.source, self._raws[key], Any, float_hook=None)

    def convert(self, key: str, kind: Any) -> Any:
        """The value as that type; lets msgspec.ValidationError through."""
        return decode_json(self.source, self._raws[key], kind)

    def convert_values(self, values: Mapping[str, Any], kind: Any) -> Any:
        """Values of this document as that type; lets msgspec.ValidationError through."""
        return msgspec.convert(values, kind)

    def find(self, path: Path) -> SourcePosition | None:
        """Where the value at `path` stands, or the nearest above it."""
        return find_in_json(self.source, path[1:] if self._list_key else path)


def _is_null(raw: msgspec.Raw) -> bool:
    return memoryview(raw).nbytes == 4 and bytes(raw) == b"null"


class JsonLinesDocument(JsonDocument):
    """JSON values, one a line, that stand for the list of that key."""

    def __init__(self, source: Source, list_key: str) -> None:
        super().__init__(source, list_key=list_key)

    def convert(self, key: str, kind: Any) -> Any:  # noqa: ARG002 - there is only one
        """The lines, each as an item of that list type; lets msgspec.ValidationError through."""
        return decode_json_lines(self.source, get_args(kind)[0])

    def find(self, path: Path) -> SourcePosition | None:
        """Where the value at `path` stands, or the nearest above it."""
        return find_in_json_lines(self.source, path[1:])
