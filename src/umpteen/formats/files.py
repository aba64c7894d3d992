"""One file in, what it says out: chooses the reader by name and content.

Loads every reader there is, so it is loaded where there is a file. Knows no key of any format but
those by which they are told apart.
"""

from __future__ import annotations

import os
import re

import msgspec

from umpteen.errors import InputError
from umpteen.formats.documents import Document, Source, check_encoding
from umpteen.formats.json_documents import JsonDocument, JsonLinesDocument
from umpteen.formats.lines import read_lines, refuse_makefile
from umpteen.formats.native import read_csv, read_native
from umpteen.formats.saturn_batch import read_saturn_batch
from umpteen.formats.sources import Inputs
from umpteen.formats.tasks import ParsedFile
from umpteen.formats.yaml_documents import YamlDocument

__all__ = ["open_document", "read_source"]

_YAML = (".yaml", ".yml")
_JSON_LIST = re.compile(rb'\[(?:\s*[\[{\]]|"|\s*\n)')
_JSON_OBJECT = re.compile(rb'\{\s*["}]')
_YAML_LINE = re.compile(rb"""(?:---|%YAML|["']?[A-Za-z_]\w*["']?[ \t]*:(?=\s|$)|-[ \t]+\S)""")
_NOT_BLANK = re.compile(rb"\S")


def open_document(file: str, key: str, hint: str) -> Document:
    """A YAML or JSON file that has this key at its top.

    Raises InputError where there is no such file, with the hint, or it is another.
    """
    source = Inputs(None).open(file, hint=hint)
    document = _open_document(source, os.path.splitext(file)[1].lower())
    if document is None or key not in document.list_keys():
        raise InputError(f"has no {key!r}", hint, file=source.name, field=key)
    return document


def read_source(source: Source) -> ParsedFile:
    """What a file says, by the reader that its content asks for."""
    extension = os.path.splitext(source.name)[1].lower()
    if not _NOT_BLANK.search(source.data):
        raise InputError(f"{source.name} has no tasks", "the file is empty")
    if extension in (".csv", ".tsv"):
        check_encoding(source)
        return read_csv(source)
    refuse_makefile(source)
    if document := _open_document(source, extension):
        keys = document.list_keys()
        return (
            read_saturn_batch(document)
            if "runs" in keys and "tasks" not in keys
            else read_native(document)
        )
    return read_lines(source)


def _open_document(source: Source, extension: str) -> Document | None:
    """The file as a document; None where it is plain lines."""
    data = source.data
    start = _NOT_BLANK.search(data)
    at = start.start() if start else 0
    if extension == ".jsonl":
        return JsonLinesDocument(source, "tasks")
    if extension == ".json" or _JSON_OBJECT.match(data, at) or _JSON_LIST.match(data, at):
        try:
            return _open_json(source, at)
        except InputError:
            if extension not in _YAML:
                raise
    if extension in _YAML or _YAML_LINE.match(_first_line(data)):
        check_encoding(source)
        return YamlDocument(source, list_key="tasks", free=("executor",))
    return None


def _open_json(source: Source, at: int) -> Document:
    if source.data[at : at + 1] == b"[":
        return JsonDocument(source, list_key="tasks")
    if _has_object_a_line(source.data[at:] if at else source.data):
        return JsonLinesDocument(source, "tasks")
    document = JsonDocument(source)
    if "command" in document.list_keys() and "tasks" not in document.list_keys():
        return JsonLinesDocument(source, "tasks")
    return document


def _has_object_a_line(data: bytes) -> bool:
    end = data.find(b"\n")
    following = _NOT_BLANK.search(data, end) if end >= 0 else None
    if following is None or following[0] != b"{":
        return False
    try:
        msgspec.json.decode(data[:end], type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return True


def _first_line(data: bytes) -> bytes:
    """The first line that holds something, comments left out."""
    match = re.search(rb"^(?![ \t]*(?:#|\r?$))[^\n]+", data, re.MULTILINE)
    return match[0] if match else b""
