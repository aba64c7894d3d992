"""Which machine this is, since when it runs, and its disk."""

from __future__ import annotations

import errno
import os
import time
from typing import NamedTuple

from umpteen.model.variables import PORTABLE

__all__ = ["IS_PORTABLE", "Machine", "boot_ticks", "read_machine", "read_text", "sync_filesystem"]


# Whether only that is used which every Unix has: no pidfd, no epoll, no /proc.
IS_PORTABLE = bool(os.environ.get(PORTABLE)) or not os.path.exists("/proc/self/stat")


_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", 0)


_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Machine(NamedTuple):
    """Which machine this is, and which boot of it; both empty where that cannot be known."""

    machine: str
    boot: str
    host: str


def read_machine() -> Machine:
    """This machine: its id, the id of this boot, and its host name."""
    host = os.uname().nodename
    machine = read_text("/etc/machine-id") or host
    boot = read_text("/proc/sys/kernel/random/boot_id") or _boot_time()
    return Machine(machine, boot, host)


def read_text(path: str) -> str:
    """What a file of the kernel says; empty where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def _boot_time() -> str:
    import subprocess  # no Linux needs it, and it is slow to load

    try:
        return subprocess.run(
            ["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:
        return ""


def boot_ticks() -> int:
    """Now, in the clock ticks since boot that /proc gives as the start time of a process."""
    return int(time.clock_gettime(_BOOT_CLOCK) * _TICKS_A_SECOND) if _BOOT_CLOCK else 0


def sync_filesystem(fd: int) -> None:
    """Write out all that the file system of `fd` holds in memory; all of them without syncfs."""
    import ctypes  # slow to load, and who only reads syncs nothing

    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) == 0:
            return
        number = ctypes.get_errno()
        # Others mean that this file system has no syncfs; these that something is lost.
        if number in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise OSError(number, os.strerror(number))
    except AttributeError:
        pass
    os.sync()
