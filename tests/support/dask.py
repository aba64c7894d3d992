"""A Dask cluster of the tests: a scheduler and workers, processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.server import find_port, is_open, start_server, stop_server
from tests.support.wait import wait_until

__all__ = ["DaskCluster"]

_SCHEDULER = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
_WORKER = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-dashboard"]
# What Dask sends around by itself, less often than would be fair on two cores.
_QUIET = {"DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "200ms"}


class DaskCluster:
    """`start()` it, `add_worker()`; workers have leases of their own, as on another machine."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.port = folder, find_port()
        self.environment = {**environment, **_QUIET, "UMPTEEN_LEASES": str(folder / "leases")}
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the scheduler, on the port that it had before."""
        command = [*_SCHEDULER, "--host", "127.0.0.1", "--port", str(self.port)]
        self.scheduler = self._start(command, "scheduler")
        wait_until(lambda: is_open(self.port))

    def add_worker(
        self, threads: int = 1, *, nanny: bool = False, **more: str
    ) -> subprocess.Popen[bytes]:
        """Start a worker that has joined when this returns; `more` are options of its command."""
        number = len(self.workers)
        command = [*_WORKER, self.address, "--nthreads", str(threads), "--name", f"w{number}"]
        command += ["--local-directory", str(self.folder / f"w{number}")]
        command += ["--nanny" if nanny else "--no-nanny", "--death-timeout", "30"]
        for option, value in more.items():
            command += [f"--{option.replace('_', '-')}", value]
        worker = self._start(command, f"w{number}")
        self.workers.append(worker)
        log = self.folder / f"w{number}.log"
        wait_until(lambda: "Registered to" in log.read_text(), 30)
        return worker

    def _start(self, command: list[str], name: str) -> subprocess.Popen[bytes]:
        self.folder.mkdir(exist_ok=True)
        return start_server(command, self.folder / f"{name}.log", self.environment)

    def kill(self, process: subprocess.Popen[bytes] | None) -> None:
        """As a power cut would: the process alone, not its children."""
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End all of it, with what tasks may have left."""
        for process in (*self.workers, self.scheduler):
            if process is not None:
                os.kill(process.pid, signal.SIGCONT) if process.poll() is None else None
                stop_server(process)
