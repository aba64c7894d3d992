"""A task that did not succeed is tried again: as often as is said, and nothing of it is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.processes import kill, list_processes
from tests.support.store import list_records, read_tree
from tests.support.wait import wait_until

PORTABLE = {"UMPTEEN_PORTABLE": "1"}
EXITS = "exit $(cat code.$UMPTEEN_ATTEMPT)"


def attempts_of(store: Path, index: int = 0) -> list[tuple[int, str, bool]]:
    """(number, state, whether another follows) of each attempt, as they ended."""
    return [
        (record["attempt"], record["state"], record.get("retry", False))
        for record in list_records(store)
        if record["task"] == index
    ]


def run(umpteen: Umpteen, *tasks: dict[str, Any], **more: Any) -> subprocess.CompletedProcess[str]:
    umpteen.write("job.json", json.dumps({"tasks": tasks, **more}))
    return umpteen("run", "job.json")


# --- attempts -------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [{}, PORTABLE])
def test_retry_keeps_the_outputs_of_every_attempt(
    umpteen: Umpteen, environment: dict[str, str]
) -> None:
    umpteen.write(
        "job.yaml",
        "tasks:\n"
        "- name: flaky\n"
        "  command: echo $UMPTEEN_ATTEMPT | tee $RESULTS_DIR/n; echo e >&2;"
        " [ $UMPTEEN_ATTEMPT = 3 ] || exit 7\n"
        "  retries: {when: failed, times: 5, wait: 0}\n",
    )

    done = umpteen("run", "job.yaml", env=environment)

    assert done.returncode == 0, done.stderr
    assert attempts_of(umpteen.store()) == [
        (1, "failed", True), (2, "failed", True), (3, "succeeded", False)
    ]  # fmt: skip
    (token,) = {record["token"] for record in list_records(umpteen.store())}
    assert read_tree(umpteen.store() / "flaky") == {
        f"{folder}{name}": content
        for folder, number, code in (
            (f"attempts/1-{token}/", b"1\n", b"7"), (f"attempts/2-{token}/", b"2\n", b"7"),
            ("", b"3\n", b"0"),
        )
        for name, content in {
            "stdout": number, "results/n": number, "stderr": b"e\n", "status_code": code
        }.items()
    }  # fmt: skip


def test_retries_end_when_they_are_used_up(umpteen: Umpteen) -> None:
    retries = {"when": "failed", "times": 2, "wait": 0}
    done = run(umpteen, {"command": "exit 7", "retries": retries}, {"command": "true"})
    assert done.returncode == 1, done.stderr
    assert "1 succeeded, 1 failed" in done.stderr
    assert attempts_of(umpteen.store()) == [
        (1, "failed", True), (2, "failed", True), (3, "failed", False)
    ]  # fmt: skip


def test_retries_of_the_job_hold_for_tasks_that_say_nothing(umpteen: Umpteen) -> None:
    own = {"name": "own", "command": "exit 1", "retries": 0}
    rule = {"times": 1, "wait": 0}
    assert run(umpteen, {"name": "other", "command": "exit 1"}, own, retries=rule).returncode == 1
    assert [len(attempts_of(umpteen.store(), index)) for index in (0, 1)] == [2, 1]


def test_retries_flag_is_for_every_task(umpteen: Umpteen) -> None:
    done = umpteen("run", "[ $UMPTEEN_ATTEMPT = 2 ] # {n}", "n=1,2", "--name", "job",
                   "--retries", "1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [len(attempts_of(umpteen.store(), index)) for index in (0, 1)] == [2, 2]


@pytest.mark.parametrize(
    ("command", "when", "count"),
    [
        ("exit 75", "exit_code 70-80", 2),
        ("exit 1", "exit_code 75", 1),
        ("kill -9 $$", "signal KILL", 2),
        ("kill -15 $$", "signal 9", 1),
        ("sleep 60", "timed_out", 2),
        ("exit 1", "timed_out", 1),
        ("no-such-program here", "exit_code 127", 2),
        ("kill -9 $$", "out_of_memory", 1),
    ],
)
def test_retry_follows_its_condition(
    umpteen: Umpteen, command: str, when: str | list[str], count: int
) -> None:
    task = {"command": command, "timeout": 0.3, "retries": {"when": when, "wait": 0}}
    assert run(umpteen, task).returncode == 1
    assert len(attempts_of(umpteen.store())) == count


def test_retry_rules_each_count_for_themselves(umpteen: Umpteen) -> None:
    for attempt, code in enumerate([1, 2, 1, 1], 1):
        umpteen.write(f"code.{attempt}", str(code))
    rules = [{"when": f"exit_code {code}", "times": code, "wait": 0} for code in (1, 2)]
    assert run(umpteen, {"command": EXITS, "retries": rules}).returncode == 1
    assert len(attempts_of(umpteen.store())) == 3


def test_retries_do_not_follow_the_jobs_own_deadline(umpteen: Umpteen) -> None:
    done = run(umpteen, {"command": "sleep 60", "retries": 5}, deadline=0.5)
    assert done.returncode == 1, done.stderr
    assert attempts_of(umpteen.store()) == [(1, "timed_out", False)]


def test_retry_leaves_its_slot_to_others_while_it_waits(umpteen: Umpteen) -> None:
    flaky = {"command": "[ $UMPTEEN_ATTEMPT = 2 ]", "retries": {"wait": 0.4}}
    assert run(umpteen, flaky, {"command": "true"}, slots=1).returncode == 0
    records = list_records(umpteen.store())
    assert [(record["task"], record["attempt"]) for record in records] == [(0, 1), (1, 1), (0, 2)]
    assert records[2]["start_s"] - records[0]["end_s"] >= 0.4 * 0.5 - 0.01


def test_retry_that_failed_for_good_starts_afresh_with_the_next_run(umpteen: Umpteen) -> None:
    task = {"command": "exit 1", "retries": {"times": 1, "wait": 0}}
    for _ in range(2):
        assert run(umpteen, task).returncode == 1
    assert attempts_of(umpteen.store()) == [
        (1, "failed", True), (2, "failed", False), (3, "failed", True), (4, "failed", False)
    ]  # fmt: skip
    kept = {path.name.partition("-")[0] for path in (umpteen.store() / "0/attempts").iterdir()}
    assert kept == {"1", "2", "3"}


# --- interrupted while a task waits to be tried again -----------------------------------------


def start_and_fail(
    umpteen: Umpteen, *, is_chain: bool = False, **more: Any
) -> subprocess.Popen[str]:
    """A job whose first task has failed and waits for half a minute at least."""
    rule = {"when": "exit_code 1", "wait": "1m", **more}
    retries = [rule, {"when": "exit_code 2", "wait": 0}]
    task = {"command": f"echo $UMPTEEN_ATTEMPT; {EXITS}", "retries": retries}
    others = {"command": "until [ -e go ]; do sleep 0.05; done; sleep 0.2"}
    umpteen.write("code.1", "1")
    job = {"slots": 3, "grace": 1, "tasks": [task, others, others]}
    if is_chain:
        job["tasks"] = [{**task, "name": "first"}, {"command": "true", "after": "first"}]
    umpteen.write("job.json", json.dumps(job))
    watcher = umpteen.start("run", "job.json")
    wait_until(lambda: umpteen.store().exists() and attempts_of(umpteen.store()))
    assert attempts_of(umpteen.store()) == [(1, "failed", True)]
    return watcher


def interrupt(umpteen: Umpteen, watcher: subprocess.Popen[str], how: str) -> None:
    if how == "interrupt":
        os.killpg(watcher.pid, signal.SIGINT)
    else:
        kill(umpteen, watcher, "both")
    watcher.communicate(timeout=30)
    wait_until(lambda: not list_processes(umpteen))
    umpteen.write("go", "")


@pytest.mark.parametrize(
    ("how", "codes"),
    [("kill", [1]), ("kill", [2, 1]), ("kill", [2, 0]), ("interrupt", [2, 2]), ("interrupt", [0])],
)
def test_retry_goes_on_where_it_was_after_the_runner_has_gone(
    umpteen: Umpteen, how: str, codes: list[int]
) -> None:
    interrupt(umpteen, start_and_fail(umpteen), how)
    for attempt, code in enumerate(codes, 2):
        umpteen.write(f"code.{attempt}", str(code))

    again = umpteen("run", "job.json")

    assert again.returncode == (codes[-1] > 0), again.stderr
    made = attempts_of(umpteen.store())
    assert [number for number, _, _ in made] == list(range(1, len(codes) + 2))
    assert [follows for _, _, follows in made] == [True] * len(codes) + [False]
    outputs = {
        path.parent.name.partition("-")[0]: path.read_text()
        for path in (umpteen.store() / "0").glob("attempts/*/stdout")
    }
    assert outputs == {str(n): f"{n}\n" for n in range(1, len(codes) + 1)}
    assert (umpteen.store() / "0/stdout").read_text() == f"{len(codes) + 1}\n"


def test_retry_counts_on_where_dependencies_make_a_new_batch(umpteen: Umpteen) -> None:
    interrupt(umpteen, start_and_fail(umpteen, is_chain=True), "kill")
    umpteen.write("code.2", "1")  # for which the rule is used up
    again = umpteen("run", "job.json")
    assert again.returncode == 1, again.stderr
    assert attempts_of(umpteen.store()) == [(1, "failed", True), (2, "failed", False)]
    assert [path.stem for path in umpteen.store().glob(".umpteen/batches/2.json")] == ["2"]


def test_retry_is_alone_though_another_runner_makes_it(umpteen: Umpteen) -> None:
    interrupt(umpteen, start_and_fail(umpteen, alone=True), "kill")
    umpteen.write("code.2", "0")
    again = umpteen("run", "job.json")
    assert again.returncode == 0, again.stderr
    (retried,) = [r for r in list_records(umpteen.store()) if (r["task"], r["attempt"]) == (0, 2)]
    others = [r for r in list_records(umpteen.store()) if r["task"] and r["state"] == "succeeded"]
    assert len(others) == 2
    for other in others:
        is_before = other["end_s"] <= retried["start_s"] + 0.002
        assert is_before or other["start_s"] >= retried["end_s"] - 0.002


def test_retry_that_waits_is_shown_as_waiting(umpteen: Umpteen) -> None:
    watcher = start_and_fail(umpteen)

    def count() -> tuple[int, int]:
        counts = json.loads(umpteen("status", "job", "--json").stdout)["counts"]
        return counts["failed"], counts["waiting"]

    wait_until(lambda: count() == (0, 1))  # what runs is shown within a second or two
    interrupt(umpteen, watcher, "kill")


def test_killed_runner_alone_is_made_up_for_without_a_retry_more(umpteen: Umpteen) -> None:
    watcher = start_and_fail(umpteen)
    umpteen.write("code.2", "1")
    umpteen.write("go", "")
    kill(umpteen, watcher, "runner")
    _, said = watcher.communicate(timeout=30)
    assert watcher.returncode == 1, said
    assert attempts_of(umpteen.store()) == [(1, "failed", True), (2, "failed", False)]
