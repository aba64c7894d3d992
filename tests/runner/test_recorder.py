"""Records files: written in order, kept while the store refuses, and known to be on the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.runner.conftest import MakeBench
from tests.support.runner import RunnerBench
from umpteen.runner.lanes.protocol import Order, OrderKind
from umpteen.runner.lease import KEPT
from umpteen.runner.recorder import Syncer, is_unsynced
from umpteen.store.base import Appender, Store
from umpteen.store.directory import DirectoryStore, RecordsFile
from umpteen.store.layout import RecordsKey, records_key

LINE = b'{"task":1,"state":"succeeded"}\n'


def open_file(store: Store, start: int = 1) -> Appender:
    return store.open_records(records_key("1", RecordsKey(start, "aa")))


@pytest.fixture
def bench(store: DirectoryStore, make_bench: MakeBench) -> RunnerBench:
    """A runner without a batch."""
    return make_bench(store)


@pytest.fixture
def file(store: DirectoryStore, bench: RunnerBench) -> RecordsFile:
    """A records file of it."""
    file = open_file(store)
    assert isinstance(file, RecordsFile)
    bench.recorder.begin(file)
    return file


class FullDisk:
    """Has a file be on a device that is full, and back again."""

    def __init__(self, file: RecordsFile) -> None:
        self.file, self.own = file, os.dup(file.fd)
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file.fd)
        os.close(full)

    def make_room(self) -> None:
        os.dup2(self.own, self.file.fd)
        os.close(self.own)


def read(file: RecordsFile) -> bytes:
    return Path(file.path).read_bytes()


def test_recorder_writes_lines_at_once(bench: RunnerBench, file: RecordsFile) -> None:
    bench.recorder.append(file, LINE)
    bench.recorder.append(file, LINE * 2)
    assert read(file) == LINE * 3
    assert not bench.recorder.trouble


def test_recorder_holds_lanes_while_a_file_is_not_taken(
    bench: RunnerBench, file: RecordsFile
) -> None:
    disk = FullDisk(file)
    bench.recorder.append(file, LINE)
    bench.recorder.append(file, b"{}\n")
    assert "No space left" in bench.recorder.trouble.text
    assert bench.read_orders() == [[Order(OrderKind.PAUSE)]]
    bench.recorder.write_pending()
    assert bench.recorder.trouble
    disk.make_room()
    bench.recorder.write_pending()
    assert read(file) == LINE + b"{}\n"
    assert not bench.recorder.trouble
    assert bench.read_orders() == [[Order(OrderKind.GO_ON)]]


def test_recorder_leaves_here_what_the_store_never_took(
    bench: RunnerBench, file: RecordsFile, tmp_path: Path
) -> None:
    disk = FullDisk(file)
    bench.recorder.append(file, LINE)
    bench.recorder.keep([b'{"event":"end"}\n'])
    assert bench.recorder.leave_kept(str(tmp_path)) == (
        f"the results store cannot be written: No space left on device: {bench.store.address}"
        f"; 1 outcome is kept in {tmp_path}/{KEPT}"
    )
    assert (tmp_path / KEPT).read_bytes() == b'{"event":"end"}\n' + LINE
    file.pending = b""
    disk.make_room()


def test_recorder_leaves_nothing_where_all_was_taken(
    bench: RunnerBench, file: RecordsFile, tmp_path: Path
) -> None:
    bench.recorder.append(file, LINE)
    assert bench.recorder.leave_kept(str(tmp_path)) == ""
    assert not (tmp_path / KEPT).exists()


def test_recorder_gives_up_for_good(bench: RunnerBench) -> None:
    bench.recorder.give_up("it was removed")
    assert bench.recorder.trouble.is_lost(0.0)


def test_recorder_says_how_much_the_disk_has(bench: RunnerBench, file: RecordsFile) -> None:
    bench.recorder.append(file, LINE)
    assert is_unsynced(file)
    bench.recorder.sync(wait=True)
    (*_, synced) = read(file).splitlines()
    assert json.loads(synced) == {"event": "synced", "upto": len(LINE)}


def test_recorder_closes_a_file_of_an_ended_batch_once_the_disk_has_it(
    bench: RunnerBench, file: RecordsFile
) -> None:
    bench.recorder.append(file, LINE)
    bench.recorder.end(file)
    bench.recorder.sync(wait=True)
    os.fstat(file.fd)
    bench.recorder.sync(wait=True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file.fd)


def test_recorder_puts_what_is_pending_in_a_far_store(
    far_store: Store, make_bench: MakeBench
) -> None:
    bench = make_bench(far_store)
    file = open_file(far_store)
    bench.recorder.begin(file)
    bench.recorder.append(file, LINE)
    assert is_unsynced(file)
    bench.recorder.sync(wait=True)
    assert far_store.read(records_key("1", RecordsKey(1, "aa"))) == LINE
    assert not is_unsynced(file)


def test_syncer_tells_of_a_file_that_cannot_be_flushed(
    bench: RunnerBench, file: RecordsFile
) -> None:
    assert not bench.recorder.trouble
    disk = FullDisk(file)
    file.pending = LINE
    syncer = Syncer()
    syncer.begin([(file, 0)])
    assert syncer.take(wait=True) == []
    assert "No space left" in str(syncer.error)
    disk.make_room()
