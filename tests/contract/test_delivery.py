"""How outputs that wait on this machine come to stores that are no folders."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from tests.support.proxy import FaultProxy
from tests.support.s3 import S3
from tests.support.wait import wait_until
from umpteen.errors import StoreError
from umpteen.runner.uploader import Partial, Upload, Uploader
from umpteen.store.address import OPTIONS_VARIABLE, open_store
from umpteen.store.base import Content
from umpteen.store.directory import DirectoryStore


def put_outputs(folder: Path) -> str:
    """What a lane leaves in the spool."""
    folder.mkdir(parents=True)
    (folder / "stdout").write_text(folder.name)
    (folder / "status_code").write_text("0")
    return str(folder)


def test_all_folders_of_one_bucket_share_connections_that_are_closed(
    s3: S3, s3_proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OPTIONS_VARIABLE, json.dumps(s3.through(s3_proxy.port)))
    uploader = Uploader(DirectoryStore(str(tmp_path / "job")), 60.0)
    for index in range(20):
        folder = put_outputs(tmp_path / f"spool/{index}-1")
        output = f"s3://{s3.bucket}/project-{index}/task"
        uploader.send(Upload(index, folder, output, "", "status_code", None))
        [parcel] = wait_until(uploader.take)
        assert not parcel.problem
    assert len(s3_proxy.tasks) < 10
    assert uploader.stop() == []
    wait_until(lambda: not s3_proxy.tasks)
    store = open_store(f"s3://{s3.bucket}", s3.options)
    assert store.read("project-7/task/stdout") == b"7-1"
    assert len(store.walk("")) == 40
    store.close()


class Interrupted(DirectoryStore):
    """A store that is lost once, at the move with that number."""

    left = 0

    def move(self, source: str, target: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise StoreError("the connection was lost", transient=True)
        super().move(source, target)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_an_attempt_that_is_set_aside_in_two_goes_has_one_label(tmp_path: Path, at: int) -> None:
    store = Interrupted(str(tmp_path / "job"))
    store.left = at
    task = tmp_path / "job/task"
    put_outputs(task)
    for name in ("stderr", "results/a"):
        store.replace(f"task/{name}", b"1")
    uploader = Uploader(store, 60.0)
    parcel = Upload(0, put_outputs(tmp_path / "spool/0-2"), str(task), "", "status_code", None)
    parcel.aside = (1, "aa")
    uploader.send(parcel)
    [arrived] = wait_until(uploader.take)
    uploader.stop()
    assert not arrived.problem
    assert [path.name for path in (task / "attempts").iterdir()] == ["1-aa"]
    kept = {path.name for path in (task / "attempts/1-aa").iterdir()}
    assert kept == {"stdout", "stderr", "status_code", "results"}
    assert {path.name for path in task.iterdir()} == {"attempts", "stdout", "status_code"}


class HeldStore(DirectoryStore):
    """One whose `replace`, by which alone what is partial is put, waits."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.has_begun, self.may_go = threading.Event(), threading.Event()

    def replace(self, key: str, content: Content) -> None:
        self.has_begun.set()
        self.may_go.wait(30)
        super().replace(key, content)


def test_what_was_shown_of_a_running_task_never_comes_after_all_that_it_left(
    tmp_path: Path,
) -> None:
    store = HeldStore(str(tmp_path / "job"))
    uploader = Uploader(store, 60.0)
    output = store.path("task")
    partial = Partial(0, put_outputs(tmp_path / "spool/0-1"), output, "")
    uploader.show(partial)
    assert store.has_begun.wait(30)
    (tmp_path / "spool/0-1/stdout").write_text("all of it")
    parcel = Upload(0, partial.folder, output, "", "status_code", None)
    parcel.partial = partial
    uploader.send(parcel)
    other = Upload(1, put_outputs(tmp_path / "spool/1-1"), store.path("o"), "", "status_code", None)
    uploader.send(other)  # which nothing of the first holds up
    assert wait_until(uploader.take) == [other]
    store.may_go.set()
    assert wait_until(uploader.take) == [parcel]
    assert store.read("task/stdout") == b"all of it"
    uploader.stop()


def test_what_a_running_task_printed_is_put_when_there_is_enough_more(tmp_path: Path) -> None:
    partial = Partial(0, put_outputs(tmp_path / "spool"), "", "")
    assert partial.list_grown() == [("stdout", 5)]
    partial.shown["stdout"] = 5
    assert partial.list_grown() == []
    partial.shown["stdout"] = large = 80 << 20
    for size, is_put in ((large + 1000, False), (large + (11 << 20), True)):
        os.truncate(tmp_path / "spool/stdout", size)
        assert bool(partial.list_grown()) is is_put
