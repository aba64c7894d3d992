"""Verbs that only look: whatever a store names, nobody's code is run and nobody is asked."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.store import put_batch, put_hand_in, put_start
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import (
    CANCEL,
    JOB,
    RecordsKey,
    handed_key,
    handles_key,
    records_key,
    tasks_key,
)
from umpteen.store.records import build_line

VERBS = [
    ("ls",),
    ("ls", "--json"),
    ("status", "job"),
    ("status", "job", "--json"),
    ("why", "job", "0"),
    ("logs", "job", "0"),
    ("export", "job"),
    ("results", "job"),
]


def put_job(umpteen: Umpteen, executor: str, handle: str, **task: str) -> DirectoryStore:
    """A job of one task that was handed in, and of which nothing is heard."""
    store = DirectoryStore(str(umpteen.folder / "umpteen-results/job"))
    put_hand_in(store, 1, [{"command": "true", **task}], {"1": "0"}, executor=executor)
    put_batch(store, "1", "0", ["0"])
    store.create(handles_key(1), json.dumps({"1": handle}).encode())
    return store


class Listener:
    """A port on which somebody waits to be asked; `count` says how often he was."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.place = f"tcp://127.0.0.1:{self.socket.getsockname()[1]}"
        self.count = 0
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                self.socket.accept()[0].close()
            except OSError:
                return
            self.count += 1


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Somebody who would be glad to be asked."""
    listener = Listener()
    yield listener
    listener.socket.close()


def list_strange(store: DirectoryStore) -> list[str]:
    """The files of its hand-in that name whom to ask."""
    return [store.path(handed_key(1)), store.path(handles_key(1))]


def test_looking_loads_no_executor_that_a_store_names(umpteen: Umpteen) -> None:
    put_job(umpteen, "evil:Executor", "anything")
    modules, mark = umpteen.folder / "modules", umpteen.folder / "was_here"
    modules.mkdir()
    (modules / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    for verb in VERBS:
        done = umpteen(*verb, env={"PYTHONPATH": str(modules)})
        assert "unexpected" not in done.stdout + done.stderr, verb
        assert not mark.exists(), verb
    shown = json.loads(umpteen("status", "job", "--json").stdout)
    assert shown["state"] == "unknown"
    assert "'evil:Executor'" in shown["trouble"]
    assert "unknown" in umpteen("ls").stdout


@pytest.mark.parametrize("strange", [0, 1])
def test_looking_asks_no_scheduler_that_others_may_have_named(
    umpteen: Umpteen, listener: Listener, strange: int
) -> None:
    store = put_job(umpteen, "dask", f"{listener.place} 0a/1")
    path = list_strange(store)[strange]
    os.chmod(path, 0o664)
    for verb in VERBS:
        umpteen(*verb)
    assert listener.count == 0
    shown = json.loads(umpteen("status", "job", "--json").stdout)
    assert shown["state"] == "unknown"
    assert path in shown["trouble"]
    os.chmod(path, 0o644)
    umpteen("status", "job")
    assert listener.count > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_looking_asks_no_scheduler_that_another_user_named(
    umpteen: Umpteen, listener: Listener
) -> None:
    store = put_job(umpteen, "dask", f"{listener.place} 0a/1")
    os.chown(list_strange(store)[1], 65534, 65534)
    for verb in VERBS:
        umpteen(*verb)
    assert listener.count == 0


@pytest.mark.parametrize("verb", ["collect", "retry"])
def test_verbs_that_act_take_no_executor_from_what_others_may_have_written(
    umpteen: Umpteen, listener: Listener, verb: str
) -> None:
    store = put_job(umpteen, "dask", f"{listener.place} 0a/1")
    os.chmod(list_strange(store)[0], 0o666)
    done = umpteen(verb, "job")
    assert done.returncode == 2
    assert "names the executor 'dask'" in done.stderr
    assert listener.count == 0


def test_cancel_asks_nobody_that_others_may_have_named(
    umpteen: Umpteen, listener: Listener
) -> None:
    store = put_job(umpteen, "dask", f"{listener.place} 0a/1")
    os.chmod(list_strange(store)[0], 0o666)
    done = umpteen("cancel", "job")
    assert done.returncode == 0, done.stderr
    assert store.read(CANCEL) is not None  # which is what runners look at
    assert listener.count == 0


@pytest.mark.parametrize("scheme", ["http", "sftp"])
def test_looking_opens_no_outputs_elsewhere_that_others_may_have_named(
    umpteen: Umpteen, listener: Listener, scheme: str
) -> None:
    output = listener.place.replace("tcp", scheme) + "/x/0"
    store = put_job(umpteen, "local", "m/b/0a", output=output)
    put_start(store, "1", [{"task": 0, "digest": "", "attempt": 1, "state": "failed"}])
    os.chmod(store.path(tasks_key(1)), 0o664)
    for verb in VERBS:
        umpteen(*verb)
    assert listener.count == 0
    assert f"at {output}, which is not opened" in umpteen("logs", "job", "0").stderr
    assert "left out" in umpteen("results", "job").stderr


def test_looking_shows_text_from_outside_clean(umpteen: Umpteen) -> None:
    evil = "a\x1b]0;owned\x07\x1b[2J\u202ebc\nerror: pwned"
    store = DirectoryStore(str(umpteen.folder / "umpteen-results/job"))
    put_hand_in(store, 1, [{"command": evil, "name": "a\u202e\u009b2Jb"}], {"1": "0"}, executor="")
    store.replace(JOB, json.dumps({"name": evil, "version": 1}).encode())
    put_batch(store, "1", "0", ["a\u202e\u009b2Jb"])
    record: dict[str, Any] = {
        "task": 0,
        "digest": "d",
        "attempt": 1,
        "state": "failed",
        "reason": evil,
    }
    opened: dict[str, Any] = {"event": "start", "machine": "m", "boot": "b", "host": evil}
    content = build_line(opened) + build_line(record)
    store.replace(records_key("1", RecordsKey(1, "0a")), content)
    results = Path(store.path("a\u202e\u009b2Jb/results"))
    results.mkdir(parents=True)
    (results / evil).write_text("x")
    (results.parent / "stderr").write_text(evil)
    verbs = [("status",), ("why", "0"), ("results",), ("logs", "nosuch"), ("collect",)]
    for verb, *more in [("ls",), *((verb, "job", *more) for verb, *more in verbs)]:
        done = umpteen(verb, *more)
        shown = done.stdout + done.stderr
        assert not set(shown) & set("\x1b\x07\u202e\u009b"), verb
        assert not any(line.startswith("error: pwned") for line in shown.splitlines()), verb
    as_json = json.loads(umpteen("status", "job", "--json").stdout)
    assert as_json["name"] == evil


def test_ls_shows_a_damaged_store_as_a_row_and_all_others(umpteen: Umpteen) -> None:
    assert umpteen("run", "true", "--name", "sound").returncode == 0
    store = put_job(umpteen, "", "")
    store.replace(handed_key(1), b"{}")
    shown = umpteen("ls")
    assert shown.returncode == 3
    assert "sound" in shown.stdout
    (row,) = [line for line in shown.stdout.splitlines() if line.startswith("job ")]
    assert f"  {store.path(handed_key(1))} is damaged" in row
    rows = {row["name"]: row for row in json.loads(umpteen("ls", "--json").stdout)}
    assert rows["sound"]["state"] == "succeeded"
    assert rows["job"]["state"] == "damaged"
    assert rows["job"]["total"] == 0
    assert "handed/1.json is damaged" in rows["job"]["trouble"]


def test_executor_that_is_no_class_of_ours_is_wrong_input(umpteen: Umpteen) -> None:
    for name in ("os:system", ".x", "os:", "json:JSONDecoder"):
        done = umpteen("run", "true", "--executor", name)
        assert done.returncode == 2
        assert "executor" in done.stderr
        assert "unexpected" not in done.stderr


def test_hand_in_that_is_refused_leaves_no_job(umpteen: Umpteen) -> None:
    (umpteen.folder / "leases").write_text("no folder")
    refused = umpteen("run", "true", env={"UMPTEEN_LEASES": str(umpteen.folder / "leases")})
    assert refused.returncode == 3
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    at = f"tcp://127.0.0.1:{port}"
    assert umpteen("run", "true", "--executor", "dask", "--scheduler-address", at).returncode == 3
    assert json.loads(umpteen("ls", "--json").stdout) == []
    assert not (umpteen.folder / "umpteen-results/true").exists()


def test_results_in_the_root_folder_itself_are_refused(umpteen: Umpteen) -> None:
    done = umpteen("run", "true", "--results", "/")
    assert done.returncode == 2
    assert "root folder" in done.stderr
    (umpteen.folder / "batch.json").write_text(
        '{"nprocs": 1, "remote_output_path": "/", "runs": [{"cmd": "true"}]}'
    )
    assert umpteen("batch", "batch.json").returncode == 2
    runs = [{"cmd": "true"}, {"cmd": "true", "remote_output_path": "/"}]
    batch = {"nprocs": 1, "remote_output_path": "out", "runs": runs}
    (umpteen.folder / "batch.json").write_text(json.dumps(batch))
    for verb in ("batch", "run"):
        done = umpteen(verb, "batch.json")
        assert done.returncode == 2
        assert "cannot be the root folder itself" in done.stderr


def test_results_leaves_out_a_task_whose_outputs_are_said_to_be_the_root_folder(
    umpteen: Umpteen,
) -> None:
    store = DirectoryStore(str(umpteen.folder / "umpteen-results/job"))
    put_hand_in(store, 1, [{"command": "true", "output": "/"}, {"command": "true"}], {"1": "0-1"})
    ended = [{"task": n, "digest": "", "attempt": 1, "state": "succeeded"} for n in range(2)]
    put_start(store, "1", ended)
    store.create("1/results/x", b"x")
    done = umpteen("results", "job")
    assert "1/results/x" in done.stdout
    assert "the outputs of 0 are at /, the root folder" in done.stderr
    done = umpteen("results", "job", "copied")
    assert (umpteen.folder / "copied/1/results/x").read_text() == "x", done.stderr
    assert "the root folder" in umpteen("status", "job", "--verify").stderr


def test_job_that_is_named_as_our_own_folder_is_refused(umpteen: Umpteen) -> None:
    assert umpteen("run", "true", "--name", ".umpteen").returncode == 2


def test_hand_ins_are_not_for_others_to_write_whatever_the_umask(umpteen: Umpteen) -> None:
    before = os.umask(0o002)
    try:
        assert umpteen("run", "true").returncode == 0
    finally:
        os.umask(before)
    store = Path(umpteen.folder / "umpteen-results/true/.umpteen")
    for path in [*store.glob("handed/*"), *store.glob("tasks/*"), store / "job.json"]:
        assert not path.stat().st_mode & 0o022, path
