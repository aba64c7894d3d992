"""Times, sizes, paths and tables as text."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence

from umpteen.model.states import tell_end
from umpteen.query.job_names import shorten_path
from umpteen.system.terminal import clean

__all__ = [
    "LEAST_COLUMNS",
    "UNITS_S",
    "align",
    "cut",
    "fit",
    "measure",
    "measure_columns",
    "render_ago",
    "render_number",
    "render_seconds",
    "render_size",
    "render_table",
    "shorten_path",
    "shorten_place",
    "tell_ends",
]


LEAST_COLUMNS = 12  # columns that a cut cell keeps


_SEVERAL_DID = {"skipped": "were skipped", "cancelled": "were cancelled"}
UNITS_S = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def render_seconds(seconds: float) -> str:
    """A duration in the unit a person would choose: `0.42 s`, `12 s`, `2.5 h`."""
    for size, unit in UNITS_S:
        if seconds >= size * (1 if unit == "s" else 1.5):
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"
    return f"{seconds:.2f} s" if seconds >= 0.01 else "under 0.01 s"


def render_size(size: int) -> str:
    """Bytes in the unit a person would choose: `812 bytes`, `1.2 MB`."""
    value, unit = float(size), "bytes"
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 10 or unit == "bytes" else f"{value:.1f} {unit}"


def render_ago(then_s: float) -> str:
    """How long ago a time since 1970 was: `12 min ago`, `yesterday`; empty for 0, not known."""
    if not then_s:
        return ""
    seconds = time.time() - then_s
    if seconds < 10:
        return "just now"
    if 86400 <= seconds < 172800:
        return "yesterday"
    return render_seconds(seconds) + " ago"


def shorten_place(folder: str) -> str:
    """The folder from here where it is here, else with `~` for the user's home."""
    shown = shorten_path(f"{folder}/")
    if not shown.startswith("/"):
        return shown.rstrip("/") or "."
    home = os.path.expanduser("~").rstrip("/")
    return f"~{folder[len(home) :]}" if home and shown.startswith(f"{home}/") else folder


def render_number(number: int, word: str) -> str:
    """`1 task`, `2,000 tasks`."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def tell_ends(state: str) -> str:
    """`failed`, `were skipped`: what several tasks did, as a sentence has it."""
    return _SEVERAL_DID.get(state) or tell_end(state)


def fit(widths: list[int], width: int) -> list[int] | None:
    """The columns narrowed to fit, the third first; None where they cannot be."""
    spare = width - sum(widths) - 2 * (len(widths) - 1) - 1
    for column in (2, 1):  # the command is there to be copied: it stays whole
        cut = min(-min(spare, 0), max(0, widths[column] - LEAST_COLUMNS))
        widths = [w - cut if place == column else w for place, w in enumerate(widths)]
        spare += cut
    return widths if spare >= 0 else None


def align(row: Sequence[str], widths: Sequence[int]) -> str:
    """A line of a table without a head; a cell that is too wide is cut. widths: in columns."""
    return " " + _join([cut(c, w) for c, w in zip(row, widths, strict=True)], widths)


def cut(text: str, width: int) -> str:
    """The text, or its begin and an ellipsis where it is wider than `width` columns."""
    if measure(text) <= width:
        return text
    end, left = 0, width - 1
    while end < len(text) and (left := left - measure(text[end])) >= 0:
        end += 1
    return text[:end] + "…"


def measure(text: str) -> int:
    """How many columns of a terminal a text takes: wide characters take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # hardly ever needed, and slow to load

    return cell_len(text)


def measure_columns(rows: Sequence[Sequence[str]]) -> list[int]:
    """The widest cell of each column, in columns of a terminal."""
    return [max(map(measure, column)) for column in zip(*rows, strict=True)]


def render_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: str = "",
    *,
    gap: int = 2,
    is_ruled: bool = False,
) -> list[str]:
    """Columns under their heads, `gap` blanks apart.

    right: an `r` for each column that is right-aligned. is_ruled: whether a line is under the head.
    """
    table = [list(head), *(list(map(clean, row)) for row in rows)]
    widths = measure_columns(table)
    if is_ruled:
        table.insert(1, ["-" * width for width in widths])
    return [_join(row, widths, right, gap) for row in table]


def _join(cells: Sequence[str], widths: Sequence[int], right: str = "", gap: int = 2) -> str:
    padded = []
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        blanks = " " * (width - measure(cell))
        padded.append(blanks + cell if right[column : column + 1] == "r" else cell + blanks)
    return (" " * gap).join(padded).rstrip()
