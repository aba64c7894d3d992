"""`umpteen results JOB DEST`: copies of what tasks left, and of nothing else, and there alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.store import read_tree
from tests.support.wait import wait_until


def run(umpteen: Umpteen, command: str, *more: str) -> None:
    done = umpteen("run", command, "n=1..2", "--name", "job", "-q", *more)
    assert done.returncode == 0, done.stderr


def pull(umpteen: Umpteen, *more: str) -> tuple[int, dict[str, Any]]:
    done = umpteen("results", "job", "here", "--json", *more)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def list_kinds(pulled: dict[str, Any]) -> dict[str, str]:
    return {each["path"]: each["kind"] for each in pulled["left_out"]}


def read_files(umpteen: Umpteen) -> dict[str, str]:
    """Of the second task's copies."""
    folder = umpteen.folder / "here/n=2"
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


@pytest.fixture
def pulled(umpteen: Umpteen) -> Umpteen:
    """A job whose outputs have been pulled."""
    run(umpteen, "echo {n}; echo r{n} > $RESULTS_DIR/r")
    assert pull(umpteen) == (0, {"files": 8, "size_bytes": 12, "kept": 0, "left_out": []})
    return umpteen


def test_pull_copies_what_can_be_copied_and_names_the_rest(umpteen: Umpteen) -> None:
    run(
        umpteen,
        "cd $RESULTS_DIR; mkdir ckpt-1; echo 1 > ckpt-1/w; ln -s ckpt-1 latest;"
        " ln -s latest/w best; mkdir d; ln -s ../ckpt-1/w d/up; mkfifo p; ln -s /dev/zero zero;"
        " ln -s /etc/hostname out; ln -s ../stdout above; ln -s nowhere lost;"
        " python3 -c 'import socket;"
        ' socket.socket(socket.AF_UNIX).bind("s")\'; echo z > z',
    )
    code, told = pull(umpteen)
    assert code == 0
    results = umpteen.folder / "here/n=2/results"
    assert (results / "latest").readlink() == Path("ckpt-1")
    assert (results / "best").read_text() == (results / "d/up").read_text() == "1\n"
    assert (results / "lost").is_symlink()
    assert (results / "z").read_text() == "z\n"
    left_out = {"p": "special", "s": "special", "zero": "link", "out": "link", "above": "link"}
    assert list_kinds(told) == {
        f"n={n}/results/{name}": kind for n in (1, 2) for name, kind in left_out.items()
    }
    assert {path.name for path in results.iterdir()} == {
        "ckpt-1", "latest", "best", "d", "lost", "z"
    }  # fmt: skip
    again = pull(umpteen)[1]
    assert (again["files"], again["kept"]) == (told["files"], told["files"])
    said = umpteen("results", "job", "here").stderr.splitlines()
    assert said[1] == (
        "  left out  6 that lead out of a task's results: "
        "n=1/results/above is a link to ../stdout, n=1/results/out is a link to "
        "/etc/hostname, n=1/results/zero is a link to /dev/zero, "
        "and 3 more"
    )
    assert said[2].startswith("  left out  4 that cannot be copied: n=1/results/p is a pipe, ")


def test_results_are_listed_without_what_is_no_file(umpteen: Umpteen) -> None:
    run(umpteen, "cd $RESULTS_DIR; mkfifo p; echo a > a; ln -s a l")
    done = umpteen("results", "job")
    assert done.stdout.splitlines() == [
        f"umpteen-results/job/n={n}/results/{name}" for n in (1, 2) for name in "al"
    ]
    assert "2 that cannot be copied: n=1/results/p is a pipe" in done.stderr


@pytest.mark.parametrize("name", ["stdout", "stderr", "status_code", "results"])
def test_pull_follows_no_link_in_place_of_an_output(umpteen: Umpteen, name: str) -> None:
    run(umpteen, "echo {n}; echo r > $RESULTS_DIR/r")
    (umpteen.folder / "secret").mkdir()
    (umpteen.folder / "secret/r").write_text("secret")
    output = umpteen.store() / "n=2" / name
    output.rename(umpteen.folder / "moved")
    output.symlink_to(umpteen.folder / ("secret" if name == "results" else "secret/r"))
    assert list_kinds(pull(umpteen)[1]) == {f"n=2/{name}": "link"}
    assert "secret" not in read_files(umpteen).values()
    assert (umpteen.folder / "here/n=1/results/r").read_text() == "r\n"


def test_pull_goes_on_past_a_task_whose_folder_is_a_link(umpteen: Umpteen) -> None:
    run(umpteen, "echo {n}")
    (umpteen.store() / "n=1").rename(umpteen.folder / "moved")
    (umpteen.store() / "n=1").symlink_to(umpteen.folder / "moved")
    code, told = pull(umpteen)
    assert (code, list_kinds(told)) == (1, {"n=1": "outputs"})
    assert read_files(umpteen) == {"stdout": "2\n", "stderr": "", "status_code": "0"}


def test_pull_leaves_files_that_were_not_pulled(pulled: Umpteen) -> None:
    folder = pulled.folder / "here/n=2"
    (folder / "stdout").write_text("mine")  # edited since
    (folder / "stderr").unlink()
    (folder / "stderr").mkdir()
    (folder / "results/r").unlink()
    (folder / "results/r").symlink_to("/nowhere")
    code, told = pull(pulled)
    assert code == 1
    assert list_kinds(told) == dict.fromkeys(
        ("n=2/stdout", "n=2/stderr", "n=2/results/r"), "in the way"
    )
    assert told["files"] == 5
    assert (folder / "stdout").read_text() == "mine"
    said = pulled("results", "job", "here")
    assert (
        "  left out  3 in whose place is something else (--force replaces files): " in said.stderr
    )
    code, told = pull(pulled, "--force")
    assert (code, list_kinds(told)) == (1, {"n=2/stderr": "in the way"})
    assert read_files(pulled) == {"stdout": "2\n", "status_code": "0", "results/r": "r2\n"}


def test_pull_replaces_what_came_of_an_earlier_attempt(pulled: Umpteen) -> None:
    run(pulled, "echo new; echo new > $RESULTS_DIR/r", "--rerun", "all")
    run(pulled, "echo newer; echo newer > $RESULTS_DIR/r", "--rerun", "all")
    (pulled.folder / "here/n=1/stdout").write_text("mine")
    code, told = pull(pulled)
    assert (code, list_kinds(told)) == (1, {"n=1/stdout": "in the way"})
    assert read_files(pulled) == {
        "stdout": "newer\n", "stderr": "", "status_code": "0", "results/r": "newer\n"
    }  # fmt: skip


@pytest.mark.parametrize("place", ["here/n=2", "here/n=2/results"])
@pytest.mark.parametrize("flags", [(), ("--force",)])
def test_pull_follows_no_link_below_its_destination(
    pulled: Umpteen, place: str, flags: tuple[str, ...]
) -> None:
    outside = pulled.folder / "outside"
    outside.mkdir()
    (pulled.folder / place).rename(pulled.folder / "moved")
    (pulled.folder / place).symlink_to(outside)
    code, told = pull(pulled, *flags)
    assert code == 1
    assert set(list_kinds(told).values()) == {"in the way"}
    assert list(outside.iterdir()) == []


def test_pull_into_a_folder_behind_a_link_is_free(umpteen: Umpteen) -> None:
    run(umpteen, "echo {n}")
    (umpteen.folder / "disk").mkdir()
    (umpteen.folder / "here").symlink_to("disk")
    assert pull(umpteen)[0] == 0
    assert (umpteen.folder / "disk/n=2/stdout").read_text() == "2\n"


def test_pull_into_the_folder_of_a_job_is_refused(umpteen: Umpteen) -> None:
    run(umpteen, "echo {n}")
    before = read_tree(umpteen.store())
    done = umpteen("results", "job", "umpteen-results/job")
    assert done.returncode == 2
    assert "is the folder of a job" in done.stderr
    assert read_tree(umpteen.store()) == before


def test_pull_names_what_lies_in_the_way_of_a_folder(umpteen: Umpteen) -> None:
    run(umpteen, "echo {n}")
    umpteen.write("here/n=2", "mine")
    code, told = pull(umpteen)
    assert (code, told["files"]) == (1, 3)
    assert set(list_kinds(told)) == {"n=2/stdout", "n=2/stderr", "n=2/status_code"}
    assert (umpteen.folder / "here/n=2").read_text() == "mine"


UNREADABLE = """
import os
opened = os.open
def refusing(path, *args, **named):
    if path == "r" and named.get("dir_fd") is not None:
        raise PermissionError(13, "Permission denied", path)
    return opened(path, *args, **named)
os.open = refusing  # as it is for who is not root
from umpteen.cli.main import main
main()
"""


def test_pull_goes_on_past_what_may_not_be_read(umpteen: Umpteen) -> None:
    run(umpteen, "echo {n}; echo r > $RESULTS_DIR/r")
    pulling = [sys.executable, "-c", UNREADABLE, "results", "job", "here", "--json"]
    done = subprocess.run(
        pulling, cwd=umpteen.folder, env=umpteen.environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert list_kinds(told) == dict.fromkeys(("n=1/results/r", "n=2/results/r"), "unreadable")
    assert (done.returncode, told["files"]) == (1, 6)
    assert pull(umpteen)[1]["kept"] == 6


@pytest.mark.parametrize("at", range(5, 200, 15))
def test_pull_after_one_that_was_killed_is_whole_and_leaves_no_parts(
    umpteen: Umpteen, at: int
) -> None:
    run(umpteen, "echo {n}; echo r{n} > $RESULTS_DIR/r")
    calls = "mkdir open utime link unlink replace"
    umpteen.run_killed(at, calls, "results", "job", "here")
    code, told = pull(umpteen)
    assert (code, told["files"], told["left_out"]) == (0, 8, [])
    assert sorted(path.name for path in (umpteen.folder / "here").iterdir()) == ["n=1", "n=2"]
    assert read_files(umpteen) == {
        "stdout": "2\n", "stderr": "", "status_code": "0", "results/r": "r2\n"
    }  # fmt: skip


def test_pull_leaves_the_parts_of_one_that_is_at_it(umpteen: Umpteen) -> None:
    from umpteen.query.destination import Destination

    run(umpteen, "echo {n}")
    with Destination(str(umpteen.folder / "here")) as other:
        Path(other.reserve(0)).write_text("half")
        assert pull(umpteen)[0] == 0
        assert Path(other.reserve(0)).read_text() == "half"
    assert sorted(path.name for path in (umpteen.folder / "here").iterdir()) == ["n=1", "n=2"]


def test_run_and_collect_pull_what_is_new_once_the_job_has_ended(umpteen: Umpteen) -> None:
    command = "echo r{n} > $RESULTS_DIR/r; echo l > $RESULTS_DIR/log; exit {n}"
    done = umpteen(
        "run", command, "n=0,1", "--name", "job", "--pull", "here", "--include", "r"
    )  # fmt: skip
    assert (done.returncode, "2 files, 6 bytes in here" in done.stderr) == (1, True), done.stderr
    assert read_tree(umpteen.folder / "here") == {
        "n=0/results/r": b"r0\n", "n=1/results/r": b"r1\n",
    }  # fmt: skip
    done = umpteen("collect", "job", "--pull", "here", "--json")
    told = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, told["event"], told["kept"]) == (1, "pulled", 2)
    assert (umpteen.folder / "here/n=1/results/log").read_text() == "l\n"


def test_pull_that_lacks_a_file_is_told_by_the_exit_code(umpteen: Umpteen) -> None:
    umpteen.write("here/n=1/stdout", "mine")
    done = umpteen("run", "echo {n}", "n=1", "--pull", "here", "-q")
    assert (done.returncode, "in whose place is something else" in done.stderr) == (1, True)
    assert (umpteen.folder / "here/n=1/stdout").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--include", "*"], "--include is for copies"),
     (["--pull", "x", "--detach"], "--pull is at the end"),
     (["--pull", ""], "--pull '' is no folder"),
     (["--pull", "file"], "--pull 'file' is no folder")],
)  # fmt: skip
def test_pull_that_cannot_be_is_refused_before_anything_runs(
    umpteen: Umpteen, arguments: list[str], said: str
) -> None:
    umpteen.write("file", "")
    done = umpteen("run", "echo {n}", "n=1", *arguments)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert not (umpteen.folder / "umpteen-results").exists()


def test_interrupted_run_pulls_nothing(umpteen: Umpteen) -> None:
    running = umpteen.start("run", "touch began; sleep 600", "--pull", "here")
    wait_until((umpteen.folder / "began").exists)
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=60)[1]
    assert running.returncode == 130
    assert not (umpteen.folder / "here").exists()


def test_pull_of_nothing_that_fits_does_not_say_that_the_job_was_wrong(umpteen: Umpteen) -> None:
    done = umpteen("run", "echo {n}", "n=1", "--pull", "here", "--include", "*.nope")
    assert (done.returncode, "error: no file fits" in done.stderr) == (1, True), done.stderr
    assert "1 succeeded" in done.stderr
