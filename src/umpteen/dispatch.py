"""The front door: what the command line and Python programs call.

Each verb is a short list of named steps. Nothing here prints.
"""

from __future__ import annotations

import collections
import difflib
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from umpteen.errors import (
    EXIT_SOME_FAILED,
    EXIT_SUCCEEDED,
    BackendError,
    InputError,
    SettingsError,
    StoreError,
)
from umpteen.executors.base import UNKNOWN, Executor, open_executor
from umpteen.executors.local import LocalExecutor
from umpteen.hand_in import hand_in, hand_in_lock, open_job_folder
from umpteen.history import BatchHistory, History
from umpteen.job import Job, Task
from umpteen.plan import Plan, build_plan
from umpteen.process import usable_cores
from umpteen.registry import find_address, register
from umpteen.results.directory import open_store
from umpteen.status import JobStatus, build_status, estimate_left_s, list_living
from umpteen.task import Record

__all__ = [
    "Submission",
    "exit_code",
    "find_task",
    "open_history",
    "outputs_folder",
    "plan_run",
    "read_status",
    "settle",
    "submit",
    "watch",
]

_POLL_S = 0.2
_RATE_WINDOW_S = 30.0
_UNKNOWN_S = 60.0
_MOST_DEATHS = 5  # of runners in a row, without a task that ended between them


def settle(job: Job, folder: str) -> Job:
    """The job with its address made absolute and its slots counted, submitted from `folder`."""
    settings = job.settings
    for path in (folder, settings.address):
        if not _is_utf8(path):
            raise SettingsError(f"the folder's name {path!r} is not UTF-8", "use another folder")
    open_executor(settings.executor, settings.executor_options)  # refused before all else
    address = open_store(settings.address.replace("{name}", job.name)).address
    sources = dict(settings.sources)
    slots = settings.slots
    if not slots:
        slots = usable_cores()
        sources["slots"] = "default: the cores this process may use"
    settings = msgspec.structs.replace(
        settings, address=address, slots=slots, sources=sources, submitted_from=folder
    )
    return msgspec.structs.replace(job, settings=settings)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def open_history(name: str) -> History:
    """What the store of a job knows, the job given by its name or its address.

    Raises InputError where there is no such job.
    """
    address = find_address(name)
    history = History(open_store(address))
    history.refresh()
    register(history.job.get("name", name), address)
    return history


def read_status(history: History) -> JobStatus:
    """How the job stands now."""
    liveness = _Liveness()
    living = liveness.list_living(history)
    status = build_status(history, living)
    if living and living <= liveness.seen.keys():  # and one look does not tell
        return msgspec.structs.replace(status, state="unknown")
    return status


class _Liveness:
    """Which batches somebody is at: what the executors say, asked once for all.

    Where they cannot know (another machine's runner), a batch lives until its files have not
    changed for 60 s by our clock; its runner replaces one every 15 s.
    """

    def __init__(self) -> None:
        self.seen: dict[str, tuple[Any, float]] = {}

    def list_living(self, history: History) -> set[str]:
        handles: dict[str, list[str]] = collections.defaultdict(list)
        open_batches = history.list_open()
        for batch in open_batches:
            handles[batch.executor or "local"] += batch.handles
        polled: dict[str, str] = {}
        for name, asked in handles.items():
            polled.update(open_executor(name, {}).poll(asked))
        living = list_living(history, polled)
        for batch in open_batches:
            unknown = any(polled.get(handle) == UNKNOWN for handle in batch.handles)
            if unknown and batch.batch not in living and self._has_changed(history, batch):
                living.add(batch.batch)
        return living

    def _has_changed(self, history: History, batch: BatchHistory) -> bool:
        if not history.unfinished(batch):
            return False
        found = (history.list_running(batch), [start.offset for start in batch.starts])
        before, since_s = self.seen.get(batch.batch, (None, 0.0))
        now = time.monotonic()
        if found != before:
            self.seen[batch.batch] = (found, now)
            return True
        return now - since_s < _UNKNOWN_S


def plan_run(
    job: Job, rerun: str = "default", liveness: _Liveness | None = None
) -> tuple[Plan, History]:
    """What `submit` would do, and the history it goes by; nothing is written."""
    history = History(open_store(job.settings.address))
    history.refresh()
    if history.job and history.job["name"] != job.name:
        raise InputError(
            f"{history.store.address} holds the job {history.job['name']!r}",
            f"use --name {history.job['name']}, or other --results",
        )
    liveness = liveness or _Liveness()
    return build_plan(job, history, liveness.list_living(history), rerun), history


class Submission:
    """A job that this process handed in, or found handed in: what `watch` looks at."""

    def __init__(
        self, plan: Plan, history: History, executor: Executor, batches: Sequence[str]
    ) -> None:
        self.why, self.total, self.running = plan.why, plan.total, plan.running
        self.done, self.dropped = plan.done, len(plan.dropped)
        self.left_failed = plan.left_failed
        self.history, self.executor, self.batches = history, executor, batches
        self.settings, self.source_digest = plan.job.settings, plan.job.source_digest
        self.deaths, self.waiting = 0, -1
        self.is_interrupted, self.goes_on = False, True
        self.liveness = _Liveness()

    @property
    def is_own(self) -> bool:
        """Whether a runner of this process is at it: it ends when this process does."""
        return bool(self.batches) and isinstance(self.executor, LocalExecutor)


def submit(job: Job, rerun: str = "default", liveness: _Liveness | None = None) -> Submission:
    """Hand in what is to run of a settled job.

    Raises StoreError where the store cannot be written, BackendError where the executor
    does not take it.
    """
    executor = open_executor(job.settings.executor, job.settings.executor_options)
    store = open_store(job.settings.address)
    plan_run(job, rerun, liveness)  # refuses what cannot be before anything is written
    open_job_folder(store, job)
    register(job.name, store.address)
    with hand_in_lock(store):
        plan, history = plan_run(job, rerun, liveness)
        batches = (
            [] if plan.is_empty else hand_in(plan, history, executor, _attempts(plan, history))
        )
    history.take_recent()  # what failed before is not news
    history.refresh()
    submission = Submission(plan, history, executor, batches)
    submission.liveness = liveness or _Liveness()
    submission.goes_on = rerun in ("default", "all", "rest")
    return submission


def _attempts(plan: Plan, history: History) -> dict[int, tuple[int, str]]:
    """The newest attempt of each task that runs again: its number, and its runner's token."""
    if not history.count or set(plan.why) <= {"new"}:
        return {}
    before = [index for index in plan.to_run if index < history.count]
    found = history.read_records(before)
    return {
        index: (records[-1][1].attempt, records[-1][0])
        for index, records in found.items()
        if records
    }


def watch(submission: Submission) -> Iterator[JobStatus]:
    """Looks at the job, one every 0.2 s, until nobody is at it any more.

    What a batch left when it ended is handed in again, until every task has had its turn,
    unless `submission.is_interrupted` was set meanwhile. Raises StoreError where the runner gave up on the store, BackendError where it
    was killed again and again.
    """
    while True:
        yield from _watch_until_ended(submission)
        if submission.is_interrupted or not submission.goes_on or _is_over(submission):
            return
        if not submission.history.counts()["waiting"]:  # to look closer takes all tasks' room
            return
        again = submit(_read_back(submission), "rest", submission.liveness)
        again.deaths, again.waiting = submission.deaths, submission.waiting
        if not again.batches and not again.running:
            return
        submission.__dict__.update(again.__dict__)


def _read_back(submission: Submission) -> Job:
    """The job as the store has it: every task in its newest form."""
    history = submission.history
    tasks = [
        task for index, task in enumerate(history.read_tasks()) if index not in history.dropped
    ]
    return Job(history.job["name"], tasks, submission.settings, submission.source_digest)


def _watch_until_ended(submission: Submission) -> Iterator[JobStatus]:
    history = submission.history
    pace = _Pace()
    while True:
        living = submission.liveness.list_living(history)
        history.refresh()
        status = build_status(history, living)
        rate = pace.observe(status)
        left_s = estimate_left_s(status, history.samples, rate)
        yield msgspec.structs.replace(status, left_s=left_s, rate=rate)
        is_ours_over = not _is_starting(submission)
        if is_ours_over and (not living or submission.is_interrupted):
            return
        if isinstance(submission.executor, LocalExecutor):
            submission.executor.wait(_POLL_S)
        else:
            time.sleep(_POLL_S)


def _is_starting(submission: Submission) -> bool:
    executor = submission.executor
    if isinstance(executor, LocalExecutor) and submission.batches:
        return executor.read_ending()[0] is None
    return False


def _is_over(submission: Submission) -> bool:
    """Whether there is nothing more to do for this process, as far as its own runner goes."""
    executor = submission.executor
    if not isinstance(executor, LocalExecutor):
        return True
    returned, complaint = executor.read_ending()
    if returned == StoreError.exit_code:
        message, _, hint = complaint.removeprefix("error: ").partition("\n\nhint: ")
        raise StoreError(message or "the runner gave up on the store", hint or None)
    if returned:
        waiting = submission.history.counts()["waiting"]
        submission.deaths = submission.deaths + 1 if waiting == submission.waiting else 1
        submission.waiting = waiting
        if submission.deaths >= _MOST_DEATHS:
            raise BackendError(
                f"the runner died {submission.deaths} times", "run it again to go on",
                returned=returned, last_lines=complaint or None,
            )  # fmt: skip
    return bool(submission.settings.deadline_s) and bool(submission.batches)


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


def find_task(history: History, wanted: str) -> tuple[int, Task]:
    """A task by its name, else by its index. Raises InputError where there is none such."""
    tasks = history.read_tasks()
    for index, task in enumerate(tasks):
        if task.name == wanted:
            return index, task
    if wanted.isdigit() and int(wanted) < len(tasks):
        return int(wanted), tasks[int(wanted)]
    raise InputError(
        f"no task {wanted!r} in {history.job.get('name')!r}", _hint_task(wanted, tasks)
    )


def _hint_task(wanted: str, tasks: Sequence[Task]) -> str:
    names = [task.name for task in tasks[:20000]]
    near = difflib.get_close_matches(wanted, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"its tasks are {names[0]} to {names[-1]}"


def outputs_folder(history: History, task: Task, token: str, record: Record | None) -> str:
    """Where the outputs of an attempt are: what was set aside since is below `attempts/`."""
    base = open_store(task.output).address if task.output else history.store.path(task.name)
    if record is None:
        return base
    if record.outputs and os.path.isdir(f"{base}/{record.outputs}"):
        return f"{base}/{record.outputs}"
    aside = f"{base}/attempts/{record.attempt}-{token}"
    return aside if os.path.isdir(aside) else base
