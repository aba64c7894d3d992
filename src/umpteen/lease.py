"""Leases: which runners live on this machine, and what dead ones left running.

A lease is a folder named by the runner's token, outside every store. The kernel frees its
lock on any death of its holders, so nothing here depends on pids staying what they were.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import signal
import stat
import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from umpteen.errors import StoreError
from umpteen.process import list_marked, list_processes, read_machine
from umpteen.results.base import spool_folder
from umpteen.task import RUNNER_VARIABLE, TaskState

__all__ = [
    "KEPT",
    "SPOOL",
    "SYNCED",
    "Kept",
    "Lease",
    "SlotEntry",
    "end_leftovers",
    "find_lease",
    "find_runner",
    "is_held",
    "leases_folder",
    "list_living",
    "local_lock",
    "lock_file",
    "name_hand_in",
    "read_last_slots",
    "take_kept",
]

KEPT = "kept.jsonl"
SYNCED = "synced"  # the folder, beside the leases, of what was unpacked on this machine
SPOOL = "spool"  # the folder, in a lease, of outputs on their way

_REFUSED = "refused"  # what the store would not have, in a lease, for somebody to look at
_SLOT = struct.Struct("<IIIIQd")
_END_LIMIT_S = 20.0
_FORGET_S = 30 * 86400


class SlotEntry(NamedTuple):
    """What one slot runs: batch by its place in the runner's list, task by its place there."""

    slot: int
    ordinal: int
    position: int
    pid: int
    start_ticks: int
    start_s: float


def leases_folder() -> str:
    """The folder of this user's leases, made with mode 700; its owner is checked.

    Raises StoreError where somebody else owns it.
    """
    folder = os.environ.get("UMPTEEN_LEASES") or f"/var/tmp/umpteen-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        os.makedirs(folder, mode=0o700)
    found = os.lstat(folder)
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise StoreError(
            f"{folder} is not a folder of yours", "set UMPTEEN_LEASES to one that is", path=folder
        )
    return folder


class Lease:
    """One runner's lease, held through an open, locked file that its helpers inherit.

    spool: the folder for outputs that go to a store that is no folder.
    """

    def __init__(self, folder: str, lock: int) -> None:
        self.folder, self.lock = folder, lock
        self.spool = os.path.join(folder, SPOOL)
        self._table: mmap.mmap | None = None

    @classmethod
    def create(cls, token: str, address: str, slots: int) -> Lease:
        """A new lease for the runner `token` of the store at `address`, with its lock held."""
        final = os.path.join(leases_folder(), token)
        making = final + ".new"
        os.mkdir(making, 0o700)
        with open(making + "/info.json", "w", encoding="utf-8") as file:
            json.dump({"address": address, "boot": read_machine().boot, "time": time.time()}, file)
        with open(making + "/slots", "wb") as file:
            file.truncate(slots * _SLOT.size)
        lock = os.open(making + "/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(making, final)
        return cls(final, lock)

    @classmethod
    def adopt(cls, token: str, lock: int) -> Lease:
        """The lease that the launcher made and locked; `lock` is the descriptor it passed on."""
        os.set_inheritable(lock, False)
        return cls(os.path.join(leases_folder(), token), lock)

    def open_slots(self, batches: list[str]) -> None:
        """Map the table of slots: shared with every process forked from here on.

        batches: the runner's list, so that the table can be read without it.
        """
        with open(self.folder + "/runner.json", "w", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), "batches": batches}, file)
        fd = os.open(self.folder + "/slots", os.O_RDWR | os.O_CLOEXEC)
        self._table = mmap.mmap(fd, 0)
        os.close(fd)

    def set_slot(self, entry: SlotEntry) -> None:
        """Say what runs in a slot; it is in the file when this returns."""
        assert self._table is not None
        slot, ordinal, position, pid, start_ticks, start_s = entry
        _SLOT.pack_into(
            self._table, slot * _SLOT.size, ordinal, position, pid, 0, start_ticks, start_s
        )

    def clear_slot(self, slot: int) -> None:
        """Nothing runs in the slot."""
        assert self._table is not None
        _SLOT.pack_into(self._table, slot * _SLOT.size, 0, 0, 0, 0, 0, 0.0)

    def list_slots(self) -> list[SlotEntry]:
        """The slots in which something runs."""
        assert self._table is not None
        return list(_parse_slots(bytes(self._table)))

    def tell_trouble(self, text: str) -> None:
        """Say what keeps the runner from going on; empty when nothing does any more."""
        with (
            contextlib.suppress(OSError),
            open(self.folder + "/trouble", "w", encoding="utf-8") as file,
        ):
            file.write(text)

    def set_apart(self, folder: str) -> str:
        """Have a folder of the spool stay when all else of it goes; where it is from now on."""
        target = os.path.join(self.folder, _REFUSED, os.path.basename(folder))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(folder, target)
        return target

    def remove(self) -> None:
        """Give the lease up; its folder goes with it, or is forgotten later if it has to be kept."""
        if os.path.exists(os.path.join(self.folder, _REFUSED)):
            shutil.rmtree(self.spool, ignore_errors=True)
            _bury(self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)


def _parse_slots(table: bytes) -> Iterator[SlotEntry]:
    whole = len(table) - len(table) % _SLOT.size
    for slot, values in enumerate(_SLOT.iter_unpack(table[:whole])):
        ordinal, position, pid, _, start_ticks, start_s = values
        if pid:
            yield SlotEntry(slot, ordinal, position, pid, start_ticks, start_s)


def is_held(token: str) -> bool | None:
    """Whether the runner (or keeper) of that token lives; None where no such lease is known."""
    folder = os.path.join(leases_folder(), token)
    try:
        lock = os.open(folder + "/lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def name_hand_in(address: str) -> str:
    """Of the local lock of whoever hands in to the store at that address."""
    return f"hand-in-{hashlib.blake2b(address.encode(), digest_size=8).hexdigest()}"


@contextlib.contextmanager
def local_lock(name: str) -> Iterator[None]:
    """Hold a lock that processes of this user on this machine share; waits until it is free."""
    with lock_file(os.path.join(leases_folder(), name + ".lock")):
        yield


@contextlib.contextmanager
def lock_file(path: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock, made where there is none; waits until it is free.

    shared: together with others who share it. Whoever holds it alone may remove the file.
    """
    while True:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if _is_at(path, fd):
                os.utime(fd)  # what is old is forgotten
                yield
                return
        finally:
            os.close(fd)


def _is_at(path: str, fd: int) -> bool:
    """Whether the open file still has that name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def find_runner(token: str) -> int | None:
    """The pid of the runner of that token; None where it does not live, or not yet."""
    if not is_held(token):
        return None
    try:
        with open(os.path.join(leases_folder(), token, "runner.json"), encoding="utf-8") as file:
            return int(json.load(file)["pid"])
    except (OSError, ValueError):
        return None


def find_trouble(token: str) -> str:
    """What keeps the runner of that token from going on; empty where nothing does."""
    pid = find_runner(token)
    if pid is None:
        return ""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        state = b""
    if state in (b"T", b"t"):
        return f"its runner was stopped by a signal; kill -CONT {pid} lets it go on"
    try:
        with open(os.path.join(leases_folder(), token, "trouble"), encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def find_lease(token: str) -> dict[str, Any] | None:
    """What the lease says of its runner; None where there is none."""
    try:
        with open(os.path.join(leases_folder(), token, "info.json"), encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
    except (OSError, ValueError):
        return None
    return found


def list_living(address: str) -> set[str]:
    """The tokens of runners of the store at `address` that live on this machine."""
    return {
        token
        for token in os.listdir(leases_folder())
        if (found := find_lease(token)) and found.get("address") == address and is_held(token)
    }


def end_leftovers(address: str) -> list[str]:
    """End what dead runners of the store at `address` left running here; their tokens.

    Ended is what carries a dead runner's token in its environment, or is in the session of
    a task in its table. Nobody else's process is touched.
    """
    dead = []
    folder, boot = leases_folder(), read_machine().boot
    for token in sorted({*os.listdir(folder)} - {SYNCED}):
        found = find_lease(token)
        place = os.path.join(folder, token)
        if found is None or os.path.exists(os.path.join(place, "buried")):
            _forget_if_old(place)
        elif found.get("address") == address and is_held(token) is False:
            if found.get("boot") == boot:
                _end_all_of(token, place)
            _bury(place)
            dead.append(token)
    return dead


class Kept(NamedTuple):
    """A success that a runner of this machine could not put: its record, and its outputs here."""

    attempt: int
    digest: str
    record: bytes
    folder: str


def take_kept(address: str, token: str) -> dict[int, Kept]:
    """By task index, what dead runners of the store at `address` kept; nobody else gets it."""
    found: dict[int, Kept] = {}
    for other in os.listdir(leases_folder()):
        folder = os.path.join(leases_folder(), other)
        taken = os.path.join(folder, f"taken-{token}.jsonl")
        lease = find_lease(other)
        if lease is None or lease.get("address") != address or is_held(other):
            continue
        with contextlib.suppress(OSError):
            os.rename(os.path.join(folder, KEPT), taken)
            with open(taken, "rb") as file:
                found.update(_parse_kept(file.read(), os.path.join(folder, SPOOL)))
    return found


def _parse_kept(content: bytes, spool: str) -> Iterator[tuple[int, Kept]]:
    for line in content.splitlines():
        with contextlib.suppress(ValueError, KeyError):
            record = json.loads(line)
            # One with a reason is of a task whose files are not complete.
            if record["state"] == TaskState.SUCCEEDED.value and not record.get("reason"):
                folder = spool_folder(spool, record["task"], record["attempt"])
                kept = Kept(record["attempt"], record["digest"], line, folder)
                yield record["task"], kept


def _bury(folder: str) -> None:
    """Mark a dead runner's lease as dealt with; what ran at its death can still be read."""
    with contextlib.suppress(OSError), open(os.path.join(folder, "buried"), "wb"):
        pass


def read_last_slots(token: str, batch: str) -> set[int]:
    """Which tasks of a batch, by their place in it, a runner of this machine had at its end."""
    folder = os.path.join(leases_folder(), token)
    try:
        with open(folder + "/runner.json", encoding="utf-8") as file:
            ordinal = json.load(file)["batches"].index(batch)
        with open(folder + "/slots", "rb") as table:
            slots = list(_parse_slots(table.read()))
    except (OSError, ValueError):
        return set()
    return {slot.position for slot in slots if slot.ordinal == ordinal}


def _forget_if_old(folder: str) -> None:
    with contextlib.suppress(OSError):
        is_old = time.time() - os.stat(folder).st_mtime > _FORGET_S
        if is_old and not is_held(os.path.basename(folder)):
            os.unlink(folder) if os.path.isfile(folder) else shutil.rmtree(folder)


def _end_all_of(token: str, folder: str) -> None:
    """Kill until two looks 100 ms apart find nothing."""
    try:
        with open(folder + "/slots", "rb") as file:
            slots = list(_parse_slots(file.read()))
    except OSError:
        slots = []
    quiet, limit = 0, time.monotonic() + _END_LIMIT_S
    while quiet < 2 and time.monotonic() < limit:
        pids = set(list_marked(RUNNER_VARIABLE, token)) | _list_in_sessions(slots)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        quiet = 0 if pids else quiet + 1
        if quiet < 2:
            time.sleep(0.1)


def _list_in_sessions(slots: list[SlotEntry]) -> set[int]:
    """Processes in a session that a task of the table leads or led.

    A leader that lives must have started when the table says (within a tick or two), else
    the pid is somebody else's by now.
    """
    if not slots:
        return set()
    processes = list_processes()
    starts = {entry.pid: entry.start_ticks for entry in processes}
    sessions = {
        slot.pid: slot.start_ticks
        for slot in slots
        if slot.pid not in starts or abs(starts[slot.pid] - slot.start_ticks) <= 2
    }
    return {
        entry.pid
        for entry in processes
        if entry.session in sessions and entry.start_ticks >= sessions[entry.session] - 2
    }
