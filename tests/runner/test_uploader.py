"""Threads that bring what tasks left here to stores that are no folders."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.wait import wait_until
from umpteen.runner.uploader import Partial, Upload, Uploader
from umpteen.store.base import Store
from umpteen.store.directory import DirectoryStore


@pytest.fixture
def uploader(far_store: Store) -> Iterator[Uploader]:
    """Threads that put into a store that is no folder."""
    uploader = Uploader(far_store, 60.0)
    yield uploader
    uploader.stop()


class Spool:
    """What attempts leave on this machine."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store, self.count = folder, store, 0

    def leave(self, index: int, below: str = "", **files: str) -> Upload:
        """The outputs of one attempt of a task; two `_` are in place of `/`."""
        self.count += 1
        folder = self.folder / f"{index}-{self.count}"
        for name, content in files.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        output = self.store.path(f"t{index}")
        upload = Upload(index, str(folder), output, below, "status_code", f"result {self.count}")
        upload.size = 1
        return upload


@pytest.fixture
def spool(tmp_path: Path, far_store: Store) -> Spool:
    """Of tasks whose outputs belong into a store that is no folder."""
    return Spool(tmp_path / "spool", far_store)


def take(uploader: Uploader, count: int = 1) -> list[Any]:
    """What the senders of so many get back, in the order in which they arrived."""
    taken: list[Upload] = []

    def has_all() -> bool:
        taken.extend(uploader.take())
        return len(taken) >= count

    wait_until(has_all)
    assert uploader.count_left() == 0
    return [upload.problem or upload.result for upload in taken]


def test_uploader_puts_all_files_and_removes_them_here(
    uploader: Uploader, spool: Spool, far_store: Store
) -> None:
    upload = spool.leave(1, stdout="out", status_code="0", results__a__b="deep")
    uploader.send(upload)
    assert take(uploader) == ["result 1"]
    assert dict(far_store.walk("t1")) == {"stdout": 3, "status_code": 1, "results/a/b": 4}
    assert not os.path.exists(upload.folder)
    assert uploader.bytes_left == 0


def test_uploader_rings_when_something_has_arrived(uploader: Uploader, spool: Spool) -> None:
    uploader.send(spool.leave(1, status_code="0"))
    assert select.select([uploader.bell], [], [], 20.0)[0]
    take(uploader)
    assert not select.select([uploader.bell], [], [], 0.0)[0]


def test_uploader_puts_those_of_one_task_in_their_order(
    uploader: Uploader, spool: Spool, far_store: Store
) -> None:
    for number in range(20):
        uploader.send(spool.leave(1, stdout=str(number)))
    assert take(uploader, 20) == [f"result {number}" for number in range(1, 21)]
    assert far_store.read("t1/stdout") == b"19"


def test_uploader_tells_whose_outputs_are_on_their_way(uploader: Uploader, spool: Spool) -> None:
    for index in (3, 5):
        uploader.send(spool.leave(index, stdout="x"))
    assert uploader.list_indices() == {3, 5}
    wait_until(lambda: len(uploader.arrived) == 2)
    assert uploader.list_indices() == {3, 5}
    take(uploader, 2)
    assert uploader.list_indices() == set()


def test_uploader_moves_what_an_earlier_attempt_left(
    uploader: Uploader, spool: Spool, far_store: Store
) -> None:
    far_store.replace("t1/stdout", b"earlier")
    upload = spool.leave(1, stdout="later")
    upload.aside = (1, "aa")
    uploader.send(upload)
    take(uploader)
    assert far_store.read("t1/stdout") == b"later"
    assert far_store.read("t1/attempts/1-aa/stdout") == b"earlier"


def test_uploader_removes_what_may_be_of_an_attempt_that_was_not_recorded(
    uploader: Uploader, spool: Spool, far_store: Store
) -> None:
    far_store.replace("t1/stderr", b"of nobody")
    upload = spool.leave(1, stdout="later")
    upload.is_unsure = True
    uploader.send(upload)
    take(uploader)
    assert [name for name, _ in far_store.walk("t1")] == ["stdout"]


def test_uploader_puts_another_attempt_below_its_own_folder(
    uploader: Uploader, spool: Spool, far_store: Store
) -> None:
    uploader.send(spool.leave(1, "attempts/2-aa", stdout="x"))
    take(uploader)
    assert far_store.walk("t1") == [("attempts/2-aa/stdout", 1)]


def test_uploader_keeps_the_exit_code_back_where_a_name_cannot_be_kept(
    uploader: Uploader, spool: Spool, far_store: Store
) -> None:
    upload = spool.leave(1, status_code="0", stdout="x")
    Path(os.fsdecode(os.fsencode(upload.folder) + b"/\xff")).write_text("")
    uploader.send(upload)
    (problem,) = take(uploader)
    assert "its name is not UTF-8" in problem
    assert [name for name, _ in far_store.walk("t1")] == ["stdout"]
    assert os.path.exists(upload.folder)


def test_uploader_says_that_an_address_cannot_be_opened(uploader: Uploader, spool: Spool) -> None:
    upload = spool.leave(1, stdout="x")
    upload.output = "nosuchplace://bucket/t1"
    uploader.send(upload)
    (problem,) = take(uploader)
    assert problem.startswith("could not keep its outputs: ")


def test_uploader_tries_again_while_the_store_refuses(spool: Spool, tmp_path: Path) -> None:
    in_the_way = tmp_path / "job"
    in_the_way.write_text("")
    spool.store = DirectoryStore(str(in_the_way))
    uploader = Uploader(spool.store, 60.0)
    uploader.send(spool.leave(1, stdout="x"))
    wait_until(lambda: bool(uploader.trouble))
    assert uploader.is_behind(str(tmp_path))
    in_the_way.unlink()
    assert take(uploader) == ["result 1"]
    assert not uploader.trouble
    assert (in_the_way / "t1" / "stdout").read_text() == "x"
    uploader.stop()


def test_uploader_gives_up_what_alone_is_refused_while_others_arrive(
    spool: Spool, tmp_path: Path
) -> None:
    spool.store = DirectoryStore(str(tmp_path / "job"))
    spool.store.replace("t1", b"a file in the way")
    uploader = Uploader(spool.store, 60.0)
    uploader.send(spool.leave(1, stdout="x"))
    wait_until(lambda: bool(uploader.trouble))
    uploader.send(spool.leave(2, stdout="x"))
    found = take(uploader, 2)
    assert found[0] == "result 2"
    assert found[1].startswith("could not keep its outputs: ")
    uploader.stop()


def test_uploader_that_is_stopped_tells_what_has_not_arrived(spool: Spool, tmp_path: Path) -> None:
    in_the_way = tmp_path / "job"
    in_the_way.write_text("")
    spool.store = DirectoryStore(str(in_the_way))
    uploader = Uploader(spool.store, 60.0)
    upload = spool.leave(1, stdout="x")
    uploader.send(upload)
    wait_until(lambda: bool(uploader.trouble))
    assert uploader.stop() == [upload]


@pytest.mark.parametrize(("size", "is_behind"), [(0, False), (1 << 60, True)])
def test_uploader_is_behind_where_the_disk_has_too_much_of_it(
    uploader: Uploader, tmp_path: Path, size: int, is_behind: bool
) -> None:
    uploader.bytes_left = size
    assert uploader.is_behind(str(tmp_path)) == is_behind


# --- while it runs --------------------------------------------------------------------------


@pytest.fixture
def partial(tmp_path: Path, far_store: Store) -> Partial:
    """Of a task that has printed something."""
    (tmp_path / "stdout").write_bytes(b"so far")
    return Partial(1, str(tmp_path), far_store.path("t1"), "")


def show(uploader: Uploader, partial: Partial) -> None:
    uploader.show(partial)
    wait_until(lambda: not partial.is_sent)


def test_uploader_shows_what_a_running_task_has_printed(
    uploader: Uploader, partial: Partial, far_store: Store
) -> None:
    show(uploader, partial)
    assert far_store.walk("t1") == [("stdout", 6)]
    assert partial.list_grown() == []
    Path(partial.folder, "stderr").write_bytes(b"oh")
    assert partial.list_grown() == [("stderr", 2)]
    show(uploader, partial)
    assert dict(far_store.walk("t1")) == {"stdout": 6, "stderr": 2}


def test_partial_that_is_large_is_shown_again_when_it_has_grown_by_much(partial: Partial) -> None:
    partial.shown = {"stdout": 16 << 20, "stderr": 0}
    for size, grown in [(17 << 20, []), (19 << 20, [("stdout", 19 << 20)])]:
        os.truncate(f"{partial.folder}/stdout", size)
        assert partial.list_grown() == grown


def test_uploader_removes_what_was_shown_in_another_place(
    uploader: Uploader, partial: Partial, spool: Spool, far_store: Store
) -> None:
    show(uploader, partial)
    upload = spool.leave(1, "attempts/1-aa", stdout="all of it")
    upload.partial = partial
    uploader.send(upload)
    take(uploader)
    assert far_store.walk("t1") == [("attempts/1-aa/stdout", 9)]
