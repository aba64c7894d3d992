"""The front door: what the command line and Python programs call.

Each verb is a short list of named steps. Nothing here prints.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from umpteen.errors import (
    EXIT_SOME_FAILED,
    EXIT_SUCCEEDED,
    BackendError,
    InputError,
    SettingsError,
    StoreError,
    UmpteenError,
    find_last_word,
)
from umpteen.executors.base import LOCAL, Executor, Tell
from umpteen.executors.registry import find_short_name, open_executor
from umpteen.history.history import SKIPPED, History
from umpteen.job.dependencies import build_graph
from umpteen.job.settings import DEFAULTS, Settings
from umpteen.job.spec import Job, Task, TaskOptions
from umpteen.model.command import write_verb
from umpteen.model.record import Record
from umpteen.model.states import IS_FINAL, SLOTS_MOST
from umpteen.planning.batch_files import Past
from umpteen.planning.batching import BatchSizes, cut_for_engine
from umpteen.planning.plan import Chosen, Plan, build_plan, takes_behind
from umpteen.query.expression import Where
from umpteen.query.facts import read_facts
from umpteen.query.find import find_names, find_task, open_history
from umpteen.query.liveness import UNKNOWN_S, Liveness, list_handles, read_status
from umpteen.query.registry import forget, register
from umpteen.query.status import JobStatus, build_status, estimate_left_s
from umpteen.query.trust import find_stranger
from umpteen.query.verify import forget_missing, verify
from umpteen.query.why import Why, build_why
from umpteen.runner.leftovers import clear_dead
from umpteen.store.address import check_job_address, is_remote, open_store, place_of, read_patience
from umpteen.store.base import Store
from umpteen.store.layout import HANDED, JOB, LOCK, REMOVING, parse_numbers
from umpteen.store.removal import Measured, Removed, measure_job, remove_job, remove_rest
from umpteen.store.submission_lock import SubmissionLock, submission_lock
from umpteen.submission.cancel import (
    is_cancelled,
    is_open,
    put_cancel_mark,
    record_cancelled,
    record_marked,
    refuse_adopted,
)
from umpteen.submission.sync import measure_syncs, put_syncs
from umpteen.submission.write import open_job_folder, submit_plan
from umpteen.system.background import BackgroundCall
from umpteen.system.locks import leases_folder
from umpteen.system.resources import in_mb, list_lacks, read_capacity, usable_cores

__all__ = [
    "JobHandle",
    "Removal",
    "Rerun",
    "cancel",
    "choose_where",
    "collect",
    "detach",
    "exit_code",
    "explain",
    "plan_removal",
    "plan_rerun",
    "plan_run",
    "remove",
    "retry",
    "settle",
    "submit",
    "watch",
]

Tried = Sequence[tuple[str, Record]]  # attempts, oldest first, each with its runner's token

_POLL_S, _POLL_FAR_S = 0.2, 2.0
_RATE_WINDOW_S = 30.0
_ESTIMATE_S = 1.0  # how often the time left is worked out: of a thousand slots it takes 16 ms
_CANCEL_S = 10.0  # beyond the grace, for records to be written
_HEARD_S = 5.0  # by when a runner has seen the mark
_SILENT_S, _GLANCE_S = 5.0, 0.5  # how long a look may take, and how often it is looked after
_REFUSED = (StoreError.exit_code, SettingsError.exit_code)
_KEPT = ("deaths", "waiting", "only", "follow", "takes_behind", "left_failed", "left_behind")
_MOST_DEATHS = 5  # of runners in a row, without a task that ended between them


def settle(job: Job, folder: str) -> Job:
    """The job with its address made absolute and its slots counted, submitted from `folder`."""
    settings = job.settings
    for path in (folder, settings.address):
        if not _is_utf8(path):
            raise SettingsError(f"the folder's name {path!r} is not UTF-8", "use another folder")
    executor = _open_executor(settings)
    executor.check()  # refused before all else
    if not executor.abilities.is_engine:
        _refuse_impossible(job.tasks)
    _refuse_slots(settings.slots)
    place = settings.address.replace("{name}", job.name)
    if not job.is_part and (
        unknown := re.search(r"\{[A-Za-z_]\w*\}", settings.address.replace("{name}", ""))
    ):
        message = f"the address of the results has {unknown[0]}, which nothing stands for"
        raise SettingsError(message, "{name} is the job's name; nothing else is filled in")
    address = open_store(place, settings.results_options or None).address
    check_job_address(address)
    if address == "/":
        hint = "write a folder below it: --results /data/{name}"
        raise SettingsError("results cannot lie in the root folder itself", hint)
    sources = dict(settings.sources)
    slots = settings.slots
    if not slots and executor.abilities.is_engine:
        sources["slots"] = "default: one for each slot of a worker"
    elif not slots:
        slots = usable_cores()
        sources["slots"] = "default: the cores this process may use"
    settings = msgspec.structs.replace(
        settings, address=address, slots=slots, sources=sources, submitted_from=folder,
        executor=find_short_name(settings.executor),
    )  # fmt: skip
    return msgspec.structs.replace(job, settings=settings)


def detach(job: Job) -> Job:
    """The settled job, to be run by what goes on without this process."""
    settings = job.settings
    if settings.executor != LOCAL:  # the others do so by themselves
        return job
    options = {**settings.executor_options, "detach": True}
    settings = msgspec.structs.replace(settings, executor_options=options)
    return msgspec.structs.replace(job, settings=settings)


def _refuse_impossible(tasks: Sequence[Task]) -> None:
    """Raises InputError for a task that needs what this machine does not have."""
    needing = [task for task in tasks if task.terms is not None]
    if not needing:
        return
    here = read_capacity()
    for position, task in enumerate(needing):
        terms = task.terms or TaskOptions()
        lacks = list_lacks(terms.cpus or 0, terms.gpus, terms.memory or 0, here)
        for wanted, most, what in map(in_mb, lacks):
            raise InputError(
                f"task {(task.name or str(position))!r} needs {wanted} {what}; "
                f"this machine has {most}",
                _hint_lack(what, most),
            )


def _refuse_too_wide(plan: Plan, executor: Executor) -> None:
    """Raises InputError where a task that runs needs more cores than a worker of an engine has.

    The engine is asked only where a task says that it needs several.
    """
    if not executor.abilities.is_engine:
        return
    cpus, index = max(((_count_cpus(plan.by_index(i)), -i) for i in plan.to_run), default=(1, 0))
    if cpus == 1:
        return
    slots = plan.job.settings.slots
    most = executor.count_cores(slots)
    if 0 < most < cpus:
        name = plan.by_index(-index).name or str(-index)
        raise InputError(
            f"task {name!r} needs {cpus} cpus; a worker of {executor.name} has at most {most}",
            f"{executor.hint_cores(slots, cpus)}, or write --cpus {most} for all tasks",
        )


def _count_cpus(task: Task) -> int:
    return (task.terms.cpus or 1) if task.terms is not None else 1


def _hint_lack(what: str, most: int) -> str:
    """What to do where a task needs more than there is. most: what there is."""
    if what == "gpus":
        return "UMPTEEN_GPUS says how many there are"
    if what == "cpus":
        return f"write fewer, or --cpus {most} for all tasks; slots are tasks at once, not cores"
    return f"write less, or --memory {most}M for all tasks"


def _refuse_slots(slots: int) -> None:
    """Raises SettingsError for more tasks at once than one runner starts."""
    if slots > SLOTS_MOST:
        raise SettingsError(
            f"{slots:,} slots are more than one runner has: {SLOTS_MOST:,}",
            "slots are tasks at once; those beyond wait for their turn",
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plan_run(
    job: Job,
    rerun: str = "default",
    only: Chosen | None = None,
    *,
    is_verified: bool = False,
) -> tuple[Plan, History]:
    """What `submit` would do, and the history it goes by; nothing is written."""
    history = _read_history(job)
    executor = _open_executor(job.settings)
    job = measure_syncs(history.store, job, is_far=executor.abilities.is_engine)
    return _preview(job, history, rerun, only, is_verified=is_verified), history


def _preview(
    job: Job,
    history: History,
    rerun: str,
    only: Chosen | None,
    *,
    follow: bool = False,
    is_verified: bool = False,
) -> Plan:
    """What a hand-in would do; nothing is written, and no engine has to be there."""
    living = Liveness(by_path=True).list_living(history)
    if is_verified:
        verify(history, living)
    plan = _plan(job, history, living, rerun, only, follow=follow)
    with contextlib.suppress(BackendError):
        _refuse_too_wide(plan, _open_executor(job.settings))
    return plan


def _plan(
    job: Job,
    history: History,
    living: set[str],
    rerun: str,
    only: Chosen | None,
    *,
    follow: bool = False,
) -> Plan:
    """As `build_plan`; what others need and has not left all that it should runs again with them."""
    while True:
        plan = build_plan(job, history, living, rerun, only, follow=follow)
        if not forget_missing(history, plan.by_index, plan.list_needed()):
            return plan


def _read_history(job: Job) -> History:
    """What the job's store knows. Raises InputError where it holds another job."""
    history = History(_open_store(job.settings))
    history.refresh()
    if history.job and history.job["name"] != job.name:
        raise InputError(
            f"{history.store.address} holds the job {history.job['name']!r}",
            f"use --name {history.job['name']}, or other --results",
        )
    return history


class JobHandle:
    """A job that this process handed in, or found handed in: what `watch` looks at.

    only: the tasks that are to have their turn, where that is not all of them; follow: with those
    behind them; takes_behind: whether such are taken at all. left_failed and left_behind: what was
    left alone, how many and their names. cancelling: the
    indices of tasks that are to be ended, where it is that. is_looking: whether the store has
    not answered yet, so that nobody else may ask `history`.
    """

    def __init__(
        self,
        settings: Settings,
        history: History,
        executor: Executor,
        batches: Sequence[str],
        plan: Plan | None = None,
    ) -> None:
        self.settings, self.history = settings, history
        self.executor, self.batches = executor, batches
        self.why: dict[str, int] = plan.why if plan else {}
        self.total = plan.total if plan else history.count - len(history.dropped)
        self.running = plan.running if plan else 0
        succeeded = history.counts()["succeeded"]
        self.done, self.dropped = (plan.done, len(plan.dropped)) if plan else (succeeded, 0)
        self.left_failed = plan.left_failed if plan else 0
        self.other_code = plan.other_code if plan else 0
        left_behind = sorted(plan.left_behind) if plan else []
        self.left_behind = [plan.by_index(i).name or str(i) for i in left_behind] if plan else []
        self.source_digest = plan.job.source_digest if plan else ""
        self.deaths, self.waiting = 0, -1
        self.failed_before = _count_failed(history.counts())
        self.is_interrupted = False
        self.only: Chosen | None = None
        newest = next(reversed(history.hand_ins), None)
        self.follow, self.takes_behind = False, not (newest and newest.leaves_behind)
        self.cancelling: Sequence[int] | None = None
        self.liveness = Liveness(by_path=True)
        self.is_looking = False

    @property
    def poll_s(self) -> float:
        """Seconds between two looks."""
        return _POLL_FAR_S if is_remote(self.history.store.address) else _POLL_S

    @property
    def is_own(self) -> bool:
        """Whether what runs it ends when this process does."""
        return bool(self.batches) and self.executor.is_attached

    @property
    def is_idle(self) -> bool:
        """Whether nothing was handed in, and nobody is at what was asked for."""
        return not self.batches and not self.running

    @property
    def rest(self) -> str:
        """What `build_plan` is asked for where something of the job is left."""
        return "rest" if self.takes_behind else "left"

    @property
    def left_over(self) -> int:
        """Tasks that changed while a batch had them: somebody has to hand them in after it."""
        return len(self.history.stale - self.history.dropped)


def submit(
    job: Job,
    rerun: str = "default",
    only: Chosen | None = None,
    tell: Tell | None = None,
    *,
    is_verified: bool = False,
) -> JobHandle:
    """Hand in what is to run of a settled job.

    is_verified: whether what is done has to have left what it should. tell: called with what to show while that takes long; what it raises ends it. Raises
    StoreError where the store cannot be written, BackendError where the executor does not take it.
    """
    history = _read_history(job)  # refuses what cannot be before anything is written
    executor = _open_executor(job.settings)
    with _job_folder(history, job):
        with history.store.patient():
            job = put_syncs(history.store, job, is_far=executor.abilities.is_engine)
        with submission_lock(history.store) as lock:
            history.refresh()
            return _hand_in(job, history, lock, rerun, only, tell=tell, is_verified=is_verified)


@contextlib.contextmanager
def _job_folder(history: History, job: Job) -> Iterator[None]:
    """The job is in its store from now on; a new one only where it comes to be handed in."""
    store, is_new = history.store, not history.job
    with store.patient():
        open_job_folder(store, job)
    try:
        leases_folder()  # refuses what is not ours, before anybody is waited for
        register(job.name, store.address, job.settings.submitted_from)
        yield
    except (UmpteenError, KeyboardInterrupt):
        if is_new:
            with contextlib.suppress(UmpteenError):
                _take_back(store)
        raise


def _take_back(store: Store) -> None:
    """Remove a job that was never handed in, and that nobody is handing in."""
    if store.read(LOCK) is not None or parse_numbers(store.list(HANDED), ".json"):
        return
    store.delete(JOB)
    forget(store.address)
    if not is_remote(store.address):
        remove_rest(store, ())


def _open_executor(settings: Settings) -> Executor:
    return open_executor(settings.executor, settings.executor_options)


def _open_store(settings: Settings) -> Store:
    return open_store(settings.address, settings.results_options or None)


def _hand_in(
    job: Job,
    history: History,
    lock: SubmissionLock,
    rerun: str,
    only: Chosen | None = None,
    liveness: Liveness | None = None,
    tell: Tell | None = None,
    *,
    follow: bool = False,
    is_verified: bool = False,
) -> JobHandle:
    """`history` was read with the lock held, as was what `job` has of it."""
    _refuse_removed(history)
    executor = _open_executor(job.settings)
    executor.check()
    executor.tell = tell or executor.tell
    liveness = liveness or Liveness(by_path=True)
    living = liveness.list_living(history)
    if history.list_open():  # of what ended meanwhile nothing is lost
        history.refresh()
    if record_marked(history, living):
        history = _read_history(job)
    if is_verified:
        verify(history, living)
    plan = _plan(job, history, living, rerun, only, follow=follow)
    batches = []
    if not plan.is_empty:
        _refuse_left_out(history, job.settings)
        _refuse_too_wide(plan, executor)
        before = _read_before(plan)
        cut = _cut(plan, executor, before)
        batches = submit_plan(plan, history, executor, _list_past(plan, before), lock, cut)
    history.take_recent()  # what failed before is not news
    history.refresh()
    submission = JobHandle(job.settings, history, executor, batches, plan)
    submission.liveness = liveness
    submission.follow, submission.takes_behind = follow, takes_behind(rerun)
    if only is not None or rerun not in ("default", "all", "code", "rest", "left"):
        submission.only = _only_of(plan)
    return submission


def _read_before(plan: Plan) -> Mapping[int, Tried]:
    """The records of what each task that runs again has behind it."""
    before = [index for index in plan.to_run if index < plan.history.count]
    return plan.history.read_records(before) if before else {}


def _cut(plan: Plan, executor: Executor, before: Mapping[int, Tried]) -> BatchSizes | None:
    """How many workers there may be, and what each batch takes; None for this machine."""
    able = executor.abilities
    if not able.is_engine:
        return None
    tasks = plan.job.tasks
    cpus = 1 if any(task.terms is None for task in tasks) else min(map(_count_cpus, tasks))
    workers = executor.count_workers(plan.job.settings.slots, cpus)
    newest = {index: records[-1][1] for index, records in before.items() if records}
    seconds = {i: record.seconds for i, record in newest.items() if record.exit_code is not None}
    cut = cut_for_engine(plan, workers, able.batches_most, seconds, able.start_up_s)
    return cut._replace(workers=workers)


def choose_where(where: Where, job: Job) -> Chosen:
    """The tasks of a job for which an expression holds, by what is known before they run.

    Raises InputError where it asks for a parameter that none has.
    """
    where.check(task.parameters for task in job.tasks)

    def only(index: int, task: Task) -> bool:
        return where(
            {
                "name": task.name or str(index),
                "index": index,
                "tags": task.tags or [],
                "parameters": task.parameters or {},
            }
        )

    return only


def _only_of(plan: Plan) -> Chosen:
    """The tasks of a plan: what it left out stays out when a batch is handed in again."""
    again = {i for batch in plan.again for i in plan.history.unfinished(batch)}
    handed = again.union(plan.to_run)
    return lambda index, _: index in handed


def collect(
    name: str,
    tell: Tell | None = None,
    executor: tuple[str, Mapping[str, Any]] | None = None,
) -> JobHandle:
    """A job that was handed in, to be watched; what nobody is at any more is handed in again.

    What is handed in goes on without this process. tell: as of `submit`. executor: where it is
    to run, and with which options, if not as before. Raises InputError where there is no such job.
    """
    history = open_history(name)
    settings = _read_settings(history, detach=True, executor=executor)
    submission = JobHandle(settings, history, _open_executor(settings), [])
    is_over = history.hand_ins and not history.counts()["waiting"]  # to look closer takes time
    if is_over and not _is_behind(submission):
        return submission
    with submission_lock(history.store) as lock:  # what others hand in must not seem dropped
        history.refresh()
        job = _read_back(history, settings)
        return _hand_in(job, history, lock, submission.rest, tell=tell)


class Rerun(NamedTuple):
    """What is to run again of a job that was handed in before.

    tasks: names, patterns or indices, which run again even where they succeeded. where: which
    ones, by their facts (see `read_facts`). slots: how many at once, where not as before.
    timeout_s and memory (bytes): what these tasks have from now on.
    """

    tasks: Sequence[str] = ()
    where: Where | None = None
    slots: int | None = None
    timeout_s: float | None = None
    memory: int | None = None


def retry(
    name: str, chosen: Rerun | None = None, *, detach: bool = False, tell: Tell | None = None
) -> JobHandle:
    """Run again what did not succeed or is behind, with what was skipped after it and what is
    behind it then; no job file is needed.

    tell: as of `submit`. Raises InputError.
    """
    history = open_history(name)
    settings = _read_settings(history, detach=detach)
    with submission_lock(history.store) as lock:
        history.refresh()
        job, rerun, only = _choose_rerun(history, settings, chosen or Rerun())
        return _hand_in(job, history, lock, rerun, only, tell=tell, follow=True)


def plan_rerun(name: str, chosen: Rerun | None = None) -> Plan:
    """What `retry` would do; nothing is written."""
    history = open_history(name)
    settings = _read_settings(history, detach=False)
    job, rerun, only = _choose_rerun(history, settings, chosen or Rerun())
    return _preview(job, history, rerun, only, follow=True)


def _choose_rerun(history: History, settings: Settings, chosen: Rerun) -> tuple[Job, str, Chosen]:
    """The job as it is to run, and what of it: as `build_plan` has that."""
    if chosen.slots is not None:
        _refuse_slots(chosen.slots)
        sources = {**settings.sources, "slots": "--slots"}
        settings = msgspec.structs.replace(settings, slots=chosen.slots, sources=sources)
    job = _read_back(history, settings)
    wanted = _choose(job, history, chosen.tasks, chosen.where)
    if chosen.timeout_s is not None or chosen.memory is not None:
        changed = [
            _change(task, chosen.timeout_s, chosen.memory) if task.name in wanted else task
            for task in job.tasks
        ]
        if settings.executor == LOCAL:
            _refuse_impossible(changed)
        job = msgspec.structs.replace(job, tasks=changed)
    return job, "all" if chosen.tasks else "retry", lambda _, task: task.name in wanted


def _change(task: Task, timeout_s: float | None, memory: int | None) -> Task:
    if timeout_s is not None:
        task = msgspec.structs.replace(task, timeout_s=timeout_s)
    if memory is not None:
        terms = msgspec.structs.replace(task.terms or TaskOptions(), memory=memory)
        task = msgspec.structs.replace(task, terms=terms)
    return task


def _choose(
    job: Job,
    history: History,
    tasks: Sequence[str],
    where: Where | None,
) -> set[str]:
    """Names of the tasks that are meant, and of those that were skipped after them."""
    names = [task.name for task in job.tasks]
    wanted = set(find_names(history, names, tasks)) if tasks else set(names)
    if where is not None:
        where.check(task.parameters for task in job.tasks)
        wanted &= {fact["name"] for fact in read_facts(history) if where(fact)}
    graph = build_graph(job.tasks, job.settings.canary) if len(wanted) < len(names) else None
    if graph is not None:
        positions = {position for position, name in enumerate(names) if name in wanted}
        behind = {names[position] for position in graph.list_behind(positions)}
        for index, task in enumerate(history.read_tasks()):
            if task.name in behind and history.states[index] == SKIPPED:
                wanted.add(task.name)
    return wanted


def cancel(name: str, tasks: Sequence[str] = ()) -> JobHandle:
    """End a job, or some tasks of it; `watch` ends when all of them are recorded as cancelled.

    tasks: names, patterns or indices. Raises InputError where there is no such job or task.
    """
    history = open_history(name)
    # Of a colleague's job it is the mark in the store that ends it, and his executor is not asked.
    is_strange = bool(find_stranger(history))
    settings = _read_settings(history, detach=True, executor=(LOCAL, {}) if is_strange else None)
    submission = JobHandle(settings, history, _open_executor(settings), [])
    living = submission.liveness.list_living(history)
    meant = _list_meant(history, tasks, living)
    submission.cancelling = [index for index in meant if is_open(history, index)]
    submission.done = sum(IS_FINAL[history.states[index]] for index in meant)
    clear_dead(history.identity)
    if submission.cancelling:
        with submission_lock(history.store) as lock:
            history.refresh()
            chosen = [index for index in submission.cancelling if is_open(history, index)]
            refuse_adopted(history, chosen)
            lock.check()
            put_cancel_mark(history, chosen if tasks else None)
        living = submission.liveness.list_living(history)
        _withdraw(history, living, is_whole=not tasks)
    return submission


def _withdraw(history: History, living: set[str], *, is_whole: bool) -> None:
    """Have those that are at it look at the mark now.

    is_whole: whether all of the job is cancelled. Else a batch that has not begun has other
    tasks, too, and sees the mark when it does.
    """
    batches = map(history.batches.__getitem__, living)
    for name, handles in list_handles(history, batches, by_path=True).items():
        executor = open_executor(name, {})
        if is_whole:
            executor.cancel(handles)
        else:
            executor.hasten(handles)


def _list_meant(history: History, tasks: Sequence[str], living: set[str]) -> list[int]:
    """The tasks given, else all; of those that count no more, what somebody is at."""
    at = history.numbers_of(living)
    found: Iterable[int] = range(history.count)
    if tasks:
        names = {task.name: index for index, task in enumerate(history.read_tasks())}
        found = sorted({names[name] for name in find_names(history, list(names), tasks)})
    return [
        index for index in found if index not in history.dropped or history.batch_of[index] in at
    ]


def _watch_cancel(submission: JobHandle) -> Iterator[JobStatus]:
    """Until what was cancelled is recorded; what nobody is at is recorded by this process.

    What waits is recorded when its turn would have been, so it is not waited for for long.
    """
    history, left = submission.history, list(submission.cancelling or ())
    began_s = time.monotonic()
    limit_s = submission.settings.grace_s + UNKNOWN_S + _CANCEL_S
    recorded: set[str] = set()
    while True:
        living = submission.liveness.list_living(history)
        history.refresh()
        status = build_status(history, living)
        yield status
        left = [index for index in left if is_open(history, index)]
        names = list(history.batches)
        batches = {names[history.batch_of[index]] for index in left}
        if lost := batches - living - recorded:
            recorded |= lost
            with submission_lock(history.store) as lock:
                lock.check()
                record_cancelled(history, lost, set(left))
            submission.history = history = History(history.store)  # looks into ended ones, too
            history.refresh()
            history.take_recent()  # told before
            continue
        are_running = not {task.index for task in status.running}.isdisjoint(left)
        took_s = time.monotonic() - began_s
        is_over = took_s > (limit_s if are_running else _HEARD_S)
        if is_over or not batches & living or submission.is_interrupted:
            return
        submission.executor.wait(submission.poll_s)


def _read_settings(
    history: History,
    *,
    detach: bool,
    executor: tuple[str, Mapping[str, Any]] | None = None,
) -> Settings:
    """What the job was handed in with last; without a deadline, which was that time's."""
    given = history.read_settings()
    before = given.get("executor", LOCAL)
    if executor is None:
        _refuse_strange(history, before)
    name, options = (find_short_name(executor[0]), dict(executor[1])) if executor else (before, {})
    if name != before or options:
        given.update(executor=name, executor_options=options)
    if name != before == LOCAL:
        given["slots"] = 0  # those were this machine's
    sources = dict.fromkeys(DEFAULTS, "the run before")
    given.update(address=history.store.address, deadline_s=None, sources=sources)
    if given.get("executor", LOCAL) == LOCAL:
        # A batch file's job may not say, and an older version took any number.
        given["slots"] = min(given.get("slots") or usable_cores(), SLOTS_MOST)
        given["executor_options"] = {"detach": True} if detach else {}
        given["submitted_from"] = _find_folder(history.store, given.get("submitted_from") or "")
    return msgspec.convert({**DEFAULTS, **given}, Settings)


def _find_folder(store: Store, before: str) -> str:
    """Where relative paths begin: where the job was handed in from before.

    Where that is gone and the job lies below the folder that the user is in, all of it was moved:
    then it is this one.
    """
    if not before or os.path.isdir(before):
        return before
    with contextlib.suppress(OSError):  # the folder that the user is in was removed
        here = os.getcwd()
        if os.path.realpath(store.address).startswith(f"{here}/"):
            return here
    return before


def _refuse_left_out(history: History, settings: Settings) -> None:
    """Raises SettingsError where an option is needed that the store has not, as it is secret."""
    if left_out := history.list_left_out(settings.executor_options):
        raise SettingsError(
            f"the job was handed in with {' and '.join(left_out)}, which the store does not keep",
            "umpteen collect FILE, with the job's file, has it again",
        )


def _refuse_strange(history: History, executor: str) -> None:
    """Raises SettingsError where the executor is named by what somebody else may have written."""
    if executor != LOCAL and (found := find_stranger(history)):
        raise SettingsError(
            f"{found} may be somebody else's, and names the executor {executor!r}",
            "umpteen collect FILE, with the job's file, says where it is to run",
        )


def _list_past(plan: Plan, before: Mapping[int, Tried]) -> dict[int, Past]:
    """What batches say of each task that runs again."""
    unrecorded = {index for index, records in before.items() if not records}
    past = {
        index: Past(records[-1][1].attempt, records[-1][0], _list_tries(records))
        for index, records in before.items()
        if records
    }
    return past | dict.fromkeys(_list_begun(plan.history, unrecorded), Past(0, ""))


def _list_begun(history: History, indices: set[int]) -> Iterator[int]:
    """Those that a runner was given, which may have begun with them."""
    for batch in history.batches.values():
        if indices and batch.starts:
            for part in batch.indices:
                yield from (index for index in part if index in indices)


def _list_tries(records: Tried) -> list[dict[str, Any]]:
    """The attempts since the task last came to an end, so that none of its retries comes twice."""
    over = [place for place, (_, record) in enumerate(records, 1) if record.is_final]
    since = records[over[-1] if over else 0 :]
    return [record.to_dict() for _, record in since if record.retry]


def watch(submission: JobHandle) -> Iterator[JobStatus]:
    """Looks at the job, one every 0.2 s, until nobody is at it any more.

    While the store does not answer it is the last look again, with what is wrong as `trouble`.
    What a batch left when it ended is handed in again, until every task has had its turn,
    unless `submission.is_interrupted` was set meanwhile. Raises StoreError where the runner gave
    up on the store, BackendError where it was killed again and again.
    """
    if submission.cancelling is not None:
        yield from _watch_cancel(submission)
        return
    while True:
        yield from _watch_until_ended(submission)
        if submission.cancelling is not None:
            yield from _watch_cancel(submission)
            return
        if submission.is_interrupted or _is_over(submission):
            return
        # To look closer takes all tasks' room.
        if not submission.history.counts()["waiting"] and not _is_behind(submission):
            return
        again = _hand_in_rest(submission)
        if again.is_idle:
            return
        for kept in _KEPT:
            setattr(again, kept, getattr(submission, kept))
        submission.__dict__.update(again.__dict__)


def _hand_in_rest(submission: JobHandle) -> JobHandle:
    """What was left by those who had it, as the store has it now."""
    history = submission.history
    with submission_lock(history.store) as lock:
        history.refresh()
        job = _read_back(history, submission.settings, submission.source_digest)
        tell, liveness = submission.executor.tell, submission.liveness
        return _hand_in(
            job, history, lock, submission.rest, submission.only, liveness, tell,
            follow=submission.follow,
        )  # fmt: skip


def _is_behind(submission: JobHandle) -> bool:
    """Whether tasks are behind by now that nobody has in hand, and that are to be taken."""
    history = submission.history
    if not (submission.takes_behind and history.has_graph and history.is_of_several):
        return False
    job = _read_back(history, submission.settings, submission.source_digest)
    living = submission.liveness.list_living(history)
    plan = build_plan(job, history, living, "rest", submission.only, follow=submission.follow)
    return bool(plan.behind)


def _read_back(history: History, settings: Settings, source_digest: str = "") -> Job:
    """The job as the store has it: every task in its newest form."""
    tasks = [
        task for index, task in enumerate(history.read_tasks()) if index not in history.dropped
    ]
    return Job(history.job["name"], tasks, settings, source_digest)


def _watch_until_ended(submission: JobHandle) -> Iterator[JobStatus]:
    history = submission.history
    pace = _Pace()
    left_s, estimated_s = None, 0.0
    status = msgspec.structs.replace(build_status(history, set()), state="running")
    while True:
        found = yield from _look(submission, status)
        if found is None:
            return
        status, living = found
        rate = pace.observe(status)
        if left_s is None or time.monotonic() - estimated_s >= _ESTIMATE_S:
            left_s = estimate_left_s(status, history.samples, rate, time.time())
            estimated_s = time.monotonic()
        waits = _explain(submission, living) if living and not status.running else ""
        trouble = status.trouble or waits
        status = msgspec.structs.replace(status, left_s=left_s, rate=rate, trouble=trouble)
        yield status
        if _has_failed_enough(submission, status) and living:
            _stop(submission, living)
            return
        returned, _ = submission.executor.read_ending()
        has_refused = returned in _REFUSED  # and whether others are at the rest is not to be known
        if has_refused or (returned is not None and (not living or submission.is_interrupted)):
            return
        submission.executor.wait(submission.poll_s)


def _has_failed_enough(submission: JobHandle, status: JobStatus) -> bool:
    """On an engine each runner counts its own failures; those of all count for who watches."""
    most = submission.settings.max_failures
    if not most or not submission.executor.abilities.is_engine:
        return False
    return _count_failed(status.counts) - submission.failed_before >= most


def _count_failed(counts: Mapping[str, int]) -> int:
    return counts["failed"] + counts["timed_out"]


def _stop(submission: JobHandle, living: set[str]) -> None:
    """Cancel what is left of the job."""
    history = submission.history
    with submission_lock(history.store) as lock:
        history.refresh()
        lock.check()
        put_cancel_mark(history, None)
    _withdraw(history, living, is_whole=True)
    submission.cancelling = [i for i in range(history.count) if is_open(history, i)]


def _explain(submission: JobHandle, living: set[str]) -> str:
    """Why nothing runs, where the executor knows."""
    history = submission.history
    batches = map(history.batches.__getitem__, living)
    found = list_handles(history, batches, by_path=True)
    return submission.executor.explain(found.get(submission.executor.name, ()))


def _look(
    submission: JobHandle, before: JobStatus
) -> Generator[JobStatus, None, tuple[JobStatus, set[str]] | None]:
    """How the job stands, and which batches somebody is at; meanwhile `before`, and what is wrong.

    A runner of our own decides itself when to give up on the store: None where it has. Raises
    StoreError where the store does not answer for too long, and there is none.
    """
    began_s = time.monotonic()
    looking = _begin_look(submission)
    trouble = ""
    error = StoreError("the results store does not answer", "run the same command again")
    while True:
        is_over = looking.is_over(_GLANCE_S)
        silent_s = time.monotonic() - began_s
        if is_over:
            try:
                return looking.take()
            except StoreError as refused:
                error, trouble = refused, f"the results store cannot be read: {refused}"
        elif silent_s >= _SILENT_S:
            shown_s = silent_s // _SILENT_S * _SILENT_S
            trouble = trouble or f"the results store has not answered for {shown_s:.0f} s"
        if not (submission.is_own and _is_starting(submission)):
            if submission.is_interrupted or submission.executor.read_ending()[0]:
                return None
            if silent_s > read_patience() or (is_over and not error.transient):
                raise error
        submission.is_looking = True
        yield msgspec.structs.replace(before, trouble=trouble or before.trouble)
        submission.is_looking = False
        if is_over:
            submission.executor.wait(submission.poll_s)
            looking = _begin_look(submission)


def _begin_look(submission: JobHandle) -> BackgroundCall[tuple[JobStatus, set[str]]]:
    history = submission.history

    def look() -> tuple[JobStatus, set[str]]:
        living = submission.liveness.list_living(history)
        history.refresh()
        return build_status(history, living), living

    return BackgroundCall(look)


def _is_starting(submission: JobHandle) -> bool:
    return submission.executor.read_ending()[0] is None


def _is_over(submission: JobHandle) -> bool:
    """Whether there is nothing more to do for this process, as far as its own runner goes."""
    returned, complaint = submission.executor.read_ending()
    if returned in _REFUSED:
        message, _, hint = complaint.removeprefix("error: ").partition("\n\nhint: ")
        # Never wrong use: the job has been handed in.
        kind = StoreError if returned == StoreError.exit_code else BackendError
        raise kind(message or "the runner gave up on the store", hint or None)
    if returned:
        waiting = submission.history.counts()["waiting"]
        submission.deaths = submission.deaths + 1 if waiting == submission.waiting else 1
        submission.waiting = waiting
        if submission.deaths >= _MOST_DEATHS:
            why = find_last_word(complaint) or _tell_signal(returned)
            raise BackendError(
                f"the runner died {submission.deaths} times: {why}", "run it again to go on",
                returned=returned, last_lines=complaint or None,
            )  # fmt: skip
    has_deadline = bool(submission.settings.deadline_s) and bool(submission.batches)
    return has_deadline or is_cancelled(submission.history)


def _tell_signal(returned: int) -> str:
    """How a runner ended that said nothing."""
    return f"exit code {returned}" if returned >= 0 else f"killed by signal {-returned}"


class _Pace:
    """How many tasks end in a second, over the last 30 s."""

    def __init__(self) -> None:
        self.seen: collections.deque[tuple[float, int]] = collections.deque()

    def observe(self, status: JobStatus) -> float:
        now = time.monotonic()
        self.seen.append((now, status.finished))
        while now - self.seen[0][0] > _RATE_WINDOW_S and len(self.seen) > 2:
            self.seen.popleft()
        since, finished = self.seen[0]
        return (status.finished - finished) / (now - since) if now > since else 0.0


def exit_code(status: JobStatus) -> int:
    """0 where every task succeeded, else 1."""
    return EXIT_SUCCEEDED if status.state == "succeeded" else EXIT_SOME_FAILED


class Removal(NamedTuple):
    """What `remove` would remove: the outputs in these folders below the address, and the job.

    outside: how many tasks have their outputs elsewhere, where they stay. given: what the job
    was called by who asked.
    """

    name: str
    given: str
    history: History
    folders: list[str]
    outside: int

    def measure(self) -> Measured:
        """How many tasks have outputs that would be removed, and the bytes of all of it."""
        return measure_job(self.history.store, self.folders)


def plan_removal(name: str) -> Removal:
    """Raises InputError where there is no such job, or somebody is or may be at it."""
    history = open_history(name)
    _refuse_running(history, name)
    address = history.store.address
    folders, outside = [], 0
    for task in history.read_tasks():
        base = place_of(history.store, task.name, task.output)
        if base.startswith(address + "/"):
            folders.append(base[len(address) + 1 :])
        else:
            outside += 1
    return Removal(history.job.get("name", name), name, history, folders, outside)


def _refuse_removed(history: History) -> None:
    if history.job.get(REMOVING):
        hint = f"{write_verb('rm', history.store.address)} goes on with that"
        raise InputError(f"{history.job['name']!r} is being removed", hint)


def _refuse_running(history: History, given: str) -> None:
    status = read_status(history, by_path=True)
    if status.state in ("running", "unknown"):
        is_known = status.state == "running"
        state = "is running" if is_known else "may be running on another machine"
        hint = f"{write_verb('cancel', given)} ends it first"
        raise InputError(f"{status.name!r} {state}", hint)


def remove(removal: Removal) -> Removed:
    """Remove a job with what it wrote, nothing else. Raises InputError and StoreError."""
    history = removal.history
    with submission_lock(history.store) as lock:
        history.refresh()
        _refuse_running(history, removal.given)
        clear_dead(history.identity)
        lock.check()
        removed = remove_job(history.store, removal.folders)
    remove_rest(history.store, removal.folders)
    forget(history.store.address)
    return removed


def explain(name: str, task: str) -> Why:
    """Why a task of a job is as it is. Raises InputError where there is no such job or task."""
    history = open_history(name)
    index, _ = find_task(history, task)
    return build_why(history, index, Liveness().list_living(history))
