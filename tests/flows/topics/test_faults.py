"""What goes wrong around a job: a stopped runner, a clock set back, a disk that refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clock import build_clock
from tests.support.command import Umpteen
from tests.support.processes import find_runners
from tests.support.store import list_records
from tests.support.wait import wait_until
from umpteen.system.host import read_machine
from umpteen.system.locks import leases_folder


def states(store: Path) -> list[str]:
    return [record["state"] for record in list_records(store)]


def test_stopped_runner_goes_on_where_it_was(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "\n".join(f"sleep 0.05; echo {n} >> ran" for n in range(20)))
    assert umpteen("run", "job.txt", "--slots", "2", "--detach").returncode == 0
    store = umpteen.store()
    wait_until(lambda: list_records(store))
    runners = find_runners(umpteen)
    for pid in runners:
        os.kill(pid, signal.SIGSTOP)
    try:
        shown = umpteen("status", "job").stdout
        assert "running" in shown
        assert "stopped" in shown
        joined = umpteen("run", "job.txt", "--dry-run").stdout  # nobody takes its tasks over
        assert "would run 0 of 20" in joined
    finally:
        for pid in runners:
            os.kill(pid, signal.SIGCONT)
    assert umpteen("collect", "job").returncode == 0
    assert len((umpteen.folder / "ran").read_text().split()) == 20
    assert states(store) == ["succeeded"] * 20


def test_clock_set_back_by_an_hour_changes_no_duration(
    umpteen: Umpteen, need: Callable[[str], str], tmp_path: Path
) -> None:
    library, is_back = tmp_path / "clock.so", tmp_path / "back"
    build_clock(need("cc"), library)
    environment = {
        "LD_PRELOAD": str(library),
        "CLOCK_SHIFT_S": "-3600",
        "CLOCK_SHIFT_FILE": str(is_back),
    }
    umpteen.write("job.txt", "until test -e go; do sleep 0.02; done\n" * 2 + "sleep 0.3\n" * 2)
    running = umpteen.start(
        "run", "job.txt", "--slots", "2", "--timeout", "50s", "--deadline", "10m", env=environment
    )
    store = umpteen.store()
    wait_until(lambda: find_runners(umpteen))
    wait_until(lambda: list(store.glob(".umpteen/running/*/*.json")))
    is_back.touch()
    (umpteen.folder / "go").touch()
    _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    records = list_records(store)
    assert [record["state"] for record in records] == ["succeeded"] * 4
    assert records[3]["start_s"] < records[0]["start_s"] - 3000  # so it was set back
    assert all(0 <= record["seconds"] < 50 for record in records)
    assert 0.3 <= records[3]["seconds"] < 10
    assert umpteen("status", "job").returncode == 0
    assert "4 are done" in umpteen("run", "job.txt", "--dry-run").stdout


@pytest.mark.root
def test_disk_made_read_only_in_the_middle_and_back(umpteen: Umpteen, own_disk: Path) -> None:
    wait = "until test -e go; do sleep 0.02; done; touch woke"
    umpteen.write("job.txt", "\n".join([wait, wait, *("echo x" for _ in range(20))]))
    running = umpteen.start("run", "job.txt", "--results", own_disk / "job", "--slots", "2")
    store = own_disk / "job"
    wait_until(lambda: list(store.glob(".umpteen/running/*/*.json")))
    # A mount with open files cannot be made read-only, but one on top of it can.
    subprocess.run(["mount", "--bind", own_disk, own_disk], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", own_disk], check=True)
    (umpteen.folder / "go").touch()
    wait_until((umpteen.folder / "woke").exists)
    subprocess.run(["umount", "--lazy", own_disk], check=True)
    _, said = running.communicate(timeout=90)
    assert running.returncode == 0, said
    assert states(store) == ["succeeded"] * 22


def take_records_away(umpteen: Umpteen, boot: str = "") -> None:
    """What a runner leaves whose disk took outputs and then no records."""
    (records,) = (umpteen.store() / ".umpteen/records/1").glob("*.jsonl")
    job = json.loads((umpteen.store() / ".umpteen/job.json").read_text())
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(line for line in lines if '"event":"start"' in line))
    lease = Path(leases_folder()) / records.stem.partition("-")[2]
    lease.mkdir(mode=0o700, parents=True)
    info = {"address": str(umpteen.store()), "boot": boot or read_machine().boot, "time": 1}
    (lease / "info.json").write_text(json.dumps({**info, "id": job["id"]}))
    (lease / "lock").touch()
    (lease / "kept.jsonl").write_text("".join(line for line in lines if '"task":' in line))


def test_successes_that_were_not_recorded_are_where_their_files_are_complete(
    umpteen: Umpteen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMPTEEN_LEASES", str(umpteen.leases))
    command = ("run", "echo {n} >> ran; exit $(( {n} == 4 ))", "n=1..4", "--name", "job")
    umpteen(*command)
    take_records_away(umpteen)
    (umpteen.store() / "n=2/status_code").unlink()
    done = umpteen(*command)
    assert done.returncode == 1, done.stderr
    assert "3 succeeded, 1 failed" in done.stderr
    assert sorted((umpteen.folder / "ran").read_text().split()) == list("122344")


@pytest.mark.parametrize("other", ["boot", "store"])
def test_successes_of_another_time_are_not_taken_for_those_of_now(
    umpteen: Umpteen, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMPTEEN_LEASES", str(umpteen.leases))
    command = ("run", "echo {n} >> ran", "n=1..2", "--name", "job")
    umpteen(*command)
    take_records_away(umpteen, boot="earlier" if other == "boot" else "")
    if other == "store":
        shutil.rmtree(umpteen.store() / ".umpteen")
    assert umpteen(*command).returncode == 0
    assert sorted((umpteen.folder / "ran").read_text().split()) == list("1122")


def test_thousand_slots(umpteen: Umpteen) -> None:
    done = umpteen("run", "echo {n}", "n=1..2000", "--slots", "1000", "--name", "job")
    assert done.returncode == 0, done.stderr
    records = list_records(umpteen.store())
    assert len(records) == 2000
    assert {record["state"] for record in records} == {"succeeded"}
    assert max(record["slot"] for record in records) > 100
