"""Cuts a plan into batches for an engine that runs several at once. Pure: touches no file.

Sizes shrink towards the end, so that all workers end at about the same time: of what is left,
each worker is given half its share, round after round (factoring: Flynn Hummel, Schonberg and
Flynn, Communications of the ACM 35(8), 1992). Tasks that wait for each other stay together
where they are few; else they are cut by level, so that no two batches wait for each other.

Where each batch is asked for by what its tasks need, it has only tasks that need the same. So
tasks are divided by their needs and by their stage first: how often the needs change on the
longest way from the first tasks to it. What leads from one part to another leads to a later
stage, so that parts do not wait for each other, and each is cut as a job of its own is.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from umpteen.job.dependencies import Graph
from umpteen.model.dependencies import FREE, Behind
from umpteen.planning.needs import number_needs
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
    plan: Plan,
    workers: int,
    batches_most: int,
    seconds: Mapping[int, float],
    start_up_s: float,
    *,
    by_needs: bool = False,
) -> BatchSizes:
    """The batches of a plan for so many workers; of `batch_size` tasks, where that is set.

    batches_most: how many there may be; 0: any number. seconds: by task index, what it took
    before; with these the longest go first, and no batch is worth less than it costs to start,
    `start_up_s`. by_needs: whether a batch has only tasks that need the same.
    """
    size = plan.job.settings.batch_size
    needs = number_needs(plan.list_tasks(plan.to_run)) if by_needs else None
    if size and plan.graph is None and needs is None:
        return cut_evenly(plan.to_run, size)
    workers = workers or WORKERS
    batches_most = batches_most or sys.maxsize
    costs = _Costs(plan.to_run, {} if size else seconds)
    groups = _list_groups(plan, workers, costs, needs)
    if size:
        batches = _cut_all(groups, costs, 1, size, size)
    else:
        total = costs.of(range(len(plan.to_run)))
        share = total / workers
        least = max(share / _FINEST, start_up_s if seconds else 1.0)
        most = max(_TASKS_MOST, -(-2 * len(plan.to_run) // batches_most))
        batches = _cut_all(groups, costs, workers, least, most)
        while len(batches) > max(batches_most, len(groups)) and least < total:
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


def _list_groups(
    plan: Plan, workers: int, costs: _Costs, needs: Sequence[int] | None
) -> list[Sequence[Unit]]:
    """Groups in order, none of which has a unit that waits for one of its own or of a later.

    needs: a number for each position, equal for tasks that may be in one group; None for all.
    """
    count = len(plan.to_run)
    if plan.graph is None:
        positions: Sequence[int] = range(count)
        if costs.seconds and not _has_priorities(plan):
            positions = sorted(positions, key=lambda position: -costs.of((position,)))
        return [_Singles(part) for part in _divide(positions, needs)]
    found = _Components(plan, plan.graph, needs)
    parts: dict[tuple[int, int], list[list[int]]] = {}
    for positions in found.list_all():
        parts.setdefault(found.part_of(positions[0]), []).append(positions)
    groups: list[Sequence[Unit]] = []
    for part in sorted(parts):
        groups += _group_part(parts[part], found.level, count, workers)
    return groups


def _divide(positions: Sequence[int], needs: Sequence[int] | None) -> list[Sequence[int]]:
    """By needs, in the order of the first of each."""
    if needs is None:
        return [positions]
    parts: dict[int, array[int]] = {}
    for position in positions:
        parts.setdefault(needs[position], array("I")).append(position)
    return list(parts.values())


def _group_part(
    components: Sequence[list[int]], level_of: Sequence[int], count: int, workers: int
) -> list[Sequence[Unit]]:
    """The groups of some components. count: of all positions."""
    whole: list[Unit] = []
    levels: dict[int, list[int]] = {}
    for positions in components:
        depth = max(level_of[position] for position in positions) + 1
        if len(positions) * 2 * workers <= count or len(positions) < _WIDTH * depth:
            whole.append(positions)
            continue
        for position in positions:
            levels.setdefault(level_of[position], []).append(position)
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


class _Members:
    """What a task is after: the positions, by the part that they are in."""

    def __init__(self, parts: dict[tuple[int, int], list[int]]) -> None:
        self.parts = parts
        self.stage = max((stage for stage, _ in parts), default=0)
        self.needs = {needs for stage, needs in parts if stage == self.stage}

    def find_stage(self, needs: int) -> int:
        """Of a task with these needs behind them."""
        return self.stage + (not self.needs <= {needs})


class _Components:
    """Tasks of one part that are connected by dependencies, and how deep each is below the first.

    needs: a number for each position, equal for tasks that may be in one part; None for all.
    """

    def __init__(self, plan: Plan, graph: Graph, needs: Sequence[int] | None) -> None:
        count = len(plan.to_run)
        self.parent = list(range(count))
        self.level = array("I", [0]) * count
        self.stage = array("I", [0]) * count
        self.needs = needs or array("I", [0]) * count
        job_position_of = {index: position for position, index in enumerate(plan.indices)}
        run_position_of = {
            job_position_of[index]: position for position, index in enumerate(plan.to_run)
        }
        barriers: dict[int, _Members] = {}
        joined: dict[tuple[int, tuple[int, int]], tuple[int, int]] = {}
        for position, index in enumerate(plan.to_run):
            behind = graph.behind[job_position_of[index]]
            if behind == FREE:
                continue
            task = Behind(behind).task
            if task is not None:
                other = run_position_of.get(task, -1)
                if other >= 0:
                    self._put_behind(position, other)
                continue
            if behind not in barriers:
                members = graph.barriers[behind].members()
                barriers[behind] = self._find_members(members, run_position_of)
            before = barriers[behind]
            self.stage[position] = before.find_stage(self.needs[position])
            part = self.part_of(position)
            if part not in before.parts:
                continue
            if (behind, part) not in joined:
                joined[behind, part] = self._join_all(before.parts[part])
            other, level = joined[behind, part]
            self.join(position, other)
            self.level[position] = level + 1

    def part_of(self, position: int) -> tuple[int, int]:
        """Its stage and its needs: what is behind another part is in one of a later stage."""
        return self.stage[position], self.needs[position]

    def _put_behind(self, position: int, other: int) -> None:
        is_alike = self.needs[position] == self.needs[other]
        self.stage[position] = self.stage[other] + (not is_alike)
        if is_alike:
            self.join(position, other)
            self.level[position] = self.level[other] + 1

    def _find_members(self, members: Iterable[int], run_position_of: Mapping[int, int]) -> _Members:
        parts: dict[tuple[int, int], list[int]] = {}
        for member in members:
            if member in run_position_of:
                position = run_position_of[member]
                parts.setdefault(self.part_of(position), []).append(position)
        return _Members(parts)

    def _join_all(self, positions: Sequence[int]) -> tuple[int, int]:
        """A position of these, and the highest level."""
        for position in positions[1:]:
            self.join(positions[0], position)
        return positions[0], max(self.level[position] for position in positions)

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
