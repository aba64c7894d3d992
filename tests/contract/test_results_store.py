"""What every results store does. A new store is one more line in STORES."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from umpteen.errors import StoreError
from umpteen.results.base import Store
from umpteen.results.directory import DirectoryStore

OpenStore = Callable[[Path], Store]
STORES: dict[str, OpenStore] = {
    "directory": lambda folder: DirectoryStore(str(folder / "store")),
}
FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    return STORES[request.param](tmp_path)


def create_at_once(store: Store, barrier: Barrier, number: int, winners: Path) -> None:
    barrier.wait(20)
    if store.create("a/exclusive", b"%d" % number * 1000):
        (winners / str(number)).touch()


def replace_often(store: Store, barrier: Barrier) -> None:
    barrier.wait(20)
    for number in range(300):
        store.replace("a/file", b"%d" % (number % 10) * 50_000)


class TestStore:
    @pytest.mark.parametrize("content", [b"", b"a\n\xff\0", bytes(300_000)])
    def test_read_gives_what_was_created(self, store: Store, content: bytes) -> None:
        assert store.create(".umpteen/batches/1.json", content)
        assert store.read(".umpteen/batches/1.json") == content

    @pytest.mark.parametrize(
        ("offset", "size", "expected"),
        [(0, -1, b"0123456789"), (3, -1, b"3456789"), (3, 4, b"3456"), (8, 9, b"89"),
         (10, -1, b""), (99, -1, b""), (0, 0, b"")],
    )  # fmt: skip
    def test_read_part_gives_what_is_there(
        self, store: Store, offset: int, size: int, expected: bytes
    ) -> None:
        store.create("key", b"0123456789")
        assert store.read("key", offset, size) == expected

    @pytest.mark.parametrize(
        ("size", "expected"), [(3, b"789"), (10, b"0123456789"), (99, b"0123456789")]
    )
    def test_read_tail_gives_the_end(self, store: Store, size: int, expected: bytes) -> None:
        store.create("key", b"0123456789")
        assert store.read_tail("key", size) == expected

    def test_read_of_what_is_missing_is_none(self, store: Store) -> None:
        store.create("there", b"x")
        for key in ("missing", "missing/deep/er", "there/below"):
            assert store.read(key) is None
            assert store.read_tail(key, 10) is None

    def test_read_of_a_folder_is_an_error_that_names_it(self, store: Store) -> None:
        store.create("a/b", b"x")
        with pytest.raises(StoreError) as caught:
            store.read("a")
        assert "a" in caught.value.message
        assert caught.value.path

    def test_create_where_one_is_leaves_it(self, store: Store) -> None:
        assert store.create("a/b", b"first")
        assert not store.create("a/b", b"second")
        assert store.read("a/b") == b"first"
        assert store.list("a") == ["b"]

    def test_create_by_eight_processes_has_one_winner(self, store: Store, tmp_path: Path) -> None:
        barrier, winners = FORK.Barrier(8), tmp_path / "winners"
        winners.mkdir()
        processes = [
            FORK.Process(target=create_at_once, args=(store, barrier, number, winners))
            for number in range(8)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(30)
        (winner,) = [path.name for path in winners.iterdir()]
        assert [process.exitcode for process in processes] == [0] * 8
        assert store.read("a/exclusive") == winner.encode() * 1000
        assert store.list("a") == ["exclusive"]

    def test_create_below_a_file_is_an_error(self, store: Store) -> None:
        store.create("a", b"x")
        with pytest.raises(StoreError):
            store.create("a/b", b"x")

    def test_replace_puts_the_new_content_whole(self, store: Store) -> None:
        store.replace("a/b", b"a longer first")
        store.replace("a/b", b"second")
        assert store.read("a/b") == b"second"
        assert store.list("a") == ["b"]

    def test_replace_is_never_seen_half_done(self, store: Store) -> None:
        store.create("a/file", b"0" * 50_000)
        barrier = FORK.Barrier(2)
        writer = FORK.Process(target=replace_often, args=(store, barrier))
        writer.start()
        barrier.wait(20)
        seen = [store.read("a/file") or b""]
        while writer.is_alive():
            seen.append(store.read("a/file") or b"")
        writer.join()
        assert writer.exitcode == 0
        assert {(len(content), len(set(content))) for content in seen} == {(50_000, 1)}
        assert len({content[:1] for content in seen}) > 1

    def test_list_gives_names_of_files_and_folders(self, store: Store) -> None:
        for key in ("a/x", "a/y", "a/deep/z", "b"):
            store.create(key, b"")
        assert sorted(store.list("a")) == ["deep", "x", "y"]

    def test_list_of_what_is_no_folder_is_empty(self, store: Store) -> None:
        store.create("file", b"")
        assert store.list("missing") == store.list("file") == []

    def test_delete_removes_it(self, store: Store) -> None:
        store.create("a/b", b"x")
        store.delete("a/b")
        assert store.read("a/b") is None
        assert store.create("a/b", b"again")

    def test_delete_of_what_is_missing_does_nothing(self, store: Store) -> None:
        store.create("a/b", b"x")
        store.delete("a/c")
        store.delete("c/d")
        assert store.list("a") == ["b"]

    def test_keys_with_odd_characters_are_kept(self, store: Store) -> None:
        key = 'it\'s a "b" $HOME `id` * \\ ünï 名/x%20y'
        store.create(key, b"x")
        assert store.read(key) == b"x"
        assert store.list(key.partition("/")[0]) == ["x%20y"]
