"""One store, called by several names: nothing runs beside its earlier self, and all of it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.processes import list_processes
from tests.support.wait import wait_until

# Holds a lock of its own while it runs, and says so where another has it.
TASK = """exec 9>ledger.{n}
flock -n 9 || echo {n} >> beside
echo {n} > $RESULTS_DIR/kept
touch began.{n}
[ -e quick ] || sleep 600
"""


@pytest.fixture
def killed(umpteen: Umpteen) -> Callable[[Path], None]:
    """Two tasks that run at that address, and whose runner and lanes were killed."""

    def start(results: Path) -> None:
        umpteen.write("task.sh", TASK.replace("{n}", "$1"))
        done = umpteen(*run("--results", results, "--detach"))
        assert done.returncode == 0, done.stderr
        wait_until(lambda: len(list(umpteen.folder.glob("began.*"))) == 2)
        for pid in list_runner(umpteen):
            os.kill(pid, signal.SIGKILL)
        umpteen.write("quick", "")

    return start


def run(*flags: str | Path) -> list[str | Path]:
    return ["run", "bash task.sh {n}", "n=1,2", "--name", "job", "--slots", "2", *flags]


def list_runner(umpteen: Umpteen) -> list[int]:
    """The runner and its lanes."""
    return [
        pid for pid, command in list_processes(umpteen).items() if b"umpteen.runner.main" in command
    ]


def list_tasks(umpteen: Umpteen) -> list[int]:
    return [pid for pid, command in list_processes(umpteen).items() if b"task.sh" in command]


def other_name(umpteen: Umpteen, how: str) -> Path:
    """Another address of the store at `real`."""
    real, other = umpteen.folder / "real", umpteen.folder / "other"
    if how == "link":
        other.symlink_to("real")
    else:
        real.rename(other)
    return other


@pytest.mark.parametrize("how", ["link", "moved"])
def test_run_by_another_name_ends_what_a_dead_runner_left(
    umpteen: Umpteen, killed: Callable[[Path], None], how: str
) -> None:
    killed(umpteen.folder / "real")
    other = other_name(umpteen, how)
    done = umpteen(*run("--results", other))
    assert done.returncode == 0, done.stderr
    assert "2 succeeded" in done.stderr
    assert not (umpteen.folder / "beside").exists()
    assert list_tasks(umpteen) == []


@pytest.mark.parametrize("how", ["link", "moved"])
@pytest.mark.parametrize("verb", [["cancel"], ["rm", "--yes"]])
def test_verb_by_another_name_ends_what_a_dead_runner_left(
    umpteen: Umpteen, killed: Callable[[Path], None], how: str, verb: list[str]
) -> None:
    killed(umpteen.folder / "real")
    other = other_name(umpteen, how)
    assert list(other.glob(".umpteen/scratch/*/*/kept"))
    done = umpteen(*verb, other)
    assert done.returncode == 0, done.stderr
    assert list_tasks(umpteen) == []
    assert not list(other.glob(".umpteen/scratch/*"))
    assert not list(other.glob(".umpteen/running/*"))


def test_cancel_by_another_name_ends_what_runs(umpteen: Umpteen) -> None:
    umpteen.write("task.sh", TASK.replace("{n}", "$1"))
    assert umpteen(*run("--results", umpteen.folder / "real", "--detach")).returncode == 0
    wait_until(lambda: len(list(umpteen.folder.glob("began.*"))) == 2)
    done = umpteen("cancel", other_name(umpteen, "link"))
    assert (done.returncode, "2 cancelled" in done.stderr) == (0, True), done.stderr
    assert list_tasks(umpteen) == []


def test_copy_of_a_job_that_runs_is_a_job_of_its_own(umpteen: Umpteen) -> None:
    umpteen.write("task.sh", "touch began.$1; [ $2 = copy ] || sleep 600")
    command = ["run", "bash task.sh {n} $(basename $(dirname $UMPTEEN_OUTPUT))", "n=1,2"]
    command += ["--name", "job", "--slots", "2", "--results"]
    assert umpteen(*command, umpteen.folder / "real", "--detach").returncode == 0
    wait_until(lambda: len(list(umpteen.folder.glob("began.*"))) == 2)
    shutil.copytree(umpteen.folder / "real", umpteen.folder / "copy")
    running = list_tasks(umpteen)

    shown = umpteen("status", "./copy")
    done = umpteen(*command, umpteen.folder / "copy", timeout_s=30)

    assert "running" not in shown.stdout
    assert (done.returncode, "2 succeeded" in done.stderr) == (0, True), done.stderr
    assert list_tasks(umpteen) == running  # those of the one that was copied
    assert umpteen("cancel", "./real").returncode == 0


def test_copy_of_a_job_that_ran_is_cancelled_at_once(umpteen: Umpteen) -> None:
    umpteen.write("task.sh", TASK.replace("{n}", "$1"))
    assert umpteen(*run("--results", umpteen.folder / "real", "--detach")).returncode == 0
    wait_until(lambda: len(list(umpteen.folder.glob("began.*"))) == 2)
    shutil.copytree(umpteen.folder / "real", umpteen.folder / "copy")
    assert umpteen("cancel", "./real").returncode == 0  # its lease is gone with it
    done = umpteen("cancel", "./copy", timeout_s=30)
    assert (done.returncode, "2 cancelled" in done.stderr) == (0, True), done.stderr


def start_job(umpteen: Umpteen, *flags: str) -> Path:
    """A job of which some tasks have ended; its folder."""
    umpteen.write("task.sh", "[ $1 -lt 3 ] || sleep 600")
    done = umpteen(
        *["run", "bash task.sh {n}", "n=1..4", "--name", "job", "--slots", "2", "--detach", *flags]
    )
    assert done.returncode == 0, done.stderr
    wait_until(lambda: len(read_running(umpteen.store())) == 2)
    return umpteen.store()


def read_running(store: Path) -> list[object]:
    files = list((store / ".umpteen/running").glob("*/*.json"))
    rows: list[object] = json.loads(files[0].read_text())["running"] if files else []
    counted = sum(b'"succeeded"' in f.read_bytes() for f in store.glob(".umpteen/records/*/*"))
    return rows if counted and store.joinpath("n=2/status_code").exists() else []


def lose(store: Path, how: str) -> Path | None:
    """Take a store away; where it is now."""
    if how == "removed":
        while store.exists():
            shutil.rmtree(store, ignore_errors=True)
        return None
    moved = store.with_name("moved")
    store.rename(moved)
    if how == "replaced":
        shutil.copytree(moved, store)
    return moved


WORDS = {
    "removed": "was moved or removed",
    "moved": "was moved or removed",
    "replaced": "was replaced by another folder",
}


@pytest.mark.parametrize("how", WORDS)
def test_store_that_is_lost_ends_its_runner_and_who_watches(umpteen: Umpteen, how: str) -> None:
    store = start_job(umpteen)
    collecting = umpteen.start("collect", "job")
    assert collecting.stderr
    assert "job" in collecting.stderr.readline()  # it looks
    [lease] = umpteen.leases.glob("*/complaints")
    moved = lose(store, how)
    _, said = collecting.communicate(timeout=30)
    assert (collecting.returncode, WORDS[how] in said) == (3, True), said
    assert "shared" not in said
    wait_until(lambda: not list_runner(umpteen))
    assert WORDS[how] in lease.read_text()
    assert list_tasks(umpteen) == []
    assert (store.exists(), how) in ((False, "removed"), (False, "moved"), (True, "replaced"))
    if moved:
        umpteen.write("task.sh", "true")
        done = umpteen("collect", moved)
        assert (done.returncode, "4 succeeded" in done.stderr) == (0, True), done.stderr
        assert not list(moved.glob(".umpteen/scratch/*"))
        assert not list(moved.glob(".umpteen/running/*/*"))
        assert all((moved / f"n={n}/status_code").exists() for n in range(1, 5))


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_store_that_is_lost_ends_a_run_that_is_watched(umpteen: Umpteen, how: str) -> None:
    umpteen.write("task.sh", "touch began.$1; sleep 600")
    running = umpteen.start("run", "bash task.sh {n}", "n=1,2", "--name", "job", "--slots", "2")
    wait_until(lambda: len(list(umpteen.folder.glob("began.*"))) == 2)
    lose(umpteen.store(), how)
    _, said = running.communicate(timeout=30)
    assert (running.returncode, WORDS[how] in said) == (3, True), said
    assert list_tasks(umpteen) == []
