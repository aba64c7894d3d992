"""What a results store can do.

Keys are paths below the store's address with `/` between their parts; `layout` has all that
there are. Standard library alone.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Union

from umpteen.store.layout import STATUS_BYTES

__all__ = ["Appender", "Content", "Glance", "Options", "Store"]


class Glance(NamedTuple):
    """What a task's folder shows: the content of its status file, None where there is none."""

    status: bytes | None
    has_stdout: bool


# What a store is opened with, by the names that the library of its service has for it.
Options = dict[str, Any]

# Bytes, or parts of them, each of which is good until the next is asked for.
Content = Union[bytes, bytearray, Iterable[Union[bytes, bytearray]]]


class Appender(abc.ABC):
    """The records of one start as its runner writes them: it alone, line after line.

    fd: of the file, -1 where it is none of this machine. pending: lines that are not in the
    store yet. size: bytes that are. synced: how many of them are known to be on the disk.
    """

    fd: int = -1
    pending: bytes
    size: int
    synced: int

    @abc.abstractmethod
    def append(self, lines: bytes) -> None:
        """Write whole lines, after those that are pending; raises OSError and keeps them."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Put what is pending; raises OSError or StoreError and keeps it."""

    @abc.abstractmethod
    def close(self) -> None:
        """Write no more; nothing may be pending."""


class Store(abc.ABC):
    """What every results store can do; errors are StoreError, naming what was being done."""

    address: str
    # Whether what was put there survives a power loss of this machine.
    is_lasting = False
    # Whether a thousand files in many folders are one request.
    lists_deep = False

    @property
    def heard_s(self) -> float:
        """When it last answered, on the monotonic clock, where that may take long."""
        return float("-inf")

    @property
    def ready_s(self) -> float:
        """When it could be asked first; infinite until then, where that may take long."""
        return float("-inf")

    @property
    def has_exclusive_create(self) -> bool:
        """Whether of several who create the same file just one succeeds."""
        return True

    @abc.abstractmethod
    def path(self, key: str) -> str:
        """Where the file is: a path, or an address."""

    @abc.abstractmethod
    def read(self, key: str, offset: int = 0, size: int = -1) -> bytes | None:
        """At most `size` bytes of the file from `offset` on; None if there is no such file."""

    def read_own(self, key: str) -> tuple[bytes | None, bool]:
        """`read` of a whole file, and whether nobody but this user can have written it.

        False where the store does not tell who has written what.
        """
        return self.read(key), False

    @abc.abstractmethod
    def read_tail(self, key: str, size: int) -> bytes | None:
        """The last `size` bytes of the file, or all of it; None if there is no such file."""

    def read_many(self, asked: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """`read` of each (key, offset, size); offset -n with size -1 is `read_tail` of n bytes."""
        return [
            self.read_tail(key, -offset) if offset < 0 else self.read(key, offset, size)
            for key, offset, size in asked
        ]

    @abc.abstractmethod
    def create(self, key: str, content: Content) -> bool:
        """Put a file whole where none is; False, and nothing done, if there is one."""

    @abc.abstractmethod
    def replace(self, key: str, content: Content) -> None:
        """Put a file whole, in place of what is there."""

    @abc.abstractmethod
    def open_records(self, key: str) -> Appender:
        """New records of a start; OSError where they cannot be made."""

    @abc.abstractmethod
    def fetch(self, key: str, path: str) -> bool:
        """Copy a file to `path` on this machine, put whole; False if there is no such file."""

    def fetch_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """`fetch` of each (key, path)."""
        return [self.fetch(key, path) for key, path in pairs]

    @abc.abstractmethod
    def put(self, key: str, path: str) -> None:
        """Copy the file at `path` of this machine into the store, put whole."""

    def put_many(self, pairs: Sequence[tuple[str, str]]) -> None:
        """`put` of each (key, path)."""
        for key, path in pairs:
            self.put(key, path)

    @abc.abstractmethod
    def move(self, source: str, target: str) -> None:
        """Give a file, or a folder with all below it, another key; nothing if it is not there.

        A move that was cut short has lost nothing: made again, it is completed.
        """

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Remove a file, if it is there."""

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove files, those that are there."""
        for key in keys:
            self.delete(key)

    def remove_empty(self, is_ours: Callable[[str], bool]) -> None:  # noqa: B027 -- most have none
        """Remove the folders, by what their keys are, that are empty, and the store's own one.

        What is a folder only by the names of files is gone with them.
        """

    @abc.abstractmethod
    def walk(self, folder: str) -> list[tuple[str, int]]:
        """Every file below a folder, in no order: its path relative to that, and its bytes."""

    def names_many(self, folders: Sequence[str]) -> list[list[str]]:
        """`names` of each folder."""
        return [self.names(folder) for folder in folders]

    def glance(self, folders: Sequence[str], name: str) -> list[Glance]:
        """At many folders of tasks, in as few requests as may be; name: of their status file."""
        contents = self.read_many([(f"{folder}/{name}", 0, STATUS_BYTES) for folder in folders])
        there = self.names_many(folders)
        return [Glance(content, "stdout" in names) for content, names in zip(contents, there)]

    @abc.abstractmethod
    def names(self, folder: str) -> list[str]:
        """The names in a folder, in no order; none if there is no such folder."""

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Bear longer with trouble that may pass, where nobody else would try again."""
        yield

    def close(self) -> None:  # noqa: B027 -- most have nothing to close
        """Let go of connections; the store is not used any more."""

    def abandon(self) -> None:  # noqa: B027 -- most have nothing to close
        """Do not even close it at the end of the program: it may still be waited for."""
