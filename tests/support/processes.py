"""What processes a test's umpteen has started, and their ends by signal 9."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.support.command import Umpteen
from umpteen.system import processes as process

__all__ = ["find_runners", "kill", "list_processes"]


def list_processes(umpteen: Umpteen) -> dict[int, bytes]:
    """Every process that this umpteen started, directly or not, with its command line."""
    marker = f"UMPTEEN_LEASES={umpteen.leases.parent}".encode()
    found = {}
    for name in os.listdir("/proc"):
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes() if name.isdigit() else b""
            if marker in environment.split(b"\0"):
                found[int(name)] = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
    return found


def find_runners(umpteen: Umpteen) -> list[int]:
    """Runners and their lanes, a runner before its lanes."""
    processes = list_processes(umpteen)
    ours = {pid for pid, command in processes.items() if b"umpteen.runner.main" in command}
    entries = {entry.pid: entry for entry in process.list_processes() if entry.pid in ours}
    runners = [entry for entry in entries.values() if entry.parent not in entries]
    lanes = [entry for entry in entries.values() if entry.parent in {r.pid for r in runners}]
    # What a lane has forked, and is about to be a task, looks like it.
    return [e.pid for some in (runners, lanes) for e in sorted(some, key=lambda e: e.start_ticks)]


def kill(umpteen: Umpteen, watcher: subprocess.Popen[str], target: str) -> None:
    """Send signal 9 to what `target` names."""
    runners = find_runners(umpteen)
    chosen: list[int] = []
    if target in ("watcher", "both", "all"):
        chosen.append(watcher.pid)
    if target in ("runner", "both"):
        chosen += runners[:1]
    if target == "lane":
        chosen += runners[-1:]
    if target == "all":
        chosen += runners
    for pid in chosen:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
