"""What a submission would do: the planning of `planning/`, with what the store and machine say."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from umpteen.errors import BackendError
from umpteen.executors.base import NO_NEEDS, Executor, TaskNeeds
from umpteen.executors.feasibility import read_needs, refuse_impossible, refuse_lacking
from umpteen.history.history import History
from umpteen.job.spec import Job, Task
from umpteen.model.record import Record, RecordLine
from umpteen.planning.batch_files import Past
from umpteen.planning.batching import BatchSizes, cut_for_engine
from umpteen.planning.choosing import Chosen, takes_behind
from umpteen.planning.known import read_known
from umpteen.planning.plan import Plan, build_plan
from umpteen.query.verify import forget_missing, verify
from umpteen.submission.settings import open_executor_of, open_liveness

__all__ = [
    "Scope",
    "Tried",
    "choose_sizes",
    "list_past",
    "plan_submission",
    "preview",
    "read_tried",
    "refuse_what_cannot_run",
]

Tried = Sequence[tuple[str, Record]]  # attempts, oldest first, each with its runner's token

_WHOLE = ("default", "all", "code", "rest", "left")  # choices of --rerun that leave no task out


class Scope(NamedTuple):
    """Which tasks of a job are to run."""

    rerun: str = "default"  # one of planning's choices: what is to run again
    only: Chosen | None = None  # the tasks that are asked for; None for all
    follow: bool = False  # whether what is behind these runs, too
    is_verified: bool = False  # whether what is done must still have what it left

    @property
    def takes_behind(self) -> bool:
        """Whether tasks run again that succeeded before what they are after did."""
        return takes_behind(self.rerun)

    @property
    def is_whole(self) -> bool:
        """Whether no task is left out."""
        return self.only is None and self.rerun in _WHOLE

    def narrow(self, plan: Plan, history: History) -> Scope:
        """The scope for what a batch leaves undone: without the tasks that this plan left out."""
        rerun = "rest" if self.takes_behind else "left"
        return Scope(rerun, None if self.is_whole else _only_of(plan, history), self.follow)


def _only_of(plan: Plan, history: History) -> Chosen:
    again = {i for name in plan.again for i in history.unfinished(history.batches[name])}
    submitted = again.union(plan.to_run)
    return lambda index, _: index in submitted


def preview(job: Job, history: History, scope: Scope) -> Plan:
    """What a submission would do; nothing is written, and no engine has to be there."""
    living = open_liveness(job.settings).list_living(history)
    plan = plan_submission(job, history, living, scope)
    with contextlib.suppress(BackendError):
        refuse_what_cannot_run(plan, history, open_executor_of(job.settings))
    return plan


def plan_submission(job: Job, history: History, living: set[str], scope: Scope) -> Plan:
    """As `build_plan`, but a task whose outputs are gone runs again where another that runs needs
    them.

    living: the batches that somebody runs.
    """
    if scope.is_verified:
        verify(history, living)
    while True:
        known = read_known(job, history, scope.rerun)
        plan = build_plan(job, history, known, living, scope.rerun, scope.only, follow=scope.follow)
        if not forget_missing(history, plan.by_index, plan.list_needed()):
            return plan


def refuse_what_cannot_run(plan: Plan, history: History, executor: Executor) -> None:
    """Raises InputError where a task that is to run needs what no machine there has."""
    slots = plan.job.settings.slots
    again = [i for name in plan.again for i in history.unfinished(history.batches[name])]
    for indices in (plan.to_run, again):  # those of a lost batch, as it may go elsewhere now
        refuse_lacking(executor, zip(indices, plan.list_tasks(indices), strict=True), slots)
    if executor.abilities.is_engine:  # this machine was looked at when the job was read
        tasks = ((index, plan.by_index(index)) for index in plan.to_run)
        refuse_impossible(executor, tasks, slots)


def read_tried(plan: Plan, history: History) -> Mapping[int, Tried]:
    """The attempts of each task that runs again."""
    known = plan.before
    before = [index for index in plan.to_run if index < known] if known else []
    return history.read_records(before) if before else {}


def list_past(history: History, tried: Mapping[int, Tried]) -> dict[int, Past]:
    """What the new batches say of each task that was begun before."""
    unrecorded = {index for index, records in tried.items() if not records}
    past = {
        index: Past(
            records[-1][1].attempt,
            records[-1][0],
            list_open_tries(records),
            _find_seconds(records),
        )
        for index, records in tried.items()
        if records
    }
    return past | dict.fromkeys(_list_begun(history, unrecorded), Past(0, ""))


def _find_seconds(records: Tried) -> float:
    seconds = 0.0
    for _, record in records:
        seconds = record.find_seconds(seconds)
    return seconds


def _list_begun(history: History, indices: set[int]) -> Iterator[int]:
    """Those that a runner was given, which may have begun with them."""
    for batch in history.batches.values():
        if indices and batch.starts:
            for part in batch.indices:
                yield from (index for index in part if index in indices)


def list_open_tries(records: Tried) -> list[RecordLine]:
    """The attempts since the task last came to an end: they are counted, so that no retry comes
    twice.
    """
    final = [place for place, (_, record) in enumerate(records, 1) if record.is_final]
    since = records[final[-1] if final else 0 :]
    return [record.to_dict() for _, record in since if record.retry]


def choose_sizes(plan: Plan, executor: Executor, tried: Mapping[int, Tried]) -> BatchSizes | None:
    """How many workers there may be, and what each batch takes; None for this machine."""
    abilities = executor.abilities
    if not abilities.is_engine:
        return None
    workers = executor.count_workers(plan.job.settings.slots, _find_least(plan.job.tasks))
    newest = {index: records[-1][1] for index, records in tried.items() if records}
    seconds = {i: record.seconds for i, record in newest.items() if record.exit_code is not None}
    most, start_up_s = abilities.batches_most, abilities.start_up_s
    found = cut_for_engine(
        plan, workers, most, seconds, start_up_s,
        by_needs=abilities.asks_by_batch or abilities.capabilities,
    )  # fmt: skip
    return found._replace(workers=workers)


def _find_least(tasks: Sequence[Task]) -> TaskNeeds:
    """The least of each that one of the tasks needs, the capabilities that all of them need, and
    what the first says to Slurm.
    """
    if not tasks or any(task.options is None for task in tasks):
        return NO_NEEDS
    needs = [read_needs(task.options) for task in tasks if task.options is not None]
    cpus, gpus, memory = (min(map(operator.itemgetter(n), needs)) for n in range(3))
    shared = set(needs[0].capabilities).intersection(*(each.capabilities for each in needs))
    return TaskNeeds(cpus, gpus, memory, needs[0].options, tuple(sorted(shared)))
