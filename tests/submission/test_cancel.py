"""Cancelling, as the store sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.submission.conftest import make_job
from tests.support.store import list_records, put_hand_in, put_start
from umpteen.errors import InputError
from umpteen.history.history import History
from umpteen.store.directory import DirectoryStore
from umpteen.store.job_files import read_cancel_mark
from umpteen.store.submission_lock import submission_lock
from umpteen.submission.cancel import (
    is_cancelled,
    is_open,
    put_cancel_mark,
    record_cancelled,
    record_marked,
    refuse_adopted,
)
from umpteen.submission.plan import Scope
from umpteen.submission.submit import submit_new


@pytest.fixture
def store(address: str) -> DirectoryStore:
    """A job of two batches with two tasks each, of which one succeeded; nobody runs it."""
    submit_new(make_job(address, "1", "2", "3", "4", batch_size=2), Scope())
    store = DirectoryStore(address)
    record = {"task": 0, "digest": "", "attempt": 1, "state": "succeeded"}
    put_start(store, "1", [record, {"event": "end", "left": 1, "states": {}}])
    return store


def read(store: DirectoryStore) -> History:
    history = History(store)
    history.refresh()
    return history


def read_states(store: DirectoryStore) -> dict[int, str]:
    return {record["task"]: record["state"] for record in list_records(Path(store.address))}


def test_task_is_open_until_it_has_ended(store: DirectoryStore) -> None:
    assert [is_open(read(store), index) for index in range(4)] == [False, True, True, True]


def test_mark_of_the_whole_job_stands_at_its_newest_batch(store: DirectoryStore) -> None:
    assert not is_cancelled(read(store))
    put_cancel_mark(read(store), None)
    assert read_cancel_mark(store).upto == 2
    assert is_cancelled(read(store))
    put_hand_in(store, 2, [{"command": "b"}], {"3": "4"})
    assert not is_cancelled(read(store))


def test_marks_of_tasks_add_up(store: DirectoryStore) -> None:
    put_cancel_mark(read(store), [1])
    put_cancel_mark(read(store), [3])
    mark = read_cancel_mark(store)
    assert (mark.upto, mark.tasks) == (0, {1: 2, 3: 2})
    assert not is_cancelled(read(store))


def test_marked_tasks_are_recorded_where_nobody_is_at_their_batch(store: DirectoryStore) -> None:
    put_cancel_mark(read(store), [0, 1, 3])
    with submission_lock(store):
        assert record_marked(read(store), living={"2"})
    assert read_states(store) == {0: "succeeded", 1: "cancelled"}
    with submission_lock(store):
        assert not record_marked(read(store), living={"2"})
        assert record_marked(read(store), living=set())
    assert read_states(store) == {0: "succeeded", 1: "cancelled", 3: "cancelled"}


def test_cancelled_tasks_of_a_lost_batch_are_recorded_and_no_others(store: DirectoryStore) -> None:
    with submission_lock(store):
        record_cancelled(read(store), {"2"}, {2})
    assert read_states(store) == {0: "succeeded", 2: "cancelled"}


def test_task_of_a_foreign_batch_file_cannot_be_marked(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path / "foreign"))
    put_hand_in(store, 1, [{"command": "a"}], {"0123456789abcdef": "0"})
    with pytest.raises(InputError, match="was started by `umpteen batch`"):
        refuse_adopted(read(store), [0])
    refuse_adopted(read(store), [])
