"""What tasks start in sessions of their own, with no mark of ours left on them, is ended, too."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.processes import find_runners
from tests.support.wait import wait_until


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> Iterator[str]:
    """An argument of `sleep` that nobody else has; what still has it at the end is killed."""
    found = f"600.{os.getpid()}{abs(hash(request.node.name)) % 10**6}"
    yield found
    for pid in list_sleepers(found):
        os.kill(pid, signal.SIGKILL)


def list_sleepers(seconds: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == f"sleep\0{seconds}\0".encode():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def kill_runner(umpteen: Umpteen) -> None:
    os.kill(find_runners(umpteen)[0], signal.SIGKILL)


def kill_runner_and_lanes(umpteen: Umpteen) -> None:
    for pid in find_runners(umpteen):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_runner, kill_runner_and_lanes])
@pytest.mark.parametrize("goes_on", [True, False])
def test_descendant_without_a_mark_is_ended_after_a_kill(
    umpteen: Umpteen, seconds: str, kill: Callable[[Umpteen], None], *, goes_on: bool
) -> None:
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        pytest.skip("this kernel does not tell a process of its children")
    if goes_on:
        umpteen.write("go", "")
    task = (
        f"env -i setsid sh -c 'echo > up; exec sleep {seconds}' & while [ ! -e up ]; do sleep 0.05;"
        " done; [ ! -e go ] || sleep 600"
    )
    umpteen.write("job.json", json_of(["[ -e once ] || sleep 600", task]))
    assert umpteen("run", "job.json", "--slots", "2", "--detach").returncode == 0
    [sleeper] = wait_until(lambda: list_sleepers(seconds))
    if not goes_on:
        told = f"[{sleeper}, "
        wait_until(lambda: any(told in p.read_text() for p in umpteen.leases.glob("*/strays")))
    kill(umpteen)
    umpteen.write("once", "")
    umpteen.write("job.json", json_of(["true", "true"]))
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    assert list_sleepers(seconds) == []


def json_of(commands: list[str]) -> str:
    return json.dumps({"name": "job", "tasks": commands})
