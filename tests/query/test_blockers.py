"""Which tasks keep another from running."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.store import put_hand_in, put_start
from umpteen.history.history import History
from umpteen.query.attempts import read_attempts
from umpteen.query.blockers import BlockerSearch
from umpteen.store.directory import DirectoryStore


def read_chain(tmp_path: Path, states: dict[int, str]) -> History:
    """`a`, then `b` after it, then `c` after that."""
    store = DirectoryStore(str(tmp_path / "store"))
    lines: list[dict[str, Any]] = [
        {"command": "true", "name": "a"},
        {"command": "true", "name": "b", "terms": {"after": [["a", "succeeded"]]}},
        {"command": "true", "name": "c", "terms": {"after": [["b", "succeeded"]]}},
    ]
    put_hand_in(store, 1, lines, {"1": "0-2"}, graph=True)
    ended = [
        {"task": task, "digest": "", "attempt": 1, "state": state} for task, state in states.items()
    ]
    put_start(store, "1", ended)
    history = History(store)
    history.refresh()
    return history


def test_blocker_of_a_skipped_task_is_the_first_that_was_not_skipped(tmp_path: Path) -> None:
    history = read_chain(tmp_path, {0: "failed", 1: "skipped", 2: "skipped"})
    search = BlockerSearch(history, history.read_tasks())
    (found,) = search.find(2)
    assert (found.task, found.outcome, found.by) == (0, "succeeded", [1])
    assert search.count_behind(0) == 2
    assert search.find(0) == []


def test_blocker_that_has_not_ended_is_the_next_one(tmp_path: Path) -> None:
    history = read_chain(tmp_path, {})
    search = BlockerSearch(history, history.read_tasks())
    (found,) = search.find(2)
    assert (found.task, found.by) == (1, [])
    assert search.count_behind(0) == 0


def test_task_after_what_succeeded_has_no_blocker(tmp_path: Path) -> None:
    history = read_chain(tmp_path, {0: "succeeded"})
    search = BlockerSearch(history, history.read_tasks())
    assert search.find(1) == []
    assert search.find_newer(1, set()) == (-1, False)
    assert not search.is_canary(0, 1)


def test_attempt_whose_runner_died_is_lost(tmp_path: Path) -> None:
    history = read_chain(tmp_path, {0: "failed"})
    token = f"{1:012x}"
    history.store.replace(f".umpteen/running/1/1-{token}.json", b'{"running":[[0,1,50.0,7]]}')
    first, lost = read_attempts(history, {0}, living=set())[0]
    assert (first.record.state, first.is_lost) == ("failed", False)
    assert (lost.record.attempt, lost.record.start_s, lost.is_lost) == (2, 50.0, True)
    assert len(read_attempts(history, {0}, living={"1"})[0]) == 1
