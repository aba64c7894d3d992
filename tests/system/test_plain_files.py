"""What is opened below a folder: plain files, by no link, and never outside of it."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from umpteen.errors import StoreError
from umpteen.store.base import Store
from umpteen.store.directory import DirectoryStore
from umpteen.system.plain_files import Found, remove_below, walk_below

DEEP, OPEN = 400, 64


@contextmanager
def a_limit_of(seconds: int) -> Iterator[None]:
    """Ends what blocks, with an error."""
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A store beside a folder that is nobody's business."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("mine")
    (tmp_path / "store/a").mkdir(parents=True)
    (tmp_path / "store/a/file").write_text("content")
    return tmp_path / "store"


def make_socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)  # whose path may be longer than a socket's can be
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


PLANTED = {
    "a link": lambda path: path.symlink_to("../../outside/file"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a file beside": lambda path: path.symlink_to("file"),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a pipe": os.mkfifo,
    "a socket": make_socket,
}
READING: dict[str, Callable[[Store, str, str], object]] = {
    "read": lambda store, key, _: store.read(key),
    "read a part": lambda store, key, _: store.read(key, 1, 2),
    "read the end": lambda store, key, _: store.read_tail(key, 3),
    "read many": lambda store, key, _: store.read_many([(key, 0, -1)]),
    "fetch": lambda store, key, target: store.fetch(key, target),
}
WRITING: dict[str, Callable[[Store, str, str], object]] = {
    "create": lambda store, key, _: store.create(key, b"x"),
    "replace": lambda store, key, _: store.replace(key, b"x"),
    "records": lambda store, key, _: store.open_records(key),
    "put": lambda store, key, _: store.put(key, __file__),
    "delete": lambda store, key, _: store.delete(key),
    "move away": lambda store, key, _: store.move(key, "b"),
    "move there": lambda store, key, _: store.move("a/file", key),
}


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("doing", READING)
def test_what_is_no_plain_file_is_not_opened(
    top: Path, tmp_path: Path, planted: str, doing: str
) -> None:
    PLANTED[planted](top / "a/x")
    with a_limit_of(10), pytest.raises(StoreError) as caught:
        READING[doing](DirectoryStore(str(top)), "a/x", str(tmp_path / "copy"))
    kind = "a link" if planted.startswith("a link") else planted
    assert caught.value.message == f"{top}/a/x is damaged: it is {kind}, and no file"
    assert caught.value.damaged
    assert not (tmp_path / "copy").exists()


def test_a_device_is_not_opened(top: Path) -> None:
    try:
        os.mknod(top / "a/x", 0o20600, os.makedev(1, 5))  # what /dev/zero is
    except PermissionError:
        pytest.skip("devices are for root")
    with a_limit_of(10), pytest.raises(StoreError, match="it is a device, and no file"):
        DirectoryStore(str(top)).read("a/x")


@pytest.mark.parametrize("doing", [*READING, *WRITING])
def test_no_link_is_followed_below_the_store(top: Path, tmp_path: Path, doing: str) -> None:
    (top / "link").symlink_to(tmp_path / "outside")
    (top / "a/link").symlink_to("../../outside")
    act = {**READING, **WRITING}[doing]
    for key in ("link/file", "a/link/file", "a/link/deep/file"):
        with pytest.raises((StoreError, OSError), match="it is a link, and is not followed"):
            act(DirectoryStore(str(top)), key, str(tmp_path / "copy"))
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["file"]
    assert (tmp_path / "outside/file").read_text() == "mine"


@pytest.mark.parametrize("key", ["../outside/file", "a/../../outside/file", "/etc/passwd", "", "."])
@pytest.mark.parametrize("doing", [*READING, *WRITING])
def test_no_name_leads_out_of_the_store(top: Path, tmp_path: Path, key: str, doing: str) -> None:
    with pytest.raises((StoreError, OSError), match="its name leads elsewhere"):
        {**READING, **WRITING}[doing](DirectoryStore(str(top)), key, str(tmp_path / "copy"))
    assert (tmp_path / "outside/file").read_text() == "mine"


def test_the_store_itself_may_be_behind_links(top: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to("disk/store")
    store = DirectoryStore(str(tmp_path / "link"))
    store.replace("a/file", b"new")
    assert store.read("a/file") == b"new"
    assert (top / "a/file").read_text() == "new"


def test_what_is_written_takes_the_place_of_a_link(top: Path, tmp_path: Path) -> None:
    (top / "a/x").symlink_to("../../outside/file")
    DirectoryStore(str(top)).replace("a/x", b"new")
    assert not (top / "a/x").is_symlink()
    assert (tmp_path / "outside/file").read_text() == "mine"


def test_walk_says_what_each_is_and_follows_nothing(top: Path) -> None:
    (top / "a/link").symlink_to("../../outside")
    os.mkfifo(top / "a/pipe")
    found = {each.path: each for each in walk_below(str(top), "a")}
    assert {path: each.link for path, each in found.items()} == {
        "file": "", "link": "../../outside", "pipe": ""
    }  # fmt: skip
    assert found["file"] == Found("file", (top / "a/file").lstat().st_mode, 7, "", os.getuid())
    assert walk_below(str(top), "none") == []


@pytest.fixture
def few_files() -> Iterator[None]:
    """This process may open so many files more, and nest calls not much deeper than now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    calls = sys.getrecursionlimit()
    open_already = max(map(int, os.listdir("/proc/self/fd")))  # by servers of other tests
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_already + OPEN, hard))
    sys.setrecursionlimit(DEEP)
    yield
    sys.setrecursionlimit(calls)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
def test_folders_in_folders_are_walked_and_removed_however_deep(top: Path) -> None:
    here = os.open(top / "a", os.O_RDONLY)
    for _ in range(DEEP):  # more than may be open, and together longer than a path can be
        os.mkdir("a long name", dir_fd=here)
        below = os.open("a long name", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("last", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    assert sorted(len(each.path) for each in walk_below(str(top), "a")) == [4, DEEP * 12 + 4]
    remove_below(str(top), "a")
    assert list(top.iterdir()) == []


def test_remove_follows_no_link(top: Path, tmp_path: Path) -> None:
    (top / "a/link").symlink_to(tmp_path / "outside")
    (top / "b").symlink_to(tmp_path / "outside")
    for key in ("a", "b", "none"):
        remove_below(str(top), key)
    with pytest.raises(OSError, match="leads elsewhere"):
        remove_below(str(top), "../outside")
    assert list(top.iterdir()) == []
    assert (tmp_path / "outside/file").read_text() == "mine"
