"""The range for the time left: what holds for any durations, and how often it is right."""

from __future__ import annotations

import random

import pytest
from benchmarks.time_left import Eta, Look, replay
from hypothesis import given, settings
from hypothesis import strategies as st

from umpteen.query.estimate import estimate_range

DURATIONS = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)
ELAPSED = st.lists(st.floats(0, 1e7), max_size=20)


@settings(deadline=None)
@given(DURATIONS, ELAPSED, st.integers(0, 100_000), st.integers(1, 100), st.floats(0.01, 1))
def test_range_is_of_what_can_be(
    ended: list[float], running: list[float], waiting: int, slots: int, busy: float
) -> None:
    low, high = estimate_range(ended, running, waiting, slots, of=len(ended) * 3, busy=busy)
    assert 0 <= low <= high < float("inf")


def test_range_is_the_same_for_the_same_look() -> None:
    looks = {estimate_range([1.0, 2.0, 9.0], [0.5, 20.0], 50, 2) for _ in range(3)}
    assert len(looks) == 1


@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=50), st.integers(1, 20))
def test_range_shrinks_as_fewer_wait_and_grows_with_fewer_slots(
    ended: list[float], slots: int
) -> None:
    many = estimate_range(ended, [], 10_000, slots)
    few = estimate_range(ended, [], 1_000, slots)
    narrow = estimate_range(ended, [], 10_000, slots * 4)
    assert few[0] < many[0]
    assert few[1] < many[1]
    assert narrow[1] < many[1]


def test_range_is_narrower_the_more_is_known() -> None:
    chance = random.Random(1)
    draws = [chance.lognormvariate(0, 1) for _ in range(1000)]
    widths = []
    for count in (10, 100, 1000):
        low, high = estimate_range(draws[:count], [], 5000, 4)
        widths.append(high / low)
    assert widths[0] > widths[1] > widths[2]


def test_range_of_a_task_that_outruns_all_others_grows_with_its_age() -> None:
    ended = [1.0, 1.2, 0.9, 1.1, 1.05, 0.95]
    highs = [estimate_range(ended, [age], 0, 1)[1] for age in (2.0, 20.0, 200.0)]
    assert highs[0] < highs[1] < highs[2]


def test_range_heeds_long_tasks_that_run_while_only_short_ones_have_ended() -> None:
    few = estimate_range([1.0] * 20, [1.0] * 2, 200, 8)
    many = estimate_range([1.0] * 20, [30.0] * 8, 200, 8)
    assert many[0] > few[1]


def test_range_goes_by_all_that_ended_not_by_samples_alone() -> None:
    """One in a thousand is long: those that run are few among all, if many among samples."""
    ended = [0.01] * 995 + [5.0] * 5
    running = [2.5] * 60
    high = estimate_range(ended, running, 10_000, 64, of=10_000)[1]
    assert high < estimate_range(ended, running, 10_000, 64)[1]


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_range_holds_in_most_looks(sigma: float) -> None:
    looks: list[Look] = []
    for seed in range(10):
        chance = random.Random(seed)
        looks += replay([chance.lognormvariate(0, sigma) for _ in range(400)], 8)
    share = sum(look.holds for look in looks) / len(looks)
    assert 0.6 < share < 0.98


def test_eta_of_parallel_is_its_rule() -> None:
    """Four of ten ended, one a second: the time since the first for each, times what is left."""
    eta = Eta(10)
    told = [eta.tell(number, float(number)) for number in (1, 2, 3, 4)]
    averages = [0.0, 0.5, 0.7 * 0.5 + 0.3 * 2 / 3]
    averages.append(0.6 * averages[-1] + 0.4 * 3 / 4)
    expected = [left * average for left, average in zip((9, 8, 7, 6), averages, strict=True)]
    assert told == pytest.approx(expected)
