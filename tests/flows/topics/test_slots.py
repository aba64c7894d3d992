"""Slots: as many as there can be, and each costs something only once it is used."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from umpteen.model.states import SLOTS_MOST


@pytest.mark.parametrize("slots", [SLOTS_MOST + 1, 99_999_999_999, 10**30])
@pytest.mark.parametrize("where", ["flag", "file", "batch"])
def test_more_slots_than_can_be_are_refused_before_anything_is_written(
    umpteen: Umpteen, where: str, slots: int
) -> None:
    job = {"name": "job", "tasks": ["true"]}
    batch = {"nprocs": slots, "remote_output_path": str(umpteen.store()), "runs": [{"cmd": "true"}]}
    umpteen.write("job.json", json.dumps(job if where == "flag" else {**job, "slots": slots}))
    umpteen.write("batch.json", json.dumps(batch))
    done = (
        umpteen("batch", "batch.json")
        if where == "batch"
        else umpteen("run", "job.json", *(["--slots", str(slots)] if where == "flag" else []))
    )
    assert done.returncode == 2, done.stderr
    assert "unexpected" not in done.stderr
    assert "slots" in done.stderr or "nprocs" in done.stderr
    assert not umpteen.store().exists()


def test_job_that_an_older_version_gave_more_slots_than_can_be_goes_on(umpteen: Umpteen) -> None:
    umpteen.write("job.json", json.dumps({"name": "job", "tasks": ["true", "test -e go"]}))
    assert umpteen("run", "job.json").returncode == 1
    for path in (umpteen.store() / ".umpteen").glob("*/*.json"):
        path.write_text(path.read_text().replace('"slots":', '"slots":99999999999,"_":'))
        path.write_text(path.read_text().replace('"nprocs":', '"nprocs":99999999999,"_":'))
    umpteen.write("go", "")
    done = umpteen("retry", "job")
    assert done.returncode == 0, done.stderr


def test_slots_that_are_not_used_make_no_folders(umpteen: Umpteen) -> None:
    command = "find $RESULTS_DIR/../.. -type d | wc -l"
    done = umpteen("run", command, "--slots", "3000", "--name", "job", timeout_s=30)
    assert done.returncode == 0, done.stderr
    assert int(umpteen("logs", "job", "0").stdout) == 3  # scratch, the runner's, the slot's


@pytest.mark.parametrize("pages", range(1, 8))
def test_disk_of_leases_that_is_full_runs_nothing_or_all(
    umpteen: Umpteen, own_pages: Callable[[int], Path], pages: int
) -> None:
    leases = {"UMPTEEN_LEASES": str(own_pages(pages))}
    done = umpteen("run", "echo {n}", "n=1..6", "--slots", "2", "--name", "job", env=leases)
    if done.returncode == 0:
        assert "6 succeeded" in done.stderr
        return
    assert done.returncode == 3, done.stderr
    assert "No space left on device" in done.stderr
    assert "UMPTEEN_LEASES" in done.stderr
    assert not list(umpteen.store().glob("n=*"))


def test_disk_of_leases_that_is_read_only_is_refused(
    umpteen: Umpteen, own_pages: Callable[[int], Path]
) -> None:
    disk = own_pages(8)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    done = umpteen("run", "true", "--name", "job", env={"UMPTEEN_LEASES": str(disk)})
    assert done.returncode == 3, done.stderr
    assert "Read-only file system" in done.stderr
    assert "UMPTEEN_LEASES" in done.stderr
