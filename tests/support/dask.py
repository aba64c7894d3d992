"""A Dask cluster of the tests: a scheduler and workers, processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.network import Network
from tests.support.server import find_port, is_open, start_server, stop_server
from tests.support.wait import wait_until

__all__ = ["DaskCluster"]

_SCHEDULER = ["-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
_WORKER = ["-m", "distributed.cli.dask_worker", "--no-dashboard"]
# Empties the folders before `--` for a command and its children alone.
_HIDE = 'while [ "$1" != -- ]; do mount -t tmpfs none "$1" || exit; shift; done; shift; exec "$@"'
# What Dask sends around by itself, less often than would be fair on two cores.
_QUIET = {"DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "200ms"}


class DaskCluster:
    """`start()` it, `add_worker()`; workers have leases of their own, as on another machine.

    python: what workers run in. options: of scheduler and workers. hidden: folders that are
    empty for the workers to come, for each its own, which needs root. host: where the scheduler
    listens. Commands find programs in `programs`, and the worker's name in WORKER.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.port = folder, find_port()
        self.programs = folder / "bin"
        self.environment = {
            **environment,
            **_QUIET,
            "UMPTEEN_LEASES": str(folder / "leases"),
            "PATH": f"{self.programs}:{environment.get('PATH', os.defpath)}",
        }
        self.protocol, self.python, self.scheduler_python = "tcp", sys.executable, sys.executable
        self.host = "127.0.0.1"
        self.options: list[str] = []
        self.hidden: Sequence[Path] = ()
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return f"{self.protocol}://{self.host}:{self.port}"

    def start(self) -> None:
        """Start the scheduler, on the port that it had before."""
        command = [self.scheduler_python, *_SCHEDULER, "--host", f"{self.protocol}://{self.host}"]
        command += ["--port", str(self.port), *self.options]
        self.scheduler = self._start(command, "scheduler")
        wait_until(lambda: is_open(self.port, self.host))

    def add_worker(
        self,
        threads: int = 1,
        *,
        nanny: bool = False,
        network: Network | None = None,
        **more: str,
    ) -> subprocess.Popen[bytes]:
        """Start a worker that has joined when this returns; `more` are options of its command."""
        number = len(self.workers)
        command = [self.python, *_WORKER, self.address, *self.options]
        command += ["--nthreads", str(threads), "--name", f"w{number}"]
        command += ["--local-directory", str(self.folder / f"w{number}")]
        command += ["--nanny" if nanny else "--no-nanny", "--death-timeout", "30"]
        for option, value in more.items():
            command += [f"--{option.replace('_', '-')}", value]
        if self.hidden:
            command = [
                "unshare",
                "-m",
                "sh",
                "-c",
                _HIDE,
                "sh",
                *map(str, self.hidden),
                "--",
                *command,
            ]
        if network:
            command = network.wrap(command)
        worker = self._start(command, f"w{number}")
        self.workers.append(worker)
        log = self.folder / f"w{number}.log"
        wait_until(lambda: "Registered to" in log.read_text(), 30)
        return worker

    def _start(self, command: list[str], name: str) -> subprocess.Popen[bytes]:
        self.folder.mkdir(exist_ok=True)
        self.programs.mkdir(exist_ok=True)
        environment = {**self.environment, "WORKER": name}
        return start_server(command, self.folder / f"{name}.log", environment)

    def kill(self, process: subprocess.Popen[bytes] | None) -> None:
        """As a power cut would: the process alone, not its children."""
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End all of it; runners notice, and end what tasks may have left."""
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        if self.scheduler is not None:
            stop_server(self.scheduler)
