"""YAML as such: bytes in, plain values out, and the line of any of them."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import yaml

from umpteen.errors import InputError
from umpteen.formats.documents import Path, Source, SourcePosition, check_encoding, syntax_error

__all__ = ["YamlDocument", "find_in_yaml", "parse_yaml"]


_MERGE = "tag:yaml.org,2002:merge"


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
        return syntax_error(source, "not valid YAML: it has a control character", error.position)
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


def find_in_yaml(source: Source, path: Path) -> SourcePosition | None:
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
            return SourcePosition(line + 1, None)
        line, node = found
    return SourcePosition(line + 1, _build_text(node))


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

    def find(self, path: Path) -> SourcePosition | None:
        """Where the value at `path` stands, or the nearest above it."""
        return find_in_yaml(self.source, path[1:] if self._list_key else path)


def _without_nulls(values: Mapping[Any, Any]) -> dict[str, object]:
    """What has a value; keys as text."""
    return {
        str(key): value for key, value in values.items() if value not in ("", "~", "null", None)
    }
