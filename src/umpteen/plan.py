"""Decides what is to run: Job and history in, batches out. Pure: touches no file.

A task is known again by its name, and skipped only if its command, declared environment and
directory are what they were when it succeeded.
"""

from __future__ import annotations

import collections
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from umpteen.graph import Barrier, Graph, build_graph, list_by_priority
from umpteen.history import SKIPPED, SUCCEEDED, BatchHistory, HandedBatch, History, TaskLine
from umpteen.job import Job, Task
from umpteen.records import format_ranges
from umpteen.task import (
    FORMAT_VERSION,
    FREE,
    IS_FINAL,
    OUTCOMES,
    STATES,
    link,
    meets,
    shell_command,
)

__all__ = [
    "LOCAL_BATCH_CAP",
    "RERUN_CHOICES",
    "Change",
    "Chosen",
    "Past",
    "Plan",
    "build_batches",
    "build_plan",
    "build_settings",
    "build_task_lines",
]

LOCAL_BATCH_CAP = 5000
_LINES_AT_ONCE = 1000  # little enough that the encoder's memory is used again
RERUN_CHOICES = ("default", "all", "failed", "changed", "none")

# Which of a task's conditions make it run, by what --rerun says.
_RERUN = {
    "default": {"new", "unfinished", "failed", "skipped", "changed"},
    "all": {"new", "unfinished", "failed", "skipped", "changed", "succeeded"},
    "failed": {"failed", "skipped"},
    "changed": {"changed"},
    "none": {"new"},
    # What is left of a job that this process ran: nothing a second time.
    "rest": {"new", "unfinished", "changed"},
}


class Change(msgspec.Struct, frozen=True):
    """A task that is not what it was: its form before and now."""

    index: int
    before: Task
    now: Task


class Plan(msgspec.Struct):
    """What a hand-in would do.

    to_run: indices in order. why: how many of them are `new`, `failed`, `skipped`,
    `unfinished`, `changed`, `succeeded`, or `needed` by others. updates: tasks of which what counts for no
    digest changed. again: lost batches that go in as they are. closed: batches that
    must never start again. running: tasks that a living batch has. done: tasks left alone.
    """

    job: Job
    added: list[Task]
    changes: list[Change]
    updates: list[Change]
    dropped: list[int]
    to_run: Sequence[int]
    why: dict[str, int]
    again: list[BatchHistory]
    closed: list[str]
    running: int
    done: int
    left_failed: int
    is_plain: bool
    before: int
    by_index: Callable[[int], Task]
    indices: Sequence[int]
    graph: Graph | None
    history: History

    @property
    def total(self) -> int:
        """How many tasks the job has."""
        return len(self.job.tasks)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to hand in, not even a change of what is known."""
        return not (self.to_run or self.again or self.changes or self.dropped or self.added)


Chosen = Callable[[int, Task], bool]


def build_plan(
    job: Job,
    history: History,
    living: set[str],
    rerun: str = "default",
    only: Chosen | None = None,
) -> Plan:
    """The plan for a job of which `living` batches are still run by somebody.

    only: of a task's index and the task, whether it is asked for; what it is after and has not
    come to an end is run as well. Raises GraphError.
    """
    found = _find_tasks(job, history)
    indices = found.indices
    changed = {change.index for change in found.changes}
    dropped = [] if job.is_part else _list_dropped(indices, history)
    chosen = _Chooser(history, living, _RERUN[rerun], changed)
    if rerun == "none":
        chosen.find_started(indices)
    to_run, why, running = chosen.choose(indices, found.tasks, only)
    graph = build_graph(found.tasks, job.settings.canary) if len(to_run) else None
    is_partial = only is not None or rerun in ("failed", "changed", "none")
    to_run = _put_in_order(found, graph, to_run, why, chosen if is_partial else None)
    is_movable = graph is None
    again, closed, to_run = _keep_lost_batches(
        job, history, living, to_run, changed, is_movable=is_movable
    )
    return Plan(
        job=job, added=found.added, changes=found.changes, updates=found.updates,
        dropped=dropped, to_run=to_run, why=why, again=again, closed=closed, running=running,
        done=chosen.done, left_failed=chosen.left_failed, is_plain=found.is_plain,
        before=history.count, by_index=_index_tasks(found.tasks, indices, found.is_plain),
        indices=indices, graph=graph, history=history,
    )  # fmt: skip


def _put_in_order(
    found: _Found,
    graph: Graph | None,
    to_run: Sequence[int],
    why: dict[str, int],
    judge: _Chooser | None,
) -> Sequence[int]:
    """By dependencies and priority.

    judge: where only some tasks are asked for, so that what they are after comes with them.
    """
    indices = found.indices
    if graph is None:
        order = list_by_priority(found.tasks) if len(to_run) else range(0)
        if isinstance(order, range):
            return to_run
    else:
        order = graph.order
    if len(to_run) == len(order) and isinstance(order, range):
        return to_run
    wanted = set(to_run)
    if graph is not None and judge is not None:
        needed = _list_needed(graph, indices, wanted, judge)
        if needed:
            why["needed"] = len(needed)
            wanted |= needed
    return array("I", (indices[position] for position in order if indices[position] in wanted))


def _list_needed(
    graph: Graph, indices: Sequence[int], wanted: set[int], judge: _Chooser
) -> set[int]:
    needed: set[int] = set()
    seen = {FREE}  # barriers, each of which may have ten thousand tasks behind it
    for position in reversed(graph.order):
        behind = graph.behind[position]
        if behind in seen or (indices[position] not in wanted and indices[position] not in needed):
            continue
        seen.add(behind)
        before = (indices[earlier] for earlier in graph.before(position))
        needed.update(index for index in before if index not in wanted and judge.is_open(index))
    return needed


def _list_dropped(indices: Sequence[int], history: History) -> list[int]:
    if isinstance(indices, range):
        gone: Iterator[int] = iter(range(len(indices), history.count))
    else:
        known = set(indices)
        gone = (index for index in range(history.count) if index not in known)
    return [index for index in gone if index not in history.dropped]


def _index_tasks(
    tasks: list[Task], indices: Sequence[int], is_plain: bool
) -> Callable[[int], Task]:
    if is_plain:
        return tasks.__getitem__
    position = {index: place for place, index in enumerate(indices)}
    return lambda index: tasks[position[index]]


# --- which task is which ------------------------------------------------------------------


class _Found(NamedTuple):
    """The tasks with their names, the index of each, and what is new or not what it was."""

    tasks: list[Task]
    indices: Sequence[int]
    added: list[Task]
    changes: list[Change]
    updates: list[Change]
    is_plain: bool


def _find_tasks(job: Job, history: History) -> _Found:
    count = len(job.tasks)
    if not history.count:
        return _Found(job.tasks, range(count), job.tasks, [], [], is_plain=True)
    newest = next((h for h in reversed(history.hand_ins) if h.source), None)
    if newest and newest.is_plain and newest.source == job.source_digest != "":
        return _Found(job.tasks, range(count), [], [], [], is_plain=True)
    return _match(job.tasks, history)


def _match(given: list[Task], history: History) -> _Found:
    recorded = history.read_tasks()
    index_of = {task.name: index for index, task in enumerate(recorded)}
    tasks: list[Task] = []
    indices = array("I")
    added: list[Task] = []
    changes: list[Change] = []
    updates: list[Change] = []
    names = _name_tasks(given, recorded, history.dropped)
    for unnamed, name in zip(given, names, strict=True):
        task = unnamed
        if task.name != name:
            task = msgspec.structs.replace(task, name=name, automatic=True)
        tasks.append(task)
        index = index_of.get(name)
        if index is None:
            indices.append(len(recorded) + len(added))
            added.append(task)
            continue
        indices.append(index)
        if _identity(recorded[index]) != _identity(task) or index in history.dropped:
            changes.append(Change(index, recorded[index], task))
        elif recorded[index] != task:
            updates.append(Change(index, recorded[index], task))
    is_plain = not any(task.automatic and task.name != str(i) for i, task in enumerate(tasks))
    is_plain = is_plain and all(place == index for place, index in enumerate(indices))
    return _Found(tasks, indices, added, changes, updates, is_plain)


def _identity(task: Task) -> Any:
    if isinstance(task.command, str) and not task.env and task.cwd is None:
        return task.command
    env = tuple(sorted((task.env or {}).items()))
    command = task.command if isinstance(task.command, str) else tuple(task.command)
    return (command, env, task.cwd)


def _name_tasks(tasks: list[Task], recorded: list[Task], dropped: set[int]) -> list[str]:
    """Names for unnamed tasks: those they had before, else their position's, else the next free.

    The k-th unnamed task of a content keeps the k-th name recorded for it, so that a line
    inserted in a file reruns one task and not all after it.
    """
    kept: dict[Any, collections.deque[str]] = collections.defaultdict(collections.deque)
    for index, task in enumerate(recorded):
        if task.automatic and index not in dropped:
            kept[_identity(task)].append(task.name)
    names = [
        task.name or (kept[identity].popleft() if kept.get(identity := _identity(task)) else "")
        for task in tasks
    ]
    taken = set(names)
    everything = taken | {task.name for task in recorded}
    free = (str(n) for n in range(len(recorded), len(recorded) + len(tasks) * 2 + 1))
    for place, name in enumerate(names):
        if name:
            continue
        own = str(place)
        if own in taken:
            own = next(name for name in free if name not in everything)
        names[place] = own
        taken.add(own)
        everything.add(own)
    return names


# --- which of them run ----------------------------------------------------------------------


class _Chooser:
    def __init__(
        self, history: History, living: set[str], wanted: set[str], changed: set[int]
    ) -> None:
        self.history, self.wanted, self.changed = history, wanted, changed
        self.living = {history.batches[name].number for name in living}
        self.started: set[int] | None = None
        self.left_failed = self.done = 0

    def find_started(self, indices: Sequence[int]) -> None:
        """Tell tasks that were handed in and never started from those that were."""
        open_ones = [i for i in indices if i < self.history.count and not self.history.states[i]]
        records = self.history.read_records(open_ones)
        self.started = {index for index in open_ones if records[index]}

    def choose(
        self, indices: Sequence[int], tasks: Sequence[Task], only: Chosen | None
    ) -> tuple[Sequence[int], dict[str, int], int]:
        """(what runs, how many for which reason, how many a living batch has)."""
        if not self.history.count and "new" in self.wanted and only is None:
            return indices, {"new": len(indices)} if len(indices) else {}, 0
        if self._all_succeeded(indices):
            self.done = len(indices)
            return [], {}, 0
        why: dict[str, int] = {}
        running, to_run = 0, array("I")
        for position, index in enumerate(indices):
            if only is not None and not only(index, tasks[position]):
                continue
            condition = self._judge(index)
            if condition == "running":
                running += 1
            elif condition in self.wanted:
                to_run.append(index)
                why[condition] = why.get(condition, 0) + 1
            elif condition in ("failed", "skipped"):
                self.left_failed += 1
            elif condition == "succeeded":
                self.done += 1
        return to_run, why, running

    def is_open(self, index: int) -> bool:
        """Whether a task has come to no end, and nobody is at it."""
        return self._judge(index) in ("new", "unfinished", "changed")

    def _all_succeeded(self, indices: Sequence[int]) -> bool:
        states = self.history.states
        return (
            "succeeded" not in self.wanted
            and not self.changed
            and isinstance(indices, range)
            and len(indices) <= len(states)
            and states.count(SUCCEEDED, 0, len(indices)) == len(indices)
        )

    def _judge(self, index: int) -> str:
        if index >= self.history.count:
            return "new"
        state = self.history.states[index]
        if not IS_FINAL[state] and self.history.batch_of[index] in self.living:
            return "running"
        if index in self.changed:
            return "changed"
        if state == SUCCEEDED:
            return "succeeded"
        if IS_FINAL[state]:
            return "skipped" if state == SKIPPED else "failed"
        if self.history.batch_of[index] < 0 or (
            self.started is not None and index not in self.started
        ):
            return "new"
        return "unfinished"


def _keep_lost_batches(
    job: Job,
    history: History,
    living: set[str],
    to_run: Sequence[int],
    changed: set[int],
    *,
    is_movable: bool,
) -> tuple[list[BatchHistory], list[str], Sequence[int]]:
    """(batches that go in again, batches to close, what is left to put into new ones).

    A lost batch goes in again as it is if all its unfinished tasks are wanted and unchanged,
    with the same settings; else it is closed. Not where tasks wait for tasks of other batches
    (`is_movable`), as those may have got new numbers.
    """
    again, closed = [], []
    wanted: set[int] | None = None
    for name, batch in history.batches.items():
        if name in living or batch.is_closed:
            continue
        unfinished = history.unfinished(batch)
        if not unfinished:
            continue
        wanted = set(to_run) if wanted is None else wanted
        same = batch.settings == build_settings(job) and not job.settings.deadline_s
        is_current = changed.isdisjoint(unfinished) and history.stale.isdisjoint(unfinished)
        is_current = is_current and not _is_spoilt(history, batch)
        if is_movable and same and is_current and wanted.issuperset(unfinished):
            again.append(batch)
            wanted.difference_update(unfinished)
        elif not wanted.isdisjoint(unfinished):
            closed.append(name)
    if again:
        assert wanted is not None
        to_run = array("I", (index for index in to_run if index in wanted))
    return again, closed, to_run


def _is_spoilt(history: History, batch: BatchHistory) -> bool:
    """Whether a batch has tasks that were dropped, or was cancelled: as it is it cannot run."""
    is_cancelled = batch.batch.isdigit() and int(batch.batch) <= history.cancelled_upto
    return is_cancelled or any(not history.dropped.isdisjoint(part) for part in batch.indices)


# --- batches ----------------------------------------------------------------------------------


class Past(msgspec.Struct, frozen=True, array_like=True):
    """What a batch says of a task that ran before: the number of its newest attempt, the runner
    of that, and the records of attempts after which another was still to follow.
    """

    attempt: int
    token: str
    tries: list[dict[str, Any]] = []


class _Run(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One entry of a batch file's `runs`, with the seed's keys alone."""

    cmd: str
    remote_output_path: str
    local_results_dir: str | None = None


def build_settings(job: Job) -> dict[str, Any]:
    """What of a job's settings its batches depend on, but for the deadline.

    The address is among them: a store may have been moved since.
    """
    settings = job.settings
    return {
        "slots": settings.slots,
        "status_file": settings.status_file,
        "grace_s": settings.grace_s,
        "address": settings.address,
        "cwd": settings.submitted_from,
        "max_failures": settings.max_failures,
        "fail_fast": settings.fail_fast,
        "canary": settings.canary,
    }


def build_batches(
    plan: Plan, address: str, first: int, attempts: Mapping[int, Past], now_s: float
) -> Iterator[tuple[HandedBatch, bytearray]]:
    """The new batches, numbered from `first`, each with the content of its file.

    A content is good until the next is asked for. attempts: of tasks that ran before.
    """
    links = _Links(plan, first) if plan.graph else None
    encoded = bytearray()  # new memory for each would cost as much as the encoding
    for number, start in enumerate(range(0, len(plan.to_run), LOCAL_BATCH_CAP), first):
        indices = plan.to_run[start : start + LOCAL_BATCH_CAP]
        content = _build_batch(plan, address, str(number), indices, attempts, now_s)
        if links:
            content["umpteen"].update(links.describe(indices, str(number)))
        _ENCODER.encode_into(content, encoded)
        yield HandedBatch(str(number), content["umpteen"]["indices"]), encoded


def _build_batch(
    plan: Plan,
    address: str,
    batch: str,
    indices: Sequence[int],
    attempts: Mapping[int, Past],
    now_s: float,
) -> dict[str, Any]:
    tasks = list(map(plan.by_index, indices))
    names = [task.name for task in tasks]
    if not any(names):
        names = list(map(str, indices))
    elif not all(names):
        names = [name or str(index) for name, index in zip(names, indices, strict=True)]
    runs, extras = _build_runs(tasks, names, address + "/")
    common: dict[str, Any] = {}
    if len(extras) == len(tasks) > 1 and all(extra == extras["0"] for extra in extras.values()):
        common, extras = extras["0"], {}
    settings = plan.job.settings
    own: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "job": plan.job.name,
        "batch": batch,
        "indices": format_ranges(indices),
        "names": names,
        "extras": extras,
        "common": common,
        "status_file": settings.status_file,
        "grace_s": settings.grace_s,
        "cwd": settings.submitted_from,
    }
    if attempts:
        own["attempts"] = {
            str(position): attempts[index]
            for position, index in enumerate(indices)
            if index in attempts
        }
    if plan.graph and any(t.terms is not None and t.terms.priority for t in tasks):
        own["priorities"] = True
    if settings.max_failures:
        own.update(max_failures=settings.max_failures, fail_fast=settings.fail_fast)
    if settings.deadline_s:
        own["deadline_s"] = now_s + settings.deadline_s
    return {"nprocs": settings.slots, "remote_output_path": address, "runs": runs, "umpteen": own}


def _build_runs(
    tasks: list[Task], names: list[str], prefix: str
) -> tuple[list[_Run], dict[str, dict[str, Any]]]:
    """(a batch's `runs`, what some of them have beside that, by position)."""
    commands = [task.command for task in tasks if isinstance(task.command, str)]
    more = [
        t.env
        or t.cwd
        or t.timeout_s
        or t.output
        or t.results_dir
        or (t.terms is not None and t.terms.are_told)
        for t in tasks
    ]
    if len(commands) == len(tasks) and not any(more):
        # Nearly all jobs, and of a million tasks half the time of the other way.
        return list(map(_Run, commands, map(prefix.__add__, names))), {}
    runs = [
        _Run(shell_command(task.command), task.output or prefix + name, task.results_dir)
        for task, name in zip(tasks, names, strict=True)
    ]
    extras = {
        str(place): extra for place, task in enumerate(tasks) if (extra := _build_extra(task))
    }
    return runs, extras


def _build_extra(task: Task) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if not isinstance(task.command, str):
        extra["argv"] = task.command
    if task.env:
        extra["env"] = task.env
    if task.cwd is not None:
        extra["cwd"] = task.cwd
    if task.timeout_s is not None:
        extra["timeout_s"] = task.timeout_s
    if task.terms is not None and task.terms.are_told:
        for field in ("retries", "cpus", "memory", "gpus", "expect", "output_limit"):
            if value := getattr(task.terms, field):
                extra[field] = value
    return extra


class _Links:
    """What batches say of tasks that wait for others."""

    def __init__(self, plan: Plan, first: int) -> None:
        assert plan.graph is not None
        self.plan, self.graph, self.history = plan, plan.graph, plan.history
        self.indices = plan.indices
        # By index, its place in what runs and in the job: for a new job no table is needed.
        is_new = isinstance(plan.to_run, range) and isinstance(plan.indices, range)
        places = ((index, place) for place, index in enumerate(plan.to_run))
        positions = ((index, position) for position, index in enumerate(plan.indices))
        self.place: Sequence[int] | dict[int, int] = plan.to_run if is_new else dict(places)
        self.position: Sequence[int] | dict[int, int] = plan.indices if is_new else dict(positions)
        self.first, self.known = first, list(plan.history.batches)
        self.made: dict[int, tuple[dict[str, str], set[str]]] = {}

    def describe(self, indices: Sequence[int], batch: str) -> dict[str, Any]:
        """What tasks are after, as in Graph but by index, `barriers`, and batches waited for."""
        numbers: dict[int, int] = {}
        after: list[int] = []
        waits: set[str] = set()
        for index in indices:
            behind = self.graph.behind[self.position[index]]
            if behind < FREE and not self._is_over(before := self.indices[-2 - behind]):
                after.append(-2 - before)
                waits.add(self._find_batch(before))
            elif behind != FREE and self._build(behind)[0]:
                after.append(numbers.setdefault(behind, len(numbers)))
            else:
                after.append(FREE)
        waits.update(other for barrier in numbers for other in self.made[barrier][1])
        return {
            "graph": True,
            "after": after if after.count(FREE) < len(after) else [],
            "barriers": [self.made[barrier][0] for barrier in numbers],
            "waits": sorted(waits - {batch}, key=int),
        }

    def _build(self, number: int) -> tuple[dict[str, str], set[str]]:
        """A barrier without what is met already, empty where nothing is left; its batches."""
        if number in self.made:
            return self.made[number]
        barrier = self.graph.barriers[number] if number >= 0 else Barrier([link(number)], [], [])
        given: dict[str, str] = {}
        batches: set[str] = set()
        for outcome in OUTCOMES:
            left = []
            for position in getattr(barrier, outcome):
                index = self.plan.indices[position]
                if self._is_over(index):
                    if not meets(outcome, STATES[self.history.states[index]]):
                        given["doomed"] = self._explain(position, index)
                    continue
                left.append(index)
                batches.add(self._find_batch(index))
            if left:
                given[outcome] = format_ranges(sorted(left))
        self.made[number] = (
            ({"doomed": given["doomed"]}, set()) if "doomed" in given else (given, batches)
        )
        return self.made[number]

    def _is_over(self, index: int) -> bool:
        if index in self.place or index >= self.history.count:
            return False
        return IS_FINAL[self.history.states[index]]

    def _find_batch(self, index: int) -> str:
        if index in self.place:
            return str(self.first + self.place[index] // LOCAL_BATCH_CAP)
        return self.known[self.history.batch_of[index]]

    def _explain(self, position: int, index: int) -> str:
        task = self.plan.by_index(index)
        return f"after {task.name or position}, which {STATES[self.history.states[index]]}"


def build_task_lines(plan: Plan) -> Iterator[bytes]:
    """`tasks/K.jsonl` in parts: what the hand-in adds, changes and drops."""
    for start in range(0, len(plan.added), _LINES_AT_ONCE):
        yield _ENCODER.encode_lines(plan.added[start : start + _LINES_AT_ONCE])
    renewed = [*plan.changes, *plan.updates]
    changed = [TaskLine(**_fields(change.now), index=change.index) for change in renewed]
    gone = [TaskLine(command="", index=index, dropped=True) for index in plan.dropped]
    yield _ENCODER.encode_lines([*changed, *gone])


def _fields(task: Task) -> dict[str, Any]:
    return {field: getattr(task, field) for field in task.__struct_fields__}


_ENCODER = msgspec.json.Encoder()
