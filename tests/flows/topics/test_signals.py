"""Signals that somebody hands on, repeats, or sends at a bad time."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.flows.verbs.test_batch import write_batch
from tests.support.command import Umpteen
from tests.support.processes import list_processes
from tests.support.store import list_records
from tests.support.wait import wait_until

# Saves what it has once there is a file `go`, and looks for that no more often than a kill takes.
SAVES = (
    "trap 'touch asked; until [ -e go ]; do sleep 0.3; done; echo saved > saved; exit 0' TERM;"
    " touch begun; while :; do sleep 0.02; done"
)


def signal_twice(
    umpteen: Umpteen, running: subprocess.Popen[str], number: int, gap_s: float
) -> tuple[int, str]:
    """The exit code, and what was said, where the same signal comes again so much later."""
    wait_until((umpteen.folder / "begun").exists)
    running.send_signal(number)
    time.sleep(gap_s)
    running.send_signal(number)
    wait_until((umpteen.folder / "asked").exists)
    umpteen.write("go", "")
    _, said = running.communicate(timeout=60)
    assert not list_processes(umpteen)
    return running.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("gap_s", [0, 0.005, 0.3])
def test_signals_that_come_twice_came_once_for_a_run(
    umpteen: Umpteen, number: int, gap_s: float
) -> None:
    umpteen.write("job.txt", SAVES + "\n")
    code, said = signal_twice(umpteen, umpteen.start("run", "job.txt"), number, gap_s)
    assert code == 130, said
    assert "ending what runs; once more" in said
    assert "at once\nending" not in said
    assert (umpteen.folder / "saved").exists(), said
    assert [r["reason"] for r in list_records(umpteen.store())] == ["interrupted"]


@pytest.mark.parametrize("flags", [[], ["--strict"]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_come_twice_came_once_for_a_batch(
    umpteen: Umpteen, number: int, flags: list[str]
) -> None:
    batch = write_batch(umpteen, "true", SAVES, "touch third", nprocs=1)
    code, said = signal_twice(umpteen, umpteen.start("batch", batch, *flags), number, 0.1)
    assert code == 128 + number, said
    assert said.endswith("interrupted: 2 of its tasks left; the same command goes on\n")
    assert (umpteen.folder / "saved").exists()
    assert not (umpteen.folder / "third").exists()


def test_signals_while_a_command_is_loaded_end_it_without_a_traceback(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "true\n")
    for delay_ms in range(30, 200, 12):  # whatever it does by then
        running = umpteen.start("run", "job.txt", "--dry-run")
        time.sleep(delay_ms / 1000)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
        # Until it calls us, Python has words of its own.
        assert "in run_program" not in said, f"after {delay_ms} ms: {said}"
        assert "cli/group.py" not in said, f"after {delay_ms} ms: {said}"
