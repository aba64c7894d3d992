"""Which batches nodes have room for."""

from __future__ import annotations

import pytest

from umpteen.executors.base import TaskNeeds
from umpteen.executors.slurm.answers import NodeKind
from umpteen.executors.slurm.nodes import (
    ANY_NODE,
    Amounts,
    count_room,
    count_wanted,
    find_lack,
    find_most,
)

GIGABYTE = 1 << 30
NODE = NodeKind(2, cpus=8, memory=16 * GIGABYTE, gpus=4)
MOST = Amounts(cpus=8, gpus=4, memory=16 * GIGABYTE)


def test_batch_asks_for_what_all_its_slots_need() -> None:
    assert count_wanted(TaskNeeds(), {}, 1) == ANY_NODE
    assert count_wanted(TaskNeeds(2, 1, 5), {}, 3) == Amounts(6, 3, 15)


def test_what_options_say_in_other_words_is_not_counted() -> None:
    assert count_wanted(TaskNeeds(1, 1, 5), {"gres": "gpu:a:1", "mem": "1G"}, 1) == Amounts(1, 0, 5)
    own = TaskNeeds(1, 1, 5, {"gpus": "1", "mem-per-cpu": "1G"})
    assert count_wanted(own, {}, 1) == ANY_NODE


@pytest.mark.parametrize(
    ("wanted", "room"),
    [
        (Amounts(cpus=1), 8),
        (Amounts(cpus=2, memory=5 * GIGABYTE), 3),
        (Amounts(cpus=1, gpus=2), 2),
        (Amounts(cpus=1, gpus=8), 0),
    ],
)
def test_room_of_a_node_is_by_what_it_has_least_of(wanted: Amounts, room: int) -> None:
    assert count_room(NODE, wanted) == room


def test_most_is_of_each_that_any_node_has() -> None:
    wide = NodeKind(1, cpus=64, memory=GIGABYTE, gpus=0)
    assert find_most([NODE, wide]) == Amounts(64, 4, 16 * GIGABYTE)
    assert find_most([]) is None


def test_what_a_node_has_is_no_lack() -> None:
    assert find_lack(0, MOST, MOST, 1) is None


@pytest.mark.parametrize(
    ("wanted", "what", "asked", "limit", "flag"),
    [
        (Amounts(cpus=10), "cpus", 10, "8", "--cpus 4"),
        (Amounts(1, 0, 16 * GIGABYTE + 1), "MB of memory", 16385, "16384", "--memory 8192M"),
        (Amounts(1, 6), "gpus", 6, "4", "--gpus 2"),
    ],
)
def test_what_no_node_has_is_said_with_what_there_is(
    wanted: Amounts, what: str, asked: int, limit: str, flag: str
) -> None:
    lack = find_lack(1, wanted, MOST, 2)
    assert lack is not None
    assert lack[:4] == (1, asked, what, f"a node of slurm has at most {limit}")
    assert f"or write {flag} or fewer slots" in lack.hint
