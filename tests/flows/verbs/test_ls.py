"""`umpteen ls`: the jobs of this user, from any folder."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.support.command import Umpteen
from tests.support.proxy import FaultProxy
from tests.support.s3 import S3
from tests.support.server import find_port
from umpteen.store.address import OPTIONS_VARIABLE


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


@pytest.mark.parametrize("columns", [80, 140])
def test_ls_keeps_jobs_of_one_name_apart_by_their_folders(umpteen: Umpteen, columns: int) -> None:
    deep = umpteen.home / ("deep/" * 5)
    for place in (umpteen.folder / "near", umpteen.folder, deep / "first", deep / "second"):
        place.mkdir(parents=True, exist_ok=True)
        umpteen("run", "true", "--name", "job", cwd=place)
    umpteen("run", "true", "--name", "job", "--results", umpteen.folder / "own")
    shutil.move(umpteen.store(), umpteen.store("moved"))
    lines = umpteen.at_terminal("ls", columns=columns)
    head, *rows = [line.split() for line in lines]
    assert max(map(len, lines)) <= columns, lines
    assert (head[-1] == "folder") == (columns == 140)
    places = [row[-1] for row in rows if row[-1] != "succeeded"]
    below = "~/" + "deep/" * 5
    assert sorted(places) == sorted(
        ["near", "own", "umpteen-results/moved", f"{below}first", f"{below}second"]
    )
    assert len(rows) == (5 if columns == 140 else 10)


def test_ls_measures_wide_characters_in_columns(umpteen: Umpteen) -> None:
    wide = umpteen.folder / ("折" * 20)
    wide.mkdir()
    for place in (umpteen.folder, wide):
        umpteen("run", "true", "--name", "job", cwd=place)
    lines = umpteen.at_terminal("ls", columns=100)
    assert max(map(cell_len, lines)) <= 100, lines
    assert f"  {wide.name}" in lines


def test_ls_shows_the_folder_that_jobs_are_in_as_a_dot(umpteen: Umpteen, tmp_path: Path) -> None:
    for place in (umpteen.folder, tmp_path):
        umpteen("run", "true", "--name", "job", cwd=place)
    _, *rows = umpteen("ls").stdout.splitlines()
    assert {row.split()[-1] for row in rows} == {".", str(tmp_path)}


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
    assert done.returncode == 3, done.stderr
    listed = {job["name"]: (job["state"], job["trouble"]) for job in json.loads(done.stdout)}
    assert listed["good"] == ("succeeded", "")
    assert listed["bad"][0] == "damaged"
    assert "job.json is damaged" in listed["bad"][1]
    done = umpteen("ls")
    assert done.returncode == 3
    (row,) = (line.split() for line in done.stdout.splitlines() if line.startswith("bad"))
    place = str(umpteen.store("bad") / ".umpteen/job.json")
    assert row[1:10] == [*"------", place, "is", "damaged:"]


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        yield server.getsockname()[1]


def remember(umpteen: Umpteen, name: str, address: str) -> None:
    """As if this user had opened the job."""
    entry = {"name": name, "address": address, "seen_s": 1}
    umpteen.write(str(umpteen.home / f"data/umpteen/jobs/{name}.json"), json.dumps(entry))


def ask_where(port: int) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }


@pytest.mark.parametrize("does_accept", [True, False])
def test_ls_jobs_that_do_not_answer_are_rows_within_one_limit(
    umpteen: Umpteen, silent: int, *, does_accept: bool
) -> None:
    for number in range(30):
        remember(umpteen, f"far{number}", f"s3://lab/far{number}")
    remember(umpteen, "host", f"sftp://nobody@127.0.0.1:{silent}/job")
    umpteen("run", "true", "--name", "near")
    env = ask_where(silent if does_accept else find_port())
    began_s = time.monotonic()
    listing = umpteen.start("ls", env=env)
    assert listing.stdout
    assert listing.stdout.readline().startswith("name")
    assert listing.stdout.readline().split()[-1] == "succeeded"  # before others are waited for
    assert time.monotonic() - began_s < 5
    rows, said = listing.communicate(timeout=60)
    assert time.monotonic() - began_s < 20  # some seconds, on a machine that is busy
    assert (listing.returncode, said) == (3, "")
    assert len(rows.splitlines()) == 31
    assert all(" unreachable: " in row for row in rows.splitlines())
    listed = json.loads(umpteen("ls", "--json", env=env).stdout)
    assert Counter(job["state"] for job in listed) == {"succeeded": 1, "unreachable": 31}
    assert all(job["trouble"] for job in listed if job["state"] == "unreachable")


def test_ls_with_far_jobs_alone_never_says_that_there_are_none(
    umpteen: Umpteen, silent: int
) -> None:
    remember(umpteen, "far", "s3://lab/far")
    done = umpteen("ls", env=ask_where(silent))
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines()[1].split()[:1] == ["far"]


def test_ls_of_an_endpoint_that_answers_waits_for_all_of_its_jobs(
    umpteen: Umpteen, s3: S3, s3_proxy: FaultProxy
) -> None:
    env = {OPTIONS_VARIABLE: json.dumps(s3.through(s3_proxy.port))}
    for name in ("a", "b"):
        umpteen("run", "true", "--name", name, "--results", f"s3://{s3.bucket}/{name}", env=env)
    remember(umpteen, "denied", "s3://no-such-bucket/denied")
    s3_proxy.latency_s = 0.7  # so that one takes longer than an endpoint may be silent
    listed = json.loads(umpteen("ls", "--json", env=env).stdout)
    states = {job["name"]: job["state"] for job in listed}
    assert states == {"a": "succeeded", "b": "succeeded", "denied": "unreadable"}
