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


def take(queue: Scheduler, now_s: float = 0.0) -> list[tuple[int, int]]:
    """All that may start now."""
    return [taken[:2] for taken in iter(lambda: queue.take(now_s), None)]


def take_positions(queue: Scheduler, now_s: float = 0.0) -> list[int]:
    return [position for _, position in take(queue, now_s)]


def learn(queue: Scheduler, index: int, state: str) -> None:
    queue.learn(index, NUMBER_OF[state])


# --- plain ------------------------------------------------------------------------------------


def test_queue_gives_tasks_out_in_order_and_batches_one_after_another() -> None:
    queue = make(slots=1)
    queue.open(0, Tasks([2, 0, 1], {}, (), ()))
    queue.open(1, tasks(2))
    assert take(queue) == [(0, 2), (0, 0), (0, 1), (1, 0), (1, 1)]
    assert queue.is_empty


def test_queue_of_plain_tasks_runs_ahead_of_the_slots() -> None:
    queue = make(slots=1)
    queue.open(0, tasks(100))
    assert (len(take(queue)), queue.under_way) == (100, 100)


def test_queue_without_tasks_is_empty() -> None:
    queue = make()
    queue.open(0, tasks(0))
    assert (queue.is_empty, queue.is_ready, queue.take(0.0)) == (True, False, None)


def test_queue_that_is_told_to_be_tight_fills_the_slots_only() -> None:
    queue = make(slots=2)
    queue.is_tight = True
    queue.open(0, tasks(3))
    assert take_positions(queue) == [0, 1]
    queue.end((0, 0))
    assert take_positions(queue) == [2]


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
    queue = make()
    queue.open(3, tasks(2, {0: needs}))
    assert queue.unrun == [NeverStarted(3, 0, "failed", reason)]
    assert take(queue) == [(3, 1)]


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
    queue = make()
    queue.open(0, tasks(1, {0: needs}))
    assert (take_positions(queue), queue.unrun) == ([0], [])


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
    queue = make()
    queue.open(0, tasks(10, dict.fromkeys(range(10), needs)))
    assert len(take(queue)) == at_once
    queue.end((0, 0))
    assert take_positions(queue) == [at_once]


def test_queue_counts_a_core_for_what_says_nothing_where_others_say() -> None:
    queue = make(slots=8)
    queue.open(0, tasks(4, {0: Resources(cpus=2)}))
    assert take_positions(queue) == [0, 1, 2]


def test_queue_counts_no_cores_where_nobody_asks_for_any() -> None:
    queue = make(slots=8)
    queue.open(0, tasks(8, {0: Resources(memory=GB)}))
    assert len(take(queue)) == 8


def test_queue_lets_small_ones_pass_what_waits_for_room() -> None:
    queue = make()
    queue.open(0, tasks(4, {0: Resources(cpus=3), 1: Resources(cpus=3), 2: Resources(cpus=1)}))
    assert take_positions(queue) == [0, 2]


def test_queue_gives_out_nothing_beside_a_task_that_is_alone() -> None:
    queue = make()
    queue.open(0, tasks(3, {1: Resources(alone=True)}))
    assert take_positions(queue) == [0, 2]
    queue.end((0, 0))
    assert take_positions(queue) == []
    queue.end((0, 2))
    assert take_positions(queue) == [1]
    queue.open(1, tasks(1))
    assert take_positions(queue) == []
    queue.end((0, 1))
    assert take(queue) == [(1, 0)]


def test_queue_lets_a_task_be_alone_after_plain_ones_have_ended() -> None:
    queue = make()
    queue.open(0, tasks(6))
    assert len(take(queue)) == 6
    queue.open(1, tasks(1, {0: Resources(alone=True)}))
    for position in range(6):
        assert take(queue) == []
        queue.end((0, position))
    assert take(queue) == [(1, 0)]


def test_queue_lets_a_big_one_be_passed_only_so_often() -> None:
    queue = make(slots=2)
    queue.open(0, tasks(100, {1: Resources(cpus=4)}))
    passed = 0
    (first,) = take_positions(queue)[:1]
    running = [first, 2]
    while running:
        queue.end((0, running.pop(0)))
        started = take_positions(queue)
        running += started
        if 1 in started:
            break
        passed += len(started)
    assert running == [1]
    assert passed <= 2 * 2


def test_queue_gives_each_task_devices_of_its_own_and_takes_them_back() -> None:
    queue = make()
    queue.open(0, tasks(4, {0: Resources(gpus=1), 1: Resources(gpus=1), 2: Resources(gpus=2)}))
    given_out = {taken.position: taken.devices for taken in iter(lambda: queue.take(0.0), None)}
    assert given_out == {0: 0b01, 1: 0b10, 3: 0}
    queue.end((0, 0))
    assert take(queue) == []
    queue.end((0, 1))
    assert queue.take(0.0) == Assignment(0, 2, 0b11)


class Machine:
    """Starts what a queue gives out, and checks at each step that there was room for it."""

    def __init__(self, capacity: Capacity, slots: int, needs: Sequence[Resources | None]) -> None:
        self.capacity, self.slots, self.needs = capacity, slots, needs
        self.counts_cpus = any(n and n.cpus for n in needs)
        self.queue = make(capacity, slots)
        self.queue.is_tight = True
        self.running: dict[int, int] = {}
        self.given: Counter[int] = Counter()
        said = {position: n for position, n in enumerate(needs) if n}
        self.queue.open(0, tasks(len(needs), said))

    def start(self) -> None:
        for taken in iter(lambda: self.queue.take(0.0), None):
            self.given[taken.position] += 1
            self.running[taken.position] = taken.devices
            self.check()

    def end(self, position: int) -> None:
        del self.running[position]
        self.queue.end((0, position))

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
    assert machine.queue.is_empty
    assert (machine.queue.cpus, machine.queue.memory, machine.queue.devices) == (0, 0, 0)


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
    queue = make()
    if is_known_before:
        learn(queue, 7, state)
    queue.open(0, tasks(1, after=[0], barriers=[{outcome: "7"}]))
    if not is_known_before:
        assert (take(queue), queue.unrun, queue.is_empty) == ([], [], False)
        learn(queue, 7, state)
    if state in OPENS[outcome]:
        assert (take(queue), queue.unrun) == ([(0, 0)], [])
    else:
        reason = f"after t7, which {HOW.get(state, state)}"
        assert (take(queue), queue.unrun) == ([], [NeverStarted(0, 0, "skipped", reason)])


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_barrier_stays_shut_for_what_is_no_end(state: str) -> None:
    queue = make()
    queue.open(0, tasks(1, after=[0], barriers=[{"any": "7"}]))
    learn(queue, 7, state)
    assert (take(queue), queue.unrun) == ([], [])
    learn(queue, 7, "succeeded")
    assert take(queue) == [(0, 0)]


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_link_stands_for_the_success_of_one_task(state: str) -> None:
    queue = make()
    queue.open(0, tasks(3, after=[-1, -2 - 40, -2 - 41], barriers=[]))
    assert take(queue) == [(0, 0)]
    learn(queue, 40, state)
    learn(queue, 41, "succeeded")
    if state == "succeeded":
        assert (take(queue), queue.unrun) == ([(0, 1), (0, 2)], [])
    else:
        assert (take(queue), queue.unrun) == (
            [(0, 2)], [NeverStarted(0, 1, "skipped", "after t40, which failed")]
        )  # fmt: skip


def test_barrier_opens_when_the_last_of_its_tasks_has_ended() -> None:
    queue = make()
    queue.open(0, tasks(2, after=[0, 0], barriers=[{"succeeded": "10-12", "any": "20"}]))
    for index in (12, 20, 10):
        learn(queue, index, "succeeded")
        assert take(queue) == []
    learn(queue, 11, "succeeded")
    assert take(queue) == [(0, 0), (0, 1)]


def test_barrier_skips_all_behind_it_as_soon_as_one_went_wrong() -> None:
    queue = make()
    queue.open(0, tasks(2, after=[0, 0], barriers=[{"succeeded": "10-12"}]))
    learn(queue, 11, "failed")
    assert [unrun.position for unrun in queue.unrun] == [0, 1]
    for index in (10, 12):
        learn(queue, index, "succeeded")
    assert (len(queue.unrun), take(queue)) == (2, [])


def test_barrier_names_the_first_that_went_wrong() -> None:
    queue = make()
    queue.open(0, tasks(1, after=[0], barriers=[{"succeeded": "1-2"}]))
    learn(queue, 2, "timed_out")
    learn(queue, 1, "failed")
    assert [unrun.reason for unrun in queue.unrun] == ["after t2, which timed out"]


def test_barrier_that_is_doomed_skips_though_others_still_run() -> None:
    queue = make()
    barrier = {"doomed": "after prep, which failed", "any": "9"}
    queue.open(0, tasks(1, after=[0], barriers=[barrier]))
    assert queue.unrun == [NeverStarted(0, 0, "skipped", "after prep, which failed")]


def test_barriers_of_equal_content_are_one_over_all_batches() -> None:
    queue = make()
    for ordinal in range(3):
        queue.open(ordinal, tasks(1, after=[0], barriers=[{"succeeded": "100"}]))
    learn(queue, 100, "succeeded")
    queue.open(3, tasks(1, after=[0], barriers=[{"succeeded": "100"}]))
    assert take(queue) == [(ordinal, 0) for ordinal in range(4)]
    assert len(queue.shared) == 1


def test_barriers_that_differ_in_outcome_are_apart() -> None:
    queue = make()
    queue.open(0, tasks(2, after=[0, 1], barriers=[{"succeeded": "5"}, {"failed": "5"}]))
    learn(queue, 5, "failed")
    assert take(queue) == [(0, 1)]
    assert [unrun.position for unrun in queue.unrun] == [0]


def test_skips_go_on_down_a_chain_as_they_are_learnt() -> None:
    barriers = [{"succeeded": str(index)} for index in range(3)]
    queue = make()
    queue.open(0, tasks(4, after=[-1, 0, 1, 2], barriers=barriers))
    assert take(queue) == [(0, 0)]
    learn(queue, 0, "failed")
    said = []
    while queue.unrun:
        (unrun,), queue.unrun = queue.unrun, []
        said.append(unrun.reason)
        learn(queue, unrun.position, unrun.state)
    assert said == [
        "after t0, which failed", "after t1, which was skipped", "after t2, which was skipped"
    ]  # fmt: skip
    assert queue.is_empty


def test_success_after_a_failure_counts_for_who_asks_later() -> None:
    queue = make()
    learn(queue, 0, "failed")
    learn(queue, 0, "succeeded")
    learn(queue, 0, "failed")
    queue.open(0, tasks(1, after=[0], barriers=[{"succeeded": "0"}]))
    assert take(queue) == [(0, 0)]


def test_task_behind_a_barrier_waits_for_room_as_well() -> None:
    queue = make()
    needs = {0: Resources(cpus=4), 1: Resources(cpus=4)}
    queue.open(0, tasks(2, needs, after=[-1, 0], barriers=[{"any": "50"}]))
    assert take(queue) == [(0, 0)]
    learn(queue, 50, "failed")
    assert take(queue) == []
    queue.end((0, 0))
    assert take(queue) == [(0, 1)]


def test_task_that_can_never_have_room_fails_though_it_is_behind_a_barrier() -> None:
    queue = make()
    queue.open(0, tasks(1, {0: Resources(cpus=9)}, after=[0], barriers=[{"any": "50"}]))
    assert [unrun.state for unrun in queue.unrun] == ["failed"]
    learn(queue, 50, "succeeded")
    assert (take(queue), len(queue.unrun)) == ([], 1)


def test_ten_thousand_behind_ten_thousand_share_one_barrier() -> None:
    count = 10_000
    queue = make(NO_LIMIT)
    queue.open(
        0, tasks(count, after=[0] * count, barriers=[{"succeeded": f"{count}-{2 * count - 1}"}])
    )
    for index in range(count, 2 * count):
        assert not queue.is_ready
        learn(queue, index, "succeeded")
    assert take_positions(queue) == list(range(count))


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
    queue = make(slots=data.draw(st.integers(1, 3)))
    queue.is_tight = data.draw(st.booleans())
    queue.open(0, tasks(count, after=after, barriers=barriers))
    ends: dict[int, str] = {}
    seen: Counter[int] = Counter()
    while len(ends) < count:
        started = take_positions(queue)
        unrun, queue.unrun = queue.unrun, []
        seen.update([*started, *(entry.position for entry in unrun)])
        for position in started:
            for outcome, members in (
                barriers[after[position]].items() if after[position] >= 0 else ()
            ):
                assert all(ends[int(m)] in OPENS[outcome] for m in members.split(","))
        assert started or unrun
        for position in started:
            ends[position] = data.draw(st.sampled_from(["succeeded", "failed"]))
            queue.end((0, position))
        for entry in unrun:
            ends[entry.position] = entry.state
        for position in [*started, *(entry.position for entry in unrun)]:
            learn(queue, position, ends[position])
    assert seen == dict.fromkeys(range(count), 1)
    assert queue.is_empty


# --- tasks that come back ----------------------------------------------------------------------------


def test_task_that_comes_back_waits_for_its_time_and_then_goes_first() -> None:
    queue = make()
    queue.open(0, tasks(5))
    assert queue.take(0.0) == Assignment(0, 0, 0)
    queue.end((0, 0))
    queue.come_back((0, 0), 10.0, None)
    assert queue.take(9.9) == Assignment(0, 1, 0)
    assert queue.until_due_s(9.0) == pytest.approx(1.0)
    assert queue.take(10.0) == Assignment(0, 0, 0)
    assert take_positions(queue, 10.0) == [2, 3, 4]


def test_until_due_is_infinite_where_nothing_comes_back_and_never_below_zero() -> None:
    queue = make()
    assert queue.until_due_s(5.0) == float("inf")
    queue.come_back((0, 0), 3.0, None)
    assert queue.until_due_s(5.0) == 0
    assert not queue.is_empty


def test_tasks_come_back_by_their_time() -> None:
    queue = make(slots=1)
    for position, at_s in enumerate([3.0, 1.0, 2.0]):
        queue.come_back((0, position), at_s, None)
    assert [take_positions(queue, now_s) for now_s in (0.5, 1.0, 2.0, 3.0)] == [[], [1], [2], [0]]


def test_task_comes_back_with_what_it_needs_now() -> None:
    queue = make()
    queue.open(0, tasks(3, {0: Resources(memory=GB)}))
    assert len(take(queue)) == 3
    for position in range(3):
        queue.end((0, position))
    queue.come_back((0, 0), 0.0, Resources(memory=5 * GB))
    queue.come_back((0, 1), 0.0, Resources(memory=5 * GB))
    queue.come_back((0, 2), 0.0, Resources(memory=3 * GB))
    assert sorted(take_positions(queue)) in ([0, 2], [1, 2])


def test_task_comes_back_with_no_more_memory_than_there_is() -> None:
    queue = make()
    queue.come_back((0, 0), 0.0, Resources(memory=100 * GB))
    queue.come_back((0, 1), 0.0, Resources(memory=GB))
    assert (len(take(queue)), queue.unrun) == (1, [])


def test_task_comes_back_alone_to_a_queue_of_plain_ones() -> None:
    queue = make(slots=2)
    queue.open(0, tasks(4))
    assert len(take(queue)) == 4
    queue.end((0, 0))
    queue.come_back((0, 0), 0.0, Resources(alone=True))
    assert take(queue) == []
    for position in (1, 2, 3):
        queue.end((0, position))
    assert take(queue) == [(0, 0)]


# --- dropped -----------------------------------------------------------------------------------------


def test_dropped_task_is_not_given_out() -> None:
    queue = make()
    queue.open(0, tasks(3))
    assert queue.drop({(0, 1)}) == {(0, 1)}
    assert (take_positions(queue), queue.drop({(0, 1)})) == ([0, 2], set())


@pytest.mark.parametrize("key", [(0, 0), (0, 9), (5, 0)])
def test_task_that_is_under_way_or_unknown_cannot_be_dropped(key: tuple[int, int]) -> None:
    queue = make()
    queue.open(0, tasks(1))
    take(queue)
    assert not queue.drop({key})


def test_dropped_last_task_leaves_nothing() -> None:
    queue = make()
    queue.open(0, tasks(1, {0: Resources(cpus=1)}))
    assert queue.drop({(0, 0)}) == {(0, 0)}
    assert (queue.is_empty, queue.is_ready, take(queue)) == (True, False, [])


def test_dropped_task_behind_a_barrier_is_neither_started_nor_skipped() -> None:
    queue = make()
    queue.open(0, tasks(2, after=[0, 0], barriers=[{"succeeded": "9"}]))
    assert queue.drop({(0, 0)}) == {(0, 0)}
    learn(queue, 9, "failed")
    assert [unrun.position for unrun in queue.unrun] == [1]


def test_dropped_task_does_not_come_back() -> None:
    queue = make()
    queue.come_back((0, 0), 1.0, None)
    queue.come_back((0, 1), 2.0, None)
    assert queue.drop({(0, 0)}) == {(0, 0)}
    assert take_positions(queue, 5.0) == [1]
