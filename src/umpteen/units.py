"""Durations, sizes and memory as people write them."""

from __future__ import annotations

import re

from umpteen.errors import SettingsError

__all__ = ["parse_duration_s"]


_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")


_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+)")


_DAYS = re.compile(r"(\d+)-(\d+)(?::(\d+)(?::(\d+))?)?")


def parse_duration_s(text: str | float) -> float:
    """Seconds in `90`, `90s`, `15m`, `2h`, `1d`, `5:00`, `12:00:00`, `1-12`, `1-12:00` or `1-12:00:00`.

    Raises SettingsError where it is none of these, or not above 0.
    """
    seconds = _read_duration_s(str(text).strip())
    if seconds is None or seconds <= 0:
        raise SettingsError(
            f"{str(text)!r} is not a duration above 0",
            "write 90, 90s, 15m, 2h, 1d or 1-12:00:00",
        )
    return seconds


def _read_duration_s(text: str) -> float | None:
    if match := _DURATION.fullmatch(text):
        return float(match[1]) * _UNITS_S[match[2]]
    if match := _CLOCK.fullmatch(text):
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return float((hours * 60 + minutes) * 60 + seconds)
    if match := _DAYS.fullmatch(text):  # as Slurm has it: after days come hours
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    return None
