"""Task indices as text: `0-3,7`."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["format_ranges"]


def format_ranges(numbers: Iterable[int]) -> str:
    """Rising numbers as text: `0-4999,6000`."""
    if isinstance(numbers, range) and numbers.step == 1 and len(numbers) > 1:
        return f"{numbers.start}-{numbers.stop - 1}"
    parts: list[str] = []
    first = last = -2
    for each in numbers:
        if each != last + 1:
            if last >= 0:
                parts.append(f"{first}-{last}" if last > first else str(first))
            first = each
        last = each
    if last >= 0:
        parts.append(f"{first}-{last}" if last > first else str(first))
    return ",".join(parts)
