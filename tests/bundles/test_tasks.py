"""What the jobs of a bundle become."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from umpteen.bundles.bundle import Bundle
from umpteen.bundles.bundle_file import parse_jobs
from umpteen.bundles.tasks import build_tasks
from umpteen.config.machines import Machine
from umpteen.errors import InputError
from umpteen.job.spec import Task, TaskOptions

MACHINE = Machine("m", path="/w", account="lab", slurm={"partition": "gpu"})
STAMP = "20260102030405"


def build(jobs: Mapping[str, Any]) -> list[Task]:
    bundle = Bundle("b", STAMP, "b.json", parse_jobs(jobs, "b.json"))
    return [task for found in build_tasks(bundle, MACHINE) for task in found.tasks]


def find_options(task: Task) -> TaskOptions:
    assert task.options is not None
    return task.options


def test_job_is_a_task_that_runs_its_script_and_asks_for_what_it_needs() -> None:
    (task,) = build({"a": {"script": "app", "slurm": {"time": "2h", "tasks": 4}}})
    assert task.name == "a"
    command, _, digest = str(task.command).partition(" # ")
    assert command == (
        'exec sh /w/slurm/umpteen-run.sh job "/w/slurm/a-${SLURM_JOB_ID}.out" "" '
        f"/w/slurm/a_{STAMP}.sh"
    )
    assert len(digest) == 16
    assert find_options(task).slurm == {
        "account": "lab", "partition": "gpu", "job-name": "a", "time": "120:00", "ntasks": "4",
    }  # fmt: skip


def test_command_changes_with_what_the_script_runs_and_not_with_what_it_asks_for() -> None:
    (task,) = build({"a": {"script": "app", "slurm": {"time": "2h"}}})
    (longer,) = build({"a": {"script": "app", "slurm": {"time": "3h"}}})
    (other,) = build({"a": {"script": "app", "script_args": {"lr": 1}}})
    assert task.command == longer.command != other.command


def test_dependencies_are_what_a_task_is_after() -> None:
    tasks = build({
        "last": {"script": "x", "dependencies": ["a", "afterany:b", "afternotok:c", "singleton"],
                 "slurm": {"dependency": "afterok:7"}},
        **{name: {"script": "x"} for name in "abc"},
    })  # fmt: skip
    last = find_options(tasks[-1])
    assert last.after == [("a", "succeeded"), ("b", "any"), ("c", "failed")]
    assert last.slurm is not None
    assert last.slurm["dependency"] == "afterok:7,singleton"


def test_array_is_a_task_for_each_index_with_its_variables() -> None:
    *elements, last = build({
        "sim": {"script": "x", "slurm": {"array": "8,0-4:2%2", "output": "%x/%a-%A.log"}},
        "last": {"script": "x", "dependencies": ["sim"]},
    })  # fmt: skip
    assert [task.name for task in elements] == ["sim.8", "sim.0", "sim.2", "sim.4"]
    assert elements[2].env == {
        "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "0",
        "SLURM_ARRAY_TASK_MAX": "8",
    }  # fmt: skip
    assert 'array "sim/2-${SLURM_ARRAY_JOB_ID}.log" ""' in elements[2].command
    assert {find_options(task).slurm["array"] for task in elements} == {"%2"}  # type: ignore[index]
    assert find_options(last).after == [("sim.*", "succeeded")]


def test_array_of_many_takes_seconds() -> None:
    began = time.process_time()
    assert len(build({"a": {"script": "x", "slurm": {"array": "0-29999"}}})) == 30_000
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "given", ["x", "3-1", "1-", "0-9%0", "0-9%", "1,,2", "0-2000000", f"0-{10**30}", "9" * 5000]
)
def test_array_that_is_none_is_named_with_its_field(given: str) -> None:
    with pytest.raises(InputError) as caught:
        build({"a": {"script": "x", "slurm": {"array": given}}})
    assert (caught.value.file, caught.value.field) == ("b.json", "a.slurm.array")


def test_array_after_an_array_is_so_by_a_pattern_unless_that_means_others_too() -> None:
    array = {"script": "x", "slurm": {"array": "0-1"}}
    behind = {**array, "dependencies": ["a"]}
    tasks = {task.name: task for task in build({"a": array, "ab": array, "z": behind})}
    assert find_options(tasks["z.1"]).after == [("a.*", "succeeded")]
    tasks = {task.name: task for task in build({"a": array, "a.b": array, "z": behind})}
    assert find_options(tasks["z.0"]).after == [("a.0", "succeeded"), ("a.1", "succeeded")]
    tasks = {
        task.name: task for task in build({"[a]": array, "z": {**array, "dependencies": ["[a]"]}})
    }
    assert find_options(tasks["z.1"]).after == [("[[]a].*", "succeeded")]
