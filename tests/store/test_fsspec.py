"""File systems of fsspec that others wrote: each has errors and listings of its own."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from umpteen.errors import StoreError
from umpteen.store.base import Store
from umpteen.store.remote import RemoteStore


class StatusError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("the server's own words")
        self.response = SimpleNamespace(status_code=status)


@dataclass
class Found:
    name: str
    size: int
    type: str


MISSING = [OSError(errno.ENOENT, "no"), OSError(errno.ENOTDIR, "no"), StatusError(404)]


class Odd(MemoryFileSystem):  # type: ignore[misc]
    """Says `missing` where there is no file, and lists objects; `waiting` holds up writes."""

    protocol = "odd"
    store: dict[str, Any] = {}  # noqa: RUF012 -- as in the class above: all instances share it
    pseudo_dirs = [""]  # noqa: RUF012
    missing: Exception = MISSING[0]
    waiting: threading.Event | None = None

    def _say(self, call: Any, *arguments: Any, **more: Any) -> Any:
        try:
            return call(*arguments, **more)
        except FileNotFoundError:
            raise type(self).missing from None

    def _open(self, *arguments: Any, **more: Any) -> Any:
        return self._say(super()._open, *arguments, **more)

    def cat_file(self, path: str, *arguments: Any, **more: Any) -> Any:
        return self._say(super().cat_file, path, *arguments, **more)

    def rm_file(self, path: str) -> None:
        if path not in self.store:
            raise type(self).missing
        super()._rm(path)

    def info(self, path: str, **more: Any) -> Any:
        return Found(**pick(self._say(super().info, path, **more)))

    def ls(self, path: str, detail: bool = True, **more: Any) -> Any:
        found = self._say(super().ls, path, detail=True, **more)
        return [Found(**pick(each)) for each in found] if detail else [e["name"] for e in found]

    def find(self, path: str, *_: Any, **__: Any) -> Any:
        names = [name for name in self.store if name.startswith(f"{path}/")]
        return {name: self.info(name) for name in names}

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        waiting, type(self).waiting = type(self).waiting, None
        if waiting:
            waiting.wait(60)
        with self.open(path, "wb") as file:
            file.write(value)


def pick(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("name", "size", "type")}


@pytest.fixture
def store() -> Iterator[Store]:
    Odd.store.clear()
    Odd.missing = MISSING[0]
    register_implementation("odd", Odd, clobber=True)
    store = RemoteStore("odd://place/job", {"read_timeout": 0.3, "connect_timeout": 0.2}, 1)
    yield store
    store.close()


@pytest.mark.parametrize("missing", MISSING, ids=["no file", "no folder", "404"])
def test_what_is_missing_is_so_whatever_the_library_calls_it(
    store: Store, missing: Exception, tmp_path: Any
) -> None:
    Odd.missing = missing
    assert store.read("a/b") is None
    assert store.read_tail("a/b", 3) is None
    assert store.names("a") == []
    assert store.walk("a") == []
    assert not store.fetch("a/b", str(tmp_path / "b"))
    store.delete("a/b")
    store.move("a/b", "c")
    assert store.create("a/b", b"x")
    assert not store.create("a/b", b"y")
    assert store.read("a/b") == b"x"


def test_what_is_listed_may_be_objects(store: Store) -> None:
    store.replace("a/b", b"xyz")
    store.replace("a/deep/c", b"")
    assert sorted(store.names("a")) == ["b", "deep"]
    assert sorted(store.walk("")) == [("a/b", 3), ("a/deep/c", 0)]
    assert store.read("a/b", 1, 1) == b"y"


def test_other_answers_are_errors(store: Store) -> None:
    Odd.missing = StatusError(403)
    with pytest.raises(StoreError, match="the server answered 403"):
        store.read("a/b")


def test_a_write_that_was_given_up_never_ends_after_a_later_one(store: Store) -> None:
    go_on = Odd.waiting = threading.Event()
    with pytest.raises(StoreError, match="no answer in time"):
        store.replace("a/b", b"first")
    with pytest.raises(StoreError, match="no answer in time"):
        store.replace("a/b", b"second")
    go_on.set()
    store.replace("a/b", b"third")
    assert store.read("a/b") == b"third"
