"""`umpteen retry`: run again what did not succeed, without the job's file."""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.store import list_records, put_hand_in
from tests.support.wait import wait_until
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import LOCK

# Fails until there is a file `go.N`, or `go`.
NEEDS_GO = "echo {n} >> ran; [ -e go ] || [ -e go.{n} ]"


def begin(umpteen: Umpteen, tasks: int = 4) -> None:
    """A job of which the tasks 3 and on have failed."""
    umpteen.write("go.1", "")
    umpteen.write("go.2", "")
    run = umpteen("run", NEEDS_GO, f"n=1..{tasks}", "--name", "job", "-q")
    assert run.returncode == 1


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def count_runs(umpteen: Umpteen) -> Counter[str]:
    return Counter((umpteen.folder / "ran").read_text().split())


def chain(umpteen: Umpteen) -> None:
    """prep fails; a and b are after it, c is after b; x stands alone."""
    tasks = [
        {"name": "prep", "command": "[ -e go ]"},
        {"name": "a", "command": "true", "after": "prep"},
        {"name": "b", "command": "true", "after": "prep"},
        {"name": "c", "command": "true", "after": "b"},
        {"name": "x", "command": "exit 3"},
    ]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    assert umpteen("run", "job.json", "-q").returncode == 1


def states(umpteen: Umpteen) -> dict[str, str]:
    rows = map(json.loads, umpteen("export", "job", "--json").stdout.splitlines())
    return {row["name"]: row["state"] for row in rows}


def test_retry_runs_what_failed_and_nothing_else(umpteen: Umpteen) -> None:
    begin(umpteen)
    umpteen.write("go", "")
    done = umpteen("retry", "job", cwd=umpteen.home)
    assert done.returncode == 0, done.stderr
    assert "2 failed before and run again" in done.stderr
    assert count_runs(umpteen) == {"1": 1, "2": 1, "3": 2, "4": 2}


def test_retry_that_fails_again_ends_with_1_and_says_how_to_go_on(umpteen: Umpteen) -> None:
    begin(umpteen)
    done = umpteen("retry", "job")
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1] == "  again     umpteen retry job     runs the 2 that failed"
    )


def test_retry_of_tasks_by_name_pattern_and_index(umpteen: Umpteen) -> None:
    begin(umpteen, tasks=6)
    umpteen("retry", "job", "n=3", "*=[45]", "0")
    assert count_runs(umpteen) == {"1": 2, "2": 1, "3": 2, "4": 2, "5": 2, "6": 1}


def test_retry_of_an_unknown_task_runs_nothing(umpteen: Umpteen) -> None:
    begin(umpteen)
    done = umpteen("retry", "job", "n=3", "n=33")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no task 'n=33' in 'job'\n\nhint: did you mean 'n=3'?")
    assert count_runs(umpteen)["3"] == 1


@pytest.mark.parametrize(
    ("where", "ran"),
    [("n>3", "4"), ("exit_code=1 and not n=4", "3"), ("name~n=* and index=2", "3")],
)
def test_retry_where_chooses_among_what_did_not_succeed(
    umpteen: Umpteen, where: str, ran: str
) -> None:
    begin(umpteen)
    umpteen("retry", "job", "--where", where)
    assert count_runs(umpteen) == {**dict.fromkeys("1234", 1), ran: 2}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "job: nothing to retry, 2 done\n"),
        (["--where", "n=2"], "job: nothing to retry, no task that did not succeed is like that\n"),
    ],
)
def test_retry_with_nothing_to_do_says_so(
    umpteen: Umpteen, arguments: list[str], said: str
) -> None:
    umpteen("run", "true", "n=1,2", "--name", "job")
    done = umpteen("retry", "job", *arguments)
    assert (done.returncode, done.stderr) == (0, said)


@pytest.mark.parametrize(
    ("where", "message", "hint"),
    [
        ("m=1", "no task has 'm', which 'm=1' asks for", "valid are"),
        ("exit_cod=1", "no task has 'exit_cod'", "did you mean 'exit_code'?"),
        ("state=fail", "there is no state 'fail'", "did you mean 'failed'?"),
        ("n=1 or", "after 'n=1 or': here should be a field or a parameter", "write it as"),
    ],
)
def test_retry_with_a_wrong_expression_names_what_is_wrong(
    umpteen: Umpteen, where: str, message: str, hint: str
) -> None:
    begin(umpteen)
    done = umpteen("retry", "job", "--where", where)
    assert done.returncode == 2
    assert message in done.stderr
    assert f"hint: {hint}" in done.stderr


def test_retry_with_a_longer_timeout(umpteen: Umpteen) -> None:
    command = "sleep 0.5"
    umpteen("run", command, "--name", "job", "--timeout", "0.1s", "-q")
    done = umpteen("retry", "job", "--where", "state=timed_out", "--timeout", "1m")
    assert done.returncode == 0, done.stderr
    assert [r["state"] for r in list_records(umpteen.store())] == ["timed_out", "succeeded"]


def test_retry_with_other_slots_and_memory(umpteen: Umpteen) -> None:
    begin(umpteen)
    done = umpteen("retry", "job", "--slots", "1", "--memory", "32M")
    assert "job: 4 tasks, 1 at a time" in done.stderr
    refused = umpteen("retry", "job", "--memory", "900000G")
    assert refused.returncode == 2
    assert "this machine has" in refused.stderr
    assert "--memory: a memory of 8 bytes" in umpteen("retry", "job", "--memory", "8").stderr


def test_retry_of_a_failed_task_runs_what_was_skipped_behind_it(umpteen: Umpteen) -> None:
    chain(umpteen)
    umpteen.write("go", "")
    done = umpteen("retry", "job", "prep")
    assert done.returncode == 1  # x has failed still
    assert states(umpteen) == {
        "prep": "succeeded", "a": "succeeded", "b": "succeeded", "c": "succeeded", "x": "failed"
    }  # fmt: skip
    assert Counter(r["task"] for r in list_records(umpteen.store()))[4] == 1


def test_retry_of_a_skipped_task_runs_it_behind_what_failed(umpteen: Umpteen) -> None:
    chain(umpteen)
    umpteen.write("go", "")
    umpteen("retry", "job")
    assert states(umpteen) == {
        "prep": "succeeded", "a": "succeeded", "b": "succeeded", "c": "succeeded", "x": "failed"
    }  # fmt: skip


def test_retry_of_what_is_behind_a_failure_says_what_comes_first(umpteen: Umpteen) -> None:
    chain(umpteen)
    done = umpteen("retry", "job", "c")
    assert done.stderr.splitlines()[-1] == ("  first     umpteen retry job prep     c is after it")


def test_retry_detached_comes_back_at_once(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "[ -e go ] && until [ -e end ]; do sleep 0.05; done\n")
    umpteen("run", "job.txt", "-q")
    umpteen.write("go", "")
    done = umpteen("retry", "job", "--detach")
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "  watch     umpteen collect job"
    umpteen.write("end", "")
    assert umpteen("collect", "job").returncode == 0


def test_retry_of_a_job_that_runs_watches_it(umpteen: Umpteen) -> None:
    wait = "[ {n} = 1 ] || { touch began; until [ -e go ]; do sleep 0.05; done; }; exit 1"
    umpteen("run", wait, "n=1,2", "--name", "job", "--slots", "2", "--detach", "-q")
    wait_until((umpteen.folder / "began").exists)
    wait_until(lambda: list_records(umpteen.store()))
    watcher = umpteen.start("retry", "job")
    wait_until(lambda: len(list_records(umpteen.store())) == 2)
    umpteen.write("go", "")
    _, said = watcher.communicate(timeout=30)
    assert watcher.returncode == 1
    assert "1 failed before and run again" in said
    assert Counter(r["task"] for r in list_records(umpteen.store())) == {0: 2, 1: 1}


def test_retry_json_has_the_events_of_a_run(umpteen: Umpteen) -> None:
    begin(umpteen)
    events = [json.loads(e) for e in umpteen("retry", "job", "--json").stdout.splitlines()]
    assert events[0]["run"] == {"failed": 2}
    assert (events[-1]["event"], events[-1]["state"]) == ("ended", "failed")


# --- run with more flags --------------------------------------------------------------------------


def test_run_only_runs_the_tasks_that_are_meant(umpteen: Umpteen) -> None:
    umpteen.write("go", "")
    run = umpteen("run", NEEDS_GO, "n=1..4", "--name", "job", "--only", "n>=3 or index=0")
    assert run.returncode == 1
    assert "umpteen collect job   runs the 1 that did not run" in run.stderr
    assert count_runs(umpteen) == {"1": 1, "3": 1, "4": 1}


def test_run_only_by_tag_and_in_a_dry_run(umpteen: Umpteen) -> None:
    tasks = [{"command": "true", "name": n, "tags": [t]} for n, t in (("a", "x"), ("b", "y"))]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    shown = umpteen("run", "job.json", "--only", "tag=y", "--dry-run").stdout
    assert shown.startswith("would run 1 of 2 tasks: 1 new")


def test_run_only_cannot_ask_for_what_a_run_brings(umpteen: Umpteen) -> None:
    done = umpteen("run", "true", "--only", "state=failed")
    assert done.returncode == 2
    assert "--only: 'state=failed', at the start: 'state' is not known before" in done.stderr


def test_run_retries_try_again_what_failed(umpteen: Umpteen) -> None:
    done = umpteen("run", "[ $UMPTEEN_ATTEMPT = 2 ]", "--name", "job", "--retries", "1")
    assert done.returncode == 0, done.stderr
    assert [r["state"] for r in list_records(umpteen.store())] == ["failed", "succeeded"]


def test_run_flags_for_weights_and_limits_reach_the_tasks(umpteen: Umpteen) -> None:
    flags = ["--cpus", "1", "--memory", "16M", "--gpus", "0", "--output-limit", "1K"]
    done = umpteen("run", "seq 100000", "--name", "job", *flags)
    assert done.returncode == 1
    assert "output limit" in done.stderr


@pytest.mark.parametrize(
    ("flags", "runs"), [(["--max-failures", "1"], 1), (["--canary", "1"], 1), (["--fail-fast"], 1)]
)
def test_run_stops_where_it_is_told_to(umpteen: Umpteen, flags: list[str], runs: int) -> None:
    done = umpteen("run", NEEDS_GO, "n=1..9", "--name", "job", "--slots", "1", *flags)
    assert done.returncode == 1
    assert count_runs(umpteen).total() == runs


def test_retry_drops_nothing_that_was_handed_in_meanwhile(umpteen: Umpteen) -> None:
    begin(umpteen)
    store = DirectoryStore(str(umpteen.store()))
    store.create(LOCK, b"held by another machine")
    retrying = umpteen.start("retry", "job")
    (lock,) = umpteen.leases.glob("hand-in-*.lock")
    wait_until(lambda: is_locked(lock))
    put_hand_in(store, 2, [{"command": "true", "name": "new"}], {}, executor="")
    store.delete(LOCK)
    retrying.communicate(timeout=60)
    status = json.loads(umpteen("status", "job", "--json").stdout)
    assert status["total"] == 5


def test_retry_and_collect_in_a_project_that_was_moved_run_where_it_is_now(
    umpteen: Umpteen,
) -> None:
    project = umpteen.folder / "project"
    project.mkdir()
    command = "pwd; [ -e data.txt ]"
    assert umpteen("run", command, "--name", "job", cwd=project).returncode == 1
    moved = project.rename(umpteen.folder / "moved")
    (moved / "data.txt").touch()

    elsewhere = umpteen("retry", moved / "umpteen-results/job", cwd=umpteen.home)
    assert (elsewhere.returncode, "is not there" in elsewhere.stderr) == (3, True)
    assert umpteen("collect", "job", cwd=moved).returncode == 0
    assert umpteen("logs", "job", "0", cwd=moved).stdout == f"{moved}\n"
