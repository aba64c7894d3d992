"""What nodes have, beside what batches ask for. Pure: asks nobody."""

from __future__ import annotations

from collections.abc import Sequence

from umpteen.executors.base import Lack, TaskNeeds
from umpteen.executors.slurm.answers import NodeKind

__all__ = ["ANY_NODE", "count_room", "find_lack"]

ANY_NODE = TaskNeeds(cpus=1)  # what every node has room for
_MB = 20  # bits
# What a task needs: as messages call it, and its unit in flags.
_SHOWN = {"cpus": ("cpus", ""), "memory": ("MB of memory", "M"), "gpus": ("gpus", "")}


def count_room(kind: NodeKind, wanted: TaskNeeds) -> int:
    """How many batches that ask for so much such a node has room for."""
    pairs = zip(_read_has(kind), wanted, strict=True)
    return min(has // asked for has, asked in pairs if asked)


def find_lack(wanted: Sequence[TaskNeeds], nodes: Sequence[NodeKind], slots: int) -> Lack | None:
    """What the first of these batches asks for that no node has; None where nothing is known."""
    if not nodes:
        return None
    most = _in_mb(TaskNeeds(*map(max, zip(*map(_read_has, nodes), strict=True))), 0)
    for number, each in enumerate(wanted):
        asked = _in_mb(each, (1 << _MB) - 1)
        for what, (shown, unit) in _SHOWN.items():
            has, needs = getattr(most, what), getattr(asked, what)
            if needs > has:
                limit = f"a node of slurm has at most {has}"
                flag = f"--{what} {has // slots}{unit}"
                hint = f"name a partition with larger nodes, or write {flag} or fewer slots"
                return Lack(number, needs, shown, limit, hint)
    return None


def _read_has(kind: NodeKind) -> TaskNeeds:
    return TaskNeeds(kind.cpus, kind.gpus, kind.memory)


def _in_mb(needs: TaskNeeds, more: int) -> TaskNeeds:
    """more: bytes, for the memory to be rounded up."""
    return needs._replace(memory=(needs.memory + more) >> _MB)
