"""Batches that are opened one after the other, and a store that refuses the next one."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import time
from pathlib import Path

import pytest

from tests.runner.conftest import MakeBench
from tests.support.runner import RunnerBench, put_runs
from umpteen.errors import StoreError
from umpteen.model.archive import DIGEST_BYTES
from umpteen.runner.batch_loader import Opened
from umpteen.runner.lanes.protocol import Order, OrderKind
from umpteen.store.base import Store
from umpteen.store.directory import DirectoryStore
from umpteen.store.job_files import CancelMark, close_batch, write_cancel_mark
from umpteen.store.layout import batch_key, synced_key

LIMIT_S = 10.0


def take(bench: RunnerBench, at_s: float = 0.0) -> Opened | None:
    """The next batch, some seconds from now."""
    return bench.loader.take_next(time.monotonic() + at_s, LIMIT_S)


def close(*opened: Opened | None) -> None:
    for each in opened:
        if each and each.batch:
            each.batch.file.close()


def test_loader_opens_batches_in_order(store: DirectoryStore, make_bench: MakeBench) -> None:
    put_runs(store, "3", "a")
    put_runs(store, "1", "b", first=1)
    write_cancel_mark(store, CancelMark(0, {9: 9}))
    bench = make_bench(store, "3", "1")
    first, second = take(bench), take(bench)
    assert first
    assert second
    assert [first.name, second.name, first.ordinal, second.ordinal] == ["3", "1", 0, 1]
    assert first.batch
    assert first.batch.view.names == ["a"]
    assert first.cancel == CancelMark(0, {9: 9})
    assert bench.loader.unopened == []
    close(first, second)


def test_loader_opens_a_far_batch_and_gives_its_file_to_lanes(
    far_store: Store, make_bench: MakeBench
) -> None:
    put_runs(far_store, "1", "a")
    bench = make_bench(far_store, "1")
    opened = take(bench)
    assert opened
    assert opened.batch
    there = Path(bench.lease.spool, batch_key("1"))
    assert there.read_bytes() == far_store.read(batch_key("1"))


def test_loader_gives_no_batch_where_another_has_it(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    put_runs(store, "1", "a")
    close_batch(store, "1")
    opened = take(make_bench(store, "1"))
    assert opened
    assert (opened.name, opened.batch) == ("1", None)


def test_loader_pauses_lanes_until_the_store_gives_the_batch(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    bench = make_bench(store, "1")
    assert take(bench) is None
    assert "no batch 1" in bench.loader.trouble.text
    assert bench.read_orders() == [[Order(OrderKind.PAUSE)]]
    put_runs(store, "1", "a")
    assert take(bench) is None  # not so soon
    opened = take(bench, 2.0)
    assert opened
    assert not bench.loader.trouble
    assert bench.read_orders() == [[Order(OrderKind.GO_ON)]]
    close(opened)


def test_loader_is_lost_at_once_where_a_batch_is_damaged(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    store.replace(batch_key("1"), b'{"runs": 5}')
    bench = make_bench(store, "1")
    assert take(bench) is None
    assert bench.loader.trouble.is_lost(time.monotonic())


def test_loader_refuses_a_batch_whose_folder_is_not_here(
    store: DirectoryStore, make_bench: MakeBench, tmp_path: Path
) -> None:
    put_runs(store, "1", "a", cwd=str(tmp_path / "gone"))
    bench = make_bench(store, "1")
    assert take(bench) is None
    assert "gone, is not there" in bench.loader.trouble.text


def test_loader_unpacks_what_a_batch_runs_with(
    store: DirectoryStore, make_bench: MakeBench, tmp_path: Path
) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("tool"), io.BytesIO())
    digest = hashlib.blake2b(
        gzip.decompress(content.getvalue()), digest_size=DIGEST_BYTES
    ).hexdigest()
    store.replace(synced_key(digest), content.getvalue())
    goal = tmp_path / "goal"
    put_runs(store, "1", "a", synced=[[digest, str(goal), "/nowhere/"]])
    opened = take(make_bench(store, "1"))
    assert opened
    assert [path.name for path in goal.iterdir()] == ["tool"]
    close(opened)


def test_loader_removes_an_archive_that_is_damaged(
    store: DirectoryStore, make_bench: MakeBench
) -> None:
    digest = "0" * 2 * DIGEST_BYTES
    store.replace(synced_key(digest), b"no archive")
    put_runs(store, "1", "a", synced=[[digest, None, ""]])
    bench = make_bench(store, "1")
    assert take(bench) is None
    assert bench.loader.trouble.is_lost(time.monotonic())
    assert store.read(synced_key(digest)) is None


def test_loader_gives_what_is_just_being_opened_at_the_end(
    far_store: Store, make_bench: MakeBench
) -> None:
    put_runs(far_store, "1", "a")
    bench = make_bench(far_store, "1")
    assert bench.loader.finish_opening() is None
    bench.loader.take_next(time.monotonic(), 0.0)
    opened = bench.loader.finish_opening()
    assert opened
    assert opened.name == "1"
    assert bench.loader.unopened == []


def test_loader_opens_the_rest_at_the_end(store: DirectoryStore, make_bench: MakeBench) -> None:
    for number, name in enumerate("abc", 1):
        put_runs(store, str(number), name, first=number)
    close_batch(store, "2")
    bench = make_bench(store, "1", "2", "3")
    rest = list(bench.loader.open_rest())
    assert [(ordinal, active.view.batch) for ordinal, active in rest] == [(0, "1"), (2, "3")]
    assert bench.loader.unopened == []
    for _, active in rest:
        active.file.close()


def test_loader_keeps_what_could_not_be_opened_for_the_end(
    far_store: Store, make_bench: MakeBench
) -> None:
    bench = make_bench(far_store, "1")
    bench.loader.take_next(time.monotonic(), 0.0)
    assert bench.loader.finish_opening() is None  # as its file is not there
    with pytest.raises(StoreError):
        list(bench.loader.open_rest())
    assert bench.loader.unopened == [(0, "1")]
    put_runs(far_store, "1", "a")
    assert [ordinal for ordinal, _ in bench.loader.open_rest()] == [0]
    assert bench.loader.unopened == []
