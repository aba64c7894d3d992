"""`umpteen ls`: the jobs of this user, from any folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.support.command import Umpteen


def test_ls_without_jobs_says_how_to_start_one(umpteen: Umpteen) -> None:
    done = umpteen("ls")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "no jobs yet: umpteen run … starts one\n"


def test_ls_shows_each_job_in_a_line(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "good")
    umpteen.write("bad.txt", "true\nfalse\n")
    umpteen("run", "bad.txt")
    lines = umpteen("ls").stdout.splitlines()
    rows = {line.split()[0]: line.split() for line in lines[1:]}
    assert lines[0].split() == "name executor tasks done failed running started state".split()
    assert rows["good"][1:6] == ["local", "1", "1", "0", "0"]
    assert rows["bad"][1:6] == ["local", "2", "1", "1", "0"]
    assert (rows["good"][-1], rows["bad"][-1]) == ("succeeded", "failed")


def test_ls_of_twins_fits_the_terminal(umpteen: Umpteen, tmp_path: Path) -> None:
    for place in ("first", "second"):
        umpteen("run", "true", "--name", "job", "--results", tmp_path / ("deep/" * 20) / place)
    _, *rows = umpteen.at_terminal("ls", columns=100)
    assert all(len(row) <= 100 and "…" in row for row in rows)
    assert sorted(row[-6:].strip("/") for row in rows) == ["first", "second"]


def test_ls_and_status_of_a_job_without_tasks_say_so(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "job")
    shutil.rmtree(umpteen.store() / ".umpteen/handed")
    assert umpteen("ls").stdout.splitlines()[1].split()[-1] == "empty"
    done = umpteen("status", "job")
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "job: empty, nothing yet")


def test_ls_json_is_an_array(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "a")
    umpteen("run", "false", "--name", "b")
    listed = json.loads(umpteen("ls", "--json").stdout)
    assert {job["name"]: job["state"] for job in listed} == {"a": "succeeded", "b": "failed"}
    assert {job["address"] for job in listed} == {str(umpteen.store(name)) for name in "ab"}


def test_ls_json_without_jobs_is_an_empty_array(umpteen: Umpteen) -> None:
    assert json.loads(umpteen("ls", "--json").stdout) == []


def test_ls_knows_jobs_of_other_folders(umpteen: Umpteen, tmp_path: Path) -> None:
    umpteen("run", "true", "--name", "job")
    assert "job" in umpteen("ls", cwd=tmp_path).stdout


def test_ls_finds_results_that_another_machine_left_here(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "job")
    shutil.rmtree(umpteen.home / "data")
    assert [job["name"] for job in json.loads(umpteen("ls", "--json").stdout)] == ["job"]


def test_ls_forgets_what_is_gone(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "job")
    shutil.rmtree(umpteen.store())
    assert json.loads(umpteen("ls", "--json").stdout) == []
    assert not list(umpteen.home.glob("data/umpteen/jobs/*"))


def test_ls_shows_both_jobs_of_one_name(umpteen: Umpteen, tmp_path: Path) -> None:
    for place in ("a", "b"):
        umpteen("run", "true", "--name", "job", "--results", tmp_path / place)
    listed = json.loads(umpteen("ls", "--json").stdout)
    assert [job["name"] for job in listed] == ["job", "job"]


def test_ls_store_that_cannot_be_read_hides_no_other(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "good")
    umpteen("run", "true", "--name", "bad")
    (umpteen.store("bad") / ".umpteen/job.json").write_text("{")
    done = umpteen("ls", "--json")
    assert done.returncode == 0, done.stderr
    assert [job["name"] for job in json.loads(done.stdout)] == ["good"]
    assert "bad: " in done.stderr
