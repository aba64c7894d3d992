"""Tasks that are cancelled one by one: those that wait, and those that a lane may have."""

from __future__ import annotations

import pytest

from tests.runner.conftest import MakeBench
from tests.support.runner import RunnerBench, put_runs, read_last_start
from umpteen.runner.lanes.protocol import Order, OrderKind
from umpteen.store.directory import DirectoryStore
from umpteen.store.job_files import CancelMark


@pytest.fixture
def bench(store: DirectoryStore, make_bench: MakeBench) -> RunnerBench:
    """A runner of two lanes with the tasks 5, 6 and 7 in batch 3, of which 5 was given out."""
    put_runs(store, "3", "abc", first=5)
    bench = make_bench(store, "3", lanes=2)
    bench.activate(0, "3")
    assert bench.take() == (0, 0)
    return bench


def list_states(bench: RunnerBench) -> dict[int, str]:
    return {record.task: record.state for record in read_last_start(bench.store, "3").records}


def test_cancellation_records_what_waits_and_asks_nobody(bench: RunnerBench) -> None:
    bench.cancellation.cancel(CancelMark(0, {6: 3}))
    assert list_states(bench) == {6: "cancelled"}
    assert bench.read_orders() == [[], []]
    assert bench.take() == (0, 2)


def test_cancellation_leaves_tasks_that_a_later_batch_has(bench: RunnerBench) -> None:
    bench.cancellation.cancel(CancelMark(0, {6: 2}))
    assert list_states(bench) == {}
    assert not bench.cancellation.is_revoked(6)


def test_cancellation_asks_every_lane_for_what_was_given_out(bench: RunnerBench) -> None:
    bench.cancellation.cancel(CancelMark(0, {5: 3}))
    assert bench.read_orders() == [[Order(OrderKind.CANCEL_ONE, (0, 0))]] * 2
    assert bench.cancellation.is_revoked(5)
    assert list_states(bench) == {}


def test_cancellation_does_the_same_mark_once(bench: RunnerBench) -> None:
    bench.cancellation.cancel(CancelMark(0, {5: 3}))
    bench.cancellation.cancel(CancelMark(0, {5: 3}))
    assert [len(orders) for orders in bench.read_orders()] == [1, 1]


def test_cancellation_records_what_every_lane_has_declined(bench: RunnerBench) -> None:
    bench.cancellation.cancel(CancelMark(0, {5: 3}))
    bench.cancellation.lane_declined([(0, 0)])
    bench.batches.record_never_started()
    assert list_states(bench) == {}
    bench.cancellation.lane_declined([(0, 0)])
    bench.batches.record_never_started()
    assert list_states(bench) == {5: "cancelled"}
    assert bench.batches.scheduler.under_way == 0


def test_cancellation_drops_once_what_a_lane_says_too_late(bench: RunnerBench) -> None:
    bench.cancellation.cancel(CancelMark(0, {5: 3}))
    bench.cancellation.lane_declined([(0, 0), (0, 0)])
    assert bench.cancellation.take_late((0, 0))
    assert not bench.cancellation.take_late((0, 0))


def test_cancellation_records_nothing_of_what_a_lane_has_ended(bench: RunnerBench) -> None:
    bench.cancellation.cancel(CancelMark(0, {5: 3}))
    bench.completions.take([bench.end((0, 0), "cancelled")])
    bench.cancellation.lane_declined([(0, 0), (0, 0)])
    bench.batches.record_never_started()
    assert list_states(bench) == {5: "cancelled"}
    assert not bench.cancellation.take_late((0, 0))
