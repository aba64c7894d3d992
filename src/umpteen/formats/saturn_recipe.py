"""Recipes of Saturn Cloud jobs: what a split needs to know of one, and the one it makes of it.

Takes a document and what shall change below `spec`, gives YAML. What does not change keeps its
order, its comments and its very text. Looks at no disk and asks no service.

Of YAML it edits in place what recipes are made of: a block mapping at the top with a block mapping
`spec` in it; the values there may be plain, quoted, literal (`|`), folded (`>`), lists or mappings,
in block or flow style, with comments behind them. What was written is parsed again and compared.
Where it does not say what it should, as with flow style, anchors or tags at the wrong place, the
whole is written anew by PyYAML, without its comments.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import yaml

from umpteen.errors import InputError, SettingsError
from umpteen.formats.documents import Document, Source, error_at
from umpteen.formats.yaml_documents import parse_yaml
from umpteen.units import show_value

__all__ = [
    "WORKING_DIRECTORY",
    "Download",
    "Recipe",
    "check_fetchable",
    "join_script",
    "read_recipe",
    "rewrite_recipe",
]

WORKING_DIRECTORY = "/home/jovyan/workspace"

_BEGIN = "### BEGIN SATURN_CLIENT GENERATED CODE"
_END = "### END SATURN_CLIENT GENERATED CODE"
_BLOCK = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}\n?", re.DOTALL)
_ARCHIVE = "/tmp/data.tar.gz"  # on the machine that runs the start script
_FETCH = {"": "cp", "s3": "aws s3 cp", "sfs": "saturnfs cp"}
_WIDTH = 1 << 30  # no line is broken
_NULLS = (None, "", "~", "null", "Null", "NULL")
_COMMENT = re.compile(r"([ \t]+#[^\n]*)")
_HEAD_COMMENT = re.compile(r"(?:[ \t]*[|>][-+0-9]*)?([ \t]+#[^\n]*)")


class Download(NamedTuple):
    """An archive that a start script fetches, and the folder that it is unpacked to."""

    url: str
    dest: str


class Recipe(NamedTuple):
    """What stands below `spec`, values that are null left out; YAML's scalars as text."""

    document: Document
    spec: Mapping[str, Any]

    def get_text(self, field: str) -> str:
        """A text below `spec`, empty where there is none; raises InputError for another value."""
        value = self.spec.get(field, "")
        if isinstance(value, (dict, list)):
            raise self.build_error(f"'{field}' must be a text, not {show_value(value)}", field)
        return str(value)

    def build_error(self, message: str, field: str, hint: str | None = None) -> InputError:
        """What is wrong with a field of `spec`, or with `spec` where it is not there."""
        position = self.document.find(("spec", field))
        return error_at(self.document.source, position, message, hint, field=f"spec.{field}")


def read_recipe(document: Document) -> Recipe:
    """The recipe that a document with a `spec` is; raises InputError where that is no mapping."""
    spec = document.value("spec")
    if not isinstance(spec, dict):
        message = f"'spec' must be a mapping, not {show_value(spec)}"
        raise error_at(document.source, document.find(("spec",)), message, field="spec")
    return Recipe(document, {str(k): v for k, v in spec.items() if v not in _NULLS})


def check_fetchable(url: str) -> None:
    """Raises SettingsError where a start script cannot fetch from such an address."""
    scheme = _parse_scheme(url)
    if scheme not in _FETCH:
        raise SettingsError(
            f"a start script cannot fetch from {scheme}:// ({url})",
            "give --file-syncs-base-dir-url an sfs:// or s3:// address, or a shared folder",
        )


def join_script(script: str, downloads: Iterable[Download]) -> str:
    """The start script with the generated block at its top, in place of an earlier one."""
    lines = [_BEGIN]
    for download in downloads:
        dest = _quote(download.dest.rstrip("/") + "/")
        fetch = _FETCH[_parse_scheme(download.url)]
        lines += [
            f"{fetch} {_quote(download.url)} {_ARCHIVE}",
            f"mkdir -p {dest}",
            f"tar -xvzf {_ARCHIVE} -C {dest}",
        ]
    return "\n".join([*lines, _END]) + "\n" + _BLOCK.sub("", script)


def _parse_scheme(url: str) -> str:
    scheme, found, _ = url.partition("://")
    return scheme if found else ""


def _quote(path: str) -> str:
    """For a shell; a `~/` at the start stays the home of the machine."""
    return f"~/{shlex.quote(path[2:])}" if path.startswith("~/") else shlex.quote(path)


# --- writing ------------------------------------------------------------------------------


def rewrite_recipe(recipe: Recipe, changes: Mapping[str, Any]) -> str:
    """The recipe as YAML, with these fields of `spec` as given: texts, numbers, lists of texts."""
    source = recipe.document.source
    if not recipe.document.is_text:
        content = json.loads(source.data)
        content["spec"].update(changes)
        return _dump(content)
    text = source.data.decode()
    text += "" if text.endswith("\n") else "\n"
    try:
        edited = _edit(text, changes)
        if _is_as_wanted(source, edited, changes):
            return edited
    except (InputError, LookupError, yaml.YAMLError):
        pass
    return _rewrite_nodes(text, changes)


def _edit(text: str, changes: Mapping[str, Any]) -> str:
    """The text with keys of the block mapping `spec` set, at their places or at the end."""
    spec = _find_spec(_compose(text)).value
    indent = "\n" + " " * spec[0][0].start_mark.column
    pairs = {name.value: (_find_value(text, name), node) for name, node in spec}
    end = text.index("\n", _find_end(text, spec[-1][1], _find_value(text, spec[-1][0])))
    edits = []
    for key, value in changes.items():
        first, *rest = _dump({key: value}).rstrip("\n").split("\n")
        below = "".join(indent + line if line else "\n" for line in rest)
        if key in pairs:
            start, node = pairs[key]
            stop = _find_end(text, node, start)
            behind = _COMMENT.match(text, stop)
            comment = _HEAD_COMMENT.match(text, start) or behind
            head = first[len(key) + 1 :] + (comment[1] if comment else "")
            # A comment that stayed behind would become part of a text of several lines.
            edits.append((start, behind.end() if behind else stop, head + below))
        else:
            edits.append((end, end, indent + first + below))
    edits.sort(key=lambda edit: edit[:2])
    parts, done = [], 0
    for start, stop, new in edits:
        parts += [text[done:start], new]
        done = stop
    return "".join([*parts, text[done:]])


def _is_as_wanted(source: Source, edited: str, changes: Mapping[str, Any]) -> bool:
    """Whether the edited text says what the old one said, but for the changes."""
    wanted, found = parse_yaml(source), parse_yaml(Source(source.name, edited.encode()))
    wanted["spec"].update(parse_yaml(Source("", _dump(changes).encode())))
    return bool(found == wanted)


def _find_value(text: str, name: yaml.Node) -> int:
    """Where the text of a value begins: behind the colon after its name."""
    return text.index(":", name.end_mark.index) + 1


def _find_end(text: str, node: yaml.Node, start: int) -> int:
    """Where the text of a value ends that begins behind `start`, comments left out."""
    is_block = text[node.start_mark.index : node.start_mark.index + 1] not in ("[", "{")
    if isinstance(node, yaml.MappingNode) and node.value and is_block:
        name, last = node.value[-1]
        return _find_end(text, last, name.end_mark.index + 1)
    if isinstance(node, yaml.SequenceNode) and node.value and is_block:
        return _find_end(text, node.value[-1], start)
    end = node.end_mark.index
    if getattr(node, "style", None) in ("|", ">"):
        end = len(text[:end].rstrip())
    return max(start, end)


def _rewrite_nodes(text: str, changes: Mapping[str, Any]) -> str:
    """The same by YAML's own means, which know no comments."""
    root = _compose(text)
    spec = _find_spec(root)
    for key, value in changes.items():
        (pair,) = _compose(_dump({key: value})).value
        places = [place for place, (name, _) in enumerate(spec.value) if name.value == key]
        if places:
            spec.value[places[0]] = pair
        else:
            spec.value.append(pair)
    spec.flow_style = root.flow_style = False
    written: str = yaml.serialize(root, Dumper=_Dumper, allow_unicode=True, width=_WIDTH)
    return written


def _compose(text: str) -> yaml.MappingNode:
    found: yaml.MappingNode = yaml.compose(text, Loader=_LOADER)  # type: ignore[assignment]
    return found


def _find_spec(root: yaml.MappingNode) -> yaml.MappingNode:
    spec: yaml.MappingNode = next(value for key, value in root.value if key.value == "spec")
    return spec


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes texts of several lines as such."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _dump(content: Mapping[str, Any]) -> str:
    written: str = yaml.dump(
        dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH
    )
    return written
