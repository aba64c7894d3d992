"""One job, looked at through its one face."""

from __future__ import annotations

from pathlib import Path

import pytest

from umpteen.errors import ErrorCode, InputError
from umpteen.query.files import LeftOut
from umpteen.query.job_view import JobView
from umpteen.query.unrun import UnrunCause
from umpteen.store.base import Store


@pytest.fixture
def job(store: Store) -> JobView:
    return JobView.open(store.address)


@pytest.mark.parametrize("word", ["job", "umpteen-results/job"])
def test_job_is_found_by_its_name_and_its_address(store: Store, word: str) -> None:
    job = JobView.open(word)
    assert (job.name, job.address, job.word) == ("job", store.address, "job")


def test_job_is_found_by_the_file_that_it_is_made_from(store: Store) -> None:
    Path("tasks.yaml").write_text("name: job\ntasks: [{command: 'true'}]\n")
    assert JobView.open("tasks.yaml").address == store.address


@pytest.mark.usefixtures("store")
def test_job_that_is_not_there_is_an_error_with_its_code() -> None:
    with pytest.raises(InputError) as caught:
        JobView.open("jib")
    assert caught.value.code is ErrorCode.NO_JOB
    assert caught.value.hint == "did you mean 'job'? umpteen ls shows all"


@pytest.mark.usefixtures("store")
def test_file_whose_job_is_not_there_is_an_error_with_its_code() -> None:
    Path("tasks.yaml").write_text("name: other\ntasks: [{command: 'true'}]\n")
    with pytest.raises(InputError, match="has not been run from here") as caught:
        JobView.open("tasks.yaml")
    assert caught.value.code is ErrorCode.NO_JOB


def test_status_is_that_of_the_files(job: JobView) -> None:
    status = job.read_status()
    assert (status.state, status.total, status.not_succeeded) == ("failed", 4, 2)


def test_task_is_found_by_name_then_by_index(job: JobView) -> None:
    assert job.find_task("train-2")[0] == 2
    assert job.find_task("2")[1].name == "train-2"
    with pytest.raises(InputError) as caught:
        job.find_task("tran-2")
    assert caught.value.code is ErrorCode.NO_TASK
    assert caught.value.hint == "did you mean 'train-2'?"


def test_state_of_a_task_is_as_recorded(job: JobView) -> None:
    assert [job.state_of(n) for n in range(4)] == ["succeeded", "failed", "succeeded", "skipped"]
    assert all(map(job.has_ended, range(4)))
    assert not job.is_running(1)


def test_failures_have_name_reason_and_last_line(job: JobView) -> None:
    (failure,) = job.read_failures(1)
    assert (failure.name, failure.reason, failure.last_line) == (
        "train-1",
        "exit 3",
        "last of train-1",
    )
    assert [each.name for each in job.read_failures(9)] == ["train-1", "report"]


def test_ended_tasks_are_failures_and_counts_of_the_rest(job: JobView) -> None:
    ended = job.read_ended(9)
    assert ([each.name for each in ended.failures], ended.failed) == (["train-1"], 1)
    (group,) = ended.unrun
    assert (group.tasks, group.state, group.cause, group.names) == (
        1,
        "skipped",
        UnrunCause("train-1", "failed", ""),
        ["report"],
    )


def test_no_failures_are_read_where_none_are_wanted(job: JobView) -> None:
    assert job.read_ended(0).failures == []
    assert job.read_ended(0).failed == 1


def test_outputs_of_the_newest_attempt_are_read(job: JobView) -> None:
    _, task = job.find_task("prep")
    outputs = job.find_outputs(task)
    assert outputs.store.read(outputs.key("stdout")) == b"out of prep\n"


def test_attempts_are_those_that_ended(job: JobView) -> None:
    (attempt,) = job.read_attempts(1)
    assert (attempt[1].attempt, attempt[1].exit_code) == (1, 3)


def test_files_are_listed_task_by_task(job: JobView) -> None:
    left_out: list[LeftOut] = []
    found = {each.task.name: each.results for each in job.list_files(left_out)}
    assert found == {"prep": ["a.csv"], "train-1": ["a.csv"], "train-2": ["a.csv"], "report": []}
    assert left_out == []


def test_why_names_the_task_that_is_in_the_way(job: JobView) -> None:
    why = job.explain("report")
    (blocker,) = why.blockers
    assert (blocker.name, blocker.state, blocker.outcome) == ("train-1", "failed", "succeeded")
    assert (blocker.behind, blocker.by, blocker.is_canary) == (1, [], False)


def test_why_of_what_failed_counts_what_is_behind_it(job: JobView) -> None:
    why = job.explain("1")
    assert (why.name, why.state, why.behind, why.is_alive) == ("train-1", "failed", 1, False)
    (attempt,) = why.attempts
    assert (attempt.record.exit_code, attempt.is_lost) == (3, False)


def test_gone_are_done_tasks_without_what_they_left(job: JobView) -> None:
    Path(job.address, "prep", "status_code").write_text("0")
    Path(job.address, "train-2", "stdout").unlink()
    assert job.read_gone() == ["train-2"]
    assert job.state_of(2) == "waiting"
