"""What lanes get to do next: tickets in order, as many as they take, until nothing more comes."""

from __future__ import annotations

import time
from typing import Any

from tests.runner.conftest import MakeBench
from tests.support.runner import (
    RunnerBench,
    end_batch,
    open_batch,
    put_runs,
    read_end,
    read_last_start,
)
from umpteen.model.record import Record
from umpteen.runner.lanes.protocol import Order, OrderKind, TaskKey
from umpteen.runner.lease import Lease
from umpteen.store.directory import DirectoryStore
from umpteen.store.identity import identify
from umpteen.store.job_files import CancelMark, close_batch, write_cancel_mark

RETRIES: Any = {"common": {"retries": [{"when": ["failed"], "wait_s": 0.0}]}}


def push(bench: RunnerBench) -> list[TaskKey]:
    """What lanes get by one push."""
    bench.dispatcher.push()
    return [ticket.key for ticket in bench.read_tickets()]


def test_dispatcher_gives_the_tasks_of_all_batches_in_order_and_no_more(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    put_runs(store, "1", "ab")
    put_runs(store, "2", "c", first=2)
    bench = make_bench(store, "1", "2")
    assert push(bench) == [(0, 0), (0, 1), (1, 0)]
    assert bench.lanes.is_fed


def test_dispatcher_goes_on_where_the_pipe_was_full(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    names = "".join(map(chr, range(0x4E00, 0x4E00 + 4000)))
    put_runs(store, "1", names)
    bench = make_bench(store, "1")
    first = push(bench)
    assert 100 < len(first) < len(names)
    assert not bench.lanes.is_fed
    assert first + push(bench) == [(0, position) for position in range(len(names))]
    assert bench.lanes.is_fed


def test_dispatcher_opens_a_batch_only_when_nothing_else_is_ready(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    put_runs(store, "1", "ab", common={"cpus": 4})
    put_runs(store, "2", "c", first=2)
    bench = make_bench(store, "1", "2")
    assert push(bench) == [(0, 0)]
    assert list(bench.batches.open) == [0]


def test_dispatcher_waits_for_what_may_be_tried_again(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    put_runs(store, "1", "a", **RETRIES)
    bench = make_bench(store, "1")
    assert push(bench) == [(0, 0)]
    assert not bench.lanes.is_fed
    bench.completions.take([bench.end((0, 0))])
    assert push(bench) == []
    assert bench.lanes.is_fed


def test_dispatcher_waits_for_tasks_that_others_wait_for(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    put_runs(store, "1", "ab", graph=True, after=[-1, 0], barriers=[{"succeeded": "0"}])
    bench = make_bench(store, "1")
    assert push(bench) == [(0, 0)]
    assert not bench.lanes.is_fed
    bench.completions.take([bench.end((0, 0))])
    assert push(bench) == [(0, 1)]
    assert bench.lanes.is_fed


def test_dispatcher_gives_up_on_what_waits_for_tasks_that_nobody_runs(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    put_runs(store, "1", "a")
    end_batch(open_batch(store, "1", "aaaaaaaaaaaa"))
    put_runs(store, "2", "b", first=1, graph=True, after=[0], barriers=[{"succeeded": "0"}],
             waits=["1"])  # fmt: skip
    bench = make_bench(store, "2")
    assert push(bench) == []
    assert bench.lanes.is_fed


def test_dispatcher_passes_over_a_batch_that_another_runner_has(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    put_runs(store, "1", "a")
    put_runs(store, "2", "b", first=1)
    other = Lease.create("aaaaaaaaaaaa", identify(store), 1)
    active = open_batch(store, "1", "aaaaaaaaaaaa")
    bench = make_bench(store, "1", "2")
    assert push(bench) == [(1, 0)]
    assert bench.dispatcher.passed_over == {"1"}
    active.file.close()
    other.remove()


def test_dispatcher_passes_over_a_batch_that_was_closed(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    put_runs(store, "1", "a")
    close_batch(store, "1")
    bench = make_bench(store, "1")
    assert push(bench) == []
    assert (bench.dispatcher.passed_over, bench.lanes.is_fed) == ({"1"}, True)


def test_dispatcher_gives_no_task_that_was_cancelled_by_itself(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    put_runs(store, "1", "abc")
    write_cancel_mark(store, CancelMark(0, {1: 1}))
    bench = make_bench(store, "1")
    assert push(bench) == [(0, 0), (0, 2)]
    states = {r.task: r.state for r in read_last_start(store, "1").records}
    assert states == {1: "cancelled"}


def test_dispatcher_ends_a_batch_of_which_nothing_is_left(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    put_runs(store, "1", "a")
    end_batch(open_batch(store, "1", "aaaaaaaaaaaa"), "succeeded")
    bench = make_bench(store, "1")
    assert push(bench) == []
    assert bench.batches.open == {}
    assert read_end(store, "1")["left"] == 0


def test_dispatcher_gives_nothing_while_the_store_refuses_the_next_batch(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    bench = make_bench(store, "1")
    assert push(bench) == []
    assert not bench.lanes.is_fed
    assert bench.read_orders() == [[Order(OrderKind.PAUSE)]]
    assert "no batch 1" in bench.loader.trouble.text


def test_dispatcher_gives_nothing_more_after_too_many_failures(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    put_runs(store, "1", "abcd", max_failures=1)
    bench = make_bench(store, "1", slots=1)
    assert push(bench) == [(0, 0)]
    bench.completions.take([bench.end((0, 0), "failed", exit_code=1)])
    assert push(bench) == []
    assert bench.lanes.is_fed


def test_dispatcher_stops_as_tasks_that_can_never_start_are_too_many_failures(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    put_runs(store, "1", "abc", max_failures=1, extras={"0": {"cpus": 99}})
    bench = make_bench(store, "1")
    assert push(bench) == []
    assert (bench.lanes.is_fed, bench.batches.scheduler.under_way) == (True, 0)


def test_dispatcher_leaves_what_took_longer_than_is_left(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    put_runs(store, "1", "abc", attempts={"1": [1, "ab12", [], 50.0]})
    earlier = open_batch(store, "1", "0" * 12)
    line = Record(2, "d", 1, "waiting", seconds=70.0, reason="interrupted").to_line()
    earlier.file.append(f"{line}\n".encode())
    end_batch(earlier)
    bench = make_bench(store, "1", slots=1)
    now_s = time.monotonic()
    bench.batches.scheduler.end_at(now_s + 60.0, now_s - 60.0)
    assert push(bench) == [(0, 0)]
    bench.completions.take([bench.end((0, 0))])
    assert push(bench) == [(0, 1)]
    bench.completions.take([bench.end((0, 1))])
    assert push(bench) == []
    assert bench.lanes.is_fed
    bench.batches.end(0)
    assert read_end(store, "1")["left"] == 1
