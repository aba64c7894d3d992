"""What `run` submits, and what it would submit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.submission.conftest import KeepingExecutor, make_job
from tests.support.store import put_start
from umpteen.errors import InputError
from umpteen.executors.base import ignore_progress
from umpteen.job.spec import Job, Task
from umpteen.planning.choosing import Chosen
from umpteen.query.expression import compile_where
from umpteen.store.directory import DirectoryStore
from umpteen.submission.plan import Scope
from umpteen.verbs.run import choose_where, plan_run, submit


def only_second(index: int, _: Task) -> bool:
    return index == 1


def finish(address: str, *states: str) -> None:
    """Have tasks be recorded like that, each the only one of its batch; of none anything is left.

    With an empty state it has not begun.
    """
    for index, state in enumerate(states):
        record = {"task": index, "digest": "", "attempt": 1, "state": state, "exit_code": 0}
        lines = [record, {"event": "end", "left": 0, "states": {state: str(index)}}]
        put_start(DirectoryStore(address), str(index + 1), lines)


# --- what is submitted ----------------------------------------------------------------------------


def test_job_is_submitted_and_can_be_watched(address: str) -> None:
    handle = submit(make_job(address, "1", "2"))
    assert handle.batches == ["1", "2"]
    assert handle.summary.why == {"new": 2}
    assert (handle.rest, handle.on_progress) == (Scope("rest"), ignore_progress)


def test_who_submits_is_shown_what_is_waited_for(address: str) -> None:
    said: list[str] = []
    handle = submit(make_job(address, "1"), on_progress=said.append)
    assert handle.on_progress == said.append


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, {"failed": 1}),
        ({"rerun": "all"}, {"succeeded": 1, "failed": 1}),
        ({"rerun": "changed"}, {}),
        ({"rerun": "all", "only": only_second}, {"failed": 1}),
        ({"is_verified": True}, {"gone": 1, "failed": 1}),
    ],
)
def test_tasks_that_were_submitted_before_run_again_as_it_is_said(
    address: str, given: dict[str, Any], why: dict[str, int]
) -> None:
    job = make_job(address, "1", "2")
    submit(job)
    finish(address, "succeeded", "failed")
    planned, history = plan_run(job, **given)
    assert planned.why == why
    assert history.count == 2
    assert submit(job, **given).summary.why == why


# --- what would be ------------------------------------------------------------------------------


def test_plan_of_a_run_writes_nothing(address: str, tmp_path: Path) -> None:
    plan, history = plan_run(make_job(address, "1", "2"))
    assert (list(plan.to_run), plan.why) == ([0, 1], {"new": 2})
    assert (history.store.address, history.count) == (address, 0)
    assert not os.path.exists(address)
    assert not list(tmp_path.rglob("*.json"))
    assert KeepingExecutor.asked == []


@pytest.mark.parametrize("is_far", [True, False])
def test_plan_of_a_run_has_the_folders_that_would_be_synced(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_far: bool
) -> None:
    abilities = KeepingExecutor.abilities._replace(is_engine=is_far)
    monkeypatch.setattr(KeepingExecutor, "abilities", abilities)
    code = tmp_path / "code"
    code.mkdir()
    job = make_job(address, "1", file_syncs=[(str(code), None)])
    plan, history = plan_run(job)
    ((digest, destination, source),) = plan.job.settings.synced
    assert (len(digest), destination) == (40, None)
    assert source == (f"{code}/" if is_far else "")
    assert history.store.names(".umpteen/synced") == []


# --- which tasks are meant ----------------------------------------------------------------------


@pytest.fixture
def job(address: str) -> Job:
    """Of three tasks with a parameter, one of which has a name and a tag."""
    job = make_job(address, "1", "2", "3")
    named = msgspec.structs.replace(job.tasks[2], name="last", tags=["big"])
    return msgspec.structs.replace(job, tasks=[*job.tasks[:2], named])


def choose(where: str, job: Job) -> Chosen:
    return choose_where(compile_where(where), job)


@pytest.mark.parametrize(
    ("where", "indices"),
    [
        ("n<3", [0, 1]),
        ("index=1", [1]),
        ("name=last", [2]),
        ("tag=big or n=1", [0, 2]),
        ("not tag=big", [0, 1]),
    ],
)
def test_tasks_are_chosen_by_what_is_known_before_they_run(
    job: Job, where: str, indices: list[int]
) -> None:
    chosen = choose(where, job)
    found = [index for index, task in enumerate(job.tasks) if chosen(index, task)]
    assert found == indices


def test_parameter_that_no_task_has_is_refused(job: Job) -> None:
    with pytest.raises(InputError, match="lr"):
        choose("lr=1", job)
