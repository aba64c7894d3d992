"""Kill umpteen at random points, run it again, and check the store from its files alone.

    python -m tests.support.sweep [--points 100] [--tasks 5000] [--seed N]

At each point the watching process, the runner, or both are killed with signal 9. Now and then
a stranger's process runs beside the job: it must live on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.command import Umpteen
from tests.support.wait import wait_until
from umpteen.system import processes as process

__all__ = ["TARGETS", "Point", "check_store", "main", "read_options", "run_point", "run_points"]

_RECORD_BYTES = 220
TARGETS = ("watcher", "runner", "lane", "both", "all")


class Point:
    """One kill: whom, which is left to chance or said, and how many tasks had been recorded."""

    def __init__(self, generator: random.Random, tasks: int, target: str = "") -> None:
        self.target = target or generator.choice(TARGETS)
        self.after = generator.randrange(tasks)

    def __repr__(self) -> str:
        return f"{self.target} after {self.after}"


def read_record_lines(store: Path) -> dict[Path, list[bytes]]:
    """The whole lines of every records file, as they are."""
    return {
        path: path.read_bytes().split(b"\n")[:-1]
        for path in sorted(store.glob(".umpteen/records/*/*.jsonl"))
    }


def estimate_records(store: Path) -> int:
    """About how many records the store has, by the size of its files: reading costs time."""
    sizes = (path.stat().st_size for path in store.glob(".umpteen/records/*/*.jsonl"))
    return sum(sizes) // _RECORD_BYTES


def list_processes(umpteen: Umpteen) -> dict[int, bytes]:
    """Every process that this umpteen started, directly or not, with its command line."""
    marker = f"UMPTEEN_LEASES={umpteen.leases.parent}".encode()
    found = {}
    for name in os.listdir("/proc"):
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes() if name.isdigit() else b""
            if marker in environment.split(b"\0"):
                found[int(name)] = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
    return found


def find_runners(umpteen: Umpteen) -> list[int]:
    """Runners and their lanes, a runner before its lanes."""
    processes = list_processes(umpteen)
    ours = {pid for pid, command in processes.items() if b"umpteen.runner.main" in command}
    entries = {entry.pid: entry for entry in process.list_processes() if entry.pid in ours}
    runners = [entry for entry in entries.values() if entry.parent not in entries]
    lanes = [entry for entry in entries.values() if entry.parent in {r.pid for r in runners}]
    # What a lane has forked, and is about to be a task, looks like it.
    return [e.pid for some in (runners, lanes) for e in sorted(some, key=lambda e: e.start_ticks)]


def kill(umpteen: Umpteen, watcher: subprocess.Popen[str], target: str) -> None:
    """Send signal 9 to what `target` names."""
    runners = find_runners(umpteen)
    chosen: list[int] = []
    if target in ("watcher", "both", "all"):
        chosen.append(watcher.pid)
    if target in ("runner", "both"):
        chosen += runners[:1]
    if target == "lane":
        chosen += runners[-1:]
    if target == "all":
        chosen += runners
    for pid in chosen:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def list_lost(before: Mapping[Path, list[bytes]], store: Path) -> list[str]:
    """What is wrong where records that were there before are not there, or not as they were.

    before: by path, in this store or in a copy of what it was.
    """
    now = {path.parts[-2:]: lines for path, lines in read_record_lines(store).items()}
    return [
        f"{path.name} lost or changed a record"
        for path, lines in before.items()
        if now.get(path.parts[-2:], [])[: len(lines)] != lines
    ]


def list_wrong_outputs(folder: Path, task: int) -> list[str]:
    """What is wrong in the folder of an attempt of a task that says its number in each file."""
    told = {"stdout": f"{task}\n", "results/n": f"{task}\n", "status_code": "0"}
    found = {name: path.read_text() for name in told if (path := folder / name).exists()}
    return [f"task {task} left {found}"] if found != told else []


def check_store(store: Path, tasks: int) -> list[str]:
    """What is wrong with a finished store, by its files alone; empty where nothing is."""
    faults = []
    successes: Counter[int] = Counter()
    for lines in read_record_lines(store).values():
        for line in lines:
            record = json.loads(line)
            if record.get("state") == "succeeded":
                successes[record["task"]] += 1
    if len(successes) != tasks:
        faults.append(f"{len(successes)} of {tasks} tasks have a success")
    twice = [task for task, count in successes.items() if count > 1]
    if twice:
        faults.append(f"{len(twice)} tasks have more than one success, such as {twice[0]}")
    for task in range(tasks):
        faults += list_wrong_outputs(store / str(task), task)
    return faults


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
                f"the second run ended with {again.returncode}: {again.stderr}{status}{again.stdout}"
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


def run_points(points: int, seed: int, run: Callable[[int, Umpteen], tuple[str, list[str]]]) -> int:
    """Run each point with folders of its own, and print it with its faults; 1 if it had any.

    run: of a point's number; what was done there, and what is wrong.
    """
    print(f"seed {seed}, {points} points", flush=True)
    bad = 0
    with tempfile.TemporaryDirectory(prefix="umpteen-sweep-") as root:
        for number in range(points):
            umpteen = Umpteen(Path(root, f"{number}", "work"), Path(root, f"{number}", "home"))
            umpteen.folder.mkdir(parents=True)
            umpteen.home.mkdir()
            what, faults = run(number, umpteen)
            bad += bool(faults)
            print(f"{number:>4}  {what:<60} {'; '.join(faults[:5]) or 'sound'}", flush=True)
    print(f"{points - bad} of {points} points sound, seed {seed}")
    return 1 if bad else 0


def read_options(text: str | None, points: int, tasks: int = 0) -> argparse.Namespace:
    """How many points (and tasks, where that is a choice), and the seed."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--points", type=int, default=points)
    if tasks:
        parser.add_argument("--tasks", type=int, default=tasks)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    return parser.parse_args()


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
