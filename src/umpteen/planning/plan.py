"""Decides what is to run: Job and history in, a Plan out. Pure: touches no file.

A task is known again by its name, and skipped only if its command, declared environment and
directory are what they were when it succeeded.
"""

from __future__ import annotations

import collections
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from umpteen.history.behind import Loose, find_behind
from umpteen.history.history import SUCCEEDED, BatchHistory, History
from umpteen.job.dependencies import Graph, build_graph, list_by_priority
from umpteen.job.spec import Job, Task
from umpteen.model.dependencies import FREE
from umpteen.model.states import IS_FINAL, STATES

__all__ = [
    "RERUN_CHOICES",
    "Change",
    "Chosen",
    "Plan",
    "build_plan",
    "build_settings",
    "list_code",
    "takes_behind",
]

RERUN_CHOICES = ("default", "all", "failed", "changed", "behind", "code", "none")

_FAILURES = frozenset({"failed", "timed_out", "cancelled", "skipped"})

# Which of a task's conditions make it run, by what --rerun says.
_RERUN = {
    "default": {"new", "unfinished", "gone", "changed", "behind", *_FAILURES},
    "all": {"new", "unfinished", "gone", "changed", "behind", "succeeded", *_FAILURES},
    "code": {"new", "unfinished", "gone", "changed", "behind", "code", *_FAILURES},
    "failed": {*_FAILURES},
    "changed": {"changed"},
    "behind": {"behind"},
    "none": {"new"},
    "retry": {"behind", *_FAILURES},
    # What is left of a job that this process ran: nothing a second time.
    "rest": {"new", "unfinished", "gone", "changed", "behind"},
    "left": {"new", "unfinished", "gone", "changed"},
}


def takes_behind(rerun: str) -> bool:
    """Whether tasks that are behind run again."""
    return "behind" in _RERUN[rerun]


class Change(msgspec.Struct, frozen=True):
    """A task that is not what it was: its form before and now."""

    index: int
    before: Task
    now: Task


class Plan(msgspec.Struct):
    """What a hand-in would do.

    to_run: indices in order. why: how many of them are `new`, `unfinished`, `changed`, `succeeded`,
    `gone` (their outputs are), `code` (done with other code than is synced now),
    `behind`, `failed`, `timed_out`, `cancelled`, `skipped`, or `needed` by others. updates: tasks
    of which what counts for no digest changed. restored: tasks that were dropped and are as they
    were. again: lost batches that go in as they are. closed: batches that must never start again.
    running: tasks that a living batch has. done: tasks left alone. behind: tasks that succeeded
    before what they are after did and run again, each with one that it is after; left_behind: those
    of them that are left alone; left_failed: how many are that did not succeed. other_code: how
    many of those done were done with other code.
    """

    job: Job
    added: list[Task]
    changes: list[Change]
    updates: list[Change]
    dropped: list[int]
    restored: list[int]
    to_run: Sequence[int]
    why: dict[str, int]
    again: list[BatchHistory]
    closed: list[str]
    running: int
    done: int
    behind: dict[int, int]
    left_behind: dict[int, int]
    left_failed: int
    other_code: int
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
        return not (
            self.to_run or self.again or self.changes or self.dropped or self.restored or self.added
        )

    def list_needed(self) -> list[int]:
        """Tasks that are done, and that what runs is after; those alone that must leave files."""
        graph = self.graph
        if graph is None or not any(t.terms and t.terms.expect for t in self.job.tasks):
            return []
        runs = set(self.to_run)
        seen = {FREE}  # barriers, each of which may have ten thousand tasks behind it
        needed: set[int] = set()
        for position, index in enumerate(self.indices):
            behind = graph.behind[position]
            if index in runs and behind not in seen:
                seen.add(behind)
                needed.update(self.indices[earlier] for earlier in graph.before(position))
        return sorted(needed - runs)


Chosen = Callable[[int, Task], bool]


def build_plan(
    job: Job,
    history: History,
    living: set[str],
    rerun: str = "default",
    only: Chosen | None = None,
    *,
    follow: bool = False,
) -> Plan:
    """The plan for a job of which `living` batches are still run by somebody.

    only: of a task's index and the task, whether it is asked for; what it is after and has not
    come to an end is run as well, and with `follow` what is behind it. Raises GraphError.
    """
    found = _find_tasks(job, history)
    indices = found.indices
    changed = {change.index for change in found.changes}
    dropped = [] if job.is_part else _list_dropped(indices, history)
    chosen = _Chooser(history, living, _RERUN[rerun], changed)
    chosen.other_code = _find_other_code(history, job.settings.synced)
    if rerun == "none":
        chosen.find_started(indices)
    to_run, why, running = chosen.choose(indices, found.tasks, only)
    is_asked = len(to_run) or _may_be_behind(found, history)
    graph = build_graph(found.tasks, job.settings.canary) if is_asked else None
    behind: dict[int, int] = {}
    left: dict[int, int] = {}
    if graph is None:
        to_run = _order_plain(found, to_run)
    else:
        # What goes first of its template is none of what the others are made of.
        meant = build_graph(found.tasks) if job.settings.canary else graph
        additions = _Additions(found, graph, meant, chosen, only, follow=follow)
        is_partial = only is not None or rerun in ("failed", "changed", "behind", "none")
        to_run = additions.complete(to_run, why, is_partial=is_partial)
        behind, left = additions.name_behind()
    is_movable = graph is None
    renewed = changed.union(update.index for update in found.updates)
    again, closed, to_run = _keep_lost_batches(
        job, history, living, to_run, renewed, is_movable=is_movable
    )
    return Plan(
        job=job, added=found.added, changes=found.changes, updates=found.updates,
        dropped=dropped, restored=found.restored, to_run=to_run, why=why, again=again,
        closed=closed, running=running,
        done=chosen.done, behind=behind, left_behind=left,
        left_failed=chosen.left_failed, other_code=chosen.count_other_code(indices, to_run),
        is_plain=found.is_plain,
        before=history.count, by_index=_index_tasks(found.tasks, indices, found.is_plain),
        indices=indices, graph=graph, history=history,
    )  # fmt: skip


def _order_plain(found: _Found, to_run: Sequence[int]) -> Sequence[int]:
    """By priority, where no task is after another."""
    order = list_by_priority(found.tasks) if len(to_run) else range(0)
    if isinstance(order, range):
        return to_run
    wanted = set(to_run)
    indices = found.indices
    return array("I", (indices[position] for position in order if indices[position] in wanted))


def _may_be_behind(found: _Found, history: History) -> bool:
    """Whether a task may have succeeded before one that it is after did."""
    if SUCCEEDED not in history.states:
        return False
    return history.is_of_several or bool(found.restored) or bool(_list_loose(found))


def _list_loose(found: _Found) -> dict[int, frozenset[str]]:
    """By index, what tasks were after that are after something else now."""
    changed = [(u.index, _names_after(u.before), _names_after(u.now)) for u in found.updates]
    return {index: before for index, before, now in changed if not now <= before}


def _names_after(task: Task) -> frozenset[str]:
    return frozenset(name for name, _ in task.terms.after) if task.terms else frozenset()


class _Additions:
    """What a plan runs beside what was chosen: what that needs, and what is behind.

    graph: with what waits for canaries; meant: without. Tasks are told by their positions here.
    behind: those that run, each with one that it is after; left: those that do not. needed: what
    has to run for the others.
    """

    def __init__(
        self,
        found: _Found,
        graph: Graph,
        meant: Graph | None,
        judge: _Chooser,
        only: Chosen | None,
        *,
        follow: bool,
    ) -> None:
        self.found, self.graph, self.meant = found, graph, meant
        self.judge, self.only, self.follow = judge, only, follow
        self.behind: dict[int, int] = {}
        self.left: dict[int, int] = {}
        self.needed: set[int] = set()

    def complete(
        self, to_run: Sequence[int], why: dict[str, int], *, is_partial: bool
    ) -> Sequence[int]:
        """The tasks that were chosen and these, in order; why: to be filled in.

        is_partial: whether some of what the others are after may not have been chosen.
        """
        indices, order = self.found.indices, self.graph.order
        may_be_behind = SUCCEEDED in self.judge.history.states
        if not (is_partial or may_be_behind):
            if len(to_run) == len(order) and isinstance(order, range):
                return to_run
            runs = set(to_run)
            return array("I", (indices[p] for p in order if indices[p] in runs))
        chosen = set(to_run)
        wanted = {position for position in order if indices[position] in chosen}
        if may_be_behind and self.meant is not None:
            self._find(wanted, self.meant, is_partial=is_partial)
        elif is_partial:
            self.needed = self._list_needed(wanted)
        counts = {"behind": len(self.behind), "needed": len(self.needed)}
        why.update((reason, count) for reason, count in counts.items() if count)
        wanted.update(self.behind, self.needed)
        return array("I", (indices[position] for position in order if position in wanted))

    def _find(self, wanted: set[int], meant: Graph, *, is_partial: bool) -> None:
        """Both go on from each other: what is behind needs others, and has others behind it."""
        loose = Loose(
            meant, self.found.tasks, self.found.indices, self.judge.history, _list_loose(self.found)
        )
        while True:
            runs = wanted.union(self.behind, self.needed)
            reached = self._reach(meant, runs)
            found = find_behind(
                meant, self.found.indices, self.judge.history, self.judge.living, runs,
                self.found.restored, loose,
            )  # fmt: skip
            self.behind.update((p, other) for p, other in found.items() if self._takes(p, reached))
            if not is_partial:
                break
            more = self._list_needed(wanted.union(self.behind, self.needed), found)
            self.needed |= more
            if more <= found.keys():  # whose followers were found with them
                break
        self.left = {
            position: other
            for position, other in found.items()
            if position not in self.behind
            and position not in self.needed
            and (self._is_chosen(position) or position in reached)
        }
        self.judge.done -= sum(map(self._is_chosen, found))

    def _reach(self, meant: Graph, runs: set[int]) -> set[int]:
        """All that are after what was asked for or runs, where that is not everything."""
        if self.only is None:
            return set()
        return meant.list_behind(runs.union(filter(self._is_chosen, range(len(self.found.tasks)))))

    def _is_chosen(self, position: int) -> bool:
        index, task = self.found.indices[position], self.found.tasks[position]
        return self.only is None or self.only(index, task)

    def _takes(self, position: int, reached: set[int]) -> bool:
        if "behind" not in self.judge.wanted:
            return False
        return self._is_chosen(position) or (self.follow and position in reached)

    def _list_needed(self, runs: set[int], behind: Collection[int] = ()) -> set[int]:
        """What these are after that has come to no end, or is behind itself,
        and is not one of them.
        """
        needed: set[int] = set()
        stale = behind if "behind" in self.judge.wanted else ()
        seen = {FREE}  # barriers, each of which may have ten thousand tasks behind it
        for position in reversed(self.graph.order):
            number = self.graph.behind[position]
            if number in seen or (position not in runs and position not in needed):
                continue
            seen.add(number)
            needed.update(
                earlier
                for earlier in self.graph.before(position)
                if earlier not in runs
                and (earlier in stale or self.judge.is_open(self.found.indices[earlier]))
            )
        return needed

    def name_behind(self) -> tuple[dict[int, int], dict[int, int]]:
        """`behind` and `left` by index."""
        indices = self.found.indices
        behind, left = (
            {indices[one]: indices[other] for one, other in pairs.items()}
            for pairs in (self.behind, self.left)
        )
        return behind, left


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
    restored: list[int]
    is_plain: bool


def _find_tasks(job: Job, history: History) -> _Found:
    count = len(job.tasks)
    if not history.count:
        return _Found(job.tasks, range(count), job.tasks, [], [], [], is_plain=True)
    newest = next((h for h in reversed(history.hand_ins) if h.source), None)
    is_known = newest and newest.is_plain and newest.source == job.source_digest != ""
    if is_known and all(index >= count for index in history.dropped):
        return _Found(job.tasks, range(count), [], [], [], [], is_plain=True)
    return _match(job.tasks, history)


def _match(given: list[Task], history: History) -> _Found:
    recorded = history.read_tasks()
    index_of = {task.name: index for index, task in enumerate(recorded)}
    tasks: list[Task] = []
    indices = array("I")
    added: list[Task] = []
    changes: list[Change] = []
    updates: list[Change] = []
    restored: list[int] = []
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
        if _identity(recorded[index]) != _identity(task):
            changes.append(Change(index, recorded[index], task))
            continue
        if index in history.dropped:
            restored.append(index)
        if recorded[index] != task or index in history.dropped:
            updates.append(Change(index, recorded[index], task))
    is_plain = not any(task.automatic and task.name != str(i) for i, task in enumerate(tasks))
    is_plain = is_plain and all(place == index for place, index in enumerate(indices))
    return _Found(tasks, indices, added, changes, updates, restored, is_plain)


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
        self.living = history.numbers_of(living)
        self.started: set[int] | None = None
        self.other_code: frozenset[int] = frozenset()
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
            condition = self._judge(index)
            if only is not None and not only(index, tasks[position]):
                self.left_failed += condition in _FAILURES
            elif condition == "running":
                running += 1
            elif condition in self.wanted:
                to_run.append(index)
                why[condition] = why.get(condition, 0) + 1
            elif condition in _FAILURES:
                self.left_failed += 1
            elif condition == "succeeded":
                self.done += 1
        return to_run, why, running

    def count_other_code(self, indices: Sequence[int], to_run: Sequence[int]) -> int:
        """How many of those that are done and left alone were done with other code."""
        history = self.history
        if not self.other_code:
            return 0
        runs = set(to_run)
        return sum(
            index < history.count
            and history.states[index] == SUCCEEDED
            and history.batch_of[index] in self.other_code
            and index not in runs
            for index in indices
        )

    def is_open(self, index: int) -> bool:
        """Whether a task has come to no end, and nobody is at it."""
        return self._judge(index) in ("new", "unfinished", "gone", "changed")

    def _all_succeeded(self, indices: Sequence[int]) -> bool:
        states = self.history.states
        return (
            "succeeded" not in self.wanted
            and not ("code" in self.wanted and self.other_code)
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
            is_other = "code" in self.wanted and self.history.batch_of[index] in self.other_code
            return "code" if is_other else "succeeded"
        if index in self.history.gone:
            return "gone"
        if IS_FINAL[state]:
            return STATES[state]
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
    renewed: set[int],
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
        is_current = renewed.isdisjoint(unfinished) and history.stale.isdisjoint(unfinished)
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


def _find_other_code(history: History, synced: Sequence[Sequence[Any]]) -> frozenset[int]:
    """Numbers of the batches that had other folders synced than these, as their digests tell."""
    now = sorted(digest for digest, *_ in synced)
    return frozenset(
        batch.number
        for batch in history.batches.values()
        if now and (before := list_code(batch)) and sorted(before) != now
    )


def list_code(batch: BatchHistory) -> list[str]:
    """The digests of what was synced for a batch."""
    return [str(digest) for digest, *_ in batch.settings.get("synced") or ()]


def build_settings(job: Job) -> dict[str, Any]:
    """What of a job's settings its batches depend on, but for the deadline.

    The address is among them: a store may have been moved since.
    """
    settings = job.settings
    return {
        "slots": settings.slots,
        "status_file": settings.status_file,
        "live": settings.live,
        "grace_s": settings.grace_s,
        "address": settings.address,
        "cwd": settings.submitted_from,
        "synced": settings.synced,
        "max_failures": settings.max_failures,
        "fail_fast": settings.fail_fast,
        "canary": settings.canary,
    }
