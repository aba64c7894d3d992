"""What a value that is read back must be: text, a whole number, seconds, ranges, a word of a form.

Files of a store may be damaged, or made by somebody who wants to do harm: none of their values is
used before one of these functions has checked it. Standard library alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Callable, TypeVar

__all__ = [
    "MOST_TASKS",
    "MOST_TIME_S",
    "FormError",
    "get",
    "list_of",
    "load_json",
    "number",
    "parse_ranges",
    "place",
    "refuse_nul",
    "table_of",
    "text",
    "token",
    "truth",
    "whole",
]

MOST_TASKS = 100_000_000
MOST_TIME_S = 1e11  # the year 5138: what is later no calendar shows
_MOST_WHOLE = 2**63 - 1

_RANGES = re.compile(r"[0-9]{1,10}(?:-[0-9]{1,10})?(?:,[0-9]{1,10}(?:-[0-9]{1,10})?)*")
_PLACE = re.compile(r"[0-9]{1,10}")
_TOKEN = re.compile(r"[0-9a-f]{1,64}")
_Value = TypeVar("_Value")


class FormError(ValueError):
    """A value that is not what it must be; the message says what it is."""


def load_json(content: bytes | str) -> Any:
    """What a JSON document says. Raises FormError, also where it nests too deep."""
    try:
        return json.loads(content if isinstance(content, str) else content.decode())
    except RecursionError:
        raise FormError("it nests too deep") from None
    except ValueError as error:
        raise FormError(str(error)) from error


def text(value: object, what: str = "a text") -> str:
    """Text that every file system and terminal could be given: UTF-8, without NUL."""
    if not isinstance(value, str):
        raise FormError(f"{what} is {_show(value)}")
    if "\0" in value or not (value.isascii() or _is_utf8(value)):
        raise FormError(f"{what} is no text: {_show(value)}")
    return value


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def token(value: object, what: str = "a token") -> str:
    """The name of a runner, the mark of a submission or the name of a batch: hexadecimal digits."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise FormError(f"{what} is {_show(value)}")
    return value


def whole(
    value: object, least: int = 0, most: int = _MOST_WHOLE, what: str = "a whole number"
) -> int:
    """A whole number between two others."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise FormError(f"{what} is {_show(value)}")
    return value


def number(value: object, most: float = MOST_TIME_S, what: str = "a number") -> float:
    """A number from 0 to another."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most or not math.isfinite(value):  # type: ignore[operator,arg-type]
        raise FormError(f"{what} is {_show(value)}")
    return value  # type: ignore[return-value]


def place(written: str, below: int = MOST_TASKS) -> int:
    """A number from 0 that is written as the key of an object."""
    if not _PLACE.fullmatch(written) or int(written) >= below:
        raise FormError(f"{_show(written)} is no number below {below}")
    return int(written)


def truth(value: object, what: str = "true or false") -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise FormError(f"{what} is {_show(value)}")
    return value


def list_of(check: Callable[[Any], _Value], value: object, what: str = "a list") -> list[_Value]:
    """A list of which each item passes the check."""
    if not isinstance(value, list):
        raise FormError(f"{what} is {_show(value)}")
    return [check(item) for item in value]


def table_of(value: object, what: str = "an object") -> dict[str, Any]:
    """An object of JSON, whatever its values are."""
    if not isinstance(value, dict):
        raise FormError(f"{what} is {_show(value)}")
    return value


def get(table: Mapping[str, Any], key: str, check: Callable[..., _Value], *given: Any) -> _Value:
    """What an object has for a key, checked. Raises FormError where it has none."""
    if key not in table:
        raise FormError(f"{key!r} is missing")
    return check(table[key], *given, what=repr(key))


def refuse_nul(value: object, written: bytes = rb"\u0000") -> None:
    """Raises FormError where a text has NUL, which no path, command or variable may have.

    written: the JSON that the value was read from, which tells soonest where none has.
    """
    if rb"\u0000" not in written:
        return
    if isinstance(value, str):
        text(value)
    elif isinstance(value, list):
        for item in value:
            refuse_nul(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            text(key)
            refuse_nul(item)


def parse_ranges(ranges: object, below: int = MOST_TASKS, what: str = "") -> list[range]:
    """What `format_ranges` wrote, as ranges in the same order.

    below: more than each number, and no fewer than all of them. what: said before what is wrong.
    Raises FormError, and makes nothing that is larger than what is said.
    """
    said = f"{what}: " if what else ""
    if ranges == "":
        return []
    if not isinstance(ranges, str) or not _RANGES.fullmatch(ranges):
        raise FormError(f"{said}{_show(ranges)} are no ranges")
    found, count = [], 0
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        some = range(int(first), int(last or first) + 1)
        count += len(some)
        if some.stop > below or count > below or not some:
            raise FormError(f"{said}{_show(part)} is no range below {below}")
        found.append(some)
    return found


def _show(value: object) -> str:
    """So much of it that a person sees what is wrong."""
    if isinstance(value, (str, int, float)) or value is None:
        shown = repr(value) if isinstance(value, (str, float)) else _show_whole(value)
        return shown if len(shown) <= 40 else shown[:36] + "…"
    return "an object" if isinstance(value, dict) else "a list"


def _show_whole(value: int | None) -> str:
    is_huge = isinstance(value, int) and not -(10**30) < value < 10**30
    return "a huge number" if is_huge else str(value)
