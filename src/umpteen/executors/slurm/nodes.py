"""What nodes have, beside what batches ask for. Pure: asks nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from umpteen.executors.base import Lack, TaskNeeds
from umpteen.executors.slurm.answers import NodeKind
from umpteen.job.slurm_options import GPU_OPTIONS, MEMORY_OPTIONS

__all__ = ["ANY_NODE", "Amounts", "count_room", "count_wanted", "find_lack", "find_most"]

_MB = 20  # bits
# What a task needs: as messages call it, and its unit in flags.
_SHOWN = {"cpus": ("cpus", ""), "memory": ("MB of memory", "M"), "gpus": ("gpus", "")}


class Amounts(NamedTuple):
    """What a batch asks for, or what a node has."""

    cpus: int
    gpus: int = 0
    memory: int = 0  # bytes


ANY_NODE = Amounts(1)  # what every node has room for


def count_wanted(needs: TaskNeeds, given: Mapping[str, str], slots: int) -> Amounts:
    """What a batch of tasks with these needs asks for, but for what only options say.

    given: options for all batches.
    """
    is_of_gpus = given.keys() | needs.options.keys()
    gpus = needs.gpus if is_of_gpus.isdisjoint(GPU_OPTIONS) else 0
    memory = needs.memory if needs.options.keys().isdisjoint(MEMORY_OPTIONS) else 0
    return Amounts(slots * max(1, needs.cpus), slots * gpus, slots * memory)


def count_room(kind: NodeKind, wanted: Amounts) -> int:
    """How many batches that ask for so much such a node has room for."""
    pairs = zip(_read_has(kind), wanted, strict=True)
    return min(has // asked for has, asked in pairs if asked)


def find_most(nodes: Sequence[NodeKind]) -> Amounts | None:
    """The most that a node has of each; None where no node is known."""
    return Amounts(*map(max, zip(*map(_read_has, nodes), strict=True))) if nodes else None


def find_lack(number: int, wanted: Amounts, most: Amounts, slots: int) -> Lack | None:
    """What a batch asks for that no node has. most: that one has."""
    asked, there = _in_mb(wanted, (1 << _MB) - 1), _in_mb(most)
    for what, (shown, unit) in _SHOWN.items():
        needs, has = getattr(asked, what), getattr(there, what)
        if needs > has:
            limit = f"a node of slurm has at most {has}"
            flag = f"--{what} {has // slots}{unit}"
            hint = f"name a partition with larger nodes, or write {flag} or fewer slots"
            return Lack(number, needs, shown, limit, hint)
    return None


def _read_has(kind: NodeKind) -> Amounts:
    return Amounts(kind.cpus, kind.gpus, kind.memory)


def _in_mb(amounts: Amounts, more: int = 0) -> Amounts:
    """more: bytes, for the memory to be rounded up."""
    return amounts._replace(memory=(amounts.memory + more) >> _MB)
