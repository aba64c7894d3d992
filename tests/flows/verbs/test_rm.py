"""`umpteen rm`: remove a job, and nothing that umpteen did not write."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.store import read_tree
from tests.support.wait import wait_until


def run(umpteen: Umpteen, *arguments: str) -> None:
    umpteen("run", "echo hi; echo 1 > $RESULTS_DIR/n", "n=1..3", "--name", "job", "-q", *arguments)


def answer(umpteen: Umpteen, text: bytes) -> tuple[int, str]:
    """Run `rm job` at a terminal and type; the exit code and what it said."""
    ours, theirs = pty.openpty()
    os.write(ours, text)
    done = subprocess.run(
        [*umpteen.command, "rm", "job"], cwd=umpteen.folder, env=umpteen.environment,
        stdin=theirs, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    return done.returncode, done.stderr


def test_rm_removes_the_job_and_forgets_it(umpteen: Umpteen) -> None:
    run(umpteen)
    run(umpteen, "--rerun", "all")  # so that there are earlier attempts
    done = umpteen("rm", "job", "--yes")
    assert (done.returncode, done.stderr) == (0, "job: removed, 3 tasks had outputs\n")
    assert not umpteen.store().exists()
    assert umpteen("ls", "--json").stdout == "[]\n"
    assert list((umpteen.home / "data/umpteen/jobs").iterdir()) == []


def test_rm_asks_at_a_terminal(umpteen: Umpteen) -> None:
    run(umpteen)
    code, said = answer(umpteen, b"n\n")
    assert code == 1
    assert said.startswith("Remove job: 3 tasks with outputs, ")
    assert " in umpteen-results/job? [y/N]: " in said
    assert umpteen("status", "job").returncode == 0
    assert answer(umpteen, b"y\n")[0] == 0
    assert not umpteen.store().exists()


def test_rm_refuses_where_nobody_can_answer(umpteen: Umpteen) -> None:
    run(umpteen)
    done = umpteen("rm", "job")
    assert done.returncode == 2
    assert done.stderr.endswith("hint: umpteen rm job --yes\n")
    assert umpteen.store().exists()


def test_rm_hint_removes_the_job_that_was_meant(umpteen: Umpteen) -> None:
    for results in ("else where/{name}", "umpteen-results/{name}"):
        umpteen("run", "true", "--name", "job", "--results", results, "-q")
    done = umpteen("rm", "./else where/job")
    assert done.stderr.endswith("hint: umpteen rm './else where/job' --yes\n")


def test_rm_refuses_while_the_job_runs(umpteen: Umpteen) -> None:
    umpteen("run", "touch began; sleep 600", "--name", "job", "--detach", "-q")
    wait_until((umpteen.folder / "began").exists)
    done = umpteen("rm", "job", "--yes")
    assert done.returncode == 2
    assert done.stderr == "error: 'job' is running\n\nhint: umpteen cancel job ends it first\n"
    umpteen("cancel", "job")
    assert umpteen("rm", "job", "--yes").returncode == 0


def test_rm_follows_no_link_out_of_the_job(umpteen: Umpteen) -> None:
    outside = umpteen.folder / "precious"
    outside.mkdir()
    for name in ("stdout", "stderr", "kept"):
        (outside / name).write_text("mine")
    run(umpteen)
    task = umpteen.store() / "n=1"
    (task / "stdout").unlink()
    (task / "stdout").symlink_to(outside / "stdout")
    (task / "results/inner").symlink_to(outside)
    other = umpteen.store() / "n=2"
    other.rename(umpteen.folder / "moved")
    other.symlink_to(outside)
    before = read_tree(outside), read_tree(umpteen.folder / "moved")

    done = umpteen("rm", "job", "--yes")

    assert done.returncode == 0
    assert (read_tree(outside), read_tree(umpteen.folder / "moved")) == before
    assert "left      1 file that umpteen did not write" in done.stderr
    assert [path.name for path in umpteen.store().iterdir()] == ["n=2"]


def test_rm_follows_no_link_above_a_task(umpteen: Umpteen) -> None:
    outside = umpteen.folder / "precious/x"
    outside.mkdir(parents=True)
    (outside / "stdout").write_text("mine")
    tasks = [{"name": "a/x", "command": "true"}]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    umpteen("run", "job.json", "-q")
    (umpteen.store() / "a").rename(umpteen.folder / "moved")
    (umpteen.store() / "a").symlink_to(outside.parent)
    assert umpteen("rm", "job", "--yes").returncode == 0
    assert (outside / "stdout").read_text() == "mine"


def test_rm_of_a_store_that_is_a_link_leaves_the_link(umpteen: Umpteen) -> None:
    real = umpteen.folder / "disk/job"
    real.mkdir(parents=True)
    umpteen.store().parent.mkdir()
    umpteen.store().symlink_to(real)
    run(umpteen)
    done = umpteen("rm", "job", "--yes")
    assert done.returncode == 0
    assert "left      the link umpteen-results/job" in done.stderr
    assert umpteen.store().is_symlink()
    assert list(real.iterdir()) == []


@pytest.mark.parametrize("place", [".", "out"])
def test_rm_leaves_what_umpteen_did_not_write(umpteen: Umpteen, place: str) -> None:
    # Results among other things: a task is called as a folder of the project.
    own = umpteen.folder / place / "src"
    own.mkdir(parents=True)
    (own / "main.py").write_text("mine")
    (umpteen.folder / place / "notes").write_text("mine")
    tasks = [{"name": "src", "command": "echo hi"}, {"name": "b", "command": "true"}]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    umpteen("run", "job.json", "--results", f"./{place}", "-q")
    address = str(Path(umpteen.folder, place))
    done = umpteen("rm", address, "--yes")
    assert done.returncode == 0, done.stderr
    assert "left      1 file that umpteen did not write" in done.stderr
    assert sorted(path.name for path in own.iterdir()) == ["main.py"]
    left = {path.name for path in Path(address).iterdir()}
    assert left >= {"src", "notes"}
    assert not left & {"b", ".umpteen"}


def test_rm_leaves_outputs_that_are_elsewhere_and_says_so(umpteen: Umpteen) -> None:
    runs = [{"cmd": "echo 1", "remote_output_path": "away/x"}, {"cmd": "echo 2"}]
    umpteen.write("b.json", json.dumps({"remote_output_path": "out", "runs": runs}))
    umpteen("run", "b.json", "--name", "job", "-q")
    done = umpteen("rm", "out/", "--yes")
    assert "left      1 task has outputs elsewhere" in done.stderr
    assert (umpteen.folder / "away/x/stdout").read_text() == "1\n"
    assert not (umpteen.folder / "out").exists()


def test_rm_of_a_job_that_is_run_again_begins_anew(umpteen: Umpteen) -> None:
    run(umpteen)
    umpteen("rm", "job", "--yes")
    run(umpteen)
    status = json.loads(umpteen("status", "job", "--json").stdout)
    assert status["counts"]["succeeded"] == 3


def test_rm_asks_for_all_that_it_will_remove(umpteen: Umpteen) -> None:
    run(umpteen)
    umpteen("run", "echo hi", "n=3..4", "--name", "job", "-q")  # which drops two
    said = answer(umpteen, b"y\n")[1]
    assert said.startswith("Remove job: 4 tasks with outputs, ")
    assert "job: removed, 4 tasks had outputs\n" in said


@pytest.mark.parametrize("at", [3, 5, 9, 14, 20, 24, 27, 30, 33])
def test_rm_that_was_killed_is_known_and_gone_on_with(umpteen: Umpteen, at: int) -> None:
    run(umpteen)
    umpteen.run_killed(at, "unlink rmdir", "rm", "job", "--yes")
    assert umpteen.store().exists()
    status = umpteen("status", "job", "--json")
    assert json.loads(status.stdout)["state"] == "removing"
    assert "umpteen rm job" in umpteen("status", "job").stdout
    again = umpteen("run", "echo hi", "n=1..3", "--name", "job")
    assert again.returncode == 2
    assert "'job' is being removed" in again.stderr
    done = umpteen("rm", "job", "--yes")
    assert done.returncode == 0, done.stderr
    assert not umpteen.store().exists()


@pytest.mark.parametrize("name", ["../thesis", "n=1/../../../thesis", "ABSOLUTE", "./n=1", ""])
def test_rm_reaches_nothing_above_the_store_whatever_its_files_say(
    umpteen: Umpteen, name: str
) -> None:
    run(umpteen)
    for folder in ("umpteen-results/thesis", "thesis"):
        (umpteen.folder / folder / "results").mkdir(parents=True)
        (umpteen.folder / folder / "stdout").write_text("mine")
    tasks = umpteen.store() / ".umpteen/tasks/1.jsonl"
    name = name.replace("ABSOLUTE", str(umpteen.folder / "thesis"))
    tasks.write_text(tasks.read_text().replace("n=1", name))
    umpteen("rm", "job", "--yes")
    for folder in ("umpteen-results/thesis", "thesis"):
        assert (umpteen.folder / folder / "stdout").read_text() == "mine"
        assert (umpteen.folder / folder / "results").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_rm_leaves_what_another_user_put_among_the_results(umpteen: Umpteen) -> None:
    run(umpteen)
    theirs = umpteen.store() / "n=1/results/theirs"
    theirs.write_text("theirs")
    os.chown(theirs, 4242, 4242)
    done = umpteen("rm", "job", "--yes")
    assert "left      1 file that umpteen did not write" in done.stderr
    left = [path for path in umpteen.store().rglob("*") if path.is_file()]
    assert left == [theirs]
