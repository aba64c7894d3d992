"""Tables of values in files: CSV, TSV, JSON and JSON-lines."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from umpteen.errors import InputError
from umpteen.formats.documents import Source, check_encoding
from umpteen.formats.json_documents import decode_json, decode_json_lines

__all__ = [
    "NUMBER",
    "TABLES",
    "ReadTable",
    "Table",
    "check_name",
    "iterate_csv",
    "parse_rows",
    "read_table",
    "value_text",
]


NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")


_BAD_NAME = re.compile(r"[{}\x00-\x1f\x7f]")


TABLES = (".csv", ".tsv", ".json", ".jsonl")


class Table(msgspec.Struct, frozen=True):
    """Columns with a name, and rows of their values."""

    names: tuple[str, ...]
    rows: list[tuple[str, ...]]


ReadTable = Callable[[str], Source]


def check_name(name: str) -> None:
    """Refuse what cannot stand between braces. Raises InputError."""
    if not name.strip() or _BAD_NAME.search(name):
        raise InputError(f"{name!r} cannot be the name of a value", field="matrix")


def value_text(value: Any, where: str, field: str = "matrix") -> str:
    """A text, number or truth value as text; InputError for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        text = str(value)
        if "\0" in text:
            raise InputError(f"{where}: a NUL character cannot be passed on", field=field)
        return text
    found = "a list" if isinstance(value, list) else "nothing" if value is None else "a mapping"
    raise InputError(f"{where} must be text or a number, not {found}", field=field)


def parse_rows(rows: Sequence[Mapping[str, Any]], source: Source | None = None) -> Table:
    """Rows that are mappings; all must have the names of the first."""
    names = tuple(str(name) for name in rows[0])
    file = source.name if source else None
    for name in names:
        check_name(name)
    if not names:
        raise InputError("the rows of the matrix are empty", file=file, field="matrix")
    found = []
    for number, row in enumerate(rows, 1):
        for name in (*names, *row):
            if name not in row or name not in names:
                what = "no" if name not in row else "an extra"
                raise InputError(
                    f"row {number} has {what} {name!r}",
                    "all rows need the same names",
                    file=file,
                    field="matrix",
                )
        found.append(tuple(value_text(row[name], f"the values of {name!r}") for name in names))
    return Table(names, found)


def read_table(source: Source) -> Table:
    """The rows of a CSV, TSV, JSON or JSON-lines file; raises InputError with the line."""
    check_encoding(source)
    extension = os.path.splitext(source.name)[1].lower()
    opening = source.data.lstrip()[:1]
    if extension in (".json", ".jsonl") or (extension not in TABLES and opening in b"[{"):
        return _read_json_table(source, opening)
    lines, cells = zip(*iterate_csv(source), strict=True)
    header, body = tuple(cells[0]), [tuple(row) for row in cells[1:]]
    if all(NUMBER.fullmatch(cell) for cell in header):
        hint = "its first line must name the columns"
        raise InputError("the table has no header", hint, file=source.name, line=1)
    if not body:
        raise InputError("the table has no rows", file=source.name)
    _refuse_equal_rows(body, lines[1:], source)
    return Table(header, body)


def _refuse_equal_rows(
    rows: Sequence[tuple[str, ...]], lines: Sequence[int], source: Source
) -> None:
    """Raises InputError for a row that stands there twice: it would be the same task."""
    if len(set(rows)) == len(rows):
        return
    seen: dict[tuple[str, ...], int] = {}
    for row, line in zip(rows, lines, strict=True):
        if row in seen:
            message = f"the same row as in line {seen[row]}"
            hint = "each row makes a task of its own: give it once, or add a column that differs"
            raise InputError(message, hint, file=source.name, line=line)
        seen[row] = line


def _read_json_table(source: Source, opening: bytes) -> Table:
    if not opening:
        raise InputError("the table is empty", file=source.name)
    if opening == b"[":
        rows = decode_json(source, source.data, Any)
    else:
        rows = [decode_json(source, line, Any) for line in _json_lines(source)]
    if not rows or not all(isinstance(row, dict) for row in rows):
        hint = 'write [{"lr": 0.1, "seed": 1}, …], or such an object on each line'
        raise InputError("the table is no list of objects", hint, file=source.name)
    return parse_rows(rows, source)


def _json_lines(source: Source) -> list[msgspec.Raw]:
    return decode_json_lines(source, msgspec.Raw)


def iterate_csv(source: Source) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row, the header first; blank lines are left out.

    Raises InputError where a row has not as many cells as the header.
    """
    text = source.data.decode()
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=_delimiter(source, text),
        skipinitialspace=True,
        strict=True,
    )
    header: list[str] | None = None
    try:
        for row in reader:
            if header is None:
                if row:
                    header = _check_header(source, [cell.strip() for cell in row], reader.line_num)
                    yield reader.line_num, header
            elif len(row) == len(header):
                yield reader.line_num, row
            elif row:
                raise InputError(
                    f"{len(row)} cells where the header has {len(header)}",
                    "a cell with a comma in it needs double quotes",
                    file=source.name,
                    line=reader.line_num,
                )
    except csv.Error as error:
        raise InputError(
            f"not valid CSV: {error}", file=source.name, line=reader.line_num
        ) from None
    if header is None:
        raise InputError("the table is empty", file=source.name)


def _delimiter(source: Source, text: str) -> str:
    header = text.lstrip().split("\n", 1)[0]
    if source.name.lower().endswith(".tsv"):
        return "\t"
    for delimiter in (",", ";", "\t"):
        if delimiter in header:
            return delimiter
    return ","


def _check_header(source: Source, header: list[str], line: int) -> list[str]:
    for name in header:
        if not name or header.count(name) > 1 or _BAD_NAME.search(name):
            problem, hint = f"{name!r} cannot be the name of a column", "use letters, digits and _"
            if not name:
                problem = f"column {header.index(name) + 1} has no name"
                hint = "name every column; of pandas: df.to_csv(FILE, index=False)"
            elif header.count(name) > 1:
                problem, hint = f"two columns have the name {name!r}", "rename or remove one"
            raise InputError(problem, hint, file=source.name, line=line)
    return header
