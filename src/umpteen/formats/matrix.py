"""Values for placeholders: mappings, rows, tables and `key=value` words in, one table out.

Every value stays the text that was written. Knows nothing of commands or tasks.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from umpteen.errors import InputError
from umpteen.formats.documents import (
    Source,
    check_encoding,
    decode_json,
    decode_json_lines,
)

__all__ = [
    "ReadTable",
    "Table",
    "build_product",
    "iterate_csv",
    "join_tables",
    "parse_matrix",
    "parse_words",
    "read_table",
    "value_text",
]

_MAX_TASKS = 10_000_000
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")
_NEARLY_RANGE = re.compile(r"(?=.*\d)[-.\d]*\.\.[-.\d]*")
_WORD = re.compile(r"([^\W\d][\w.-]*)=(.*)", re.DOTALL)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
_BAD_NAME = re.compile(r"[{}\x00-\x1f\x7f]")
_RANGE_HINT = "write 1..5, 5..1, 01..10, or 0..10..2 for every second"
_TABLES = (".csv", ".tsv", ".json", ".jsonl")


class Table(msgspec.Struct, frozen=True):
    """Columns with a name, and rows of their values."""

    names: tuple[str, ...]
    rows: list[tuple[str, ...]]


ReadTable = Callable[[str], Source]


def parse_matrix(given: Any, read: ReadTable) -> Table:
    """The table of a `matrix:` as a job file has it; `read` opens the table it names.

    Raises InputError.
    """
    if isinstance(given, Table):
        return given
    if isinstance(given, Mapping):
        return build_product(
            [_parse_axis(str(key), value, given, read) for key, value in given.items()]
        )
    if isinstance(given, list) and given and all(isinstance(row, Mapping) for row in given):
        return _parse_rows(given)
    raise InputError(
        "'matrix' must be a mapping of names to values, or a list of such rows",
        "write matrix: {lr: [0.1, 0.01], seed: 1..5}",
        field="matrix",
    )


def _parse_axis(name: str, value: Any, given: Mapping[str, Any], read: ReadTable) -> Table:
    if name == "from" and isinstance(value, str):
        if value.lower().endswith(_TABLES):
            return read_table(read(value))
        if len(given) == 1 and "," not in value and ".." not in value:
            hint = "a table is a .csv, .tsv, .json or .jsonl file"
            raise InputError(f"{value!r} is no table", hint, field="matrix")
    _check_name(name)
    if isinstance(value, list):
        values = [value_text(item, f"the values of {name!r}") for item in value]
        _refuse_repeated(name, values)
    else:
        values = _parse_values(name, value_text(value, f"the values of {name!r}"))
    if not values:
        raise InputError(f"{name!r} has no values", "give at least one", field="matrix")
    return Table((name,), [(value,) for value in values])


def _check_name(name: str) -> None:
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


def parse_words(words: Sequence[str]) -> Table:
    """The product of `key=values` words, as the command line has them; raises InputError."""
    axes: dict[str, Table] = {}
    for word in words:
        match = _WORD.fullmatch(word)
        if not match:
            raise InputError(
                f"{word!r} is neither a job file nor key=values",
                "a command with blanks needs quotes: umpteen run 'python sim.py {x}' x=1..5",
            )
        name, text = match[1], match[2]
        if name in axes:
            raise InputError(f"{name!r} is given twice", f"write all at once: {name}=1,2,3")
        axes[name] = Table((name,), [(value,) for value in _parse_values(name, text)])
    return build_product(list(axes.values()))


def _parse_values(name: str, text: str) -> list[str]:
    """The values in `0.1,0.01` or `1..5`, or both joined by commas."""
    if not text.strip():
        raise InputError(
            f"{name!r} has no values", f"write {name}=1,2,3 or {name}=1..5", field="matrix"
        )
    parts = [part.strip() for part in text.split(",")]
    if parts[0].startswith("[") and "]" not in parts[0] and parts[-1].endswith("]"):
        inner = ",".join([parts[0][1:], *parts[1:-1], parts[-1][:-1]])
        hint = f"write {name}={inner}"
        if "[" in inner:  # each value is meant to be a list
            hint = f"a value with a comma goes into a job file: matrix: {{{name}: ['[1,2]', …]}}"
        raise InputError(f"{text!r} of {name!r} is no list", hint, field="matrix")
    values: list[str] = []
    for part in parts:
        values.extend(_parse_range(name, part))
    if len(parts) > 1:  # a range alone has each once
        _refuse_repeated(name, values)
    return values


def _refuse_repeated(name: str, values: Sequence[str]) -> None:
    if len(set(values)) == len(values):
        return
    seen: set[str] = set()
    for value in values:
        if value in seen:
            hint = "each value makes a task of its own: give it once"
            raise InputError(f"{name!r} has the value {value!r} twice", hint, field="matrix")
        seen.add(value)


def _parse_range(name: str, text: str) -> Iterator[str] | list[str]:
    match = _RANGE.fullmatch(text)
    if not match:
        if _NEARLY_RANGE.fullmatch(text):
            raise InputError(
                f"{text!r} of {name!r} is no range of whole numbers", _RANGE_HINT, field="matrix"
            )
        return [text]
    first, last, step = int(match[1]), int(match[2]), int(match[3] or 0)
    falling = last < first
    if (match[3] and step == 0) or (step < 0 and not falling):
        raise InputError(f"the range {text!r} of {name!r} has no end", _RANGE_HINT, field="matrix")
    step = (-1 if falling else 1) * (abs(step) or 1)
    numbers = range(first, last + (-1 if falling else 1), step)
    _check_size(len(numbers) if abs(last - first) < 2**60 else 2**60)
    padded = any(re.fullmatch(r"-?0\d+", end) for end in match.group(1, 2))
    width = max(len(match[1]), len(match[2])) if padded else 0
    return [f"{number:0{width}d}" for number in numbers]


def _check_size(count: int) -> None:
    if count > _MAX_TASKS:
        raise InputError(
            f"the values make {count:,} tasks",
            f"at most {_MAX_TASKS:,} go into one job",
            field="matrix",
        )


def build_product(tables: Sequence[Table]) -> Table:
    """All combinations in the order written, the last varying fastest; raises InputError."""
    names = tuple(name for table in tables for name in table.names)
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name!r} is given twice", field="matrix")
    count = math.prod(len(table.rows) for table in tables)
    if not names or count == 0:
        raise InputError(
            "the matrix is empty", "give at least one name with values", field="matrix"
        )
    _check_size(count)
    combinations = itertools.product(*(table.rows for table in tables))
    chain = itertools.chain.from_iterable
    return Table(names, [tuple(chain(rows)) for rows in combinations])


def _parse_rows(rows: Sequence[Mapping[str, Any]], source: Source | None = None) -> Table:
    """Rows that are mappings; all must have the names of the first."""
    names = tuple(str(name) for name in rows[0])
    file = source.name if source else None
    for name in names:
        _check_name(name)
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
    if extension in (".json", ".jsonl") or (extension not in _TABLES and opening in b"[{"):
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
        places = [table.names.index(name) for name in joined.names]
        for row in table.rows:
            given = tuple(row[place] for place in places)
            if given in owners:
                shown = ", ".join(f"{k}={v}" for k, v in zip(joined.names, given, strict=True))
                raise InputError(f"the row {shown} is in {owners[given]}, too", file=file)
            owners[given] = file
    return Table(joined.names, list(owners))


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
    return _parse_rows(rows, source)


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
