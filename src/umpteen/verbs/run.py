"""`run`: submit what is not done of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from umpteen.executors.base import OnProgress, ignore_progress
from umpteen.history.history import History
from umpteen.job.spec import Job, Task
from umpteen.planning.choosing import Chosen
from umpteen.planning.plan import Plan
from umpteen.submission.plan import Scope, preview
from umpteen.submission.read_back import read_history
from umpteen.submission.settings import open_executor_of
from umpteen.submission.submit import submit_new
from umpteen.submission.sync import measure_syncs
from umpteen.verbs.handle import JobHandle

if TYPE_CHECKING:
    from umpteen.query.expression import Where

__all__ = ["choose_where", "plan_run", "submit"]


def submit(
    job: Job,
    rerun: str = "default",
    only: Chosen | None = None,
    on_progress: OnProgress = ignore_progress,
    *,
    is_verified: bool = False,
) -> JobHandle:
    """Submit what is to run of a job whose settings are resolved.

    is_verified: whether what is done must still have what it left. on_progress: called with what
    to show while that takes long; what it raises ends it. Raises StoreError where the store
    cannot be written, BackendError where the executor does not take it.
    """
    scope = Scope(rerun, only, is_verified=is_verified)
    return JobHandle(submit_new(job, scope, on_progress))


def plan_run(
    job: Job, rerun: str = "default", only: Chosen | None = None, *, is_verified: bool = False
) -> tuple[Plan, History]:
    """What `submit` would do, and the history it goes by; nothing is written."""
    history = read_history(job)
    is_far = open_executor_of(job.settings).abilities.is_engine
    job = measure_syncs(history.store, job, is_far=is_far)
    return preview(job, history, Scope(rerun, only, is_verified=is_verified)), history


def choose_where(where: Where, job: Job) -> Chosen:
    """The tasks of a job for which an expression holds, by what is known before they run.

    Raises InputError where it asks for a parameter that none has.
    """
    from umpteen.query.facts import TaskFacts  # few runs choose

    where.check(task.parameters for task in job.tasks)

    def only(index: int, task: Task) -> bool:
        return where(TaskFacts(task, index))

    return only
