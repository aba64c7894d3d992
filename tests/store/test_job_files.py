"""The files of a job as the store reads and writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.test_batch import FILE
from umpteen.errors import StoreError
from umpteen.history.files import parse_submission
from umpteen.store.directory import DirectoryStore
from umpteen.store.job_files import (
    CancelMark,
    Running,
    RunningTask,
    close_batch,
    encode_running,
    is_closed,
    list_batch_numbers,
    list_submission_numbers,
    read_batch_file,
    read_cancel_mark,
    read_job,
    read_running,
    read_submissions,
    write_batch_file,
    write_cancel_mark,
)
from umpteen.store.layout import CANCEL, JOB, RecordsKey, handed_key, running_key

SUBMISSION = (
    b'{"hand_in":1,"time":1.0,"executor":"","mark":"ab","tasks":6,"segment":"cd",'
    b'"batches":[{"batch":"1","indices":"0-3,5"},{"batch":"2","indices":"4"}]}'
)
KEY = RecordsKey(1, "ab")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(str(tmp_path))


def test_nothing_is_said_where_there_is_no_file(store: DirectoryStore) -> None:
    assert (read_job(store), read_submissions(store)) == (None, [])
    assert (list_batch_numbers(store), list_submission_numbers(store)) == ([], [])
    assert read_cancel_mark(store) == CancelMark(0, {})
    assert read_running(store, "1", KEY) == Running([], "")
    assert not is_closed(store, "1")


def test_batch_file_is_read_as_it_was_put(store: DirectoryStore) -> None:
    write_batch_file(store, FILE)
    assert read_batch_file(store, "7") == FILE
    assert list_batch_numbers(store) == [7]


def test_batch_that_is_not_there_is_damage(store: DirectoryStore) -> None:
    with pytest.raises(StoreError, match="there is no batch 7") as error:
        read_batch_file(store, "7")
    assert error.value.damaged


def test_closed_batch_stays_closed(store: DirectoryStore) -> None:
    close_batch(store, "1")
    close_batch(store, "1")
    assert (is_closed(store, "1"), is_closed(store, "2")) == (True, False)


def test_cancel_mark_is_read_as_it_was_put(store: DirectoryStore) -> None:
    mark = CancelMark(3, {0: 4, 7: 5})
    write_cancel_mark(store, mark)
    assert read_cancel_mark(store) == mark
    assert store.read(CANCEL) == b'{"upto":3,"tasks":{"0":4,"7":5}}'


def test_running_tasks_are_read_as_they_were_put(store: DirectoryStore) -> None:
    running = Running([RunningTask(3, 0, 12.5, 99)], "the disk is full")
    store.replace(running_key("1", KEY), encode_running(running))
    assert read_running(store, "1", KEY) == running
    assert read_running(store, "1", KEY, below=3) == Running([], "")


def test_submissions_say_the_same_to_a_runner_as_to_the_head(store: DirectoryStore) -> None:
    store.replace(handed_key(1), SUBMISSION)
    (part,) = read_submissions(store)
    whole = parse_submission(SUBMISSION, 1, 0)
    assert (part.number, part.segment) == (whole.hand_in, whole.segment)
    assert [batch.batch for batch in part.batches] == [batch.batch for batch in whole.batches]
    assert part.batches[0].indices == [range(4), range(5, 6)]


@pytest.mark.parametrize("content", [b"[]", b'{"batches":[{}]}', b'{"segment":"../x"}'])
def test_damaged_submission_is_told_by_its_path(store: DirectoryStore, content: bytes) -> None:
    store.replace(handed_key(1), content)
    with pytest.raises(StoreError, match=r"1\.json is damaged"):
        read_submissions(store)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"name":"a/b"}', b'{"name":1}', b"[" * 9999])
def test_damaged_job_is_told_by_its_path(store: DirectoryStore, content: bytes) -> None:
    store.replace(JOB, content)
    with pytest.raises(StoreError, match=r"job\.json is damaged"):
        read_job(store)
