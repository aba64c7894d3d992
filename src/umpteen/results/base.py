"""The name of every file of a job, and what a results store can do.

Keys are paths below the store's address with `/` between their parts. No other module
writes such a name. Standard library alone.
"""

from __future__ import annotations

import abc
import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Union

__all__ = [
    "Appender",
    "BATCHES",
    "CANCEL",
    "CLOSED",
    "Content",
    "FOLLOW",
    "Glance",
    "HANDED",
    "JOB",
    "LOCK",
    "LiveKey",
    "OPTIONS_SUFFIX",
    "OUTPUTS",
    "OWN_FOLDER",
    "PROBE",
    "RECORDS",
    "REMOVING",
    "RUNNING",
    "RecordsKey",
    "SPLIT",
    "STATUS_BYTES",
    "Store",
    "TASKS",
    "UNFINISHED",
    "attempt_folder",
    "batch_key",
    "closed_key",
    "follow_key",
    "handed_key",
    "handles_key",
    "live_folder",
    "options_key",
    "parse_live_key",
    "parse_numbers",
    "parse_records_key",
    "parse_running_key",
    "records_folder",
    "records_key",
    "running_folder",
    "running_key",
    "scratch_folder",
    "spool_folder",
    "synced_key",
    "tasks_key",
]

OWN_FOLDER = ".umpteen"
JOB = ".umpteen/job.json"
CANCEL = ".umpteen/cancel"
LOCK = ".umpteen/lock"
FOLLOW = ".umpteen/follow"
HANDED, TASKS = ".umpteen/handed", ".umpteen/tasks"
BATCHES, RECORDS, RUNNING = ".umpteen/batches", ".umpteen/records", ".umpteen/running"
SPLIT = ".umpteen/split"  # what was sent for a cluster's machines, where no other place is said
PROBE = ".umpteen/probe"  # always the same, so that one at most is left where nobody may remove it
OPTIONS_SUFFIX = ".options.json"  # of what its owner alone may read, as is job.json
REMOVING = "removing"  # in `job.json`: which part of the job is being removed
OUTPUTS = ("stdout", "stderr", "status_code", "status", "results")  # of an attempt, in its folder
CLOSED = "closed"  # in the records folder of a batch

_RECORDS_NAME = re.compile(r"([0-9]{1,10})-([0-9a-f]{1,64})\.jsonl")
_LIVE_NAME = re.compile(r"([0-9]{1,10})\.([0-9]{1,10})\.([0-9]{1,10})-([0-9a-f]{1,64})")
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")


class RecordsKey(NamedTuple):
    """Start `start` of a batch by the runner `token`; these order as starts do."""

    start: int
    token: str


class LiveKey(NamedTuple):
    """A running attempt of a task; these order as attempts begin, also where none was recorded.

    batch: its number, 0 for one from elsewhere.
    """

    batch: int
    start: int
    attempt: int
    token: str


def tasks_key(hand_in: int, mark: str = "") -> str:
    """The tasks that a hand-in added, changed or dropped; with a mark where others' are there."""
    return f"{TASKS}/{_number(hand_in, mark)}.jsonl"


def _number(hand_in: int, mark: str) -> str:
    return f"{hand_in}.{mark}" if mark else str(hand_in)


def handed_key(hand_in: int) -> str:
    """What a hand-in gave to which executor."""
    return f"{HANDED}/{hand_in}.json"


def options_key(hand_in: int, mark: str = "") -> str:
    """The options of the executor that a hand-in went to; the mark as for its tasks."""
    return f"{HANDED}/{_number(hand_in, mark)}{OPTIONS_SUFFIX}"


def handles_key(hand_in: int) -> str:
    """What the executor answered to a hand-in."""
    return f"{HANDED}/{hand_in}.handles.json"


def batch_key(batch: str) -> str:
    """What one runner is given."""
    return f"{BATCHES}/{batch}.json"


def records_folder(batch: str) -> str:
    """The records of every start of a batch."""
    return f"{RECORDS}/{batch}"


def records_key(batch: str, key: RecordsKey) -> str:
    """What happened in one start of a batch."""
    return f"{RECORDS}/{batch}/{key.start}-{key.token}.jsonl"


def parse_records_key(name: str) -> RecordsKey | None:
    """The start that a file of a records folder is of; None for other files."""
    match = _RECORDS_NAME.fullmatch(name)
    return RecordsKey(int(match[1]), match[2]) if match else None


def closed_key(batch: str) -> str:
    """The mark that no start of this batch may begin any more."""
    return f"{RECORDS}/{batch}/{CLOSED}"


def running_folder(batch: str) -> str:
    """What is happening in the starts of a batch."""
    return f"{RUNNING}/{batch}"


def running_key(batch: str, key: RecordsKey) -> str:
    """What is happening in one start of a batch."""
    return f"{RUNNING}/{batch}/{key.start}-{key.token}.json"


def parse_running_key(name: str) -> RecordsKey | None:
    """The start that a file of a running folder is of; None for other files."""
    return parse_records_key(f"{name}l") if name.endswith(".json") else None


def scratch_folder(token: str) -> str:
    """The results folders of a runner's slots."""
    return f".umpteen/scratch/{token}"


def spool_folder(spool: str, index: int, attempt: int) -> str:
    """Where a runner leaves one attempt's outputs, to be brought to where they belong."""
    return f"{spool}/{index}-{attempt}"


def follow_key(index: int) -> str:
    """The mark that somebody follows what a task prints."""
    return f"{FOLLOW}/{index}"


def live_folder(index: int, key: LiveKey | None = None) -> str:
    """What a running attempt has printed so far, in pieces; of all attempts without one."""
    top = f".umpteen/live/{index}"
    return f"{top}/{key.batch}.{key.start}.{key.attempt}-{key.token}" if key else top


def parse_live_key(name: str) -> LiveKey | None:
    """The attempt that a folder is of; None for other names."""
    match = _LIVE_NAME.fullmatch(name)
    return LiveKey(int(match[1]), int(match[2]), int(match[3]), match[4]) if match else None


def synced_key(digest: str) -> str:
    """The archive of a folder that was synced."""
    return f".umpteen/synced/{digest}.tar.gz"


UNFINISHED = ".new"  # behind the name of such a folder into which not all has been moved yet


def attempt_folder(attempt: int, token: str) -> str:
    """Below a task's folder: what one attempt left that is not the one to be seen there."""
    return f"attempts/{attempt}-{token}"


def parse_numbers(names: list[str], suffix: str) -> list[int]:
    """The sorted numbers K of files that are called `K` + suffix."""
    stems = (name[: -len(suffix)] for name in names if name.endswith(suffix))
    return sorted(int(stem) for stem in stems if _NUMBER.fullmatch(stem))


STATUS_BYTES = 32  # more than a status file has


class Glance(NamedTuple):
    """What a task's folder shows: the content of its status file, None where there is none."""

    status: bytes | None
    has_stdout: bool


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
    """What every results store can do; errors are StoreError, naming what was being done.

    heard_s: when it last answered, on the monotonic clock, where that may take long.
    """

    address: str
    heard_s = float("-inf")
    # Whether what was put there survives a power loss of this machine.
    is_lasting = False
    # Whether a thousand files in many folders are one request.
    lists_deep = False

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

    def list_many(self, folders: Sequence[str]) -> list[list[str]]:
        """`list` of each folder."""
        return [self.list(folder) for folder in folders]

    def glance(self, folders: Sequence[str], name: str) -> list[Glance]:
        """At many folders of tasks, in as few requests as may be; name: of their status file."""
        contents = self.read_many([(f"{folder}/{name}", 0, STATUS_BYTES) for folder in folders])
        there = self.list_many(folders)
        return [Glance(content, "stdout" in names) for content, names in zip(contents, there)]

    @abc.abstractmethod
    def list(self, folder: str) -> list[str]:
        """The names in a folder, in no order; none if there is no such folder."""

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Bear longer with trouble that may pass, where nobody else would try again."""
        yield

    def close(self) -> None:  # noqa: B027 -- most have nothing to close
        """Let go of connections; the store is not used any more."""

    def abandon(self) -> None:  # noqa: B027 -- most have nothing to close
        """Do not even close it at the end of the program: it may still be waited for."""
