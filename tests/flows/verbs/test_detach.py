"""`run --detach` and `collect`: a job that nobody needs to watch."""

from __future__ import annotations

import json
import os
import pty
import signal
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.processes import find_runners
from tests.support.store import list_records
from tests.support.wait import wait_until

WAITS = "touch began.{n}; until [ -e go ]; do sleep 0.05; done; echo {n}"


def begin(umpteen: Umpteen, *arguments: str, command: str = WAITS) -> None:
    """A detached job whose first task runs until there is a file `go`."""
    given = ("run", command, "n=1..3", "--name", "job", "--slots", "1", "--detach", "-q")
    assert umpteen(*given, *arguments).returncode == 0
    wait_until((umpteen.folder / "began.1").exists)


def count_done(umpteen: Umpteen) -> int:
    return len([r for r in list_records(umpteen.store()) if r["state"] == "succeeded"])


# --- run --detach -------------------------------------------------------------------------------


def test_detach_comes_back_at_once_and_says_how_to_come_back(umpteen: Umpteen) -> None:
    done = umpteen("run", WAITS, "n=1..3", "--name", "job", "--slots", "1", "--detach")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "job: 3 tasks, 1 at a time on this machine; nothing needs to stay open",
        "  watch     umpteen collect job",
    ]
    umpteen.write("go", "")
    wait_until(lambda: count_done(umpteen) == 3)


def test_detach_json_is_the_event_that_it_started(umpteen: Umpteen) -> None:
    done = umpteen("run", "true", "--name", "job", "--detach", "--json")
    started = json.loads(done.stdout)
    assert (started["event"], started["total"], started["run"]) == ("started", 1, {"new": 1})
    assert done.stderr == ""


def test_detach_of_a_finished_job_says_that_there_is_nothing_to_run(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "job")
    done = umpteen("run", "true", "--name", "job", "--detach")
    assert done.returncode == 0
    assert "1 done before" in done.stderr
    assert "nothing needs to stay open" not in done.stderr


def test_detach_survives_the_death_of_the_terminal_it_was_started_in(umpteen: Umpteen) -> None:
    # A shell of its own terminal, as ssh gives one; closing the terminal hangs up on all in it.
    line = f"{umpteen.command[0]} run '{WAITS}' n=1..3 --name job --slots 1 --detach; sleep 600"
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(umpteen.folder)
        os.execve("/bin/sh", ["sh", "-c", line], umpteen.environment)
    wait_until((umpteen.folder / "began.1").exists)
    os.close(terminal)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    umpteen.write("go", "")
    wait_until(lambda: count_done(umpteen) == 3)
    assert umpteen("status", "job").returncode == 0


def test_detach_survives_the_kill_of_the_session_that_started_it(umpteen: Umpteen) -> None:
    launcher = umpteen.start("run", WAITS, "n=1..3", "--name", "job", "--slots", "1", "--detach")
    wait_until((umpteen.folder / "began.1").exists)
    try:
        os.killpg(launcher.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has come back already
    launcher.communicate(timeout=30)
    umpteen.write("go", "")
    wait_until(lambda: count_done(umpteen) == 3)


def test_detach_leaves_what_a_living_batch_has_for_later_and_says_so(umpteen: Umpteen) -> None:
    wait = "touch began.1; until [ -e go ]; do sleep 0.05; done"
    umpteen.write("job.json", json.dumps({"tasks": [{"name": "a", "command": wait}]}))
    umpteen("run", "job.json", "--detach")
    wait_until((umpteen.folder / "began.1").exists)
    umpteen.write("job.json", json.dumps({"tasks": [{"name": "a", "command": "echo new"}]}))
    done = umpteen("run", "job.json", "--detach")
    assert done.returncode == 0
    assert "  later     the 1 that changed while a former run has them" in done.stderr
    umpteen.write("go", "")
    assert umpteen("collect", "job").returncode == 0
    assert umpteen("logs", "job", "a").stdout == "new\n"


# --- collect ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "code"), [("true", 0), ("exit 3", 1)])
def test_collect_ends_with_the_exit_code_of_a_run(umpteen: Umpteen, ending: str, code: int) -> None:
    begin(umpteen, command=f"{WAITS}; {ending}")
    watcher = umpteen.start("collect", "job", cwd=umpteen.home)
    assert watcher.stderr
    assert watcher.stderr.readline().startswith("job: 3 tasks, 1 at a time on this machine")
    assert watcher.stderr.readline() == "  3 being run already\n"
    umpteen.write("go", "")
    _, said = watcher.communicate(timeout=30)
    assert watcher.returncode == code, said
    assert ("job: 3 succeeded in" in said) == (code == 0)


def test_collect_of_a_finished_job_ends_at_once(umpteen: Umpteen) -> None:
    umpteen("run", "exit {n}", "n=0,1", "--name", "job")
    done = umpteen("collect", "job")
    assert done.returncode == 1
    assert "umpteen retry job     runs the 1 that failed" in done.stderr


def test_collect_interrupted_stops_watching_and_no_more(umpteen: Umpteen) -> None:
    begin(umpteen)
    watcher = umpteen.start("collect", "job")
    assert watcher.stderr
    watcher.stderr.readline()
    os.killpg(watcher.pid, signal.SIGINT)
    _, said = watcher.communicate(timeout=30)
    assert watcher.returncode == 130
    assert said.splitlines()[-3:] == [
        "job goes on without this terminal",
        "  watch     umpteen collect job",
        "  end       umpteen cancel job",
    ]
    umpteen.write("go", "")
    assert umpteen("collect", "job", "--quiet").returncode == 0
    assert count_done(umpteen) == 3


def test_collect_hands_in_again_what_a_killed_runner_left(umpteen: Umpteen) -> None:
    begin(umpteen)
    for pid in find_runners(umpteen):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "unfinished" in umpteen("status", "job").stdout)
    assert "umpteen collect job   goes on with it" in umpteen("status", "job").stdout
    umpteen.write("go", "")
    done = umpteen("collect", "job")
    assert done.returncode == 0, done.stderr
    assert count_done(umpteen) == 3


def test_collect_that_handed_in_again_may_be_killed_too(umpteen: Umpteen) -> None:
    begin(umpteen)
    for pid in find_runners(umpteen):
        os.kill(pid, signal.SIGKILL)
    (umpteen.folder / "began.1").unlink()
    watcher = umpteen.start("collect", "job")
    wait_until((umpteen.folder / "began.1").exists)
    watcher.kill()
    watcher.communicate(timeout=30)
    umpteen.write("go", "")
    wait_until(lambda: count_done(umpteen) == 3)


def test_collect_json_has_the_events_of_a_run(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "job", "--detach")
    done = umpteen("collect", "job", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert (events[0]["event"], events[-1]["event"]) == ("started", "ended")
    assert events[-1]["counts"]["succeeded"] == 1


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        ("results: out/{name}\n", ["run.yaml", "--name", "my-job"]),
        (
            "results: {class_spec: LocalResults, path: out/my-job}\n",
            ["run.yaml", "--name", "my-job"],
        ),
        ("name: my-job\nresults: out/{name}\n", ["run.yaml"]),
        ("slots: 2\n", ["run.yaml", "--name", "my-job"]),
    ],
)
def test_collect_takes_the_run_file_of_the_job(
    umpteen: Umpteen, content: str, arguments: list[str]
) -> None:
    umpteen.write("run.yaml", content)
    umpteen.write("tasks.yaml", "tasks: [{command: echo hi, name: a}]\n")
    umpteen("run", "run.yaml", "tasks.yaml", "--name", "my-job", "--detach")
    done = umpteen("collect", *arguments)
    assert done.returncode == 0, done.stderr
    assert "my-job: 1 succeeded" in done.stderr or "1 done before" in done.stderr


def test_collect_of_an_unknown_job_names_the_nearest(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "sweep")
    done = umpteen("collect", "swep")
    assert done.returncode == 2
    registry = umpteen.home / "data/umpteen/jobs"
    assert done.stderr == (
        f"error: no job named 'swep' in ./umpteen-results or the registry, {registry}\n\n"
        "hint: did you mean 'sweep'? umpteen ls shows all\n"
    )


def test_collect_of_a_store_that_was_moved_goes_on_there(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "true\nfalse\n")
    umpteen("run", "job.txt")
    moved = umpteen.folder / "elsewhere"
    umpteen.store().rename(moved)
    done = umpteen("retry", str(moved))
    assert done.returncode == 1
    assert not Path(umpteen.store()).exists()
    assert len(list_records(moved)) == 3
