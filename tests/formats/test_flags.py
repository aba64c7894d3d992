"""The flags of `run` as one value."""

from __future__ import annotations

from typing import Any

import pytest

from umpteen.cli.run import run_command
from umpteen.errors import InputError, SettingsError
from umpteen.formats.flags import JobFlags, TaskFlags, build_flags
from umpteen.job.settings import Setting, Settings
from umpteen.job.spec import Retry, TaskOptions

NOT_OF_JOB = {
    "job", "name", "prefix", "tables", "rerun", "only", "verify", "dry_run", "detach", "quiet",
    "as_json", "machine", "include",
}  # fmt: skip


def build(**given: Any) -> JobFlags:
    names = set(build_flags.__annotations__) - {"return"}
    nothing = dict.fromkeys(names) | {"env": (), "sync": ()}
    return build_flags(**{**nothing, **given})


def test_flags_of_nothing_are_none() -> None:
    assert build() == JobFlags()
    assert build().list_settings() == {}


def test_flags_of_the_command_line_are_those_that_are_built() -> None:
    asked = {parameter.name for parameter in run_command.params} - NOT_OF_JOB
    assert asked == set(build_flags.__annotations__) - {"return"}


def test_flags_are_fields_of_settings_and_of_task_options() -> None:
    of_job = set(JobFlags.__struct_fields__) - {"tasks", "are_arguments"}
    assert of_job <= set(Settings.__struct_fields__)
    every = TaskFlags(retries=[], cpus=1, memory=1, gpus=1, output_limit=1, needs=("a",))
    of_tasks = set(every.list_options())
    assert of_tasks < set(TaskOptions.__struct_fields__)


def test_flags_give_settings_with_the_flag_that_said_it() -> None:
    flags = build(slots=2, results="r", grace=3.0, batch_size=4, sync=["a:b"], fail_fast=True)
    assert flags.list_settings() == {
        "slots": Setting(2, "--slots"),
        "address": Setting("r", "--results"),
        "grace_s": Setting(3.0, "--grace"),
        "batch_size": Setting(4, "--batch-size"),
        "file_syncs": Setting([("a", "b")], "--sync"),
        "fail_fast": Setting(True, "--fail-fast"),
    }


def test_flags_of_the_api_are_arguments() -> None:
    flags = JobFlags(address="r", executor="dask", executor_options={"a": 1}, are_arguments=True)
    assert {key: found.source for key, found in flags.list_settings().items()} == {
        "address": "results=",
        "executor": "executor=",
        "executor_options": "executor=",
    }


def test_flags_for_tasks_hold_variables_and_rules() -> None:
    flags = build(env=["A=1", "B=x=y"], retries=2, gpus=0, timeout=5.0, scheduler_address="tcp://h")
    assert flags.tasks == TaskFlags(
        env={"A": "1", "B": "x=y"}, retries=[Retry(["failed"], times=2)], gpus=0, timeout_s=5.0
    )
    assert flags.tasks.list_options() == {"retries": [Retry(["failed"], times=2)], "gpus": 0}
    assert flags.executor_options == {"scheduler_address": "tcp://h"}


def test_flags_without_retries_differ_from_none_said() -> None:
    assert build(retries=0).tasks.list_options() == {"retries": []}


def test_flags_name_each_need_once() -> None:
    assert build(needs=("b", "a", "b")).tasks.list_options() == {"needs": ("a", "b")}
    with pytest.raises(InputError, match="'a b' in 'needs' cannot be the name of a capability"):
        build(needs=("a b",))


@pytest.mark.parametrize("pair", ["A", "=1"])
def test_flags_refuse_a_variable_without_a_value(pair: str) -> None:
    with pytest.raises(SettingsError, match="KEY=VALUE"):
        build(env=[pair])


def test_flags_refuse_a_sync_with_two_colons() -> None:
    with pytest.raises(InputError, match="more than one colon"):
        build(sync=["a:b:c"])
