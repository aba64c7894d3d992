"""What the Ray executor works out without a cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest

from umpteen.executors.base import BatchRequest, BatchState, SubmitRequest
from umpteen.executors.engine import parse_handle
from umpteen.executors.own_runs import ExitStatus
from umpteen.executors.ray.connection import explain_error
from umpteen.executors.ray.messages import OwnerReport, RayResources
from umpteen.executors.ray.requests import (
    Silence,
    build_environment,
    build_needs,
    build_owner_request,
    count_room,
    find_wanted,
    find_worst,
    read_answer,
    read_state,
    tell_room,
)
from umpteen.store.identity import Identity

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
    options: dict[str, Any], slots: int, order: BatchRequest, needs: RayResources
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
def test_count_room_is_by_machine(needs: RayResources, room: int) -> None:
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
    nodes: list[dict[str, float]], needs: RayResources, said: str
) -> None:
    assert tell_room(nodes, needs) == said


REPORT = OwnerReport(
    states={"1": "running", "2": "queued"}, ending=(0, ""), is_over=False, wants={"num_cpus": 2}
)
OVER = OwnerReport(states={"1": "ended"}, ending=(1, "why"), is_over=True, wants=None)


def test_state_is_as_the_owner_says() -> None:
    states = [read_state(REPORT, batch) for batch in ("1", "2", "3")]
    assert states == [BatchState.RUNNING, BatchState.QUEUED, BatchState.ENDED]
    assert read_state(read_answer("gone"), "1") == BatchState.ENDED
    assert read_state(read_answer("silent"), "1") == BatchState.UNKNOWN


def test_worst_is_not_known_while_it_may_get_worse() -> None:
    assert find_worst([OVER, REPORT]) is None
    hopeless = OwnerReport(states={}, ending=(3, "no store"), is_over=True, wants=None)
    assert find_worst([OVER, hopeless, Silence.GONE]) == ExitStatus(3, "no store")
    assert find_worst([Silence.GONE, Silence.SILENT]) == ExitStatus(0)


def test_what_the_first_waiting_batch_wants_is_found() -> None:
    assert find_wanted([Silence.GONE, OVER, REPORT]) == {"num_cpus": 2}
    assert find_wanted([OVER]) is None


def test_environment_has_text_alone() -> None:
    options = {"runtime_env": {"env_vars": {"A": 1, "B": "b"}, "pip": ["numpy"]}}
    assert build_environment(options) == {"env_vars": {"A": "1", "B": "b"}, "pip": ["numpy"]}
    assert build_environment({}) == {}


def test_owner_request_has_batches_with_their_needs_and_orders() -> None:
    batches = [BatchRequest("2", after=["1"], cpus=2), BatchRequest("3")]
    request = SubmitRequest(Identity("/data"), batches, 0, "0a1b2c", {"1": "10.0.0.5:1 0d/1"})
    built = build_owner_request(request, {}, 4)
    assert built["earlier"] == {"1": ("0d", "1")}
    assert [(b["after"], b["needs"]) for b in built["orders"]] == [
        (["1"], {"num_cpus": 2}),
        ([], {"num_cpus": 1}),
    ]
    # What a task says it needs is its limit; else it has all of its worker's.
    assert [json.loads(b["order"])["cpus"] for b in built["orders"]] == [2, 0]


@pytest.mark.parametrize(
    ("kind", "said", "hint"),
    [
        ("ConnectionError", "Version mismatch: Ray: 2.9 Python: 3.9 Ray: 2.10 Python: 3.11", "2.9"),
        ("WrongEnvironmentError", "it has no field 'colour'", "write it as ray.init takes it"),
        ("RayError", "", "start it with `ray start --head`"),
    ],
)
def test_errors_of_ray_have_a_hint(kind: str, said: str, hint: str) -> None:
    assert hint in (explain_error("10.0.0.5:1", kind, said).hint or "")
