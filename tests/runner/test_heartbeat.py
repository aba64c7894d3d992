"""What others see of a runner, and what they want of it."""

from __future__ import annotations

import os

import pytest

from tests.runner.conftest import MakeBench
from tests.support.runner import RunnerBench, put_runs
from tests.support.wait import wait_until
from umpteen.runner.heartbeat import Marks
from umpteen.runner.lease import SlotEntry, find_trouble
from umpteen.store.base import Store
from umpteen.store.directory import DirectoryStore
from umpteen.store.job_files import (
    CancelMark,
    Running,
    RunningTask,
    close_batch,
    read_running,
    write_cancel_mark,
)
from umpteen.store.layout import LiveKey, follow_key, live_folder, running_key, spool_folder

NOW = 1000.0  # on the monotonic clock
SLOT = SlotEntry(1, 0, 1, os.getpid(), 1, 5.25)  # in which task 8 runs
RUNNING = RunningTask(8, 1, 5.25, os.getpid())


def begin(store: Store, make_bench: MakeBench) -> RunnerBench:
    put_runs(store, "2", "ab", first=7)
    bench = make_bench(store, "2")
    bench.activate(0, "2")
    return bench


@pytest.fixture
def bench(store: DirectoryStore, make_bench: MakeBench) -> RunnerBench:
    """A runner with the tasks 7 and 8 of batch 2."""
    return begin(store, make_bench)


@pytest.fixture
def far_bench(far_store: Store, make_bench: MakeBench) -> RunnerBench:
    """The same, of a store that is no folder."""
    return begin(far_store, make_bench)


def show(bench: RunnerBench, now: float, trouble: str = "") -> bool:
    shown = bench.heartbeat.show_running(now, bench.batches.open, trouble)
    bench.heartbeat.finish()
    return shown


def read_shown(bench: RunnerBench) -> Running | None:
    active = bench.batches.open[0]
    if bench.store.read(running_key("2", active.key)) is None:
        return None
    return read_running(bench.store, "2", active.key)


def take_marks(bench: RunnerBench) -> Marks:
    bench.heartbeat.look(bench.batches.open)
    marks = wait_until(bench.heartbeat.take_marks)
    assert marks
    return marks


# --- what they see --------------------------------------------------------------------------


def test_heartbeat_shows_nothing_before_anything_runs(bench: RunnerBench) -> None:
    assert not show(bench, NOW)
    assert read_shown(bench) is None


@pytest.mark.parametrize("which", ["bench", "far_bench"])
def test_heartbeat_shows_what_runs_in_each_slot(request: pytest.FixtureRequest, which: str) -> None:
    bench: RunnerBench = request.getfixturevalue(which)
    bench.lease.set_slot(SLOT)
    assert show(bench, NOW)
    assert read_shown(bench) == Running([RUNNING], "")


def test_heartbeat_shows_a_change_only_when_it_is_time(bench: RunnerBench) -> None:
    bench.lease.set_slot(SLOT)
    show(bench, NOW)
    bench.lease.clear_slot(1)
    show(bench, NOW + 0.5)
    assert read_shown(bench) == Running([RUNNING], "")
    show(bench, NOW + 1.5)
    assert read_shown(bench) == Running([], "")


def test_heartbeat_shows_the_same_again_so_that_it_is_seen_to_live(bench: RunnerBench) -> None:
    bench.lease.set_slot(SLOT)
    show(bench, NOW)
    bench.store.delete(running_key("2", bench.batches.open[0].key))
    show(bench, NOW + 10)
    assert read_shown(bench) is None
    show(bench, NOW + 16)
    assert read_shown(bench) == Running([RUNNING], "")


def test_heartbeat_tells_of_trouble_in_the_store_and_here(bench: RunnerBench) -> None:
    bench.lease.set_slot(SLOT)
    show(bench, NOW, "the disk is full")
    assert read_shown(bench) == Running([RUNNING], "the disk is full")
    assert find_trouble(bench.token) == "the disk is full"
    show(bench, NOW + 2)
    assert find_trouble(bench.token) == ""


@pytest.mark.parametrize("which", ["bench", "far_bench"])
def test_heartbeat_removes_what_it_showed_of_a_batch_that_ended(
    request: pytest.FixtureRequest, which: str
) -> None:
    bench: RunnerBench = request.getfixturevalue(which)
    bench.lease.set_slot(SLOT)
    show(bench, NOW)
    bench.heartbeat.remove_running(0, bench.batches.open[0])
    bench.heartbeat.finish()
    assert read_shown(bench) is None


# --- what they want -------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["bench", "far_bench"])
def test_heartbeat_finds_the_cancel_mark(request: pytest.FixtureRequest, which: str) -> None:
    bench: RunnerBench = request.getfixturevalue(which)
    write_cancel_mark(bench.store, CancelMark(1, {8: 2}))
    assert take_marks(bench) == Marks(CancelMark(1, {8: 2}), must_yield=False)
    assert bench.heartbeat.take_marks() is None


def test_heartbeat_finds_that_a_batch_was_closed(bench: RunnerBench) -> None:
    close_batch(bench.store, "2")
    assert take_marks(bench).must_yield


def test_heartbeat_puts_what_a_followed_task_prints_until_it_is_forgotten(
    far_bench: RunnerBench,
) -> None:
    bench, heartbeat = far_bench, far_bench.heartbeat
    bench.lease.set_slot(SLOT)
    folder = spool_folder(bench.lease.spool, 8, 1)
    os.makedirs(folder)
    with open(f"{folder}/stdout", "wb") as printed:
        printed.write(b"so far")
    target = live_folder(8, LiveKey(2, 1, 1, bench.token))
    heartbeat.send_live(NOW, bench.batches.open)
    heartbeat.finish()
    assert bench.store.read(f"{target}/stdout.0") is None  # nobody follows it
    bench.store.replace(follow_key(8), b"")
    take_marks(bench)
    assert heartbeat.list_followed() == {8}
    heartbeat.send_live(NOW, bench.batches.open)
    heartbeat.finish()
    assert bench.store.read(f"{target}/stdout.0") == b"so far"
    heartbeat.forget_live(8)
    heartbeat.finish()
    assert bench.store.walk(live_folder(8)) == []
    assert bench.store.read(follow_key(8)) is None
