"""Files of version 1, written once and never changed: every later umpteen reads and goes on with
them. They are of four jobs: `study` (dependencies, retries, three hand-ins, a synced folder),
`stopped` (cancelled by name, then whole), `cluster` (on Dask) and `sc` (a batch file of others).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.command import Umpteen

DATA = Path(__file__).parents[1] / "data" / "v1"

STUDY = {"succeeded": 4, "failed": 1, "timed_out": 1, "skipped": 1, "cancelled": 0}
COUNTS = {
    "study": STUDY,
    "stopped": {"succeeded": 0, "cancelled": 3},
    "cluster": {"succeeded": 19, "failed": 1},
    "sc": {"succeeded": 1, "failed": 1},
}


@pytest.fixture
def old(umpteen: Umpteen) -> Path:
    """A copy of them, in a place that they were not written for."""
    shutil.copytree(DATA, umpteen.folder / "old")
    return umpteen.folder / "old"


def read_json(umpteen: Umpteen, *arguments: str | Path) -> dict[str, object]:
    done = umpteen(*arguments, "--json")
    assert done.stderr == ""
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("job", COUNTS)
def test_version_1_status_is_what_it_was(umpteen: Umpteen, old: Path, job: str) -> None:
    told = read_json(umpteen, "status", old / job)
    assert told["name"] == job
    counts = told["counts"]
    assert isinstance(counts, dict)
    assert {state: counts[state] for state in COUNTS[job]} == COUNTS[job]


def test_version_1_outputs_reasons_and_tables_are_there(umpteen: Umpteen, old: Path) -> None:
    assert umpteen("logs", old / "study", "prep").stdout == "prepared\n"
    assert "which failed" in umpteen("why", old / "study", "report").stdout
    assert "prep/results/set.txt" in umpteen("results", old / "study").stdout
    table = umpteen("export", old / "study", "--csv").stdout.splitlines()
    assert len(table) == 1 + sum(STUDY.values())
    failed = next(line for line in table if "train-0.1" in line and "train-0.01" not in line)
    assert ",3," in failed


def test_version_1_run_again_runs_what_did_not_succeed(umpteen: Umpteen, old: Path) -> None:
    again = umpteen("run", "study.yaml", "--results", old / "study", cwd=old)
    assert again.returncode == 1
    assert "4 done before" in again.stderr
    assert read_json(umpteen, "status", old / "study")["counts"] == {
        "waiting": 0, "running": 0, **STUDY,
    }  # fmt: skip
    assert (old / "study/train-0.1/attempts").is_dir()


def test_version_1_retry_goes_on_with_what_was_cancelled(umpteen: Umpteen, old: Path) -> None:
    job = (old / "stopped/.umpteen/tasks/1.jsonl").read_text()
    (old / "stopped/.umpteen/tasks/1.jsonl").write_text(job.replace("sleep 60", "true"))
    done = umpteen("retry", old / "stopped", "-q")
    assert done.returncode == 0, done.stderr
    assert (old / "stopped/n=3/stdout").read_text() == "3\n"


def test_version_2_is_refused_with_a_hint(umpteen: Umpteen, old: Path) -> None:
    path = old / "study/.umpteen/job.json"
    path.write_text(path.read_text().replace('"version":1', '"version":2'))
    for command in ("status", "collect", "retry"):
        refused = umpteen(command, old / "study")
        assert refused.returncode == 3
        assert "was written by a later umpteen" in refused.stderr
        assert "pip install --upgrade umpteen" in refused.stderr
