"""`retry`: run again what did not succeed of a job, without its file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from umpteen.executors.base import OnProgress, ignore_progress
from umpteen.executors.feasibility import refuse_impossible, refuse_too_many_slots
from umpteen.executors.registry import runs_here
from umpteen.history.history import SKIPPED, History
from umpteen.job.dependencies import build_graph
from umpteen.job.settings import ExecutorChoice, Settings
from umpteen.job.spec import Job, Task, TaskOptions
from umpteen.planning.plan import Plan
from umpteen.query.expression import Where
from umpteen.query.facts import read_facts
from umpteen.query.find import find_names, open_history
from umpteen.query.job_view import JobView
from umpteen.query.why import Why
from umpteen.store.submission_lock import submission_lock
from umpteen.submission.plan import Scope, preview
from umpteen.submission.read_back import read_back_job, read_back_settings
from umpteen.submission.settings import open_executor_of
from umpteen.submission.submit import submit_again
from umpteen.verbs.handle import JobHandle

__all__ = ["Blocked", "Rerun", "find_blocked", "plan_retry", "retry"]


class Rerun(NamedTuple):
    """What is to run again of a job that was submitted before."""

    tasks: Sequence[str] = ()  # names, patterns or indices: they run even where they succeeded
    where: Where | None = None  # of these the ones for which it holds, by their facts
    slots: int | None = None  # how many at once, where not as before
    timeout_s: float | None = None  # of each of these, from now on
    memory: int | None = None  # bytes that each of these needs, from now on


def retry(
    name: str,
    rerun: Rerun | None = None,
    *,
    executor: ExecutorChoice | None = None,
    detach: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> JobHandle:
    """Run again what did not succeed or is behind, with what was skipped after it and what is
    behind it then.

    executor: where it is to run, if not as before. on_progress: as of `submit`. Raises
    InputError, and SettingsError where the executor has to be given.
    """
    history = open_history(name)
    settings = read_back_settings(history, detach=detach, executor=executor)
    with submission_lock(history.store, on_progress) as lock:
        history.refresh()
        job, scope = _choose(history, settings, rerun or Rerun())
        submitted = submit_again(job, history, lock, scope, on_progress=on_progress)
    return JobHandle(submitted)


def plan_retry(
    name: str, rerun: Rerun | None = None, executor: ExecutorChoice | None = None
) -> tuple[Plan, History]:
    """What `retry` would do, and the history it goes by; nothing is written."""
    history = open_history(name)
    settings = read_back_settings(history, detach=False, executor=executor)
    job, scope = _choose(history, settings, rerun or Rerun())
    return preview(job, history, scope), history


def _choose(history: History, settings: Settings, rerun: Rerun) -> tuple[Job, Scope]:
    """The job as it is to run, and which of its tasks are."""
    if rerun.slots is not None:
        refuse_too_many_slots(rerun.slots)
        sources = {**settings.sources, "slots": "--slots"}
        settings = msgspec.structs.replace(settings, slots=rerun.slots, sources=sources)
    job = read_back_job(history, settings)
    wanted = _choose_tasks(job, history, rerun)
    if rerun.timeout_s is not None or rerun.memory is not None:
        job = change_tasks(job, wanted, rerun)
        if runs_here(settings.executor):
            executor = open_executor_of(settings)
            refuse_impossible(executor, enumerate(job.tasks), settings.slots)
    kind = "all" if rerun.tasks else "retry"
    return job, Scope(kind, lambda _, task: task.name in wanted, follow=True)


def change_tasks(job: Job, wanted: set[str], rerun: Rerun) -> Job:
    """The job, its wanted tasks with another timeout and memory."""
    tasks = [_change(task, rerun) if task.name in wanted else task for task in job.tasks]
    return msgspec.structs.replace(job, tasks=tasks)


def _change(task: Task, rerun: Rerun) -> Task:
    if rerun.timeout_s is not None:
        task = msgspec.structs.replace(task, timeout_s=rerun.timeout_s)
    if rerun.memory is not None:
        options = msgspec.structs.replace(task.options or TaskOptions(), memory=rerun.memory)
        task = msgspec.structs.replace(task, options=options)
    return task


def _choose_tasks(job: Job, history: History, rerun: Rerun) -> set[str]:
    """Names of the tasks that are meant, and of those that were skipped after them."""
    names = [task.name for task in job.tasks]
    wanted = set(find_names(history, names, rerun.tasks)) if rerun.tasks else set(names)
    if rerun.where is not None:
        rerun.where.check(task.parameters for task in job.tasks)
        wanted &= {facts.name for facts in read_facts(history) if rerun.where(facts)}
    if len(wanted) == len(names):
        return wanted
    states = history.states
    skipped = {
        task.name for index, task in enumerate(history.read_tasks()) if states[index] == SKIPPED
    }
    return wanted | (skipped & list_behind(job, wanted)) if skipped else wanted


def list_behind(job: Job, names: set[str]) -> set[str]:
    """Names of the tasks that are after these, directly or not."""
    graph = build_graph(job.tasks, job.settings.canary)
    if graph is None:
        return set()
    positions = {place for place, task in enumerate(job.tasks) if task.name in names}
    return {job.tasks[position].name for position in graph.list_behind(positions)}


class Blocked(NamedTuple):
    """A task that was skipped once more, as one that it is after did not succeed."""

    task: str
    blocker: str  # has to run again first


def find_blocked(handle: JobHandle, job: str, tasks: Sequence[str]) -> Blocked | None:
    """Of the tasks given to a retry that has ended, the first that was skipped once more."""
    history = handle.history
    if SKIPPED not in history.states:
        return None
    index_of = {task.name: index for index, task in enumerate(history.read_tasks())}
    given = find_names(history, list(index_of), tasks)
    task = next((name for name in given if history.states[index_of[name]] == SKIPPED), None)
    blocker = find_blocker(JobView(open_history(job)).explain(task)) if task else None
    return Blocked(task, blocker) if task and blocker else None


def find_blocker(why: Why) -> str | None:
    """The first of the tasks in the way that has ended without success."""
    ended = (b.name for b in why.blockers if b.state not in ("waiting", "skipped", "succeeded"))
    return next(ended, None)
