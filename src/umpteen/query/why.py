"""Why a task is as it is: its attempts, what it waits for, and who is at it.

A job's history in, one `Why` out; `sentences` makes text of it. Reads only the records of the
tasks that it speaks of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import msgspec

from umpteen.history.behind import find_behind
from umpteen.history.history import SUCCEEDED, BatchHistory, History
from umpteen.job.dependencies import Graph, build_graph
from umpteen.job.spec import Task, TaskOptions
from umpteen.model.command import build_digest, shell_command
from umpteen.model.dependencies import meets
from umpteen.model.record import Record
from umpteen.model.states import IS_FINAL, STATES
from umpteen.planning.plan import list_code
from umpteen.runner.lease import find_death
from umpteen.store.address import place_of
from umpteen.store.job_files import RunningTask, parse_running
from umpteen.store.layout import running_key, synced_key
from umpteen.store.records import list_starts, read_start
from umpteen.system.resources import Capacity, in_mb, list_lacks, read_capacity

__all__ = ["Attempt", "Blocker", "Why", "build_why"]

_DID_NOT_LEAVE = "did not leave "
_RESULTS = "results/"


class Attempt(msgspec.Struct, frozen=True):
    """One attempt: its record, the runner that made it, and the host it ran on.

    is_lost: whether its runner died while it ran, so that the record says only when it began.
    """

    record: Record
    runner: str
    host: str
    is_lost: bool = False


class Blocker(msgspec.Struct, frozen=True):
    """A task that another is after, and that has not come to the outcome asked for.

    outcome: `succeeded`, `any` or `failed`. by: the names of tasks that pass on what became of
    it, where it is not the next one; each was skipped. attempt: its newest, if any. behind: how
    many tasks were skipped because of it. is_canary: whether it goes first of its template, and is
    not what the other (or the last of `by`) says that it is after.
    """

    name: str
    state: str
    outcome: str
    by: list[str]
    attempt: Attempt | None
    behind: int
    is_canary: bool = False


class Why(msgspec.Struct, frozen=True):
    """What is known of one task.

    start_s: since when it runs, 0 where it does not. before: its command at its newest attempt,
    where that has changed since. blockers: what it is after and is not as it must be; those
    that came to their end first. lacks: what it needs and this machine does not have. is_alive:
    whether somebody is at its batch. behind: how many tasks were skipped because of it. missing:
    where a file was looked for that it should have left. instead: what to write for that in
    `expect`, where it is among its results. death: why its runner is no more. newer: a task that it
    is after and that came to its end since it succeeded, or is itself behind such a one
    (`is_newer_behind`). code: digests of what was synced for its batch; code_since: of what was
    synced after that, where it is not the same.
    """

    job: str
    name: str
    index: int
    state: str
    command: str
    is_dropped: bool
    attempts: list[Attempt]
    start_s: float
    slot: int
    pid: int
    host: str
    before: str | None
    blockers: list[Blocker]
    lacks: list[str]
    batch: str
    executor: str
    runner: str
    is_alive: bool
    behind: int
    missing: str = ""
    instead: str = ""
    death: str = ""
    newer: str = ""
    is_newer_behind: bool = False
    code: list[str] = []
    code_since: list[str] = []


def build_why(history: History, index: int, living: set[str]) -> Why:
    """What is known of a task of a job of which `living` batches are run by somebody."""
    tasks = history.read_tasks()
    task = tasks[index]
    blame = _Blame(history, tasks)
    found = blame.find(index)
    wanted = {index, *(place for place, _, _ in found)}
    attempts = _read_attempts(history, wanted, living)
    batch = history.find_batch(index)
    missing, instead = _find_expected(history, task, attempts[index])
    newer, is_newer_behind = blame.find_newer(index, living)
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
        blockers=[
            Blocker(
                name=tasks[place].name,
                state=STATES[history.states[place]],
                outcome=outcome,
                by=[tasks[i].name for i in by],
                attempt=attempts[place][-1] if attempts[place] else None,
                behind=blame.count_behind(place),
                is_canary=blame.is_canary(place, by[-1] if by else index),
            )
            for place, outcome, by in found
        ],
        lacks=_say_lacks(task.terms or TaskOptions(), read_capacity()),
        batch=batch.batch if batch else "",
        executor=batch.executor if batch else "",
        runner=batch.token if batch else "",
        is_alive=batch is not None and batch.batch in living,
        behind=blame.count_behind(index),
        missing=missing,
        instead=instead,
        death=_find_death(batch, living),
        newer=tasks[newer].name if newer >= 0 else "",
        is_newer_behind=is_newer_behind,
        code=list_code(batch) if batch else [],
        code_since=_list_code_since(history, batch),
    )


class _Blame:
    """Which tasks keep another from running."""

    def __init__(self, history: History, tasks: Sequence[Task]) -> None:
        self.history = history
        self.indices = [index for index in range(len(tasks)) if index not in history.dropped]
        self.place = {index: place for place, index in enumerate(self.indices)}
        counted = [tasks[index] for index in self.indices]
        canary = history.read_settings().get("canary", 0)
        self.graph: Graph | None = build_graph(counted, canary)
        self.said: Graph | None = build_graph(counted) if canary else self.graph

    def find(self, index: int) -> list[tuple[int, str, list[int]]]:
        """(index of a task, the outcome asked of it, the tasks between it and this one)."""
        doomed: list[tuple[int, str, list[int]]] = []
        pending: list[tuple[int, str, list[int]]] = []
        for other, outcome in self._list_unmet(index):
            if IS_FINAL[self.history.states[other]]:
                root, by = self._find_root(other)
                doomed.append((root, outcome, by))
            else:
                pending.append((other, outcome, []))
        return [*doomed, *pending]

    def find_newer(self, index: int, living: set[str]) -> tuple[int, bool]:
        """(the index of Why.newer, -1 where there is none; whether that is behind itself)."""
        history = self.history
        if self.said is None or index not in self.place or history.states[index] != SUCCEEDED:
            return -1, False
        behind = find_behind(self.said, self.indices, history, history.numbers_of(living))
        other = behind.get(self.place[index], -1)
        return (self.indices[other] if other >= 0 else -1), other in behind

    def is_canary(self, index: int, behind: int) -> bool:
        """Whether one task waits for another only as that goes first of its template."""
        if self.said is self.graph:
            return False
        before = self.said.before(self.place[behind]) if self.said else ()
        return self.place[index] not in before

    def count_behind(self, index: int) -> int:
        """How many tasks that are after this one were skipped."""
        if self.graph is None or index not in self.place:
            return 0
        behind = self.graph.list_behind({self.place[index]})
        states = (STATES[self.history.states[self.indices[place]]] for place in behind)
        return sum(state == "skipped" for state in states)

    def _find_root(self, index: int) -> tuple[int, list[int]]:
        by: list[int] = []
        while STATES[self.history.states[index]] == "skipped":
            unmet = next((i for i, _ in self._list_unmet(index) if i not in by), None)
            if unmet is None:
                break
            by.append(index)
            index = unmet
        return index, by

    def _list_unmet(self, index: int) -> Iterator[tuple[int, str]]:
        if self.graph is None or index not in self.place:
            return
        for place, outcome in self.graph.list_asked(self.place[index]):
            other = self.indices[place]
            state = self.history.states[other]
            if not (IS_FINAL[state] and meets(outcome, STATES[state])):
                yield other, outcome


def _read_attempts(
    history: History, wanted: set[int], living: set[str]
) -> dict[int, list[Attempt]]:
    """Of some tasks, oldest first; one that was lost has no more than its beginning."""
    found: dict[int, list[Attempt]] = {index: [] for index in wanted}
    for batch in history.batches.values():
        if not any(not wanted.isdisjoint(part) for part in batch.indices):
            continue
        for key in list_starts(history.store, batch.batch):
            start = read_start(history.store, batch.batch, key, history.here)
            host = start.opened.get("host", "")
            for record in start.records:
                if record.task in wanted:
                    found[record.task].append(Attempt(record, key.token, host))
            if start.ended or batch.batch in living:
                continue
            known = {(record.task, round(record.start_s)) for record in start.records}
            content = history.store.read(running_key(batch.batch, key))
            for index, slot, start_s, _ in parse_running(content, history.count).tasks:
                if index in wanted and (index, round(start_s)) not in known:
                    number = found[index][-1].record.attempt + 1 if found[index] else 1
                    record = Record(index, "", number, "running", start_s=start_s, slot=slot)
                    found[index].append(Attempt(record, key.token, host, is_lost=True))
    return found


def _list_code_since(history: History, batch: BatchHistory | None) -> list[str]:
    """As the newest batch had it; else what is in the store, and no batch was made with."""
    own = list_code(batch) if batch else []
    if not own:
        return []
    made_with = [list_code(each) for each in history.batches.values()]
    if sorted(made_with[-1]) != sorted(own):
        return made_with[-1]
    folder, _, ending = synced_key("").rpartition("/")
    there = {name.removesuffix(ending) for name in history.store.list(folder)}
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
    return str(start.opened.get("host", ""))


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
    if record is None or not record.reason.startswith(_DID_NOT_LEAVE):
        return "", ""
    path = record.reason.removeprefix(_DID_NOT_LEAVE)
    base = place_of(history.store, task.name, task.output)
    outputs = f"{base}/{record.outputs}" if record.outputs else base
    if path.startswith(_RESULTS):
        return f"{outputs}/{path}", ""
    folder = history.read_settings().get("submitted_from", "")
    folder = os.path.join(folder, os.path.expanduser(task.cwd or ""))
    is_there = os.path.lexists(f"{outputs}/{_RESULTS}{path}")
    return os.path.join(folder, path), f"{_RESULTS}{path}" if is_there else ""


def _say_lacks(terms: TaskOptions, here: Capacity) -> list[str]:
    """`64 cpus (there are 2)` for each thing that there is not enough of."""
    lacks = list_lacks(terms.cpus or 0, terms.gpus, terms.memory or 0, here)
    return [f"{wanted:,} {what} (there are {most:,})" for wanted, most, what in map(in_mb, lacks)]
