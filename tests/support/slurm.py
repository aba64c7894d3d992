"""A Slurm of the tests: munged, slurmctld and a slurmd for each node, all on this machine."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.support.server import find_port, start_server, stop_server
from tests.support.wait import wait_until

__all__ = ["PROGRAMS", "SlurmCluster"]

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")

# No control groups and no accounting; what a real cluster does within a minute is done in a second.
_CONFIG = """
ClusterName={cluster}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=10000,bf_interval=1,batch_sched_delay=0
MaxArraySize={array_size}
MaxJobCount={job_count}
MinJobAge={job_age_s}
KillWait=2
ReturnToService=2
SlurmdTimeout=10
MessageTimeout=10
InactiveLimit=0
MpiDefault=none
DefMemPerCPU=100
AccountingStorageType=accounting_storage/none
"""


class SlurmCluster:
    """`start()` it; commands find it by `environment`.

    cpus: of each node, need not be true. array_size: its MaxArraySize. job_count: its MaxJobCount,
    of those, too, that ended less than job_age_s ago.
    """

    def __init__(
        self,
        *,
        nodes: int = 2,
        cpus: int = 4,
        array_size: int = 1001,
        job_count: int = 20_000,
        job_age_s: int = 300,
    ) -> None:
        self.job_count, self.job_age_s = job_count, job_age_s
        self.folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # sockets: a short path
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.cpus, self.array_size = cpus, array_size
        self._servers: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What has Slurm's commands speak to it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """All of it; nodes take jobs when this returns."""
        self._write_config()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        names = [
            f"--{name}={self.folder}/munge.{name.partition('-')[0]}"
            for name in ("socket", "pid-file", "log-file", "seed-file")
        ]
        names[0] = f"--socket={self.folder}/munge.sock"
        self._run("munged", "--foreground", "--force", f"--key-file={key}", *names)
        wait_until((self.folder / "munge.sock").exists)
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)

    def _write_config(self) -> None:
        config = _CONFIG.format(
            cluster=self.folder.name, host=socket.gethostname().partition(".")[0],
            port=find_port(), user=getpass.getuser(), folder=self.folder,
            array_size=self.array_size, job_count=self.job_count, job_age_s=self.job_age_s,
        )  # fmt: skip
        host = socket.gethostname().partition(".")[0]
        for node in self.nodes:
            config += f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={find_port()}"
            config += f" CPUs={self.cpus} RealMemory=2000 State=UNKNOWN\n"
        config += f"PartitionName=main Nodes={','.join(self.nodes)} Default=YES MaxTime=60\n"
        config += f"PartitionName=closed Nodes={self.nodes[0]} State=DOWN\n"
        (self.folder / "slurm.conf").write_text(config)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        (self.folder / "state").mkdir(exist_ok=True)

    def start_controller(self) -> None:
        """Start slurmctld, which reads what it has saved; it answers when this returns."""
        self._run("slurmctld", "-D")
        wait_until(lambda: self.ask("scontrol", "ping").returncode == 0)

    def start_node(self, node: str) -> None:
        """Start slurmd of a node; it takes jobs when this returns."""
        self.start_node_alone(node)
        wait_until(lambda: self.ask("sinfo", "-h", "-n", node, "-t", "idle,mix,alloc").stdout)

    def start_node_alone(self, node: str) -> None:
        """Start slurmd of a node where there may be no slurmctld to take it."""
        self._run("slurmd", "-D", "-N", node, server=node)

    def save(self) -> None:
        """Have slurmctld write down what it knows: else it starts a job again that it began last.

        It does so a few seconds after each change.
        """
        file = self.folder / "state" / "job_state"
        before = file.stat().st_mtime_ns if file.exists() else 0
        for number in set(self.ask("squeue", "-h", "-o", "%F").stdout.split()):
            self.ask("scontrol", "update", f"JobId={number}", "Comment=saved")
        wait_until(lambda: file.exists() and file.stat().st_mtime_ns > before)

    def kill(self, server: str) -> None:
        """Kill slurmctld, or slurmd of a node, alone, as an accident would."""
        process = self._servers.pop(server)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        """What one of Slurm's commands answers, whatever its exit code."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    def end_jobs(self) -> None:
        """End all jobs, and wait until they are gone."""
        self.ask("scancel", f"--user={getpass.getuser()}")
        wait_until(lambda: not self.ask("squeue", "-h").stdout)

    def stop(self) -> None:
        """End all of it, with what its jobs run."""
        self.ask("scancel", "--full", "--signal=KILL", f"--user={getpass.getuser()}")
        for name in [*self.nodes, "slurmctld", "munged"]:
            if server := self._servers.pop(name, None):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(server.pid, signal.SIGKILL)
                stop_server(server)
        self._kill_rest()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _kill_rest(self) -> None:
        """Kill what is left: a slurmstepd whose slurmd was killed tries for hours to report."""
        sign = b"SLURM_CONF=" + os.fsencode(self.folder)
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if sign in path.read_bytes() and int(path.parent.name) != os.getpid():
                    os.kill(int(path.parent.name), signal.SIGKILL)

    def _run(self, program: str, *arguments: str, server: str = "") -> None:
        path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert path is not None
        name = server or program
        environment = {**os.environ, **self.environment}
        log = self.folder / f"{name}.log"
        self._servers[name] = start_server([path, *arguments], log, environment)
