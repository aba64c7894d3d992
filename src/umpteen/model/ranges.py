"""Task indices as text: `0-3,7`."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["find_ranges", "format_ranges"]


def find_ranges(numbers: Iterable[int]) -> list[range]:
    """Rising numbers as ranges."""
    if isinstance(numbers, range) and numbers.step == 1:
        return [numbers] if numbers else []
    found: list[range] = []
    first = last = -2
    for each in numbers:
        if each != last + 1:
            if last >= 0:
                found.append(range(first, last + 1))
            first = each
        last = each
    if last >= 0:
        found.append(range(first, last + 1))
    return found


def format_ranges(numbers: Iterable[int]) -> str:
    """Rising numbers as text: `0-4999,6000`."""
    return ",".join(
        f"{part.start}-{part.stop - 1}" if len(part) > 1 else str(part.start)
        for part in find_ranges(numbers)
    )
