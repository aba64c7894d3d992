"""A runner that cannot live: its last line is told wherever somebody looks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import SOURCE, Umpteen
from tests.support.wait import wait_until

PROGRAM = """import sys
sys.path[:] = [{packages!r}] + [path for path in sys.path if path != {source!r}]
from umpteen.cli.main import main
main()
"""
WHY = "RuntimeError: the module that it needs is broken"
DEAD = f"trouble   its runner has ended: {WHY}"


class Broken:
    """The command with a runner that dies while it is loaded."""

    def __init__(self, umpteen: Umpteen, packages: Path) -> None:
        self.umpteen = umpteen
        self.program = PROGRAM.format(packages=str(packages), source=str(SOURCE))
        shutil.copytree(SOURCE / "umpteen", packages / "umpteen")
        needed = packages / "umpteen/runner/dispatcher.py"
        raising = WHY.replace(": ", "('") + "')"
        needed.write_text(f"{needed.read_text()}\nraise {raising}\n")

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", self.program, *arguments], cwd=self.umpteen.folder,
            env=self.umpteen.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip


@pytest.fixture
def broken(umpteen: Umpteen, tmp_path: Path) -> Broken:
    return Broken(umpteen, tmp_path / "packages")


def test_death_is_told_by_run(broken: Broken) -> None:
    done = broken("run", "echo 1", "--name", "job")
    assert done.returncode == 3
    error = f"error: the runner died 5 times: {WHY}\n\nhint: run it again to go on\n"
    assert done.stderr.endswith(error)
    assert "Traceback" not in done.stderr
    done = broken("run", "echo 1", "--name", "other", "--json")
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["message"] == f"the runner died 5 times: {WHY}"


def test_death_of_a_detached_runner_is_told_by_who_looks(broken: Broken, umpteen: Umpteen) -> None:
    assert broken("run", "echo {x}", "x=1..3", "--name", "job", "--detach").returncode == 0
    wait_until(lambda: "unfinished" in umpteen("status", "job").stdout)
    assert DEAD in umpteen("status", "job").stdout
    assert DEAD in umpteen("why", "job", "1").stdout
    assert json.loads(umpteen("status", "job", "--json").stdout)["trouble"].endswith(WHY)
    assert json.loads(umpteen("why", "job", "1", "--json").stdout)["death"].endswith(WHY)
    assert WHY in broken("collect", "job").stderr
    assert umpteen("collect", "job").returncode == 0
    assert "trouble" not in umpteen("status", "job").stdout


def test_death_of_a_batch_is_no_failure_of_a_task(broken: Broken, umpteen: Umpteen) -> None:
    runs = [{"cmd": "true", "remote_output_path": "out/0"}]
    umpteen.write("b.json", json.dumps({"remote_output_path": "out", "runs": runs}))
    done = broken("batch", "b.json", "--strict")
    assert (done.returncode, WHY in done.stderr) == (70, True), done.stderr
