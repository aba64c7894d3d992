"""Which batches are run by somebody."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.query.conftest import record
from tests.support.store import put_hand_in, put_start
from umpteen.executors.local import LocalExecutor
from umpteen.history.history import History
from umpteen.query.job_view import JobView
from umpteen.query.liveness import UNKNOWN_S, Liveness, read_status
from umpteen.store.directory import DirectoryStore


@pytest.fixture
def open_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    """A batch that a runner on another machine has begun."""
    monkeypatch.setenv("UMPTEEN_LEASES", str(tmp_path / "leases"))
    store = DirectoryStore(str(tmp_path / "store"))
    put_hand_in(store, 1, [{"command": "a"}] * 2, {"1": "0-1"})
    put_start(store, "1", [record(0, "succeeded")])
    history = History(store)
    history.refresh()
    return history


def test_batch_of_another_machine_lives_until_its_files_rest(
    open_job: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    asked = Liveness()
    assert asked.list_living(open_job) == {"1"}
    now_s[0] += UNKNOWN_S - 1
    assert asked.list_living(open_job) == {"1"}
    now_s[0] += 2
    assert asked.list_living(open_job) == set()


def test_status_by_one_look_at_such_a_batch_is_unknown(open_job: History) -> None:
    assert read_status(open_job).state == "unknown"


def test_batch_that_has_ended_is_asked_after_by_nobody(read: Callable[[], History]) -> None:
    history = read()
    assert Liveness().list_living(history) == set()
    assert read_status(history).state == "failed"


def test_executors_that_a_look_has_opened_are_closed_with_it(
    open_job: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[LocalExecutor] = []

    def close(executor: LocalExecutor) -> None:
        closed.append(executor)

    monkeypatch.setattr(LocalExecutor, "close", close)
    read_status(open_job)
    assert len(closed) == 1
    with JobView(open_job) as job:
        job.read_status()
        job.read_facts()
        assert len(closed) == 1  # one is asked for all of it
    assert len(closed) == 2
