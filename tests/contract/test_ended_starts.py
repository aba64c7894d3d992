"""A start that has ended is over at once, whatever could not be written of it any more."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.store import put_hand_in
from umpteen.history.history import History
from umpteen.query.liveness import Liveness
from umpteen.runner.batch_start import Opener
from umpteen.runner.launch import build_runner_command
from umpteen.runner.lease import Lease, is_held
from umpteen.store.directory import DirectoryStore
from umpteen.store.identity import describe_place, find_place, identify
from umpteen.store.layout import JOB, RecordsKey, batch_key, handles_key, records_key
from umpteen.store.records import build_line
from umpteen.system.host import read_machine

TOKEN, OTHER = "a" * 12, "b" * 12
BATCH = """{"nprocs": 1, "remote_output_path": "%s", "runs": [{"cmd": "true",
"remote_output_path": "%s/0"}], "umpteen": {"version": 1, "job": "job", "batch": "1",
"indices": "0", "names": ["0"]}}"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DirectoryStore:
    """A batch of one task, handed in on this machine."""
    monkeypatch.setenv("UMPTEEN_LEASES", str(tmp_path / "leases"))
    store = DirectoryStore(str(tmp_path / "store"))
    store.create(JOB, b'{"name":"job","version":1}')
    store.create(batch_key("1"), (BATCH % (store.address, store.address)).encode())
    put_hand_in(store, 1, [{"command": "true"}], {"1": "0"})
    return store


def put_start(store: DirectoryStore, *, place: str = "", has_ended: bool = False) -> None:
    here = read_machine()
    lines: list[dict[str, object]] = [
        {
            "event": "start",
            "machine": here.machine,
            "boot": here.boot,
            "host": here.host,
            "token": TOKEN,
            "place": place,
        },
        {"event": "end", "left": 1, "states": {}},
    ]
    content = b"".join(map(build_line, lines[: 2 if has_ended else 1]))
    store.create(records_key("1", RecordsKey(1, TOKEN)), content)


def put_handle(store: DirectoryStore, token: str) -> None:
    here = read_machine()
    store.create(handles_key(1), build_line({"1": f"{here.machine}/{here.boot}/{token}"}))


def list_living(store: DirectoryStore) -> set[str]:
    history = History(store)
    history.refresh()
    return Liveness().list_living(history)


def test_start_that_ended_before_its_handle_was_told_is_over(store: DirectoryStore) -> None:
    put_start(store, has_ended=True)
    assert list_living(store) == set()


def test_start_without_an_end_of_which_nothing_is_known_may_live(store: DirectoryStore) -> None:
    put_start(store)
    put_handle(store, TOKEN)
    assert list_living(store) == {"1"}


def test_start_that_a_copy_inherited_is_over(store: DirectoryStore) -> None:
    put_start(store, place=describe_place(read_machine(), "1:2"))
    assert list_living(store) == set()


def test_start_at_the_place_of_the_store_may_live(store: DirectoryStore) -> None:
    put_start(store, place=describe_place(read_machine(), find_place(store.address)))
    assert list_living(store) == {"1"}


def test_start_that_passed_a_batch_over_is_known_to_be_over(store: DirectoryStore) -> None:
    put_start(store)
    lease = Lease.create(TOKEN, identify(store), 1)
    command = [*build_runner_command(), f"--token={OTHER}", store.address, "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "being run here already" in done.stderr
    assert is_held(OTHER) is False
    lease.remove()


def test_start_that_was_killed_before_its_first_line_is_over(store: DirectoryStore) -> None:
    store.create(records_key("1", RecordsKey(1, TOKEN)), b"")
    os.close(Lease.create(TOKEN, identify(store), 1).lock)
    opener = Opener(identify(store), store, OTHER, read_machine())
    opened = opener.open("1")
    assert opened is not None
    opened.file.close()
    assert opened.is_fenced is False
