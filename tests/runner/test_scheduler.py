"""Which task starts next: order, dependencies, and what the machine has room for."""

from __future__ import annotations

import functools
import operator
import random
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from umpteen.model.dependencies import FREE, link
from umpteen.model.states import NUMBER_OF
from umpteen.runner.scheduler import (
    Assignment,
    NeverStarted,
    Resources,
    Scheduler,
    Tasks,
    build_needs,
)
from umpteen.system.resources import Capacity

GB = 1 << 30
HERE = Capacity(cpus=4, memory=8 * GB, gpus=("0", "1"))
NO_LIMIT = Capacity(cpus=1000, memory=1000 * GB, gpus=())


def make(capacity: Capacity = HERE, slots: int = 4) -> Scheduler:
    return Scheduler(capacity, slots, lambda index: f"t{index}")


def tasks(
    count: int,
    needs: Mapping[int, Resources] | None = None,
    after: Sequence[int] = (),
    barriers: Sequence[Mapping[str, str]] = (),
) -> Tasks:
    return Tasks(range(count), needs or {}, after, barriers)


def take(scheduler: Scheduler, now_s: float = 0.0) -> list[tuple[int, int]]:
    """All that may start now."""
    return [assignment[:2] for assignment in iter(lambda: scheduler.take(now_s), None)]


def take_positions(scheduler: Scheduler, now_s: float = 0.0) -> list[int]:
    return [position for _, position in take(scheduler, now_s)]


def learn(scheduler: Scheduler, index: int, state: str) -> None:
    scheduler.task_ended(index, NUMBER_OF[state])


# --- plain ------------------------------------------------------------------------------------


def test_queue_gives_tasks_out_in_order_and_batches_one_after_another() -> None:
    scheduler = make(slots=1)
    scheduler.open(0, Tasks([2, 0, 1], {}, (), ()))
    scheduler.open(1, tasks(2))
    assert take(scheduler) == [(0, 2), (0, 0), (0, 1), (1, 0), (1, 1)]
    assert scheduler.is_empty


def test_queue_of_plain_tasks_runs_ahead_of_the_slots() -> None:
    scheduler = make(slots=1)
    scheduler.open(0, tasks(100))
    assert (len(take(scheduler)), scheduler.under_way) == (100, 100)


def test_queue_without_tasks_is_empty() -> None:
    scheduler = make()
    scheduler.open(0, tasks(0))
    assert (scheduler.is_empty, scheduler.is_ready, scheduler.take(0.0)) == (True, False, None)


def test_queue_that_is_told_to_be_tight_fills_the_slots_only() -> None:
    scheduler = make(slots=2)
    scheduler.is_tight = True
    scheduler.open(0, tasks(3))
    assert take_positions(scheduler) == [0, 1]
    scheduler.end((0, 0))
    assert take_positions(scheduler) == [2]


# --- what was said of needs ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "alone", "needs"),
    [
        ({}, False, None),
        ({"env": {"A": "1"}}, False, None),
        ({"cpus": 2}, False, Resources(cpus=2)),
        ({"memory": GB, "gpus": 1}, False, Resources(memory=GB, gpus=1)),
        ({}, True, Resources(alone=True)),
    ],
)
def test_needs_are_what_the_batch_file_says(
    extra: dict[str, object], alone: bool, needs: Resources | None
) -> None:
    assert build_needs(extra, alone=alone) == needs


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        (Resources(cpus=5), "needs 5 cpus, and this machine has 4"),
        (Resources(gpus=3), "needs 3 gpus, and this machine has 2"),
        (
            Resources(memory=8 * GB + 1),
            f"needs {8 * GB + 1} bytes of memory, and this machine has {8 * GB}",
        ),
    ],
)
def test_queue_fails_what_the_machine_can_never_have_room_for(
    needs: Resources, reason: str
) -> None:
    scheduler = make()
    scheduler.open(3, tasks(2, {0: needs}))
    assert scheduler.never_started == [NeverStarted(3, 0, "failed", reason)]
    assert take(scheduler) == [(3, 1)]


@pytest.mark.parametrize(
    "needs",
    [
        Resources(cpus=4),
        Resources(memory=8 * GB),
        Resources(gpus=2),
        Resources(4, 8 * GB, 2, alone=True),
    ],
)
def test_queue_gives_out_what_needs_all_there_is(needs: Resources) -> None:
    scheduler = make()
    scheduler.open(0, tasks(1, {0: needs}))
    assert (take_positions(scheduler), scheduler.never_started) == ([0], [])


# --- room -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "at_once"),
    [
        (Resources(cpus=1), 4),
        (Resources(cpus=2), 2),
        (Resources(cpus=3), 1),
        (Resources(memory=3 * GB), 2),
        (Resources(gpus=1), 2),
        (Resources(gpus=2), 1),
        (Resources(alone=True), 1),
    ],
)
def test_queue_gives_out_as_many_as_there_is_room_for(needs: Resources, at_once: int) -> None:
    scheduler = make()
    scheduler.open(0, tasks(10, dict.fromkeys(range(10), needs)))
    assert len(take(scheduler)) == at_once
    scheduler.end((0, 0))
    assert take_positions(scheduler) == [at_once]


def test_queue_counts_a_core_for_what_says_nothing_where_others_say() -> None:
    scheduler = make(slots=8)
    scheduler.open(0, tasks(4, {0: Resources(cpus=2)}))
    assert take_positions(scheduler) == [0, 1, 2]


def test_queue_counts_no_cores_where_nobody_asks_for_any() -> None:
    scheduler = make(slots=8)
    scheduler.open(0, tasks(8, {0: Resources(memory=GB)}))
    assert len(take(scheduler)) == 8


def test_queue_lets_small_ones_pass_what_waits_for_room() -> None:
    scheduler = make()
    scheduler.open(0, tasks(4, {0: Resources(cpus=3), 1: Resources(cpus=3), 2: Resources(cpus=1)}))
    assert take_positions(scheduler) == [0, 2]


def test_queue_gives_out_nothing_beside_a_task_that_is_alone() -> None:
    scheduler = make()
    scheduler.open(0, tasks(3, {1: Resources(alone=True)}))
    assert take_positions(scheduler) == [0, 2]
    scheduler.end((0, 0))
    assert take_positions(scheduler) == []
    scheduler.end((0, 2))
    assert take_positions(scheduler) == [1]
    scheduler.open(1, tasks(1))
    assert take_positions(scheduler) == []
    scheduler.end((0, 1))
    assert take(scheduler) == [(1, 0)]


def test_queue_lets_a_task_be_alone_after_plain_ones_have_ended() -> None:
    scheduler = make()
    scheduler.open(0, tasks(6))
    assert len(take(scheduler)) == 6
    scheduler.open(1, tasks(1, {0: Resources(alone=True)}))
    for position in range(6):
        assert take(scheduler) == []
        scheduler.end((0, position))
    assert take(scheduler) == [(1, 0)]


def test_queue_lets_a_big_one_be_passed_only_so_often() -> None:
    scheduler = make(slots=2)
    scheduler.open(0, tasks(100, {1: Resources(cpus=4)}))
    passed = 0
    (first,) = take_positions(scheduler)[:1]
    running = [first, 2]
    while running:
        scheduler.end((0, running.pop(0)))
        started = take_positions(scheduler)
        running += started
        if 1 in started:
            break
        passed += len(started)
    assert running == [1]
    assert passed <= 2 * 2


def test_queue_gives_each_task_devices_of_its_own_and_takes_them_back() -> None:
    scheduler = make()
    scheduler.open(0, tasks(4, {0: Resources(gpus=1), 1: Resources(gpus=1), 2: Resources(gpus=2)}))
    given_out = {
        assignment.position: assignment.devices
        for assignment in iter(lambda: scheduler.take(0.0), None)
    }
    assert given_out == {0: 0b01, 1: 0b10, 3: 0}
    scheduler.end((0, 0))
    assert take(scheduler) == []
    scheduler.end((0, 1))
    assert scheduler.take(0.0) == Assignment(0, 2, 0b11)


class Machine:
    """Starts what a scheduler gives out, and checks at each step that there was room for it."""

    def __init__(self, capacity: Capacity, slots: int, needs: Sequence[Resources | None]) -> None:
        self.capacity, self.slots, self.needs = capacity, slots, needs
        self.counts_cpus = any(n and n.cpus for n in needs)
        self.scheduler = make(capacity, slots)
        self.scheduler.is_tight = True
        self.running: dict[int, int] = {}
        self.given: Counter[int] = Counter()
        said = {position: n for position, n in enumerate(needs) if n}
        self.scheduler.open(0, tasks(len(needs), said))

    def start(self) -> None:
        for assignment in iter(lambda: self.scheduler.take(0.0), None):
            self.given[assignment.position] += 1
            self.running[assignment.position] = assignment.devices
            self.check()

    def end(self, position: int) -> None:
        del self.running[position]
        self.scheduler.end((0, position))

    def check(self) -> None:
        used = [self.needs[position] or Resources() for position in self.running]
        here = self.capacity
        assert len(used) <= self.slots
        assert sum(n.memory for n in used) <= here.memory
        assert not self.counts_cpus or sum(n.cpus or 1 for n in used) <= here.cpus
        assert len(used) == 1 or not any(n.alone for n in used)
        masks = list(self.running.values())
        assert [mask.bit_count() for mask in masks] == [n.gpus for n in used]
        assert sum(masks) == functools.reduce(operator.or_, masks, 0) < 1 << len(here.gpus)


NEEDS = st.none() | st.builds(
    Resources,
    cpus=st.integers(0, 4),
    memory=st.sampled_from([0, GB, 3 * GB, 8 * GB]),
    gpus=st.integers(0, 2),
    alone=st.sampled_from([False, False, False, True]),
)


@given(needs=st.lists(NEEDS, max_size=30), slots=st.integers(1, 6), seed=st.integers(0, 1 << 16))
@example(needs=[None, Resources(alone=True), None], slots=2, seed=0)
def test_queue_never_gives_out_more_than_there_is_and_each_task_once(
    needs: list[Resources | None], slots: int, seed: int
) -> None:
    chance = random.Random(seed)
    machine = Machine(HERE, slots, [n if n and any(n) else None for n in needs])
    machine.start()
    while machine.running:
        machine.end(chance.choice(list(machine.running)))
        machine.start()
    assert machine.given == dict.fromkeys(range(len(needs)), 1)
    assert machine.scheduler.is_empty
    assert (machine.scheduler.cpus, machine.scheduler.memory, machine.scheduler.devices) == (
        0,
        0,
        0,
    )


@given(needs=st.lists(NEEDS, min_size=1, max_size=60), slots=st.integers(1, 4),
       seed=st.integers(0, 1 << 16))  # fmt: skip
def test_queue_never_lets_the_first_that_waits_be_passed_more_than_twice_the_slots(
    needs: list[Resources | None], slots: int, seed: int
) -> None:
    chance = random.Random(seed)
    machine = Machine(HERE, slots, [n if n and any(n) else None for n in needs])
    machine.start()
    while machine.running:
        machine.end(chance.choice(list(machine.running)))
        machine.start()
    waiting, passed = list(range(len(needs))), 0
    for position in machine.given:  # as they were given out
        passed = 0 if position == waiting[0] else passed + 1
        waiting.remove(position)
        assert passed <= 2 * slots
    assert not waiting


# --- dependencies ---------------------------------------------------------------------------------


ENDS = ["succeeded", "failed", "timed_out", "cancelled", "skipped"]
HOW = {"timed_out": "timed out", "cancelled": "was cancelled", "skipped": "was skipped"}
OPENS = {
    "succeeded": {"succeeded"},
    "any": set(ENDS),
    "failed": {"failed", "timed_out", "cancelled"},
}


@pytest.mark.parametrize("is_known_before", [True, False])
@pytest.mark.parametrize("state", ENDS)
@pytest.mark.parametrize("outcome", OPENS)
def test_barrier_opens_for_the_outcome_asked_for(
    outcome: str, state: str, is_known_before: bool
) -> None:
    scheduler = make()
    if is_known_before:
        learn(scheduler, 7, state)
    scheduler.open(0, tasks(1, after=[0], barriers=[{outcome: "7"}]))
    if not is_known_before:
        assert (take(scheduler), scheduler.never_started, scheduler.is_empty) == ([], [], False)
        learn(scheduler, 7, state)
    if state in OPENS[outcome]:
        assert (take(scheduler), scheduler.never_started) == ([(0, 0)], [])
    else:
        reason = f"after t7, which {HOW.get(state, state)}"
        assert (take(scheduler), scheduler.never_started) == (
            [],
            [NeverStarted(0, 0, "skipped", reason)],
        )


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_barrier_stays_shut_for_what_is_no_end(state: str) -> None:
    scheduler = make()
    scheduler.open(0, tasks(1, after=[0], barriers=[{"any": "7"}]))
    learn(scheduler, 7, state)
    assert (take(scheduler), scheduler.never_started) == ([], [])
    learn(scheduler, 7, "succeeded")
    assert take(scheduler) == [(0, 0)]


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_link_stands_for_the_success_of_one_task(state: str) -> None:
    scheduler = make()
    scheduler.open(0, tasks(3, after=[-1, -2 - 40, -2 - 41], barriers=[]))
    assert take(scheduler) == [(0, 0)]
    learn(scheduler, 40, state)
    learn(scheduler, 41, "succeeded")
    if state == "succeeded":
        assert (take(scheduler), scheduler.never_started) == ([(0, 1), (0, 2)], [])
    else:
        assert (take(scheduler), scheduler.never_started) == (
            [(0, 2)], [NeverStarted(0, 1, "skipped", "after t40, which failed")]
        )  # fmt: skip


def test_barrier_opens_when_the_last_of_its_tasks_has_ended() -> None:
    scheduler = make()
    scheduler.open(0, tasks(2, after=[0, 0], barriers=[{"succeeded": "10-12", "any": "20"}]))
    for index in (12, 20, 10):
        learn(scheduler, index, "succeeded")
        assert take(scheduler) == []
    learn(scheduler, 11, "succeeded")
    assert take(scheduler) == [(0, 0), (0, 1)]


def test_barrier_skips_all_behind_it_as_soon_as_one_went_wrong() -> None:
    scheduler = make()
    scheduler.open(0, tasks(2, after=[0, 0], barriers=[{"succeeded": "10-12"}]))
    learn(scheduler, 11, "failed")
    assert [task.position for task in scheduler.never_started] == [0, 1]
    for index in (10, 12):
        learn(scheduler, index, "succeeded")
    assert (len(scheduler.never_started), take(scheduler)) == (2, [])


def test_barrier_names_the_first_that_went_wrong() -> None:
    scheduler = make()
    scheduler.open(0, tasks(1, after=[0], barriers=[{"succeeded": "1-2"}]))
    learn(scheduler, 2, "timed_out")
    learn(scheduler, 1, "failed")
    assert [task.reason for task in scheduler.never_started] == ["after t2, which timed out"]


def test_barrier_that_is_doomed_skips_though_others_still_run() -> None:
    scheduler = make()
    barrier = {"doomed": "after prep, which failed", "any": "9"}
    scheduler.open(0, tasks(1, after=[0], barriers=[barrier]))
    assert scheduler.never_started == [NeverStarted(0, 0, "skipped", "after prep, which failed")]


def test_barriers_of_equal_content_are_one_over_all_batches() -> None:
    scheduler = make()
    for ordinal in range(3):
        scheduler.open(ordinal, tasks(1, after=[0], barriers=[{"succeeded": "100"}]))
    learn(scheduler, 100, "succeeded")
    scheduler.open(3, tasks(1, after=[0], barriers=[{"succeeded": "100"}]))
    assert take(scheduler) == [(ordinal, 0) for ordinal in range(4)]
    assert len(scheduler.shared) == 1


def test_barriers_that_differ_in_outcome_are_apart() -> None:
    scheduler = make()
    scheduler.open(0, tasks(2, after=[0, 1], barriers=[{"succeeded": "5"}, {"failed": "5"}]))
    learn(scheduler, 5, "failed")
    assert take(scheduler) == [(0, 1)]
    assert [task.position for task in scheduler.never_started] == [0]


def test_skips_go_on_down_a_chain_as_they_are_learnt() -> None:
    barriers = [{"succeeded": str(index)} for index in range(3)]
    scheduler = make()
    scheduler.open(0, tasks(4, after=[-1, 0, 1, 2], barriers=barriers))
    assert take(scheduler) == [(0, 0)]
    learn(scheduler, 0, "failed")
    said = []
    while scheduler.never_started:
        (task,), scheduler.never_started = scheduler.never_started, []
        said.append(task.reason)
        learn(scheduler, task.position, task.state)
    assert said == [
        "after t0, which failed", "after t1, which was skipped", "after t2, which was skipped"
    ]  # fmt: skip
    assert scheduler.is_empty


def test_success_after_a_failure_counts_for_who_asks_later() -> None:
    scheduler = make()
    learn(scheduler, 0, "failed")
    learn(scheduler, 0, "succeeded")
    learn(scheduler, 0, "failed")
    scheduler.open(0, tasks(1, after=[0], barriers=[{"succeeded": "0"}]))
    assert take(scheduler) == [(0, 0)]


def test_task_behind_a_barrier_waits_for_room_as_well() -> None:
    scheduler = make()
    needs = {0: Resources(cpus=4), 1: Resources(cpus=4)}
    scheduler.open(0, tasks(2, needs, after=[-1, 0], barriers=[{"any": "50"}]))
    assert take(scheduler) == [(0, 0)]
    learn(scheduler, 50, "failed")
    assert take(scheduler) == []
    scheduler.end((0, 0))
    assert take(scheduler) == [(0, 1)]


def test_task_that_can_never_have_room_fails_though_it_is_behind_a_barrier() -> None:
    scheduler = make()
    scheduler.open(0, tasks(1, {0: Resources(cpus=9)}, after=[0], barriers=[{"any": "50"}]))
    assert [task.state for task in scheduler.never_started] == ["failed"]
    learn(scheduler, 50, "succeeded")
    assert (take(scheduler), len(scheduler.never_started)) == ([], 1)


def test_ten_thousand_behind_ten_thousand_share_one_barrier() -> None:
    count = 10_000
    scheduler = make(NO_LIMIT)
    scheduler.open(
        0, tasks(count, after=[0] * count, barriers=[{"succeeded": f"{count}-{2 * count - 1}"}])
    )
    for index in range(count, 2 * count):
        assert not scheduler.is_ready
        learn(scheduler, index, "succeeded")
    assert take_positions(scheduler) == list(range(count))


@given(st.data())
def test_every_task_of_a_graph_is_given_out_or_unrun_once_and_after_its_own(
    data: st.DataObject,
) -> None:
    """One batch of random edges to earlier tasks; each ends as chance has it."""
    count = data.draw(st.integers(1, 12))
    after: list[int] = []
    barriers: list[dict[str, str]] = []
    for position in range(count):
        before = data.draw(st.sets(st.integers(0, position - 1), max_size=3)) if position else set()
        outcome = data.draw(st.sampled_from(list(OPENS)))
        after.append(len(barriers) if before else -1)
        if before:
            barriers.append({outcome: ",".join(map(str, sorted(before)))})
    scheduler = make(slots=data.draw(st.integers(1, 3)))
    scheduler.is_tight = data.draw(st.booleans())
    scheduler.open(0, tasks(count, after=after, barriers=barriers))
    ends: dict[int, str] = {}
    seen: Counter[int] = Counter()
    while len(ends) < count:
        started = take_positions(scheduler)
        never_started, scheduler.never_started = scheduler.never_started, []
        seen.update([*started, *(entry.position for entry in never_started)])
        for position in started:
            for outcome, members in (
                barriers[after[position]].items() if after[position] >= 0 else ()
            ):
                assert all(ends[int(m)] in OPENS[outcome] for m in members.split(","))
        assert started or never_started
        for position in started:
            ends[position] = data.draw(st.sampled_from(["succeeded", "failed"]))
            scheduler.end((0, position))
        for entry in never_started:
            ends[entry.position] = entry.state
        for position in [*started, *(entry.position for entry in never_started)]:
            learn(scheduler, position, ends[position])
    assert seen == dict.fromkeys(range(count), 1)
    assert scheduler.is_empty


# --- tasks that come back ---------------------------------------------------------------------


def test_task_that_comes_back_waits_for_its_time_and_then_goes_first() -> None:
    scheduler = make()
    scheduler.open(0, tasks(5))
    assert scheduler.take(0.0) == Assignment(0, 0, 0)
    scheduler.end((0, 0))
    scheduler.requeue((0, 0), 10.0, None)
    assert scheduler.take(9.9) == Assignment(0, 1, 0)
    assert scheduler.until_due_s(9.0) == pytest.approx(1.0)
    assert scheduler.take(10.0) == Assignment(0, 0, 0)
    assert take_positions(scheduler, 10.0) == [2, 3, 4]


def test_until_due_is_infinite_where_nothing_comes_back_and_never_below_zero() -> None:
    scheduler = make()
    assert scheduler.until_due_s(5.0) == float("inf")
    scheduler.requeue((0, 0), 3.0, None)
    assert scheduler.until_due_s(5.0) == 0
    assert not scheduler.is_empty


def test_tasks_come_back_by_their_time() -> None:
    scheduler = make(slots=1)
    for position, at_s in enumerate([3.0, 1.0, 2.0]):
        scheduler.requeue((0, position), at_s, None)
    assert [take_positions(scheduler, now_s) for now_s in (0.5, 1.0, 2.0, 3.0)] == [
        [],
        [1],
        [2],
        [0],
    ]


def test_task_comes_back_with_what_it_needs_now() -> None:
    scheduler = make()
    scheduler.open(0, tasks(3, {0: Resources(memory=GB)}))
    assert len(take(scheduler)) == 3
    for position in range(3):
        scheduler.end((0, position))
    scheduler.requeue((0, 0), 0.0, Resources(memory=5 * GB))
    scheduler.requeue((0, 1), 0.0, Resources(memory=5 * GB))
    scheduler.requeue((0, 2), 0.0, Resources(memory=3 * GB))
    assert sorted(take_positions(scheduler)) in ([0, 2], [1, 2])


def test_task_comes_back_with_no_more_memory_than_there_is() -> None:
    scheduler = make()
    scheduler.requeue((0, 0), 0.0, Resources(memory=100 * GB))
    scheduler.requeue((0, 1), 0.0, Resources(memory=GB))
    assert (len(take(scheduler)), scheduler.never_started) == (1, [])


def test_task_comes_back_alone_to_a_queue_of_plain_ones() -> None:
    scheduler = make(slots=2)
    scheduler.open(0, tasks(4))
    assert len(take(scheduler)) == 4
    scheduler.end((0, 0))
    scheduler.requeue((0, 0), 0.0, Resources(alone=True))
    assert take(scheduler) == []
    for position in (1, 2, 3):
        scheduler.end((0, position))
    assert take(scheduler) == [(0, 0)]


# --- dropped ----------------------------------------------------------------------------------


def test_dropped_task_is_not_given_out() -> None:
    scheduler = make()
    scheduler.open(0, tasks(3))
    assert scheduler.drop({(0, 1)}) == {(0, 1)}
    assert (take_positions(scheduler), scheduler.drop({(0, 1)})) == ([0, 2], set())


@pytest.mark.parametrize("key", [(0, 0), (0, 9), (5, 0)])
def test_task_that_is_under_way_or_unknown_cannot_be_dropped(key: tuple[int, int]) -> None:
    scheduler = make()
    scheduler.open(0, tasks(1))
    take(scheduler)
    assert not scheduler.drop({key})


def test_dropped_last_task_leaves_nothing() -> None:
    scheduler = make()
    scheduler.open(0, tasks(1, {0: Resources(cpus=1)}))
    assert scheduler.drop({(0, 0)}) == {(0, 0)}
    assert (scheduler.is_empty, scheduler.is_ready, take(scheduler)) == (True, False, [])


def test_dropped_task_behind_a_barrier_is_neither_started_nor_skipped() -> None:
    scheduler = make()
    scheduler.open(0, tasks(2, after=[0, 0], barriers=[{"succeeded": "9"}]))
    assert scheduler.drop({(0, 0)}) == {(0, 0)}
    learn(scheduler, 9, "failed")
    assert [task.position for task in scheduler.never_started] == [1]


def test_dropped_task_does_not_come_back() -> None:
    scheduler = make()
    scheduler.requeue((0, 0), 1.0, None)
    scheduler.requeue((0, 1), 2.0, None)
    assert scheduler.drop({(0, 0)}) == {(0, 0)}
    assert take_positions(scheduler, 5.0) == [1]


# --- a time when everything is ended -------------------------------------------------------------


def open_timed(seconds: Mapping[int, float], end_s: float = 100.0, slots: int = 1) -> Scheduler:
    """Three tasks of a runner that began at 0, and what some of them took before."""
    scheduler = make(NO_LIMIT, slots)
    scheduler.end_at(end_s, 0.0)
    scheduler.open(0, Tasks(range(3), {}, (), (), seconds))
    return scheduler


def take_one_at(scheduler: Scheduler, *times_s: float) -> list[int | None]:
    """The task that starts at each time, the one before having ended."""
    found: list[int | None] = []
    for now_s in times_s:
        assignment = scheduler.take(now_s)
        found.append(assignment.position if assignment else None)
        if assignment:
            scheduler.end((0, assignment.position))
    return found


def test_task_that_cannot_end_in_time_is_left() -> None:
    scheduler = open_timed({0: 50.0, 1: 50.0, 2: 20.0})
    assert take_one_at(scheduler, 0.0, 60.0, 70.0) == [0, 2, None]
    assert scheduler.is_empty
    assert scheduler.never_started == []


def test_task_that_is_left_can_be_dropped_as_what_waits() -> None:
    scheduler = open_timed({1: 50.0})
    assert take_one_at(scheduler, 0.0, 60.0) == [0, 2]
    assert scheduler.drop({(0, 1)}) == {(0, 1)}
    assert scheduler.drop({(0, 1)}) == set()


def test_task_of_which_nothing_is_known_starts() -> None:
    assert take_one_at(open_timed({1: 50.0}), 0.0, 99.0, 99.5) == [0, 2, None]


def test_first_task_starts_whatever_it_took() -> None:
    assert take_one_at(open_timed({0: 99.0, 1: 99.0}), 5.0, 6.0) == [0, 2]


def test_task_that_fits_into_no_start_is_started() -> None:
    assert take_one_at(open_timed({1: 101.0, 2: 100.0}), 0.0, 90.0, 91.0) == [0, 1, None]


def test_task_that_would_wait_for_one_that_is_left_is_not_given_out() -> None:
    scheduler = make(NO_LIMIT, 1)
    scheduler.end_at(100.0, 0.0)
    after = [FREE, FREE, link(1)]
    scheduler.open(0, Tasks(range(3), {}, after, (), {1: 50.0}))
    assert take_one_at(scheduler, 0.0, 60.0) == [0, None]
    assert not scheduler.is_ready


def test_time_does_not_count_where_there_is_no_end() -> None:
    scheduler = make(NO_LIMIT, 1)
    scheduler.open(0, Tasks(range(3), {}, (), (), {1: 1e9}))
    assert take_positions(scheduler, 1e6) == [0, 1, 2]


def test_retry_of_what_took_longer_than_is_left_is_left_too() -> None:
    scheduler = open_timed({1: 40.0})
    assert take_one_at(scheduler, 0.0) == [0]
    scheduler.requeue((0, 0), 50.0, None, 50.0)
    assert take_one_at(scheduler, 51.0, 52.0, 95.0) == [1, 2, None]
    assert scheduler.drop({(0, 0)}) == {(0, 0)}
