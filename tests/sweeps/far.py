"""Kill a job whose results are on S3 at random points, run it again, and check what is there.

    python -m tests.sweeps.far [--points 100] [--tasks 200] [--seed N]

As tests.sweeps.plain does with folders; all of the store is copied here to be looked at.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path

from tests.support.command import Umpteen
from tests.support.processes import kill, list_processes
from tests.support.s3 import S3, S3Server
from tests.support.wait import wait_until
from tests.sweeps.plain import Point
from tests.sweeps.points import read_options, run_points
from tests.sweeps.records import check_store, list_lost, read_record_lines
from umpteen.store.address import OPTIONS_VARIABLE, open_store

__all__ = ["main", "run_far_point"]


def _command(number: int) -> str:
    return f"echo {number}; echo {number} > $UMPTEEN_RESULTS_DIR/n; touch ran.{number}"


def _copy(s3: S3, folder: Path) -> Path:
    """The whole store, records as the segments that they are in."""
    store = open_store(s3.address, s3.options)
    store.fetch_many([(path, str(folder / path)) for path, _ in store.walk("")])
    store.close()
    return folder


def run_far_point(umpteen: Umpteen, s3: S3, point: Point, tasks: int) -> list[str]:
    """Start a job, kill at the point, run it again, and say what is wrong afterwards."""
    content = {"tasks": [_command(n) for n in range(tasks)], "results": s3.address}
    (umpteen.folder / "job.json").write_text(json.dumps(content))
    env = {OPTIONS_VARIABLE: json.dumps(s3.options)}
    watcher = umpteen.start("run", "job.json", "-q", env=env)
    try:
        wait_until(
            lambda: (
                len(list(umpteen.folder.glob("ran.*"))) >= point.after or watcher.poll() is not None
            ),
            120,
        )
        kill(umpteen, watcher, point.target)
        before = read_record_lines(_copy(s3, umpteen.home / "before"))
        if point.target in ("watcher", "both", "all"):
            watcher.wait(30)
        again = umpteen("run", "job.json", "--json", env=env, timeout_s=300)
        watcher.wait(300)
        store = _copy(s3, umpteen.home / "after")
        faults = check_store(store, tasks)
        if again.returncode != 0:
            faults.append(f"the second run ended with {again.returncode}: {again.stderr}")
        faults += list_lost(before, store)
        if left := list_processes(umpteen):
            faults.append(f"processes are left: {left}")
        return faults
    finally:
        watcher.kill()
        watcher.communicate()


def main() -> int:
    """Run the sweep; 1 where a point had a fault."""
    options = read_options(__doc__, 100, 200)
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="umpteen-far-") as root, S3Server(Path(root)) as server:

        def run(_: int, umpteen: Umpteen) -> tuple[str, list[str]]:
            point = Point(generator, options.tasks)
            faults = run_far_point(umpteen, server.make_bucket(), point, options.tasks)
            return repr(point), faults

        return run_points(options.points, options.seed, run)


if __name__ == "__main__":
    sys.exit(main())
