"""Values for placeholders, as rows under names: what matrices and tables both give.

Every value is the text that was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from umpteen.errors import InputError
from umpteen.formats.documents import Source

__all__ = ["ReadTable", "Table", "check_name", "is_name", "parse_rows", "value_text"]

_BAD_NAME = re.compile(r"[{}\x00-\x1f\x7f]")


class Table(msgspec.Struct, frozen=True):
    """Columns with a name, and rows of their values."""

    names: tuple[str, ...]
    rows: list[tuple[str, ...]]


ReadTable = Callable[[str], Table]  # gives the table in a file of that name


def is_name(name: str) -> bool:
    """Whether it can stand between braces."""
    return bool(name.strip()) and not _BAD_NAME.search(name)


def check_name(name: str) -> None:
    """Refuse what cannot stand between braces. Raises InputError."""
    if not is_name(name):
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
