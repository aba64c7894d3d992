"""Results of attempts that wait until their outputs have arrived."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.runner.conftest import MakeBench
from tests.support.runner import RunnerBench, put_runs
from tests.support.wait import wait_until
from umpteen.model.states import NUMBER_OF
from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.lease import SlotEntry
from umpteen.runner.leftovers import Kept
from umpteen.runner.uploads import AttemptResult
from umpteen.store.base import Store
from umpteen.store.layout import follow_key, spool_folder

SUCCEEDED, FAILED = NUMBER_OF["succeeded"], NUMBER_OF["failed"]


@pytest.fixture
def bench(far_store: Store, make_bench: MakeBench) -> RunnerBench:
    """A runner with the tasks 4 and 5, which are a and b, of a store that is no folder."""
    put_runs(far_store, "1", "ab", first=4)
    bench = make_bench(far_store, "1")
    bench.activate(0, "1")
    return bench


@pytest.fixture
def active(bench: RunnerBench) -> ActiveBatch:
    """Their batch."""
    return bench.batches.open[0]


def leave(bench: RunnerBench, index: int, **files: str) -> Path:
    """What the first attempt of a task leaves in the spool."""
    folder = Path(spool_folder(bench.lease.spool, index, 1))
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def build(bench: RunnerBench, position: int, *, is_retried: bool = False) -> AttemptResult:
    ended = bench.end((0, position))
    return AttemptResult(ended.key, ended.state, ended.record, ended.seconds, is_retried=is_retried)


def take(bench: RunnerBench) -> AttemptResult:
    (result,) = wait_until(bench.uploads.take)
    return result


def test_uploads_give_a_result_back_when_its_outputs_have_arrived(
    bench: RunnerBench, active: ActiveBatch
) -> None:
    leave(bench, 5, stdout="out", status_code="0")
    result = build(bench, 1)
    assert not bench.uploads.is_used
    assert bench.uploads.send(result, active) == []
    assert (bench.uploads.is_used, bench.uploads.count_left()) == (True, 1)
    assert bench.uploads.list_indices() == {5}
    assert take(bench) == result
    assert dict(bench.store.walk("b")) == {"stdout": 3, "status_code": 1}
    assert bench.uploads.count_left() == 0


def test_uploads_give_a_result_without_outputs_back_at_once(
    bench: RunnerBench, active: ActiveBatch
) -> None:
    result = build(bench, 1)
    assert bench.uploads.send(result, active) == [result]
    assert not bench.uploads.is_used


def test_uploads_wake_the_loop(bench: RunnerBench, active: ActiveBatch) -> None:
    leave(bench, 5, stdout="out")
    bench.uploads.send(build(bench, 1), active)
    assert wait_until(lambda: bench.lanes.watcher.wait(0.1)[1])
    take(bench)
    assert bench.lanes.watcher.wait(0.0) == ([], [])


def test_uploads_put_an_attempt_that_another_follows_below_attempts(
    bench: RunnerBench, active: ActiveBatch
) -> None:
    leave(bench, 5, stdout="out")
    bench.uploads.send(build(bench, 1, is_retried=True), active)
    record = json.loads(take(bench).record)
    assert record["outputs"] == f"attempts/1-{bench.token}"
    assert bench.store.walk("b") == [(f"{record['outputs']}/stdout", 3)]


def test_uploads_make_a_failure_of_outputs_that_cannot_be_kept(
    bench: RunnerBench, active: ActiveBatch
) -> None:
    folder = leave(bench, 5, status_code="0")
    Path(os.fsdecode(bytes(folder) + b"/\xff")).write_text("")
    bench.uploads.send(build(bench, 1), active)
    result = take(bench)
    record = json.loads(result.record)
    assert (result.state, record["state"]) == (FAILED, "failed")
    where = record["reason"].rpartition("its outputs are in ")[2]
    assert Path(where, "status_code").read_text() == "0"
    assert not folder.exists()


def test_uploads_tell_what_has_not_arrived_at_the_end(
    bench: RunnerBench, active: ActiveBatch, tmp_path: Path
) -> None:
    assert bench.uploads.stop() == []
    (tmp_path / "file").write_text("in the way")
    active.view.runs[1]["remote_output_path"] = f"{tmp_path}/file/b"
    leave(bench, 5, stdout="out")
    result = build(bench, 1)
    bench.uploads.send(result, active)
    wait_until(lambda: bool(bench.uploads.trouble))
    assert bench.uploads.stop() == [result.record + b"\n"]


def test_uploads_bring_what_a_dead_runner_kept_here(
    bench: RunnerBench, active: ActiveBatch, tmp_path: Path
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "stdout").write_text("kept")
    line = b'{"task":5,"digest":"d","attempt":1,"state":"succeeded","seconds":2.0}'
    active.kept = {1: Kept(1, "d", line, "boot", str(tmp_path / "kept"), "")}
    assert bench.uploads.send_kept(0, active) == []
    assert take(bench) == AttemptResult((0, 1), SUCCEEDED, line, 2.0, is_retried=False)
    assert bench.store.walk("b") == [("stdout", 4)]


def test_uploads_record_at_once_what_had_arrived_before_the_runner_died(
    bench: RunnerBench, active: ActiveBatch, tmp_path: Path
) -> None:
    line = b'{"task":5,"digest":"d","attempt":1,"state":"succeeded"}'
    active.kept = {1: Kept(1, "d", line, "boot", str(tmp_path / "gone"), "")}
    (result,) = bench.uploads.send_kept(0, active)
    assert (result.key, result.record) == ((0, 1), line)


def test_uploads_have_a_task_run_whose_outputs_cannot_be_taken_over(
    bench: RunnerBench, active: ActiveBatch, tmp_path: Path
) -> None:
    line = b'{"task":5,"digest":"d","attempt":1,"state":"succeeded"}'
    leave(bench, 5, stdout="in the way")
    (tmp_path / "kept").mkdir()
    active.kept = {1: Kept(1, "d", line, "boot", str(tmp_path / "kept"), "")}
    active.todo = []
    assert bench.uploads.send_kept(0, active) == []
    assert active.todo == [1]


@pytest.mark.parametrize(("live", "is_followed"), [(True, False), (False, True), (False, False)])
def test_uploads_show_what_runs_where_that_is_wanted(
    bench: RunnerBench, active: ActiveBatch, live: bool, is_followed: bool
) -> None:
    active.view.live = live
    if is_followed:
        bench.store.replace(follow_key(5), b"")
        bench.heartbeat.look(bench.batches.open)
        wait_until(bench.heartbeat.take_marks)
    leave(bench, 5, stdout="so far")
    bench.lease.set_slot(SlotEntry(0, 0, 1, os.getpid(), 1, 1.0))
    bench.uploads.show(1000.0, bench.batches.open)
    assert bench.uploads.is_used == (live or is_followed)
    if live or is_followed:
        wait_until(lambda: bench.store.walk("b") == [("stdout", 6)])


def test_uploads_hold_lanes_while_too_much_is_on_its_way(
    bench: RunnerBench, active: ActiveBatch
) -> None:
    leave(bench, 5, stdout="out")
    bench.uploads.send(build(bench, 1), active)
    take(bench)
    bench.uploads.hold_back()
    assert bench.lanes.held_for == set()
    trouble = bench.uploads.trouble
    assert trouble is not None
    trouble.begin("refused", is_final=True)
    bench.uploads.hold_back()
    assert bench.lanes.held_for == {"uploads"}
    assert bench.uploads.is_lost(0.0)
