"""How a plan is cut into batches for an engine."""

from __future__ import annotations

import graphlib
import heapq
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umpteen.history.history import History
from umpteen.job.settings import Setting, merge_settings
from umpteen.job.spec import Job, Task, TaskOptions
from umpteen.planning.batch_files import build_batches
from umpteen.planning.batching import BatchSizes, cut_for_engine
from umpteen.planning.known import KnownTasks
from umpteen.planning.plan import Plan, build_plan
from umpteen.store.directory import DirectoryStore


def make_plan(*tasks: Task, batch_size: int = 0) -> Plan:
    history = History(DirectoryStore("/nonexistent/umpteen"))
    settings = merge_settings({"batch_size": Setting(batch_size, "test")})
    return build_plan(Job("job", list(tasks), settings), history, KnownTasks([]), set())


def plain(count: int) -> Plan:
    return make_plan(*[Task("true")] * count)


def after(name: str, *before: str) -> Task:
    return Task("x", name, options=TaskOptions(after=[(each, "succeeded") for each in before]))


def cut(
    plan: Plan, workers: int = 4, most: int = 2000, seconds: dict[int, float] | None = None
) -> BatchSizes:
    return cut_for_engine(plan, workers, most, seconds or {}, 0.3)


def list_batches(found: BatchSizes) -> list[list[int]]:
    batches, start = [], 0
    for size in found.sizes:
        batches.append(list(found.order[start : start + size]))
        start += size
    return batches


def name_batches(plan: Plan, found: BatchSizes) -> list[list[str]]:
    return [[plan.by_index(index).name for index in batch] for batch in list_batches(found)]


def read_waits(plan: Plan, found: BatchSizes) -> dict[str, list[str]]:
    built = build_batches(plan, "/store", "/here", 1, {}, 0.0, found)
    return {
        new.handed.batch: json.loads(content)["umpteen"].get("waits", []) for new, content in built
    }


def run_on(workers: int, batches: Sequence[Sequence[float]]) -> float:
    """Seconds until all have ended, each given to the worker that is free first."""
    free = [0.0] * workers
    for batch in batches:
        heapq.heappush(free, heapq.heappop(free) + sum(batch))
    return max(free)


def test_cut_sizes_shrink_towards_the_end() -> None:
    found = cut(plain(1000))
    assert found.order == range(1000)
    assert found.sizes == sorted(found.sizes, reverse=True)
    assert found.sizes[:4] == [125] * 4
    assert found.sizes[-1] <= 4


@pytest.mark.parametrize("seconds", [{}, {0: 1.0}])
def test_cut_for_an_engine_that_takes_any_number_is_as_for_one_that_takes_enough(
    seconds: dict[int, float],
) -> None:
    for plan in (plain(0), plain(20_000), make_plan(Task("x", "a"), after("b", "a"))):
        assert cut(plan, most=0, seconds=seconds) == cut(plan, most=10**6, seconds=seconds)


def test_cut_of_fewer_tasks_than_workers_is_one_each() -> None:
    assert cut(plain(3)).sizes == [1, 1, 1]


def test_cut_of_a_million_keeps_below_what_an_engine_takes() -> None:
    found = cut(plain(1_000_000), workers=16)
    assert (sum(found.sizes), max(found.sizes)) == (1_000_000, 5000)
    assert len(found.sizes) < 2000


def test_cut_for_many_workers_keeps_below_what_an_engine_takes() -> None:
    assert len(cut(plain(100_000), workers=5000).sizes) <= 2000


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 40), st.integers(1, 50))
def test_cut_has_every_task_once(count: int, workers: int, most: int) -> None:
    found = cut(plain(count), workers, most)
    assert sorted(found.order) == list(range(count))
    assert sum(found.sizes) == count
    assert len(found.sizes) <= most


def test_cut_of_a_given_size() -> None:
    assert cut(make_plan(*[Task("true")] * 10, batch_size=4)).sizes == [4, 4, 2]
    waiting = [after(f"t{n}", "prep") for n in range(10)]
    assert max(cut(make_plan(Task("x", "prep"), *waiting, batch_size=2), most=1).sizes) == 2


def test_cut_by_what_tasks_took_before_runs_the_longest_first() -> None:
    found = cut(plain(100), seconds={index: float(index % 10) for index in range(100)})
    first = list_batches(found)[0]
    assert {index % 10 for index in first} == {9}
    worth = [sum(float(index % 10) for index in batch) for batch in list_batches(found)]
    assert worth[0] > 2 * worth[-2]


def test_cut_makes_no_batch_that_is_not_worth_its_start() -> None:
    found = cut(plain(1000), seconds=dict.fromkeys(range(1000), 0.001))
    assert all(size * 0.001 >= 0.29 for size in found.sizes[:-1])


@pytest.mark.parametrize("seed", range(5))
def test_cut_of_short_and_long_tasks_ends_within_15_percent_of_the_best_order(seed: int) -> None:
    draw = random.Random(seed)
    took = [5.0 if draw.random() < 0.2 else 0.005 for _ in range(400)]
    batches = [[took[index] for index in batch] for batch in list_batches(cut(plain(400)))]
    best = run_on(4, [[each] for each in sorted(took, reverse=True)])
    assert run_on(4, batches) <= 1.15 * best


# --- with dependencies ----------------------------------------------------------------------------


def test_cut_keeps_chains_together() -> None:
    pairs = [(Task("x", f"prep{n}"), after(f"train{n}", f"prep{n}")) for n in range(40)]
    plan = make_plan(*(task for pair in pairs for task in pair))
    found = cut(plan)
    assert not any(read_waits(plan, found).values())
    assert len(found.sizes) >= 8
    for batch in name_batches(plan, found):
        assert batch == [name for n in batch[::2] for name in (n, n.replace("prep", "train"))]


def test_cut_has_what_all_wait_for_in_a_batch_of_its_own() -> None:
    trains = [after(f"train{n}", "prep") for n in range(100)]
    plan = make_plan(Task("x", "prep"), *trains, after("report", "train*"))
    found = cut(plan)
    named = name_batches(plan, found)
    waits = read_waits(plan, found)
    assert (named[0], named[-1]) == (["prep"], ["report"])
    middle = [str(number) for number in range(2, len(named))]
    assert all(waits[batch] == ["1"] for batch in middle)
    assert waits[str(len(named))] == middle


def test_cut_of_one_long_chain_is_one_batch() -> None:
    plan = make_plan(Task("x", "t0"), *(after(f"t{n}", f"t{n - 1}") for n in range(1, 3000)))
    assert cut(plan).sizes == [3000]


@st.composite
def graphs(draw: Any) -> list[Task]:
    tasks = []
    for number in range(draw(st.integers(1, 30))):
        before = draw(st.sets(st.integers(0, max(0, number - 1)), max_size=min(number, 3)))
        tasks.append(after(f"t{number}", *(f"t{each}" for each in sorted(before))))
    return tasks


@settings(max_examples=150, deadline=None)
@given(graphs(), st.integers(1, 8))
def test_cut_batches_wait_for_earlier_ones_alone(tasks: list[Task], workers: int) -> None:
    plan = make_plan(*tasks)
    found = cut(plan, workers)
    assert sorted(found.order) == list(range(len(tasks)))
    assert sum(found.sizes) == len(tasks)
    if plan.graph is None:
        return
    for batch, waits in read_waits(plan, found).items():
        assert all(int(other) < int(batch) for other in waits)
    place = {index: place for place, index in enumerate(found.order)}
    for index in found.order:
        assert all(place[before] < place[index] for before in plan.graph.before(index))


# --- batches that are asked for one by one --------------------------------------------------------


def needing(cpus: int | None, name: str = "", *before: str, **more: Any) -> Task:
    names = [(each, "succeeded") for each in before]
    return Task("x", name, options=TaskOptions(after=names, cpus=cpus, **more))


def cut_by_needs(plan: Plan, workers: int = 4, **more: Any) -> BatchSizes:
    return cut_for_engine(plan, workers, more.get("most", 2000), {}, 0.3, by_needs=True)


def list_needs(plan: Plan, found: BatchSizes) -> list[set[Any]]:
    return [
        {plan.by_index(index).options.asked_for for index in batch}  # type: ignore[union-attr]
        for batch in list_batches(found)
    ]


def test_cut_by_needs_has_no_batch_of_tasks_that_need_different_things() -> None:
    plan = make_plan(*[needing(cpus) for cpus in (1, 16, None, 2) * 50])
    found = cut_by_needs(plan)
    assert sorted(found.order) == list(range(200))
    assert all(len(needs) == 1 for needs in list_needs(plan, found))
    assert {0, 2} <= set(list_batches(found)[0])  # no cores, and one core, are the same


def test_cut_by_needs_of_memory_and_gpus() -> None:
    tasks = [needing(1), needing(1, memory=5), needing(1, gpus=1), needing(1, memory=5)]
    assert list_batches(cut_by_needs(make_plan(*tasks, batch_size=9))) == [[0], [1, 3], [2]]


def test_cut_by_capabilities_which_each_batch_has() -> None:
    named: list[tuple[str, ...]] = [("a", "b"), (), ("a",), ("a", "b")]
    plan = make_plan(*[needing(1, needs=each) for each in named], batch_size=9)
    found = cut_by_needs(plan)
    assert list_batches(found) == [[0, 3], [1], [2]]
    built = build_batches(plan, "/store", "/here", 1, {}, 0.0, found)
    assert [new.capabilities for new, _ in built] == [("a", "b"), (), ("a",)]


def test_cut_by_what_tasks_say_to_slurm_which_each_batch_has() -> None:
    said = [{"time": "5", "mem": "1G"}, None, {"mem": "1G", "time": "5"}, {"time": "9"}]
    plan = make_plan(*[needing(1, slurm=each) for each in said], batch_size=9)
    found = cut_by_needs(plan)
    assert list_batches(found) == [[0, 2], [1], [3]]
    built = [new.slurm for new, _ in build_batches(plan, "/store", "/here", 1, {}, 0.0, found)]
    assert built == [{"time": "5", "mem": "1G"}, {}, {"time": "9"}]


def test_cut_by_needs_of_tasks_that_need_the_same_is_as_without() -> None:
    for plan in (plain(1000), make_plan(*[needing(2)] * 1000, batch_size=7)):
        assert cut_by_needs(plan) == cut(plan)


def test_cut_by_needs_keeps_the_size_that_is_asked_for() -> None:
    plan = make_plan(*[needing(cpus) for cpus in (1, 16) * 5], batch_size=2)
    assert cut_by_needs(plan).sizes == [2, 2, 1, 2, 2, 1]


def test_cut_by_needs_divides_a_chain_where_its_needs_change() -> None:
    chain = [needing(1, "a"), needing(1, "b", "a"), needing(16, "c", "b"), needing(1, "d", "c")]
    plan = make_plan(*chain)
    found = cut_by_needs(plan)
    assert name_batches(plan, found) == [["a", "b"], ["c"], ["d"]]
    assert read_waits(plan, found) == {"1": [], "2": ["1"], "3": ["2"]}


def test_cut_by_needs_behind_a_barrier_of_several_needs() -> None:
    first = [needing(1 + n % 2, f"a{n}") for n in range(4)]
    last = [needing(cpus, f"b{cpus}", "a*") for cpus in (1, 2, 4)]
    plan = make_plan(*first, *last)
    found = cut_by_needs(plan)
    assert all(len(needs) == 1 for needs in list_needs(plan, found))
    refuse_loops(read_waits(plan, found))


def test_cut_by_needs_of_more_groups_than_batches_may_be_comes_to_an_end() -> None:
    plan = make_plan(*[needing(1 + n % 30) for n in range(300)], *[needing(1)] * 6000)
    found = cut_by_needs(plan, most=30)
    assert len(found.sizes) <= 32
    assert sum(found.sizes) == 6300


def refuse_loops(waits: dict[str, list[str]]) -> None:
    tuple(graphlib.TopologicalSorter(waits).static_order())


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 60), st.integers(1, 6), st.integers(0, 5))
def test_cut_by_needs_of_any_job_has_no_loop_of_batches(
    data: st.DataObject, count: int, workers: int, size: int
) -> None:
    tasks = []
    for number in range(count):
        before = data.draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        cpus = data.draw(st.sampled_from([None, 1, 2, 16]))
        tasks.append(needing(cpus, f"t{number}", *(f"t{each}" for each in sorted(before))))
    plan = make_plan(*tasks, batch_size=size)
    found = cut_by_needs(plan, workers)
    assert sorted(found.order) == list(range(count))
    assert all(len(needs) == 1 for needs in list_needs(plan, found))
    refuse_loops(read_waits(plan, found))
