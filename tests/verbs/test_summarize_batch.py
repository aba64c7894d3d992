from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.store import put_hand_in, put_start
from umpteen.formats.saturn_batch import Run
from umpteen.model.ranges import format_ranges
from umpteen.store.address import open_store
from umpteen.store.directory import DirectoryStore
from umpteen.verbs.summarize_batch import read_exit_codes, sort_runs


class Requests(Counter[str]):
    """What was asked of directory stores."""


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    counted = Requests()

    def count(name: str) -> None:
        original = getattr(DirectoryStore, name)

        def call(store: DirectoryStore, *given: object) -> object:
            counted[name] += 1
            return original(store, *given)

        monkeypatch.setattr(DirectoryStore, name, call)

    for name in ("read", "read_tail", "names", "_glance"):
        count(name)
    return counted


def build_runs(outputs: Sequence[str]) -> list[Run]:
    return [Run(cmd=f"echo {n}", remote_output_path=output) for n, output in enumerate(outputs)]


def put(address: str, content: bytes) -> None:
    store = open_store(address)
    store.replace("status_code", content)
    store.close()


def put_job(store: DirectoryStore, records: Sequence[dict[str, Any]], left: int = 0) -> None:
    """A job whose only batch ended with these records, a task each; `left` more did not run."""
    count = len(records) + left
    put_hand_in(store, 1, [{"command": f"echo {n}"} for n in range(count)], {"1": f"0-{count - 1}"})
    states: dict[str, list[int]] = {}
    for record in records:
        states.setdefault(record["state"], []).append(record["task"])
    ranges = {state: format_ranges(tasks) for state, tasks in states.items()}
    ended = {"event": "end", "states": ranges, "time": 0.0, "left": left, "seconds": 1.0}
    put_start(store, "1", [*({"digest": "", "attempt": 1, **r} for r in records), ended])


def succeeded(task: int, **more: Any) -> dict[str, Any]:
    return {"task": task, "state": "succeeded", "exit_code": 0, **more}


def test_outcomes_of_what_is_as_it_was_left_cost_a_read_each(
    tmp_path: Path, requests: Requests
) -> None:
    failed = {"task": 7, "state": "failed", "signal": 9}
    put_job(
        DirectoryStore(str(tmp_path)),
        [failed if n == 7 else succeeded(n, stdout_bytes=1) for n in range(99)],
        left=1,
    )
    for n in range(99):
        put(f"{tmp_path}/{n}", b"-9" if n == 7 else b"0")
        (tmp_path / str(n) / "stdout").touch()
    requests.clear()

    codes = read_exit_codes(str(tmp_path), build_runs([f"{tmp_path}/{n}" for n in range(100)]))

    assert codes == [-9 if n == 7 else None if n == 99 else 0 for n in range(100)]
    assert sum(requests.values()) < 99 + 15


def test_outcomes_without_records_read_what_a_listing_shows(
    tmp_path: Path, requests: Requests
) -> None:
    for n in range(5):
        put(f"{tmp_path}/{n}", b"%d" % n)
    codes = read_exit_codes(str(tmp_path), build_runs([f"{tmp_path}/{n}" for n in range(100)]))
    assert codes == [*range(5), *[None] * 95]
    assert requests == {"names": 1, "_glance": 5, "read": 1}


@pytest.mark.parametrize(
    ("record", "content", "expected"),
    [
        (succeeded(0), b"0", 0),
        (succeeded(0), None, None),
        (succeeded(0), b"3", 3),
        (succeeded(0), b"None", None),
        ({"task": 0, "state": "failed", "exit_code": 3}, b"3", 3),
        ({"task": 0, "state": "failed", "exit_code": 3}, b"0", 0),
        ({"task": 0, "state": "failed", "exit_code": 3}, None, None),
        ({"task": 0, "state": "failed", "signal": 9}, b"-9", -9),
        ({"task": 0, "state": "failed", "exit_code": 0, "reason": "did not leave a"}, b"0", 1),
        ({"task": 0, "state": "timed_out", "exit_code": 0}, b"0", 1),
        ({"task": 0, "state": "cancelled", "signal": 15}, b"-15", None),
        ({"task": 0, "state": "cancelled", "signal": 15}, b"0", 0),
        ({"task": 0, "state": "cancelled"}, None, None),
        ({"task": 0, "state": "waiting", "signal": 15, "reason": "interrupted"}, b"0", 0),
        (succeeded(0, stdout_bytes=1), b"0", None),  # and its stdout is gone
        (succeeded(0, outputs="attempts/1-ab"), b"0", 0),
    ],
)
def test_outcomes_are_what_the_status_file_says_where_others_changed_it(
    tmp_path: Path, record: dict[str, Any], content: bytes | None, expected: int | None
) -> None:
    put_job(DirectoryStore(str(tmp_path)), [record])
    folder = f"{tmp_path}/0/{record.get('outputs', '')}".rstrip("/")
    if content is not None:
        put(folder, content)
    assert read_exit_codes(str(tmp_path), build_runs([f"{tmp_path}/0"])) == [expected]


def test_outcomes_of_what_was_handed_in_anew_are_not_those_it_had(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    put_job(store, [succeeded(0), succeeded(1)])
    put_hand_in(store, 2, [], {"2": "0-1"})
    for n, content in enumerate((b"0", b"5")):  # left by the first, and by another tool since
        put(f"{tmp_path}/{n}", content)
    runs = build_runs([f"{tmp_path}/{n}" for n in range(2)])
    assert read_exit_codes(str(tmp_path), runs) == [None, 5]


def test_outcomes_of_runs_that_no_record_tells_of_are_read(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    put_hand_in(store, 1, [{"command": "echo 0"}, {"command": "echo 1"}], {"1": "0-1"})
    put(f"{tmp_path}/1", b"0")  # was handed in, and run by another tool
    put(f"{tmp_path}/2", b"0")
    codes = read_exit_codes(str(tmp_path), build_runs([f"{tmp_path}/{n}" for n in range(3)]))
    assert codes == [None, 0, 0]


@pytest.mark.parametrize("written", ["{0}/a%20b/c", "file://{0}/a%20b/c", "{0}//a%20b//c/"])
def test_outcomes_of_a_place_are_found_as_it_is_spelled(tmp_path: Path, written: str) -> None:
    put(f"{tmp_path}/a%20b/c", b"4")
    assert read_exit_codes(str(tmp_path / "top"), build_runs([written.format(tmp_path)])) == [4]


def test_outcomes_in_many_places_are_all_found(tmp_path: Path) -> None:
    one, two = (f"memory://{uuid.uuid4().hex}" for _ in range(2))
    places = [f"{one}/a", f"{one}/b/c/d", f"{two}/a", f"{tmp_path}/x", f"{tmp_path}/y/z", "/none/q"]
    for number, place in enumerate(places[:-1]):
        put(place, b"%d" % number)
    assert read_exit_codes(f"{one}/top", build_runs(places)) == [0, 1, 2, 3, 4, None]


def test_runs_are_sorted_by_their_codes_and_get_the_words_of_sc() -> None:
    runs = build_runs(["a", "b", "c", "d"])
    found = sort_runs(runs, [0, None, -9, 0])
    assert [run.status for run in runs] == ["completed", None, "error", "completed"]
    assert [run.status_code for run in runs] == [0, None, -9, 0]
    assert (found.completed, found.failed) == ([runs[0], runs[3]], [runs[2]])
    assert found.unfinished == [runs[1]]
