"""From history and what executors say to one look at a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.store import put_hand_in, put_start
from umpteen.executors.base import BatchState
from umpteen.history.history import History
from umpteen.model.record import Record
from umpteen.query.failures import describe_end
from umpteen.query.status import JobStatus, RunningTask, build_status, list_living
from umpteen.query.time_left import estimate_left_s
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import handles_key


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """A job of four tasks in two batches."""
    store = DirectoryStore(str(tmp_path / "store"))
    lines = [{"command": "a"}] * 4
    put_hand_in(store, 1, lines, {"1": "0-2", "2": "3"}, settings={"slots": 2})
    store.create(handles_key(1), b'{"1":"m/b/one","2":"m/b/two"}')
    return store


def record(task: int, state: str, **more: Any) -> dict[str, Any]:
    return {"task": task, "digest": "", "attempt": 1, "state": state, **more}


def read(store: DirectoryStore, *living: str) -> JobStatus:
    history = History(store)
    history.refresh()
    return build_status(history, set(living))


def make_status(**more: Any) -> JobStatus:
    counts = dict.fromkeys(
        "waiting running succeeded failed timed_out cancelled skipped".split(), 0
    ) | more.pop("counts", {})
    given_ones = {
        "name": "job", "address": "/store", "executor": "local", "state": "running",
        "total": sum(counts.values()), "counts": counts, "running": [], "slots": 2,
        "seconds": 0.0, "started_s": 0.0, "last_end_s": 0.0,
    }  # fmt: skip
    return JobStatus(**{**given_ones, **more})


@pytest.mark.parametrize(
    ("answers", "living"),
    [
        ({}, set()),
        ({"m/b/one": BatchState.RUNNING}, {"1"}),
        ({"m/b/one": BatchState.QUEUED, "m/b/two": BatchState.RUNNING}, {"1", "2"}),
        ({"m/b/one": BatchState.ENDED, "m/b/two": BatchState.UNKNOWN}, set()),
    ],
)
def test_list_living_are_those_queued_or_running(
    store: DirectoryStore, answers: dict[str, str], living: set[str]
) -> None:
    history = History(store)
    history.refresh()
    assert list_living(history, answers) == living


@pytest.mark.parametrize(
    ("states", "living", "expected"),
    [
        (["succeeded"] * 4, [], "succeeded"),
        (["succeeded"] * 3 + ["timed_out"], [], "failed"),
        (["succeeded"] * 3 + ["waiting"], [], "unfinished"),
        (["failed"] * 3 + ["waiting"], [], "unfinished"),
        (["succeeded"] * 3 + ["waiting"], ["2"], "running"),
    ],
)
def test_status_state_is_judged_by_counts_and_who_is_at_it(
    store: DirectoryStore, states: list[str], living: list[str], expected: str
) -> None:
    put_start(store, "1", [record(n, state) for n, state in enumerate(states[:3])])
    put_start(store, "2", [record(3, states[3])])
    assert read(store, *living).state == expected


def test_status_counts_running_tasks_apart_from_waiting_ones(store: DirectoryStore) -> None:
    put_start(store, "1", [record(0, "succeeded")])
    token = f"{1:012x}"
    store.replace(f".umpteen/running/1/1-{token}.json", b'{"running":[[2,1,5.0,7],[1,0,4.0,8]]}')
    status = read(store, "1")
    assert (status.counts["running"], status.counts["waiting"]) == (2, 1)
    assert [(task.index, task.slot, task.start_s) for task in status.running] == [
        (1, 0, 4.0), (2, 1, 5.0)
    ]  # fmt: skip
    assert (status.total, status.finished, status.not_succeeded, status.slots) == (4, 1, 0, 2)


def test_status_of_a_dead_runner_counts_nothing_as_running(store: DirectoryStore) -> None:
    put_start(store, "1", [])
    store.replace(f".umpteen/running/1/1-{1:012x}.json", b'{"running":[[1,0,4.0,8]]}')
    assert read(store).counts["running"] == 0


# --- how long it may take -----------------------------------------------------------------------


NOW = 1_000_000.0


def estimate(status: JobStatus, samples: list[float], rate: float) -> tuple[float, float]:
    found = estimate_left_s(status, samples, rate, NOW)
    assert found is not None
    return found


def make_running(*elapsed: float) -> list[RunningTask]:
    return [RunningTask(n, n, NOW - seconds, "1") for n, seconds in enumerate(elapsed)]


@pytest.mark.parametrize(
    ("waiting", "samples", "rate"), [(0, [1.0], 1.0), (5, [], 1.0), (5, [1.0], 0.0)]
)
def test_time_left_that_cannot_be_known_is_none(
    waiting: int, samples: list[float], rate: float
) -> None:
    assert estimate_left_s(make_status(counts={"waiting": waiting}), samples, rate, NOW) is None


def test_time_left_of_equal_tasks_is_their_time_over_the_slots() -> None:
    low, high = estimate(make_status(counts={"waiting": 100}), [1.0] * 50, 2.0)
    assert low < 50 < high
    assert high - low <= 12


def test_time_left_of_tasks_that_take_longer_to_start_goes_by_the_rate() -> None:
    low, high = estimate(make_status(counts={"waiting": 1000}), [0.001] * 1000, 100.0)
    assert 8 < low < high < 13


def test_time_left_is_known_where_no_task_ended_for_long() -> None:
    status = make_status(counts={"running": 2}, running=make_running(100, 200))
    low, high = estimate(status, [3600.0, 3700.0, 3650.0], 0.0)
    assert 3000 < low < 3700 < high


def test_time_left_counts_what_running_tasks_have_done() -> None:
    samples = [10.0, 10.1, 9.9, 10.2, 10.0, 9.8]
    fresh = estimate(make_status(counts={"running": 1}, running=make_running(0)), samples, 0.1)
    later = estimate(make_status(counts={"running": 1}, running=make_running(9)), samples, 0.1)
    assert later[1] < fresh[1] / 2


def test_time_left_by_a_clock_set_back_is_that_of_tasks_just_begun() -> None:
    ahead, fresh = (
        make_status(counts={"running": 2}, running=make_running(*elapsed))
        for elapsed in ((-5000.0, -3.0), (0.0, 0.0))
    )
    assert estimate(ahead, [1.0, 2.0], 0.1) == estimate(fresh, [1.0, 2.0], 0.1)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (Record(0, "", 1, "failed", exit_code=7), "exit 7"),
        (Record(0, "", 1, "failed", signal=9), "signal 9"),
        (Record(0, "", 1, "failed", exit_code=127, reason="cannot start x"), "cannot start x"),
        (Record(0, "", 1, "timed_out", signal=15, seconds=2.04), "timed out after 2 s"),
        (Record(0, "", 1, "timed_out", signal=15, seconds=7200.4), "timed out after 7200 s"),
        (Record(0, "", 1, "timed_out", reason="deadline"), "ended by the job's deadline"),
        (Record(0, "", 1, "cancelled", signal=15), ""),
        (Record(0, "", 1, "cancelled"), "not started"),
        (
            Record(0, "", 1, "skipped", reason="after a, which skipped"),
            "after a, which was skipped",
        ),
        (Record(0, "", 1, "skipped", reason="after a, which failed"), "after a, which failed"),
        (
            Record(0, "", 1, "skipped", reason="after a, which timed_out"),
            "after a, which timed out",
        ),
    ],
)
def test_describe_end_says_how_in_a_word_or_two(record: Record, words: str) -> None:
    assert describe_end(record) == words
