"""Notices when children end, those among them that dead parents left to us.

How they are started is in `spawn`.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
from typing import Any

from umpteen.system.host import IS_PORTABLE

__all__ = ["ChildWatcher", "become_subreaper", "reap_strangers"]


_PR_SET_CHILD_SUBREAPER = 36  # of <linux/prctl.h>, which Python does not have


class ChildWatcher:
    """Waits for files to become readable and for children to end, in one call.

    On Linux by pidfd in epoll; elsewhere, and on kernels before 5.3, by SIGCHLD. Every child
    that ended is to be reaped by `reap`.
    """

    def __init__(self) -> None:
        self._by_pidfd = not IS_PORTABLE and _has_pidfd()
        self._pidfds: dict[int, int] = {}
        self._pids: set[int] = set()
        self._reaped: dict[int, tuple[int, Any]] = {}
        # Any signal ends a wait: Python alone would go on waiting after its handler. A byte in
        # this pipe is how the C handler says so, also when it comes just before the wait.
        self._wake, wake_in = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_in, False)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        if self._by_pidfd:
            self._epoll = select.epoll()
        else:
            self._poll = select.poll()
            # The default is to ignore SIGCHLD, and what is ignored does not write into the pipe.
            signal.signal(signal.SIGCHLD, lambda *_: None)
        self.add_file(self._wake)

    def add_file(self, fd: int) -> None:
        """Tell when `fd` can be read, or its other end is closed."""
        if self._by_pidfd:
            self._epoll.register(fd, select.EPOLLIN)
        else:
            self._poll.register(fd, select.POLLIN)

    def remove_file(self, fd: int) -> None:
        """No longer tell of `fd`."""
        if self._by_pidfd:
            self._epoll.unregister(fd)
        else:
            self._poll.unregister(fd)

    def add_child(self, pid: int) -> None:
        """Tell when the child `pid` has ended."""
        self._pids.add(pid)
        if self._by_pidfd:
            pidfd = os.pidfd_open(pid)
            self._pidfds[pidfd] = pid
            self._epoll.register(pidfd, select.EPOLLIN)

    def wait(self, timeout_s: float | None) -> tuple[list[int], list[int]]:
        """(children that ended, files to read); both empty after `timeout_s`."""
        if not self._by_pidfd:
            return self._wait_for_signal(timeout_s)
        ended, files = [], []
        for fd, _ in self._epoll.poll(-1 if timeout_s is None else timeout_s):
            pid = self._pidfds.pop(fd, None)
            if pid is None:
                files.append(fd)
                continue
            # Unregister before closing: the child's copy of the descriptor, held until
            # its exec, would otherwise keep the event alive.
            self._epoll.unregister(fd)
            os.close(fd)
            self._pids.discard(pid)
            ended.append(pid)
        self._drain(files)
        return ended, files

    def _drain(self, files: list[int]) -> None:
        if self._wake in files:
            files.remove(self._wake)
            os.read(self._wake, 4096)

    def _wait_for_signal(self, timeout_s: float | None) -> tuple[list[int], list[int]]:
        ended = self._list_ended()
        if ended:
            timeout_s = 0
        milliseconds = None if timeout_s is None else int(timeout_s * 1000) + 1
        files = [fd for fd, _ in self._poll.poll(milliseconds)]
        self._drain(files)
        return ended + self._list_ended(), files

    def reap(self, pid: int) -> tuple[int, Any]:
        """(wait status, resource usage) of a child that `wait` told of; its pid is free then."""
        if pid in self._reaped:
            return self._reaped.pop(pid)
        _, status, usage = os.wait4(pid, 0)
        return status, usage

    def _list_ended(self) -> list[int]:
        """Ended children. macOS cannot look without reaping, so it is done at once."""
        for pid in self._pids:
            found, status, usage = os.wait4(pid, os.WNOHANG)
            if found:
                self._reaped[pid] = (status, usage)
        ended = [pid for pid in self._reaped if pid in self._pids]
        self._pids.difference_update(ended)
        return ended


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def become_subreaper() -> bool:
    """Let orphans below this process become its children; False where that is not to be had."""
    # Without it, what a task leaves running becomes a child of init when the task ends, and
    # nobody could tell any more which task it was of.
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def reap_strangers(known: set[int]) -> int:
    """Reap children that ended and are not in `known`; how many there were.

    Looks with WNOWAIT first, so that no exit status that somebody waits for is taken.
    """
    reaped = 0
    while True:
        try:
            seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except (ChildProcessError, AttributeError):  # PyPy and macOS have nothing to look with
            return reaped
        if seen is None or seen.si_pid in known:
            return reaped
        os.waitpid(seen.si_pid, os.WNOHANG)
        reaped += 1
