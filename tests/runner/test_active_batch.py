"""A batch that is worked on: opened in a real store, and what each call changes of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from umpteen.model.states import NUMBER_OF
from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.batch_start import Opener
from umpteen.runner.lanes.protocol import Ticket
from umpteen.store.directory import DirectoryStore
from umpteen.store.identity import identify
from umpteen.store.layout import CANCEL, batch_key
from umpteen.system.host import read_machine

SUCCEEDED, WAITING = NUMBER_OF["succeeded"], NUMBER_OF["waiting"]


@pytest.fixture(autouse=True)
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of leases of this test's own."""
    (tmp_path / "leases").mkdir()
    monkeypatch.setenv("UMPTEEN_LEASES", str(tmp_path / "leases"))


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """A store with one batch of the tasks 5, 6 and 7."""
    store = DirectoryStore(str(tmp_path / "job"))
    names = ["a", "b", "c"]
    runs = [{"cmd": "true", "remote_output_path": store.path(name)} for name in names]
    own = {"version": 1, "job": "job", "batch": "1", "indices": "5-7", "names": names}
    content = {"nprocs": 1, "remote_output_path": store.address, "runs": runs, "umpteen": own}
    store.replace(batch_key("1"), json.dumps(content).encode())
    return store


def begin(store: DirectoryStore) -> ActiveBatch:
    """One more start of the batch."""
    token = os.urandom(6).hex()
    active = Opener(identify(store), store, token, read_machine()).open("1")
    assert active is not None
    return active


def finish(active: ActiveBatch, position: int, state: str) -> None:
    record = active.build_record(position, state)
    active.file.append(record.to_line().encode() + b"\n")
    active.record_end(position, NUMBER_OF[state])


def end(active: ActiveBatch) -> None:
    active.file.append(active.build_end())
    active.file.close()


def test_batch_that_is_new_has_all_to_do(store: DirectoryStore) -> None:
    active = begin(store)
    assert (active.todo, active.alone, active.left, active.is_fenced) == ([0, 1, 2], [], 3, False)
    assert (active.find_position(6), active.find_position(1)) == (1, None)


def test_next_start_has_to_do_what_is_left(store: DirectoryStore) -> None:
    first = begin(store)
    finish(first, 1, "succeeded")
    end(first)
    second = begin(store)
    assert (second.todo, second.finals, second.key.start) == ([0, 2], {6: SUCCEEDED}, 2)


def test_attempt_after_a_failed_one_has_the_next_number(store: DirectoryStore) -> None:
    active = begin(store)
    assert active.build_ticket((0, 2), 0) == Ticket(0, 2, 1, False, False, 0)
    active.attempt_failed({"task": 7, "digest": "", "attempt": 1, "state": "failed"})
    assert active.build_ticket((0, 2), 3) == Ticket(0, 2, 2, False, True, 3)
    assert active.count_attempts(7) == 1


def test_task_that_the_runner_ended_is_left(store: DirectoryStore) -> None:
    active = begin(store)
    assert active.record_end(0, SUCCEEDED)
    assert not active.record_end(1, WAITING)
    assert (active.left, active.is_done(1)) == (2, True)


def test_end_says_what_each_task_came_to(store: DirectoryStore) -> None:
    active = begin(store)
    active.record_end(0, SUCCEEDED)
    active.record_end(2, SUCCEEDED)
    active.add_seconds(1.5)
    end = json.loads(active.build_end())
    assert (end["left"], end["seconds"], end["states"]) == (1, 1.5, {"succeeded": "5,7"})
    assert "orphan" not in end
    active.mark_orphaned()
    assert json.loads(active.build_end())["orphan"] is True


def test_cancelled_tasks_are_recorded_and_not_to_do(store: DirectoryStore) -> None:
    active = begin(store)
    active.record_cancelled("why", only={6})
    assert (active.todo, active.left) == ([0, 2], 2)
    active.record_cancelled()
    assert (active.todo, active.left) == ([], 0)
    end(active)
    assert begin(store).todo == []


def test_batch_below_the_cancel_mark_is_cancelled_as_it_is_opened(store: DirectoryStore) -> None:
    store.replace(CANCEL, b'{"upto": 1}')
    active = begin(store)
    assert (active.todo, active.left) == ([], 0)
    assert set(active.states) == {NUMBER_OF["cancelled"]}
