"""Several starts of one batch: a task that kills its runner, and a start on another machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.wait import wait_until

KILLER = """import contextlib, os, time
token = os.environ["UMPTEEN_RUNNER"].encode()
time.sleep(0.2)
for pid in filter(str.isdigit, os.listdir("/proc")):
    with contextlib.suppress(OSError):  # others come and go
        if b"token=" + token in open(f"/proc/{pid}/cmdline", "rb").read():
            os.kill(int(pid), 9)
time.sleep(60)
"""


def store_of(umpteen: Umpteen, *commands: str) -> Path:
    """A job whose batch has been handed in and then started by nobody we know of."""
    (umpteen.folder / "job.json").write_text(json.dumps({"tasks": list(commands)}))
    assert umpteen("run", "job.json", "-q").returncode == 0
    store = umpteen.folder / "umpteen-results" / "job"
    [records] = (store / ".umpteen/records/1").iterdir()
    lines = records.read_text().splitlines()
    foreign = {**json.loads(lines[0]), "machine": "elsewhere"}
    records.rename(records.with_name("1-abcdef.jsonl")).write_text(json.dumps(foreign) + "\n")
    return store


def read_events(store: Path) -> list[dict[str, object]]:
    [records] = (store / ".umpteen/records/1").glob("2-*.jsonl")
    return [json.loads(line) for line in records.read_text().splitlines()]


def test_task_that_kills_its_runner_fails_alone(umpteen: Umpteen) -> None:
    (umpteen.folder / "killer.py").write_text(KILLER)
    kill = [sys.executable, "killer.py"]
    commands = [{"command": "sleep 0.4"} for _ in range(5)]
    tasks = [*commands[:2], {"name": "killer", "command": kill}, *commands[2:]]
    (umpteen.folder / "job.json").write_text(json.dumps({"tasks": tasks}))

    done = umpteen("run", "job.json", "--slots", "3")

    assert done.returncode == 1, done.stderr
    assert "killer" in done.stderr
    assert "killed its runner" in done.stderr
    assert "5 succeeded, 1 failed" in done.stderr


def test_start_after_one_elsewhere_that_ends_moves_its_outputs_in_place(umpteen: Umpteen) -> None:
    store = store_of(umpteen, "echo $UMPTEEN_ATTEMPT")
    earlier = store / ".umpteen/records/1/1-abcdef.jsonl"
    again = umpteen.start("batch", store / ".umpteen/batches/1.json")
    wait_until(lambda: list(earlier.parent.glob("2-*.jsonl")))
    with earlier.open("a") as file:
        file.write('{"event":"end","left":1,"states":{}}\n')

    _, said = again.communicate(timeout=60)

    assert again.returncode == 0, said
    assert (store / "0/stdout").read_text() == "1\n"
    assert any(event.get("moved") == 0 for event in read_events(store))
    assert umpteen("logs", "job", "0").stdout == "1\n"


def test_start_after_one_elsewhere_that_may_live_overwrites_nothing(umpteen: Umpteen) -> None:
    store = store_of(umpteen, "echo again")
    (store / "0/stdout").write_text("of the earlier start\n")

    done = umpteen("batch", store / ".umpteen/batches/1.json")

    assert done.returncode == 0, done.stderr
    assert (store / "0/stdout").read_text() == "of the earlier start\n"
    [record] = (event for event in read_events(store) if "task" in event)
    assert (store / "0" / str(record["outputs"]) / "stdout").read_text() == "again\n"
    assert umpteen("logs", "job", "0").stdout == "again\n"


def test_records_of_another_boot_count_as_far_as_they_were_synced(umpteen: Umpteen) -> None:
    (umpteen.folder / "job.json").write_text('{"tasks": ["echo a >> ran", "echo b >> ran"]}')
    assert umpteen("run", "job.json", "-q", "--slots", "1").returncode == 0
    [records] = (umpteen.folder / "umpteen-results/job/.umpteen/records/1").iterdir()
    opened, first, second, *_ = records.read_text().splitlines(keepends=True)
    opened = json.dumps({**json.loads(opened), "boot": "an earlier one"}) + "\n"
    synced = json.dumps({"event": "synced", "upto": len(opened + first)}, separators=(",", ":"))
    records.write_text(opened + first + second + synced + "\n")

    done = umpteen("run", "job.json")

    assert "1 done before, 1 not finished before" in done.stderr
    assert (umpteen.folder / "ran").read_text() == "a\nb\nb\n"


def test_batch_that_was_closed_does_not_start(umpteen: Umpteen) -> None:
    store = store_of(umpteen, "echo again >> ran")
    (umpteen.folder / "ran").unlink()
    (store / ".umpteen/records/1/closed").touch()

    assert umpteen("batch", store / ".umpteen/batches/1.json").returncode == 0
    assert not (umpteen.folder / "ran").exists()


@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--strict"], 1)])
def test_batch_under_the_cancel_mark_is_recorded_as_cancelled(
    umpteen: Umpteen, flags: list[str], code: int
) -> None:
    store = store_of(umpteen, "echo again >> ran")
    earlier = store / ".umpteen/records/1/1-abcdef.jsonl"
    with earlier.open("a") as file:
        file.write('{"event":"end","left":1,"states":{}}\n')
    (umpteen.folder / "ran").unlink()
    (store / ".umpteen/cancel").write_text('{"upto":1}')

    assert umpteen("batch", store / ".umpteen/batches/1.json", *flags).returncode == code
    assert not (umpteen.folder / "ran").exists()
    assert [e["state"] for e in read_events(store) if "task" in e] == ["cancelled"]


@pytest.mark.parametrize("slots", ["1", "3"])
def test_task_that_kills_its_lane_at_once_fails_alone(umpteen: Umpteen, slots: str) -> None:
    command = "case {n} in 2) kill -9 $PPID; sleep 1;; esac"
    done = umpteen("run", command, "n=1..4", "--name", "job", "--slots", slots)
    assert done.returncode == 1, done.stderr
    assert "killed its runner" in done.stderr
    assert "3 succeeded, 1 failed" in done.stderr


def test_task_that_kills_its_runner_and_ends_at_once_fails(umpteen: Umpteen) -> None:
    command = "kill -9 $(sed 's/.*) . //; s/ .*//' /proc/$PPID/stat)"
    done = umpteen("run", command, "--name", "job")
    assert done.returncode == 1, done.stderr
    assert "killed its runner" in done.stderr
