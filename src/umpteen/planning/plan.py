"""Decides what is to run: a job and what is known of it in, a Plan out. Pure: touches no file.

From a History it takes what that has read already; what else is in files comes as KnownTasks.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from umpteen.history.history import SUCCEEDED, BatchHistory, History
from umpteen.job.dependencies import Graph, build_graph, list_by_priority
from umpteen.job.spec import Job, Task
from umpteen.model.dependencies import FREE
from umpteen.planning.additions import Additions, list_loose
from umpteen.planning.choosing import Chooser, Chosen
from umpteen.planning.known import KnownTasks
from umpteen.planning.matching import Change, MatchedTasks, match_tasks
from umpteen.planning.needs import number_needs

__all__ = ["EarlierTasks", "Plan", "build_plan", "build_settings"]


class EarlierTasks(NamedTuple):
    """State and batch of each task that was submitted before, for the tasks that wait for it."""

    # By index: the number of its state in STATES, and that of its batch.
    states: Sequence[int]
    batch_of: Sequence[int]
    # The names of all batches, by their numbers.
    batches: list[str]


class Plan(msgspec.Struct):
    """What would be submitted, and why; plain values."""

    job: Job
    # Tasks that the store does not have yet.
    added: list[Task]
    # Those that would do something else than before; those of which less has changed.
    changes: list[Change]
    updates: list[Change]
    # Indices of tasks that the job does not have any more, and of those that it has again.
    dropped: list[int]
    restored: list[int]
    # Indices of the tasks that go into new batches, in order.
    to_run: Sequence[int]
    # How many run because they are `new`, `unfinished`, `changed`, `succeeded`, `gone` (what
    # they left is), `code` (done with other code than is synced now), `behind`, `failed`,
    # `timed_out`, `cancelled`, `skipped`, or `needed` by others.
    why: dict[str, int]
    # Lost batches that are submitted as they are, and batches that must never start again.
    again: list[str]
    closed: list[str]
    # How many tasks a living batch has, and how many are done and left alone.
    running: int
    done: int
    # Tasks that succeeded before what they are after did, each with one that it is after: those
    # that run again, and those that are left alone.
    behind: dict[int, int]
    left_behind: dict[int, int]
    # How many did not succeed and are left alone; how many of those done had other code.
    left_failed: int
    other_code: int
    # As of MatchedTasks.
    is_plain: bool
    earlier: EarlierTasks
    # The tasks with their names, the index of each, and its position by index (None: the same).
    tasks: list[Task]
    indices: Sequence[int]
    positions: Mapping[int, int] | None
    # None where no task is after another.
    graph: Graph | None

    @property
    def total(self) -> int:
        """How many tasks the job has."""
        return len(self.job.tasks)

    @property
    def before(self) -> int:
        """How many tasks were submitted before."""
        return len(self.earlier.states)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to submit, not even a change of what is known."""
        return not (
            self.to_run or self.again or self.changes or self.dropped or self.restored or self.added
        )

    def by_index(self, index: int) -> Task:
        """The task of that index."""
        return self.tasks[index if self.positions is None else self.positions[index]]

    def list_tasks(self, indices: Sequence[int]) -> Sequence[Task]:
        """The tasks of these indices; quickly for a range of a new job."""
        if self.positions is None and isinstance(indices, range) and indices.step == 1:
            return self.tasks[indices.start : indices.stop]
        return list(map(self.by_index, indices))

    def list_needed(self) -> list[int]:
        """The tasks that do not run, and that a task that runs is after; none where no task must
        leave files.
        """
        graph = self.graph
        if graph is None or not any(t.options and t.options.expect for t in self.job.tasks):
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


def build_plan(
    job: Job,
    history: History,
    known: KnownTasks,
    living: Collection[str],
    rerun: str = "default",
    only: Chosen | None = None,
    *,
    follow: bool = False,
) -> Plan:
    """The plan for a job of which somebody still runs the batches `living`.

    only: what is asked for; what that is after and has not come to an end runs as well, and with
    `follow` what is behind it. Raises GraphError.
    """
    matched = match_tasks(job.tasks, known.tasks, history.dropped)
    indices = matched.indices
    dropped = [] if job.is_part else _list_dropped(indices, history)
    changed = {change.index for change in matched.changes}
    chooser = Chooser(history, living, rerun, changed, known.begun, job.settings.synced)
    choice = chooser.choose(indices, matched.tasks, only)
    to_run, why = choice.to_run, choice.why
    is_asked = len(to_run) or _may_be_behind(matched, history)
    graph = build_graph(matched.tasks, job.settings.canary) if is_asked else None
    behind: dict[int, int] = {}
    left: dict[int, int] = {}
    undone = 0
    if graph is None:
        to_run = _order_plain(matched, to_run)
    else:
        # What goes first of its template is none of what the others are made of.
        meant = build_graph(matched.tasks) if job.settings.canary else graph
        additions = Additions(matched, graph, meant, chooser, only, follow=follow)
        is_partial = only is not None or rerun in ("failed", "changed", "behind", "none")
        to_run = additions.complete(to_run, why, is_partial=is_partial)
        behind, left = additions.name_behind()
        undone = additions.undone
    renewed = changed.union(update.index for update in matched.updates)
    positions = _list_positions(matched)

    def is_mixed(indices: Sequence[int]) -> bool:
        found = indices if positions is None else map(positions.__getitem__, indices)
        return number_needs([matched.tasks[position] for position in found]) is not None

    again, closed, to_run = _keep_lost_batches(
        job, history, living, to_run, renewed,
        is_movable=graph is None, is_mixed=is_mixed,
    )  # fmt: skip
    return Plan(
        job=job,
        added=matched.added,
        changes=matched.changes,
        updates=matched.updates,
        dropped=dropped,
        restored=matched.restored,
        to_run=to_run,
        why=why,
        again=again,
        closed=closed,
        running=choice.running,
        done=choice.done - undone,
        behind=behind,
        left_behind=left,
        left_failed=choice.left_failed,
        other_code=chooser.count_other_code(indices, to_run),
        is_plain=matched.is_plain,
        earlier=EarlierTasks(history.states, history.batch_of, list(history.batches)),
        tasks=matched.tasks,
        indices=indices,
        positions=positions,
        graph=graph,
    )


def _order_plain(matched: MatchedTasks, to_run: Sequence[int]) -> Sequence[int]:
    """By priority, where no task is after another."""
    order = list_by_priority(matched.tasks) if len(to_run) else range(0)
    if isinstance(order, range):
        return to_run
    wanted = set(to_run)
    indices = matched.indices
    return array("I", (indices[position] for position in order if indices[position] in wanted))


def _may_be_behind(matched: MatchedTasks, history: History) -> bool:
    """Whether a task may have succeeded before one that it is after did."""
    if SUCCEEDED not in history.states:
        return False
    return history.is_of_several or bool(matched.restored) or bool(list_loose(matched))


def _list_dropped(indices: Sequence[int], history: History) -> list[int]:
    if isinstance(indices, range):
        gone: Iterator[int] = iter(range(len(indices), history.count))
    else:
        known = set(indices)
        gone = (index for index in range(history.count) if index not in known)
    return [index for index in gone if index not in history.dropped]


def _list_positions(matched: MatchedTasks) -> Mapping[int, int] | None:
    if matched.is_plain:
        return None
    return {index: position for position, index in enumerate(matched.indices)}


def _keep_lost_batches(
    job: Job,
    history: History,
    living: Collection[str],
    to_run: Sequence[int],
    renewed: set[int],
    *,
    is_movable: bool,
    is_mixed: Callable[[Sequence[int]], bool],
) -> tuple[list[str], list[str], Sequence[int]]:
    """(batches that go in again, batches to close, what is left to put into new ones).

    A lost batch goes in again as it is if all its unfinished tasks are wanted and unchanged,
    with the same settings; else it is closed. Not where tasks wait for tasks of other batches
    (`is_movable`), as those may have got new numbers, and not where another executor is to get
    it, which may want tasks apart that need different things (`is_mixed`).
    """
    again: list[str] = []
    closed: list[str] = []
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
        is_of_other = batch.executor != job.settings.executor
        is_current = is_current and not (is_of_other and is_mixed(unfinished))
        if is_movable and same and is_current and wanted.issuperset(unfinished):
            again.append(name)
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
        "synced": list(map(list, settings.synced)),  # as JSON has them, to be compared
        "max_failures": settings.max_failures,
        "fail_fast": settings.fail_fast,
        "canary": settings.canary,
    }
