"""What every executor does. A new executor is one more line in EXECUTORS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.store import list_records
from tests.support.wait import wait_until
from umpteen.errors import SettingsError
from umpteen.executors.base import BatchRequest, BatchState, Executor, SubmitRequest
from umpteen.executors.local import LocalExecutor
from umpteen.executors.own_process import OwnProcess
from umpteen.executors.ray.connection import DRIVERS
from umpteen.executors.registry import open_executor
from umpteen.formats import read_job
from umpteen.formats.flags import JobFlags
from umpteen.planning.batch_files import build_batches
from umpteen.store.address import open_store
from umpteen.store.identity import identify
from umpteen.store.layout import CANCEL, batch_key
from umpteen.submission.job_folder import create_job
from umpteen.submission.settings import resolve_settings
from umpteen.verbs.run import plan_run

# The name that a user gives; options of those that need some are below.
EXECUTORS = ["local", "dask", "ray", "slurm", "slurm_fake", "ssh"]

# Handles of a place that does not answer here.
FOREIGN = {
    "local": "another-machine/boot/" + "0" * 12,
    "dask": "tcp://127.0.0.1:1 000000000000/1",
    "ray": "127.0.0.1:1 000000000000/1",
    "slurm": "another-cluster/1/0/000000000000",
    "ssh": "h1,h2 another-machine/boot/" + "0" * 12,
}

Open = Callable[[], Executor]

# Another process, which knows the handles and the executor's name, and no options.
ELSEWHERE = """
import json, sys
from umpteen.executors.registry import ExecutorRegistry
name, call, *handles = sys.argv[1:]
with ExecutorRegistry() as executors:
    print(json.dumps(getattr(executors.open_any(name), call)(handles)))
"""


@pytest.fixture(params=EXECUTORS)
def open_one(request: pytest.FixtureRequest) -> Iterator[Open]:
    """`open_one()` is a new executor object, as another process would have it."""
    opened: list[Executor] = []
    options = {}
    if request.param == "dask":
        options["scheduler_address"] = request.getfixturevalue("dask_cluster").address
    if request.param == "ray":
        options["address"] = request.getfixturevalue("ray_cluster").address
    if request.param == "ssh":
        hosts = request.getfixturevalue("hosts")
        folder = str(request.getfixturevalue("tmp_path"))  # that commands are begun in
        options["hosts"] = [hosts.open(name, sees=folder).name for name in ("h1", "h2")]
    if request.param in ("slurm", "slurm_fake"):
        request.getfixturevalue(request.param)

    def open_one() -> Executor:
        opened.append(open_executor(request.param.removesuffix("_fake"), options))
        return opened[-1]

    yield open_one
    for driver in set(DRIVERS._drivers.values()):  # each is connected until this process ends
        driver.kill()
    DRIVERS._drivers.clear()
    for executor in opened:
        runs = executor.own_runs
        runs.stop(at_once=True)
        if isinstance(runs, OwnProcess):
            runs.process.wait(timeout=20)
        executor.close()


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`prepare("true", "false")` is the address of a store with a batch for each command."""
    monkeypatch.setenv("UMPTEEN_LEASES", str(tmp_path / "leases"))
    monkeypatch.chdir(tmp_path)

    def prepare(*commands: str) -> str:
        flags = JobFlags(slots=8, address=str(tmp_path / "store"))
        (tmp_path / "job.txt").write_text("\n".join(commands))
        job = resolve_settings(read_job(["job.txt"], flags=flags), str(tmp_path))
        store = open_store(job.settings.address)
        create_job(store, job)
        plan, _ = plan_run(job)
        for number, index in enumerate(plan.to_run, 1):
            plan.to_run = [index]
            for new, content in build_batches(plan, store.address, os.getcwd(), number, {}, 0.0):
                store.create(batch_key(new.handed.batch), content)
        return store.address

    return prepare


def make_load(executor: Executor, address: str, *batches: str) -> SubmitRequest:
    """These batches of a store; three may run at once."""
    slots = 0 if executor.abilities.is_engine else 3
    return SubmitRequest(
        identify(open_store(address)),
        [BatchRequest(batch) for batch in batches],
        slots,
        mark=os.urandom(6).hex(),
    )


def submit(executor: Executor, address: str, *batches: str) -> list[str]:
    """The handles of these batches, in their order."""
    handles = executor.submit(make_load(executor, address, *batches))
    return [handles[batch] for batch in batches]


def wait_for_end(executor: Executor, handles: Sequence[str]) -> None:
    """Until nothing is at them any more; what has ended may also be forgotten."""
    wait_until(
        lambda: set(executor.poll(handles).values()) <= {BatchState.ENDED, BatchState.UNKNOWN}
    )


def ask_elsewhere(name: str, call: str, handles: Sequence[str]) -> Any:
    """What another process is answered."""
    command = [sys.executable, "-c", ELSEWHERE, name, call, *handles]
    return json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout
    )


class TestExecutor:
    def test_submit_runs_every_batch(self, open_one: Open, prepare: Callable[..., str]) -> None:
        address = prepare("echo a", "echo b; exit 3")
        executor = open_one()
        handles = executor.submit(make_load(executor, address, "1", "2"))
        wait_for_end(executor, list(handles.values()))
        assert set(handles) == {"1", "2"}
        assert (Path(address) / "0/stdout").read_text() == "a\n"
        assert (Path(address) / "1/status_code").read_text() == "3"

    def test_submit_runs_no_other_batch(self, open_one: Open, prepare: Callable[..., str]) -> None:
        address = prepare("echo a", "echo b", "echo c")
        executor = open_one()
        handles = executor.submit(make_load(executor, address, "1", "3"))
        wait_for_end(executor, list(handles.values()))
        assert {record["task"] for record in list_records(Path(address))} == {0, 2}

    def test_poll_says_running_until_it_ended(
        self, open_one: Open, prepare: Callable[..., str], tmp_path: Path
    ) -> None:
        address = prepare("touch begun; until [ -e go ]; do sleep 0.05; done")
        executor = open_one()
        handles = submit(executor, address, "1")
        assert set(executor.poll(handles).values()) <= {BatchState.QUEUED, BatchState.RUNNING}
        wait_until((tmp_path / "begun").exists)
        assert executor.poll(handles) == {handles[0]: BatchState.RUNNING}
        (tmp_path / "go").touch()
        wait_for_end(executor, handles)

    def test_poll_of_what_has_ended_says_so(
        self, open_one: Open, prepare: Callable[..., str]
    ) -> None:
        address = prepare("echo a")
        executor = open_one()
        handles = submit(executor, address, "1")
        wait_for_end(executor, handles)
        assert executor.poll(handles) == {handles[0]: BatchState.ENDED}

    def test_handles_mean_the_same_to_another_process(
        self, open_one: Open, prepare: Callable[..., str], tmp_path: Path
    ) -> None:
        address = prepare("touch begun; until [ -e go ]; do sleep 0.05; done")
        handles = list((first := open_one()).submit(make_load(first, address, "1")).values())
        wait_until((tmp_path / "begun").exists)
        assert open_one().poll(handles) == {handles[0]: BatchState.RUNNING}
        (tmp_path / "go").touch()
        wait_for_end(open_one(), handles)

    def test_handles_stand_alone(
        self, open_one: Open, prepare: Callable[..., str], tmp_path: Path
    ) -> None:
        command = "trap 'exit 0' TERM; touch begun.{}; sleep 600 & wait"
        address = prepare(*map(command.format, "12"))
        executor = open_one()
        handles = submit(executor, address, "1", "2")
        wait_until(lambda: len(list(tmp_path.glob("begun.*"))) == 2)
        told = ask_elsewhere(executor.name, "poll", handles)
        assert told == dict.fromkeys(handles, "running")
        open_store(address).replace(CANCEL, b'{"upto":2}')
        ask_elsewhere(executor.name, "cancel", handles)
        wait_for_end(executor, handles)
        assert [record["state"] for record in list_records(Path(address))] == ["cancelled"] * 2
        assert set(ask_elsewhere(executor.name, "poll", handles).values()) <= {"ended", "unknown"}

    def test_close_lets_other_executors_go_on(
        self, open_one: Open, prepare: Callable[..., str], tmp_path: Path
    ) -> None:
        address = prepare("touch begun; until [ -e go ]; do sleep 0.05; done")
        executor = open_one()
        handles = submit(executor, address, "1")
        wait_until((tmp_path / "begun").exists)
        (other := open_one()).poll(handles)
        other.close()
        assert open_one().poll(handles) == {handles[0]: BatchState.RUNNING}
        (tmp_path / "go").touch()
        wait_for_end(executor, handles)
        assert [record["state"] for record in list_records(Path(address))] == ["succeeded"]

    @pytest.mark.parametrize("call", ["cancel", "wake"])
    def test_cancel_mark_ends_the_tasks_kindly(
        self, open_one: Open, prepare: Callable[..., str], tmp_path: Path, call: str
    ) -> None:
        numbers = [str(number) for number in range(1, 4)]
        command = "trap 'echo asked; exit 0' TERM; touch begun.{}; sleep 600 & wait"
        address = prepare(*map(command.format, numbers))
        executor = open_one()
        handles = submit(executor, address, *numbers)
        wait_until(lambda: len(list(tmp_path.glob("begun.*"))) == 3)
        open_store(address).replace(CANCEL, b'{"upto":3}')
        getattr(open_one(), call)(handles)
        wait_for_end(executor, handles)
        assert [record["state"] for record in list_records(Path(address))] == ["cancelled"] * 3
        assert (Path(address) / "0/stdout").read_text() == "asked\n"

    def test_wake_without_a_mark_lets_all_go_on(
        self, open_one: Open, prepare: Callable[..., str], tmp_path: Path
    ) -> None:
        numbers = [str(number) for number in range(1, 6)]
        command = "touch begun.{}; until [ -e go ]; do sleep 0.05; done"
        address = prepare(*map(command.format, numbers))
        executor = open_one()
        handles = submit(executor, address, *numbers)
        wait_until(lambda: list(tmp_path.glob("begun.*")))
        open_one().wake(handles)
        (tmp_path / "go").touch()
        wait_for_end(executor, handles)
        assert [record["state"] for record in list_records(Path(address))] == ["succeeded"] * 5

    def test_cancel_of_what_has_ended_does_nothing(
        self, open_one: Open, prepare: Callable[..., str]
    ) -> None:
        address = prepare("echo a")
        executor = open_one()
        handles = submit(executor, address, "1")
        wait_for_end(executor, handles)
        executor.cancel(handles)
        assert [r["state"] for r in list_records(Path(address))] == ["succeeded"]

    def test_poll_of_a_foreign_handle_is_unknown(self, open_one: Open) -> None:
        executor = open_one()
        assert executor.poll([FOREIGN[executor.name]]) == {
            FOREIGN[executor.name]: BatchState.UNKNOWN
        }

    def test_poll_of_a_handle_that_nothing_is_known_of_is_not_running(
        self, open_one: Open, prepare: Callable[..., str]
    ) -> None:
        address = prepare("echo a")
        executor = open_one()
        (handle,) = submit(executor, address, "1")
        forgotten = handle.rpartition("/")[0] + "/999"
        assert executor.poll([forgotten])[forgotten] in (BatchState.ENDED, BatchState.UNKNOWN)
        wait_for_end(executor, [handle])

    def test_unknown_option_is_refused(self, open_one: Open) -> None:
        with pytest.raises(SettingsError, match="no option 'partytion'"):
            open_executor(open_one().name, {"partytion": "x"})


def test_open_executor_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        open_executor("locla", {})
    assert caught.value.hint == "did you mean 'local'?"


def test_open_executor_import_path_is_loaded() -> None:
    found = open_executor("umpteen.executors.local:LocalExecutor", {})
    assert isinstance(found, LocalExecutor)
    assert isinstance(open_executor("umpteen.executors.local.LocalExecutor", {}), LocalExecutor)
