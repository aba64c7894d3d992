"""Durations, sizes and memory as people write them."""

from __future__ import annotations

import math
import re
from typing import Any

from umpteen.errors import InputError, SettingsError

__all__ = [
    "DURATION_HINT",
    "SIZE_WORDS",
    "parse_duration_s",
    "parse_memory",
    "parse_size",
    "read_duration_s",
    "refuse_value",
    "say_no_duration",
    "show_value",
]


DURATION_HINT = "write 90, 90s, 15m, 2h, 1d or 1-12:00:00"
SIZE_WORDS = "a size such as 512M or 4G"

_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+)")
_DAYS = re.compile(r"(\d+)-(\d+)(?::(\d+)(?::(\d+))?)?")
_MOST_BYTES = 2**63
_LEAST_MEMORY = 1 << 20
_NUMBER = re.compile(r"[-+]?[\d.]+")
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*(?:([KMGTP])(?:i?B)?|B)?", re.IGNORECASE)


# --- durations ------------------------------------------------------------------------------


def parse_duration_s(given: str | float) -> float:
    """Seconds, as `read_duration_s`; raises SettingsError where it is no duration."""
    seconds = read_duration_s(given)
    if seconds is None:
        raise SettingsError(say_no_duration(given), DURATION_HINT)
    return seconds


def say_no_duration(given: str | float) -> str:
    """What is wrong with it, for an error that DURATION_HINT goes with."""
    return f"{str(given)!r} is not a duration above 0"


def read_duration_s(given: str | float) -> float | None:
    """Seconds in `90`, `90s`, `15m`, `2h`, `1d`, `5:00`, `12:00:00`, `1-12` or `1-12:00:00`.

    None where it is none of these, or not above 0.
    """
    try:
        seconds = _add_up(str(given).strip())
    except (OverflowError, ValueError):  # more digits than a number may have
        return None
    return seconds if seconds and 0 < seconds < math.inf else None


def _add_up(text: str) -> float | None:
    if match := _DURATION.fullmatch(text):
        return float(match[1]) * _UNITS_S[match[2]]
    if match := _CLOCK.fullmatch(text):
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return float((hours * 60 + minutes) * 60 + seconds)
    if match := _DAYS.fullmatch(text):  # as Slurm has it: after days come hours
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    return None


# --- sizes --------------------------------------------------------------------------------


def parse_size(given: str | float) -> int | None:
    """Bytes in `4096`, `100K`, `512M`, `1.5GB`, `4GiB` or `2T`, by powers of 1024.

    None where it is no size.
    """
    match = _SIZE.fullmatch(str(given).strip())
    if not match:
        return None
    from fractions import Fraction  # slow to load, and few verbs read a size

    size = int(Fraction(match[1]) * 1024 ** (" KMGTP".index((match[2] or " ").upper())))
    return size if size < _MOST_BYTES else None


def parse_memory(given: str | float, field: str = "memory") -> int:
    """Bytes; a number without a unit is refused where it is too small to be one of bytes.

    field: the key that says it. Raises InputError.
    """
    text = str(given).strip()
    size = parse_size(text)
    if size is None:
        raise refuse_value(field, SIZE_WORDS, given)
    if size < (_LEAST_MEMORY if _NUMBER.fullmatch(text) else 1):
        number = text.rstrip("BKMGTPbkmgtpi ")
        hint = f"write a unit: {number}M or {number}G" if size else None
        raise InputError(f"a memory of {size} bytes is too little", hint, field=field)
    return size


def refuse_value(
    field: str, words: str, value: Any, hint: str | None = None, *, subject: str = ""
) -> InputError:
    """The error to raise where a value is not what `words` say; subject: in place of the field."""
    message = f"{subject or repr(field)} must be {words}, not {show_value(value)}"
    return InputError(message, hint, field=field)


def show_value(value: Any) -> str:
    """A value of a file, as an error shows it."""
    if isinstance(value, (dict, list)):
        kind = "a mapping" if isinstance(value, dict) else "a list"
        return kind if value else f"an empty {kind[2:]}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    if _NUMBER.fullmatch(text):
        return text
    return repr(text if len(text) <= 40 else text[:37] + "...") if value != "" else "nothing"
