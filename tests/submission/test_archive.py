"""What of a folder goes into its archive, and by what it is called."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import socket
import tarfile
from pathlib import Path

import pytest

from tests.support.trees import Link, Program, put_tree
from umpteen.errors import InputError
from umpteen.submission.archive import Packed, measure, pack

SMALL = {
    "main.py": b"print()",
    "run.sh": Program(b"#!/bin/sh\n"),
    "data": {"in put": b"1", "empty": {}},
    "latest": Link("data/in put"),
}


def read_archive(source: Path, *exclude: str) -> dict[str, tarfile.TarInfo]:
    digest = measure(str(source), exclude=exclude).digest
    content = gzip.decompress(b"".join(pack(str(source), digest, exclude=exclude)))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {member.name: member for member in tar}


def refuse(source: Path, *exclude: str) -> InputError:
    with pytest.raises(InputError) as caught:
        measure(str(source), exclude=exclude)
    return caught.value


# --- the digest -----------------------------------------------------------------------------


def test_measure_counts_files_and_links(tmp_path: Path) -> None:
    packed = measure(str(put_tree(tmp_path / "code", SMALL)))
    assert packed == Packed(packed.digest, files=4, size_bytes=18)
    assert len(packed.digest) == 40


def test_measure_of_two_copies_is_equal(tmp_path: Path) -> None:
    one = put_tree(tmp_path / "one", SMALL)
    other = put_tree(tmp_path / "other", dict(reversed(SMALL.items())))
    for path in other.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert measure(str(one)) == measure(str(other))
    digest = measure(str(one)).digest
    assert b"".join(pack(str(one), digest)) == b"".join(pack(str(other), digest))


@pytest.mark.parametrize(
    "change",
    [
        {"main.py": b"print(1)"},
        {"main.py": Program(b"print()")},
        {"run.sh": b"#!/bin/sh\n"},
        {"more": b""},
        {"more": {}},
        {"data": {"in put": b"1"}},
        {"latest": Link("main.py")},
        {"latest": b"1"},
    ],
)
def test_measure_of_what_differs_differs(
    tmp_path: Path, change: dict[str, bytes | dict[str, bytes]]
) -> None:
    one = put_tree(tmp_path / "one", SMALL)
    other = put_tree(tmp_path / "other", SMALL | change)
    assert measure(str(one)).digest != measure(str(other)).digest


def test_measure_of_an_empty_folder_is_of_no_files(tmp_path: Path) -> None:
    assert measure(str(tmp_path))[1:3] == (0, 0)
    assert read_archive(tmp_path) == {}


def test_measure_tells_how_far_it_is(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    source = put_tree(tmp_path / "code", SMALL | {"big": bytes(3_000_000)})
    packed = measure(str(source), on_progress=lambda *counts: seen.append(counts))
    assert seen[-1] == packed[1:3]
    assert seen == sorted(seen)
    assert len(seen) > packed.files


def test_pack_of_a_folder_that_changed_since_is_refused(tmp_path: Path) -> None:
    digest = measure(str(put_tree(tmp_path / "code", SMALL))).digest
    (tmp_path / "code" / "main.py").write_text("print(2)")
    with pytest.raises(InputError, match="changed while it was being read"):
        list(pack(str(tmp_path / "code"), digest))


def test_measure_of_a_file_that_grows_meanwhile_is_refused(tmp_path: Path) -> None:
    log = put_tree(tmp_path / "code", {"log": bytes(3_000_000)}) / "log"

    def grow(_files: int, _size_bytes: int) -> None:
        with log.open("ab") as file:
            file.write(b"more")

    with pytest.raises(InputError, match="log: changed while it was being read"):
        measure(str(tmp_path / "code"), on_progress=grow)


# --- what goes in ---------------------------------------------------------------------------


def test_pack_keeps_nothing_but_names_modes_and_contents(tmp_path: Path) -> None:
    found = read_archive(put_tree(tmp_path / "code", SMALL))
    assert list(found) == [
        *("data", "data/empty", "data/in put", "latest", "main.py", "run.sh"),
    ]
    assert found["run.sh"].mode == 0o755
    assert found["latest"].linkname == "data/in put"
    traces = {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in found.values()}
    assert traces == {(0, 0, 0, "", "")}


def test_pack_leaves_out_git_and_caches(tmp_path: Path) -> None:
    caches = (".idea", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__")
    tree = {name: {"x": b""} for name in (*caches, ".git", ".ipynb_checkpoints")}
    source = put_tree(tmp_path / "code", {"a": {**tree, "b": b""}, **tree, ".github": {}})
    assert list(read_archive(source)) == [".github", "a", "a/b"]
    (source / "a" / ".idea").rename(source / "away")
    (source / "a" / ".idea").write_text("a file of that name is no cache")
    assert "a/.idea" in read_archive(source)


def test_pack_leaves_out_what_gitignore_files_name(tmp_path: Path) -> None:
    tree = {
        ".gitignore": b"*.log\n/build/\n!keep.log\n",
        "a.log": b"",
        "keep.log": b"",
        "build": {"x": b""},
        "sub": {".gitignore": b"!a.log\nkeep.log\n", "a.log": b"", "keep.log": b"", "build": b""},
    }
    found = read_archive(put_tree(tmp_path / "code", tree))
    assert list(found) == [
        *(".gitignore", "keep.log", "sub", "sub/.gitignore", "sub/a.log", "sub/build"),
    ]


def test_pack_lets_umpteenignore_win_over_gitignore(tmp_path: Path) -> None:
    tree = {
        ".umpteenignore": b"!/data/\nnotes\n",
        ".gitignore": b"data/\n",
        "data": {"x": b""},
        "sub": {".gitignore": b"!notes\n", "data": {"x": b""}, "notes": b""},
    }
    found = read_archive(put_tree(tmp_path / "code", tree))
    assert list(found) == [
        ".gitignore",
        ".umpteenignore",
        "data",
        "data/x",
        "sub",
        "sub/.gitignore",
    ]


def test_pack_leaves_out_results(tmp_path: Path) -> None:
    source = put_tree(tmp_path / "code", SMALL | {"out": {"a": b""}, "out2": {"b": b""}})
    put_tree(source / "other" / "job", {".umpteen": {"job.json": b"{}"}, "a": {"stdout": b""}})
    (tmp_path / "link").symlink_to(source)
    found = read_archive(source, str(tmp_path / "link" / "out"), "/elsewhere")
    assert found.keys() - {"data", "data/empty", "data/in put", "latest", "main.py", "run.sh"} == {
        *("out2", "out2/b", "other"),
    }


def test_pack_of_a_source_that_is_a_link_follows_it(tmp_path: Path) -> None:
    source = put_tree(tmp_path / "code", SMALL)
    (tmp_path / "link").symlink_to(source)
    assert measure(str(tmp_path / "link")) == measure(str(source))


def test_pack_of_deep_folders_and_long_names(tmp_path: Path) -> None:
    deep = "/".join(["d" * 100] * 12)
    put_tree(tmp_path / deep, {"ü" * 120: b"x"})
    assert f"{deep}/{'ü' * 120}" in read_archive(tmp_path)


# --- what is refused ------------------------------------------------------------------------


def test_measure_of_a_missing_source_is_refused(tmp_path: Path) -> None:
    error = refuse(tmp_path / "nothing")
    assert str(error) == f"{tmp_path}/nothing: there is no such folder to sync"


def test_measure_of_a_file_is_refused_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    error = refuse(tmp_path / "main.py")
    assert str(error) == f"{tmp_path}/main.py: is no folder"
    assert error.hint == f"sync the folder that it is in: {tmp_path}"


def test_pack_of_a_single_file_has_it_by_the_name_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "a b.csv").write_bytes(b"x\n")
    (tmp_path / "a b.csv").chmod(0o750)
    os.symlink("a b.csv", tmp_path / "link")
    for source in ("a b.csv", "link"):
        packed = measure(str(tmp_path / source), name="c.csv")
        assert packed[1:3] == (1, 2)
        content = b"".join(pack(str(tmp_path / source), packed.digest, name="c.csv"))
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            assert [(member.name, member.mode) for member in tar] == [("c.csv", 0o750)]


@pytest.mark.parametrize(
    "target", ["/etc", "..", "../x", "../../x", "a/../../x", "sub/../x", "sub/l/../.."]
)
def test_measure_of_a_link_that_leaves_is_refused(tmp_path: Path, target: str) -> None:
    error = refuse(put_tree(tmp_path / "code", {"sub": {"x": b""}, "l": Link(target)}))
    assert str(error) == f"{tmp_path}/code/l: is a link to {target}, which leaves the folder"
    assert error.hint


@pytest.mark.parametrize("target", ["..", "../a", "x", ".", "../../top", "../nothing", "l"])
def test_measure_of_a_link_that_stays_is_taken(tmp_path: Path, target: str) -> None:
    source = put_tree(tmp_path / "code", {"a": {"b": {"l": Link(target)}}})
    assert "a/b/l" in read_archive(source)


def test_measure_of_a_link_that_leaves_passes_where_it_is_left_out(tmp_path: Path) -> None:
    tree = {"l": Link("/etc"), ".umpteenignore": b"l\n"}
    assert list(read_archive(put_tree(tmp_path / "code", tree))) == [".umpteenignore"]


def test_measure_of_pipes_and_sockets_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    os.mkfifo("a/pipe")
    assert "a/pipe: is a named pipe" in str(refuse(Path("a")))
    shutil.rmtree("a")
    Path("a").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("a/socket")
        assert "a/socket: is a socket" in str(refuse(Path("a")))


def test_measure_of_names_that_are_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff")).touch()
    assert "a\\udcff: has a name that is not UTF-8" in str(refuse(tmp_path))
    (tmp_path / os.fsdecode(b"a\xff")).unlink()
    (tmp_path / "l").symlink_to(os.fsdecode(b"a\xff"))
    assert "l: is a link to a name that is not UTF-8" in str(refuse(tmp_path))


def test_measure_of_an_unreadable_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put_tree(tmp_path / "code", SMALL)
    real = os.open

    def open_but_one(path: str, flags: int) -> int:  # as for others than root
        if path.endswith("main.py"):
            raise PermissionError(13, "Permission denied")
        return real(path, flags)

    monkeypatch.setattr(os, "open", open_but_one)
    assert f"{source}/main.py: could not be read: Permission denied" in str(refuse(source))


def test_measure_of_the_folder_of_the_results_is_refused(tmp_path: Path) -> None:
    error = refuse(put_tree(tmp_path / "code", SMALL), str(tmp_path / "code"))
    assert "the results of the job are kept in that same folder" in str(error)


def test_what_rules_leave_out_is_told_in_order(tmp_path: Path) -> None:
    tree = {".gitignore": b"data/\n*.o\n", "data": {"a": b"", "b": b""}, "y.o": b"", "kept": b""}
    source = put_tree(tmp_path / "code", tree | {"sub": {"x.o": b""}, "__pycache__": {"c": b""}})
    assert measure(str(source)).left_out == ("data/", "sub/x.o", "y.o")
    assert measure(str(put_tree(tmp_path / "plain", SMALL))).left_out == ()


def test_links_that_lead_out_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    links = {"bin/python": "/usr/bin/python3", "up": "../else"}
    tree = {"bin": {"tool": b"", "python": Link("/usr/bin/python3")}, "up": Link("../else")}
    source = put_tree(tmp_path / "code", tree | {"inside": Link("bin/tool")})
    with pytest.raises(InputError, match="leaves the folder"):
        measure(str(source))
    packed = measure(str(source), keeps_links=True)
    assert dict(packed.outward) == links
    content = b"".join(pack(str(source), packed.digest, keeps_links=True))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert tar.getmember("bin/python").linkname == "/usr/bin/python3"
        assert tar.getmember("inside").linkname == "bin/tool"


def test_files_at_the_top_may_be_other_ones(tmp_path: Path) -> None:
    source = put_tree(
        tmp_path / "code", {"0.json": b"old", "1.json": b"old", "sub": {"0.json": b"x"}}
    )
    new = put_tree(tmp_path / "new", {"0.json": b"new 0", "2.json": b"new 2"})
    instead = {"0.json": f"{new}/0.json", "1.json": None, "2.json": f"{new}/2.json"}
    packed = measure(str(source), instead=instead)
    content = b"".join(pack(str(source), packed.digest, instead=instead))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    assert found == {"0.json": b"new 0", "2.json": b"new 2", "sub/0.json": b"x"}
    tree = {"0.json": b"new 0", "2.json": b"new 2", "sub": {"0.json": b"x"}}
    after = put_tree(tmp_path / "after", tree)
    assert measure(str(after)).digest == packed.digest
