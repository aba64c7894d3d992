"""Times, sizes, paths and tables as text."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from umpteen.errors import UmpteenError
from umpteen.history.history import History
from umpteen.query.registry import find_address
from umpteen.system.terminal import clean

if TYPE_CHECKING:
    from umpteen.history.history import History

__all__ = [
    "LEAST_COLUMNS",
    "UNITS_S",
    "align",
    "call_job",
    "cut",
    "fit",
    "render_ago",
    "render_number",
    "render_seconds",
    "render_size",
    "render_table",
    "shorten_job",
    "shorten_path",
    "shorten_place",
]


LEAST_COLUMNS = 12  # columns that a cut cell keeps


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


def shorten_path(path: str) -> str:
    """The path from here where it is below here, else as it is."""
    try:
        return path.removeprefix(os.getcwd().rstrip("/") + "/")
    except FileNotFoundError:  # we are in a folder that was removed
        return path


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


def fit(widths: list[int], width: int) -> list[int] | None:
    """The columns narrowed to fit, the third first; None where they cannot be."""
    spare = width - sum(widths) - 2 * (len(widths) - 1) - 1
    for column in (2, 1):  # the command is there to be copied: it stays whole
        cut = min(-min(spare, 0), max(0, widths[column] - LEAST_COLUMNS))
        widths = [w - cut if place == column else w for place, w in enumerate(widths)]
        spare += cut
    return widths if spare >= 0 else None


def align(row: Sequence[str], widths: Sequence[int]) -> str:
    """A line of a table; widths: in columns."""
    cells = (cut(cell, w).ljust(w) for cell, w in zip(row, widths, strict=True))
    return " " + "  ".join(cells).rstrip()


def cut(text: str, width: int) -> str:
    """The text, or its begin and an ellipsis where it is longer than `width` columns."""
    return text if len(text) <= width else text[: width - 1] + "…"


def render_table(head: Sequence[str], rows: Iterable[Sequence[str]], right: str = "") -> list[str]:
    """Columns under their heads, two blanks apart; `right` has an `r` for each right-aligned."""
    table = [list(head), *(list(map(clean, row)) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    aligns: list[Callable[[str, int], str]] = [
        str.rjust if right[column : column + 1] == "r" else str.ljust for column in range(len(head))
    ]
    return [
        "  ".join(
            align(cell, width) for cell, width, align in zip(row, widths, aligns, strict=True)
        ).rstrip()
        for row in table
    ]


def call_job(history: History) -> str:
    """What to type for a job here: its name, where that is enough to find it, else its address."""
    return shorten_job(str(history.job.get("name", "")), history.store.address)


def shorten_job(name: str, address: str) -> str:
    """Its name, where that is enough to find it, else its address."""
    try:
        is_enough = find_address(name) == address
    except UmpteenError:
        is_enough = False
    return name if is_enough else shorten_path(address)
