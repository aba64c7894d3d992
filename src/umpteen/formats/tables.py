"""Tables of values in files: CSV, TSV, JSON and JSON-lines.

Knows nothing of what the values are for.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from umpteen.errors import InputError
from umpteen.formats.documents import Source, check_encoding
from umpteen.formats.json_documents import decode_json, decode_json_lines
from umpteen.formats.values import Table, is_name, parse_rows

__all__ = ["is_table", "iterate_csv", "join_tables", "read_table"]

_EXTENSIONS = (".csv", ".tsv", ".json", ".jsonl")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")


def is_table(name: str) -> bool:
    """Whether a file of that name is taken for a table."""
    return name.lower().endswith(_EXTENSIONS)


def read_table(source: Source) -> Table:
    """The rows of a CSV, TSV, JSON or JSON-lines file; raises InputError with the line."""
    check_encoding(source)
    extension = os.path.splitext(source.name)[1].lower()
    opening = source.data.lstrip()[:1]
    if extension in (".json", ".jsonl") or (extension not in _EXTENSIONS and opening in b"[{"):
        return _read_json_table(source, opening)
    lines, cells = zip(*iterate_csv(source), strict=True)
    header, body = tuple(cells[0]), [tuple(row) for row in cells[1:]]
    if all(_NUMBER.fullmatch(cell) for cell in header):
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
        if not name or header.count(name) > 1 or not is_name(name):
            problem, hint = f"{name!r} cannot be the name of a column", "use letters, digits and _"
            if not name:
                problem = f"column {header.index(name) + 1} has no name"
                hint = "name every column; of pandas: df.to_csv(FILE, index=False)"
            elif header.count(name) > 1:
                problem, hint = f"two columns have the name {name!r}", "rename or remove one"
            raise InputError(problem, hint, file=source.name, line=line)
    return header


def join_tables(tables: Sequence[tuple[str, Table]]) -> Table:
    """The rows of tables that have the same columns, in whatever order; each with its file's name.

    Raises InputError where the columns differ, or two have an equal row.
    """
    (first, joined), *others = tables
    owners = dict.fromkeys(joined.rows, first)
    for file, table in others:
        if set(table.names) != set(joined.names):
            differing = sorted(set(table.names).symmetric_difference(joined.names))
            raise InputError(
                f"{first} and {file} have not the same columns: {', '.join(differing)}",
                "tables are joined row by row; values that go with each row go into one table",
                file=file,
            )
        columns = [table.names.index(name) for name in joined.names]
        for row in table.rows:
            given = tuple(row[column] for column in columns)
            if given in owners:
                shown = ", ".join(f"{k}={v}" for k, v in zip(joined.names, given, strict=True))
                raise InputError(f"the row {shown} is in {owners[given]}, too", file=file)
            owners[given] = file
    return Table(joined.names, list(owners))
