"""A job that was submitted before is gone on with."""

from __future__ import annotations

import json

import pytest

from tests.submission.conftest import KeepingExecutor, make_job
from tests.support.store import put_hand_in, put_start
from umpteen.errors import InputError, SettingsError
from umpteen.executors.base import ignore_progress
from umpteen.job.settings import ExecutorChoice
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import JOB, LOCK, handed_key
from umpteen.submission.job_folder import create_job
from umpteen.submission.plan import Scope
from umpteen.submission.submit import submit_new
from umpteen.verbs.collect import collect


@pytest.fixture
def store(address: str) -> DirectoryStore:
    """Of the job."""
    return DirectoryStore(address)


def finish(store: DirectoryStore, *batches: str) -> None:
    """Have the only task of each batch have succeeded."""
    for batch in batches:
        index = int(batch) - 1
        record = {"task": index, "digest": "", "attempt": 1, "state": "succeeded"}
        end = {"event": "end", "left": 0, "states": {"succeeded": str(index)}}
        put_start(store, batch, [record, end])


def test_job_of_which_nothing_is_left_is_only_looked_at(store: DirectoryStore) -> None:
    submit_new(make_job(store.address, "1", "2"), Scope())
    finish(store, "1", "2")
    store.create(LOCK, b'{"token": "another"}')  # of somebody elsewhere, and not waited for
    handle = collect(store.address)
    assert (handle.is_idle, handle.summary.done, handle.summary.total) == (True, 2, 2)
    assert len(KeepingExecutor.asked) == 1


def test_job_is_found_by_its_name(store: DirectoryStore) -> None:
    submit_new(make_job(store.address, "1"), Scope())
    assert collect("job").history.store.address == store.address
    with pytest.raises(InputError):
        collect("other")


def test_what_nobody_runs_any_more_is_submitted_again(store: DirectoryStore) -> None:
    first = submit_new(make_job(store.address, "1", "2", "3"), Scope())
    finish(store, "2")
    KeepingExecutor.living.add("handle 3")
    handle = collect(store.address)
    assert (handle.batches, handle.summary.running) == (["1"], 1)
    assert handle.rest == first.rest
    assert handle.on_progress is ignore_progress


def test_tasks_that_others_submit_meanwhile_are_not_dropped(store: DirectoryStore) -> None:
    submit_new(make_job(store.address, "1"), Scope())
    store.create(LOCK, b'{"token": "another", "host": "elsewhere"}')
    said: list[str] = []

    def have_another_submit(line: str) -> None:
        said.append(line)
        put_hand_in(store, 2, [{"command": "echo 2"}], {"2": "1"}, executor="keeping")
        store.delete(LOCK)

    handle = collect(store.address, have_another_submit)
    assert "of a submission from elsewhere" in said[0]
    assert handle.on_progress is have_another_submit
    assert [task.command for task in handle.history.read_tasks()] == ["echo 1", "echo 2"]
    assert (handle.summary.total, handle.summary.dropped) == (2, 0)
    assert sorted(handle.batches) == ["1", "2"]


def test_job_that_another_is_just_submitting_is_waited_for(store: DirectoryStore) -> None:
    create_job(store, make_job(store.address, "1"))
    store.create(LOCK, b'{"token": "another"}')

    def have_another_submit(_: str) -> None:
        store.delete(JOB)
        put_hand_in(store, 1, [{"command": "echo 1"}], {"1": "0"}, executor="keeping")
        store.delete(LOCK)

    handle = collect(store.address, have_another_submit, ExecutorChoice("keeping"))
    assert (handle.summary.total, handle.batches) == (1, ["1"])


def test_executor_that_is_given_has_the_rest(store: DirectoryStore) -> None:
    put_hand_in(store, 1, [{"command": "echo 1"}], {"1": "0"}, executor="my_lab.queue:LabExecutor")
    with pytest.raises(SettingsError, match="which is loaded only where you give it"):
        collect(store.address)
    handle = collect(store.address, executor=ExecutorChoice("keeping"))
    assert isinstance(handle.executor, KeepingExecutor)
    assert json.loads(store.read(handed_key(2)) or b"")["executor"] == "keeping"


def test_rest_that_runs_here_goes_on_without_who_collects(store: DirectoryStore) -> None:
    put_hand_in(store, 1, [{"command": "echo 1"}], {"1": "0"})
    finish(store, "1")
    assert collect(store.address).settings.executor_options == {"detach": True}
