"""What dead runners of a store left on this machine, and in the store's folder.

Ended and cleared by its next runner, `cancel` and `rm`; what a dead runner could not record is
found for the next one. Standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Callable, NamedTuple

from umpteen.model.command import RUNNER_VARIABLE
from umpteen.model.states import TaskState
from umpteen.runner.lease import KEPT, SPOOL, LeaseFolder, SlotEntry, is_held, list_folders
from umpteen.store.address import is_remote
from umpteen.store.identity import Identity
from umpteen.store.layout import (
    RUNNING,
    parse_running_key,
    running_folder,
    scratch_folder,
    spool_folder,
)
from umpteen.system.host import read_machine
from umpteen.system.locks import leases_folder
from umpteen.system.plain_files import folder_below, remove_below, remove_empty
from umpteen.system.processes import is_running, list_below, list_marked, list_processes

__all__ = ["Kept", "clear_dead", "end_leftovers", "find_kept", "remove_scratch"]

# Nothing else that lies beside leases is ever removed.
_OURS = re.compile(r"[0-9a-f]{12}(\.new)?|(hand-in|place|split|start)-.+\.lock|(keeper|runner)-.+")
_END_LIMIT_S = 20.0
_LANES_S = 4.0  # more than lanes without a runner give their tasks
_FORGET_S = 30 * 86400


# --- what still runs ------------------------------------------------------------------------


def end_leftovers(
    store: Identity, clear: Callable[[LeaseFolder], None] = lambda _: None
) -> list[str]:
    """End what dead runners of a store left running here; their tokens.

    Ended is what carries a dead runner's token in its environment, is in the session of a task in
    its table, or came to it as an orphan; and what is below these. Nobody else's process is
    touched. clear: called with the lease of each, once nothing of it runs.
    """
    dead = []
    boot = read_machine().boot
    for lease in list(list_folders()):
        told = lease.read_info()
        if lease.is_cleared() or not store.fits(told):
            continue
        if lease.lives() is False:
            if told.get("boot") == boot:
                _wait_for_lanes(lease)
                _end_all_of(lease)
            clear(lease)
            lease.mark_cleared()
            dead.append(lease.token)
    _forget_old()
    return dead


def _wait_for_lanes(lease: LeaseFolder) -> None:
    """Let the lanes of a dead runner end their tasks kindly, if they can."""
    limit = time.monotonic() + _LANES_S
    while lease.is_held() and time.monotonic() < limit:
        if lease.find_stopped_lane():
            return
        time.sleep(0.05)


def _end_all_of(lease: LeaseFolder) -> None:
    """Kill until two looks 100 ms apart find nothing."""
    token = lease.token
    slots = [slot for slot in lease.read_slots() if slot.pid]
    strays = lease.read_strays()
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


def _forget_old() -> None:
    """Remove what nobody has used for a month, where nothing but ours is."""
    place, since = leases_folder(), time.time() - _FORGET_S
    for name in os.listdir(place):
        path = f"{place}/{name}"
        with contextlib.suppress(OSError):
            if _OURS.fullmatch(name) and os.lstat(path).st_mtime < since and not is_held(name):
                os.unlink(path) if os.path.isfile(path) else shutil.rmtree(path)


# --- what it left in folders ------------------------------------------------------------------


def clear_dead(store: Identity) -> None:
    """End what dead runners of a store left running here,
    and remove what nobody needs of theirs.
    """

    def clear(lease: LeaseFolder) -> None:
        if not os.path.exists(os.path.join(lease.path, KEPT)):
            shutil.rmtree(os.path.join(lease.path, SPOOL), ignore_errors=True)
        if not is_remote(store.address):
            with contextlib.suppress(OSError):
                _clear_folder(store.address, lease.token)

    end_leftovers(store, clear)


def _clear_folder(address: str, token: str) -> None:
    """Remove a runner's results folders, and what it said last of what it runs; raises OSError."""
    remove_scratch(address, token)
    for batch in _list(address, RUNNING):
        folder = running_folder(batch)
        for name in _list(address, folder):
            key = parse_running_key(name)
            if key is not None and key.token == token:
                remove_below(address, f"{folder}/{name}")
        remove_empty(address, folder)


def remove_scratch(address: str, token: str) -> None:
    """Remove the results folders of a runner's slots; raises OSError."""
    scratch = scratch_folder(token)
    remove_below(address, scratch)
    remove_empty(address, os.path.dirname(scratch))


def _list(address: str, folder: str) -> list[str]:
    try:
        with folder_below(address, folder) as found:
            return os.listdir(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


# --- what it could not record -----------------------------------------------------------------


class Kept(NamedTuple):
    """A success that a runner of this machine could not record."""

    attempt: int
    digest: str
    record: bytes  # a line without its end
    boot: str  # of the machine at that time
    folder: str  # where its outputs are here, if they have not been brought to the store
    below: str  # where they belong, relative to the task's folder


def find_kept(store: Identity) -> dict[int, Kept]:
    """By task index, the newest of what dead runners of a store kept on this machine."""
    found: dict[int, Kept] = {}
    for lease in list_folders():
        info = lease.read_info()
        is_of_another = store.id and info.get("id", store.id) != store.id  # removed, and made anew
        if not store.fits(info) or is_of_another or lease.is_held():
            continue
        with contextlib.suppress(OSError), open(os.path.join(lease.path, KEPT), "rb") as file:
            for index, kept in _parse_kept(file.read(), lease.path, str(info.get("boot"))):
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
