"""Batches on this machine: one runner, a process of its own, streams through all of them."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Any

from umpteen.errors import BackendError, SettingsError
from umpteen.executors.base import (
    Abilities,
    BatchState,
    Executor,
    Lack,
    OnProgress,
    SubmitRequest,
    TaskNeeds,
    ignore_progress,
)
from umpteen.executors.own_runs import ExitStatus, OwnRuns
from umpteen.model.command import RUNNER_VARIABLE
from umpteen.model.ranges import format_ranges
from umpteen.runner.launch import build_runner_command
from umpteen.runner.lease import Lease, find_runner, is_alive
from umpteen.system.background import detach
from umpteen.system.host import read_machine
from umpteen.system.resources import in_mb, list_lacks, read_capacity
from umpteen.system.spawn import explain_shortage

__all__ = ["LocalExecutor", "LocalRunner", "build_command", "build_handle", "parse_handle"]


_HANDLE = re.compile(r"([^\0]*)/([^/\0]*)/([0-9a-f]{1,64})")


def build_handle(token: str) -> str:
    """A handle names the machine, its boot, and the runner's token."""
    here = read_machine()
    return f"{here.machine}/{here.boot}/{token}"


def parse_handle(handle: str) -> tuple[str, str, str]:
    """(machine, boot, token) of a handle; three empty words of what is none."""
    found = _HANDLE.fullmatch(handle)
    return (found[1], found[2], found[3]) if found else ("", "", "")


class LocalExecutor(Executor):
    """Starts one runner, a process of its own, for all batches of a submission.

    The runner ends its tasks kindly when this process ends, unless `detach` is among the options.
    """

    name = "local"
    abilities = Abilities(
        dependencies=True, capabilities=False, reconnect=True, is_engine=False,
        batches_most=0, start_up_s=0.1,
    )  # fmt: skip

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        unknown = sorted(set(options) - {"detach"})
        if unknown:
            raise SettingsError(
                f"the executor 'local' has no option {unknown[0]!r}",
                "set slots beside it: slots: 8, or --slots 8",
            )
        self.is_attached = not options.get("detach")
        self.own_runs: OwnRuns = _NoRunner(is_attached=self.is_attached)

    def submit(
        self, request: SubmitRequest, on_progress: OnProgress = ignore_progress
    ) -> dict[str, str]:
        """Start the runner; its lease is held before it lives, so that no look is too early."""
        del on_progress  # nothing is waited for
        runner = self.own_runs = LocalRunner.start(request, is_attached=self.is_attached)
        return dict.fromkeys(request.batches, runner.handle)

    def poll(self, handles: Sequence[str]) -> dict[str, BatchState]:
        """By the leases of this machine; UNKNOWN for other machines."""
        polled = {handle: _poll_one(handle) for handle in set(handles)}
        if isinstance(self.own_runs, LocalRunner) and self.own_runs.handle in polled:
            lives = self.own_runs.is_alive  # its lease goes a moment before it does
            polled[self.own_runs.handle] = BatchState.RUNNING if lives else BatchState.ENDED
        return polled

    def wake(self, handles: Sequence[str]) -> None:
        """Have the runners of the handles look for the mark now, not within seconds."""
        for handle in set(handles):
            if _poll_one(handle) != BatchState.RUNNING:
                continue
            if pid := find_runner(parse_handle(handle)[2]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR1)

    def lacks(self, tasks: Sequence[TaskNeeds], slots: int) -> Lack | None:
        """By what this machine has."""
        del slots
        if not any(map(any, tasks)):
            return None
        here = read_capacity()
        for number, needs in enumerate(tasks):
            lacks = list_lacks(needs.cpus, needs.gpus, needs.memory, here)
            for wanted, most, what in map(in_mb, lacks):
                hint = _hint_lack(what, most)
                return Lack(number, wanted, what, f"this machine has {most}", hint)
        return None


class _NoRunner(OwnRuns):
    """Before the first submission."""

    def __init__(self, *, is_attached: bool) -> None:
        self.is_attached = is_attached


class LocalRunner(OwnRuns):
    """The runner of a submission of this process, its child."""

    def __init__(
        self, handle: str, process: subprocess.Popen[bytes], complaints: IO[bytes]
    ) -> None:
        self.handle, self.process, self.complaints = handle, process, complaints
        self.is_attached = process.stdin is not None

    @classmethod
    def start(cls, request: SubmitRequest, *, is_attached: bool) -> LocalRunner:
        """A new one for these batches, whose lease is held before it lives. Raises BackendError."""
        token = os.urandom(6).hex()
        lease = Lease.create(token, request.store, request.slots)
        complaints = lease.open_complaints()
        try:
            process = detach(
                build_command(request, token, lease.lock, is_attached=is_attached),
                stdin=subprocess.PIPE if is_attached else subprocess.DEVNULL,
                output=subprocess.DEVNULL,
                errors=complaints,
                pass_fds=[lease.lock],
                env={**os.environ, RUNNER_VARIABLE: token, **request.environment},
            )
        except OSError as error:
            complaints.close()
            lease.remove()
            refused = BackendError(f"cannot start a runner: {error.strerror}")
            raise (explain_shortage(error) or refused) from error
        os.close(lease.lock)
        return cls(build_handle(token), process, complaints)

    def __del__(self) -> None:
        self.close()

    @property
    def is_alive(self) -> bool:
        """Whether it is still there."""
        return self.process.poll() is None

    def exit_status(self) -> ExitStatus | None:
        """That of the runner; None while it lives."""
        code = self.process.poll()
        if code is None:
            return None
        if self.complaints.closed:
            return ExitStatus(code)
        self.complaints.seek(0)
        said, _, _ = self.complaints.read().partition(b"\0")  # the rest is room kept for it
        return ExitStatus(code, said.decode(errors="replace").strip())

    def wait(self, timeout_s: float) -> None:
        """Wait until the runner has ended, or `timeout_s` seconds."""
        try:
            pidfd = os.pidfd_open(self.process.pid)
        except (AttributeError, OSError):  # no Linux, or ended and reaped
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
            return
        select.select([pidfd], [], [], timeout_s)
        os.close(pidfd)

    def stop(self, *, at_once: bool) -> None:
        """Have the runner end its tasks: kindly, or at once."""
        self._send(b"K" if at_once else b"T")

    def detach(self) -> None:
        """Have the runner go on when this process ends, as one that was detached."""
        self._send(b"G")

    def _send(self, order: bytes) -> None:
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(order)
                self.process.stdin.flush()

    def close(self) -> None:
        """Close what leads to the runner: one that is attached ends its tasks then."""
        for file in (self.complaints, self.process.stdin):
            if file:
                with contextlib.suppress(OSError):
                    file.close()


def build_command(
    request: SubmitRequest, token: str, lease_fd: int, *, is_attached: bool
) -> list[str]:
    """The command line of the runner for these batches."""
    batches = format_ranges(int(batch) for batch in request.batches)
    return [
        *build_runner_command(), request.address, batches,
        f"--token={token}", f"--lease-fd={lease_fd}", f"--slots={request.slots}",
        f"--store={request.store.id}", *(["--watch-fd=0"] if is_attached else []),
    ]  # fmt: skip


def _hint_lack(what: str, most: int) -> str:
    """What to do where a task needs more than there is. most: what there is."""
    if what == "gpus":
        return "UMPTEEN_GPUS says how many there are"
    if what == "cpus":
        return f"write fewer, or --cpus {most} for all tasks; slots are tasks at once, not cores"
    return f"write less, or --memory {most}M for all tasks"


def _poll_one(handle: str) -> BatchState:
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
