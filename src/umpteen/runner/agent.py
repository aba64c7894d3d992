"""On a host behind ssh: says what it has, puts files of jobs there, starts runners and wakes them.

`system/host_agent.py`, which runs there while somebody is connected, takes these calls from the
zip file that is put there. Runners are detached: they go on when the connection ends, and the next
agent finds them by their leases. Standard library alone.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

from umpteen.errors import UmpteenError
from umpteen.model.agent_messages import (
    Probe,
    RunnerReport,
    StorePlace,
)
from umpteen.runner.agent_inventory import INVENTORY_CALLS
from umpteen.runner.agent_news import bring, drop, forget
from umpteen.runner.batch_list import GivenBatches, give_batches, read_given, read_taken
from umpteen.runner.launch import (
    Leased,
    build_leased_command,
    build_python_command,
    start_leased,
)
from umpteen.runner.lease import Lease, LeaseFolder, find_folder, find_runner, list_folders
from umpteen.store.address import is_remote, open_store
from umpteen.store.identity import Identity, find_place, read_id
from umpteen.store.layout import JOB, RECORDS
from umpteen.system.host import read_machine
from umpteen.system.locks import leases_folder
from umpteen.system.resources import read_capacity
from umpteen.system.whole_files import read_file, written_whole

__all__ = ["CALLS"]

_SEE_S = 60.0
_TAKEN_S, _TAKEN_POLL_S = 5.0, 0.01  # for a runner to answer to a list of batches
_SAID_BYTES = 4000

_started: dict[str, Leased] = {}  # by token, runners that this agent started


# --- the host -------------------------------------------------------------------------------------


def probe(body: bytes) -> Mapping[str, object]:
    """What this host is and has; a Probe."""
    del body
    here, capacity, folder = read_machine(), read_capacity(), leases_folder()
    found = Probe(
        here.host, here.machine, here.boot, platform.python_version(), capacity.cpus,
        capacity.memory, len(capacity.gpus), os.getloadavg()[0], shutil.disk_usage(folder).free,
        time.time(), getpass.getuser(), folder,
    )  # fmt: skip
    return found._asdict()


def find_store(
    body: bytes, addresses: list[str], store_id: str, word: str, environment: dict[str, str]
) -> Mapping[str, object]:
    """Where the files of a job are for this host; a StorePlace.

    It is at one of the addresses only where the job's mark is there, and we may write beside it.
    word: of the copy that is kept here else; the empty word: none is.
    """
    del body
    for address in addresses:
        if is_remote(address):
            _see_far(address, store_id, environment)
            return StorePlace(address, is_shared=True)._asdict()
        with contextlib.suppress(OSError), open(f"{address}/{JOB}", "rb") as file:
            if read_id(file.read()) == store_id and os.access(f"{address}/{RECORDS}/..", os.W_OK):
                return StorePlace(address, is_shared=True)._asdict()
    copy = f"{leases_folder()}/jobs/{store_id}-{word}" if word else ""
    return StorePlace(copy, is_shared=False)._asdict()


def _see_far(address: str, store_id: str, environment: Mapping[str, str]) -> None:
    """Raises OSError where an object store cannot be opened from here, or has no such job.

    In a process of its own, which loads what it takes.
    """
    done = subprocess.run(
        [*build_python_command("umpteen.runner.agent", "-S", "-E"), address, store_id],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, **environment}, timeout=_SEE_S, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise OSError(5, lines[-1] if lines else f"it cannot open {address}")


def main() -> int:
    """Whether an object store has a job: address and word of it are the arguments."""
    address, store_id = sys.argv[1:]
    try:
        found = read_id(open_store(address).read(JOB))
    except UmpteenError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if found != store_id:
        sys.stderr.write(f"it sees no such job at {address}\n")
    return int(found != store_id)


def put(body: bytes, folder: str, files: list[tuple[str, int, bool]]) -> None:
    """Put files whole below a folder: path, bytes, and whether it is for this user alone."""
    at = 0
    for key, size, is_private in files:
        mode = 0o600 if is_private else 0o666
        with written_whole(f"{folder}/{key}") as temporary:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(fd, "wb") as file:
                file.write(body[at : at + size])
        at += size


def has(body: bytes, folder: str, keys: list[str]) -> list[bool]:
    """Whether each of these files is there."""
    del body
    return [os.path.exists(f"{folder}/{key}") for key in keys]


# --- runners --------------------------------------------------------------------------------------


def start(
    body: bytes,
    folder: str,
    store_id: str,
    batches: list[str],
    slots: int,
    options: list[str],
    environment: dict[str, str],
) -> str:
    """Start a runner for batches of a job; its token."""
    del body
    token = os.urandom(6).hex()
    store = Identity(folder, store_id, find_place(folder))
    try:
        lease = Lease.create(token, store, slots)
    except UmpteenError as error:
        raise OSError(28, str(error)) from error
    give_batches(LeaseFolder(token, lease.folder), GivenBatches(1, batches))
    command = build_leased_command(lease, store, batches, slots, *options)
    _started[token] = start_leased(lease, command, environment)
    return token


def give(body: bytes, token: str, number: int, batches: list[str]) -> Mapping[str, object]:
    """Have a runner have these batches beside those that it has opened; how it is then."""
    del body
    lease = find_folder(token)
    with contextlib.suppress(FileNotFoundError):  # it has just ended
        give_batches(lease, GivenBatches(number, batches))
    limit_s = time.monotonic() + _TAKEN_S
    _wake(token)
    while lease.lives() and read_taken(lease).number < number and time.monotonic() < limit_s:
        time.sleep(_TAKEN_POLL_S)
    return _report(token)._asdict()


def wake(body: bytes, tokens: list[str]) -> None:
    """Have runners look at the marks of their job now."""
    del body
    for token in tokens:
        _wake(token)


def _wake(token: str) -> None:
    if pid := find_runner(token):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)


def list_runners(body: bytes, folder: str, store_id: str) -> list[Mapping[str, object]]:
    """The runners of a job that live here; a RunnerReport of each."""
    del body
    store = Identity(folder, store_id, find_place(folder))
    found = (lease for lease in list_folders() if store.fits(lease.read_info()))
    return [_report(lease.token)._asdict() for lease in found if lease.lives()]


def _report(token: str) -> RunnerReport:
    lease = find_folder(token)
    lives = bool(lease.lives())
    leased, code = _started.get(token), None
    if leased:
        code = leased.process.poll()
        lives = code is None  # its lease goes a moment before it does
    given, taken = read_given(lease), read_taken(lease)
    said = "" if lives else _read_said(lease, leased.complaints if leased else None)
    return RunnerReport(
        token, lives, given.number, given.batches, taken.number, taken.begun, code, said
    )


def _read_said(lease: LeaseFolder, complaints: BinaryIO | None) -> str:
    """What a runner wrote to its stderr; its lease is gone where all went well."""
    with contextlib.suppress(OSError):
        if complaints:
            complaints.seek(0)
            content = complaints.read()
        else:
            content = read_file(f"{lease.path}/complaints")
        said, _, _ = content.partition(b"\0")  # the rest is room kept for it
        return said[-_SAID_BYTES:].decode(errors="replace").strip()
    return ""


def bring_news(body: bytes, **asked: Any) -> tuple[Mapping[str, object], bytes]:
    """What is new, as soon as anything is: News, and the contents of its files behind it."""
    del body
    return bring(_report, **asked)


CALLS: dict[str, Any] = {
    call.__name__: call
    for call in (
        probe, find_store, put, has, start, give, wake, list_runners, bring_news, drop,
        forget, *INVENTORY_CALLS,
    )
}  # fmt: skip
