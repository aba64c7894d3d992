"""Tasks that are after others: when they start, and when they never will."""

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
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.processes import kill
from tests.support.store import list_records
from tests.support.wait import wait_until
from umpteen.model.dependencies import link
from umpteen.planning.batch_files import LOCAL_BATCH_CAP
from umpteen.runner.launch import build_runner_command

PORTABLE = {"UMPTEEN_PORTABLE": "1"}
SEED = os.environ.get("UMPTEEN_SWEEP_SEED") or str(int(time.time()))


def task(name: str, after: Any = None, command: str = "") -> dict[str, Any]:
    """A task that leaves its name in the file `ran`."""
    made = {"name": name, "command": f"{command or 'true'} && echo {name} >> ran"}
    return made if after is None else {**made, "after": after}


def write(umpteen: Umpteen, *tasks: dict[str, Any], **more: Any) -> None:
    umpteen.write("job.json", json.dumps({"tasks": tasks, **more}))


def read_ran(umpteen: Umpteen) -> list[str]:
    path = umpteen.folder / "ran"
    return path.read_text().split() if path.exists() else []


def reasons(store: Path) -> dict[int, str]:
    """Of each task that was skipped: why."""
    return {r["task"]: r["reason"] for r in list_records(store) if r["state"] == "skipped"}


# --- order ------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [{}, PORTABLE])
def test_tasks_start_when_those_they_are_after_have_ended(
    umpteen: Umpteen, environment: dict[str, str]
) -> None:
    umpteen.write(
        "job.yaml",
        "slots: 4\n"
        "tasks:\n"
        "- {name: report, command: 'ls made.* >> ran', after: train-*}\n"
        "- name: train-{n}\n"
        "  command: '[ -e prepared ] && sleep 0.1 && touch made.{n}'\n"
        "  matrix: {n: 1..3}\n"
        "  after: prep\n"
        "- {name: prep, command: sleep 0.2; touch prepared}\n",
    )
    done = umpteen("run", "job.yaml", env=environment)
    assert done.returncode == 0, done.stderr
    assert read_ran(umpteen) == ["made.1", "made.2", "made.3"]


def test_chain_longer_than_the_slots_runs_in_order(umpteen: Umpteen) -> None:
    names = [f"t{n}" for n in range(60)]
    chain = [task(names[0]), *map(task, names[1:], names)]
    random.Random(0).shuffle(chain)
    write(umpteen, *chain, slots=8)
    assert umpteen("run", "job.json").returncode == 0
    assert read_ran(umpteen) == names


def test_waiting_tasks_leave_their_slots_to_others(umpteen: Umpteen) -> None:
    write(
        umpteen,
        task("slow", command="until [ -e go ]; do sleep 0.02; done"),
        *(task(f"after-{n}", "slow") for n in range(10)),
        task("free", command="touch go"),
        slots=2,
    )
    assert umpteen("run", "job.json").returncode == 0
    assert Counter(read_ran(umpteen)) == Counter(
        ["free", "slow", *(f"after-{n}" for n in range(10))]
    )


# --- outcomes -----------------------------------------------------------------------------------


def test_outcome_decides_who_runs_and_who_is_skipped(umpteen: Umpteen) -> None:
    write(
        umpteen,
        task("good"),
        task("bad", command="false"),
        task("slow", command="sleep 60") | {"timeout": 0.2},
        task("if-good", "good"),
        task("if-bad", "bad"),
        task("on-failure", {"bad": "failed", "slow": "failed"}),
        task("on-success-failed", {"good": "failed"}),
        task("anyway", {"bad": "any", "if-bad": "any", "good": "succeeded"}),
        task("further", "if-bad"),
    )

    done = umpteen("run", "job.json")

    assert done.returncode == 1, done.stderr
    assert sorted(read_ran(umpteen)) == ["anyway", "good", "if-good", "on-failure"]
    assert reasons(umpteen.store()) == {
        4: "after bad, which failed",
        6: "after good, which succeeded",
        8: "after if-bad, which was skipped",
    }
    assert not (umpteen.store() / "if-bad").exists()


def test_skipped_tasks_run_once_what_failed_before_them_succeeds(umpteen: Umpteen) -> None:
    write(umpteen, task("prep", command="[ -e go ]"), task("a", "prep"), task("b", "a"))
    assert umpteen("run", "job.json").returncode == 1
    assert read_ran(umpteen) == []
    umpteen.write("go", "")
    again = umpteen("run", "job.json")
    assert again.returncode == 0, again.stderr
    assert read_ran(umpteen) == ["prep", "a", "b"]


def test_task_after_one_that_is_retried_waits_for_its_last_attempt(umpteen: Umpteen) -> None:
    flaky = task("flaky", command="[ $UMPTEEN_ATTEMPT = 3 ]")
    write(
        umpteen,
        {**flaky, "retries": {"times": 2, "wait": 0}},
        task("if-good", "flaky"),
        task("if-bad", {"flaky": "failed"}),
    )
    assert umpteen("run", "job.json").returncode == 1
    assert read_ran(umpteen) == ["flaky", "if-good"]
    assert reasons(umpteen.store()) == {2: "after flaky, which succeeded"}


# --- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([task("a", "b"), task("b", "c"), task("c", "a")], "a after b after c after a"),
        ([task("a", "a")], "a after a"),
        ([task("prep"), task("a", "perp")], "after 'perp': there is no task of that name"),
        ([task("prep"), task("a", "x-*")], "after 'x-*': no task's name is like that"),
    ],
)
def test_dependencies_that_cannot_be_are_refused_before_anything_runs(
    umpteen: Umpteen, tasks: list[dict[str, Any]], said: str
) -> None:
    write(umpteen, *tasks)
    done = umpteen("run", "job.json")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "job.json" in done.stderr
    assert not umpteen.store().exists()


# --- over batches and runners -----------------------------------------------------------------


@pytest.mark.slow
def test_dependencies_reach_into_another_batch(umpteen: Umpteen) -> None:
    many = [{"name": f"t{n}", "command": "/bin/true"} for n in range(LOCAL_BATCH_CAP - 2)]
    write(
        umpteen,
        task("prep", command="sleep 0.3"),
        task("bad", command="false"),
        *many,
        task("last", ["prep", "t*"]),
        task("skipped", "bad"),
        task("cleanup", {"bad": "failed"}),
        slots=4,
    )
    done = umpteen("run", "job.json", timeout_s=120)
    assert done.returncode == 1, done.stderr
    assert len(list(umpteen.store().glob(".umpteen/batches/*.json"))) == 2
    assert sorted(read_ran(umpteen)) == ["cleanup", "last", "prep"]
    assert read_ran(umpteen).index("prep") < read_ran(umpteen).index("last")
    assert reasons(umpteen.store()) == {LOCAL_BATCH_CAP + 1: "after bad, which failed"}
    last = {r["task"]: r for r in list_records(umpteen.store())}[LOCAL_BATCH_CAP]
    assert all(r["end_s"] <= last["start_s"] + 0.002 for r in list_records(umpteen.store())
               if r["task"] < LOCAL_BATCH_CAP)  # fmt: skip


@pytest.mark.parametrize("is_good", [True, False])
def test_tasks_added_while_the_job_runs_wait_for_those_that_run(
    umpteen: Umpteen, is_good: bool
) -> None:
    wait = "touch begun; until [ -e go ]; do sleep 0.02; done; [ -e good ]"
    write(umpteen, task("slow", command=wait), task("next", "slow"))
    first = umpteen.start("run", "job.json")
    wait_until((umpteen.folder / "begun").exists)
    write(
        umpteen, task("slow", command=wait), task("next", "slow"), task("new", ["slow", "next"]),
        task("on-failure", {"slow": "failed"}),
    )  # fmt: skip
    second = umpteen.start("run", "job.json")
    wait_until(lambda: list(umpteen.store().glob(".umpteen/records/2/*.jsonl")))
    if is_good:
        umpteen.write("good", "")
    umpteen.write("go", "")

    said = [run.communicate(timeout=60)[1] for run in (first, second)]

    assert [first.returncode, second.returncode] == [1, 1], said
    if is_good:
        assert read_ran(umpteen) == ["slow", "next", "new"]
        assert reasons(umpteen.store()) == {3: "after slow, which succeeded"}
    else:
        assert read_ran(umpteen) == ["on-failure"]
        assert reasons(umpteen.store())[1] == "after slow, which failed"
        assert reasons(umpteen.store())[2] in (
            "after slow, which failed", "after next, which was skipped"
        )  # fmt: skip


def put_batch(
    umpteen: Umpteen, number: int, name: str, command: str, *, count: int = 1, **own: Any
) -> None:
    """One more batch, like the first, for runners that are started by hand."""
    folder = umpteen.store() / ".umpteen/batches"
    batch = json.loads((folder / "1.json").read_text())
    output = str(umpteen.store() / name)
    batch["runs"] = [
        {"cmd": f"{command}; echo {name} >> ran", "remote_output_path": f"{output}{n or ''}"}
        for n in range(count)
    ]
    indices = f"{number - 1}-{number - 2 + count}"
    batch["umpteen"].update(batch=str(number), indices=indices, names=[name] * count, **own)
    (folder / f"{number}.json").write_text(json.dumps(batch))


def put_two_batches(umpteen: Umpteen) -> Path:
    """A store with batches that have never run; `new` of batch 2 is after `slow` of batch 1."""
    write(umpteen, {"name": "slow", "command": "true"}, slots=1)
    assert umpteen("run", "job.json").returncode == 0
    shutil.rmtree(umpteen.store() / ".umpteen/records")
    put_batch(umpteen, 1, "slow", "touch begun; until [ -e go ]; do sleep 0.02; done")
    put_batch(umpteen, 2, "new", "true", graph=True, after=[link(0)], waits=["1"])
    return umpteen.store()


def start_runner(umpteen: Umpteen, batches: str, **env: str) -> subprocess.Popen[str]:
    """A runner of these batches of the job's store."""
    return subprocess.Popen(
        [*build_runner_command(), umpteen.store(), batches],
        cwd=umpteen.folder, env=umpteen.environment | env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def expect_both_to_end(first: subprocess.Popen[str], second: subprocess.Popen[str]) -> None:
    """The second is told to look once the first has ended, which it else does now and then."""
    _, said = first.communicate(timeout=60)
    assert first.returncode == 0, said
    second.send_signal(signal.SIGUSR1)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 0, said


def test_runner_waits_for_a_batch_of_its_own_list_that_another_has(umpteen: Umpteen) -> None:
    store = put_two_batches(umpteen)
    first = start_runner(umpteen, "1")
    wait_until((umpteen.folder / "begun").exists)
    second = start_runner(umpteen, "1-2")
    wait_until(lambda: list(store.glob(".umpteen/records/2/*.jsonl")))
    umpteen.write("go", "")
    expect_both_to_end(first, second)
    assert read_ran(umpteen) == ["slow", "new"]


def test_runner_waits_for_a_batch_that_another_has_not_come_to(umpteen: Umpteen) -> None:
    store = put_two_batches(umpteen)
    # A runner of the same store that is at something else, and has batch 1 still before it.
    wait = "touch other; until [ -e on ]; do sleep 0.02; done"
    put_batch(umpteen, 3, "other", wait, count=3, max_failures=9)  # so no other is opened early
    first = start_runner(umpteen, "3,1")
    wait_until((umpteen.folder / "other").exists)
    second = start_runner(umpteen, "2", UMPTEEN_STORE_PATIENCE_S="0")
    wait_until(lambda: list(store.glob(".umpteen/records/2/*.jsonl")))
    for name in ("on", "go"):
        umpteen.write(name, "")
    expect_both_to_end(first, second)
    assert read_ran(umpteen) == ["other", "other", "other", "slow", "new"]


def test_runner_gives_up_on_a_batch_that_nobody_runs(umpteen: Umpteen) -> None:
    store = put_two_batches(umpteen)
    runner = start_runner(umpteen, "2", UMPTEEN_STORE_PATIENCE_S="0")
    _, said = runner.communicate(timeout=60)
    assert runner.returncode == 0, said
    assert not read_ran(umpteen)
    assert not list_records(store)
    assert list(store.glob(".umpteen/records/2/*.jsonl"))


# --- killed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(4))
def test_graph_killed_at_a_random_point_is_run_to_its_end_in_order(
    umpteen: Umpteen, number: int
) -> None:
    chance = random.Random(f"{SEED}/{number}")
    names = [f"t{n:02}" for n in range(60)]
    before = {name: chance.sample(names[:n], min(n, 2)) for n, name in enumerate(names)}
    check = "for b in {}; do [ -e done.$b ] || exit 9; done; sleep 0.01; touch done.{}"
    tasks = [
        task(name, before[name] or None, check.format(" ".join(before[name]), name))
        for name in names
    ]
    chance.shuffle(tasks)
    write(umpteen, *tasks, slots=4)
    watcher = umpteen.start("run", "job.json", "-q")
    until, target = chance.randrange(1, 50), chance.choice(["runner", "both"])
    wait_until(lambda: len(read_ran(umpteen)) >= until or watcher.poll() is not None)
    kill(umpteen, watcher, target)
    watcher.communicate(timeout=60)

    again = umpteen("run", "job.json")

    where = f"UMPTEEN_SWEEP_SEED={SEED}, {target} killed after {until}"
    assert again.returncode == 0, where + again.stderr
    ends = [(r["task"], r["state"]) for r in list_records(umpteen.store())]
    ends = sorted((index, state) for index, state in ends if state != "waiting")  # was ended
    assert ends == [(index, "succeeded") for index in range(60)], where


def test_interrupted_chain_goes_on_with_the_next_run(umpteen: Umpteen) -> None:
    wait = "touch begun; [ -e go ] || sleep 600"
    write(umpteen, task("a"), task("b", "a", wait), task("c", "b"))
    watcher = umpteen.start("run", "job.json")
    wait_until((umpteen.folder / "begun").exists)
    os.killpg(watcher.pid, signal.SIGINT)
    assert watcher.wait(30) == 130
    watcher.communicate()
    assert not reasons(umpteen.store())
    umpteen.write("go", "")
    assert umpteen("run", "job.json").returncode == 0
    assert read_ran(umpteen) == ["a", "b", "c"]
