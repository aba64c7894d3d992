"""Puts batches together into arrays. Pure: asks nobody.

All elements of an array ask for the same and wait for the same. So batches go into one array that
need the same, are as deep below the first, and are after the same; where the latter would make
too many arrays, each waits for all that one of them is after.
"""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from umpteen.executors.base import BatchRequest

__all__ = ["ArrayJob", "ArrayNeeds", "Element", "build_arrays"]

_SETS_MOST = 16  # arrays that are made of the batches of a level for the sake of what each is after
_ELEMENTS_MOST = 20  # that are named one by one; beyond that the whole array is waited for


class ArrayNeeds(NamedTuple):
    """The most that one task of a batch needs, 0 where none says; and what it says to Slurm."""

    cpus: int = 0
    memory: int = 0  # bytes
    gpus: int = 0
    options: tuple[tuple[str, str], ...] = ()


class Element(NamedTuple):
    """One element of an array, or all of it."""

    array: int  # the place of the array among those of a submission
    position: int | None = None  # None: all


class ArrayJob(NamedTuple):
    """What becomes one array."""

    batches: tuple[str, ...]  # each at its index
    needs: ArrayNeeds
    after: tuple[Element, ...] = ()  # of arrays before it
    earlier: tuple[str, ...] = ()  # batches that were submitted before, and that it is after


def build_arrays(orders: Sequence[BatchRequest], size: int) -> list[ArrayJob]:
    """The arrays for these batches, each behind those that it is after.

    size: how many elements one may have.
    """
    arrays: list[ArrayJob] = []
    place: dict[str, Element] = {}
    for level in _list_levels(orders):
        for needs, group in _group(level).items():
            for batches, after in _split_by_after(group):
                for start in range(0, len(batches), size):
                    part = tuple(batches[start : start + size])
                    array = ArrayJob(
                        part,
                        needs,
                        tuple(_list_elements(after, place, arrays)),
                        tuple(sorted(after - place.keys())),
                    )
                    arrays.append(array)
        for number, array in enumerate(arrays):
            place.update({name: Element(number, i) for i, name in enumerate(array.batches)})
    return arrays


def _list_levels(orders: Sequence[BatchRequest]) -> Iterator[list[BatchRequest]]:
    """The batches that are after none of these, then those that are after them, and so on."""
    by_name = {order.batch: order for order in orders}
    sorter = graphlib.TopologicalSorter(
        {order.batch: [name for name in order.after if name in by_name] for order in orders}
    )
    sorter.prepare()
    while sorter.is_active():
        ready = set(sorter.get_ready())
        yield [order for order in orders if order.batch in ready]
        sorter.done(*ready)


def _group(level: Sequence[BatchRequest]) -> Mapping[ArrayNeeds, list[BatchRequest]]:
    groups: dict[ArrayNeeds, list[BatchRequest]] = {}
    for order in level:
        options = tuple(sorted(order.options.items()))
        needs = ArrayNeeds(order.cpus, order.memory, order.gpus, options)
        groups.setdefault(needs, []).append(order)
    return groups


def _split_by_after(
    orders: Sequence[BatchRequest],
) -> list[tuple[list[str], frozenset[str]]]:
    """Batches with what all of them are to wait for."""
    found: dict[frozenset[str], list[str]] = {}
    for order in orders:
        found.setdefault(frozenset(order.after), []).append(order.batch)
    if len(found) > _SETS_MOST:
        return [([order.batch for order in orders], frozenset().union(*found))]
    return [(batches, after) for after, batches in found.items()]


def _list_elements(
    after: frozenset[str], place: Mapping[str, Element], arrays: Sequence[ArrayJob]
) -> Iterator[Element]:
    """Where the batches of this submission are that are waited for."""
    elements = sorted(place[name] for name in after if name in place)
    for number, group in itertools.groupby(elements, key=lambda element: element.array):
        some = list(group)
        if len(some) == len(arrays[number].batches) or len(some) > _ELEMENTS_MOST:
            yield Element(number)
        else:
            yield from some
