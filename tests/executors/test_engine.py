"""What Dask and Ray have in common: handles, answers, which of them is worse, how long to wait."""

from __future__ import annotations

import json

import pytest

from umpteen.errors import RUNNER_CRASHED, BackendError, SettingsError
from umpteen.executors.engine import (
    EngineExecutor,
    Handle,
    group_by_place,
    parse_handle,
    rank_status,
    read_answer,
)
from umpteen.executors.own_runs import ExitStatus


class Engine(EngineExecutor):
    """Notes what is cancelled."""

    name = "engine"
    option_names = ("colour",)
    submit = poll = wake = count_cores = hint_cores = None  # type: ignore[assignment]

    def __init__(self, options: dict[str, str]) -> None:
        super().__init__(options)
        self.cancelled: list[str] = []

    def cancel(self, handles: object) -> None:
        self.cancelled += handles  # type: ignore[arg-type]


def test_handles_are_grouped_by_who_is_asked() -> None:
    texts = ["tcp://a:1 m/1", "tcp://b:1 m/1", "tcp://a:1 n/2"]
    groups = group_by_place(map(parse_handle, texts))
    assert {place: list(map(str, some)) for place, some in groups.items()} == {
        "tcp://a:1": ["tcp://a:1 m/1", "tcp://a:1 n/2"],
        "tcp://b:1": ["tcp://b:1 m/1"],
    }


def test_handle_of_a_place_with_blanks_is_read_back() -> None:
    handle = Handle("a b", "m", "1")
    assert parse_handle(str(handle)) == handle


@pytest.mark.parametrize(("code", "read"), [(0, 0), (3, 3), (-9, RUNNER_CRASHED)])
def test_signal_of_a_runner_counts_as_a_crash(code: int, read: int) -> None:
    assert read_answer(json.dumps({"code": code, "said": "why"})) == ExitStatus(read, "why")


def test_runner_that_cannot_work_at_all_is_worse_than_one_that_crashed() -> None:
    statuses = [ExitStatus(0), ExitStatus(3, "no store"), ExitStatus(RUNNER_CRASHED)]
    assert max(statuses, key=rank_status) == ExitStatus(3, "no store")


def test_wait_that_is_too_long_cancels_what_waits() -> None:
    patient, engine = Engine({}), Engine({"worker_timeout": "1s"})
    engine.limit_s = 0.0
    assert patient.limit_wait("no workers", ["h"], "workers") < 1
    with pytest.raises(BackendError, match="no workers after 0 s"):
        engine.limit_wait("no workers", ["h"], "workers")
    assert (patient.cancelled, engine.cancelled) == ([], ["h"])


def test_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        Engine({"color": "red"})
    assert caught.value.hint == "did you mean 'colour'?"
