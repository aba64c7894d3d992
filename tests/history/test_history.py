"""What a store says of a job, from files put there by hand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.store import put_batch, put_hand_in, put_start
from umpteen.errors import StoreError
from umpteen.history.history import History
from umpteen.model.states import STATES
from umpteen.store.directory import DirectoryStore
from umpteen.store.job_files import RunningTask
from umpteen.store.layout import RecordsKey, handed_key, handles_key, records_key, tasks_key


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """A store in which nothing is."""
    return DirectoryStore(str(tmp_path / "store"))


def tasks(*commands: str) -> list[dict[str, Any]]:
    return [{"command": command} for command in commands]


def record(task: int, state: str, **more: Any) -> dict[str, Any]:
    return {"task": task, "digest": "", "attempt": 1, "state": state, "seconds": 1.0, **more}


def end(**states: str) -> dict[str, Any]:
    left = 1 if "waiting" in states else 0
    return {"event": "end", "left": left, "seconds": 3.0, "time": 9.0, "states": states}


def read(store: DirectoryStore) -> History:
    history = History(store)
    history.refresh()
    return history


def names_of(history: History) -> list[str]:
    return [STATES[number] for number in history.states]


def test_history_of_nothing_is_empty(store: DirectoryStore) -> None:
    history = read(store)
    assert (history.job, history.count, history.list_open()) == ({}, 0, [])


def test_history_of_a_hand_in_waits_for_all(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a", "b", "c"), {"1": "0-1", "2": "2"})
    history = read(store)
    assert names_of(history) == ["waiting"] * 3
    assert list(history.batch_of) == [0, 0, 1]
    assert [batch.batch for batch in history.list_open()] == ["1", "2"]


def test_history_records_tell_states(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a", "b", "c", "d"), {"1": "0-3"})
    put_start(store, "1", [record(0, "succeeded"), record(2, "timed_out"), record(3, "waiting")])
    history = read(store)
    assert names_of(history) == ["succeeded", "waiting", "timed_out", "waiting"]
    assert history.counts()["timed_out"] == 1
    assert history.seconds == 3
    assert history.unfinished(history.batches["1"]) == [1, 3]


def test_history_torn_last_line_counts_once_it_is_whole(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a", "b"), {"1": "0-1"})
    put_start(store, "1", [record(0, "succeeded"), record(1, "succeeded")])
    path = Path(store.path(records_key("1", RecordsKey(1, f"{1:012x}"))))
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    history = read(store)
    assert names_of(history) == ["succeeded", "waiting"]
    path.write_bytes(whole)
    history.refresh()
    assert names_of(history) == ["succeeded", "succeeded"]
    assert history.seconds == 2


def test_history_damaged_line_hides_no_other(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a", "b"), {"1": "0-1"})
    put_start(store, "1", [record(0, "succeeded"), record(1, "failed")])
    path = Path(store.path(records_key("1", RecordsKey(1, f"{1:012x}"))))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:20] + b"\n" + lines[2])
    assert names_of(read(store)) == ["waiting", "failed"]


def test_history_many_damaged_closing_lines_are_read_once_each(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a"), {"1": "0"})
    damaged = {"event": "end", "states": {"failed": "many"}}
    put_start(store, "1", [record(0, "succeeded"), *[damaged] * 20_000])
    began_s = time.process_time()
    assert names_of(read(store)) == ["succeeded"]
    assert time.process_time() - began_s < 20  # each against each took hours


def test_history_ended_start_is_read_from_its_closing_line_alike(store: DirectoryStore) -> None:
    count = 1000
    put_hand_in(store, 1, tasks(*["a"] * count), {"1": f"0-{count - 1}"}, executor="")
    states = ["failed" if n % 7 == 0 else "succeeded" for n in range(count)]
    failed = ",".join(str(n) for n in range(0, count, 7))
    succeeded = ",".join(f"{n + 1}-{min(n + 6, count - 1)}" for n in range(0, count - 1, 7))
    lines = [record(n, state) for n, state in enumerate(states)]
    put_start(store, "1", [*lines, end(failed=failed, succeeded=succeeded)])
    history = read(store)
    assert names_of(history) == states
    assert history.seconds == 3.0  # as the closing line has it, so nothing else was read
    assert history.list_open() == []
    assert len(history.failures.read_all()) == len(range(0, count, 7))


def test_history_success_stays_whatever_a_later_start_says(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a"), {"1": "0"})
    put_start(store, "1", [record(0, "succeeded")], start=1)
    put_start(store, "1", [record(0, "failed")], start=2)
    assert names_of(read(store)) == ["succeeded"]


def test_history_later_batch_of_a_task_counts_alone(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a", "b"), {"1": "0-1"})
    put_start(store, "1", [record(0, "failed"), record(1, "succeeded"), end(failed="0")])
    put_hand_in(store, 2, [], {"2": "0"})
    assert names_of(read(store)) == ["waiting", "succeeded"]
    put_start(store, "2", [record(0, "succeeded")])
    assert names_of(read(store)) == ["succeeded", "succeeded"]


def test_history_changed_task_waits_again_in_its_new_form(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a", "b"), {"1": "0-1"})
    put_start(store, "1", [record(0, "succeeded"), record(1, "succeeded"), end(succeeded="0-1")])
    put_hand_in(store, 2, [{"command": "a2", "index": 0}], {"2": "0"}, changed="0")
    history = read(store)
    assert names_of(history) == ["waiting", "succeeded"]
    assert [task.command for task in history.read_tasks()] == ["a2", "b"]


def test_history_outcome_of_a_former_self_does_not_count(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a"), {"1": "0"})
    put_hand_in(store, 2, [{"command": "a2", "index": 0}], {}, changed="0")
    history = read(store)
    put_start(store, "1", [record(0, "succeeded")])
    history.refresh()
    assert names_of(history) == ["waiting"]
    assert history.unfinished(history.batches["1"]) == []


def test_history_dropped_tasks_are_kept_but_not_counted(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a", "b", "c"), {"1": "0-2"})
    put_start(store, "1", [record(0, "failed"), record(1, "succeeded")])
    gone = [{"command": "", "index": index, "dropped": True} for index in (0, 2)]
    put_hand_in(store, 2, gone, {}, dropped="0,2")
    history = read(store)
    assert sum(history.counts().values()) == 1
    assert history.unfinished(history.batches["1"]) == []
    assert history.failures.read_all() == []
    assert [task.command for task in history.read_tasks()] == ["a", "b", "c"]


def test_history_dropped_task_that_comes_back_counts_again(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a"), {"1": "0"})
    put_hand_in(store, 2, [{"command": "", "index": 0, "dropped": True}], {}, dropped="0")
    put_hand_in(store, 3, [{"command": "a", "index": 0}], {"2": "0"}, changed="0")
    assert sum(read(store).counts().values()) == 1


def test_history_closed_batch_is_not_open(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a"), {"1": "0"})
    store.create(".umpteen/records/1/closed", b"")
    assert read(store).list_open() == []


def test_history_batch_handed_in_again_has_not_ended_before_it_began(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a"), {"1": "0"})
    store.create(handles_key(1), b'{"1":"m/b/' + b"1".rjust(12, b"0") + b'"}')
    put_start(store, "1", [record(0, "waiting"), end(waiting="0")])
    assert read(store).list_open() == []
    put_hand_in(store, 2, [], {"1": "0"})
    store.create(handles_key(2), b'{"1":"m/b/another"}')
    (batch,) = read(store).list_open()
    assert batch.handle == "m/b/another"


def test_history_failures_are_told_once_and_only_as_they_stand(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a", "b"), {"1": "0-1"})
    put_start(store, "1", [record(0, "failed"), record(1, "failed"), record(1, "succeeded")])
    history = read(store)
    assert [entry.task for _, entry in history.failures.take_recent()] == [0]
    assert list(history.failures.take_recent()) == []
    assert [entry.task for _, entry in history.failures.read_all()] == [0]


def test_history_running_tasks_are_those_of_the_newest_start(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a", "b"), {"1": "0-1"})
    for start in (1, 2):
        put_start(store, "1", [], start=start)
        shown = b'{"running":[[%d,0,1.5,77]],"trouble":""}\n' % (start - 1)
        store.replace(f".umpteen/running/1/{start}-{start:012x}.json", shown)
    history = read(store)
    assert history.list_running(history.batches["1"]) == [RunningTask(1, 0, 1.5, 77)]


def test_history_task_is_described_from_its_batch(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a", "b", "c", "d"), {"1": "0,2-3"})
    put_batch(store, "1", "0,2-3", ["x", "y", "z"])
    history = read(store)
    assert history.describe_task("1", 3) == ("z", f"{store.address}/z")
    assert history.describe_task("1", 0) == ("x", f"{store.address}/x")


def test_history_records_of_a_task_come_oldest_first_with_their_runner(
    store: DirectoryStore,
) -> None:
    put_hand_in(store, 1, tasks("a", "b"), {"1": "0-1"})
    put_start(store, "1", [record(0, "waiting"), record(1, "failed")], start=1)
    put_start(store, "1", [record(0, "failed", attempt=2)], start=2)
    found = read(store).read_records([0])
    assert [(token, entry.attempt) for token, entry in found[0]] == [
        (f"{1:012x}", 1), (f"{2:012x}", 2)
    ]  # fmt: skip
    assert set(found) == {0}


@pytest.mark.parametrize("key", [".umpteen/job.json", handed_key(1), handles_key(1)])
def test_history_damaged_file_is_an_error_that_names_it(store: DirectoryStore, key: str) -> None:
    put_hand_in(store, 1, tasks("a"), {"1": "0"})
    store.replace(key, b'{"a": ')
    with pytest.raises(StoreError) as caught:
        read(store)
    assert caught.value.path == store.path(key)


def test_history_damaged_tasks_are_an_error_that_names_them(store: DirectoryStore) -> None:
    put_hand_in(store, 1, tasks("a"), {"1": "0"})
    store.replace(tasks_key(1), b'{"comm')
    with pytest.raises(StoreError) as caught:
        read(store).read_tasks()
    assert caught.value.path == store.path(tasks_key(1))
