"""Processes that run on this machine: lists them, finds those with a mark, signals a group.

From /proc where there is one, else from `ps`. How they are started is in `spawn`, how their end
is noticed in `children`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

from umpteen.system.host import IS_PORTABLE

__all__ = [
    "ProcessEntry",
    "end_group",
    "is_marked_otherwise",
    "is_running",
    "is_stopped",
    "list_below",
    "list_children",
    "list_marked",
    "list_processes",
    "read_pid_namespace",
    "read_process",
]


def end_group(pid: int, number: int) -> bool:
    """Send a signal to the group of `pid`; False where there is none any more."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


class ProcessEntry(NamedTuple):
    """One process of this machine; `start_ticks` is its start in clock ticks since boot."""

    pid: int
    parent: int
    session: int
    start_ticks: int


def list_processes() -> list[ProcessEntry]:
    """Every process that can be seen; zombies are left out."""
    if IS_PORTABLE:
        return _list_by_ps()
    entries = []
    for name in os.listdir("/proc"):
        if name.isdigit() and (entry := read_process(int(name))):
            entries.append(entry)
    return entries


def read_process(pid: int) -> ProcessEntry | None:
    """One process; None where it has ended, or cannot be looked at."""
    fields = _read_stat(pid)
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return ProcessEntry(pid, int(fields[1]), int(fields[3]), int(fields[19]))


def _read_stat(pid: int) -> list[bytes]:
    """What the kernel says of a process, from its state on; nothing where it cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The program's name stands in brackets and may hold anything, brackets too.
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def is_running(pid: int, start_ticks: int) -> bool:
    """Whether the process that began then, by its `ProcessEntry`, still runs."""
    if not os.path.exists("/proc/self/stat"):
        try:
            os.kill(pid, 0)
        except OSError as error:
            return error.errno == errno.EPERM
        return True
    found = read_process(pid)
    return found is not None and found.start_ticks == start_ticks


def read_pid_namespace() -> str:
    """Within what pids of this process mean what they say; empty where that is not to be known."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def is_stopped(pid: int) -> bool:
    """Whether a signal stopped the process, which goes on when another tells it to."""
    return _read_stat(pid)[:1] in ([b"T"], [b"t"])


def _list_by_ps() -> list[ProcessEntry]:
    import subprocess  # slow to load, and no Linux needs it

    columns = "pid=,ppid=,sess=,stat="
    with subprocess.Popen(["ps", "-A", "-o", columns], stdout=subprocess.PIPE, text=True) as lister:
        shown = lister.communicate()[0]
    rows = (line.split() for line in shown.splitlines())
    return [
        ProcessEntry(int(row[0]), int(row[1]), int(row[2], 16 if "x" in row[2] else 10), 0)
        for row in rows
        if len(row) == 4 and not row[3].startswith("Z") and int(row[0]) != lister.pid
    ]


def list_marked(variable: str, value: str, also: Mapping[str, str] | None = None) -> list[int]:
    """Processes of ours whose environment, as it was at their start, says `variable=value`.

    `also`: further variables that must be there too. Without /proc: none.
    """
    wanted = [f"{key}={text}".encode() for key, text in {variable: value, **(also or {})}.items()]
    if IS_PORTABLE and not os.path.exists("/proc/self/environ"):
        return []
    marked = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        entries = _read_environment(int(name))
        if all(entry in entries for entry in wanted) and read_process(int(name)):
            marked.append(int(name))
    return marked


def _read_environment(pid: int) -> list[bytes]:
    """`NAME=value` of each variable as at the start of a process;
    nothing where it cannot be read.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def list_below(roots: Collection[int], variable: str, value: str) -> list[ProcessEntry]:
    """Descendants of processes, whatever their environment and session.

    But for those whose environment says another value of the variable, and what is below them.
    """
    children: dict[int, list[ProcessEntry]] = {}
    for entry in list_processes():
        children.setdefault(entry.parent, []).append(entry)
    found: list[ProcessEntry] = []
    waiting = [entry for root in roots for entry in children.get(root, ())]
    while waiting:
        entry = waiting.pop()
        if not is_marked_otherwise(entry.pid, variable, value):
            found.append(entry)
            waiting += children.get(entry.pid, ())
    return found


def is_marked_otherwise(pid: int, variable: str, value: str) -> bool:
    """Whether the environment of a process says another value of the variable."""
    prefix = f"{variable}=".encode()
    marks = [entry for entry in _read_environment(pid) if entry.startswith(prefix)]
    return bool(marks) and marks[0] != f"{variable}={value}".encode()


def list_children() -> set[int]:
    """Our children, orphans that came to us among them; none where the kernel does not tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return set(map(int, file.read().split()))
    except OSError:
        return set()
