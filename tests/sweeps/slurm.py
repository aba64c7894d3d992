"""Kill parts of a Slurm cluster at random points of a job in its queue, and check the store.

    python -m tests.sweeps.slurm [--points 50] [--tasks 200] [--seed N] [--kill slurmctld]

Killed with signal 9 and started again are slurmctld, or slurmd of a node; or a runner, or the
client. Or a node is set down and given back, a batch is put back into the queue, or the time
limit ends all batches. `collect` goes on until all is done.
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
from collections.abc import Sequence
from pathlib import Path

from tests.support.command import Umpteen
from tests.support.slurm import SlurmCluster
from tests.support.wait import wait_until
from tests.sweeps.engines import check_winners
from tests.sweeps.points import run_points
from tests.sweeps.records import estimate_records, list_lost, read_record_lines

__all__ = ["TARGETS", "main", "run_slurm_point"]

TARGETS = ("slurmctld", "slurmd", "node down", "requeue", "runner", "client", "time limit")
_AGAIN_MOST = 5  # collects, until all is done


def run_slurm_point(umpteen: Umpteen, target: str, after: int, tasks: int) -> list[str]:
    """Run a job on two nodes, strike the target, and say what is wrong at the end.

    after: how many tasks have ended by then.
    """
    with contextlib.ExitStack() as stack:
        cluster = SlurmCluster(nodes=2, cpus=2)
        stack.callback(cluster.stop)
        cluster.start()
        return _run_point(umpteen, cluster, target, after, tasks)


def _run_point(
    umpteen: Umpteen, cluster: SlurmCluster, target: str, after: int, tasks: int
) -> list[str]:
    is_slow = target == "time limit"
    # Longer than a minute in all, which is the least limit that Slurm knows.
    pause_s = 300 / tasks if is_slow else 0.02
    commands = [
        f"sleep {pause_s}; echo {n}; echo {n} > $UMPTEEN_RESULTS_DIR/n" for n in range(tasks)
    ]
    options = {"time": 1} if is_slow else {"time": 10}
    content = {
        "executor": {"slurm": options}, "tasks": commands, "batch_size": -(-tasks // 4),
    }  # fmt: skip
    (umpteen.folder / "job.json").write_text(json.dumps(content))
    store = umpteen.folder / "umpteen-results" / "job"
    client = umpteen.start("run", "job.json", "-q", env=cluster.environment)
    try:
        wait_until(lambda: _has_come(store, after, client), 120)
        before = read_record_lines(store)
        if target == "client":
            client.kill()
        elif not is_slow:
            _strike(cluster, target)
        client.wait(400)
        returned, said = client.returncode, client.communicate()
        for _ in range(_AGAIN_MOST):
            if returned == 0:
                break
            again = umpteen("collect", "job", "-q", timeout_s=400, env=cluster.environment)
            returned, said = again.returncode, (again.stdout, again.stderr)
        faults = [f"ended with {returned}: {said}"] if returned else []
        return faults + check_winners(store, tasks) + list_lost(before, store)
    finally:
        client.kill()
        client.communicate()


def _has_come(store: Path, after: int, client: subprocess.Popen[str]) -> bool:
    return estimate_records(store) >= after or client.poll() is not None


def _strike(cluster: SlurmCluster, target: str) -> None:
    node = cluster.nodes[0]
    if target == "slurmctld":
        cluster.kill("slurmctld")
        cluster.start_controller()
    elif target == "slurmd":
        cluster.kill(node)
        cluster.start_node_alone(node)
    elif target == "node down":
        cluster.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=sweep")
        cluster.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
    elif target == "requeue":
        lines = cluster.ask("squeue", "-hr", "-t", "RUNNING", "-o", "%A").stdout.split()
        for job in lines[:1]:
            cluster.ask("scontrol", "requeue", job)
    elif target == "runner":
        for pid in _list_runners()[:1]:
            os.kill(pid, signal.SIGKILL)


def _list_runners() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_runner = b"umpteen.runner.main" in (path / "cmdline").read_bytes()
            if is_runner and b"SLURM_JOB_ID=" in (path / "environ").read_bytes():
                found.append(int(path.name))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; 1 where a point had a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kill", choices=TARGETS, help="this alone")
    options = parser.parse_args(arguments)
    generator = random.Random(options.seed)

    def run(_: int, umpteen: Umpteen) -> tuple[str, list[str]]:
        target = options.kill or generator.choice(TARGETS)
        after = generator.randrange(options.tasks)
        faults = run_slurm_point(umpteen, target, after, options.tasks)
        return f"{target} after {after}", faults

    return run_points(options.points, options.seed, run)


if __name__ == "__main__":
    sys.exit(main())
