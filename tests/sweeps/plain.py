"""Kill umpteen at random points, run it again, and check the store from its files alone.

    python -m tests.sweeps.plain [--points 100] [--tasks 5000] [--seed N]

At each point the watching process, the runner, or both are killed with signal 9. Now and then
a stranger's process runs beside the job: it must live on.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys

from tests.support.command import Umpteen
from tests.support.processes import kill, list_processes
from tests.support.wait import wait_until
from tests.sweeps.points import read_options, run_points
from tests.sweeps.records import check_store, estimate_records, list_lost, read_record_lines

__all__ = ["TARGETS", "Point", "main", "run_point"]

TARGETS = ("watcher", "runner", "lane", "both", "all")


class Point:
    """One kill: whom, which is left to chance or said, and how many tasks had been recorded."""

    def __init__(self, generator: random.Random, tasks: int, target: str = "") -> None:
        self.target = target or generator.choice(TARGETS)
        self.after = generator.randrange(tasks)

    def __repr__(self) -> str:
        return f"{self.target} after {self.after}"


def _command(number: int) -> str:
    """A task that leaves its number; every 50th fails if its earlier self is still alive."""
    leave = f"echo {number}; echo {number} > $UMPTEEN_RESULTS_DIR/n"
    if number % 50:
        return leave
    # The lock is held by a process in a session of its own, which no signal to a group reaches.
    return f"exec 9>lock.{number}; flock -n 9 || exit 9; setsid sleep 0.1; {leave}"


def run_point(umpteen: Umpteen, point: Point, tasks: int) -> list[str]:
    """Start a job, kill at the point, run it again, and say what is wrong afterwards."""
    job = umpteen.folder / "job.json"
    job.write_text(json.dumps({"tasks": [{"command": _command(n)} for n in range(tasks)]}))
    store = umpteen.folder / "umpteen-results" / "job"
    stranger = subprocess.Popen(["sleep", "600"])
    watcher = umpteen.start("run", "job.json", "-q")
    try:
        wait_until(
            lambda: estimate_records(store) >= point.after or watcher.poll() is not None, 120
        )
        before = read_record_lines(store)
        kill(umpteen, watcher, point.target)
        if point.target in ("watcher", "both", "all"):
            watcher.wait(30)
        again = umpteen("run", "job.json", "--json", timeout_s=300)
        watcher.wait(300)
        faults = check_store(store, tasks) if again.returncode == 0 else []
        if again.returncode != 0:
            status = umpteen("status", "job").stdout
            faults.append(
                f"the second run ended with {again.returncode}: "
                f"{again.stderr}{status}{again.stdout}"
            )
        faults += list_lost(before, store)
        if left := list_processes(umpteen):
            faults.append(f"processes are left: {left}")
        if stranger.poll() is not None:
            faults.append("a stranger's process was ended")
        return faults
    finally:
        stranger.kill()
        stranger.wait()
        watcher.kill()
        watcher.communicate()


def main() -> int:
    """Run the sweep; 1 where a point had a fault."""
    options = read_options(__doc__, 100, 5000)
    generator = random.Random(options.seed)

    def run(_: int, umpteen: Umpteen) -> tuple[str, list[str]]:
        point = Point(generator, options.tasks)
        return repr(point), run_point(umpteen, point, options.tasks)

    return run_points(options.points, options.seed, run)


if __name__ == "__main__":
    sys.exit(main())
