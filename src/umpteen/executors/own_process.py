"""A process of this machine that has batches run: started here, and known by its lease elsewhere.

Its handle names the machine, its boot, and the token of the lease.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO

from umpteen.errors import BackendError
from umpteen.executors.base import BatchState
from umpteen.executors.own_runs import ExitStatus, OwnRuns
from umpteen.runner.launch import Leased, start_leased
from umpteen.runner.lease import Lease, find_runner, is_alive
from umpteen.store.identity import Identity
from umpteen.system.host import read_machine
from umpteen.system.spawn import explain_shortage

__all__ = [
    "OwnProcess",
    "build_handle",
    "parse_handle",
    "poll_handle",
    "poll_handles",
    "start_process",
    "wake_handles",
]


_HANDLE = re.compile(r"([^\0]*)/([^/\0]*)/([0-9a-f]{1,64})")


def build_handle(token: str) -> str:
    """The handle of a process of this machine. token: of its lease."""
    here = read_machine()
    return f"{here.machine}/{here.boot}/{token}"


def parse_handle(handle: str) -> tuple[str, str, str]:
    """(machine, boot, token) of a handle; three empty words of what is none."""
    found = _HANDLE.fullmatch(handle)
    return (found[1], found[2], found[3]) if found else ("", "", "")


def poll_handle(handle: str) -> BatchState:
    """By the leases of this machine; UNKNOWN for other machines."""
    machine, boot, token = parse_handle(handle)
    here = read_machine()
    if machine != here.machine or not token:
        return BatchState.UNKNOWN
    if boot != here.boot:
        return BatchState.ENDED
    lives = is_alive(token)
    if lives is None:
        return BatchState.UNKNOWN
    return BatchState.RUNNING if lives else BatchState.ENDED


def poll_handles(handles: Iterable[str], own: OwnRuns) -> dict[str, BatchState]:
    """The same of several. own: the runs of this process, of which it knows more."""
    polled = {handle: poll_handle(handle) for handle in set(handles)}
    if isinstance(own, OwnProcess) and own.handle in polled:
        lives = own.is_alive  # its lease goes a moment before it does
        polled[own.handle] = BatchState.RUNNING if lives else BatchState.ENDED
    return polled


def wake_handles(handles: Sequence[str]) -> None:
    """Have the processes of these handles look for what is new now, not within seconds."""
    for handle in set(handles):
        if poll_handle(handle) != BatchState.RUNNING:
            continue
        if pid := find_runner(parse_handle(handle)[2]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)


class OwnProcess(OwnRuns):
    """The process for the newest submission of ours, our child."""

    def __init__(self, token: str, started: Leased) -> None:
        self.handle = build_handle(token)
        self.process, self.complaints = started
        self.is_attached = self.process.stdin is not None

    def __del__(self) -> None:
        self.close()

    def hand_over(self, content: bytes) -> None:
        """Write all that it is told to its stdin, and let it go on without us."""
        pipe, self.process.stdin, self.is_attached = self.process.stdin, None, False
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError), pipe:  # it says itself what is wrong
            pipe.write(content)

    @property
    def is_alive(self) -> bool:
        """Whether it is still there."""
        return self.process.poll() is None

    def exit_status(self) -> ExitStatus | None:
        """Its exit status; None while it lives."""
        code = self.process.poll()
        if code is None:
            return None
        if self.complaints.closed:
            return ExitStatus(code)
        self.complaints.seek(0)
        said, _, _ = self.complaints.read().partition(b"\0")  # the rest is room kept for it
        return ExitStatus(code, said.decode(errors="replace").strip())

    def wait(self, timeout_s: float) -> None:
        """Wait until it has ended, or `timeout_s` seconds."""
        try:
            pidfd = os.pidfd_open(self.process.pid)
        except (AttributeError, OSError):  # no Linux, or ended and reaped
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
            return
        select.select([pidfd], [], [], timeout_s)
        os.close(pidfd)

    def stop(self, *, at_once: bool) -> None:
        """Have it end the tasks: kindly, or at once."""
        self._send(b"K" if at_once else b"T")

    def detach(self) -> None:
        """Have it go on when this process ends, as one that was detached."""
        self._send(b"G")

    def _send(self, order: bytes) -> None:
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(order)
                self.process.stdin.flush()

    def close(self) -> None:
        """Close what leads to it: one that is attached ends its tasks then."""
        files: tuple[IO[bytes] | None, ...] = (self.complaints, self.process.stdin)
        for file in files:
            if file:
                with contextlib.suppress(OSError):
                    file.close()


def start_process(
    store: Identity,
    slots: int,
    build_command: Callable[[Lease], Sequence[str]],
    environment: Mapping[str, str],
    *,
    has_stdin: bool,
    what: str,
) -> OwnProcess:
    """Start a process with a lease of its own. what: it is, as an error calls it.

    environment: what it finds beside ours. Raises BackendError.
    """
    token = os.urandom(6).hex()
    lease = Lease.create(token, store, slots)
    stdin = subprocess.PIPE if has_stdin else subprocess.DEVNULL
    try:
        return OwnProcess(token, start_leased(lease, build_command(lease), environment, stdin))
    except OSError as error:
        refused = BackendError(f"cannot start {what}: {error.strerror}")
        raise (explain_shortage(error) or refused) from error
