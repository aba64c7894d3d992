"""The attempts without success that a history gives, and all attempts of some tasks."""

from __future__ import annotations

from pathlib import Path

from umpteen.history.attempts import Failures, read_newest, read_records
from umpteen.history.batches import BatchHistory
from umpteen.model.record import Record
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import RecordsKey, records_key
from umpteen.system.host import read_machine

FAILED = Record(0, "", 1, "failed", exit_code=1, end_s=2.0)
TRIED = Record(1, "", 1, "failed", exit_code=1, end_s=1.0, retry=True)
DONE = Record(1, "", 2, "succeeded", exit_code=0, end_s=3.0)
SKIPPED = Record(2, "", 1, "skipped", end_s=1.5, reason="after a, which succeeded")
LINES = "".join(r.to_line() + "\n" for r in (FAILED, TRIED, DONE, SKIPPED)).encode()
KEY = RecordsKey(1, "ab")


def make_store(path: Path) -> DirectoryStore:
    store = DirectoryStore(str(path))
    store.replace(records_key("1", KEY), LINES)
    return store


def make_failures(path: Path, *, is_newest: bool = True) -> Failures:
    return Failures(make_store(path), read_machine(), lambda *_: is_newest)


def test_failures_of_lines_are_the_final_ones_without_success(tmp_path: Path) -> None:
    failures = make_failures(tmp_path)
    failures.add_lines("1", LINES)
    assert list(failures.take_recent()) == [("1", FAILED), ("1", SKIPPED)]
    assert list(failures.take_recent()) == []
    assert failures.read_all() == [("1", SKIPPED), ("1", FAILED)]


def test_failures_of_a_start_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    failures = make_failures(tmp_path)
    failures.add_start("1", KEY)
    assert list(failures.take_recent()) == [("1", SKIPPED), ("1", FAILED)]
    assert failures.read_all() == [("1", SKIPPED), ("1", FAILED)]


def test_failures_leave_out_what_is_no_longer_so(tmp_path: Path) -> None:
    failures = make_failures(tmp_path, is_newest=False)
    failures.add_lines("1", LINES)
    assert list(failures.take_recent()) == failures.read_all() == []


def test_failures_do_not_go_by_the_order_of_keys(tmp_path: Path) -> None:
    failures = make_failures(tmp_path)
    failures.add_lines("1", b'{ "state": "failed", "task": 5, "attempt": 1, "digest": "" }\n')
    assert [record.task for _, record in failures.read_all()] == [5]


def test_all_attempts_of_some_tasks_are_read_oldest_first(tmp_path: Path) -> None:
    store, batches = make_store(tmp_path), [BatchHistory("1", 0, "0-2")]
    assert read_records(store, read_machine(), batches, [1, 7]) == {
        1: [("ab", TRIED), ("ab", DONE)],
        7: [],
    }
    newest = read_newest(store, read_machine(), batches)
    assert newest == {0: ("ab", FAILED), 1: ("ab", DONE), 2: ("ab", SKIPPED)}
