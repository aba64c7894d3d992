"""Task indices as text: `0-3,7`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["find_ranges", "format_ranges", "list_within"]


def find_ranges(numbers: Iterable[int]) -> list[range]:
    """Rising numbers as ranges."""
    return [range(first, last + 1) for first, last in _find_bounds(numbers)]


def format_ranges(numbers: Iterable[int]) -> str:
    """Rising numbers as text: `0-4999,6000`."""
    bounds = _find_bounds(numbers)
    return ",".join([f"{first}-{last}" if last > first else str(first) for first, last in bounds])


def _find_bounds(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of each range."""
    if isinstance(numbers, range) and numbers.step == 1:
        if numbers:
            yield numbers[0], numbers[-1]
        return
    first = last = -2
    for each in numbers:
        if each != last + 1:
            if last >= 0:
                yield first, last
            first = each
        last = each
    if last >= 0:
        yield first, last


def list_within(numbers: Sequence[int], ranges: Iterable[range]) -> Iterator[int]:
    """Those of rising numbers that are in ranges; the longest range costs no more than any."""
    for part in ranges:
        yield from numbers[bisect_left(numbers, part.start) : bisect_left(numbers, part.stop)]
