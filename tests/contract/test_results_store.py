"""What every results store does. A new store is one more line in KINDS."""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from tests.support.s3 import S3
from tests.support.sfs import Sfs, SfsServer
from tests.support.sftp import Sftp, Ssh
from umpteen.errors import StoreError
from umpteen.store.address import open_store
from umpteen.store.base import Store
from umpteen.store.layout import RecordsKey, records_folder, records_key
from umpteen.store.segments import SEGMENT_BYTES

OpenStore = Callable[[], Store]
FORK = multiprocessing.get_context("fork")
MB = 1024 * 1024


def open_directory(request: pytest.FixtureRequest) -> OpenStore:
    return functools.partial(open_store, str(request.getfixturevalue("tmp_path") / "store"))


def open_memory(_request: pytest.FixtureRequest) -> OpenStore:
    return functools.partial(open_store, f"memory://{uuid.uuid4().hex}/job", {})


def open_s3(request: pytest.FixtureRequest) -> OpenStore:
    s3: S3 = request.getfixturevalue("s3")
    return functools.partial(open_store, s3.address, s3.options)


def open_sftp(request: pytest.FixtureRequest) -> OpenStore:
    sftp: Sftp = request.getfixturevalue("sftp")
    return functools.partial(open_store, sftp.address, sftp.options)


def open_ssh(request: pytest.FixtureRequest) -> OpenStore:
    ssh: Ssh = request.getfixturevalue("ssh")
    return functools.partial(open_store, ssh.address, {})


def open_sfs(request: pytest.FixtureRequest) -> OpenStore:
    sfs: Sfs = request.getfixturevalue("sfs")
    return functools.partial(open_store, sfs.address, {})


KINDS = {
    "directory": open_directory,
    "memory": open_memory,
    "s3": open_s3,
    "sftp": open_sftp,
    "ssh": open_ssh,
    "sfs": open_sfs,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a kind of store."""
    name: str = request.param
    return name


@pytest.fixture
def opening(kind: str, request: pytest.FixtureRequest) -> OpenStore:
    """Opens the same store, each time anew."""
    return KINDS[kind](request)


@pytest.fixture
def store(opening: OpenStore) -> Iterator[Store]:
    """An empty store of each kind."""
    store = opening()
    yield store
    store.close()


@pytest.fixture
def has_folders(kind: str) -> bool:
    """Whether a folder is something of its own there."""
    return kind in {"directory", "sftp", "ssh"}


def create_at_once(opening: OpenStore, barrier: Barrier, number: int, winners: Path) -> None:
    store = opening()
    barrier.wait(60)
    if store.create("a/exclusive", b"%d" % number * 1000):
        (winners / str(number)).touch()


def replace_often(opening: OpenStore) -> None:
    store = opening()
    for number in range(200):
        store.replace("a/file", b"%d" % (number % 10) * 50_000)


class TestStore:
    @pytest.mark.parametrize("content", [b"", b"a\n\xff\0", bytes(300_000)])
    def test_read_gives_what_was_created(self, store: Store, content: bytes) -> None:
        assert store.create(".umpteen/batches/1.json", content)
        assert store.read(".umpteen/batches/1.json") == content

    def test_glance_shows_status_files_of_many_folders(self, store: Store) -> None:
        said = [b"0", b"-9", b"255", b"None", b"300", b"0\n", b""]
        for number, content in enumerate(said):
            store.replace(f"job/{number}/status_code", content)
            store.replace(f"job/{number}/results/a", b"a")
        store.replace("job/1/stdout", b"")
        store.replace("job/7/stdout", b"")
        glances = store.glance([f"job/{number}" for number in range(9)], "status_code")
        assert [glance.status for glance in glances] == [*said, None, None]
        assert [glance.has_stdout for glance in glances[:7]] == [n == 1 for n in range(7)]

    @pytest.mark.parametrize(
        ("offset", "size", "expected"),
        [(0, -1, b"0123456789"), (3, -1, b"3456789"), (3, 4, b"3456"), (8, 9, b"89"),
         (10, -1, b""), (99, -1, b""), (99, 5, b""), (0, 0, b"")],
    )  # fmt: skip
    def test_read_part_gives_what_is_there(
        self, store: Store, offset: int, size: int, expected: bytes
    ) -> None:
        store.create("key", b"0123456789")
        assert store.read("key", offset, size) == expected

    @pytest.mark.parametrize(
        ("size", "expected"), [(0, b""), (3, b"789"), (10, b"0123456789"), (99, b"0123456789")]
    )
    def test_read_tail_gives_the_end(self, store: Store, size: int, expected: bytes) -> None:
        store.create("key", b"0123456789")
        assert store.read_tail("key", size) == expected

    def test_read_tail_of_an_empty_file_is_empty(self, store: Store) -> None:
        store.create("key", b"")
        assert store.read_tail("key", 5) == b""

    def test_read_of_what_is_missing_is_none(self, store: Store) -> None:
        store.create("there", b"x")
        for key in ("missing", "missing/deep/er", "there/below"):
            assert store.read(key) is None
            assert store.read(key, 3, 4) is None
            assert store.read(key, 0, 0) is None
            assert store.read_tail(key, 10) is None

    def test_read_many_gives_each_in_order(self, store: Store) -> None:
        for number in range(50):
            store.create(f"a/{number}", b"0123456789%d" % number)
        asked = [(f"a/{number}", 10, -1) for number in range(50)]
        assert store.read_many(asked) == [b"%d" % number for number in range(50)]
        mixed = [("a/7", -2, -1), ("a/none", 0, -1), ("a/7", 1, 3), ("a/none", -2, -1)]
        assert store.read_many(mixed) == [b"97", None, b"123", None]
        assert store.read_many([]) == []

    def test_read_of_a_folder_is_never_content(self, store: Store, has_folders: bool) -> None:
        store.create("a/b", b"x")
        if not has_folders:
            assert store.read("a") is None
            return
        with pytest.raises(StoreError) as caught:
            store.read("a")
        assert "a" in caught.value.message
        assert caught.value.path

    def test_create_where_one_is_leaves_it(self, store: Store) -> None:
        assert store.create("a/b", b"first")
        assert not store.create("a/b", b"second")
        assert store.read("a/b") == b"first"
        assert store.names("a") == ["b"]

    def test_create_by_eight_threads_has_one_winner(self, store: Store) -> None:
        if not store.has_exclusive_create:
            pytest.skip("two who make one file at once are not kept apart there")
        barrier = threading.Barrier(8)

        def create(number: int) -> bool:
            barrier.wait(60)
            return store.create("a/exclusive", b"%d" % number * 1000)

        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(create, range(8)))
        assert sum(made) == 1
        assert store.read("a/exclusive") == b"%d" % made.index(True) * 1000
        assert store.names("a") == ["exclusive"]

    # Newer Pythons warn of it; here the child opens a store of its own and uses no other.
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
    @pytest.mark.parametrize("kind", ["directory", "s3", "sftp"])
    def test_create_by_eight_processes_has_one_winner(
        self, opening: OpenStore, store: Store, tmp_path: Path
    ) -> None:
        store.names("a")  # what is open here is of no use to a child
        barrier, winners = FORK.Barrier(8), tmp_path / "winners"
        winners.mkdir()
        processes = [
            FORK.Process(target=create_at_once, args=(opening, barrier, number, winners))
            for number in range(8)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        (winner,) = [path.name for path in winners.iterdir()]
        assert [process.exitcode for process in processes] == [0] * 8
        assert store.read("a/exclusive") == winner.encode() * 1000
        assert store.names("a") == ["exclusive"]

    def test_create_below_a_file_is_an_error(self, store: Store, kind: str) -> None:
        if kind in {"s3", "sfs"}:
            pytest.skip("there are no folders: a name is a name")
        store.create("a", b"x")
        with pytest.raises(StoreError):
            store.create("a/b", b"x")

    def test_replace_puts_the_new_content_whole(self, store: Store) -> None:
        store.replace("a/b", b"a longer first")
        store.replace("a/b", b"second")
        assert store.read("a/b") == b"second"
        assert store.names("a") == ["b"]

    def test_replace_is_never_seen_half_done(self, opening: OpenStore, store: Store) -> None:
        store.create("a/file", b"0" * 50_000)
        writer = threading.Thread(target=replace_often, args=(opening,))
        writer.start()
        seen = [store.read("a/file") or b""]
        while writer.is_alive():
            seen.append(store.read("a/file") or b"")
        writer.join()
        assert {(len(content), len(set(content))) for content in seen} == {(50_000, 1)}
        assert len({content[:1] for content in seen}) > 1

    @pytest.mark.parametrize("put", ["create", "replace"])
    def test_content_in_parts_is_one_file(self, store: Store, put: str) -> None:
        part = bytearray(MB)

        def parts() -> Iterator[bytearray]:
            for number in range(20):
                part[:] = b"%c" % (65 + number) * MB  # each is good until the next
                yield part

        getattr(store, put)("a/big", parts())
        content = store.read("a/big") or b""
        assert len(content) == 20 * MB
        assert content[::MB] == bytes(range(65, 85))
        assert store.read("a/big", 7 * MB - 1, 2) == b"GH"

    def test_content_of_twenty_megabytes_is_kept(self, store: Store, tmp_path: Path) -> None:
        content = os.urandom(20 * MB)
        store.replace("a/big", content)
        assert store.read("a/big") == content
        assert store.fetch("a/big", str(tmp_path / "deep" / "er" / "copy"))
        assert (tmp_path / "deep" / "er" / "copy").read_bytes() == content
        store.put("a/again", str(tmp_path / "deep" / "er" / "copy"))
        assert store.read_tail("a/again", 1000) == content[-1000:]
        assert sorted(store.walk("a")) == [("again", 20 * MB), ("big", 20 * MB)]

    def test_list_gives_names_of_files_and_folders(self, store: Store) -> None:
        for key in ("a/x", "a/y", "a/deep/z", "ab/x", "b"):
            store.create(key, b"")
        assert sorted(store.names("a")) == ["deep", "x", "y"]
        assert [sorted(names) for names in store.names_many(["a", "none", "a/deep"])] == [
            ["deep", "x", "y"], [], ["z"],
        ]  # fmt: skip

    def test_list_of_many_folders_beside_each_other(self, store: Store) -> None:
        for number in range(8):
            store.create(f"a/{number}/x", b"1")
            store.create(f"a/{number}/deep/y", b"")
        store.create("a/file", b"")
        asked = [*(f"a/{number}" for number in range(8)), "a/none"]
        assert [sorted(names) for names in store.names_many(asked)] == [*[["deep", "x"]] * 8, []]

    def test_list_of_what_is_no_folder_is_empty(self, store: Store) -> None:
        store.create("file", b"")
        assert store.names("missing") == store.names("file") == store.names("missing/deep") == []

    def test_list_of_thousands_is_whole(
        self, store: Store, kind: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        (tmp_path / "one").write_bytes(b"1")
        count = 2500
        if kind == "sfs":
            server: SfsServer = request.getfixturevalue("sfs_server")
            server.names_at_once, count = 100, 250
        names = [f"n{number}" for number in range(count)]
        store.put_many([(f"a/{name}", str(tmp_path / "one")) for name in names])
        assert sorted(store.names("a")) == sorted(names)
        assert sorted(store.walk("")) == sorted((f"a/{name}", 1) for name in names)
        store.delete_many([f"a/{name}" for name in names])
        assert store.names("a") == []

    def test_walk_gives_every_file_with_its_size(self, store: Store) -> None:
        for key in ("a/x", "a/deep/er/z", "ab/x", "b"):
            store.create(key, key.encode())
        assert sorted(store.walk("a")) == [("deep/er/z", 11), ("x", 3)]
        assert store.walk("missing") == store.walk("b") == []

    def test_delete_removes_it(self, store: Store) -> None:
        store.create("a/b", b"x")
        store.delete("a/b")
        assert store.read("a/b") is None
        assert store.create("a/b", b"again")

    def test_delete_of_what_is_missing_does_nothing(self, store: Store) -> None:
        store.create("a/b", b"x")
        store.delete("a/c")
        store.delete("c/d")
        store.delete_many(["a/c", "c/d"])
        store.delete_many([])
        assert store.names("a") == ["b"]

    def test_keys_with_odd_characters_are_kept(self, store: Store) -> None:
        folder = 'it\'s a "b" $HOME `id` * [x] \\ ünï 名'
        names = [
            "x%20y",
            "a b",
            " lead",
            "#1",
            "a?b=c&d",
            "lr=0.1,seed=3",
            "ünïcode",
            "+",
            "~",
            "a:b",
        ]
        for name in names:
            store.create(f"{folder}/{name}", name.encode())
        assert sorted(store.names(folder)) == sorted(names)
        assert store.names("") == [folder]
        keys = [(f"{folder}/{name}", 0, -1) for name in names]
        assert store.read_many(keys) == [name.encode() for name in names]
        assert sorted(store.walk(folder)) == sorted((n, len(n.encode())) for n in names)
        store.move(folder, "b")
        assert sorted(store.names("b")) == sorted(names)
        store.delete_many([f"b/{name}" for name in names])
        assert store.walk("") == []

    def test_fetch_and_put_keep_the_content(self, store: Store, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "new" / "target"
        for content in (b"", b"a\n\xff\0"):
            source.write_bytes(content)
            store.put("a/b/c", str(source))
            assert store.fetch("a/b/c", str(target))
            assert target.read_bytes() == content
        assert [path.name for path in target.parent.iterdir()] == ["target"]
        assert store.names("a/b") == ["c"]

    def test_fetch_of_what_is_missing_makes_nothing(self, store: Store, tmp_path: Path) -> None:
        store.create("there", b"x")
        pairs = [(key, str(tmp_path / "to" / "copy")) for key in ("missing", "there/below")]
        assert store.fetch_many(pairs) == [False, False]
        assert not list(tmp_path.glob("to/*"))

    def test_put_of_what_is_missing_is_an_error(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="No such file"):
            store.put("a", str(tmp_path / "missing"))
        assert store.read("a") is None

    def test_move_takes_a_file_to_its_new_key(self, store: Store) -> None:
        store.create("a/b", b"x")
        store.create("a/bc", b"y")
        store.move("a/b", "new/deep/c")
        assert store.read("a/b") is None
        assert store.read("new/deep/c") == b"x"
        assert store.names("a") == ["bc"]

    def test_move_takes_a_folder_with_all_below(self, store: Store) -> None:
        for key in ("1/stdout", "1/results/deep/x", "10/stdout"):
            store.create(key, key.encode())
        store.move("1", "old/1-abc")
        assert sorted(store.walk("old/1-abc")) == [("results/deep/x", 16), ("stdout", 8)]
        assert store.walk("1") == []
        assert store.read("10/stdout") == b"10/stdout"

    def test_move_of_what_is_missing_does_nothing(self, store: Store) -> None:
        store.create("a/b", b"x")
        store.move("a/c", "a/d")
        store.move("c", "d")
        assert store.walk("") == [("a/b", 1)]

    def test_path_says_where_it_is(self, store: Store) -> None:
        assert store.path("a/b") == f"{store.address}/a/b"


RECORDS = records_key("7", RecordsKey(1, "aa"))


class TestRecords:
    def test_records_are_one_file_for_readers(self, store: Store) -> None:
        records = store.open_records(RECORDS)
        records.append(b"one\n")
        records.append(b"two\n")
        records.flush()
        assert (records.pending, records.size) == (b"", 8)
        assert store.names(records_folder("7")) == ["1-aa.jsonl"]
        assert store.read(RECORDS) == b"one\ntwo\n"
        assert store.read(RECORDS, 4) == store.read_tail(RECORDS, 4) == b"two\n"
        assert store.read(RECORDS, 2, 4) == b"e\ntw"
        records.close()

    def test_records_that_grow_are_read_from_where_the_reader_is(
        self, opening: OpenStore, store: Store
    ) -> None:
        reader = opening()
        records = store.open_records(RECORDS)
        read, written = b"", b""
        for number in range(40):
            lines = b"%d " % number * (SEGMENT_BYTES // 20) + b"\n"
            records.append(lines)
            records.flush()
            written += lines
            if number % 3 == 0:
                assert reader.names(records_folder("7")) == ["1-aa.jsonl"]
                (new,) = reader.read_many([(RECORDS, len(read), -1)])
                assert new
                read += new
                assert read == written
        assert reader.read(RECORDS) == written
        assert reader.read(RECORDS, 1_500_000, 2_000_000) == written[1_500_000:3_500_000]
        assert reader.read_tail(RECORDS, 1_500_000) == written[-1_500_000:]
        assert reader.read(RECORDS, len(written)) == b""
        records.close()
        reader.close()

    def test_records_of_several_starts_are_apart(self, store: Store, tmp_path: Path) -> None:
        keys = [records_key("7", RecordsKey(start, "aa")) for start in (1, 2, 12)]
        for number, key in enumerate(keys):
            records = store.open_records(key)
            records.append(b"%d\n" % number)
            records.flush()
            records.close()
        store.create(".umpteen/records/7/closed", b"")
        names = sorted(store.names(records_folder("7")))
        assert names == ["1-aa.jsonl", "12-aa.jsonl", "2-aa.jsonl", "closed"]
        assert store.read_many([(key, 0, -1) for key in keys]) == [b"0\n", b"1\n", b"2\n"]
        assert store.read(records_key("7", RecordsKey(3, "aa"))) is None
        assert store.fetch(keys[2], str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == b"2\n"
        store.delete(keys[0])
        assert sorted(store.names(records_folder("7"))) == names[1:]

    def test_records_put_whole_are_read_as_such(self, store: Store) -> None:
        store.replace(RECORDS, b"one\ntwo\n")
        assert store.names(records_folder("7")) == ["1-aa.jsonl"]
        assert store.read(RECORDS, 4) == b"two\n"
