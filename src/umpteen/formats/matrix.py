"""Values for placeholders: a `matrix:` or `key=values` words in, one table out.

Every value stays the text that was written. Knows nothing of commands or tasks.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from umpteen.errors import InputError
from umpteen.formats.tables import is_table
from umpteen.formats.values import ReadTable, Table, check_name, parse_rows, value_text

__all__ = ["build_product", "parse_matrix", "parse_words"]

_MAX_TASKS = 10_000_000
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")
_NEARLY_RANGE = re.compile(r"(?=.*\d)[-.\d]*\.\.[-.\d]*")
_WORD = re.compile(r"([^\W\d][\w.-]*)=(.*)", re.DOTALL)
_RANGE_HINT = "write 1..5, 5..1, 01..10, or 0..10..2 for every second"


def parse_matrix(given: Any, read: ReadTable) -> Table:
    """The table of a `matrix:` as a job file has it; `read` gives the table of a file.

    Raises InputError.
    """
    if isinstance(given, Table):
        return given
    if isinstance(given, Mapping):
        return build_product(
            [_parse_axis(str(key), value, given, read) for key, value in given.items()]
        )
    if isinstance(given, list) and given and all(isinstance(row, Mapping) for row in given):
        return parse_rows(given)
    raise InputError(
        "'matrix' must be a mapping of names to values, or a list of such rows",
        "write matrix: {lr: [0.1, 0.01], seed: 1..5}",
        field="matrix",
    )


def _parse_axis(name: str, value: Any, given: Mapping[str, Any], read: ReadTable) -> Table:
    if name == "from" and isinstance(value, str):
        if is_table(value):
            return read(value)
        if len(given) == 1 and "," not in value and ".." not in value:
            hint = "a table is a .csv, .tsv, .json or .jsonl file"
            raise InputError(f"{value!r} is no table", hint, field="matrix")
    check_name(name)
    if isinstance(value, list):
        values = [value_text(item, f"the values of {name!r}") for item in value]
        _refuse_repeated(name, values)
    else:
        values = _parse_values(name, value_text(value, f"the values of {name!r}"))
    if not values:
        raise InputError(f"{name!r} has no values", "give at least one", field="matrix")
    return Table((name,), [(value,) for value in values])


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
