"""Tasks that succeeded before what they are after ran again: they run again, or are named."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.dask import DaskCluster
from tests.support.wait import wait_until

SAMPLES = ["S1", "S2"]


def write_flow(
    umpteen: Umpteen, samples: list[str] = SAMPLES, command: str = "sh count.sh", **more: Any
) -> None:
    """For each sample align and count; merge is after all counts, and report after merge."""
    tasks: list[dict[str, Any]] = []
    for sample in samples:
        tasks += [
            {"name": f"align/{sample}", "command": f"echo align/{sample} >> ran"},
            {
                "name": f"count/{sample}",
                "command": f"{command} {sample} > {sample}.count; echo count/{sample} >> ran",
                "after": f"align/{sample}",
            },
        ]
    tasks += [
        {"name": "merge", "command": "cat *.count > counts; echo merge >> ran", "after": "count/*"},
        {"name": "report", "command": "cat counts > page; echo report >> ran", "after": "merge"},
    ]
    umpteen.write("flow.json", json.dumps({"slots": 2, "tasks": tasks, **more}))


def begin(umpteen: Umpteen, **more: Any) -> None:
    """The flow has run, and its script has been edited since."""
    umpteen.write("count.sh", "echo $1 1\n")
    write_flow(umpteen, **more)
    done = umpteen("run", "flow.json", "-q")
    assert done.returncode == 0, done.stderr
    umpteen.write("count.sh", "echo $1 2\n")
    take_ran(umpteen)


def take_ran(umpteen: Umpteen) -> list[str]:
    """What ran since the last call, in order."""
    path = umpteen.folder / "ran"
    ran = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return ran


def read_page(umpteen: Umpteen) -> str:
    return (umpteen.folder / "page").read_text()


@pytest.fixture(params=["local", "dask"])
def executor(request: pytest.FixtureRequest) -> Any:
    """Where the flow runs, as a job file says it."""
    if request.param == "local":
        return "local"
    cluster: DaskCluster = request.getfixturevalue("dask_cluster")
    return {"dask": {"scheduler_address": cluster.address}}


# --- the three ways -----------------------------------------------------------------------------


def test_retry_runs_what_is_behind_the_tasks_that_are_named(
    umpteen: Umpteen, executor: Any
) -> None:
    begin(umpteen, executor=executor)
    done = umpteen("retry", "flow", "count/*")
    assert done.returncode == 0, done.stderr
    assert "2 succeeded before and run again, 2 behind what they are after\n" in done.stderr
    ran = take_ran(umpteen)
    assert (sorted(ran[:2]), ran[2:]) == (["count/S1", "count/S2"], ["merge", "report"])
    assert read_page(umpteen) == "S1 2\nS2 2\n"


def test_run_runs_what_is_behind_changed_tasks(umpteen: Umpteen, executor: Any) -> None:
    begin(umpteen, executor=executor)
    write_flow(umpteen, command="sh ./count.sh", executor=executor)
    done = umpteen("run", "flow.json")
    assert done.returncode == 0, done.stderr
    assert "2 done before, 2 changed, 2 behind what they are after\n" in done.stderr
    assert take_ran(umpteen)[2:] == ["merge", "report"]
    assert read_page(umpteen) == "S1 2\nS2 2\n"


def test_run_runs_what_is_behind_a_task_that_a_pattern_means_now(
    umpteen: Umpteen, executor: Any
) -> None:
    begin(umpteen, executor=executor)
    write_flow(umpteen, [*SAMPLES, "S3"], executor=executor)
    done = umpteen("run", "flow.json")
    assert done.returncode == 0, done.stderr
    assert "4 done before, 2 behind what they are after, 2 new\n" in done.stderr
    assert take_ran(umpteen) == ["align/S3", "count/S3", "merge", "report"]
    assert read_page(umpteen) == "S1 1\nS2 1\nS3 2\n"


def test_run_after_that_has_nothing_to_do(umpteen: Umpteen) -> None:
    begin(umpteen)
    umpteen("retry", "flow", "count/S1", "-q")
    take_ran(umpteen)
    done = umpteen("run", "flow.json")
    assert (done.returncode, take_ran(umpteen)) == (0, [])
    assert "  6 done before\n" in done.stderr


# --- left alone -----------------------------------------------------------------------------------


def test_run_that_leaves_alone_what_is_behind_names_it(umpteen: Umpteen) -> None:
    begin(umpteen)
    done = umpteen("run", "flow.json", "--only", "name=count/S1", "--rerun", "all")
    assert (done.returncode, take_ran(umpteen)) == (0, ["count/S1"])
    assert "2 behind what they are after and left alone" in done.stderr
    assert "flow: 6 succeeded (2 left alone) in" in done.stderr
    assert "  behind    merge, report     umpteen retry flow merge\n" in done.stderr
    again = umpteen("run", "flow.json", "--rerun", "none")
    assert take_ran(umpteen) == []
    assert "  behind    merge, report     umpteen retry flow merge\n" in again.stderr
    umpteen("collect", "flow", "-q")
    assert take_ran(umpteen) == [], "who left them alone is believed"
    umpteen("run", "flow.json", "--rerun", "behind", "-q")
    assert take_ran(umpteen) == ["merge", "report"]


def test_why_and_dry_run_name_what_a_task_is_behind(umpteen: Umpteen) -> None:
    begin(umpteen)
    umpteen("run", "flow.json", "--only", "name=count/S1", "--rerun", "all", "-q")
    merge = umpteen("why", "flow", "merge").stdout
    assert "  umpteen retry flow merge     runs it again\n" in merge
    assert "  behind    it is after count/S1, which is newer\n" in merge
    report = umpteen("why", "flow", "report").stdout
    assert "  behind    it is after merge, which is behind itself\n" in report
    assert "behind" not in umpteen("why", "flow", "count/S2").stdout
    dry = umpteen("run", "flow.json", "--dry-run").stdout
    assert dry.startswith("would run 2 of 6 tasks: 2 behind what they are after\n")
    assert "  behind    merge, which is after count/S1\n" in dry
    shown = json.loads(umpteen("run", "flow.json", "--dry-run", "--json").stdout)
    assert (shown["run"], shown["behind"]) == ({"behind": 2}, ["merge", "report"])


def test_run_says_how_many_that_did_not_succeed_were_left_alone(umpteen: Umpteen) -> None:
    umpteen("run", "exit {n}", "n=0..3", "--name", "job", "-q")
    done = umpteen("run", "exit {n}", "n=0..3", "--name", "job", "--rerun", "none")
    assert "job: 1 succeeded, 3 failed (3 left alone) in" in done.stderr
    done = umpteen("retry", "job", "n=1")
    assert "job: 1 succeeded, 3 failed (2 left alone) in" in done.stderr
    done = umpteen("retry", "job")
    assert "job: 1 succeeded, 3 failed in" in done.stderr


# --- retry ------------------------------------------------------------------------------------


def test_retry_runs_what_was_left_behind(umpteen: Umpteen) -> None:
    begin(umpteen)
    umpteen("run", "flow.json", "--only", "name=count/S1", "--rerun", "all", "-q")
    take_ran(umpteen)
    assert umpteen("retry", "flow", "-q").returncode == 0
    assert take_ran(umpteen) == ["merge", "report"]


def test_retry_dry_run_says_what_would_run_and_changes_nothing(umpteen: Umpteen) -> None:
    begin(umpteen)
    before = sorted(umpteen.store().rglob("*"))
    done = umpteen("retry", "flow", "count/S1", "--dry-run", "--slots", "7", "--timeout", "5m")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    said = "1 succeeded before and run again, 2 behind what they are after"
    assert lines[0] == f"would run 3 of 6 tasks: {said}"
    assert "  behind    merge, which is after count/S1" in lines
    assert "  slots     7                        from --slots" in lines
    assert sorted(umpteen.store().rglob("*")) == before
    assert take_ran(umpteen) == []
    shown = json.loads(umpteen("retry", "flow", "count/S1", "--dry-run", "--json").stdout)
    assert shown["run"] == {"succeeded": 1, "behind": 2}


# --- while others run -------------------------------------------------------------------------


def test_retry_takes_what_another_run_has_in_hand_when_that_has_ended(umpteen: Umpteen) -> None:
    begin(umpteen)
    hold = "touch held; until [ -e go ]; do sleep 0.02; done; echo merge >> ran"
    tasks = json.loads((umpteen.folder / "flow.json").read_text())["tasks"]
    tasks[-2]["command"] = hold
    umpteen.write("flow.json", json.dumps({"slots": 2, "tasks": tasks}))
    first = umpteen.start("run", "flow.json", "-q")
    wait_until((umpteen.folder / "held").exists)
    second = umpteen.start("retry", "flow", "count/S1", "-q")
    wait_until(lambda: "count/S1" in (umpteen.folder / "ran").read_text().split()
               if (umpteen.folder / "ran").exists() else False)  # fmt: skip
    umpteen.write("go", "")
    for run in (first, second):
        _, said = run.communicate(timeout=60)
        assert run.returncode == 0, said
    ran = take_ran(umpteen)
    assert ran.count("count/S1") == 1
    assert ran[ran.index("count/S1") :].count("merge") == 2, "the one in hand may have begun before"
    assert ran[-1] == "report"
    assert "6 done before" in umpteen("run", "flow.json").stderr


def test_run_that_was_interrupted_runs_what_is_behind_the_next_time(umpteen: Umpteen) -> None:
    begin(umpteen)
    umpteen.write("count.sh", "touch begun; [ -e go ] || sleep 600; echo $1 2\n")
    watcher = umpteen.start("retry", "flow", "count/S1", "-q")
    wait_until((umpteen.folder / "begun").exists)
    os.killpg(watcher.pid, signal.SIGINT)
    assert watcher.wait(30) == 130
    watcher.communicate()
    umpteen.write("go", "")
    take_ran(umpteen)
    assert umpteen("run", "flow.json", "-q").returncode == 0
    assert take_ran(umpteen) == ["count/S1", "merge", "report"]


def test_task_after_a_failure_runs_for_each_failure_and_stays_done_after_a_success(
    umpteen: Umpteen,
) -> None:
    tasks = [
        {"name": "try", "command": "[ -e go ]"},
        {"name": "tell", "command": "echo tell >> ran", "after": {"try": "failed"}},
    ]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    for _ in range(2):
        assert umpteen("run", "job.json", "-q").returncode == 1
        assert take_ran(umpteen) == ["tell"]
    umpteen.write("go", "")
    done = umpteen("run", "job.json")
    assert (done.returncode, take_ran(umpteen)) == (0, [])
