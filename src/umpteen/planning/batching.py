"""Cuts a plan into batches for an engine that runs several at once. Pure: touches no file.

Sizes shrink towards the end, so that all workers end at about the same time: of what is left,
each worker is given half its share, round after round (factoring: Flynn Hummel, Schonberg and
Flynn, Communications of the ACM 35(8), 1992). Tasks that wait for each other stay together
where they are few; else they are cut by level, so that no two batches wait for each other.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from umpteen.job.dependencies import Graph
from umpteen.model.dependencies import FREE, Behind
from umpteen.planning.plan import Plan

__all__ = ["WORKERS", "BatchSizes", "cut_evenly", "cut_for_engine"]

WORKERS = 16  # where nobody knows how many there are
_TASKS_MOST = 5000  # of a batch, as long as that makes no more batches than may be
_FINEST = 32  # the smallest batch is such a part of a worker's share: so even are the ends
_WIDTH = 4  # tasks of a group a level, from which on it is worth cutting

Unit = Sequence[int]  # positions in what runs that go into one batch, in this order


class BatchSizes(NamedTuple):
    """How the tasks of a plan are divided into batches."""

    # Task indices in the order in which they are submitted.
    order: Sequence[int]
    # How many of them each batch takes.
    sizes: list[int]
    # How many batches may run at once; 0 where nobody knows.
    workers: int = 0


def cut_evenly(order: Sequence[int], size: int) -> BatchSizes:
    """Batches of one size, but for the last."""
    starts = range(0, len(order), size)
    return BatchSizes(order, [min(size, len(order) - start) for start in starts])


def cut_for_engine(
    plan: Plan, workers: int, batches_most: int, seconds: Mapping[int, float], start_up_s: float
) -> BatchSizes:
    """The batches of a plan for so many workers; of `batch_size` tasks, where that is set.

    batches_most: how many there may be; 0: any number. seconds: by task index, what it took
    before; with these the longest go first, and no batch is worth less than it costs to start,
    `start_up_s`.
    """
    size = plan.job.settings.batch_size
    if size and plan.graph is None:
        return cut_evenly(plan.to_run, size)
    workers = workers or WORKERS
    batches_most = batches_most or sys.maxsize
    costs = _Costs(plan.to_run, {} if size else seconds)
    groups = _list_groups(plan, workers, costs)
    if size:
        batches = _cut_all(groups, costs, 1, size, size)
    else:
        share = costs.of(range(len(plan.to_run))) / workers
        least = max(share / _FINEST, start_up_s if seconds else 1.0)
        most = max(_TASKS_MOST, -(-2 * len(plan.to_run) // batches_most))
        batches = _cut_all(groups, costs, workers, least, most)
        while len(batches) > max(batches_most, len(groups)):
            least *= 2
            batches = _cut_all(groups, costs, workers, least, most)
    sizes = [sum(map(len, batch)) for batch in batches]
    if len(groups) == 1 and isinstance(groups[0], _Singles) and not seconds:
        return BatchSizes(plan.to_run, sizes)
    positions = (position for batch in batches for unit in batch for position in unit)
    return BatchSizes(array("I", (plan.to_run[position] for position in positions)), sizes)


class _Costs:
    """What positions cost: seconds where some are known, for the others their mean; else 1."""

    def __init__(self, order: Sequence[int], seconds: Mapping[int, float]) -> None:
        self.order, self.seconds = order, seconds
        known = [seconds[index] for index in order if index in seconds] if seconds else []
        self.mean = sum(known) / len(known) if known else 1.0

    def of(self, unit: Unit) -> float:
        if not self.seconds:
            return float(len(unit))
        return sum(self.seconds.get(self.order[position], self.mean) for position in unit)


class _Singles(Sequence[Unit]):
    """Every position as a unit of its own, without a list of a million lists."""

    def __init__(self, positions: Sequence[int]) -> None:
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, number: int) -> Unit:  # type: ignore[override]
        return (self.positions[number],)


def _cut_all(
    groups: Sequence[Sequence[Unit]], costs: _Costs, workers: int, least: float, most: int
) -> list[list[Unit]]:
    return [batch for group in groups for batch in _cut(group, costs, workers, least, most)]


def _cut(
    units: Sequence[Unit], costs: _Costs, workers: int, least: float, most: int
) -> Iterator[list[Unit]]:
    """Rounds of as many batches as there are workers, each worth half a share of what is left."""
    weights = [costs.of(unit) for unit in units] if costs.seconds else None
    left = sum(weights) if weights else float(sum(map(len, units)))
    position = 0
    while position < len(units):
        target = max(least, left / (2 * workers))
        for _ in range(workers):
            batch: list[Unit] = []
            worth, count = 0.0, 0
            while position < len(units) and (not batch or (worth < target and count < most)):
                unit = units[position]
                weight = weights[position] if weights else float(len(unit))
                if batch and worth + weight / 2 > target:
                    break
                batch.append(unit)
                worth, count, position = worth + weight, count + len(unit), position + 1
            if not batch:
                return
            left -= worth
            yield batch


# --- what goes together -------------------------------------------------------------------


def _list_groups(plan: Plan, workers: int, costs: _Costs) -> list[Sequence[Unit]]:
    """Groups in order, none of which has a unit that waits for one of its own or of a later."""
    count = len(plan.to_run)
    if plan.graph is None:
        positions: Sequence[int] = range(count)
        if costs.seconds and not _has_priorities(plan):
            positions = sorted(positions, key=lambda position: -costs.of((position,)))
        return [_Singles(positions)]
    found = _Components(plan, plan.graph)
    whole: list[Unit] = []
    levels: dict[int, list[int]] = {}
    for positions in found.list_all():
        depth = max(found.level[position] for position in positions) + 1
        if len(positions) * 2 * workers <= count or len(positions) < _WIDTH * depth:
            whole.append(positions)
            continue
        for position in positions:
            levels.setdefault(found.level[position], []).append(position)
    groups: list[Sequence[Unit]] = [whole] if whole else []
    narrow: list[int] = []
    for level in sorted(levels):
        if len(levels[level]) < workers:
            narrow += levels[level]
            continue
        if narrow:
            groups.append([sorted(narrow)])
            narrow = []
        groups.append(_Singles(levels[level]))
    if narrow:
        groups.append([sorted(narrow)])
    return groups


def _has_priorities(plan: Plan) -> bool:
    return any(task.options is not None and task.options.priority for task in plan.job.tasks)


class _Components:
    """Tasks that are connected by dependencies, and how deep each is below the first."""

    def __init__(self, plan: Plan, graph: Graph) -> None:
        count = len(plan.to_run)
        self.parent = list(range(count))
        self.level = array("I", [0]) * count
        job_position_of = {index: position for position, index in enumerate(plan.indices)}
        run_position_of = {
            job_position_of[index]: position for position, index in enumerate(plan.to_run)
        }
        barriers: dict[int, tuple[int, int]] = {}  # a position of its own, the highest level
        for position, index in enumerate(plan.to_run):
            behind = graph.behind[job_position_of[index]]
            if behind == FREE:
                continue
            task = Behind(behind).task
            if task is not None:
                other = run_position_of.get(task, -1)
                if other >= 0:
                    self.join(position, other)
                    self.level[position] = self.level[other] + 1
                continue
            if behind not in barriers:
                barriers[behind] = self._join_barrier(graph, behind, run_position_of)
            other, level = barriers[behind]
            if other >= 0:
                self.join(position, other)
                self.level[position] = level + 1

    def _join_barrier(
        self, graph: Graph, number: int, run_position_of: dict[int, int]
    ) -> tuple[int, int]:
        members = graph.barriers[number].members()
        positions = [run_position_of[member] for member in members if member in run_position_of]
        for position in positions[1:]:
            self.join(positions[0], position)
        return (
            (positions[0], max(self.level[position] for position in positions))
            if positions
            else (-1, 0)
        )

    def find(self, position: int) -> int:
        parent = self.parent
        while parent[position] != position:
            parent[position] = position = parent[parent[position]]
        return position

    def join(self, one: int, other: int) -> None:
        one, other = self.find(one), self.find(other)
        self.parent[max(one, other)] = min(one, other)

    def list_all(self) -> Iterator[list[int]]:
        """The positions of each, rising; the components in the order of their first."""
        found: dict[int, list[int]] = {}
        for position in range(len(self.parent)):
            found.setdefault(self.find(position), []).append(position)
        yield from found.values()
