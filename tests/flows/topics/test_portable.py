"""The same without what only Linux has: forced by UMPTEEN_PORTABLE, as on macOS and old kernels."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.support.command import Umpteen
from tests.support.processes import list_processes
from tests.support.store import list_records, read_record
from tests.support.wait import wait_until
from umpteen.runner.launch import build_runner_command

PORTABLE = {"UMPTEEN_PORTABLE": "1"}


def test_portable_run_keeps_outputs_and_results(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "".join(f"echo {n} | tee $RESULTS_DIR/n\n" for n in range(20)))
    done = umpteen("run", "job.txt", "--slots", "3", env=PORTABLE)
    assert done.returncode == 0, done.stderr
    for n in range(20):
        assert (umpteen.store() / f"{n}/stdout").read_text() == f"{n}\n"
        assert (umpteen.store() / f"{n}/results/n").read_text() == f"{n}\n"


@pytest.mark.parametrize(
    ("command", "code"), [("exit 3", 3), ("no-such-program here", 127), ("kill -15 $$", None)]
)
def test_portable_run_records_how_a_task_ended(
    umpteen: Umpteen, command: str, code: int | None
) -> None:
    done = umpteen("run", command, "--name", "job", env=PORTABLE)
    assert done.returncode == 1, done.stderr
    assert read_record(umpteen.store()).get("exit_code") == code


def test_portable_missing_folder_is_recorded(umpteen: Umpteen) -> None:
    umpteen.write("job.yaml", "cwd: nowhere\ntasks: [pwd]\n")
    done = umpteen("run", "job.yaml", env=PORTABLE)
    assert done.returncode == 1, done.stderr
    assert "nowhere" in read_record(umpteen.store())["reason"]


def test_portable_timeout_ends_the_task_and_its_group(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "sleep 600 & sleep 600\n")
    done = umpteen("run", "job.txt", "--timeout", "0.3s", env=PORTABLE)
    assert done.returncode == 1, done.stderr
    assert read_record(umpteen.store())["state"] == "timed_out"
    wait_until(lambda: not list_processes(umpteen), 5)


def test_portable_timeout_kills_what_ignores_being_asked(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "trap '' TERM; while :; do sleep 0.05; done\n")
    done = umpteen("run", "job.txt", "--timeout", "0.2s", "--grace", "0.3s", env=PORTABLE)
    record = read_record(umpteen.store())
    assert done.returncode == 1, done.stderr
    assert (record["state"], record["signal"]) == ("timed_out", 9)


def test_portable_interrupt_ends_everything_and_goes_on_later(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "[ -e go ] || { touch begun; sleep 600 & wait; }\n")
    watcher = umpteen.start("run", "job.txt", env=PORTABLE)
    wait_until((umpteen.folder / "begun").exists)
    os.killpg(watcher.pid, signal.SIGINT)
    _, said = watcher.communicate(timeout=30)
    assert watcher.returncode == 130, said
    assert not list_processes(umpteen)
    umpteen.write("go", "")
    assert umpteen("run", "job.txt", env=PORTABLE).returncode == 0
    states = [record["state"] for record in list_records(umpteen.store())]
    assert states == ["waiting", "succeeded"]


def test_portable_killed_runner_is_made_up_for(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "echo a >> ran\n[ -e once ] || { touch once; kill -9 $PPID; }\n")
    done = umpteen("run", "job.txt", "--slots", "1", env=PORTABLE)
    assert done.returncode == 0, done.stderr
    states = sorted((r["task"], r["state"]) for r in list_records(umpteen.store()))
    assert states == [(0, "succeeded"), (1, "succeeded")]


@pytest.mark.parametrize("environment", [{}, PORTABLE])
def test_portable_runner_needs_only_the_standard_library(
    umpteen: Umpteen, environment: dict[str, str]
) -> None:
    runs = [{"cmd": f"echo {n}", "remote_output_path": f"out/{n}"} for n in range(3)]
    umpteen.write("b.json", json.dumps({"remote_output_path": "out", "runs": runs}))
    command = build_runner_command()
    assert command[:3] == [sys.executable, "-S", "-E"]
    done = subprocess.run(
        [*command, "b.json", "--strict"], cwd=umpteen.folder, capture_output=True, text=True,
        env=umpteen.environment | environment, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert [(umpteen.folder / f"out/{n}/stdout").read_text() for n in range(3)] == [
        "0\n", "1\n", "2\n"
    ]  # fmt: skip
