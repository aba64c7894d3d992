"""A runner that is given more batches, or less, while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.runner.conftest import MakeBench
from tests.support.runner import RunnerBench, put_runs
from umpteen.runner.batch_list import (
    GivenBatches,
    TakenBatches,
    find_batch,
    give_batches,
    read_taken,
)
from umpteen.runner.lanes.protocol import TaskKey
from umpteen.runner.lease import LeaseFolder
from umpteen.store.directory import DirectoryStore


def give(bench: RunnerBench, number: int, *batches: str) -> Sequence[str]:
    """Give the runner a list; what it answers is unopened."""
    lease = LeaseFolder(bench.token, bench.lease.folder)
    give_batches(lease, GivenBatches(number, batches))
    bench.dispatcher.take_given()
    taken = read_taken(lease)
    assert taken.number == number
    return taken.batches


def push(bench: RunnerBench) -> list[TaskKey]:
    bench.dispatcher.push()
    return [ticket.key for ticket in bench.read_tickets()]


@pytest.fixture
def bench(store: DirectoryStore, make_bench: MakeBench) -> RunnerBench:
    """With four batches of one task in the store, of which it has the first two."""
    for number in range(4):
        put_runs(store, str(number + 1), "abcd"[number], first=number, common={"cpus": 4})
    return make_bench(store, "1", "2")


def test_runner_that_nobody_gives_batches_answers_nothing(bench: RunnerBench) -> None:
    bench.dispatcher.take_given()
    bench.loader.write_taken()
    assert read_taken(LeaseFolder(bench.token, bench.lease.folder)) == TakenBatches(0, (), ())
    assert not bench.own_batches.may_grow


def test_batches_that_are_given_follow_and_lanes_find_them(bench: RunnerBench) -> None:
    assert give(bench, 1, "2", "1", "4") == ["2", "1", "4"]
    assert bench.own_batches.names == ["1", "2", "4"]
    assert push(bench) == [(1, 0)]
    assert find_batch(bench.lease, ["1", "2"], 2) == "4"
    assert find_batch(bench.lease, ["1", "2"], 1) == "2"


def test_batch_that_is_opened_is_kept_and_not_opened_again(bench: RunnerBench) -> None:
    assert give(bench, 1, "1", "2", "3") == ["1", "2", "3"]
    assert push(bench) == [(0, 0)]  # the next one's task waits for cores
    assert list(bench.batches.open) == [0, 1]
    taken = read_taken(LeaseFolder(bench.token, bench.lease.folder))
    assert (taken.batches, sorted(taken.begun)) == (["3"], ["1", "2"])
    assert give(bench, 2) == []
    assert give(bench, 3, "1", "2", "3") == ["3"]


def test_batch_comes_back_to_who_had_it(bench: RunnerBench) -> None:
    give(bench, 1, "1")
    assert give(bench, 2, "1", "2") == ["1", "2"]
    assert bench.own_batches.names == ["1", "2"]


def test_runner_waits_for_more_while_a_task_runs(bench: RunnerBench) -> None:
    give(bench, 1)
    give(bench, 2, "1")
    assert push(bench) == [(0, 0)]
    assert push(bench) == []
    assert not bench.lanes.is_fed
    assert give(bench, 3, "3") == ["3"]


def test_list_is_read_once_and_an_older_one_never(bench: RunnerBench) -> None:
    give(bench, 2, "2")
    give_batches(LeaseFolder("", bench.lease.folder), GivenBatches(1, ["1"]))
    bench.dispatcher.take_given()
    assert bench.loader.list_unopened() == ["2"]


def test_damaged_list_is_none(bench: RunnerBench) -> None:
    Path(bench.lease.folder, "given.json").write_text('{"number": 3, "batches": ["../1"]}')
    bench.dispatcher.take_given()
    assert bench.loader.list_unopened() == ["1", "2"]
