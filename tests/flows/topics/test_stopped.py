"""A part of a runner that a signal stopped: it is said, and nothing waits for it for ever."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.processes import find_runners, list_processes
from tests.support.wait import wait_until


def start(umpteen: Umpteen) -> tuple[int, list[int]]:
    """The runner and the lanes of a job of which two tasks run."""
    umpteen.write("task.sh", "touch began.$1; [ -e go ] || sleep 600")
    done = umpteen(*RUN, "--detach")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: len(list(umpteen.folder.glob("began.*"))) == 2)
    wait_until(lambda: list(umpteen.store().glob(".umpteen/running/*/*")))
    runner, *lanes = find_runners(umpteen)
    return runner, lanes


RUN = ["run", "bash task.sh {n}", "n=1..3", "--name", "job", "--slots", "2"]


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: "\nState:\tT" in Path(f"/proc/{pid}/status").read_text())


def test_lane_that_was_stopped_is_told_and_can_be_cancelled(umpteen: Umpteen) -> None:
    _, lanes = start(umpteen)
    stop(lanes[0])
    assert f"kill -CONT {lanes[0]} lets it go on" in umpteen("status", "job").stdout
    done = umpteen("cancel", "job")
    assert (done.returncode, "3 cancelled" in done.stderr) == (0, True), done.stderr
    assert not list_processes(umpteen)


@pytest.mark.parametrize(
    "verb", [RUN, ["cancel", "job"], ["rm", "job", "--yes"], ["collect", "job"]]
)
def test_lane_that_was_stopped_under_a_dead_runner_is_told_and_ended(
    umpteen: Umpteen, verb: list[str]
) -> None:
    runner, lanes = start(umpteen)
    stop(lanes[0])
    os.kill(runner, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{runner}/exe"))
    assert f"kill -CONT {lanes[0]}" in umpteen("status", "job").stdout
    umpteen.write("go", "")
    done = umpteen(*verb, timeout_s=40)
    assert done.returncode == 0, done.stderr
    assert not list_processes(umpteen)


def test_lane_that_is_let_go_on_under_a_dead_runner_ends(umpteen: Umpteen) -> None:
    runner, lanes = start(umpteen)
    stop(lanes[0])
    os.kill(runner, signal.SIGKILL)
    os.kill(lanes[0], signal.SIGCONT)
    wait_until(lambda: not list_processes(umpteen))
    assert "trouble" not in umpteen("status", "job").stdout
