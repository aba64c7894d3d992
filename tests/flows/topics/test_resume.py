"""Running again: what is done stays done, whatever happened in between."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.processes import find_runners, kill, list_processes
from tests.support.store import list_records, read_tree
from tests.support.wait import wait_until
from tests.sweeps.plain import Point, run_point

SEED = os.environ.get("UMPTEEN_SWEEP_SEED") or str(int(time.time()))


def count_runs(folder: Path) -> Counter[str]:
    """How often each task left its mark in the file `ran`."""
    path = folder / "ran"
    return Counter(path.read_text().split()) if path.exists() else Counter()


def mark(*names: str) -> str:
    """A file of commands, each of which leaves its mark."""
    return "".join(f"echo {name} >> ran\n" for name in names)


def interrupt(watcher: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[int, str]:
    """Signal the whole group, as a terminal does; the exit code and what was said."""
    os.killpg(watcher.pid, number)
    _, said = watcher.communicate(timeout=30)
    return watcher.returncode, said


# --- nothing twice --------------------------------------------------------------------------


def test_resume_of_a_finished_job_runs_nothing_and_says_so(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", mark("a", "b"))
    umpteen("run", "job.txt")
    before = read_tree(umpteen.store())
    again = umpteen("run", "job.txt")
    assert again.returncode == 0, again.stderr
    assert "2 done before" in again.stderr
    assert count_runs(umpteen.folder) == {"a": 1, "b": 1}
    assert read_tree(umpteen.store()) == before


def test_resume_from_another_form_of_the_same_tasks_runs_nothing(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", mark("a", "b"))
    umpteen("run", "job.txt")
    commands = [{"command": line} for line in mark("a", "b").splitlines()]
    umpteen.write("job.json", json.dumps({"tasks": commands}))
    assert umpteen("run", "job.json").returncode == 0
    assert count_runs(umpteen.folder) == {"a": 1, "b": 1}


def test_resume_runs_a_failed_task_again_and_keeps_its_outputs(umpteen: Umpteen) -> None:
    umpteen.write(
        "job.txt", 'echo $UMPTEEN_ATTEMPT | tee "$RESULTS_DIR/n"; [ -e go ]\n' + mark("b")
    )
    assert umpteen("run", "job.txt").returncode == 1
    token = list_records(umpteen.store())[0]["token"]
    umpteen.write("go", "")

    again = umpteen("run", "job.txt")

    task = umpteen.store() / "0"
    earlier = task / f"attempts/1-{token}"
    assert again.returncode == 0, again.stderr
    assert "1 done before, 1 failed before and run again" in again.stderr
    assert read_tree(earlier) == {
        "stdout": b"1\n", "stderr": b"", "status_code": b"1", "results/n": b"1\n"
    }  # fmt: skip
    assert (task / "stdout").read_text() == (task / "results/n").read_text() == "2\n"
    assert (task / "status_code").read_text() == "0"
    assert count_runs(umpteen.folder) == {"b": 1}


def test_resume_third_attempt_keeps_both_earlier_ones(umpteen: Umpteen) -> None:
    for _ in range(3):
        umpteen("run", "echo $UMPTEEN_ATTEMPT; exit 1", "--name", "job")
    attempts = umpteen.store() / "0/attempts"
    kept = {path.name.partition("-")[0]: path for path in attempts.iterdir()}
    assert {number: (path / "stdout").read_text() for number, path in kept.items()} == {
        "1": "1\n", "2": "2\n"
    }  # fmt: skip
    assert (umpteen.store() / "0/stdout").read_text() == "3\n"


# --- a file that changed ----------------------------------------------------------------------


def test_resume_of_a_lost_batch_without_a_task_that_it_had_done(umpteen: Umpteen) -> None:
    tasks = [
        {"name": "gone", "command": "true"},
        {"name": "kept", "command": "touch begun; [ -e go ] || sleep 600", "cpus": 1},
    ]
    umpteen.write("job.json", json.dumps({"tasks": tasks, "slots": 1}))
    watcher = umpteen.start("run", "job.json", "-q")
    wait_until((umpteen.folder / "begun").exists)
    kill(umpteen, watcher, "both")
    watcher.communicate()
    umpteen.write("go", "")
    umpteen.write("job.json", json.dumps({"tasks": tasks[1:], "slots": 1}))
    again = umpteen("run", "job.json")
    assert again.returncode == 0, again.stderr
    assert "job: 1 succeeded in" in again.stderr


def test_resume_changed_command_is_named_before_it_runs(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "echo a --seed 9\n" + mark("b"))
    umpteen("run", "job.txt")
    umpteen.write("job.txt", "echo a --seed 9 --warm\n" + mark("b"))
    shown = umpteen("run", "job.txt", "--dry-run").stdout
    # An unnamed task is known by its place where its command is new.
    assert "would run 1 of 2 tasks: 1 changed" in shown
    assert "changed   0: command   9  →  9 --warm" in shown


def test_resume_changed_command_runs_only_that_task(umpteen: Umpteen) -> None:
    umpteen.write("job.yaml", "tasks:\n- {name: a, command: echo a >> ran}\n"
                              "- {name: b, command: echo b >> ran}\n")  # fmt: skip
    umpteen("run", "job.yaml")
    umpteen.write("job.yaml", "tasks:\n- {name: a, command: echo a2 >> ran}\n"
                              "- {name: b, command: echo b >> ran}\n")  # fmt: skip
    assert umpteen("run", "job.yaml").returncode == 0
    assert count_runs(umpteen.folder) == {"a": 1, "a2": 1, "b": 1}


@pytest.mark.parametrize("change", ["env: {A: '2'}", "cwd: ."])
def test_resume_changed_environment_or_folder_runs_the_task(umpteen: Umpteen, change: str) -> None:
    umpteen.write("job.yaml", "tasks:\n- {command: echo a >> ran, env: {A: '1'}}\n")
    umpteen("run", "job.yaml")
    umpteen.write("job.yaml", f"tasks:\n- {{command: echo a >> ran, {change}}}\n")
    assert umpteen("run", "job.yaml").returncode == 0
    assert count_runs(umpteen.folder) == {"a": 2}


def test_resume_changed_timeout_alone_runs_nothing(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", mark("a"))
    umpteen("run", "job.txt")
    assert umpteen("run", "job.txt", "--timeout", "1h", "--slots", "1").returncode == 0
    assert count_runs(umpteen.folder) == {"a": 1}


def test_resume_inserted_line_runs_one_task_and_renames_none(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", mark("a", "b", "c"))
    umpteen("run", "job.txt")
    before = {name: text for name, text in read_tree(umpteen.store()).items() if name[0] != "."}
    umpteen.write("job.txt", mark("new", "a", "b", "c"))

    again = umpteen("run", "job.txt")

    after = read_tree(umpteen.store())
    assert again.returncode == 0, again.stderr
    assert "3 done before, 1 new" in again.stderr
    assert count_runs(umpteen.folder) == {"a": 1, "b": 1, "c": 1, "new": 1}
    assert {name: after[name] for name in before} == before
    assert (umpteen.store() / "3/status_code").read_text() == "0"


def test_resume_removed_task_is_kept_but_not_counted(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "echo a\nexit 1\n")
    umpteen("run", "job.txt")
    umpteen.write("job.txt", "echo a\n")
    again = umpteen("run", "job.txt", "--json")
    assert again.returncode == 0, again.stdout
    assert json.loads(again.stdout.splitlines()[-1])["total"] == 1
    assert (umpteen.store() / "1/status_code").read_text() == "1"


def test_resume_removed_task_that_comes_back_runs_again(umpteen: Umpteen) -> None:
    for names in (["a", "b"], ["a"], ["a", "b"]):
        umpteen.write("job.txt", mark(*names))
        done = umpteen("run", "job.txt")
        assert done.returncode == 0, done.stderr
    assert json.loads(umpteen("status", "job", "--json").stdout)["total"] == 2
    assert count_runs(umpteen.folder)["a"] == 1


@pytest.mark.parametrize(
    ("rerun", "expected"),
    [
        ("default", {"failed", "changed", "new"}),
        ("all", {"done", "failed", "changed", "new"}),
        ("failed", {"failed"}),
        ("changed", {"changed"}),
        ("none", {"new"}),
    ],
)
def test_resume_rerun_chooses_what_runs(umpteen: Umpteen, rerun: str, expected: set[str]) -> None:
    tasks = [
        {"name": "done", "command": "echo done >> ran"},
        {"name": "failed", "command": "echo failed >> ran; exit 1"},
        {"name": "changed", "command": "echo before >> ran"},
    ]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    umpteen("run", "job.json")
    (umpteen.folder / "ran").unlink()
    tasks[2]["command"] = "echo changed >> ran"
    tasks.append({"name": "new", "command": "echo new >> ran"})
    umpteen.write("job.json", json.dumps({"tasks": tasks}))

    umpteen("run", "job.json", "--rerun", rerun)

    assert count_runs(umpteen.folder) == dict.fromkeys(expected, 1)


# --- two at once ---------------------------------------------------------------------------------


def test_resume_two_runs_at_once_execute_each_task_once(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "".join(f"sleep 0.02; echo {n} >> ran\n" for n in range(40)))
    runs = [umpteen.start("run", "job.txt", "--slots", "2") for _ in range(2)]
    said = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert count_runs(umpteen.folder) == dict.fromkeys(map(str, range(40)), 1)


def test_resume_second_run_joins_and_adds_its_own_tasks(umpteen: Umpteen) -> None:
    wait = "touch begun; until [ -e go ]; do sleep 0.05; done; echo a >> ran\n"
    umpteen.write("job.txt", wait)
    first = umpteen.start("run", "job.txt")
    wait_until((umpteen.folder / "begun").exists)
    umpteen.write("job.txt", wait + "echo b >> ran; touch go\n")
    second = umpteen("run", "job.txt")
    _, said = first.communicate(timeout=30)
    assert (first.returncode, second.returncode) == (0, 0), said + second.stderr
    assert "1 being run already, 1 new" in second.stderr
    assert count_runs(umpteen.folder) == {"a": 1, "b": 1}


def test_resume_interrupted_joiner_leaves_the_job_running(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "touch begun; until [ -e go ]; do sleep 0.05; done\n")
    first = umpteen.start("run", "job.txt")
    wait_until((umpteen.folder / "begun").exists)
    joiner = umpteen.start("run", "job.txt", "--json")
    assert joiner.stdout
    assert '"started"' in joiner.stdout.readline()
    code, said = interrupt(joiner)
    assert (code, first.poll()) == (130, None), said
    umpteen.write("go", "")
    _, said = first.communicate(timeout=30)
    assert first.returncode == 0, said


# --- interrupted ------------------------------------------------------------------------------

BLOCK = "[ -e go ] && exit 0; sleep 600 & echo $! > pid.{n}; wait"


def start_blocked(umpteen: Umpteen, *flags: str) -> subprocess.Popen[str]:
    """A job of three tasks, two at once, both with a grandchild that never ends."""
    umpteen.write("job.txt", "".join(BLOCK.format(n=n) + "\n" for n in range(3)))
    watcher = umpteen.start("run", "job.txt", "--slots", "2", *flags)
    wait_until(lambda: all((umpteen.folder / f"pid.{n}").exists() for n in range(2)))
    return watcher


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_resume_interrupted_run_ends_everything_and_goes_on_later(
    umpteen: Umpteen, number: int
) -> None:
    watcher = start_blocked(umpteen)

    code, said = interrupt(watcher, number)

    assert code == 130
    assert "interrupted. job: 3 not run" in said
    assert not list_processes(umpteen)
    seen = {(r["task"], r["state"], r["reason"]) for r in list_records(umpteen.store())}
    assert seen == {(0, "waiting", "interrupted"), (1, "waiting", "interrupted")}
    umpteen.write("go", "")
    again = umpteen("run", "job.txt")
    assert again.returncode == 0, again.stderr
    assert "3 not finished before" in again.stderr
    states = Counter(record["state"] for record in list_records(umpteen.store()))
    assert states == {"waiting": 2, "succeeded": 3}


def test_resume_interrupted_attempt_leaves_its_outputs_below_attempts(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "echo $UMPTEEN_ATTEMPT; [ -e go ] || { touch begun; sleep 600; }\n")
    watcher = umpteen.start("run", "job.txt")
    wait_until((umpteen.folder / "begun").exists)
    interrupt(watcher)
    token = list_records(umpteen.store())[0]["token"]
    umpteen.write("go", "")
    assert umpteen("run", "job.txt").returncode == 0
    assert (umpteen.store() / f"0/attempts/1-{token}/stdout").read_text() == "1\n"
    assert (umpteen.store() / "0/stdout").read_text() == "2\n"


def has_ended_when_asked_again(watcher: subprocess.Popen[str]) -> bool:
    watcher.send_signal(signal.SIGINT)
    return watcher.poll() is not None


@pytest.mark.parametrize("moved", range(5))
def test_resume_after_a_kill_while_outputs_were_set_aside_has_each_attempt_whole(
    umpteen: Umpteen, moved: int
) -> None:
    command = "echo out $UMPTEEN_ATTEMPT; echo err >&2; echo 1 > $RESULTS_DIR/$UMPTEEN_ATTEMPT"
    umpteen("run", command, "n=1", "--name", "job")
    folder = umpteen.store() / "n=1"
    left = ("stdout", "stderr", "status_code", "results")
    records = next((umpteen.store() / ".umpteen/records/1").iterdir())
    label = f"1-{records.stem.partition('-')[2]}"
    making = folder / "attempts" / f"{label}.new"
    making.mkdir(parents=True)
    for name in left[:moved]:  # as far as the lane came
        (folder / name).rename(making / name)
    umpteen("run", command, "n=1", "--name", "job", "--rerun", "all")
    assert [path.name for path in (folder / "attempts").iterdir()] == [label]
    assert sorted(path.name for path in (folder / "attempts" / label).iterdir()) == sorted(left)
    assert umpteen("logs", "job", "0", "--attempt", "1").stdout == "out 1\n"
    assert umpteen("logs", "job", "0").stdout == "out 2\n"


def test_resume_second_interrupt_kills_what_ignores_the_first(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "trap 'touch asked' TERM; touch begun; while :; do sleep 0.05; done\n")
    watcher = umpteen.start("run", "job.txt", "--grace", "10m")
    wait_until((umpteen.folder / "begun").exists)
    os.killpg(watcher.pid, signal.SIGINT)
    wait_until((umpteen.folder / "asked").exists)
    assert watcher.poll() is None
    wait_until(lambda: has_ended_when_asked_again(watcher))
    _, said = watcher.communicate(timeout=30)
    assert watcher.returncode == 130, said
    assert not list_processes(umpteen)
    assert [r["state"] for r in list_records(umpteen.store())] == ["waiting"]


def test_resume_interrupt_kills_after_the_grace(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "trap '' TERM; touch begun; while :; do sleep 0.05; done\n")
    watcher = umpteen.start("run", "job.txt", "--grace", "0.5s")
    wait_until((umpteen.folder / "begun").exists)
    code, said = interrupt(watcher)
    assert code == 130, said
    assert not list_processes(umpteen)
    assert [r["state"] for r in list_records(umpteen.store())] == ["waiting"]


def test_resume_run_under_nohup_outlives_its_terminal(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "touch begun; until [ -e go ]; do sleep 0.05; done\n")
    script = f"trap '' HUP; exec {umpteen.command[0]} run job.txt"
    watcher = subprocess.Popen(
        ["sh", "-c", script],
        cwd=umpteen.folder,
        env=umpteen.environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((umpteen.folder / "begun").exists)
    os.killpg(watcher.pid, signal.SIGHUP)
    umpteen.write("go", "")
    _, said = watcher.communicate(timeout=30)
    assert watcher.returncode == 0, said
    assert [r["state"] for r in list_records(umpteen.store())] == ["succeeded"]


def test_resume_killed_watcher_takes_its_runner_along(umpteen: Umpteen) -> None:
    watcher = start_blocked(umpteen)
    watcher.kill()
    watcher.communicate()
    wait_until(lambda: not list_processes(umpteen), 15)
    assert {r["state"] for r in list_records(umpteen.store())} == {"waiting"}


def test_resume_killed_runner_is_started_again_by_its_watcher(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", '[ -e once ] || { touch once; kill -9 "$PPID"; }; echo a >> ran\n')
    done = umpteen("run", "job.txt")
    assert done.returncode == 0, done.stderr
    assert [r["state"] for r in list_records(umpteen.store())] == ["succeeded"]


# --- killed at random -------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(10))
def test_resume_after_a_kill_at_a_random_point_has_each_success_once(
    umpteen: Umpteen, number: int
) -> None:
    point = Point(random.Random(f"{SEED}/{number}"), 300)
    faults = run_point(umpteen, point, 300)
    assert not faults, f"UMPTEEN_SWEEP_SEED={SEED}, {point}: {faults}"


def test_task_that_comes_back_to_the_job_is_known_again(umpteen: Umpteen) -> None:
    for values in ("x=1..3", "x=4..5", "x=1..5"):
        done = umpteen("run", "echo {x} >> ran", values, "--name", "job")
        assert done.returncode == 0
    assert "changed" not in done.stderr
    assert count_runs(umpteen.folder) == {str(n): 1 for n in range(1, 6)}
    status = json.loads(umpteen("status", "job", "--json").stdout)
    assert status["counts"]["succeeded"] == 5


def test_lost_task_goes_on_with_the_timeout_that_it_has_now(umpteen: Umpteen) -> None:
    task = {"name": "a", "command": "touch began; sleep 600", "timeout": "1h"}
    umpteen.write("job.json", json.dumps({"tasks": [task]}))
    umpteen("run", "job.json", "--detach", "-q")
    wait_until((umpteen.folder / "began").exists)
    for pid in find_runners(umpteen):
        os.kill(pid, signal.SIGKILL)
    umpteen.write("job.json", json.dumps({"tasks": [{**task, "timeout": 0.2}]}))
    done = umpteen("run", "job.json")
    assert done.returncode == 1
    assert "timed out" in done.stderr


def test_runner_ends_when_its_store_was_removed(umpteen: Umpteen) -> None:
    umpteen.write("job.json", json.dumps({"tasks": ["touch began; sleep 600", "true"]}))
    umpteen("run", "job.json", "--slots", "1", "--detach", "-q")
    wait_until((umpteen.folder / "began").exists)
    shutil.rmtree(umpteen.store())
    wait_until(lambda: not list_processes(umpteen))


def test_second_run_with_other_commands_says_that_they_changed(umpteen: Umpteen) -> None:
    wait = "touch began; until [ -e go ]; do sleep 0.05; done"
    first = umpteen.start("run", f"{wait}; echo A{{n}}", "n=1..2", "--name", "job")
    wait_until((umpteen.folder / "began").exists)
    second = umpteen.start("run", f"{wait}; echo B{{n}}", "n=1..2", "--name", "job")
    wait_until((umpteen.store() / ".umpteen/handed/2.json").exists)
    umpteen.write("go", "")
    for each in (first, second):
        _, said = each.communicate(timeout=60)
        assert each.returncode == 0, said
    assert "2 being run already, 2 of these changed and run again after that" in said
    assert umpteen("logs", "job", "n=1").stdout == "B1\n"
