"""Jobs in Slurm's queue, and what becomes of them when parts of it die."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.slurm import PROGRAMS, SlurmCluster
from tests.support.store import list_records
from tests.support.wait import wait_until

WAIT = "until [ -e go ]; do sleep 0.05; done"
# Fails as Slurm does when it is busy, every other time, and writes down each call.
BUSY = """#!/bin/sh
echo "{name} $*" >> {folder}/calls
if mkdir {folder}/{name}.busy 2>/dev/null; then
    echo "{name}: error: Socket timed out on send/recv operation" >&2
    exit 1
fi
rmdir {folder}/{name}.busy
exec {program} "$@"
"""
COUNTING = """#!/bin/sh
echo {name} >> {folder}/calls
exec {program} "$@"
"""


@pytest.fixture
def own_slurm(
    need: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlurmCluster]:
    """A Slurm of this test's own: one node, arrays of three elements at most."""
    for program in PROGRAMS:
        need(program)
    cluster = SlurmCluster(nodes=1, array_size=3)
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def write_job(umpteen: Umpteen, *tasks: Any, options: Any = None, **settings: Any) -> None:
    """`job.json` for Slurm."""
    listed = [{"command": task} if isinstance(task, str) else task for task in tasks]
    content = {"executor": {"slurm": options or {}}, "tasks": listed, **settings}
    umpteen.write("job.json", json.dumps(content))


def states(umpteen: Umpteen) -> Counter[str]:
    counts = json.loads(umpteen("status", "job", "--json").stdout)["counts"]
    return Counter({state: count for state, count in counts.items() if count})


def finish(running: subprocess.Popen[str], code: int = 0, limit_s: float = 60) -> str:
    """What it says on stderr until it ends with that code."""
    _, said = running.communicate(timeout=limit_s)
    assert running.returncode == code, said
    return said


def list_arrays(cluster: SlurmCluster) -> list[tuple[str, str, str]]:
    """(number, CPUs, memory) of each element that Slurm knows, in its order."""
    asked = ("squeue", "-hr", "--states=all", "--sort=i", "-o", "%F|%c|%m")
    lines = cluster.ask(*asked).stdout.splitlines()
    return [tuple(line.split("|")) for line in lines]  # type: ignore[misc]


def list_queued(cluster: SlurmCluster) -> set[str]:
    """The numbers of the arrays that wait or run."""
    return set(cluster.ask("squeue", "-h", "-o", "%F").stdout.split())


def wrap(folder: Path, need: Callable[[str], str], text: str, *names: str) -> dict[str, str]:
    """The environment in which these commands of Slurm go through such a script."""
    folder.mkdir()
    for name in names:
        script = folder / name
        script.write_text(text.format(name=name, folder=folder, program=need(name)))
        script.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


# --- where and how it runs ------------------------------------------------------------------------


def test_job_runs_on_the_nodes(umpteen: Umpteen, slurm: SlurmCluster) -> None:
    options = {"partition": "main", "time": "10:00", "mem": "100M", "comment": "it's $HOME"}
    write_job(umpteen, "echo $SLURMD_NODENAME $SLURM_JOB_PARTITION", "exit 3", options=options)
    done = umpteen("run", "job.json")
    assert done.returncode == 1, done.stderr
    assert "on slurm" in done.stderr
    assert (umpteen.store() / "0/stdout").read_text() in ("n1 main\n", "n2 main\n")
    assert (umpteen.store() / "1/status_code").read_text() == "3"
    assert umpteen("logs", "job", "0").stdout.endswith("main\n")
    write_job(umpteen, "echo $SLURMD_NODENAME $SLURM_JOB_PARTITION", "true", options=options)
    assert umpteen("run", "job.json").returncode == 0
    assert len(list_records(umpteen.store())) == 3
    assert len(list_arrays(slurm)) >= 3


def test_hostile_results_folder_is_found_on_nodes(
    umpteen: Umpteen, slurm: SlurmCluster, tmp_path: Path
) -> None:
    del slurm
    folder = tmp_path / 'it\'s a "bad" %A name; $HOME `id` * ünï 名'
    done = umpteen("run", "echo a", "--executor", "slurm", "--results", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "0/stdout").read_text() == "a\n"


def test_tasks_that_need_the_same_are_one_array_and_their_needs_are_asked_for(
    umpteen: Umpteen, slurm: SlurmCluster
) -> None:
    small = [{"command": "true"} for _ in range(3)]
    large = [{"command": "nproc; echo $SLURM_CPUS_PER_TASK", "cpus": 2, "memory": "300M"}]
    before = len(list_arrays(slurm))
    write_job(umpteen, *small, *large, batch_size=1)
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    arrays = list_arrays(slurm)[before:]
    assert Counter(cpus for _, cpus, _ in arrays) == {"1": 3, "2": 1}
    assert len({number for number, _, _ in arrays}) == 2
    assert [memory for _, cpus, memory in arrays if cpus == "2"] == ["300M"]
    assert (umpteen.store() / "3/stdout").read_text().endswith("2\n")


def test_only_tasks_that_need_much_are_in_batches_that_ask_for_much(
    umpteen: Umpteen, slurm: SlurmCluster
) -> None:
    before = len(list_arrays(slurm))
    tasks = [{"command": "echo $SLURM_CPUS_PER_TASK", "cpus": 1 + n % 2} for n in range(8)]
    write_job(umpteen, *tasks, batch_size=4)
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    assert sorted(cpus for _, cpus, _ in list_arrays(slurm)[before:]) == ["1", "2"]
    said = [(umpteen.store() / str(n) / "stdout").read_text() for n in range(8)]
    assert said == ["1\n", "2\n"] * 4


def test_task_says_what_only_slurm_is_to_know(umpteen: Umpteen, slurm: SlurmCluster) -> None:
    for_all = {"partition": "main", "time": "10:00", "comment": "all"}
    own = {"time": "7:00", "job_name": "mine"}
    write_job(umpteen, "true", {"command": "true", "slurm": own}, "true", options=for_all)
    done = umpteen("run", "job.json", "--batch-size", "9")
    assert done.returncode == 0, done.stderr
    asked = ("squeue", "-hr", "--states=all", "--sort=-i", "-O", "TimeLimit:|,Comment:|,Name:|")
    newest = [line.split("|") for line in slurm.ask(*asked).stdout.splitlines()[:2]]
    for_all_of_it, of_one = sorted(newest)
    assert for_all_of_it[:2] == ["10:00", "all"]
    assert (of_one[0], of_one[2]) == ("7:00", "mine")
    assert of_one[1].startswith("all job-")
    own["time"] = "8:00"  # what is done is not run again for that
    write_job(umpteen, "true", {"command": "true", "slurm": own}, "true", options=for_all)
    assert umpteen("run", "job.json").returncode == 0
    assert len(list_records(umpteen.store())) == 3
    write_job(umpteen, {"command": "echo here", "slurm": own})
    job = json.loads((umpteen.folder / "job.json").read_text())
    umpteen.write("job.json", json.dumps({**job, "executor": "local"}))
    assert umpteen("run", "job.json").returncode == 0  # others are not told
    assert (umpteen.store() / "0/stdout").read_text() == "here\n"


def test_misspelt_option_of_a_task_is_named_with_its_line(umpteen: Umpteen) -> None:
    umpteen.write("job.yaml", "executor: local\ntasks:\n- command: a\n  slurm: {tyme: 5}\n")
    refused = umpteen("run", "job.yaml")
    assert refused.returncode == 2
    said = "job.yaml, line 4: task 0: the executor 'slurm' has no option 'tyme'"
    assert said in refused.stderr
    assert "did you mean 'time'?" in refused.stderr


def test_dependencies_are_kept_and_are_slurms_own(umpteen: Umpteen, slurm: SlurmCluster) -> None:
    first = {"name": "a", "command": f"{WAIT}; touch a"}
    # As many as the cluster has cores, or one batch would have all of it.
    middle = [
        {"name": f"b-{n}", "command": f"test -e a; echo b >> order; exit {n % 2}", "after": "a"}
        for n in range(12)
    ]
    last = {"name": "last", "command": "cat order", "after": {"b-*": "any"}}
    write_job(umpteen, first, *middle, last, batch_size=1)
    running = umpteen.start("run", "job.json")
    asked = ("squeue", "-h", "--states=PENDING", "-o", "%r %E")
    waiting = wait_until(
        lambda: [
            line for line in slurm.ask(*asked).stdout.splitlines() if line.startswith("Dependency")
        ]
    )
    assert all("afterany:" in line for line in waiting)
    umpteen.write("go", "")
    finish(running, 1)
    assert (umpteen.store() / "last/stdout").read_text() == "b\n" * 12
    assert states(umpteen) == {"succeeded": 8, "failed": 6}


def test_arrays_are_as_large_as_the_cluster_takes_them(
    umpteen: Umpteen, own_slurm: SlurmCluster
) -> None:
    write_job(umpteen, *("true" for _ in range(7)), batch_size=1)
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    numbers = Counter(number for number, _, _ in list_arrays(own_slurm))
    assert sorted(numbers.values()) == [1, 3, 3]
    assert states(umpteen) == {"succeeded": 7}


def test_dry_run_shows_the_arrays_and_submits_nothing(
    umpteen: Umpteen, own_slurm: SlurmCluster
) -> None:
    # As many as the cluster has cores, or one batch would have all of it.
    small = [{"name": f"s-{n}", "command": "true"} for n in range(12)]
    large = {"name": "large", "command": "true", "cpus": 2, "after": "s-*"}
    options = {"time": "30m", "mem": "100M"}
    write_job(umpteen, *small, large, batch_size=1, options=options)
    done = umpteen("run", "job.json", "--dry-run")
    assert done.returncode == 0, done.stderr
    *_, last, total, limits, scripts = done.stdout.splitlines()
    assert last == "  array 4   1 element, of each 2 cpus, mem=100M, time=30:00"
    assert total == "  in all    13 elements, at most 7 core-hours"
    assert limits.endswith("MaxArraySize makes several arrays of one")
    assert scripts == "  scripts   are shown by --json"
    requests = json.loads(umpteen("run", "job.json", "--dry-run", "--json").stdout)["requests"]
    found = [request["facts"].get("elements") for request in requests]
    assert found == [3, 3, 3, 3, 1, 13, None]
    assert requests[-1]["facts"]["MaxArraySize"] == 3
    assert "#SBATCH --dependency=afterany:ARRAY0:ARRAY1:" in requests[4]["script"]
    assert not umpteen.store().exists()
    assert list_arrays(own_slurm) == []


def test_dry_run_without_slurm_shows_the_plan(umpteen: Umpteen, tmp_path: Path) -> None:
    write_job(umpteen, "true")
    done = umpteen("run", "job.json", "--dry-run", env={"PATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("would run 1 of 1 tasks: 1 new\n")
    assert "queue     not known: there is no sinfo here" in done.stdout


# --- waiting, coming back, cancelling -------------------------------------------------------------


def test_waiting_job_says_why_and_is_cancelled(umpteen: Umpteen, slurm: SlurmCluster) -> None:
    write_job(umpteen, "true", "true", options={"partition": "closed"}, batch_size=1)
    assert umpteen("run", "job.json", "--detach").returncode == 0
    status = umpteen("status", "job")
    words = "waiting in Slurm's queue: its partition is down (PartitionDown)"
    assert words in status.stdout
    assert f"  queue     {words}\n" in umpteen("why", "job", "1").stdout
    done = umpteen("cancel", "job")
    assert done.returncode == 0, done.stderr
    assert states(umpteen) == {"cancelled": 2}
    assert slurm.ask("squeue", "-h").stdout == ""


def test_running_job_is_cancelled_with_all_that_it_started(
    umpteen: Umpteen, slurm: SlurmCluster
) -> None:
    write_job(umpteen, "trap 'echo asked; exit 0' TERM; touch begun; sleep 600 & wait", "true")
    assert umpteen("run", "job.json", "--detach").returncode == 0
    wait_until((umpteen.folder / "begun").exists)
    began_s = time.monotonic()
    assert umpteen("cancel", "job").returncode == 0
    assert time.monotonic() - began_s < 20
    assert (umpteen.store() / "0/stdout").read_text() == "asked\n"
    assert states(umpteen)["cancelled"] >= 1
    wait_until(lambda: not slurm.ask("squeue", "-h").stdout)


def test_job_goes_on_without_its_client_and_is_collected(
    umpteen: Umpteen, slurm: SlurmCluster
) -> None:
    del slurm
    write_job(umpteen, f"touch begun; {WAIT}", "false")
    running = umpteen.start("run", "job.json")
    wait_until((umpteen.folder / "begun").exists)
    running.kill()
    running.communicate()
    umpteen.write("go", "")
    done = umpteen("collect", "job")
    assert done.returncode == 1, done.stderr
    assert states(umpteen) == {"succeeded": 1, "failed": 1}
    assert umpteen("retry", "job").returncode == 1
    assert len(list_records(umpteen.store())) == 3


# --- when something dies, or is asked too much ----------------------------------------------------


def test_slurmctld_and_slurmd_may_be_killed(umpteen: Umpteen, own_slurm: SlurmCluster) -> None:
    write_job(umpteen, f"echo a >> ran; {WAIT}", "echo b >> ran", batch_size=1, slots=1)
    running = umpteen.start("run", "job.json")
    wait_until((umpteen.folder / "ran").exists)
    own_slurm.save()
    own_slurm.kill("slurmctld")
    assert "1 running" in umpteen("status", "job").stdout
    own_slurm.kill("n1")
    own_slurm.start_node_alone("n1")
    own_slurm.start_controller()
    umpteen.write("go", "")
    finish(running)
    assert Counter((umpteen.folder / "ran").read_text().split()) == {"a": 1, "b": 1}
    assert states(umpteen) == {"succeeded": 2}


def test_requeued_batch_does_what_is_left(umpteen: Umpteen, slurm: SlurmCluster) -> None:
    write_job(umpteen, "echo a >> ran", f"echo b >> ran; {WAIT}", batch_size=2)
    running = umpteen.start("run", "job.json")
    wait_until(
        lambda: (
            "b"
            in ((umpteen.folder / "ran").read_text() if (umpteen.folder / "ran").exists() else "")
        )
    )
    (number,) = list_queued(slurm)
    assert slurm.ask("scontrol", "requeue", f"{number}_0").returncode == 0
    wait_until(lambda: slurm.ask("squeue", "-h", "-o", "%T").stdout == "PENDING\n")
    umpteen.write("go", "")
    finish(running)
    assert (umpteen.folder / "ran").read_text().split() == ["a", "b", "b"]
    assert states(umpteen) == {"succeeded": 2}


def test_batch_that_its_time_limit_ends_is_gone_on_with(
    umpteen: Umpteen, slurm: SlurmCluster
) -> None:
    tasks = "echo a >> ran", f"echo b >> ran; {WAIT}"
    write_job(umpteen, *tasks, options={"time": 1}, batch_size=2)
    running = umpteen.start("run", "job.json")
    first = wait_until(lambda: list_queued(slurm))
    wait_until(lambda: list_queued(slurm) - first, 90)
    umpteen.write("go", "")
    finish(running)
    ran = (umpteen.folder / "ran").read_text().split()  # on a busy machine b began only once
    assert (ran[0], set(ran[1:])) == ("a", {"b"})
    assert states(umpteen) == {"succeeded": 2}


def test_job_cancelled_in_slurm_ends_the_run_and_is_gone_on_with(
    umpteen: Umpteen, slurm: SlurmCluster
) -> None:
    write_job(umpteen, f"touch begun; {WAIT}")
    running = umpteen.start("run", "job.json")
    wait_until((umpteen.folder / "begun").exists)
    (number,) = list_queued(slurm)
    slurm.ask("scancel", number)
    said = finish(running, 3)
    assert f"the Slurm job {number}_0 was cancelled in Slurm" in said
    umpteen.write("go", "")
    assert umpteen("collect", "job").returncode == 0
    assert states(umpteen) == {"succeeded": 1}


def test_commands_that_slurm_does_not_answer_are_run_again(
    umpteen: Umpteen, slurm: SlurmCluster, tmp_path: Path, need: Callable[[str], str]
) -> None:
    before = len(list_arrays(slurm))
    busy = wrap(tmp_path / "busy", need, BUSY, "sbatch", "squeue", "scontrol", "sinfo")
    write_job(umpteen, "echo a >> ran")
    done = umpteen("run", "job.json", env=busy)
    assert done.returncode == 0, done.stderr
    assert (umpteen.folder / "ran").read_text() == "a\n"
    assert len(list_arrays(slurm)) == before + 1


def test_thousand_tasks_cost_few_calls(
    umpteen: Umpteen, slurm: SlurmCluster, tmp_path: Path, need: Callable[[str], str]
) -> None:
    del slurm
    counting = wrap(tmp_path / "count", need, COUNTING, "sbatch", "squeue", "scontrol", "sinfo")
    done = umpteen(
        "run",
        "true {n}",
        "n=1..1000",
        "--executor",
        "slurm",
        "--slots",
        "4",
        "--batch-size",
        "125",
        "--name",
        "job",
        env=counting,
        timeout_s=120,
    )
    assert done.returncode == 0, done.stderr
    calls = Counter((tmp_path / "count/calls").read_text().split())
    assert calls["sbatch"] == calls["scontrol"] == 1
    assert calls["sinfo"] <= 2
    assert calls["squeue"] <= 60, calls


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({"partytion": "main"}, "did you mean 'partition'?"),
        ({"time": "ten minutes"}, "'ten minutes' of 'time' is no time that Slurm knows"),
        ({"nodes": 2}, "each batch runs on one node"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_made(
    umpteen: Umpteen, options: dict[str, Any], needle: str
) -> None:
    write_job(umpteen, "true", options=options)
    done = umpteen("run", "job.json")
    assert done.returncode == 2
    assert needle in done.stderr
    assert not umpteen.store().exists()


def test_refusal_of_sbatch_is_shown_in_its_words(umpteen: Umpteen, slurm: SlurmCluster) -> None:
    before = len(list_arrays(slurm))
    write_job(umpteen, "true", options={"partition": "nope"})
    done = umpteen("run", "job.json")
    assert done.returncode == 3
    assert "invalid partition specified: nope" in done.stderr
    assert len(list_arrays(slurm)) == before


def test_task_that_no_node_can_run_is_refused(umpteen: Umpteen, slurm: SlurmCluster) -> None:
    del slurm
    write_job(umpteen, {"command": "true", "cpus": 64})
    done = umpteen("run", "job.json")
    assert done.returncode == 2
    assert "needs 64 cpus; a node of slurm has at most 4" in done.stderr


def test_machine_without_slurm_says_so(umpteen: Umpteen, tmp_path: Path) -> None:
    write_job(umpteen, "true")
    done = umpteen("run", "job.json", env={"PATH": str(tmp_path)})
    assert done.returncode == 3
    assert "there is no sinfo here" in done.stderr
