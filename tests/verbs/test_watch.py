"""A job that is watched while nothing of it can run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.store import put_hand_in, put_start
from umpteen.errors import BackendError
from umpteen.executors.base import BatchState
from umpteen.executors.engine import EngineExecutor
from umpteen.executors.registry import ExecutorRegistry
from umpteen.history.history import History
from umpteen.job.settings import ExecutorChoice
from umpteen.query.liveness import read_status
from umpteen.store.directory import DirectoryStore
from umpteen.store.job_files import Running, encode_running
from umpteen.store.layout import RecordsKey, handles_key, running_key
from umpteen.submission.read_back import read_back_settings
from umpteen.submission.submit import find_submitted
from umpteen.verbs.handle import JobHandle
from umpteen.verbs.watch import watch

NAME = "tests.verbs.test_watch:IdleEngine"


class IdleEngine(EngineExecutor):
    """Has no worker, so that all waits."""

    name = NAME
    option_names = ()
    submit = wake = count_cores = hint_cores = None  # type: ignore[assignment]

    def poll(self, handles: Sequence[str]) -> dict[str, BatchState]:
        return dict.fromkeys(handles, BatchState.QUEUED)

    def cancel(self, handles: Sequence[str]) -> None:
        """As there is nobody to tell."""

    def why_waiting(self, handles: Sequence[str]) -> str:
        self.limit_wait("there is no worker", handles, "one")
        return "waiting: there is no worker"


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    """A batch that waits, and whose dead runner said last that its disk was full."""
    monkeypatch.setenv("UMPTEEN_LEASES", str(tmp_path / "leases"))
    store = DirectoryStore(str(tmp_path / "job"))
    put_hand_in(store, 1, [{"command": "a"}], {"1": "0"}, executor=NAME)
    store.create(handles_key(1), b'{"1":"a handle"}')
    put_start(store, "1", [])
    told = encode_running(Running([], "the disk is full"))
    store.replace(running_key("1", RecordsKey(1, f"{1:012x}")), told)
    history = History(store)
    history.refresh()
    return history


def test_watch_ends_a_wait_that_is_too_long_whatever_a_dead_runner_said(history: History) -> None:
    executor = ExecutorChoice(NAME, {"worker_timeout": 0.01})
    settings = read_back_settings(history, detach=True, executor=executor)
    handle = JobHandle(find_submitted(history, settings))
    with pytest.raises(BackendError, match=r"there is no worker after 0\.01 s"):
        list(itertools.islice(watch(handle), 5))


def test_status_says_what_is_waited_for_rather_than_what_a_dead_runner_said(
    history: History,
) -> None:
    with ExecutorRegistry(given=NAME) as executors:
        assert read_status(history, executors).trouble == "waiting: there is no worker"
