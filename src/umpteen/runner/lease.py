"""Leases: which runners live on this machine, and what each says of itself.

A lease is a folder named by the runner's token, outside every store. The kernel frees its
lock on any death of its holders, so nothing here depends on pids staying what they were.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import re
import shutil
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, TypedDict

from umpteen.model.complaint import find_last_word
from umpteen.model.states import SLOTS_MOST
from umpteen.model.variables import LEASES
from umpteen.store.identity import Identity
from umpteen.system.host import read_machine
from umpteen.system.locks import leases_folder, refuse
from umpteen.system.processes import (
    is_running,
    is_stopped,
    read_pid_namespace,
    read_process,
)
from umpteen.system.whole_files import replace_file

__all__ = [
    "KEPT",
    "SPOOL",
    "SYNCED",
    "Lease",
    "LeaseFolder",
    "SlotEntry",
    "find_death",
    "find_folder",
    "find_runner",
    "find_trouble",
    "is_alive",
    "is_held",
    "list_folders",
    "list_living",
    "read_last_slots",
]

KEPT = "kept.jsonl"
SYNCED = "synced"  # the folder, beside the leases, of what was unpacked on this machine
SPOOL = "spool"  # the folder, in a lease, of outputs on their way

_CLEARED = "buried"  # a mark of ours in a lease that was dealt with
_REFUSED = "refused"  # what the store would not have, in a lease, for somebody to look at
_TOKEN = re.compile("[0-9a-f]{12}")
_NAME = re.compile("[0-9a-z-]+")
_SLOT = struct.Struct("<IIIIQd")
_LAST_WORDS = 4096
_STARTING, _ENDED = 1, 2  # of a slot whose task is about to have a pid, or has none any more
_SAID_BYTES = 4096


class SlotEntry(NamedTuple):
    """What one slot runs, or ran last."""

    slot: int
    ordinal: int  # the batch's place in the runner's list
    position: int  # the task's place in the batch
    pid: int
    start_ticks: int  # since the boot
    start_s: float  # since 1970
    has_ended: bool = False  # it ran that last, and nothing since


class Lease:
    """One runner's lease, held through an open, locked file that its lanes inherit."""

    def __init__(self, folder: str, lock: int) -> None:
        self.folder, self.lock = folder, lock
        self.spool = os.path.join(folder, SPOOL)  # for outputs that go to a store that is no folder
        self._table: mmap.mmap | None = None

    @classmethod
    def create(cls, token: str, store: Identity, slots: int) -> Lease:
        """A new lease for the runner `token` of a store, with its lock held.

        Nobody finds it by that name before all of it is there. Raises StoreError.
        """
        final = os.path.join(leases_folder(), token)
        making, lock = final + ".new", -1
        told: LeaseInfo = {
            "address": store.address,
            "id": store.id,
            "place": store.place,
            "boot": read_machine().boot,
            "time": time.time(),
        }
        try:
            os.mkdir(making, 0o700)
            lock = os.open(making + "/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            replace_file(making + "/info.json", json.dumps(told))
            _reserve(making + "/slots", min(slots, SLOTS_MOST) * _SLOT.size)
            os.rename(making, final)
        except OSError as error:
            if lock >= 0:
                os.close(lock)
            shutil.rmtree(making, ignore_errors=True)
            raise refuse(f"cannot make the lease {final}", error) from error
        return cls(final, lock)

    @classmethod
    def adopt(cls, token: str, lock: int) -> Lease:
        """The lease that the launcher made and locked; `lock` is the descriptor it passed on."""
        os.set_inheritable(lock, False)
        return cls(os.path.join(leases_folder(), token), lock)

    def open_slots(self, batches: Sequence[str]) -> None:
        """Map the table of slots: shared with every process forked from here on.

        batches: the runner's list, so that the table can be read without it. Raises StoreError.
        """
        self.write_processes(batches, ())
        fd = os.open(self.folder + "/slots", os.O_RDWR | os.O_CLOEXEC)
        self._table = mmap.mmap(fd, 0)
        os.close(fd)

    def write_processes(self, batches: Sequence[str], lanes: Sequence[int]) -> None:
        """Say which processes this one and its lanes are. Raises StoreError."""
        own = read_process(os.getpid())
        told = {
            "pid": os.getpid(),
            "start_ticks": own.start_ticks if own else 0,
            "pid_namespace": read_pid_namespace(),
            "batches": list(batches),
            "lanes": list(lanes),
        }
        path = self.folder + "/runner.json"
        try:
            replace_file(path, json.dumps(told))
        except OSError as error:
            raise refuse(f"cannot write {path}", error) from error

    def open_complaints(self) -> BinaryIO:
        """A new file for the runner's stderr, with room for its last words. Raises StoreError."""
        path = self.folder + "/complaints"
        try:
            _reserve(path, _LAST_WORDS)
            return open(path, "r+b")
        except OSError as error:
            self.remove()
            raise refuse(f"cannot make {path}", error) from error

    def set_slot(self, entry: SlotEntry) -> None:
        """Say what runs in a slot; it is in the file when this returns."""
        slot, ordinal, position, pid, start_ticks, start_s, _ = entry
        self._put(slot, ordinal, position, pid, 0, start_ticks, start_s)

    def mark_slot(self, slot: int, ordinal: int, position: int) -> None:
        """Say what is about to run in a slot: it may kill whoever would say so afterwards."""
        self._put(slot, ordinal, position, 0, _STARTING, 0, 0.0)

    def end_slot(self, slot: int, ordinal: int, position: int) -> None:
        """Say that it has ended, before the runner is told: the task may have killed that one."""
        self._put(slot, ordinal, position, 0, _ENDED, 0, 0.0)

    def clear_slot(self, slot: int) -> None:
        """Nothing runs in the slot."""
        self._put(slot, 0, 0, 0, 0, 0, 0.0)

    def _put(self, slot: int, *values: float) -> None:
        """Values as `_SLOT` has them: ordinal, position, pid, phase, start ticks, start time."""
        assert self._table is not None
        _SLOT.pack_into(self._table, slot * _SLOT.size, *values)

    def list_slots(self) -> list[SlotEntry]:
        """The slots in which something runs."""
        assert self._table is not None
        return [slot for slot in _parse_slots(bytes(self._table)) if slot.pid]

    def write_trouble(self, text: str) -> None:
        """Say what keeps the runner from going on; empty when nothing does any more."""
        with (
            contextlib.suppress(OSError),
            open(self.folder + "/trouble", "w", encoding="utf-8") as file,
        ):
            file.write(text)

    def write_strays(self, strays: Iterable[tuple[int, int]]) -> None:
        """Say which orphans of tasks there are: pid and start time of each."""
        with contextlib.suppress(OSError):
            replace_file(self.folder + "/strays", json.dumps({"strays": list(strays)}))

    def keep_refused(self, folder: str) -> str:
        """Have a folder of the spool stay when all else of it goes; where it is from now on."""
        target = os.path.join(self.folder, _REFUSED, os.path.basename(folder))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(folder, target)
        return target

    def remove(self) -> None:
        """Give the lease up; its folder goes with it,
        or is forgotten later if it has to be kept.
        """
        if os.path.exists(os.path.join(self.folder, _REFUSED)):
            shutil.rmtree(self.spool, ignore_errors=True)
            LeaseFolder(os.path.basename(self.folder), self.folder).mark_cleared()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)


def _reserve(path: str, size: int) -> None:
    """A file of zeros that has its room on the disk: what is mapped cannot be refused later."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(AttributeError):  # not on macOS
            os.posix_fallocate(fd, 0, size)
            return
        os.write(fd, bytes(size))
    finally:
        os.close(fd)


def _parse_slots(table: bytes) -> Iterator[SlotEntry]:
    """The slots that were used: what is about to run has no pid yet,
    what has ended none any more.
    """
    whole = len(table) - len(table) % _SLOT.size
    for slot, values in enumerate(_SLOT.iter_unpack(table[:whole])):
        ordinal, position, pid, phase, start_ticks, start_s = values
        if pid or phase:
            yield SlotEntry(slot, ordinal, position, pid, start_ticks, start_s, phase == _ENDED)


# --- the lease of any runner ---------------------------------------------------------------


class LeaseInfo(TypedDict, total=False):
    """What a lease says of its store, as `Identity` has it, and of when it was made."""

    address: str
    id: str
    place: str
    boot: str  # of this machine
    time: float  # seconds since 1970


class RunnerInfo(NamedTuple):
    """What a runner says of its processes."""

    pid: int = 0
    start_ticks: int = 0  # of that process, since the boot
    pid_namespace: str | None = None  # that the pids are of; None: it has not begun
    batches: Sequence[str] = ()
    lanes: Sequence[int] = ()  # their pids


class LeaseFolder:
    """What others can know of a lease: whether its runner lives, and what it said of itself."""

    def __init__(self, token: str, path: str) -> None:
        self.token, self.path = token, path

    def _read(self, name: str) -> Any:
        """What a file of the lease says; nothing where there is none."""
        try:
            with open(f"{self.path}/{name}", encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            return {}

    def read_info(self) -> LeaseInfo:
        """Of which store it is, and of which boot of this machine."""
        found: LeaseInfo = self._read("info.json")
        return found

    def read_runner(self) -> RunnerInfo:
        """Which processes its runner is, and its batches; nothing where it has not begun."""
        told = self._read("runner.json")
        known = {name: told[name] for name in RunnerInfo._fields if name in told}
        return RunnerInfo(**known)

    def read_strays(self) -> list[tuple[int, int]]:
        """Orphans of its tasks: pid and start time of each."""
        return [(pid, start_ticks) for pid, start_ticks in self._read("strays").get("strays", ())]

    def read_slots(self) -> list[SlotEntry]:
        """The slots that were used, no more than there can be."""
        try:
            with open(self.path + "/slots", "rb") as file:
                return list(_parse_slots(file.read(SLOTS_MOST * _SLOT.size)))
        except OSError:
            return []

    def is_held(self) -> bool | None:
        """Whether a process holds its lock; None where there is no such lease."""
        try:
            lock = os.open(self.path + "/lock", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def lives(self) -> bool | None:
        """Whether its runner lives; None where there is no such lease.

        Its lanes may hold its lock for a while after it was killed; nothing is run by them alone.
        """
        held = self.is_held()
        return held and not self.has_lost_its_runner()

    def has_lost_its_runner(self) -> bool:
        """Whether the runner of a lease that is held has ended all the same."""
        runner = self.read_runner()
        if runner.pid_namespace != read_pid_namespace():  # not begun yet, or we see others
            return False
        return not is_running(runner.pid, runner.start_ticks)

    def find_stopped_lane(self) -> int:
        """The pid of a lane that a signal has stopped; 0 where none is."""
        return _find_stopped(self.read_runner().lanes)

    def mark_cleared(self) -> None:
        """Have it dealt with; what ran at its runner's death can still be read."""
        with contextlib.suppress(OSError), open(f"{self.path}/{_CLEARED}", "wb"):
            pass

    def is_cleared(self) -> bool:
        """Whether it was dealt with."""
        return os.path.exists(f"{self.path}/{_CLEARED}")


def find_folder(token: str) -> LeaseFolder:
    """The lease of a runner (or of what holds a cluster), which may not be there."""
    if not _NAME.fullmatch(token):
        return LeaseFolder(token, os.devnull)  # below which there is nothing
    places = _list_places()
    found = (f"{place}/{token}" for place in places if os.path.isdir(f"{place}/{token}"))
    return LeaseFolder(token, next(found, f"{places[0]}/{token}"))


def list_folders() -> Iterator[LeaseFolder]:
    """Every lease on this machine."""
    for place in _list_places():
        for name in sorted(os.listdir(place)):
            if _TOKEN.fullmatch(name):
                yield LeaseFolder(name, f"{place}/{name}")


def _list_places() -> list[str]:
    """Where leases are: in the folder of our own, and where older versions put them."""
    own, given = leases_folder(), os.environ.get(LEASES)
    return [own, given] if given and not os.path.samefile(own, given) else [own]


# --- who lives ------------------------------------------------------------------------------


def is_held(token: str) -> bool | None:
    """Whether a process holds the lock of that runner; None where no such lease is known.

    The same of a process that holds a cluster.
    """
    return find_folder(token).is_held()


def is_alive(token: str) -> bool | None:
    """Whether the runner of that token lives; None where no such lease is known."""
    return find_folder(token).lives()


def find_runner(token: str) -> int | None:
    """The pid of the runner of that token; None where it does not live, or not yet."""
    lease = find_folder(token)
    return (lease.read_runner().pid or None) if lease.lives() else None


def list_living(store: Identity) -> set[str]:
    """The tokens of runners of a store that live on this machine."""
    return {
        lease.token for lease in list_folders() if store.fits(lease.read_info()) and lease.lives()
    }


def read_last_slots(token: str, batch: str, *, ended: bool = False) -> set[int]:
    """Which tasks of a batch, by their place in it, a runner of this machine had at its end.

    ended: those instead that had ended, each as the last of its slot.
    """
    lease = find_folder(token)
    batches = lease.read_runner().batches
    if batch not in batches:
        return set()
    ordinal = batches.index(batch)
    slots = (slot for slot in lease.read_slots() if slot.has_ended == ended)
    return {slot.position for slot in slots if slot.ordinal == ordinal}


# --- what is wrong with it --------------------------------------------------------------------


def find_death(token: str) -> str:
    """Why a runner of this machine has ended, in its last words; empty where it left none."""
    lease = find_folder(token)
    if lease.is_held():
        return ""
    try:
        with open(lease.path + "/complaints", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - max(_SAID_BYTES, _LAST_WORDS)))
            said, _, _ = file.read().partition(b"\0")  # the rest is room that was kept for it
            word = find_last_word(said.decode(errors="replace"))
    except OSError:
        return ""
    return f"its runner has ended: {word}" if word else ""


def find_trouble(token: str) -> str:
    """What keeps the runner of that token from going on; empty where nothing does."""
    lease = find_folder(token)
    if not lease.is_held():
        return ""
    runner = _find_stopped([lease.read_runner().pid])
    lane = lease.find_stopped_lane()
    if lane and lease.has_lost_its_runner():
        return (
            "its runner was killed, and a part of it is stopped by a signal: the next run, or"
            f" umpteen cancel, ends that; so does kill -CONT {lane}"
        )
    if stopped := runner or lane:
        part = "its runner" if runner else "a part of its runner"
        return f"{part} was stopped by a signal; kill -CONT {stopped} lets it go on"
    try:
        with open(lease.path + "/trouble", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _find_stopped(pids: Sequence[int]) -> int:
    return next((pid for pid in pids if is_stopped(pid)), 0)
