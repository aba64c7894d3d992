"""What is read of a job's files before it is planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.store import put_hand_in, put_start
from umpteen.history.history import History
from umpteen.job.settings import Settings
from umpteen.job.spec import Job, Task
from umpteen.planning.known import read_known
from umpteen.store.directory import DirectoryStore


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(str(tmp_path / "store"))


def read(store: DirectoryStore) -> History:
    history = History(store)
    history.refresh()
    return history


def make_job(*commands: str, digest: str = "") -> Job:
    return Job("job", list(map(Task, commands)), Settings(), digest)


def put_job(store: DirectoryStore, *commands: str, **more: object) -> None:
    lines = [{"command": command} for command in commands]
    put_hand_in(store, 1, lines, {"1": f"0-{len(lines) - 1}"}, **more)


def test_known_of_a_new_job_is_nothing(store: DirectoryStore) -> None:
    assert read_known(make_job("a"), read(store)) == ([], None)


def test_known_tasks_are_those_that_were_submitted(store: DirectoryStore) -> None:
    put_job(store, "a", "b")
    tasks = read_known(make_job("a", "c"), read(store)).tasks
    assert [task.command for task in tasks or ()] == ["a", "b"]


@pytest.mark.parametrize(("digest", "is_same"), [("d", True), ("e", False), ("", False)])
def test_known_tasks_of_the_same_source_are_not_read(
    store: DirectoryStore, digest: str, *, is_same: bool
) -> None:
    put_job(store, "a", "b", source="d", is_plain=True)
    assert (read_known(make_job("a", "b", digest=digest), read(store)).tasks is None) == is_same


def test_known_begun_tasks_wait_and_have_a_record(store: DirectoryStore) -> None:
    put_job(store, "a", "b", "c")
    begun = {"task": 1, "digest": "", "attempt": 1, "state": "failed", "retry": True}
    done = {"task": 0, "digest": "", "attempt": 1, "state": "succeeded"}
    put_start(store, "1", [done, begun])
    assert read_known(make_job("a", "b", "c"), read(store), "none").begun == frozenset([1])
