"""Task indices as text: `0-3,7`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["find_ranges", "format_ranges", "list_within"]


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


def list_within(numbers: Sequence[int], ranges: Iterable[range]) -> Iterator[int]:
    """Those of rising numbers that are in ranges; the longest range costs no more than any."""
    for part in ranges:
        yield from numbers[bisect_left(numbers, part.start) : bisect_left(numbers, part.stop)]
