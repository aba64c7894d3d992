"""What the Dask executor works out without a scheduler."""

from __future__ import annotations

import pytest

from umpteen.errors import RUNNER_CRASHED, SettingsError
from umpteen.executors.base import BatchRequest, BatchState, SubmitRequest
from umpteen.executors.dask.connection import check_address
from umpteen.executors.dask.requests import (
    build_call,
    build_key,
    build_resources,
    build_restriction,
    build_wake_call,
    count_cores,
    count_places,
    read_exit_status,
    read_state,
    tell_lack_of_workers,
)
from umpteen.executors.engine import Handle
from umpteen.executors.own_runs import ExitStatus
from umpteen.store.identity import Identity


def test_key_names_submission_and_batch() -> None:
    assert build_key(Handle("tcp://a:1", "0a1b2c", "17")) == ("umpteen", "0a1b2c", "17")


@pytest.mark.parametrize(("slots", "cpus", "cores"), [(0, 0, 1), (1, 4, 4), (2, 4, 0)])
def test_batch_of_several_slots_has_its_worker_for_itself(
    slots: int, cpus: int, cores: int
) -> None:
    assert count_cores(slots, cpus) == cores


def test_gpus_are_a_resource_unless_the_options_say_otherwise() -> None:
    assert build_resources({"licence": 1}, 2) == {"GPU": 2.0, "licence": 1}
    assert build_resources({"GPU": 1}, 2) == {"GPU": 1}
    assert build_resources({}, 0) == {}


def test_batch_is_restricted_to_workers_that_are_wide_enough() -> None:
    threads = {"a": 1, "b": 4}
    assert build_restriction(threads, 4) == {"workers": ["b"], "allow_other_workers": True}
    assert build_restriction(threads, 1) == build_restriction(threads, 8) == {}


def test_calls_are_expressions() -> None:
    request = SubmitRequest(Identity("/it's"), [BatchRequest("1")], 0, "0a1b2c")
    for call in (build_call(request, request.orders[0]), build_wake_call(["0a1b2c"])):
        compile(call, "call", "eval")


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ("no-worker", BatchState.QUEUED),
        ("processing", BatchState.RUNNING),
        ("erred", BatchState.ENDED),
        (None, BatchState.ENDED),
        ("a state of a later version", BatchState.UNKNOWN),
    ],
)
def test_state_of_a_task_is_that_of_its_batch(told: str | None, state: BatchState) -> None:
    assert read_state(told) == state


def test_exit_status_is_the_carriers_or_that_of_dask() -> None:
    assert read_exit_status("finished", '{"code": 3, "said": "why"}') == ExitStatus(3, "why")
    gave_up = read_exit_status("error", (KeyError, ValueError("lost\nat last"), None))
    assert gave_up == ExitStatus(RUNNER_CRASHED, "Dask gave it up: lost")
    assert read_exit_status("cancelled", None) == ExitStatus(0)


@pytest.mark.parametrize(("slots", "cpus", "count"), [(0, 1, 5), (0, 2, 2), (3, 1, 2)])
def test_places_are_counted_by_worker(slots: int, cpus: int, count: int) -> None:
    assert count_places([1, 4], slots, cpus) == count


@pytest.mark.parametrize(
    ("count", "wanted", "said"),
    [
        (0, {}, "the Dask cluster has no workers yet"),
        (1, {}, "the only worker of the Dask cluster cannot take it yet"),
        (3, {}, "the 3 workers of the Dask cluster cannot take it yet"),
        (3, {"GPU": 2.0}, "no worker of the Dask cluster has free GPU: 2"),
    ],
)
def test_lack_of_workers_is_told(count: int, wanted: dict[str, float], said: str) -> None:
    assert tell_lack_of_workers(count, wanted) == said


@pytest.mark.parametrize("address", ["tcp://head:8786", "head:8786", "tls://[::1]:8786", "head"])
def test_address_of_a_scheduler_is_taken(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize("address", ["http://head:8786", "tcp://", "tcp://head:0", "head:port"])
def test_what_is_no_address_of_a_scheduler_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="no address of a Dask scheduler"):
        check_address(address)
