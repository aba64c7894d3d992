"""Kill parts of a cluster at random points of a job on it, collect it, and check the store.

    python -m tests.sweeps.engines dask|ray [--points 50] [--tasks 300] [--seed N] [--kill head]

Killed with signal 9 are a worker, a runner on one, the client, Ray's actor that has the batches,
or the scheduler (the head) with all that hangs on it; or a worker is stopped, or its cable is
pulled, until it was given up. What died is replaced, as an operator would, and `collect` goes
on until all is done.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.support.command import Umpteen
from tests.support.dask import DaskCluster
from tests.support.network import Network, open_network
from tests.support.processes import find_runners
from tests.support.ray import RayCluster
from tests.support.wait import wait_until
from tests.sweeps.points import run_points
from tests.sweeps.records import estimate_records, list_lost, list_wrong_outputs, read_record_lines

__all__ = ["KILL", "TARGETS", "main", "run_engine_point"]

TARGETS = {
    "dask": ("worker", "frozen worker", "cut worker", "runner", "client", "head"),
    "ray": ("worker", "cut worker", "runner", "client", "owner", "head"),
}
# Above a script are its command's shell, the lane, the runner, the worker.
KILL = """\
pid=$$
while [ $((up += 1)) -le $1 ]; do pid=$(awk '/^PPid/ { print $2 }' /proc/$pid/status); done
kill -9 $pid
sleep 600
"""
# They give up a machine that is silent sooner than in half a minute.
_QUICK = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "3s",
    "DASK_DISTRIBUTED__WORKER__HEARTBEAT__INTERVAL": "300ms",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


def _command(number: int) -> str:
    return f"sleep 0.02; echo {number}; echo {number} > $UMPTEEN_RESULTS_DIR/n"


def check_winners(store: Path, tasks: int) -> list[str]:
    """What is wrong with a finished store: of each task one success counts, and is in its place."""
    faults = []
    successes: Counter[int] = Counter()
    aside: Counter[int] = Counter()
    for lines in read_record_lines(store).values():
        moved = {json.loads(line).get("moved") for line in lines}
        for record in map(json.loads, lines):
            if record.get("state") == "succeeded":
                is_aside = record.get("outputs") and record["task"] not in moved
                (aside if is_aside else successes)[record["task"]] += 1
    if len(successes | aside) != tasks:
        faults.append(f"{len(successes | aside)} of {tasks} tasks have a success")
    if twice := [task for task, count in successes.items() if count > 1]:
        faults.append(f"{len(twice)} tasks have more than one that counts, such as {twice[0]}")
    for task in range(tasks):
        found = store / str(task)
        if not (found / "status_code").exists():
            found = next(iter(sorted(found.glob("attempts/*"))), found)
        faults += list_wrong_outputs(found, task)
    return faults


class _Dask:
    """A scheduler and two workers, one of them in a network of its own where that is to be cut."""

    def __init__(self, umpteen: Umpteen, network: Network | None) -> None:
        self.cluster = DaskCluster(umpteen.home / "dask", {**umpteen.environment, **_QUICK})
        self.network = network
        self.cluster.host = network.host if network else self.cluster.host
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.cluster.start()
        self.workers = [self.cluster.add_worker(network=self.network), self.cluster.add_worker()]

    def strike(self, target: str) -> None:
        if target == "head":
            self.cluster.kill(self.cluster.scheduler)
            self.start()
            return
        if self.network:
            self.network.cut()
        else:
            is_killed = target == "worker"
            os.kill(self.workers[0].pid, signal.SIGKILL if is_killed else signal.SIGSTOP)
        self.cluster.add_worker()
        if target != "worker":
            time.sleep(4)  # longer than the scheduler's patience: this is the fault, not a wait
        if self.network:
            self.network.mend()
        elif target != "worker":
            os.kill(self.workers[0].pid, signal.SIGCONT)


class _Ray:
    """A head with two CPUs, one of them on another machine where that is to be cut."""

    def __init__(self, umpteen: Umpteen, network: Network | None) -> None:
        self.cluster = RayCluster({**umpteen.environment, **_QUICK})
        self.network = network
        self.cluster.host = network.host if network else self.cluster.host

    def start(self) -> None:
        self.cluster.start(1 if self.network else 2)
        if self.network:
            self.cluster.add_machine(1, self.network)

    def strike(self, target: str) -> None:
        if target == "head":
            self.cluster.kill()
            self.start()
            return
        if self.network:
            self.network.cut()
            time.sleep(5)  # as above
            self.network.mend()
            return
        pattern = "ray::run_batch" if target == "worker" else "ray::.*[Oo]wner"
        for pid in self.cluster.list_pids(pattern)[:1]:
            os.kill(pid, signal.SIGKILL)


def run_engine_point(
    umpteen: Umpteen, engine: str, target: str, after: int, tasks: int
) -> list[str]:
    """Run a job on a cluster for two batches at once, kill the target, and say what is wrong."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(open_network()) if target == "cut worker" else None
        side = (_Dask if engine == "dask" else _Ray)(umpteen, network)
        stack.callback(side.cluster.stop)
        return _run_point(umpteen, side, engine, target, after, tasks)


def _run_point(
    umpteen: Umpteen, side: _Dask | _Ray, engine: str, target: str, after: int, tasks: int
) -> list[str]:
    job = umpteen.folder / "job.json"
    job.write_text(json.dumps({"tasks": [_command(n) for n in range(tasks)]}))
    store = umpteen.folder / "umpteen-results" / "job"
    client = None
    try:
        side.start()
        flags = ("--executor", engine, "--scheduler-address", side.cluster.address)
        client = umpteen.start("run", "job.json", "-q", *flags)
        wait_until(lambda: _has_come(store, after, client), 120)
        before = read_record_lines(store)
        if target == "client":
            client.kill()
        elif target == "runner":
            # Workers have their leases in the cluster's folder.
            for pid in find_runners(Umpteen(side.cluster.folder, side.cluster.folder))[:1]:
                os.kill(pid, signal.SIGKILL)
        else:
            side.strike(target)
        client.wait(150)
        returned, said = client.returncode, client.communicate()
        for _ in range(3):
            if returned == 0:
                break
            again = umpteen("collect", "job", "-q", timeout_s=200)
            returned, said = again.returncode, (again.stdout, again.stderr)
        faults = [f"ended with {returned}: {said}"] if returned else []
        return faults + check_winners(store, tasks) + list_lost(before, store)
    finally:
        if client is not None:
            client.kill()
            client.communicate()


def _has_come(store: Path, after: int, client: subprocess.Popen[str]) -> bool:
    return estimate_records(store) >= after or client.poll() is not None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; 1 where a point had a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=TARGETS)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kill", help="this alone: " + ", ".join(TARGETS["dask"]))
    options = parser.parse_args(arguments)
    generator = random.Random(options.seed)

    def run(_: int, umpteen: Umpteen) -> tuple[str, list[str]]:
        target = options.kill or generator.choice(TARGETS[options.engine])
        after = generator.randrange(options.tasks)
        faults = run_engine_point(umpteen, options.engine, target, after, options.tasks)
        return f"{target} after {after}", faults

    return run_points(options.points, options.seed, run)


if __name__ == "__main__":
    sys.exit(main())
