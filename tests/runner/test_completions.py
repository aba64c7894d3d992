"""What lanes say of attempts: recorded, tried again, or kept."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.runner.conftest import MakeBench
from tests.support.runner import RunnerBench, put_runs, read_end, read_last_start
from umpteen.model.batch import BatchView
from umpteen.model.record import Record
from umpteen.runner.completions import echo_outputs
from umpteen.runner.lanes.protocol import AttemptKept, StoreRefused, TasksDeclined
from umpteen.runner.lease import KEPT
from umpteen.store.directory import DirectoryStore
from umpteen.store.job_files import CancelMark
from umpteen.system import resources

RULES: Any = {"common": {"retries": [{"when": ["failed"], "wait_s": 0.0, "memory": 5}]}}


def begin(store: DirectoryStore, make_bench: MakeBench) -> RunnerBench:
    """A runner that has given out both tasks of batch 1."""
    bench = make_bench(store, "1")
    bench.activate(0, "1")
    assert [bench.take(), bench.take()] == [(0, 0), (0, 1)]
    return bench


@pytest.fixture
def bench(store: DirectoryStore, make_bench: MakeBench) -> RunnerBench:
    """Of tasks without rules."""
    put_runs(store, "1", "ab")
    return begin(store, make_bench)


@pytest.fixture
def strict_bench(store: DirectoryStore, make_bench: MakeBench) -> RunnerBench:
    """Of tasks that are tried again once."""
    put_runs(store, "1", "ab", **RULES)
    return begin(store, make_bench)


def list_states(bench: RunnerBench) -> list[tuple[int, str]]:
    return [(record.task, record.state) for record in read_last_start(bench.store, "1").records]


def test_completions_record_each_attempt_as_the_lane_wrote_it(bench: RunnerBench) -> None:
    ended = bench.end((0, 1), exit_code=0, cpu_s=0.25)
    bench.completions.take([ended])
    (record,) = read_last_start(bench.store, "1").records
    assert record.to_line().encode() == ended.record
    assert bench.batches.scheduler.under_way == 1
    assert bench.echoed == [ended.record]


def test_completions_end_the_batch_with_its_last_task(bench: RunnerBench) -> None:
    bench.completions.take([bench.end((0, 0)), bench.end((0, 1), "failed", exit_code=1)])
    ended = read_end(bench.store, "1")
    assert ended["states"] == {"succeeded": "0", "failed": "1"}
    assert (ended["seconds"], ended["left"]) == (1.0, 0)
    assert bench.batches.open == {}
    assert bench.batches.did_fail


def test_completions_leave_what_the_runner_ended_to_the_next_start(bench: RunnerBench) -> None:
    bench.completions.take([bench.end((0, 0), "waiting", reason="interrupted")])
    assert bench.batches.open[0].left == 2
    assert not bench.batches.did_fail


def test_completions_leave_what_fails_once_it_was_asked_to_stop_to_the_next_start(
    bench: RunnerBench,
) -> None:
    bench.stops.add(signal.SIGTERM)
    bench.completions.take([bench.end((0, 0)), bench.end((0, 1), "failed", signal=15)])
    assert list_states(bench) == [(0, "succeeded"), (1, "waiting")]
    assert read_last_start(bench.store, "1").records[1].reason == "interrupted"
    assert bench.batches.open[0].left == 1


def test_completions_have_a_failure_tried_again_by_its_rules(strict_bench: RunnerBench) -> None:
    bench = strict_bench
    bench.completions.take([bench.end((0, 0), "failed", exit_code=1)])
    (record,) = read_last_start(bench.store, "1").records
    assert (record.retry, record.attempt) == (True, 1)
    assert bench.batches.open[0].left == 2
    assert bench.take() == (0, 0)
    bench.completions.take([bench.end((0, 0), "failed", exit_code=1)])
    again = read_last_start(bench.store, "1").records[1]
    assert (again.retry, again.attempt) == (False, 2)
    assert bench.batches.open[0].left == 1


def test_completions_try_nothing_again_that_was_cancelled(strict_bench: RunnerBench) -> None:
    bench = strict_bench
    bench.cancellation.cancel(CancelMark(0, {0: 1}))
    bench.completions.take([bench.end((0, 0), "failed", exit_code=1)])
    (record,) = read_last_start(bench.store, "1").records
    assert not record.retry


@pytest.mark.parametrize(
    ("killed", "exit_status", "reason"),
    [(1, -9, "out of memory"), (1, 137, "out of memory"), (1, 1, ""), (0, -9, "")],
)
def test_completions_say_what_the_kernel_killed_for_want_of_memory(
    bench: RunnerBench,
    monkeypatch: pytest.MonkeyPatch,
    killed: int,
    exit_status: int,
    reason: str,
) -> None:
    count = resources._count_kills() + killed  # as no test may have the kernel kill
    monkeypatch.setattr(resources, "_count_kills", lambda: count)
    bench.completions.take([bench.end((0, 0), "failed", exit_status=exit_status)])
    (record,) = read_last_start(bench.store, "1").records
    assert record.reason == reason


def test_completions_drop_what_comes_after_it_was_recorded(bench: RunnerBench) -> None:
    bench.cancellation.cancel(CancelMark(0, {0: 1}))
    bench.completions.take([TasksDeclined([(0, 0)]), bench.end((0, 0))])
    assert list_states(bench) == [(0, "cancelled")]
    assert bench.batches.scheduler.under_way == 1


def test_completions_note_that_the_store_refuses_until_it_takes_something(
    bench: RunnerBench,
) -> None:
    bench.completions.take([StoreRefused("the disk is full")])
    assert bench.recorder.trouble.text == "the disk is full"
    bench.completions.take([bench.end((0, 0))])
    assert not bench.recorder.trouble


def test_completions_keep_here_what_a_lane_could_not_complete(
    bench: RunnerBench, tmp_path: Path
) -> None:
    line = Record(0, "d", 1, "succeeded").to_line().encode()
    bench.completions.take([AttemptKept(line)])
    assert "1 outcome is kept" in bench.recorder.leave_kept(str(tmp_path))
    assert (tmp_path / KEPT).read_bytes() == line + b"\n"


def test_echo_copies_what_an_attempt_printed(
    store: DirectoryStore, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    put_runs(store, "1", "ab")
    folder = Path(store.path("b"))
    folder.mkdir()
    (folder / "stdout").write_bytes(b"out\xff\n")
    (folder / "stderr").write_bytes(b"err\n")
    content = json.loads(store.read(".umpteen/batches/1.json") or b"")
    record = Record(1, "d", 1, "succeeded", stdout_bytes=5, stderr_bytes=4)
    echo_outputs(os.devnull, BatchView(content), 1, record.to_line().encode())
    assert capfdbinary.readouterr() == (b"out\xff\n", b"err\n")
