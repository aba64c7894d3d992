"""Which host gets which batches: pure, so that it can be tried with any hosts and any job.

Every batch is given to a host at once, so that hosts go on while nobody is connected; what a host
has not begun is taken from it again for one that has nothing left to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

__all__ = [
    "NOTHING",
    "Amounts",
    "HostLoad",
    "Move",
    "Placed",
    "choose_host",
    "choose_move",
    "place_batches",
]


class Amounts(NamedTuple):
    """What a task needs at most, or a host has."""

    cpus: int = 0
    gpus: int = 0
    memory: int = 0  # bytes


NOTHING = Amounts()


class Placed(NamedTuple):
    """A batch that is to be placed."""

    batch: str
    tasks: int  # that are left of it
    needs: frozenset[str] = frozenset()  # capabilities
    amounts: Amounts = NOTHING
    begun_on: AbstractSet[str] = frozenset()  # hosts that have begun with it


class HostLoad(NamedTuple):
    """What a host has to do."""

    slots: int
    capabilities: frozenset[str]
    has: Amounts
    unopened: Sequence[Placed] = ()  # the first it opens next
    running: int = 0  # tasks that are left of what it has opened

    @property
    def turns(self) -> float:
        """How many tasks each of its slots has before it."""
        return (self.running + sum(each.tasks for each in self.unopened)) / self.slots

    def fits(self, batch: Placed) -> bool:
        """Whether it has what the tasks of a batch need."""
        has_enough = all(has >= needed for has, needed in zip(self.has, batch.amounts, strict=True))
        return has_enough and batch.needs <= self.capabilities


class Move(NamedTuple):
    """Batches that are to be taken from one host for another."""

    giver: str
    taker: str
    batches: Sequence[str]


def place_batches(
    batches: Iterable[Placed], hosts: Mapping[str, HostLoad]
) -> dict[str, list[Placed]]:
    """The batches that each host gets, in their order; one that no host can have is left out."""
    loads = dict(hosts)
    given: dict[str, list[Placed]] = {}
    for batch in batches:
        name = choose_host(batch, loads)
        if name is not None:
            given.setdefault(name, []).append(batch)
            load = loads[name]
            loads[name] = load._replace(running=load.running + batch.tasks)
    return given


def choose_host(batch: Placed, hosts: Mapping[str, HostLoad]) -> str | None:
    """The host that gets a batch: that which has begun with it, else the one that is free soonest.

    None where no host has what it needs.
    """
    begun = [name for name in hosts if name in batch.begun_on]
    if begun:
        return begun[0]
    able = [name for name, load in hosts.items() if load.fits(batch)]
    return min(able, key=lambda name: (hosts[name].turns, -hosts[name].slots), default=None)


def choose_move(hosts: Mapping[str, HostLoad]) -> Move | None:
    """What to take from the host with most before it for one that has slots to spare.

    Half of the difference is moved, from the end of what the giver has. None where there is none.
    """
    for taker, idle in hosts.items():
        if idle.unopened or idle.running >= idle.slots:
            continue
        able = {
            name: [each for each in _list_spare(load) if _may_move(each, taker, idle)]
            for name, load in hosts.items()
            if name != taker
        }
        giver = max(
            (name for name, some in able.items() if some),
            key=lambda name: hosts[name].turns,
            default=None,
        )
        if giver is not None:
            return Move(giver, taker, _choose_half(able[giver], hosts[giver], idle))
    return None


def _list_spare(load: HostLoad) -> Sequence[Placed]:
    """What a host can do without: one that is about to open its first batch keeps that.

    Else two hosts that have nothing else could give it to each other for ever.
    """
    return load.unopened if load.running >= load.slots else load.unopened[1:]


def _may_move(batch: Placed, taker: str, idle: HostLoad) -> bool:
    """Whether it may be another's: one that a host has begun with would go back to that."""
    return batch.begun_on <= {taker} and idle.fits(batch)


def _choose_half(able: Sequence[Placed], giver: HostLoad, taker: HostLoad) -> list[str]:
    """From the end of what may be moved, so much that both have as many turns; one at least."""
    level = (giver.turns * giver.slots + taker.turns * taker.slots) / (giver.slots + taker.slots)
    wanted = math.floor(level * taker.slots - taker.running)
    chosen: list[str] = []
    tasks = 0
    for each in reversed(able):
        if chosen and tasks + each.tasks > wanted:
            break
        chosen.append(each.batch)
        tasks += each.tasks
    return chosen[::-1]
