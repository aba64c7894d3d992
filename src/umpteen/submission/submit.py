"""Submits a job: what of it is to run becomes batches that an executor has."""

from __future__ import annotations

from typing import NamedTuple

from umpteen.executors.base import Executor, OnProgress, ignore_progress
from umpteen.executors.feasibility import refuse_lacking
from umpteen.history.history import History
from umpteen.job.settings import Settings
from umpteen.job.spec import Job
from umpteen.planning.plan import Plan
from umpteen.query.liveness import Liveness
from umpteen.store.submission_lock import SubmissionLock, submission_lock
from umpteen.submission.cancel import record_marked
from umpteen.submission.job_folder import job_created
from umpteen.submission.plan import (
    Scope,
    choose_sizes,
    list_past,
    plan_submission,
    read_tried,
    refuse_what_cannot_run,
)
from umpteen.submission.read_back import (
    read_history,
    refuse_left_out,
    refuse_removed,
)
from umpteen.submission.settings import open_executor_of, open_liveness
from umpteen.submission.sync import put_syncs
from umpteen.submission.write import submit_plan

__all__ = ["PlanSummary", "Submitted", "find_submitted", "submit_again", "submit_new", "summarize"]


class PlanSummary(NamedTuple):
    """What is shown of a plan; it has no tasks, of which a million take room."""

    total: int  # tasks of the job
    done: int  # of these, left alone as they are
    why: dict[str, int]  # how many run, by why they do
    running: int = 0  # that a living batch has
    dropped: int = 0  # that the job had before, and has no more
    other_code: int = 0  # of those done, with other code than is synced now
    left_failed: int = 0  # that did not succeed, and are left alone
    left_behind: tuple[str, ...] = ()  # names of those that are behind, and are left alone


class Submitted(NamedTuple):
    """A job once it was submitted, or as it was found submitted."""

    history: History
    settings: Settings  # with what was synced
    executor: Executor
    batches: list[str]  # that this submission gave to the executor
    summary: PlanSummary
    rest: Scope  # what is to be submitted after it, where it leaves something
    source_digest: str = ""  # of what the job was read from
    on_progress: OnProgress = ignore_progress  # called while a submission waits for something


def find_submitted(history: History, settings: Settings) -> Submitted:
    """A job that was submitted before. settings: to go on with."""
    newest = next(reversed(history.hand_ins), None)
    left_behind = newest is not None and newest.leaves_behind
    total = history.count - len(history.dropped)
    summary = PlanSummary(total, done=history.counts()["succeeded"], why={})
    rest = Scope("left" if left_behind else "rest")
    return Submitted(history, settings, open_executor_of(settings), [], summary, rest)


def submit_new(job: Job, scope: Scope, on_progress: OnProgress = ignore_progress) -> Submitted:
    """Submit a job that files or a program describe; its settings are resolved.

    Raises StoreError where the store cannot be written, BackendError where the executor does
    not take it.
    """
    history = read_history(job)  # refuses what cannot be before anything is written
    executor = open_executor_of(job.settings)
    if not history.job and scope.is_whole:  # all of it is to run
        refuse_lacking(executor, enumerate(job.tasks), job.settings.slots)
    with job_created(history, job):
        with history.store.patient():
            job = put_syncs(history.store, job, is_far=executor.abilities.is_engine)
        with submission_lock(history.store, on_progress) as lock:
            history.refresh()
            return submit_again(job, history, lock, scope, on_progress=on_progress)


def submit_again(
    job: Job,
    history: History,
    lock: SubmissionLock,
    scope: Scope,
    liveness: Liveness | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Submitted:
    """Submit what is to run of a job that is in its store.

    `history` was read with the lock held, as was what `job` has of it.
    """
    refuse_removed(history)
    executor = open_executor_of(job.settings)
    executor.check()
    history, living = _gather(job, history, liveness or open_liveness(job.settings))
    plan = plan_submission(job, history, living, scope)
    batches = _hand_over(plan, history, executor, lock, on_progress)
    history.failures.take_recent()  # what failed before is not news
    history.refresh()
    digest, rest = plan.job.source_digest, scope.narrow(plan, history)
    return Submitted(
        history, job.settings, executor, batches, summarize(plan), rest, digest, on_progress
    )


def _gather(job: Job, history: History, liveness: Liveness) -> tuple[History, set[str]]:
    """The history with all that has ended until now, and the batches that somebody runs."""
    living = liveness.list_living(history)
    if history.list_open():  # of what ended meanwhile nothing is lost
        history.refresh()
    if record_marked(history, living):
        history = read_history(job)
    return history, living


def _hand_over(
    plan: Plan,
    history: History,
    executor: Executor,
    lock: SubmissionLock,
    on_progress: OnProgress,
) -> list[str]:
    """Have the executor run the plan; the numbers of its batches."""
    if plan.is_empty:
        return []
    refuse_left_out(history, plan.job.settings)
    refuse_what_cannot_run(plan, history, executor)
    tried = read_tried(plan, history)
    sizes = choose_sizes(plan, executor, tried)
    return submit_plan(plan, history, executor, list_past(history, tried), lock, sizes, on_progress)


def summarize(plan: Plan) -> PlanSummary:
    """What is shown of a plan."""
    left_behind = (plan.by_index(index).name or str(index) for index in sorted(plan.left_behind))
    return PlanSummary(
        total=plan.total, done=plan.done, running=plan.running, why=plan.why,
        dropped=len(plan.dropped), other_code=plan.other_code, left_failed=plan.left_failed,
        left_behind=tuple(left_behind),
    )  # fmt: skip
