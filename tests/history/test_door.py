"""What is read back: files of a job that have not the form of one are damaged, or passed over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.store import put_batch, put_hand_in, put_start
from umpteen.errors import StoreError
from umpteen.history.history import History
from umpteen.history.settings import read_settings
from umpteen.model.forms import FormError, load_json, parse_ranges
from umpteen.model.names import find_malformed_name
from umpteen.model.record import Record, parse_record
from umpteen.model.states import STATES
from umpteen.store.directory import DirectoryStore
from umpteen.store.job_files import parse_running, read_batch_file, read_cancel_mark
from umpteen.store.layout import (
    CANCEL,
    JOB,
    RecordsKey,
    batch_key,
    handed_key,
    handles_key,
    options_key,
    parse_live_key,
    parse_numbers,
    parse_records_key,
    tasks_key,
)
from umpteen.store.records import build_line, parse_lines, read_start

DEEP = "[" * 100_000
HUGE = "0-99999999999"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """A job of three tasks in one batch, of which one has succeeded."""
    store = DirectoryStore(str(tmp_path / "store"))
    put_hand_in(store, 1, [{"command": c} for c in "abc"], {"1": "0-2"})
    put_batch(store, "1", "0-2", ["0", "1", "2"])
    put_start(store, "1", [{"task": 0, "digest": "", "attempt": 1, "state": "succeeded"}])
    return store


def read(store: DirectoryStore) -> History:
    history = History(store)
    history.refresh()
    return history


def read_all(store: DirectoryStore) -> None:
    """What the verbs that look read of it."""
    history = read(store)
    read_settings(history)
    history.read_tasks()
    history.failures.read_all()
    history.read_newest()
    for batch in history.batches.values():
        history.list_running(batch)
        history.describe_task(batch.batch, batch.indices[0].start)


def change(store: DirectoryStore, key: str, **fields: Any) -> None:
    """Put other values into a file that is one JSON object."""
    content = json.loads(store.read(key) or b"{}")
    store.replace(key, json.dumps({**content, **fields}).encode())


def test_door_lets_the_whole_store_in(store: DirectoryStore) -> None:
    read_all(store)


@pytest.mark.parametrize(
    ("key", "content"),
    [
        (JOB, "["),
        (JOB, "[]"),
        (JOB, DEEP),
        (JOB, '{"name": 5}'),
        (JOB, '{"name": "a\\u0000b"}'),
        (JOB, '{"name": "../a"}'),
        (JOB, '{"version": null, "name": "a"}'),
        (JOB, '{"version": "1", "name": "a"}'),
        (JOB, '{"name": "a", "created": "x"}'),
        (JOB, '{"name": "a", "created": NaN}'),
        (JOB, '{"name": "a", "created": 1e300}'),
        (JOB, '{"name": "a", "settings": 5}'),
        (JOB, '{"name": "a", "settings": {"slots": "x"}}'),
        (JOB, '{"name": "a", "settings": {"canary": -1}}'),
        (JOB, '{"name": "a", "settings": {"synced": [[5]]}}'),
        (handed_key(1), ""),
        (handed_key(1), DEEP),
        (handles_key(1), "[]"),
        (handles_key(1), '{"9": "x"}'),
        (handles_key(1), '{"1": 5}'),
        (handles_key(1), '{"../1": "x"}'),
        (handed_key(3), "{}"),
        (options_key(1), "[]"),
        (tasks_key(1), ""),
        (tasks_key(1), '{"command": "a"}\n'),
        (tasks_key(1), '{"command": "a"}\n' * 4),
        (tasks_key(1), '{"command": 5}\n' * 3),
        (tasks_key(1), '{"command": "a", "name": "../a"}\n' * 3),
        (tasks_key(1), '{"command": "a", "name": "/etc"}\n' * 3),
        (tasks_key(1), '{"command": "a", "name": ".umpteen"}\n' * 3),
        (tasks_key(1), '{"command": "a", "name": "a\\u0000b"}\n' * 3),
        (tasks_key(1), '{"command": "a", "output": "a\\u0000b"}\n' * 3),
        (tasks_key(1), '{"command": "a", "timeout_s": 1e300}\n' * 3),
        (tasks_key(1), '{"command": "a", "terms": {"needs": "gpu"}}\n' * 3),
        (tasks_key(1), '{"command": "a", "terms": {"needs": [5]}}\n' * 3),
        (tasks_key(1), '{"command": "a", "terms": {"needs": ["gpu", "../a"]}}\n' * 3),
        (tasks_key(1), '{"command": "a"}\n' * 3 + '{"command": "a", "index": 3}\n'),
        (tasks_key(1), '{"command": "a"}\n' * 3 + '{"command": "a", "index": -1}\n'),
        (batch_key("1"), "{}"),
        (batch_key("1"), DEEP),
        (CANCEL, "[]"),
        (CANCEL, '{"upto": "x"}'),
        (CANCEL, '{"upto": -1}'),
        (CANCEL, '{"upto": 1, "tasks": {"x": 1}}'),
        (CANCEL, '{"upto": 1, "tasks": {"1": null}}'),
    ],
)
def test_door_refuses_a_file_without_its_form(
    store: DirectoryStore, key: str, content: str
) -> None:
    store.replace(key, content.encode())
    with pytest.raises(StoreError, match="is damaged") as error:
        read_all(store)
    assert error.value.damaged
    assert str(error.value).startswith(store.address)


@pytest.mark.parametrize(
    "fields",
    [
        {"tasks": 10**12},
        {"tasks": 50_000_000},  # which its file has no room for
        {"tasks": -1},
        {"tasks": None},
        {"changed": HUGE},
        {"dropped": HUGE},
        {"dropped": "3"},
        {"restored": "0-99999999"},
        {"changed": "a-b"},
        {"changed": "2-0"},
        {"batches": [{"batch": "1", "indices": HUGE}]},
        {"batches": [{"batch": "1", "indices": "0-2," * 100 + "0"}]},
        {"batches": [{"batch": "../1", "indices": "0-2"}]},
        {"batches": [{"batch": "", "indices": "0-2"}]},
        {"batches": {}},
        {"hand_in": 2},
        {"mark": "a b"},
        {"settings": {"slots": None}},
        {"settings": {"grace_s": 1e300}},
        {"settings": []},
        {"executor": "\0"},
        {"workers": 10**30},
    ],
)
def test_door_refuses_a_hand_in_that_cannot_be(
    store: DirectoryStore, fields: dict[str, Any]
) -> None:
    change(store, handed_key(1), **fields)
    with pytest.raises(StoreError, match=r"handed/1\.json is damaged"):
        read_all(store)


@pytest.mark.parametrize(
    "line",
    [
        '{"task": 99999, "state": "failed"}',
        '{"task": -7, "state": "failed"}',
        '{"task": 1e300, "state": "failed"}',
        '{"task": "1", "state": "failed"}',
        '{"task": true, "state": "failed"}',
        '{"task": 1, "state": "nosuch"}',
        '{"task": 1, "state": ["failed"]}',
        '{"task": 1}',
        '{"task": 1, "state": "failed", "retry": 1}',
        '{"event": 5}',
        '{"event": "start", "machine": 5}',
        '{"event": "end", "left": "none"}',
        '{"event": "end", "left": 0, "states": {"failed": "x"}}',
        '{"event": "end", "task": 1}',
        "[1]",
        "\udc80",
        DEEP,
        '{"task": 1, "state": "failed", "x": ' + DEEP,
    ],
)
def test_door_passes_over_a_line_of_records_without_its_form(
    store: DirectoryStore, line: str
) -> None:
    put_start(store, "1", [], start=2)
    key = RecordsKey(2, f"{2:012x}")
    path = Path(store.path(f".umpteen/records/1/2-{2:012x}.jsonl"))
    whole = b'{"task": 2, "digest": "d", "attempt": 1, "state": "timed_out"}\n'
    path.write_bytes(path.read_bytes() + line.encode("utf-8", "surrogateescape") + b"\n" + whole)
    history = read(store)
    assert [STATES[number] for number in history.states] == ["succeeded", "waiting", "timed_out"]
    assert [start.has_ended for start in history.batches["1"].starts] == [False, False]
    start = read_start(store, "1", key, history.here)
    assert [record.task for record in start.records if record.task < 3] == [2]
    assert start.ended is None
    read_all(store)


@pytest.mark.parametrize(
    "field",
    [
        '"seconds": null',
        '"end_s": 1e300',
        '"start_s": NaN',
        '"seconds": "x"',
        '"exit_code": "1"',
        '"peak_kb": -1',
        '"outputs": "../../x"',
        '"outputs": "attempts/../../x"',
        '"attempt": []',
        '"digest": 5',
        '"reason": {"a": 1}',
        '"reason": "\\ud800"',
        '"slot": 1e999',
    ],
)
def test_door_counts_a_record_whatever_else_it_says_alike_for_all(
    store: DirectoryStore, field: str
) -> None:
    line = f'{{"task": 1, "state": "failed", {field}}}\n'.encode()
    (parsed,) = parse_lines(line)
    assert parse_record(parsed) == Record(1, "", 1, "failed")
    path = Path(store.path(f".umpteen/records/1/1-{1:012x}.jsonl"))
    path.write_bytes(path.read_bytes() + line)
    history = read(store)
    assert STATES[history.states[1]] == "failed"
    assert history.failures.read_all() == [("1", Record(1, "", 1, "failed"))]
    assert (history.seconds, history.last_end_s) == (0.0, 0.0)


@pytest.mark.parametrize(
    "running",
    [
        {"running": [[99999, 0, 0, 0]]},
        {"running": [[0]]},
        {"running": [5]},
        {"running": 5},
        {"running": [[0, 0, "x", 0]]},
        {"running": [[0, 0, 1e300, 0]]},
        {"running": [[0, 0, 1, 0]], "trouble": 5},
        [],
    ],
)
def test_door_takes_nothing_from_a_running_file_without_its_form(running: Any) -> None:
    assert parse_running(json.dumps(running).encode(), 3) == ([], "")


def batch_of(store: DirectoryStore) -> dict[str, Any]:
    """A batch file as a runner reads it, with all that it may have."""
    return {
        "nprocs": 1,
        "remote_output_path": store.address,
        "runs": [{"cmd": c, "remote_output_path": f"{store.address}/{c}"} for c in "abc"],
        "umpteen": {
            "version": 1, "job": "job", "batch": "7", "indices": "0-2", "names": ["a", "b", "c"],
            "extras": {"1": {"argv": ["b"], "env": {"A": "1"}, "timeout_s": 2, "cpus": 1}},
            "attempts": {"0": [1, "00000000000a", [{"task": 0, "state": "failed"}]], "2": [0, ""]},
            "after": [-1, 0, -2], "barriers": [{"any": "0"}], "waits": ["3"], "graph": True,
            "synced": [["0" * 40, None, ""]], "status_file": "status", "deadline_s": 9.5,
        },
    }  # fmt: skip


def test_door_lets_a_batch_in_with_all_that_it_may_have(store: DirectoryStore) -> None:
    content = batch_of(store)
    store.replace(batch_key("7"), json.dumps(content).encode())
    assert read_batch_file(store, "7") == content


def _put(*place: Any) -> Callable[[dict[str, Any]], None]:
    """Puts the last of these into a batch file, at the place that the others lead to."""

    def put(content: Any) -> None:
        for part in place[:-2]:
            content = content[part]
        content[place[-2]] = place[-1]

    return put


@pytest.mark.parametrize(
    "spoil",
    [
        _put("nprocs", 0),
        _put("nprocs", "1"),
        _put("nprocs", 10**12),
        _put("runs", {}),
        _put("runs", []),
        _put("runs", 1, 5),
        _put("runs", 1, {"cmd": "b"}),
        _put("runs", 1, "cmd", 5),
        _put("runs", 1, "cmd", "a\0b"),
        _put("runs", 1, "remote_output_path", ""),
        _put("runs", 1, "local_results_dir", 5),
        _put("umpteen", []),
        _put("umpteen", "batch", "8"),
        _put("umpteen", "version", "1"),
        _put("umpteen", "indices", HUGE),
        _put("umpteen", "indices", "0-1"),
        _put("umpteen", "indices", 5),
        _put("umpteen", "names", ["a", "b"]),
        _put("umpteen", "names", ["a", "../b", "c"]),
        _put("umpteen", "names", ["a", 5, "c"]),
        _put("umpteen", "extras", {"3": {}}),
        _put("umpteen", "extras", {"x": {}}),
        _put("umpteen", "extras", "1", "argv", []),
        _put("umpteen", "extras", "1", "env", {"A": 1}),
        _put("umpteen", "extras", "1", "timeout_s", "1"),
        _put("umpteen", "extras", "1", "cpus", -1),
        _put("umpteen", "common", []),
        _put("umpteen", "attempts", {"0": []}),
        _put("umpteen", "attempts", {"0": [1, "../x"]}),
        _put("umpteen", "attempts", {"0": [1, "a", [{"task": 0}]]}),
        _put("umpteen", "after", [-1, 1, -1]),
        _put("umpteen", "after", [-1]),
        _put("umpteen", "barriers", [{"any": HUGE}]),
        _put("umpteen", "barriers", [5]),
        _put("umpteen", "waits", ["../3"]),
        _put("umpteen", "synced", [["../x", None, ""]]),
        _put("umpteen", "synced", ["0" * 40]),
        _put("umpteen", "status_file", "../x"),
        _put("umpteen", "grace_s", "x"),
        _put("umpteen", "deadline_s", 1e300),
        _put("umpteen", "max_failures", True),
        _put("umpteen", "cwd", 5),
    ],
)
def test_door_refuses_a_batch_that_cannot_be_run(
    store: DirectoryStore, spoil: Callable[[dict[str, Any]], None]
) -> None:
    content = batch_of(store)
    spoil(content)
    store.replace(batch_key("7"), json.dumps(content).encode())
    with pytest.raises(StoreError, match=r"batches/7\.json is damaged"):
        read_batch_file(store, "7")


@pytest.mark.parametrize("batch", ["", "../1", "1/../2", "A", "1.json"])
def test_door_names_of_batches_are_no_paths(store: DirectoryStore, batch: str) -> None:
    with pytest.raises(FormError):
        read_batch_file(store, batch)


@pytest.mark.parametrize(
    ("below", "ranges"),
    [(3, "3"), (3, "0-3"), (3, "0-1,0-1"), (3, "0-"), (3, "-1"), (3, "1-0"), (3, "²"), (3, "0x1")],
)
def test_ranges_beyond_what_there_is_are_refused(below: int, ranges: str) -> None:
    with pytest.raises(FormError):
        parse_ranges(ranges, below)


@pytest.mark.parametrize("name", ["²", "01", "1" * 30, "-1", "1e3", ""])
def test_names_of_files_that_are_no_numbers_are_passed_over(name: str) -> None:
    assert parse_numbers([f"{name}.json", "2.json"], ".json") == [2]
    assert parse_records_key(f"{name or 'x'}-0a.jsonl") in (None, RecordsKey(1, "0a"))
    assert parse_live_key(f"{name}.1.1-..") is None


def test_malformed_names_are_found_whatever_others_there_are() -> None:
    assert find_malformed_name(["a", "a", "a/b"]) is None
    found = find_malformed_name(["a", "b/../c"])
    assert found is not None
    assert found.position == 1


@pytest.mark.parametrize("content", [b"\xff", b"{", DEEP.encode(), b'{"a": ' + b"1" * 5000 + b"}"])
def test_json_that_cannot_be_read_says_so_in_one_kind_of_error(content: bytes) -> None:
    with pytest.raises(FormError):
        load_json(content)


def test_cancel_mark_is_none_where_there_is_no_file(store: DirectoryStore) -> None:
    assert read_cancel_mark(store) == (0, {})


def test_records_of_another_job_are_passed_over(store: DirectoryStore) -> None:
    other = build_line({"task": 10_000_000, "digest": "", "attempt": 1, "state": "failed"})
    path = Path(store.path(f".umpteen/records/1/1-{1:012x}.jsonl"))
    path.write_bytes(path.read_bytes() + other)
    assert read(store).counts()["failed"] == 0
    read_all(store)
