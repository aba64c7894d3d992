"""Unpacked once on a machine, whole or not at all, and nothing outside of its folder."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.trees import Link, Program, put_tree, see_tree, trees
from tests.support.wait import wait_until
from umpteen.errors import StoreError
from umpteen.runner.synced import (
    copy_into,
    link_at,
    list_unused,
    mark_used,
    remove_unused,
    unpack_once,
)
from umpteen.submission.archive import measure, pack

SMALL = {
    "main.py": b"print()",
    "run.sh": Program(b"#!/bin/sh\n"),
    "data": {"in put": b"1", "empty": {}},
    "latest": Link("data/in put"),
}
SRC = Path(__file__).parents[2] / "src"


@pytest.fixture(autouse=True)
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of leases of this test's own, below which things are unpacked."""
    monkeypatch.setenv("UMPTEEN_LEASES", str(tmp_path / "leases"))
    return tmp_path / "leases" / f"umpteen-{os.getuid()}"


@pytest.fixture
def synced(leases: Path) -> Path:
    return leases / "synced"


class Archive:
    """An archive in a file, and how often it was fetched."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest, self.fetched = path, digest, 0

    def fetch(self, path: str) -> None:
        self.fetched += 1
        Path(path).write_bytes(self.path.read_bytes())


def pack_tree(folder: Path, tree: dict[str, Any]) -> Archive:
    source = put_tree(folder / "source", tree)
    digest = measure(str(source)).digest
    (folder / "archive").write_bytes(b"".join(pack(str(source), digest)))
    return Archive(folder / "archive", digest)


@pytest.fixture
def small(tmp_path: Path) -> Archive:
    return pack_tree(tmp_path, SMALL)


# --- there and back -------------------------------------------------------------------------


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=trees)
def test_unpack_once_gives_what_was_packed(
    tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    archive = pack_tree(folder, tree)
    content = unpack_once(archive.digest, archive.fetch, str(folder / "root"))
    assert see_tree(Path(content)) == see_tree(folder / "source")
    assert measure(content).digest == archive.digest
    copy_into(content, str(folder / "placed"))
    assert see_tree(folder / "placed") == see_tree(folder / "source")


def test_unpack_once_keeps_modes_but_lets_the_owner_read(tmp_path: Path, synced: Path) -> None:
    source = put_tree(tmp_path / "source", {"a": {"b": b"", "c": b"", "d": b""}})
    modes = {"a": 0o2555, "a/b": 0o600, "a/c": 0o4751, "a/d": 0o044}
    for name, mode in modes.items():
        (source / name).chmod(mode)
    digest = measure(str(source)).digest
    (tmp_path / "archive").write_bytes(b"".join(pack(str(source), digest)))
    content = unpack_once(digest, Archive(tmp_path / "archive", digest).fetch)
    found = {name: Path(content, name).stat().st_mode & 0o7777 for name in modes}
    assert found == {"a": 0o755, "a/b": 0o600, "a/c": 0o751, "a/d": 0o444}
    assert synced.stat().st_mode & 0o777 == 0o700


def test_unpack_once_of_an_empty_folder(tmp_path: Path) -> None:
    archive = pack_tree(tmp_path, {})
    assert os.listdir(unpack_once(archive.digest, archive.fetch)) == []


def test_unpack_once_of_many_files(tmp_path: Path) -> None:
    tree = {f"{n}": {f"{m}": f"{n} {m}".encode() for m in range(100)} for n in range(20)}
    archive = pack_tree(tmp_path, tree)
    content = unpack_once(archive.digest, archive.fetch)
    assert see_tree(Path(content)) == see_tree(tmp_path / "source")


# --- once -----------------------------------------------------------------------------------


def test_unpack_once_fetches_once(small: Archive, synced: Path) -> None:
    content = unpack_once(small.digest, small.fetch)
    assert content == str(synced / small.digest / "content")
    assert unpack_once(small.digest, small.fetch) == content
    assert small.fetched == 1


_PROGRAM = f"""
import os, shutil, sys, threading
sys.path.insert(0, {str(SRC)!r})
from umpteen.runner.synced import unpack_once
digest, archive, told, part = sys.argv[1:]
def fetch(path):
    os.write(os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT), b"x")
    if not part:
        shutil.copyfile(archive, path)
        return
    os.mkfifo(path)  # gives a part of it, and then nothing
    threading.Thread(target=give, args=(path,)).start()
def give(path):
    with open(path, "wb", 0) as pipe, open(archive, "rb") as file:
        pipe.write(file.read(int(part)))
        threading.Event().wait()
print("ready", flush=True)
sys.stdin.readline()
print(unpack_once(digest, fetch), flush=True)
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(archive)` is a process that unpacks it once it is given a line."""
    started: list[subprocess.Popen[str]] = []

    def start(archive: Archive, part: str = "") -> subprocess.Popen[str]:
        arguments = [archive.digest, str(archive.path), str(tmp_path / "told"), part]
        started.append(
            subprocess.Popen(
                [sys.executable, "-S", "-E", "-c", _PROGRAM, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert started[-1].stdout
        assert started[-1].stdout.readline() == "ready\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_unpack_once_by_eight_at_once_fetches_once(
    tmp_path: Path, synced: Path, start: Start
) -> None:
    archive = pack_tree(tmp_path, {f"{n}": os.urandom(1000) for n in range(300)})
    processes = [start(archive) for _ in range(8)]
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    found = {process.communicate(timeout=60)[0] for process in processes}
    content = synced / archive.digest / "content"
    assert found == {f"{content}\n"}
    assert (tmp_path / "told").read_text() == "x"
    assert see_tree(content) == see_tree(tmp_path / "source")


@pytest.mark.parametrize("part", [0.0, 0.2, 0.9])
def test_unpack_once_after_one_was_killed_in_the_middle(
    tmp_path: Path, synced: Path, start: Start, part: float
) -> None:
    archive = pack_tree(tmp_path, {f"{n}": os.urandom(10_000) for n in range(100)})
    process = start(archive, str(int(archive.path.stat().st_size * part)))
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()
    wait_until(lambda: len(list(synced.glob("*.new/content/*"))) >= int(part * 80))
    wait_until((tmp_path / "told").exists)
    process.kill()
    process.wait()
    assert not (synced / archive.digest).exists()
    content = unpack_once(archive.digest, archive.fetch)
    assert see_tree(Path(content)) == see_tree(tmp_path / "source")
    assert sorted(os.listdir(synced)) == [archive.digest, archive.digest + ".lock"]


def test_unpack_once_whose_fetch_fails_leaves_nothing(small: Archive, synced: Path) -> None:
    def fetch(path: str) -> None:
        Path(path).touch()
        raise StoreError("the store is gone")

    with pytest.raises(StoreError, match="the store is gone"):
        unpack_once(small.digest, fetch)
    assert os.listdir(synced) == [small.digest + ".lock"]


# --- what others do to it -------------------------------------------------------------------


def is_clock_past(file: Path, folder: Path) -> bool:
    """Whether a change would be seen: the kernel's clock for files goes in steps."""
    (folder / "now").touch()
    return (folder / "now").stat().st_ctime_ns > file.stat().st_ctime_ns


@pytest.mark.parametrize("change", ["write", "chmod", "remove", "replace", "link"])
def test_unpack_once_of_a_copy_that_was_spoilt_is_fresh(
    small: Archive, tmp_path: Path, change: str
) -> None:
    content = Path(unpack_once(small.digest, small.fetch))
    wait_until(lambda: is_clock_past(content / "main.py", tmp_path))
    if change == "write":
        (content / "main.py").write_text("exit()0")
        os.utime(content / "main.py", (1, 1))
    elif change == "chmod":
        (content / "run.sh").chmod(0o644)
    elif change == "replace":
        (content / "away").write_text("print()")
        (content / "away").rename(content / "main.py")
    else:
        (content / "data" / "empty").rmdir()
    if change == "link":
        (content / "data" / "empty").symlink_to("/etc")
    assert unpack_once(small.digest, small.fetch) == str(content)
    assert see_tree(content) == see_tree(tmp_path / "source")
    assert small.fetched == 2


def test_unpack_once_of_a_spoilt_copy_leaves_the_old_one_to_who_is_in_it(
    small: Archive, synced: Path
) -> None:
    content = Path(unpack_once(small.digest, small.fetch))
    inside = os.open(content, os.O_RDONLY)
    (content / "main.py").write_text("mine")
    unpack_once(small.digest, small.fetch)
    with os.fdopen(os.open("main.py", os.O_RDONLY, dir_fd=inside)) as file:
        assert file.read() == "mine"
    os.close(inside)
    assert len(list(synced.glob("*.old"))) == 1


def test_unpack_once_leaves_what_commands_added(small: Archive) -> None:
    content = Path(unpack_once(small.digest, small.fetch))
    put_tree(content / "__pycache__", {"main.pyc": b""})
    unpack_once(small.digest, small.fetch)
    assert (content / "__pycache__" / "main.pyc").exists()
    assert small.fetched == 1


def test_unpack_once_whose_listing_is_torn_unpacks_again(small: Archive, synced: Path) -> None:
    content = Path(unpack_once(small.digest, small.fetch))
    (synced / small.digest / "listing").write_text('{"main.py": [7,')
    (content / "main.py").write_text("")
    unpack_once(small.digest, small.fetch)
    assert (content / "main.py").read_bytes() == b"print()"


def test_remove_unused_removes_what_no_start_used(small: Archive, synced: Path) -> None:
    content = Path(unpack_once(small.digest, small.fetch))
    assert remove_unused(3600) == 0
    os.utime(synced / small.digest / "listing", (1, 1))
    unpack_once(small.digest, small.fetch)
    assert remove_unused(3600) == 0, "a start marks it as used"
    os.utime(synced / small.digest / "listing", (1, 1))
    mark_used(str(content))
    assert remove_unused(3600) == 0
    os.utime(synced / small.digest / "listing", (1, 1))
    assert remove_unused(3600) == 1
    assert os.listdir(synced) == []


@pytest.mark.usefixtures("synced")
def test_list_unused_has_what_would_be_removed_with_its_size(small: Archive) -> None:
    assert list_unused(0) == {}
    folder = Path(unpack_once(small.digest, small.fetch)).parent
    size = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
    links = [path for path in folder.rglob("*") if path.is_symlink() and path.is_dir()]
    size += sum(path.lstat().st_size for path in links)
    assert list_unused(3600) == {}
    assert list_unused(float("-inf")) == {small.digest: size}
    assert remove_unused(float("-inf")) == 1
    assert list_unused(float("-inf")) == {}


def test_remove_unused_removes_torn_and_spoilt_ones(small: Archive, synced: Path) -> None:
    content = Path(unpack_once(small.digest, small.fetch))
    (content / "main.py").write_text("mine")
    unpack_once(small.digest, small.fetch)
    put_tree(synced / f"{small.digest}.0123.new", {"content": {"x": b""}})
    assert remove_unused(3600) == 0
    assert not list(synced.glob("*.new"))
    assert len(list(synced.glob("*.old"))) == 1
    for listing in synced.glob("*/listing"):
        os.utime(listing, (1, 1))
    assert remove_unused(3600) == 2
    assert remove_unused(3600, str(synced / "nowhere")) == 0


# --- what is refused ------------------------------------------------------------------------


def make_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def make_archive(folder: Path, *members: tarfile.TarInfo) -> Archive:
    content = b"".join(member.tobuf(tarfile.PAX_FORMAT) for member in members) + bytes(1024)
    (folder / "evil").write_bytes(gzip.compress(content))
    return Archive(folder / "evil", hashlib.blake2b(content, digest_size=20).hexdigest())


FOLDER, FILE = make_member("d", tarfile.DIRTYPE), make_member("f")
AWAY = make_member("d/a", tarfile.SYMTYPE, "..")


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([make_member("/tmp/x")], "'/tmp/x', an absolute path"),
        ([make_member("../x")], "'../x', a path that leaves the folder"),
        ([FOLDER, make_member("d/../../x")], "a path that leaves the folder"),
        ([make_member("..", tarfile.DIRTYPE)], "'..', a path that leaves the folder"),
        ([make_member("./x")], "'./x', which is no name of a file"),
        ([make_member("")], "'', which is no name of a file"),
        ([FOLDER, make_member("d//x")], "'d//x', which is no name of a file"),
        ([FILE, FILE], "'f', which is there twice"),
        ([FOLDER, FOLDER], "'d', which is there twice"),
        ([FOLDER, make_member("d", tarfile.SYMTYPE, ".")], "'d', which is there twice"),
        ([make_member("n/x")], "'n/x', which is not in a folder of the archive"),
        ([FILE, make_member("f/x")], "'f/x', which is not in a folder of the archive"),
        ([make_member("l", tarfile.SYMTYPE, "/etc")], "'l', a link to '/etc', outside"),
        ([make_member("l", tarfile.SYMTYPE, "..")], "'l', a link to '..', outside"),
        ([make_member("l", tarfile.SYMTYPE, "")], "'l', a link to '', outside"),
        ([FOLDER, make_member("d/l", tarfile.SYMTYPE, "../../x")], "'d/l', a link to"),
        ([FOLDER, AWAY, make_member("l", tarfile.SYMTYPE, "d/a/..")], "'l', a link to 'd/a/..'"),
        ([FOLDER, AWAY, make_member("d/a/x")], "'d/a/x', which is not in a folder"),
        ([FILE, make_member("h", tarfile.LNKTYPE, "f")], "'h', a hard link"),
        ([make_member("h", tarfile.LNKTYPE, "/etc/passwd")], "'h', a hard link"),
        ([make_member("c", tarfile.CHRTYPE)], "'c', which is no plain file"),
        ([make_member("b", tarfile.BLKTYPE)], "'b', which is no plain file"),
        ([make_member("p", tarfile.FIFOTYPE)], "'p', which is no plain file"),
    ],
)
def test_unpack_once_of_an_evil_archive_names_the_member(
    tmp_path: Path, synced: Path, members: list[tarfile.TarInfo], problem: str
) -> None:
    archive = make_archive(tmp_path, *members)
    with pytest.raises(StoreError) as caught:
        unpack_once(archive.digest, archive.fetch)
    assert problem in str(caught.value)
    assert os.listdir(synced) == [archive.digest + ".lock"]
    assert sorted(os.listdir(tmp_path)) == ["evil", "leases"]


def test_unpack_once_of_other_content_is_refused(small: Archive, synced: Path) -> None:
    with pytest.raises(StoreError, match="is damaged: its digest is"):
        unpack_once("0" * 40, small.fetch)
    assert os.listdir(synced) == ["0" * 40 + ".lock"]


@pytest.mark.parametrize("digest", ["", "../x", "0" * 39, "0" * 41, "G" * 40, "0" * 40 + "\n"])
def test_unpack_once_of_no_digest_is_refused(small: Archive, digest: str) -> None:
    with pytest.raises(StoreError, match="is no digest"):
        unpack_once(digest, small.fetch)


def test_unpack_once_of_a_damaged_archive_is_refused(small: Archive, synced: Path) -> None:
    whole = small.path.read_bytes()
    plain = gzip.decompress(whole)
    damaged = [whole[:100], whole[:-5], b"", b"no archive", whole[:-8] + bytes(8)]
    damaged += [gzip.compress(plain[:1000]), gzip.compress(plain + b"\0"), gzip.compress(b"")]
    for content in damaged:
        small.path.write_bytes(content)
        with pytest.raises(StoreError, match="is damaged"):
            unpack_once(small.digest, small.fetch)
        assert os.listdir(synced) == [small.digest + ".lock"]


def test_unpack_once_without_room_says_so(small: Archive, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="could not unpack to"):
        unpack_once(small.digest, small.fetch, str(tmp_path / "file" / "root"))


# --- a place of the user's own --------------------------------------------------------------


def test_place_goes_over_what_is_there(small: Archive, tmp_path: Path) -> None:
    content = unpack_once(small.digest, small.fetch)
    there = {"main.py": b"old", "mine": b"mine", "data": {"more": b""}, "latest": b"a file"}
    target = put_tree(tmp_path / "a" / "target", there)
    copy_into(content, str(target))
    expected = SMALL | {"mine": b"mine", "data": {"in put": b"1", "empty": {}, "more": b""}}
    assert see_tree(target) == see_tree(put_tree(tmp_path / "expected", expected))


def test_place_leaves_equal_files_alone(small: Archive, tmp_path: Path) -> None:
    content = unpack_once(small.digest, small.fetch)
    target = tmp_path / "target"
    copy_into(content, str(target))
    (target / "data" / "in put").write_text("2")
    before = {path: os.lstat(path).st_ino for path in target.rglob("*")}
    copy_into(content, str(target))
    changed = [path.name for path, inode in before.items() if os.lstat(path).st_ino != inode]
    assert changed == ["in put"]
    assert (target / "data" / "in put").read_text() == "1"


def test_place_takes_only_what_was_synced(small: Archive, tmp_path: Path) -> None:
    content = unpack_once(small.digest, small.fetch)
    Path(content, "added by a command").touch()
    copy_into(content, str(tmp_path / "target"))
    assert see_tree(tmp_path / "target") == see_tree(tmp_path / "source")


def test_place_in_a_home_and_behind_a_link(
    small: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    put_tree(tmp_path, {"home": {"code": Link("../scratch")}, "scratch": {}})
    copy_into(unpack_once(small.digest, small.fetch), "~/code")
    assert see_tree(tmp_path / "scratch") == see_tree(tmp_path / "source")


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ({"main.py": {}}, "main.py stands where a file"),
        ({"latest": {}}, "latest stands where a file"),
        ({"data": b""}, "data stands where a folder"),
        ({"data": Link("..")}, "data stands where a folder"),
    ],
)
def test_place_where_something_else_stands_is_refused(
    small: Archive, tmp_path: Path, there: dict[str, Any], named: str
) -> None:
    target = put_tree(tmp_path / "target", there)
    with pytest.raises(StoreError, match=named):
        copy_into(unpack_once(small.digest, small.fetch), str(target))
    assert not list(target.glob(".umpteen-*"))


def test_place_clears_what_a_killed_one_left(small: Archive, tmp_path: Path) -> None:
    old, new = (f".umpteen-{letter * 16}.new" for letter in "ab")
    target = put_tree(tmp_path / "target", {old: b"", new: b"", ".umpteen-notes.new": b""})
    os.utime(target / old, (1, 1))
    copy_into(unpack_once(small.digest, small.fetch), str(target))
    assert {name for name in os.listdir(target) if name[0] == "."} == {new, ".umpteen-notes.new"}


def test_place_of_what_was_not_unpacked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no folder that was unpacked"):
        copy_into(str(tmp_path), str(tmp_path / "target"))


# --- a link to it ---------------------------------------------------------------------------


def test_lead_to_makes_a_link_where_nothing_is(small: Archive, tmp_path: Path) -> None:
    content = unpack_once(small.digest, small.fetch)
    home = tmp_path / "a/b/code"
    for _ in range(2):
        link_at(content, f"{home}/")
        assert os.readlink(home) == content
    link_at(content, str(tmp_path / "main.py"))
    assert (tmp_path / "main.py").read_bytes() == b"print()"


def test_lead_to_changes_only_a_link_of_its_own(small: Archive, tmp_path: Path) -> None:
    content = unpack_once(small.digest, small.fetch)
    home, other, own = tmp_path / "code", tmp_path / "other", tmp_path / "own"
    os.symlink(content.replace(small.digest, "0" * 40), home)
    link_at(content, f"{home}/")
    assert os.readlink(home) == content
    os.symlink(tmp_path, other)
    link_at(content, f"{other}/")
    assert os.readlink(other) == str(tmp_path)
    own.mkdir()
    link_at(content, f"{own}/")
    assert not own.is_symlink()
    assert not list(tmp_path.glob("*.new"))


def test_lead_to_where_nothing_can_be_made_does_nothing(small: Archive, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    link_at(unpack_once(small.digest, small.fetch), f"{tmp_path}/file/code/")
