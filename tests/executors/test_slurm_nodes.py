"""Which batches nodes have room for."""

from __future__ import annotations

import pytest

from umpteen.executors.base import Lack, TaskNeeds
from umpteen.executors.slurm.answers import NodeKind
from umpteen.executors.slurm.nodes import count_room, find_lack

GIGABYTE = 1 << 30
NODE = NodeKind(2, cpus=8, memory=16 * GIGABYTE, gpus=4)


@pytest.mark.parametrize(
    ("wanted", "room"),
    [
        (TaskNeeds(cpus=1), 8),
        (TaskNeeds(cpus=2, memory=5 * GIGABYTE), 3),
        (TaskNeeds(cpus=1, gpus=2), 2),
        (TaskNeeds(cpus=1, gpus=8), 0),
    ],
)
def test_room_of_a_node_is_by_what_it_has_least_of(wanted: TaskNeeds, room: int) -> None:
    assert count_room(NODE, wanted) == room


def find(wanted: TaskNeeds, *nodes: NodeKind, slots: int = 1) -> Lack | None:
    return find_lack([TaskNeeds(cpus=1), wanted], nodes, slots)


def test_what_the_largest_nodes_have_is_no_lack() -> None:
    wide = NodeKind(1, cpus=64, memory=GIGABYTE, gpus=0)
    assert find(TaskNeeds(64, 4, 16 * GIGABYTE), NODE, wide) is None
    assert find(TaskNeeds(cpus=65)) is None  # nodes are not known


@pytest.mark.parametrize(
    ("wanted", "what", "asked", "limit", "flag"),
    [
        (TaskNeeds(cpus=10), "cpus", 10, "8", "--cpus 4"),
        (TaskNeeds(1, 0, 16 * GIGABYTE + 1), "MB of memory", 16385, "16384", "--memory 8192M"),
        (TaskNeeds(1, 6), "gpus", 6, "4", "--gpus 2"),
    ],
)
def test_what_no_node_has_is_said_with_what_there_is(
    wanted: TaskNeeds, what: str, asked: int, limit: str, flag: str
) -> None:
    lack = find(wanted, NODE, slots=2)
    assert lack is not None
    assert lack[:4] == (1, asked, what, f"a node of slurm has at most {limit}")
    assert f"or write {flag} or fewer slots" in lack.hint
