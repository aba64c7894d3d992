from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.store import put_hand_in, put_start
from umpteen.formats.sc import Run
from umpteen.outcomes import read_exit_codes
from umpteen.results.directory import DirectoryStore
from umpteen.results.opening import open_store


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

    for name in ("read", "read_tail", "list"):
        count(name)
    return counted


def build_runs(outputs: Sequence[str]) -> list[Run]:
    return [Run(cmd=f"echo {n}", remote_output_path=output) for n, output in enumerate(outputs)]


def put(address: str, content: bytes) -> None:
    store = open_store(address)
    store.replace("status_code", content)
    store.close()


def test_outcomes_with_records_read_no_status_code(tmp_path: Path, requests: Requests) -> None:
    store = DirectoryStore(str(tmp_path))
    put_hand_in(store, 1, [{"command": f"echo {n}"} for n in range(100)], {"1": "0-99"})
    failed = {"task": 7, "digest": "", "attempt": 1, "state": "failed", "signal": 9}
    ended = {"event": "end", "states": {"succeeded": "0-6,8-98", "failed": "7"}}
    records = [{"task": n, "state": "succeeded", "exit_code": 0} for n in range(99) if n != 7]
    put_start(store, "1", [*records, failed, {**ended, "time": 0.0, "left": 1, "seconds": 1.0}])
    requests.clear()

    codes = read_exit_codes(str(tmp_path), build_runs([f"{tmp_path}/{n}" for n in range(100)]))

    assert codes == [-9 if n == 7 else None if n == 99 else 0 for n in range(100)]
    assert sum(requests.values()) < 15


def test_outcomes_without_records_read_what_a_listing_shows(
    tmp_path: Path, requests: Requests
) -> None:
    for n in range(5):
        put(f"{tmp_path}/{n}", b"%d" % n)
    codes = read_exit_codes(str(tmp_path), build_runs([f"{tmp_path}/{n}" for n in range(100)]))
    assert codes == [*range(5), *[None] * 95]
    assert requests == {"list": 1, "read": 6}


def test_outcomes_of_runs_that_records_do_not_know_are_read(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    put_hand_in(store, 1, [{"command": "echo 0"}, {"command": "echo 1"}], {"1": "0-1"})
    put(f"{tmp_path}/1", b"0")  # of a task that has records, which say that it has not ended
    put(f"{tmp_path}/2", b"0")
    codes = read_exit_codes(str(tmp_path), build_runs([f"{tmp_path}/{n}" for n in range(3)]))
    assert codes == [None, None, 0]


@pytest.mark.parametrize("written", ["{0}/a%20b/c", "file://{0}/a%2520b/c", "{0}//a%20b//c/"])
def test_outcomes_of_a_place_are_found_as_it_is_spelled(tmp_path: Path, written: str) -> None:
    put(f"{tmp_path}/a%20b/c", b"4")
    assert read_exit_codes(str(tmp_path / "top"), build_runs([written.format(tmp_path)])) == [4]


def test_outcomes_in_many_places_are_all_found(tmp_path: Path) -> None:
    one, two = (f"memory://{uuid.uuid4().hex}" for _ in range(2))
    places = [f"{one}/a", f"{one}/b/c/d", f"{two}/a", f"{tmp_path}/x", f"{tmp_path}/y/z", "/none/q"]
    for number, place in enumerate(places[:-1]):
        put(place, b"%d" % number)
    assert read_exit_codes(f"{one}/top", build_runs(places)) == [0, 1, 2, 3, 4, None]
