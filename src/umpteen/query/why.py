"""Why a task is as it is: its attempts, what it waits for, and what runs it.

A job's history in, one `Why` out; `report.why` makes text of it. Only the records of the tasks
that it names are read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec

from umpteen.history.history import BatchHistory, History
from umpteen.history.settings import read_settings
from umpteen.job.spec import Task, TaskOptions
from umpteen.model.command import build_digest, shell_command
from umpteen.model.reasons import Reason, read_reason
from umpteen.model.states import STATES
from umpteen.planning.choosing import list_code
from umpteen.query.attempts import Attempt, read_attempts
from umpteen.query.blockers import BlockerSearch, FoundBlocker
from umpteen.runner.lease import find_death
from umpteen.store.address import place_of
from umpteen.store.job_files import RunningTask
from umpteen.store.layout import synced_key
from umpteen.store.records import read_start
from umpteen.system.resources import Capacity, in_mb, list_lacks, read_capacity

__all__ = ["Blocker", "Why", "build_why"]

_RESULTS = "results/"


class Blocker(msgspec.Struct, frozen=True):
    """A task that another is after, and that has not come to the outcome asked for."""

    name: str
    state: str
    # Asked of it: `succeeded`, `any` or `failed`.
    outcome: str
    # Names of the tasks between it and the other, each skipped because of the one before.
    by: list[str]
    # The newest, if any.
    attempt: Attempt | None
    # How many tasks were skipped because of it.
    behind: int
    # Whether it goes first of its template, and is not what the other (or the last of `by`) says
    # that it is after.
    is_canary: bool = False


class Why(msgspec.Struct, frozen=True):
    """What is known of one task."""

    job: str
    name: str
    index: int
    state: str
    command: str
    # Whether it is not in the job any more.
    is_dropped: bool
    attempts: list[Attempt]
    # Since when it runs, by its runner's clock; 0 where it does not.
    start_s: float
    slot: int
    pid: int
    # Of its newest batch.
    host: str
    # Its command at its newest attempt, where that has changed since.
    before: str | None
    # What it is after and is not as it must be; what came to its end first.
    blockers: list[Blocker]
    # What it needs and this machine does not have, in words.
    lacks: list[str]
    # Its newest batch, with the executor and the runner of that; empty where it has none.
    batch: str
    executor: str
    runner: str
    # Whether that batch is run by somebody.
    is_alive: bool
    # How many tasks were skipped because of it.
    behind: int
    # Where a file was looked for that it should have left.
    missing: str = ""
    # What to write for that in `expect`, where it is among its results.
    instead: str = ""
    # Why its runner is no more.
    death: str = ""
    # A task that it is after and that came to its end since it succeeded.
    newer: str = ""
    # Whether that one is itself behind another.
    is_newer_behind: bool = False
    # Digests of what was synced for its batch.
    code: list[str] = []
    # Of what was synced after that, where it is not the same.
    code_since: list[str] = []
    # What its batch waits for, as its executor says.
    queue: str = ""


def build_why(history: History, index: int, living: set[str]) -> Why:
    """What is known of a task of a job of which `living` batches are run by somebody."""
    tasks = history.read_tasks()
    task = tasks[index]
    search = BlockerSearch(history, tasks)
    found = search.find(index)
    attempts = read_attempts(history, {index, *(each.task for each in found)}, living)
    batch = history.find_batch(index)
    missing, instead = _find_expected(history, task, attempts[index])
    newer, is_newer_behind = search.find_newer(index, living)
    row = next((r for r in _list_running(history, batch, living) if r.task == index), None)
    shown = "running" if row else STATES[history.states[index]]
    return Why(
        job=history.job.get("name", ""),
        name=task.name,
        index=index,
        state=shown,
        command=shell_command(task.command),
        is_dropped=index in history.dropped,
        attempts=attempts[index],
        start_s=row.start_s if row else 0.0,
        slot=row.slot if row else -1,
        pid=row.pid if row else 0,
        host=_read_host(history, batch),
        before=_find_former(history, index, task, attempts[index]),
        blockers=[_describe(history, tasks, search, each, attempts, index) for each in found],
        lacks=_list_lacks(task.options or TaskOptions(), read_capacity()),
        batch=batch.batch if batch else "",
        executor=batch.executor if batch else "",
        runner=batch.token if batch else "",
        is_alive=batch is not None and batch.batch in living,
        behind=search.count_behind(index),
        missing=missing,
        instead=instead,
        death=_find_death(batch, living),
        newer=tasks[newer].name if newer >= 0 else "",
        is_newer_behind=is_newer_behind,
        code=list_code(batch) if batch else [],
        code_since=_list_code_since(history, batch),
    )


def _describe(
    history: History,
    tasks: Sequence[Task],
    search: BlockerSearch,
    found: FoundBlocker,
    attempts: Mapping[int, list[Attempt]],
    index: int,
) -> Blocker:
    own = attempts[found.task]
    return Blocker(
        name=tasks[found.task].name,
        state=STATES[history.states[found.task]],
        outcome=found.outcome,
        by=[tasks[i].name for i in found.by],
        attempt=own[-1] if own else None,
        behind=search.count_behind(found.task),
        is_canary=search.is_canary(found.task, found.by[-1] if found.by else index),
    )


def _list_code_since(history: History, batch: BatchHistory | None) -> list[str]:
    """The digests of newer code than a batch had: that of the newest batch, else what was synced
    since for no batch.
    """
    own = list_code(batch) if batch else []
    if not own:
        return []
    made_with = [list_code(each) for each in history.batches.values()]
    if sorted(made_with[-1]) != sorted(own):
        return made_with[-1]
    folder, _, ending = synced_key("").rpartition("/")
    there = {name.removesuffix(ending) for name in history.store.names(folder)}
    return sorted(there.difference(*made_with))


def _find_death(batch: BatchHistory | None, living: set[str]) -> str:
    is_dead = batch is not None and batch.batch not in living
    return find_death(batch.runner) if batch is not None and is_dead else ""


def _list_running(
    history: History, batch: BatchHistory | None, living: set[str]
) -> list[RunningTask]:
    if batch is None or batch.batch not in living:
        return []
    return [row for row in history.list_running(batch) if not history.states[row.task]]


def _read_host(history: History, batch: BatchHistory | None) -> str:
    if batch is None or not batch.starts:
        return ""
    start = read_start(history.store, batch.batch, batch.starts[-1].key, history.here)
    return start.opened.host if start.opened else ""


def _find_former(
    history: History, index: int, task: Task, attempts: Sequence[Attempt]
) -> str | None:
    """The command of the newest attempt, where the task has changed since."""
    digests = [attempt.record.digest for attempt in attempts if attempt.record.digest]
    if not digests or digests[-1] == build_digest(task.command, task.env, task.cwd):
        return None
    for former in history.read_forms(index):
        if digests[-1] == build_digest(former.command, former.env, former.cwd):
            return shell_command(former.command)
    return "(not known)"


def _find_expected(history: History, task: Task, attempts: Sequence[Attempt]) -> tuple[str, str]:
    """Why.missing and Why.instead; empty where the newest attempt left what it should."""
    record = attempts[-1].record if attempts else None
    found = read_reason(record.reason) if record else None
    if record is None or found is None or found.reason is not Reason.MISSING_FILE:
        return "", ""
    path = found.parts["path"]
    base = place_of(history.store, task.name, task.output)
    outputs = f"{base}/{record.outputs}" if record.outputs else base
    if path.startswith(_RESULTS):
        return f"{outputs}/{path}", ""
    folder = read_settings(history).get("submitted_from", "")
    folder = os.path.join(folder, os.path.expanduser(task.cwd or ""))
    is_there = os.path.lexists(f"{outputs}/{_RESULTS}{path}")
    return os.path.join(folder, path), f"{_RESULTS}{path}" if is_there else ""


def _list_lacks(options: TaskOptions, here: Capacity) -> list[str]:
    """`64 cpus (there are 2)` for each thing that there is not enough of."""
    lacks = list_lacks(options.cpus or 0, options.gpus, options.memory or 0, here)
    return [f"{wanted:,} {what} (there are {most:,})" for wanted, most, what in map(in_mb, lacks)]
