"""What this machine has for tasks, and how much of it is left: cores, memory, GPUs.

Linux's files where there are any; elsewhere what `sysconf` knows. Standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import deque
from typing import NamedTuple

from umpteen.model.variables import CUDA_DEVICES, GPUS
from umpteen.system.host import read_text

__all__ = [
    "Capacity",
    "OutOfMemoryWatch",
    "in_bytes",
    "in_mb",
    "is_memory_short",
    "list_lacks",
    "read_capacity",
    "usable_cores",
]

_LEAST_SHARE, _LEAST_BYTES = 0.05, 256 << 20  # of memory that must be free to start a task
_WINDOW_S = 2.0
_MOST_GPUS = 64  # a ticket has a bit for each
_UNLIMITED = 1 << 60
_MEMORY_FILES = (  # of control groups of version 2, and of version 1
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class Capacity(NamedTuple):
    """What tasks may use."""

    cpus: int
    memory: int  # bytes
    gpus: tuple[str, ...]  # each as CUDA_VISIBLE_DEVICES names it


def read_capacity() -> Capacity:
    """Of this machine, as far as this process may use it."""
    gpus = _list_gpus()[:_MOST_GPUS]
    return Capacity(usable_cores(), min(_total_memory(), _cgroup_limit()), gpus)


def list_lacks(cpus: int, gpus: int, memory: int, here: Capacity) -> list[tuple[int, int, str]]:
    """(what is wanted, what there is at most, of what) where there is not enough.

    Of what: `cpus`, `gpus` or `memory`, which is in bytes.
    """
    wanted = (
        (cpus, here.cpus, "cpus"),
        (gpus, len(here.gpus), "gpus"),
        (memory, here.memory, "memory"),
    )
    return [lack for lack in wanted if lack[0] > lack[1]]


def in_bytes(lack: tuple[int, int, str]) -> tuple[int, int, str]:
    """A lack as records tell of it."""
    wanted, most, what = lack
    return wanted, most, "bytes of memory" if what == "memory" else what


def in_mb(lack: tuple[int, int, str]) -> tuple[int, int, str]:
    """A lack as people are told of it: memory in MB, what is wanted rounded up."""
    wanted, most, what = lack
    if what != "memory":
        return lack
    return -(-wanted >> 20), most >> 20, "MB of memory"


def _total_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _list_gpus() -> tuple[str, ...]:
    """UMPTEEN_GPUS (a list or a count), else what this process may see, else the device files."""
    given = os.environ.get(GPUS, "")
    if given.isdigit():
        return tuple(str(number) for number in range(int(given)))
    if not given:
        given = os.environ.get(CUDA_DEVICES, "")
        if CUDA_DEVICES not in os.environ:
            with contextlib.suppress(OSError):
                devices = [n for n in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", n)]
                return tuple(str(number) for number in range(len(devices)))
    return tuple(word.strip() for word in given.split(",") if word.strip() not in ("", "-1"))


def usable_cores() -> int:
    """The cores that this process may use: affinity and cgroup quotas respected."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, min(cores, int(_cgroup_cores())))


# --- memory ---------------------------------------------------------------------------


def is_memory_short(capacity: Capacity) -> bool:
    """Whether so little memory is free that nothing more should be started."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", read_text("/proc/meminfo"), re.MULTILINE)
    if not found:
        return False
    left = min(int(found[1]) * 1024, _cgroup_left())
    return left < min(_LEAST_BYTES, capacity.memory * _LEAST_SHARE)


class OutOfMemoryWatch:
    """Whether the kernel killed something for want of memory within the last seconds.

    It counts such kills (/proc/vmstat), so a task that died of signal 9 meanwhile was one of
    them. Each kill explains one death.
    """

    def __init__(self) -> None:
        self.seen: deque[tuple[float, int]] = deque([(time.monotonic(), _count_kills())])
        self.explained = 0

    def look(self) -> None:
        """To be called every second or so."""
        now = time.monotonic()
        self.seen.append((now, _count_kills()))
        while len(self.seen) > 1 and self.seen[1][0] <= now - _WINDOW_S:
            self.seen.popleft()

    def explain(self) -> bool:
        """Whether a kill is there that explains a death just heard of, and is used up by it."""
        self.look()
        base = max(self.seen[0][1], self.explained)
        if self.seen[-1][1] <= base:
            return False
        self.explained = base + 1
        return True


def _count_kills() -> int:
    found = re.search(r"^oom_kill (\d+)", read_text("/proc/vmstat"), re.MULTILINE)
    return int(found[1]) if found else 0


# --- control groups -------------------------------------------------------------------


def _list_cgroups(controller: str) -> list[str]:
    """The folders of the groups that limit this process, its own group's first.

    A group is within all those above it, and the least of their limits counts.
    """
    folders = []
    for line in read_text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2 has one tree for all
            root = "/sys/fs/cgroup"
        elif controller in controllers.split(","):
            root = f"/sys/fs/cgroup/{controller}"
        else:
            continue
        # In a container the path may begin above what the container sees.
        parts = [part for part in path.split("/") if part and part != ".."]
        folders += ["/".join([root, *parts[:count]]) for count in range(len(parts), -1, -1)]
    return folders


def _cgroup_limit() -> int:
    """Bytes of memory."""
    limits = [_UNLIMITED]
    for folder in _list_cgroups("memory"):
        for limit_file, *_ in _MEMORY_FILES:
            text = read_text(f"{folder}/{limit_file}")
            if text.isdigit():
                limits.append(int(text))
    return min(limits)


def _cgroup_left() -> int:
    """Bytes that this process's groups may still take; what the page cache holds counts as free."""
    left = [_UNLIMITED]
    for folder in _list_cgroups("memory"):
        for limit_file, used_file, cache in _MEMORY_FILES:
            limit = read_text(f"{folder}/{limit_file}")
            if limit.isdigit():
                used = int(read_text(f"{folder}/{used_file}") or 0)
                stat = read_text(f"{folder}/memory.stat")
                found = re.search(rf"^{cache} (\d+)", stat, re.MULTILINE)
                left.append(int(limit) - used + (int(found[1]) if found else 0))
    return min(left)


def _cgroup_cores() -> float:
    """The least quota of CPU time, in cores."""
    return min(map(_read_quota, _list_cgroups("cpu")), default=_UNLIMITED)


def _read_quota(folder: str) -> float:
    quota, _, period = read_text(f"{folder}/cpu.max").partition(" ")
    if not quota:  # version 1
        quota = read_text(f"{folder}/cpu.cfs_quota_us")
        period = read_text(f"{folder}/cpu.cfs_period_us")
    # No quota is `max` in version 2 and -1 in version 1.
    return int(quota) / int(period) if quota.isdigit() and period and int(quota) else _UNLIMITED
