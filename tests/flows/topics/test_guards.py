"""What ends tasks and jobs before they do harm: outputs, failures, canaries, memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.store import list_records, read_record
from tests.support.wait import wait_until
from umpteen.runner.launch import build_runner_command

PORTABLE = {"UMPTEEN_PORTABLE": "1"}
MB = 1 << 20


def run(
    umpteen: Umpteen, *tasks: Any, env: dict[str, str] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    umpteen.write("job.json", json.dumps({"tasks": tasks, **more}))
    return umpteen("run", "job.json", env=env)


def ends(store: Path) -> dict[int, tuple[str, str]]:
    """(state, reason) of the newest attempt of each task."""
    return {r["task"]: (r["state"], r.get("reason", "")) for r in list_records(store)}


# --- outputs --------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [{}, PORTABLE])
def test_output_over_its_limit_ends_the_task(umpteen: Umpteen, environment: dict[str, str]) -> None:
    endless = {"command": "yes", "output_limit": "1M"}
    done = run(umpteen, endless, {"command": "yes | head -c 1M"}, env=environment)
    assert done.returncode == 1, done.stderr
    assert ends(umpteen.store()) == {0: ("failed", "output limit"), 1: ("succeeded", "")}
    assert (umpteen.store() / "0/stdout").stat().st_size == MB
    assert (umpteen.store() / "1/stdout").stat().st_size == MB
    assert read_record(umpteen.store(), 0)["stdout_bytes"] == MB


@pytest.mark.parametrize(
    ("command", "state"),
    [
        ("head -c 1000 /dev/zero", "succeeded"),
        ("head -c 1001 /dev/zero", "failed"),
        ("head -c 1001 /dev/zero >&2", "failed"),
        ("head -c 600 /dev/zero; head -c 600 /dev/zero >&2", "failed"),
    ],
)
def test_output_limit_is_for_both_outputs_together(
    umpteen: Umpteen, command: str, state: str
) -> None:
    done = run(umpteen, {"command": command, "output_limit": 1000})
    record = read_record(umpteen.store())
    assert (record["state"], done.returncode) == (state, int(state == "failed"))
    assert all((umpteen.store() / f"0/{name}").stat().st_size <= 1000
               for name in ("stdout", "stderr"))  # fmt: skip


def test_output_limit_flag_is_for_every_task(umpteen: Umpteen) -> None:
    assert umpteen("run", "yes", "--name", "job", "--output-limit", "10K").returncode == 1
    assert (umpteen.store() / "0/stdout").stat().st_size == 10 << 10


def test_output_over_its_limit_can_be_retried(umpteen: Umpteen) -> None:
    command = "[ $UMPTEEN_ATTEMPT = 2 ] || yes"
    retries = {"when": "output_limit", "wait": 0}
    assert (
        run(umpteen, {"command": command, "output_limit": 999, "retries": retries}).returncode == 0
    )


# --- files that must be there -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "expect", "missing"),
    [
        ("touch $RESULTS_DIR/m", "results/m", ""),
        ("true", "results/m", "results/m"),
        ("touch $RESULTS_DIR/m", ["results/m", "results/n"], "results/n"),
        ("mkdir $RESULTS_DIR/d && touch $RESULTS_DIR/d/a.pt", "results/*/*.pt", ""),
        ("touch $RESULTS_DIR/a.txt", "results/*.pt", "results/*.pt"),
        ("touch made", "made", ""),
        ("touch made", "sub/made", "sub/made"),
    ],
)
def test_success_without_the_files_it_must_leave_is_a_failure(
    umpteen: Umpteen, command: str, expect: str | list[str], missing: str
) -> None:
    done = run(umpteen, {"command": command, "expect": expect})
    state = ("failed", f"did not leave {missing}") if missing else ("succeeded", "")
    assert ends(umpteen.store()) == {0: state}
    assert done.returncode == bool(missing)
    assert (umpteen.store() / "0/status_code").read_text() == "0"
    if missing:
        assert missing in done.stderr


def test_expected_file_is_looked_for_where_the_task_ran(umpteen: Umpteen) -> None:
    (umpteen.folder / "sub").mkdir()
    done = run(umpteen, {"command": "touch made", "cwd": "sub", "expect": "made"}, env=PORTABLE)
    assert done.returncode == 0, done.stderr


def test_expected_file_says_nothing_of_a_task_that_failed_anyway(umpteen: Umpteen) -> None:
    run(umpteen, {"command": "exit 3", "expect": "results/m"})
    assert ends(umpteen.store()) == {0: ("failed", "")}


def test_missing_file_can_be_retried(umpteen: Umpteen) -> None:
    command = "[ $UMPTEEN_ATTEMPT = 1 ] || touch $RESULTS_DIR/m"
    task = {"command": command, "expect": "results/m", "retries": {"wait": 0}}
    assert run(umpteen, task).returncode == 0


# --- too many failures ------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [{}, PORTABLE])
def test_nothing_more_starts_after_too_many_failures(
    umpteen: Umpteen, environment: dict[str, str]
) -> None:
    done = run(umpteen, *["exit 1"] * 30, slots=2, max_failures=3, env=environment)
    assert done.returncode == 1, done.stderr
    counts = Counter(ends(umpteen.store()).values())
    failed = counts.pop(("failed", ""))
    assert failed in (3, 4)  # one may run beside the third
    assert counts == {("cancelled", "not started after 3 failed"): 30 - failed}


def test_what_runs_after_too_many_failures_goes_on(umpteen: Umpteen) -> None:
    slow = "touch begun; until grep -q 1 umpteen-results/job/1/status_code; do sleep 0.02; done"
    wait = "until [ -e begun ]; do sleep 0.02; done; exit 1"
    assert run(umpteen, slow, wait, "true", slots=2, max_failures=1).returncode == 1
    assert [state for state, _ in ends(umpteen.store()).values()] == [
        "failed", "succeeded", "cancelled"
    ]  # fmt: skip


def test_failures_that_are_retried_are_no_failures(umpteen: Umpteen) -> None:
    task = {"command": "[ $UMPTEEN_ATTEMPT = 3 ]", "retries": {"times": 2, "wait": 0}}
    done = run(umpteen, *[task] * 5, max_failures=1)
    assert done.returncode == 0, done.stderr


def test_too_many_failures_end_the_retries_of_others(umpteen: Umpteen) -> None:
    flaky = {"command": "exit 1", "retries": {"times": 5, "wait": "1m"}}
    fails = "until [ -e umpteen-results/job/0/status_code ]; do sleep 0.02; done; exit 1"
    done = run(umpteen, flaky, fails, slots=2, max_failures=1)
    assert done.returncode == 1, done.stderr
    assert ends(umpteen.store())[1] == ("failed", "")
    assert ends(umpteen.store())[0][0] in ("failed", "cancelled")


def test_run_after_too_many_failures_does_the_rest(umpteen: Umpteen) -> None:
    command = "[ -e go ]"
    assert run(umpteen, *[command] * 9, slots=1, max_failures=2).returncode == 1
    assert len([1 for state, _ in ends(umpteen.store()).values() if state == "cancelled"]) == 7
    umpteen.write("go", "")
    assert umpteen("run", "job.json").returncode == 0


@pytest.mark.parametrize("environment", [{}, PORTABLE])
def test_fail_fast_ends_what_runs(umpteen: Umpteen, environment: dict[str, str]) -> None:
    first = "until [ -e begun ]; do sleep 0.02; done; exit 1"
    done = run(
        umpteen, first, "touch begun; sleep 600", "true", slots=2, fail_fast=True, env=environment
    )
    assert done.returncode == 1, done.stderr
    assert ends(umpteen.store()) == {
        0: ("failed", ""), 1: ("cancelled", ""), 2: ("cancelled", "not started after 1 failed")
    }  # fmt: skip


def test_failure_in_a_later_batch_stops_what_was_to_start_before_it(umpteen: Umpteen) -> None:
    """The runner has a task to start from one batch when it comes to the failure of the next."""
    assert run(umpteen, "true", slots=2, max_failures=1).returncode == 0
    folder = umpteen.store() / ".umpteen/batches"
    batch = json.loads((folder / "1.json").read_text())
    batch["umpteen"].update(batch="2", indices="1", names=["1"], extras={"0": {"gpus": 1}})
    batch["runs"][0]["remote_output_path"] = str(umpteen.store() / "1")
    (folder / "2.json").write_text(json.dumps(batch))
    shutil.rmtree(umpteen.store() / ".umpteen/records")
    done = subprocess.run(
        [*build_runner_command(), umpteen.store(), "1-2", "--strict"], check=False, timeout=60,
        env=umpteen.environment | {"UMPTEEN_GPUS": "0"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert ends(umpteen.store()) == {
        0: ("cancelled", "not started after 1 failed"),
        1: ("failed", "needs 1 gpus, and this machine has 0"),
    }


# --- canaries -----------------------------------------------------------------------------------


def write_canaries(umpteen: Umpteen) -> None:
    umpteen.write(
        "job.yaml",
        "slots: 4\n"
        "canary: 1\n"
        "tasks:\n"
        "- {name: 'a-{n}', command: 'echo a{n} >> ran; [ -e go ]', matrix: {n: 1..5}}\n"
        "- {name: 'b-{n}', command: 'echo b{n} >> ran', matrix: {n: 1..3}}\n",
    )


@pytest.mark.parametrize("environment", [{}, PORTABLE])
def test_canary_that_fails_keeps_its_template_from_running(
    umpteen: Umpteen, environment: dict[str, str]
) -> None:
    write_canaries(umpteen)
    done = umpteen("run", "job.yaml", env=environment)
    assert done.returncode == 1, done.stderr
    assert sorted((umpteen.folder / "ran").read_text().split()) == ["a1", "b1", "b2", "b3"]
    skipped = ("skipped", "after a-1, which failed")
    assert ends(umpteen.store()) == {
        0: ("failed", ""), **dict.fromkeys(range(1, 5), skipped),
        **dict.fromkeys(range(5, 8), ("succeeded", "")),
    }  # fmt: skip


def test_canary_that_succeeds_lets_the_others_follow(umpteen: Umpteen) -> None:
    write_canaries(umpteen)
    assert umpteen("run", "job.yaml").returncode == 1
    umpteen.write("go", "")
    (umpteen.folder / "ran").unlink()
    again = umpteen("run", "job.yaml")
    assert again.returncode == 0, again.stderr
    ran = (umpteen.folder / "ran").read_text().split()
    assert (ran[0], sorted(ran)) == ("a1", ["a1", "a2", "a3", "a4", "a5"])


# --- memory -------------------------------------------------------------------------------------


def _own_group() -> tuple[Path, str]:
    """The folder of the memory group this process is in, and its file for the limit."""
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for _, controllers, path in groups:
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory" + path), "memory.limit_in_bytes"
    path = next((path for _, controllers, path in groups if not controllers), "/")
    return Path("/sys/fs/cgroup" + path), "memory.max"


@pytest.fixture
def small_memory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A group of processes with 200 MB of memory, or as many as the test says."""
    own, limit = _own_group()
    group = own / f"umpteen-test-{os.getpid()}"
    try:
        group.mkdir()
        try:
            (group / limit).write_text(str(getattr(request, "param", 200) * MB))
        except OSError:
            group.rmdir()
            raise
    except OSError as error:
        pytest.skip(f"needs root and a memory cgroup to make one below: {error}")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def run_in(group: Path, umpteen: Umpteen, **env: str) -> subprocess.CompletedProcess[str]:
    """`umpteen run job.yaml` as a member of the group."""
    return subprocess.run(
        ["sh", "-c", 'echo $$ > "$0" && exec "$@"', group / "cgroup.procs",
         *umpteen.command, "run", "job.yaml"],
        cwd=umpteen.folder, env=umpteen.environment | env, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.root
@pytest.mark.parametrize("environment", [{}, PORTABLE])
def test_task_killed_for_want_of_memory_is_tried_again_alone(
    umpteen: Umpteen, small_memory: Path, environment: dict[str, str]
) -> None:
    umpteen.write(
        "hungry.py",
        "import os\nbytearray((500 if os.environ['UMPTEEN_ATTEMPT'] == '1' else 1) << 20)\n",
    )
    others = "".join(f"- {{name: t{n}, command: sleep 0.1}}\n" for n in range(8))
    umpteen.write(
        "job.yaml",
        "slots: 3\n"
        "tasks:\n"
        f"- name: hungry\n  command: [{sys.executable}, -S, hungry.py]\n"
        "  retries: {when: out_of_memory, alone: true, wait: 0}\n"
        "- {name: killer, command: kill -9 $$, retries: {when: timed_out}}\n" + others,
    )

    done = run_in(small_memory, umpteen, **environment)

    assert done.returncode == 1, done.stderr
    records = list_records(umpteen.store())
    first, second = (r for r in records if r["task"] == 0)
    assert (first["state"], first["reason"], first["signal"]) == ("failed", "out of memory", 9)
    assert (second["state"], second["attempt"]) == ("succeeded", 2)
    for other in (r for r in records if r["task"]):
        is_before = other["end_s"] <= second["start_s"] + 0.002
        assert is_before or other["start_s"] >= second["end_s"] - 0.002
    assert ends(umpteen.store())[1] == ("failed", ""), "one kill explains one death"


@pytest.mark.root
def test_task_that_timed_out_was_not_killed_for_want_of_memory(
    umpteen: Umpteen, small_memory: Path
) -> None:
    starved = f"{sys.executable} -S -c 'bytearray(500 << 20)'; true"
    stubborn = "trap '' TERM; while :; do sleep 0.05; done"
    tasks = [
        {"command": starved},
        {"command": stubborn, "timeout": 1, "retries": {"when": "timed_out", "wait": 0}},
    ]
    umpteen.write("job.yaml", json.dumps({"slots": 2, "grace": 0.2, "tasks": tasks}))

    done = run_in(small_memory, umpteen)

    assert done.returncode == 1, done.stderr
    assert "Killed" in (umpteen.store() / "0/stderr").read_text()
    records = [r for r in list_records(umpteen.store()) if r["task"] == 1]
    assert [(r["state"], r["signal"], r.get("reason", "")) for r in records] == [
        ("timed_out", 9, "")
    ] * 2


HOG = """import os, sys, time
used = next(path for name in ("memory.usage_in_bytes", "memory.current")
            if os.path.exists(path := sys.argv[1] + "/" + name))
held = []
while not os.path.exists("stop"):
    while int(open(used).read()) < 384 << 20:
        held.append(bytearray(1 << 20))
    open("full", "w").close()
    time.sleep(0.05)
"""


@pytest.fixture
def hog(umpteen: Umpteen, small_memory: Path) -> Iterator[None]:
    """A process that leaves 16 of 400 MB, and makes the file `full`, once `begun` is there."""
    umpteen.write("hog.py", HOG)
    script = 'echo $$ > "$0/cgroup.procs"; until [ -e begun ]; do sleep 0.05; done; exec "$@"'
    command = [
        "sh",
        "-c",
        script,
        *map(str, (small_memory, sys.executable, "hog.py", small_memory)),
    ]
    process = subprocess.Popen(command, cwd=umpteen.folder)
    yield
    umpteen.write("stop", "")
    umpteen.write("begun", "")
    assert process.wait(20) == 0


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("hog")
@pytest.mark.parametrize("small_memory", [400], indirect=True)
def test_tasks_start_only_one_by_one_while_memory_is_short(
    umpteen: Umpteen, small_memory: Path
) -> None:
    # What runs already goes on for long enough to be seen by a runner that looks now and then.
    waits = "touch begun; until [ -e full ]; do sleep 0.05; done; sleep 2"
    commands = [waits, waits, "sleep 0.1", "sleep 0.1"]
    umpteen.write("job.yaml", json.dumps({"slots": 2, "tasks": commands}))

    done = run_in(small_memory, umpteen)

    assert done.returncode == 0, done.stderr
    records = sorted(list_records(umpteen.store()), key=lambda r: float(r["start_s"]))
    assert sorted(record["task"] for record in records[2:]) == [2, 3]
    last_s = max(record["end_s"] for record in records[:2])
    for record in records[2:]:
        assert record["start_s"] >= last_s - 0.002
        last_s = record["end_s"]


def test_expect_finds_a_pattern_in_a_folder_whose_name_has_one_too(umpteen: Umpteen) -> None:
    task = {"name": "m[1,2]", "command": "touch $UMPTEEN_RESULTS_DIR/a.pt"}
    umpteen.write("job.json", json.dumps({"tasks": [{**task, "expect": "results/*.pt"}]}))
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
