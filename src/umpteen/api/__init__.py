"""umpteen from Python: what the verbs of the command line do, as functions.

    import umpteen
    sweep = umpteen.run("python sim.py --lr {lr}", values={"lr": [0.1, 0.01]})
    for task in sweep:
        print(task.name, task.exit_code, task.stdout)

A job here is a job file in Python: the same keys, read by the same reader.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from umpteen.api.convert import build_flags, build_job
from umpteen.api.errors import hinted
from umpteen.api.open_jobs import OpenJob, TaskResult, find_given, watch_job
from umpteen.api.spec import Job, Task, Work
from umpteen.errors import InputError, nearest_hint
from umpteen.formats.native import parse_executor
from umpteen.job.settings import ExecutorChoice
from umpteen.job.spec import Job as PlannedJob
from umpteen.planning.choosing import RERUN_CHOICES
from umpteen.query.expression import PLAN_FIELDS, compile_where
from umpteen.query.find import open_history
from umpteen.submission.settings import detach
from umpteen.verbs.collect import collect as collect_job
from umpteen.verbs.handle import JobHandle
from umpteen.verbs.run import choose_where
from umpteen.verbs.run import submit as submit_job

__all__ = ["Job", "OpenJob", "Task", "TaskResult", "collect", "open_job", "run", "submit"]


@hinted()
def run(
    job: Work,
    *,
    values: Mapping[str, Any] | None = None,
    name: str | None = None,
    slots: int | None = None,
    results: str | os.PathLike[str] | None = None,
    executor: str | Mapping[str, Any] | None = None,
    timeout: str | float | None = None,
    memory: str | int | None = None,
    retries: Any = None,
    cpus: int | None = None,
    gpus: int | None = None,
    only: str | None = None,
    rerun: str = "default",
    verify: bool = False,
    progress: bool = True,
) -> OpenJob:
    """Run what is not done of a job, and wait until all of it has ended.

    job: a Job, a Task, a list of tasks, the path of a job file, or a command.
    values: of the command's placeholders, by name.
    executor: where it runs, as in a job file: `{"dask": {"scheduler_address": "tcp://…"}}`.
    timeout (`90` is seconds, `"15m"`), memory (`"4G"`), retries, cpus, gpus: of every task.
    only: an expression for the tasks that have their turn. rerun: as the flag.
    verify: whether what is done must still have what it left.

    A task that fails raises nothing: look at `ok`. Raises InputError and SettingsError for what
    cannot be, StoreError where results cannot be written.
    """
    flags = build_flags(slots, results, executor, timeout, memory, retries, cpus, gpus)
    planned = build_job(job, values, name, flags)
    return watch_job(_submit(planned, only, rerun, is_verified=verify), progress=progress)


@hinted()
def submit(
    job: Work,
    *,
    values: Mapping[str, Any] | None = None,
    name: str | None = None,
    slots: int | None = None,
    results: str | os.PathLike[str] | None = None,
    executor: str | Mapping[str, Any] | None = None,
    timeout: str | float | None = None,
    memory: str | int | None = None,
    retries: Any = None,
    cpus: int | None = None,
    gpus: int | None = None,
    only: str | None = None,
    rerun: str = "default",
    verify: bool = False,
) -> OpenJob:
    """As `run`, but return at once: the job goes on without this process."""
    flags = build_flags(slots, results, executor, timeout, memory, retries, cpus, gpus)
    planned = detach(build_job(job, values, name, flags))
    handle = _submit(planned, only, rerun, is_verified=verify)
    return OpenJob(handle.history.store.address, find_given(handle.settings))


@hinted()
def collect(
    name: str | os.PathLike[str],
    *,
    executor: str | Mapping[str, Any] | None = None,
    progress: bool = True,
) -> OpenJob:
    """Wait until a job has ended that was submitted before, here or elsewhere.

    executor: where it goes on, as of `open_job`.
    """
    handle = collect_job(str(name), executor=_parse_executor(executor))
    return watch_job(handle, progress=progress)


@hinted()
def open_job(
    name: str | os.PathLike[str], *, executor: str | Mapping[str, Any] | None = None
) -> OpenJob:
    """A job by its name or the address of its results. Raises InputError where there is none.

    executor: where it goes on, if not as before. An import path has to be given again.
    """
    return OpenJob(open_history(str(name)).store.address, _parse_executor(executor))


def _parse_executor(given: str | Mapping[str, Any] | None) -> ExecutorChoice | None:
    return None if given is None else parse_executor(given)


def _submit(job: PlannedJob, only: str | None, rerun: str, *, is_verified: bool) -> JobHandle:
    if rerun not in RERUN_CHOICES:
        hint = nearest_hint(str(rerun), RERUN_CHOICES)
        raise InputError(f"there is no rerun={rerun!r}", hint, field="rerun")
    where = None if only is None else compile_where(str(only), PLAN_FIELDS)
    chosen = None if where is None else choose_where(where, job)
    return submit_job(job, rerun, only=chosen, is_verified=is_verified)
