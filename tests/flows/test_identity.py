"""One store, called by several names: nothing runs beside its earlier self, and all of it ends."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.sweep import list_processes
from tests.support.wait import wait_until

# Holds a lock of its own while it runs, and says so where another has it.
TASK = """exec 9>ledger.{n}
flock -n 9 || echo {n} >> beside
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
        pid
        for pid in list_processes(umpteen)
        if b"umpteen.runner" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def list_tasks(umpteen: Umpteen) -> list[int]:
    return [
        pid
        for pid in list_processes(umpteen)
        if b"task.sh" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


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
    done = umpteen(*verb, other_name(umpteen, how))
    assert done.returncode == 0, done.stderr
    assert list_tasks(umpteen) == []


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
