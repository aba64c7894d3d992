"""What tasks need of a machine: never more at once than it has."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.store import list_records
from umpteen.runner.launch import build_runner_command
from umpteen.system.resources import read_capacity

PORTABLE = {"UMPTEEN_PORTABLE": "1"}
CORES = read_capacity().cpus
# Each takes what it was given by making a folder, which fails where another has it.
HOLD = "mkdir {0} || exit 9; sleep 0.05; rmdir {0}"
HOLD_DEVICES = (
    "set -- $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); echo $CUDA_VISIBLE_DEVICES;"
    " for d; do mkdir gpu.$d || exit 9; done; sleep 0.1; for d; do rmdir gpu.$d; done"
)


def run(
    umpteen: Umpteen, *tasks: dict[str, Any], env: dict[str, str] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    umpteen.write("job.json", json.dumps({"tasks": tasks, **more}))
    return umpteen("run", "job.json", env=env)


def stdouts(umpteen: Umpteen, count: int) -> list[str]:
    return [(umpteen.store() / f"{n}/stdout").read_text().strip() for n in range(count)]


def list_overlaps(umpteen: Umpteen) -> list[tuple[int, int]]:
    """Pairs of tasks that ran at the same time for more than the clock's own error."""
    records = list_records(umpteen.store())
    return [
        (one["task"], other["task"])
        for place, one in enumerate(records)
        for other in records[place + 1 :]
        if min(one["end_s"], other["end_s"]) - max(one["start_s"], other["start_s"]) > 0.01
    ]


# --- GPUs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [{}, PORTABLE])
def test_gpus_of_tasks_that_run_together_are_never_the_same(
    umpteen: Umpteen, environment: dict[str, str]
) -> None:
    tasks = [{"command": HOLD_DEVICES, "gpus": 1 + (n % 4 == 3)} for n in range(8)]
    done = run(umpteen, *tasks, slots=4, env={"UMPTEEN_GPUS": "2", **environment})
    assert done.returncode == 0, done.stderr
    seen = stdouts(umpteen, 8)
    assert [text for text in seen if text == "0,1"] == [seen[3], seen[7]]
    assert set(seen) == {"0", "1", "0,1"}
    assert list_overlaps(umpteen), "two at a time is what two devices are for"


def test_gpus_are_called_what_the_machine_calls_them(umpteen: Umpteen) -> None:
    tasks = [{"command": HOLD_DEVICES, "gpus": 1} for _ in range(4)]
    done = run(umpteen, *tasks, slots=4, env={"CUDA_VISIBLE_DEVICES": "GPU-a,7"})
    assert done.returncode == 0, done.stderr
    assert set(stdouts(umpteen, 4)) == {"GPU-a", "7"}


def test_gpus_not_asked_for_leave_the_environment_alone(umpteen: Umpteen) -> None:
    show = "echo ${CUDA_VISIBLE_DEVICES-unset}"
    own = {"command": show, "gpus": 1, "env": {"CUDA_VISIBLE_DEVICES": "9"}}
    done = run(umpteen, {"command": show}, own, env={"UMPTEEN_GPUS": "2"})
    assert done.returncode == 0, done.stderr
    assert stdouts(umpteen, 2) == ["unset", "9"]


# --- cores, memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [{}, PORTABLE])
def test_tasks_that_need_all_cores_run_one_at_a_time(
    umpteen: Umpteen, environment: dict[str, str]
) -> None:
    tasks = [{"command": HOLD.format("cores"), "cpus": CORES} for _ in range(6)]
    done = run(umpteen, *tasks, slots=4, env=environment)
    assert done.returncode == 0, done.stderr
    assert list_overlaps(umpteen) == []


def test_task_that_says_nothing_takes_one_core_beside_those_that_do(umpteen: Umpteen) -> None:
    tasks = [{"command": "sleep 0.1"}] * 3
    done = run(umpteen, {"command": "sleep 0.3", "cpus": CORES}, *tasks, slots=CORES + 4)
    assert done.returncode == 0, done.stderr
    assert not [pair for pair in list_overlaps(umpteen) if 0 in pair]


def test_cpus_flag_is_for_every_task(umpteen: Umpteen) -> None:
    done = umpteen(
        "run", HOLD.format("cores") + " # {n}", "n=1..4", "--cpus", str(CORES), "--slots", "4"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("share", "can_overlap"), [(0.6, False), (0.4, True)])
def test_memory_of_tasks_that_run_together_is_what_the_machine_has(
    umpteen: Umpteen, share: float, can_overlap: bool
) -> None:
    memory = int(read_capacity().memory * share)
    tasks = [{"command": "sleep 0.2", "memory": memory} for _ in range(4)]
    assert run(umpteen, *tasks, slots=4).returncode == 0
    assert bool(list_overlaps(umpteen)) == can_overlap


def test_small_tasks_use_what_a_big_one_leaves(umpteen: Umpteen) -> None:
    memory = int(read_capacity().memory * 0.6)
    wait = "until [ -e small ]; do sleep 0.02; done"
    tasks = [{"command": wait, "memory": memory}, {"command": "true", "memory": memory}]
    assert run(umpteen, *tasks, {"command": "touch small"}, slots=2).returncode == 0
    ended = [record["task"] for record in list_records(umpteen.store())]
    assert (set(ended[:2]), ended[2]) == ({0, 2}, 1)  # the first two may end at once


# --- what cannot be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "said", "hint"),
    [
        ({"cpus": CORES + 1}, f"needs {CORES + 1} cpus", f"or --cpus {CORES} for all tasks"),
        ({"gpus": 3}, "needs 3 gpus", "UMPTEEN_GPUS says"),
        ({"memory": "900T"}, "memory", "M for all tasks"),
    ],
)
def test_task_that_this_machine_has_no_room_for_is_refused(
    umpteen: Umpteen, needs: dict[str, Any], said: str, hint: str
) -> None:
    tasks = [{"command": "touch ran"}, {"name": "big", "command": "true", **needs}]
    done = run(umpteen, *tasks, env={"UMPTEEN_GPUS": "2"})
    assert done.returncode == 2, done.stderr
    assert "'big'" in done.stderr
    assert said in done.stderr
    assert hint in done.stderr.partition("hint: ")[2]
    assert not (umpteen.folder / "ran").exists()


def test_task_that_another_machine_has_no_room_for_fails_there(umpteen: Umpteen) -> None:
    tasks: list[dict[str, Any]] = [
        {"name": "big", "command": "true", "gpus": 2},
        {"name": "next", "command": "true", "after": "big"},
        {"name": "free", "command": "true"},
    ]
    assert run(umpteen, *tasks, env={"UMPTEEN_GPUS": "2"}).returncode == 0
    shutil.rmtree(umpteen.store() / ".umpteen/records")
    runner = subprocess.run(
        [*build_runner_command(), umpteen.store(), "1", "--strict"], check=False, timeout=60,
        env=umpteen.environment | {"UMPTEEN_GPUS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert runner.returncode == 1, runner.stderr
    ends = {r["task"]: (r["state"], r.get("reason", "")) for r in list_records(umpteen.store())}
    assert ends == {
        0: ("failed", "needs 2 gpus, and this machine has 1"),
        1: ("skipped", "after big, which failed"),
        2: ("succeeded", ""),
    }


# --- order ------------------------------------------------------------------------------------


def test_priority_holds_for_what_was_waiting_for_others(umpteen: Umpteen) -> None:
    lows = "".join(f"- {{name: low-{n}, command: echo low >> ran}}\n" for n in range(20))
    umpteen.write(
        "job.yaml",
        "slots: 1\ntasks:\n"
        "- {name: prep, command: sleep 0.1; echo prep >> ran}\n"
        + lows
        + "- {name: high, command: echo high >> ran, priority: 9, after: prep}\n",
    )
    assert umpteen("run", "job.yaml").returncode == 0
    assert (umpteen.folder / "ran").read_text().split() == ["prep", "high", *["low"] * 20]


def test_priority_decides_who_goes_first(umpteen: Umpteen) -> None:
    umpteen.write(
        "job.yaml",
        "slots: 1\n"
        "tasks:\n"
        "- {name: low, command: echo low >> ran, priority: -1}\n"
        "- {name: plain, command: echo plain >> ran}\n"
        "- {name: high, command: echo high >> ran, priority: 5}\n"
        "- {name: last, command: echo last >> ran, priority: 9, after: needed}\n"
        "- {name: needed, command: echo needed >> ran, priority: -5}\n",
    )
    assert umpteen("run", "job.yaml").returncode == 0
    ran = (umpteen.folder / "ran").read_text().split()
    assert [name for name in ran if name != "last"] == ["needed", "high", "plain", "low"]
