"""Kill parts of a cluster at random points of a job on it, collect it, and check the store.

    python -m tests.support.engines [--points 50] [--tasks 300] [--seed N] [--kill scheduler]

Killed with signal 9 are a worker, a runner on one, the client, or the scheduler with all that
hangs on it; or a worker is stopped and goes on after it was given up. What died is replaced, as
an operator would, and `collect` goes on until all is done.
"""

from __future__ import annotations

import argparse
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
from tests.support.sweep import estimate_records, find_runners, read_record_lines, run_points
from tests.support.wait import wait_until

__all__ = ["TARGETS", "main", "run_engine_point"]

TARGETS = ("worker", "frozen worker", "runner", "client", "scheduler")
_QUICK = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "3s",
    "DASK_DISTRIBUTED__WORKER__HEARTBEAT__INTERVAL": "300ms",
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
        told = [found / name for name in ("stdout", "results/n", "status_code")]
        read = [path.read_text() if path.exists() else None for path in told]
        if read != [f"{task}\n", f"{task}\n", "0"]:
            faults.append(f"task {task} left {read}")
    return faults


def run_engine_point(umpteen: Umpteen, target: str, after: int, tasks: int) -> list[str]:
    """Run a job on a cluster of two workers, kill the target, and say what is wrong then."""
    cluster = DaskCluster(umpteen.home / "dask", {**umpteen.environment, **_QUICK})
    job = umpteen.folder / "job.json"
    job.write_text(json.dumps({"tasks": [_command(n) for n in range(tasks)]}))
    store = umpteen.folder / "umpteen-results" / "job"
    try:
        cluster.start()
        workers = [cluster.add_worker(), cluster.add_worker()]
        flags = ("--executor", "dask", "--scheduler-address", cluster.address)
        client = umpteen.start("run", "job.json", "-q", *flags)
        wait_until(lambda: estimate_records(store) >= after or client.poll() is not None, 120)
        before = read_record_lines(store)
        _strike(target, cluster, workers[0], client)
        client.wait(150)
        again = client
        for _ in range(3):
            if again.returncode in (0, 1) and target != "client":
                break
            again = umpteen.start("collect", "job", "-q")
            again.wait(150)
            if again.returncode == 0:
                break
        faults = (
            [f"ended with {again.returncode}: {again.communicate()}"] if again.returncode else []
        )
        faults += check_winners(store, tasks)
        now = read_record_lines(store)
        faults += [
            f"{path.name} lost or changed a record"
            for path, lines in before.items()
            if now.get(path, [])[: len(lines)] != lines
        ]
        return faults
    finally:
        client.kill()
        client.communicate()
        cluster.stop()


def _strike(
    target: str,
    cluster: DaskCluster,
    worker: subprocess.Popen[bytes],
    client: subprocess.Popen[str],
) -> None:
    if target == "client":
        client.kill()
    elif target == "runner":
        # Workers have their leases in the cluster's folder.
        for pid in find_runners(Umpteen(cluster.folder, cluster.folder))[:1]:
            os.kill(pid, signal.SIGKILL)
    elif target == "worker":
        cluster.kill(worker)
        cluster.add_worker()
    elif target == "frozen worker":
        os.kill(worker.pid, signal.SIGSTOP)
        cluster.add_worker()
        time.sleep(4)  # longer than the scheduler's patience: this is the fault, not a wait
        os.kill(worker.pid, signal.SIGCONT)
    else:
        cluster.kill(cluster.scheduler)
        cluster.start()
        cluster.add_worker()
        cluster.add_worker()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; 1 where a point had a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kill", choices=TARGETS, help="this alone")
    options = parser.parse_args(arguments)
    generator = random.Random(options.seed)

    def run(_: int, umpteen: Umpteen) -> tuple[str, list[str]]:
        target = options.kill or generator.choice(TARGETS)
        after = generator.randrange(options.tasks)
        faults = run_engine_point(umpteen, target, after, options.tasks)
        return f"{target} after {after}", faults

    return run_points(options.points, options.seed, run)


if __name__ == "__main__":
    sys.exit(main())
