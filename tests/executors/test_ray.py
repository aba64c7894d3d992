"""What the Ray executor works out without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from umpteen.executors.base import BatchRequest
from umpteen.executors.engine import parse_handle
from umpteen.executors.ray.executor import build_needs, count_room, tell_room

NODES = [{"CPU": 4.0, "memory": 8e9}, {"CPU": 2.0, "GPU": 1.0, "licence": 1.0}]


@pytest.mark.parametrize("cluster", ["10.0.0.5:6379", "ray://head:10001", "[::1]:6379"])
def test_parse_handle_gives_back_what_it_was_made_of(cluster: str) -> None:
    handle = parse_handle(f"{cluster} 0a1b2c/17")
    assert handle == (cluster, "0a1b2c", "17")
    assert parse_handle(str(handle)) == handle


@pytest.mark.parametrize(
    ("options", "slots", "order", "needs"),
    [
        ({}, 0, BatchRequest("1"), {"num_cpus": 1}),
        ({}, 8, BatchRequest("1"), {"num_cpus": 8}),
        ({}, 0, BatchRequest("1", cpus=2, gpus=1), {"num_cpus": 2, "num_gpus": 1}),
        ({"num_cpus": 0.5}, 8, BatchRequest("1", memory=9), {"num_cpus": 0.5, "memory": 9}),
        ({"resources": {"a": 1}}, 0, BatchRequest("1"), {"num_cpus": 1, "resources": {"a": 1}}),
    ],
)
def test_build_needs_takes_the_most_of_what_is_said(
    options: dict[str, Any], slots: int, order: BatchRequest, needs: dict[str, Any]
) -> None:
    assert build_needs(options, slots, order) == needs


@pytest.mark.parametrize(
    ("needs", "room"),
    [
        ({"num_cpus": 1}, 6),
        ({"num_cpus": 3}, 1),
        ({"num_cpus": 1, "num_gpus": 1}, 1),
        ({"num_cpus": 1, "resources": {"licence": 2}}, 0),
        ({"num_cpus": 0}, 0),
    ],
)
def test_count_room_is_by_machine(needs: dict[str, Any], room: int) -> None:
    assert count_room(NODES, needs) == room


@pytest.mark.parametrize(
    ("nodes", "needs", "said"),
    [
        ([], {"num_cpus": 1}, "the Ray cluster has no machines yet"),
        (NODES, {"num_cpus": 1}, "the machines of the Ray cluster have no room yet"),
        (NODES, {"num_cpus": 8}, "no machine of the Ray cluster has CPU: 8"),
    ],
)
def test_tell_room_says_what_is_missing(
    nodes: list[dict[str, float]], needs: dict[str, Any], said: str
) -> None:
    assert tell_room(nodes, needs) == said
