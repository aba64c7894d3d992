"""`collect`: go on with a job that was submitted before."""

from __future__ import annotations

from umpteen.executors.base import OnProgress, ignore_progress
from umpteen.job.settings import ExecutorChoice
from umpteen.query.find import open_history
from umpteen.store.submission_lock import submission_lock
from umpteen.submission.read_back import read_back_job, read_back_settings
from umpteen.submission.submit import find_submitted, submit_again
from umpteen.verbs.handle import JobHandle
from umpteen.verbs.watch import has_rest

__all__ = ["collect"]


def collect(
    name: str, on_progress: OnProgress = ignore_progress, executor: ExecutorChoice | None = None
) -> JobHandle:
    """A job to be watched; what nobody runs any more is submitted again, and goes on without us.

    on_progress: as of `submit`. executor: where it is to run, if not as before. Raises InputError
    where there is no such job, SettingsError where the executor has to be given.
    """
    history = open_history(name)
    settings = read_back_settings(history, detach=True, executor=executor)
    handle = JobHandle(find_submitted(history, settings))
    if history.hand_ins and not has_rest(handle):
        return handle
    # What others submit must not seem dropped.
    with submission_lock(history.store, on_progress) as lock:
        history.refresh()
        job = read_back_job(history, settings)
        submitted = submit_again(job, history, lock, handle.rest, on_progress=on_progress)
    return JobHandle(submitted)
