"""Batches on this machine: one runner, a process of its own, streams through all of them."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from umpteen.errors import BackendError, SettingsError
from umpteen.executors.base import (
    ENDED,
    LOCAL,
    RUNNING,
    UNKNOWN,
    Abilities,
    Executor,
    SubmitRequest,
)
from umpteen.model.command import RUNNER_VARIABLE
from umpteen.model.ranges import format_ranges
from umpteen.runner.launch import build_runner_command
from umpteen.runner.lease import Lease, find_runner, is_alive
from umpteen.system.host import read_machine
from umpteen.system.spawn import explain_shortage

__all__ = ["LocalExecutor", "build_handle", "parse_handle"]


_HANDLE = re.compile(r"([^\0]*)/([^/\0]*)/([0-9a-f]{1,64})")


def build_handle(token: str) -> str:
    """A handle names the machine, its boot, and the runner's token."""
    here = read_machine()
    return f"{here.machine}/{here.boot}/{token}"


def parse_handle(handle: str) -> tuple[str, str, str]:
    """(machine, boot, token) of a handle; three empty words of what is none."""
    found = _HANDLE.fullmatch(handle)
    return (found[1], found[2], found[3]) if found else ("", "", "")


class _Runner(subprocess.Popen[bytes]):
    """May outlive what started it, which is nothing to warn of."""

    def __del__(self) -> None:
        super().__del__(_warn=_keep_silent)  # type: ignore[call-arg]


def _keep_silent(*_: object, **__: object) -> None:
    return None


class LocalExecutor(Executor):
    """Starts one runner for all batches it is given.

    The runner ends its tasks kindly when this process ends, unless `detach` is among the
    options. `order` speaks to a runner that this process started.
    """

    name = LOCAL
    abilities = Abilities(
        dependencies=True, capabilities=False, reconnect=True, is_engine=False,
        batches_most=0, start_up_s=0.1,
    )  # fmt: skip

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.runner: _Runner | None = None
        self.handle = ""
        self._stderr: IO[bytes] | None = None
        unknown = sorted(set(options) - {"detach"})
        if unknown:
            raise SettingsError(
                f"the executor 'local' has no option {unknown[0]!r}",
                "set slots beside it: slots: 8, or --slots 8",
            )

    def __del__(self) -> None:
        """Close what leads to the runner: one that is attached ends its tasks then."""
        for file in (self._stderr, self.runner and self.runner.stdin):
            if file:
                with contextlib.suppress(OSError):
                    file.close()

    def submit(self, load: SubmitRequest) -> dict[str, str]:
        """Start the runner; its lease is held before it lives, so that no look is too early."""
        token = os.urandom(6).hex()
        lease = Lease.create(token, load.store, load.slots)
        self._stderr = lease.open_complaints()
        command = [
            *build_runner_command(), load.address, _name_batches(load.batches),
            f"--token={token}", f"--lease-fd={lease.lock}", f"--slots={load.slots}",
            f"--store={load.store.id}",
        ]  # fmt: skip
        if not self.options.get("detach"):
            command.append("--watch-fd=0")
        try:
            self.runner = _Runner(
                command,
                stdin=subprocess.PIPE if "--watch-fd=0" in command else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[lease.lock],
                env={**os.environ, RUNNER_VARIABLE: token, **load.environment},
                start_new_session=True,
            )
        except OSError as error:
            lease.remove()
            refused = BackendError(f"cannot start a runner: {error.strerror}")
            raise (explain_shortage(error) or refused) from error
        os.close(lease.lock)
        self.handle = build_handle(token)
        return dict.fromkeys(load.batches, self.handle)

    def poll(self, handles: Sequence[str]) -> dict[str, str]:
        """By the leases of this machine; UNKNOWN for other machines."""
        polled = {handle: _poll_one(handle) for handle in set(handles)}
        if self.runner and self.handle in polled:  # whose lease goes a moment before it does
            polled[self.handle] = RUNNING if self.runner.poll() is None else ENDED
        return polled

    def hasten(self, handles: Sequence[str]) -> None:
        """Have the runners of the handles look at the mark now, not within seconds."""
        for handle in set(handles):
            if _poll_one(handle) == RUNNING and (pid := find_runner(parse_handle(handle)[2])):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR1)

    @property
    def is_attached(self) -> bool:
        """Whether the runner ends when this process does."""
        return not self.options.get("detach")

    def order_end(self, *, at_once: bool) -> None:
        """Have the runner of this process end its tasks: kindly, or at once."""
        self._order(b"K" if at_once else b"T")

    def let_go(self) -> None:
        """Have the runner go on when this process ends, as one that was detached."""
        self._order(b"G")

    def _order(self, order: bytes) -> None:
        if self.runner and self.runner.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.runner.stdin.write(order)
                self.runner.stdin.flush()

    def wait(self, timeout_s: float) -> None:
        """Wait until the runner of this process has ended, or `timeout_s` seconds."""
        if self.runner is None:
            time.sleep(timeout_s)
            return
        try:
            pidfd = os.pidfd_open(self.runner.pid)
        except (AttributeError, OSError):  # no Linux, or ended and reaped
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.runner.wait(timeout_s)
            return
        select.select([pidfd], [], [], timeout_s)
        os.close(pidfd)

    def read_ending(self) -> tuple[int | None, str]:
        """(exit code of the runner of this process, None while it lives; what it complained of)."""
        if not self.runner:
            return 0, ""
        returned = self.runner.poll()
        if returned is None or not self._stderr:
            return returned, ""
        self._stderr.seek(0)
        said, _, _ = self._stderr.read().partition(b"\0")  # the rest is room that was kept for it
        return returned, said.decode(errors="replace").strip()


def _name_batches(batches: Sequence[str]) -> str:
    return format_ranges(int(batch) for batch in batches)


def _poll_one(handle: str) -> str:
    machine, boot, token = parse_handle(handle)
    here = read_machine()
    if machine != here.machine or not token:
        return UNKNOWN
    if boot != here.boot:
        return ENDED
    lives = is_alive(token)
    return RUNNING if lives else ENDED if lives is False else UNKNOWN
