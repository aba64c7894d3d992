"""YAML and JSON as such: bytes in, plain values out, and the line of any of them.

Only syntax: knows no key and no task. Lines are searched for after an error, never before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, get_args

import msgspec
import yaml

from umpteen.errors import InputError

__all__ = [
    "Document",
    "JsonDocument",
    "JsonLinesDocument",
    "Path",
    "Place",
    "Source",
    "YamlDocument",
    "check_encoding",
    "decode_json",
    "decode_json_lines",
    "find_in_json",
    "find_in_json_lines",
    "find_in_yaml",
    "parse_yaml",
    "split_json",
]

Path = Sequence["str | int"]

_MERGE = "tag:yaml.org,2002:merge"
_JSON_BLANK = re.compile(r"[ \t\r\n]*")
_CORE_NULL = ("", "~", "null", "Null", "NULL")
_CORE_BOOL = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_CORE_INT = re.compile(r"[-+]?[0-9]+")
_CORE_OTHER_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_CORE_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


class Source(msgspec.Struct, frozen=True):
    """The bytes of one input; `name` as the user wrote it, `folder` where its tables are."""

    name: str
    data: bytes
    folder: str = "."


class Place(NamedTuple):
    """Where a value stands (line from 1) and what it is."""

    line: int
    value: Any


class _TextLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads every scalar as the text that was written; of YAML 1.1 only `<<` is kept."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {"<": [(_MERGE, re.compile("^(?:<<)$"))]}

    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        None: yaml.SafeLoader.construct_undefined,
        "tag:yaml.org,2002:seq": yaml.SafeLoader.construct_yaml_seq,
        "tag:yaml.org,2002:map": yaml.SafeLoader.construct_yaml_map,
        **{
            f"tag:yaml.org,2002:{tag}": yaml.SafeLoader.construct_yaml_str
            for tag in ("str", "int", "float", "bool", "null")
        },
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        _refuse_repeated_keys(node)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return found

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        _refuse_repeated_keys(node)
        super().flatten_mapping(node)


def check_encoding(source: Source) -> None:
    """Raises InputError, with line and column, where the bytes are not UTF-8 or hold a NUL."""
    begin = source.data[:64]
    is_wide = len(begin) > 3 and not (any(begin[::2]) and any(begin[1::2]))  # with no mark
    if is_wide or begin.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError("is UTF-16 text, not UTF-8", "save it as UTF-8", file=source.name)
    try:
        source.data.decode()
    except UnicodeDecodeError as error:
        raise _syntax_error(source, "is not UTF-8 text", error.start) from None
    if b"\0" in source.data:
        raise _syntax_error(source, "has a NUL byte", source.data.index(b"\0"))


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
    return _syntax_error(source, f"not valid JSON: {reason}", offset)


def _read_json_reason(error: Exception, size: int) -> tuple[str, int]:
    """What is wrong, and the offset of it, from msgspec's message."""
    match = re.fullmatch(r"JSON is malformed: (.*) \(byte (\d+)\)", str(error))
    if match:
        # Of these msgspec counts one too many.
        return match[1], int(match[2]) - (match[1] == "trailing characters")
    return ("the text ends too early" if "truncated" in str(error) else str(error)), size


def _syntax_error(source: Source, message: str, offset: int) -> InputError:
    before = source.data[:offset]
    line_start = before.rfind(b"\n") + 1
    column = len(before[line_start:].decode(errors="replace")) + 1
    return InputError(message, file=source.name, line=before.count(b"\n") + 1, column=column)


def parse_yaml(source: Source, *, free: Sequence[str] = ()) -> Any:
    """The document with all scalars as text; those below the top keys `free` by YAML 1.2.

    Raises InputError with line and column.
    """
    try:
        loader = _TextLoader(source.data)
        try:
            node = loader.get_single_node()
            found = loader.construct_document(node) if node else None
            if isinstance(found, dict):
                for key, value in node.value:
                    if key.value in free and isinstance(value, yaml.MappingNode):
                        found[key.value] = _build_core(value)
            return found
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _yaml_error(source, error) from None
    except RecursionError:
        raise InputError("the values are nested too deeply", file=source.name) from None


def _refuse_repeated_keys(node: yaml.MappingNode) -> None:
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    if len(set(keys)) == len(keys):
        return
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen and key.tag != _MERGE:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key.value!r} stands here twice", key.start_mark
            )
        seen.add(key.value)


def _build_core(node: yaml.Node) -> Any:
    """The value of a node, plain scalars by YAML 1.2's core rules."""
    if isinstance(node, yaml.MappingNode):
        return {str(_build_core(key)): _build_core(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_build_core(item) for item in node.value]
    text = str(node.value)
    if getattr(node, "style", None):
        return text
    if text in _CORE_NULL:
        return None
    if text in _CORE_BOOL:
        return _CORE_BOOL[text]
    if _CORE_INT.fullmatch(text):
        return int(text)
    if _CORE_OTHER_INT.fullmatch(text):
        return int(text, 0)
    return float(text) if _CORE_FLOAT.fullmatch(text) else text


def _yaml_error(source: Source, error: yaml.YAMLError) -> InputError:
    if isinstance(error, yaml.reader.ReaderError):
        check_encoding(source)
        return _syntax_error(source, "not valid YAML: it has a control character", error.position)
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be read"
    hint = None
    if mark and "cannot start any token" in problem and _has_tab(source, mark.line):
        hint = "YAML is indented with blanks, not with tabs"
    if not mark:
        return InputError(f"not valid YAML: {problem}", hint, file=source.name)
    line, column = mark.line + 1, mark.column + 1
    lines = source.data.splitlines()
    if line > len(lines) > 0:  # a file that ends too early is marked behind its last line
        line, column = len(lines), len(lines[-1]) + 1
    return InputError(
        f"not valid YAML: {problem}", hint, file=source.name, line=line, column=column
    )


def _has_tab(source: Source, line: int) -> bool:
    return b"\t" in b"".join(source.data.split(b"\n")[line : line + 1])


def find_in_yaml(source: Source, path: Path) -> Place | None:
    """Where the value at `path` stands, or the nearest above it."""
    try:
        node = yaml.compose(source.data, Loader=_TextLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    if node is None:
        return None
    line = node.start_mark.line
    for step in path:
        found = _find_child(node, step)
        if found is None:
            return Place(line + 1, None)
        line, node = found
    return Place(line + 1, _build_text(node))


def _find_child(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line, node.value[step]
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key.start_mark.line, value
    return None


def _build_text(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _build_text(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [item.value for item in node.value]
    return node.value


def find_in_json(source: Source, path: Path) -> Place | None:
    """Where the value at `path` stands, or the nearest above it."""
    text = source.data.decode(errors="replace")
    at = mark = _skip_blank(text, 0)
    try:
        for step in path:
            found = _descend(text, at, step)
            if found is None:
                return Place(text.count("\n", 0, mark) + 1, None)
            mark, at = found
        value = json.JSONDecoder(parse_float=str).raw_decode(text, at)[0]
    except (ValueError, IndexError, RecursionError):
        value = None
    return Place(text.count("\n", 0, mark) + 1, value)


def find_in_json_lines(source: Source, path: Path) -> Place | None:
    """As `find_in_json`, where the first step counts the lines that hold something."""
    if not path or not isinstance(path[0], int):
        return None
    seen = -1
    for number, line in enumerate(source.data.split(b"\n"), 1):
        seen += bool(line.strip())
        if seen == path[0]:
            inner = find_in_json(Source(source.name, line), path[1:])
            return Place(number, inner.value if inner else None)
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

    def find(self, path: Path) -> Place | None:
        """Where the value at `path` stands, or the nearest above it."""


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

    def find(self, path: Path) -> Place | None:
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

    def find(self, path: Path) -> Place | None:
        """Where the value at `path` stands, or the nearest above it."""
        return find_in_json_lines(self.source, path[1:])


class YamlDocument:
    """A YAML mapping; a YAML list stands for the value of `list_key`."""

    is_text = True

    def __init__(self, source: Source, *, list_key: str, free: Sequence[str] = ()) -> None:
        self.source = source
        found = parse_yaml(source, free=free)
        self._list_key = list_key if isinstance(found, list) else None
        if isinstance(found, list):
            found = {list_key: found}
        if found is not None and not isinstance(found, dict):
            raise InputError("is no mapping of keys to values", file=source.name)
        self._values = _without_nulls(found or {})

    def list_keys(self) -> list[str]:
        """The top-level keys that have a value."""
        return list(self._values)

    def value(self, key: str) -> Any:
        """The plain value, numbers as text."""
        return self._values[key]

    free = value

    def convert(self, key: str, kind: Any) -> Any:
        """The value as that type; lets msgspec.ValidationError through."""
        value = self._values[key]
        if isinstance(value, list):
            value = [_without_nulls(item) if isinstance(item, dict) else item for item in value]
        return msgspec.convert(value, kind, strict=False)

    def convert_values(self, values: Mapping[str, Any], kind: Any) -> Any:
        """Values of this document as that type; lets msgspec.ValidationError through."""
        return msgspec.convert(values, kind, strict=False)

    def find(self, path: Path) -> Place | None:
        """Where the value at `path` stands, or the nearest above it."""
        return find_in_yaml(self.source, path[1:] if self._list_key else path)


def _without_nulls(values: Mapping[Any, Any]) -> dict[str, Any]:
    """What has a value; keys as text."""
    return {
        str(key): value for key, value in values.items() if value not in ("", "~", "null", None)
    }
