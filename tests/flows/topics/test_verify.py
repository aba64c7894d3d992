"""`--verify`: done is what records call so, and what still has what it left."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

import umpteen as api
from tests.support.command import Umpteen
from tests.support.proxy import FaultProxy
from tests.support.s3 import S3
from umpteen.store.address import OPTIONS_VARIABLE, open_store

JOB = "slots: 2\ntasks:\n" + "".join(f"- {{name: {n}, command: echo {n}}}\n" for n in "abcde")


@pytest.fixture
def job(umpteen: Umpteen) -> list[str]:
    """The command that runs a job, of which some outputs are gone or changed since."""
    umpteen.write("job.yaml", JOB)
    assert umpteen("run", "job.yaml").returncode == 0
    shutil.rmtree(umpteen.store() / "a")
    (umpteen.store() / "b/status_code").unlink()
    (umpteen.store() / "c/status_code").write_text("7")
    (umpteen.store() / "d/stdout").unlink()
    return ["run", "job.yaml"]


def test_without_it_records_alone_count(umpteen: Umpteen, job: list[str]) -> None:
    assert "5 done before" in umpteen(*job).stderr
    assert umpteen("status", "job").returncode == 0


@pytest.mark.usefixtures("job")
def test_status_counts_what_is_there_and_names_what_is_not(umpteen: Umpteen) -> None:
    done = umpteen("status", "job", "--verify")
    assert done.returncode == 1
    assert "unfinished, 1 done · 1 failed · 3 waiting" in done.stdout
    assert "4 were done, and have not what they left: a, b, c, d\n" in done.stdout
    assert "  again     umpteen retry job a b c d\n" in done.stdout
    said = json.loads(umpteen("status", "job", "--verify", "--json").stdout)
    assert (said["gone"], said["counts"]["succeeded"]) == (["a", "b", "c", "d"], 1)
    opened = api.open_job(umpteen.store())
    assert opened.status(verify=True).counts["succeeded"] == 1
    assert opened.status().counts["succeeded"] == 5


def test_run_runs_that_again_and_nothing_else(umpteen: Umpteen, job: list[str]) -> None:
    said = json.loads(umpteen(*job, "--verify", "--dry-run", "--json").stdout)
    assert (said["run"], said["done"]) == ({"gone": 3, "failed": 1}, 1)
    done = umpteen(*job, "--verify")
    assert done.returncode == 0
    assert "1 done before, 1 failed before and run again, 3 done before without" in done.stderr
    assert [(umpteen.store() / n / "stdout").read_text() for n in "abcde"] == [
        f"{n}\n" for n in "abcde"
    ]
    why = json.loads(umpteen("why", "job", "a", "--json").stdout)
    assert [attempt["attempt"] for attempt in why["attempts"]] == [1, 2]
    assert "5 done before" in umpteen(*job, "--verify").stderr


def test_what_another_tool_has_done_since_is_done(umpteen: Umpteen) -> None:
    umpteen.write("job.yaml", JOB + "- {name: f, command: exit 3}\n")
    assert umpteen("run", "job.yaml").returncode == 1
    (umpteen.store() / "f/status_code").write_text("0")
    assert umpteen("status", "job", "--verify").returncode == 0
    assert "6 done before" in umpteen("run", "job.yaml", "--verify").stderr


@pytest.mark.parametrize("gone", ["out/a.bam", "results/r-1.txt"])
def test_file_that_a_task_should_have_left_is_looked_for(umpteen: Umpteen, gone: str) -> None:
    command = "mkdir -p out; touch out/a.bam $RESULTS_DIR/r-1.txt; echo a >> ran"
    pattern = {"results/r-1.txt": "results/r-*.txt"}.get(gone, gone)
    task = {"name": "a", "command": command, "expect": [pattern]}
    umpteen.write("job.json", json.dumps({"tasks": [task, "true"]}))
    umpteen("run", "job.json")
    assert "2 done before" in umpteen("run", "job.json", "--verify").stderr
    place = umpteen.store() / "a" if gone.startswith("results/") else umpteen.folder
    (place / gone).unlink()
    assert "2 done before" in umpteen("run", "job.json").stderr
    assert json.loads(umpteen("status", "job", "--verify", "--json").stdout)["gone"] == ["a"]
    assert umpteen("run", "job.json", "--verify").returncode == 0
    assert (umpteen.folder / "ran").read_text() == "a\na\n"


def test_file_that_is_needed_by_what_runs_is_made_again(umpteen: Umpteen) -> None:
    def write(word: str) -> None:
        tasks = [
            {"name": "first", "command": "touch raw; echo first >> ran", "expect": ["raw"]},
            {"name": "made", "command": "cp raw bam; echo made >> ran", "after": "first",
             "expect": ["bam"]},
            {"name": "used", "command": f"cat bam; echo {word} >> ran", "after": "made"},
            {"name": "other", "command": "echo other >> ran", "expect": ["raw"]},
        ]  # fmt: skip
        umpteen.write("job.json", json.dumps({"slots": 1, "tasks": tasks}))

    write("used")
    assert umpteen("run", "job.json").returncode == 0
    for name in ("raw", "bam"):
        (umpteen.folder / name).unlink()
    assert "4 done before" in umpteen("run", "job.json").stderr
    write("again")
    assert umpteen("run", "job.json").returncode == 0
    ran = (umpteen.folder / "ran").read_text().split()
    assert sorted(ran[:4]) == ["first", "made", "other", "used"]
    assert ran[4:] == ["first", "made", "again"]


def test_on_s3_a_listing_tells(umpteen: Umpteen, s3: S3) -> None:
    tasks = [f"echo {n}" for n in range(60)]
    umpteen.write("job.json", json.dumps({"tasks": tasks, "results": s3.address}))
    with FaultProxy(s3.port) as proxy:
        options: dict[str, Any] = s3.options | {"endpoint_url": f"http://127.0.0.1:{proxy.port}"}
        env = {OPTIONS_VARIABLE: json.dumps(options)}
        assert umpteen("run", "job.json", env=env).returncode == 0
        store = open_store(s3.address, s3.options)
        for n in (7, 33):
            store.delete(f"{n}/status_code")
        store.replace("12/status_code", b"1")
        store.delete("20/stdout")
        store.close()
        proxy.count()
        said = umpteen("status", "job", "--verify", "--json", env=env)
        assert json.loads(said.stdout)["gone"] == ["7", "12", "20", "33"], said.stderr
        assert sum(proxy.count().values()) < 40
        done = umpteen("run", "job.json", "--verify", env=env)
        assert (done.returncode, "56 done before" in done.stderr) == (0, True)
        assert umpteen("status", "job", "--verify", env=env).returncode == 0
