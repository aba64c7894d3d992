"""Leases: which runners live on this machine, and what dead ones left running.

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
import signal
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Callable, NamedTuple

from umpteen.model.command import RUNNER_VARIABLE
from umpteen.model.complaint import find_last_word
from umpteen.model.states import SLOTS_MOST, TaskState
from umpteen.store.identity import Identity
from umpteen.store.layout import spool_folder
from umpteen.system.host import read_machine
from umpteen.system.locks import leases_folder, refuse
from umpteen.system.processes import (
    is_running,
    is_stopped,
    list_below,
    list_marked,
    list_processes,
    read_pid_namespace,
    read_process,
)
from umpteen.system.whole_files import replace_file

__all__ = [
    "KEPT",
    "SPOOL",
    "SYNCED",
    "Kept",
    "Lease",
    "SlotEntry",
    "end_leftovers",
    "find_death",
    "find_kept",
    "find_lease",
    "find_runner",
    "find_trouble",
    "is_alive",
    "is_held",
    "list_living",
    "read_last_slots",
]

KEPT = "kept.jsonl"
SYNCED = "synced"  # the folder, beside the leases, of what was unpacked on this machine
SPOOL = "spool"  # the folder, in a lease, of outputs on their way

_REFUSED = "refused"  # what the store would not have, in a lease, for somebody to look at
_TOKEN = re.compile("[0-9a-f]{12}")
_NAME = re.compile("[0-9a-z-]+")
# Nothing else that lies beside leases is ever removed.
_OURS = re.compile(r"[0-9a-f]{12}(\.new)?|(hand-in|place|split|start)-.+\.lock|(keeper|runner)-.+")
_SLOT = struct.Struct("<IIIIQd")
_LAST_WORDS = 4096
_STARTING, _ENDED = 1, 2  # of a slot whose task is about to have a pid, or has none any more
_END_LIMIT_S = 20.0
_WIND_DOWN_S = 4.0  # more than lanes without a runner give their tasks
_FORGET_S = 30 * 86400
_SAID_BYTES = 4096


class SlotEntry(NamedTuple):
    """What one slot runs: batch by its place in the runner's list, task by its place there.

    has_ended: whether it ran that last, and nothing since.
    """

    slot: int
    ordinal: int
    position: int
    pid: int
    start_ticks: int
    start_s: float
    has_ended: bool = False


def _list_places() -> list[str]:
    """Where leases are: in the folder of our own, and where older versions put them."""
    own, given = leases_folder(), os.environ.get("UMPTEEN_LEASES")
    return [own, given] if given and not os.path.samefile(own, given) else [own]


def _find(token: str) -> str:
    """The folder of a lease (or keeper), which may not be there."""
    if not _NAME.fullmatch(token):
        return os.devnull  # below which there is nothing
    places = _list_places()
    found = (f"{place}/{token}" for place in places if os.path.isdir(f"{place}/{token}"))
    return next(found, f"{places[0]}/{token}")


def _list_leases() -> Iterator[tuple[str, str]]:
    """(token, folder) of every lease on this machine."""
    for place in _list_places():
        for name in sorted(os.listdir(place)):
            if _TOKEN.fullmatch(name):
                yield name, f"{place}/{name}"


class Lease:
    """One runner's lease, held through an open, locked file that its helpers inherit.

    spool: the folder for outputs that go to a store that is no folder.
    """

    def __init__(self, folder: str, lock: int) -> None:
        self.folder, self.lock = folder, lock
        self.spool = os.path.join(folder, SPOOL)
        self._table: mmap.mmap | None = None

    @classmethod
    def create(cls, token: str, store: Identity, slots: int) -> Lease:
        """A new lease for the runner `token` of a store, with its lock held.

        Nobody finds it by that name before all of it is there. Raises StoreError.
        """
        final = os.path.join(leases_folder(), token)
        making, lock = final + ".new", -1
        told = {**store._asdict(), "boot": read_machine().boot, "time": time.time()}
        try:
            os.mkdir(making, 0o700)
            lock = os.open(making + "/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(making + "/info.json", told)
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
            _replace(path, told)
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
        """Say that it has ended: it may have killed the runner, before that has heard of it."""
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
            _replace(self.folder + "/strays", {"strays": list(strays)})

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
            _mark_cleared(self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)


def _write(path: str, content: dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file)


def _replace(path: str, content: dict[str, Any]) -> None:
    replace_file(path, json.dumps(content))


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


def _read_slots(folder: str) -> list[SlotEntry]:
    """Those of a lease, no more than there can be."""
    try:
        with open(folder + "/slots", "rb") as file:
            return list(_parse_slots(file.read(SLOTS_MOST * _SLOT.size)))
    except OSError:
        return []


# --- who lives ------------------------------------------------------------------------------


def is_held(token: str) -> bool | None:
    """Whether somebody holds the lock of that runner (or keeper);
    None where no such lease is known.
    """
    return _is_locked(_find(token))


def _is_locked(folder: str) -> bool | None:
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


def is_alive(token: str) -> bool | None:
    """Whether the runner of that token lives; None where no such lease is known.

    Its lanes may hold its lock for a while after it was killed; nothing is run by them alone.
    """
    return _lives(_find(token))


def _lives(folder: str) -> bool | None:
    held = _is_locked(folder)
    return held and not _has_lost_its_runner(folder)


def _has_lost_its_runner(folder: str) -> bool:
    """Whether the runner of a lease that is held has ended all the same."""
    told = _read(folder, "runner.json")
    if told.get("pid_namespace") != read_pid_namespace():  # it has not begun yet, or we see others
        return False
    return not is_running(told["pid"], told["start_ticks"])


def _read(folder: str, name: str) -> dict[str, Any]:
    """What a file of a lease says; nothing where there is none."""
    try:
        with open(f"{folder}/{name}", encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
    except (OSError, ValueError):
        return {}
    return found


def find_lease(token: str) -> dict[str, Any] | None:
    """What the lease says of its runner; None where there is none."""
    return _read(_find(token), "info.json") or None


def find_runner(token: str) -> int | None:
    """The pid of the runner of that token; None where it does not live, or not yet."""
    folder = _find(token)
    return _read(folder, "runner.json").get("pid") if _lives(folder) else None


def find_death(token: str) -> str:
    """Why a runner of this machine is no more, in its own last words;
    empty where it said nothing.
    """
    folder = _find(token)
    if _is_locked(folder):
        return ""
    try:
        with open(folder + "/complaints", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - max(_SAID_BYTES, _LAST_WORDS)))
            said, _, _ = file.read().partition(b"\0")  # the rest is room that was kept for it
            word = find_last_word(said.decode(errors="replace"))
    except OSError:
        return ""
    return f"its runner has ended: {word}" if word else ""


def find_trouble(token: str) -> str:
    """What keeps the runner of that token from going on; empty where nothing does."""
    folder = _find(token)
    if not _is_locked(folder):
        return ""
    told = _read(folder, "runner.json")
    runner, lane = _find_stopped([told.get("pid", 0)]), _find_stopped(told.get("lanes", ()))
    if lane and _has_lost_its_runner(folder):
        return (
            "its runner was killed, and a part of it is stopped by a signal: the next run, or"
            f" umpteen cancel, ends that; so does kill -CONT {lane}"
        )
    if stopped := runner or lane:
        part = "its runner" if runner else "a part of its runner"
        return f"{part} was stopped by a signal; kill -CONT {stopped} lets it go on"
    try:
        with open(folder + "/trouble", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _find_stopped(pids: Sequence[int]) -> int:
    return next((pid for pid in pids if is_stopped(pid)), 0)


def list_living(store: Identity) -> set[str]:
    """The tokens of runners of a store that live on this machine."""
    return {
        token
        for token, folder in _list_leases()
        if store.fits(_read(folder, "info.json")) and _lives(folder)
    }


# --- what dead ones left --------------------------------------------------------------------


def _keep_all(_: str, __: str) -> None:
    return None


def end_leftovers(store: Identity, clear: Callable[[str, str], None] = _keep_all) -> list[str]:
    """End what dead runners of a store left running here; their tokens.

    Ended is what carries a dead runner's token in its environment, is in the session of a task in
    its table, or came to it as an orphan; and what is below these. Nobody else's process is
    touched. clear: called with the token and the lease's folder of each, once nothing of it runs.
    """
    dead = []
    boot = read_machine().boot
    for token, folder in list(_list_leases()):
        told = _read(folder, "info.json")
        if os.path.exists(folder + "/buried") or not store.fits(told):
            continue
        if _lives(folder) is False:
            if told.get("boot") == boot:
                _wind_down(folder)
                _end_all_of(token, folder)
            clear(token, folder)
            _mark_cleared(folder)
            dead.append(token)
    _forget_old()
    return dead


def _wind_down(folder: str) -> None:
    """Let the lanes of a dead runner end their tasks kindly, if they can."""
    limit = time.monotonic() + _WIND_DOWN_S
    lanes = _read(folder, "runner.json").get("lanes", ())
    while _is_locked(folder) and time.monotonic() < limit:
        if _find_stopped(lanes):
            return
        time.sleep(0.05)


class Kept(NamedTuple):
    """A success that a runner of this machine could not record.

    boot: of the machine at that time. folder: where its outputs are on this machine, if they
    have not been brought to the store. below: where they belong, relative to the task's folder.
    """

    attempt: int
    digest: str
    record: bytes
    boot: str
    folder: str
    below: str


def find_kept(store: Identity) -> dict[int, Kept]:
    """By task index, the newest of what dead runners of a store kept on this machine."""
    found: dict[int, Kept] = {}
    for _, folder in _list_leases():
        lease = _read(folder, "info.json")
        is_of_another = store.id and lease.get("id", store.id) != store.id  # removed, and made anew
        if not store.fits(lease) or is_of_another or _is_locked(folder):
            continue
        with contextlib.suppress(OSError), open(os.path.join(folder, KEPT), "rb") as file:
            for index, kept in _parse_kept(file.read(), folder, str(lease.get("boot"))):
                if index not in found or _is_better(kept, found[index]):
                    found[index] = kept
    return found


def _is_better(kept: Kept, other: Kept) -> bool:
    if kept.attempt != other.attempt:
        return kept.attempt > other.attempt
    return os.path.isdir(kept.folder)


def _parse_kept(content: bytes, lease: str, boot: str) -> Iterator[tuple[int, Kept]]:
    for line in content.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            record = json.loads(line)
            # One with a reason is of a task whose files are not complete.
            if record["state"] == TaskState.SUCCEEDED.value and not record.get("reason"):
                index, attempt = int(record["task"]), int(record["attempt"])
                folder = spool_folder(os.path.join(lease, SPOOL), index, attempt)
                below = str(record.get("outputs", ""))
                yield index, Kept(attempt, str(record["digest"]), line, boot, folder, below)


def _mark_cleared(folder: str) -> None:
    """Mark a dead runner's lease as dealt with; what ran at its death can still be read."""
    with contextlib.suppress(OSError), open(os.path.join(folder, "buried"), "wb"):
        pass


def read_last_slots(token: str, batch: str, *, ended: bool = False) -> set[int]:
    """Which tasks of a batch, by their place in it, a runner of this machine had at its end.

    ended: those instead that had ended, each as the last of its slot.
    """
    folder = _find(token)
    batches = _read(folder, "runner.json").get("batches", [])
    if batch not in batches:
        return set()
    ordinal = batches.index(batch)
    slots = (slot for slot in _read_slots(folder) if slot.has_ended == ended)
    return {slot.position for slot in slots if slot.ordinal == ordinal}


def _forget_old() -> None:
    """Remove what nobody has used for a month, where nothing but ours is."""
    place, since = leases_folder(), time.time() - _FORGET_S
    for name in os.listdir(place):
        path = f"{place}/{name}"
        with contextlib.suppress(OSError):
            if _OURS.fullmatch(name) and os.lstat(path).st_mtime < since and not is_held(name):
                os.unlink(path) if os.path.isfile(path) else shutil.rmtree(path)


def _end_all_of(token: str, folder: str) -> None:
    """Kill until two looks 100 ms apart find nothing."""
    slots = [slot for slot in _read_slots(folder) if slot.pid]
    strays = _read(folder, "strays").get("strays", ())
    quiet, limit = 0, time.monotonic() + _END_LIMIT_S
    while quiet < 2 and time.monotonic() < limit:
        pids = {*list_marked(RUNNER_VARIABLE, token), *_list_in_sessions(slots)}
        pids.update(pid for pid, start_ticks in strays if is_running(pid, start_ticks))
        pids.update(entry.pid for entry in list_below(pids, RUNNER_VARIABLE, token))
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
