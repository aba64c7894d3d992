"""A Ray cluster of the tests: one machine, whose Python knows nothing of umpteen."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tests.support.network import Network
from tests.support.server import find_port, is_open, start_server
from tests.support.wait import wait_until

__all__ = ["RayCluster", "make_python"]

_START = ["-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
_STORE = ["--object-store-memory", str(80 << 20)]


def make_python(folder: Path) -> Path:
    """A Python with our packages but umpteen itself, as workers have it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (there,) = folder.glob("lib/python*/site-packages")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "umpteen" not in path.name and path.suffix != ".pth":
            (there / path.name).symlink_to(path)
    return folder / "bin/python"


class RayCluster:
    """`start()` it, in a Python without umpteen if none is given.

    Workers have leases of their own, as on another machine.
    """

    def __init__(self, environment: dict[str, str], python: Path | None = None) -> None:
        # Sockets are below it, whose paths must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
        self.port, self.client_port = find_port(), find_port()
        self.environment = {
            **environment,
            "UMPTEEN_LEASES": str(self.folder / "leases"),
            "RAY_AUTH_MODE": "disabled",
        }
        self.python = python or make_python(self.folder / "python")
        self.options = [] if python else ["--include-log-monitor=false"]  # no old one has it
        self.host = "127.0.0.1"
        self.machines: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """Of the head, for machines of the cluster."""
        return f"{self.host}:{self.port}"

    @property
    def client_address(self) -> str:
        """Of the head, for machines that are none of the cluster."""
        return f"ray://{self.host}:{self.client_port}"

    def start(self, cpus: int = 3) -> None:
        """Start the head, on the ports that it had before; two GPUs, as it thinks."""
        command = ["--head", "--port", str(self.port), "--temp-dir", str(self.folder / "tmp")]
        command += ["--ray-client-server-port", str(self.client_port)]
        command += ["--include-dashboard=false", *self.options]
        command += ["--node-ip-address", self.host]
        self._start([*command, "--num-cpus", str(cpus), "--num-gpus", "2"])
        wait_until(lambda: is_open(self.client_port, self.host), 60)

    def _start(self, options: list[str], network: Network | None = None) -> None:
        command = [str(self.python), *_START, *_STORE, *options]
        if network:
            command = network.wrap(command)
        log = self.folder / f"machine{len(self.machines)}.log"
        self.machines.append(start_server(command, log, self.environment))
        wait_until(lambda: "Ray runtime started" in log.read_text(), 60)

    def add_machine(self, cpus: int, network: Network) -> None:
        """Have another machine join, in a network of its own."""
        address = ["--address", self.address, "--node-ip-address", network.guest]
        self._start([*address, "--num-cpus", str(cpus)], network)

    def list_pids(self, pattern: str) -> list[int]:
        """Processes of this cluster whose command line has that: `ray::run_batch`."""
        sessions = {machine.pid for machine in self.machines}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_text()
                session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
                if session in sessions and re.search(pattern, line):
                    found.append(int(folder.name))
        return found

    def stop(self) -> None:
        """End all of it."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """As a power cut would, but for what runs in sessions of its own: runners and commands."""
        while pids := self.list_pids(""):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for machine in self.machines:
                machine.wait()
