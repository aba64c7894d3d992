"""Run a job that is far larger than what a Slurm takes of a user, and count what it did.

    python -m tests.sweeps.limits [--tasks 100000] [--batch-size 50] [--jobs 500]

The Slurm is ours: its arrays have 1,000 elements at most, a user may have so many jobs in it, one
call in twenty is not answered, though half of these did their work, and one answer of squeue in
fifty is empty or cut short. Each task must have run exactly once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.support.command import Umpteen
from tests.support.fake_slurm import FakeSlurm
from tests.sweeps.records import read_record_lines

__all__ = ["WINDOW_S", "main", "run_limited"]

WINDOW_S = 10.0
_CALLS_MOST_A_S = 4.0  # of the client and the submitter, over WINDOW_S


def run_limited(folder: Path, tasks: int, batch_size: int, cluster: FakeSlurm) -> list[str]:
    """What is wrong after a run of so many tasks."""
    (folder / "work").mkdir()
    (folder / "home").mkdir()
    umpteen = Umpteen(folder / "work", folder / "home")
    umpteen.write("job.txt", "true\n" * tasks)
    flags = ["--executor", "slurm", "--batch-size", str(batch_size), "--name", "job"]
    done = umpteen("run", "job.txt", *flags, env=cluster.environment, timeout_s=86400)
    wrong = [f"umpteen run ended with {done.returncode}: {done.stderr[-500:]}"]
    wrong = wrong if done.returncode else []
    lines = (line for part in read_record_lines(umpteen.store()).values() for line in part)
    records = map(json.loads, lines)
    runs = Counter(record["task"] for record in records if record.get("task") is not None)
    if len(runs) != tasks or set(runs.values()) != {1}:
        often = Counter(runs.values())
        wrong.append(f"{len(runs):,} of {tasks:,} tasks ran, by how often: {dict(often)}")
    busiest = cluster.find_busiest(WINDOW_S)
    if busiest > _CALLS_MOST_A_S:
        wrong.append(f"{busiest} calls a second over {WINDOW_S:g} s")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, and print what it cost; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=500, help="that a user may have in the queue")
    given = parser.parse_args(arguments)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="umpteen-limits-") as name:
        cluster = FakeSlurm(
            Path(name) / "slurm", submit_jobs=given.jobs, cpus=2 * (os.cpu_count() or 1),
            failing=0.05, lying=0.02,
        )  # fmt: skip
        cluster.start()
        try:
            wrong = run_limited(Path(name), given.tasks, given.batch_size, cluster)
        finally:
            cluster.stop()
        ((elements,),) = cluster.select("SELECT count(*) FROM elements")
        calls, busiest = cluster.count_calls(), cluster.find_busiest(WINDOW_S)
    print(
        f"{given.tasks:,} tasks in {elements:,} elements took {time.monotonic() - began_s:,.0f} s; "
        f"calls: {dict(calls)}, at most {busiest:g} a second over {WINDOW_S:g} s"
    )
    for line in wrong:
        print(f"wrong: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
