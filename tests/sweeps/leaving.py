"""Kill what runs a detached job with retries and dependencies, and check what is left of it.

    python -m tests.sweeps.leaving [--points 500] [--seed N]

At each point the collecting process, the runner, a lane, one task, or all of them are killed
with signal 9, up to three times; then the job is collected to its end. What must hold is read
from the files of the store alone.
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.support.command import Umpteen
from tests.support.processes import find_runners, list_processes
from tests.support.store import list_records
from tests.support.wait import wait_until
from tests.sweeps.points import read_options, run_points
from tests.sweeps.records import estimate_records, list_lost, read_record_lines

__all__ = ["build_job", "check_outcome", "main", "run_point"]

TARGETS = ("collector", "runner", "lane", "task", "both", "all")
_TIMES = 3  # retries of a task that has any
_FINAL = ("succeeded", "failed", "timed_out", "cancelled", "skipped")


def build_job() -> list[dict[str, Any]]:
    """Chains with flaky tasks, a barrier, tasks that always fail, and what is after those."""
    retries = [{"when": "failed", "times": _TIMES, "wait": "0.02s"}]
    tasks: list[dict[str, Any]] = []

    def add(name: str, command: str, after: list[str], **more: Any) -> None:
        checks = "".join(
            f"test -e done.{other} || exit 99; " for other in after if "*" not in other
        )
        leave = f"{checks}{command}; echo {name}; touch done.{name}"
        tasks.append(
            {"name": name, "command": leave, **more, **({"after": after} if after else {})}
        )

    for number in range(10):
        add(f"prep-{number}", "sleep 0.02", [], retries=retries)
    for number in range(40):
        flaky = "test $UMPTEEN_ATTEMPT -gt 1 || exit 7" if number % 3 == 0 else "sleep 0.01"
        add(f"mid-{number}", flaky, [f"prep-{number % 10}"], retries=retries)
    for number in range(40):
        add(f"end-{number}", "sleep 0.01", [f"mid-{number}"])
    add("all", "true", ["mid-*"], retries=retries)
    for number in range(5):
        add(f"bad-{number}", "exit 3", [f"prep-{number}"], retries=1)
        add(f"never-{number}", "true", [f"bad-{number}"])
    return tasks


def _list_after(task: dict[str, Any], names: list[str]) -> list[str]:
    found = []
    for pattern in task.get("after", []):
        start = pattern.removesuffix("*")
        found += [n for n in names if n == pattern or (start != pattern and n.startswith(start))]
    return found


def check_outcome(store: Path, tasks: list[dict[str, Any]]) -> list[str]:
    """What is wrong with a finished store, by its files alone; empty where nothing is."""
    names = [task["name"] for task in tasks]
    records: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in list_records(store):
        records[names[record["task"]]].append(record)
    faults = []
    for task in tasks:
        name = task["name"]
        finals = [r for r in records[name] if r["state"] in _FINAL and not r.get("retry")]
        wins = [r for r in finals if r["state"] == "succeeded"]
        if len(finals) != 1:
            faults.append(f"{name} has {len(finals)} final states")
            continue
        if len(wins) > 1:
            faults.append(f"{name} has {len(wins)} successes")
        if any(r.get("exit_code") == 99 for r in records[name]):
            faults.append(f"{name} ran before what it is after")
        spent = sum(bool(r.get("retry")) for r in records[name])
        if spent > _TIMES:
            faults.append(f"{name} was retried {spent} times")
        attempts = [r["attempt"] for r in records[name]]
        if len(set(attempts)) != len(attempts):
            faults.append(f"{name} has an attempt twice: {attempts}")
        before = [_last(records[other]) for other in _list_after(task, names)]
        unmet = [r for r in before if r["state"] != "succeeded"]
        if bool(unmet) != (finals[0]["state"] == "skipped"):
            faults.append(
                f"{name} is {finals[0]['state']}, of what it is after {len(unmet)} failed"
            )
        starts = [r["start_s"] for r in records[name] if r["state"] != "skipped"]
        if starts and before and min(starts) < max(r["end_s"] for r in before) - 0.002:
            faults.append(f"{name} began before the success of what it is after")
        if wins and (store / name / "stdout").read_text() != f"{name}\n":
            faults.append(f"{name} has not the output of its success")
    return faults


def _last(records: list[dict[str, Any]]) -> dict[str, Any]:
    finals = [r for r in records if r["state"] in _FINAL and not r.get("retry")]
    return finals[-1] if finals else {"state": "waiting", "end_s": 0.0}


def _kill(umpteen: Umpteen, collector: int, target: str, generator: random.Random) -> None:
    runners = find_runners(umpteen)
    tasks = sorted(set(list_processes(umpteen)) - set(runners) - {collector})
    chosen: list[int] = []
    if target in ("collector", "both", "all"):
        chosen.append(collector)
    if target in ("runner", "both"):
        chosen += runners[:1]
    if target == "lane":
        chosen += runners[-1:]
    if target == "task" and tasks:
        chosen.append(generator.choice(tasks))
    if target == "all":
        chosen += [*runners, *tasks]
    for pid in chosen:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _is_far_enough(store: Path, after: int, collector: subprocess.Popen[str]) -> bool:
    return estimate_records(store) >= after or collector.poll() is not None


def run_point(umpteen: Umpteen, generator: random.Random) -> tuple[str, list[str]]:
    """Detach a job, kill around it, collect it; (what was done, what is wrong afterwards)."""
    tasks = build_job()
    (umpteen.folder / "job.json").write_text(json.dumps({"tasks": tasks, "slots": 4}))
    store = umpteen.folder / "umpteen-results" / "job"
    started = umpteen("run", "job.json", "--detach")
    faults = [] if started.returncode == 0 else [f"run --detach: {started.stderr}"]
    kills = []
    kept: dict[Path, list[bytes]] = {}
    for _ in range(generator.randint(1, 3)):
        target, after = generator.choice(TARGETS), generator.randrange(len(tasks))
        kills.append(f"{target} after {after}")
        collector = umpteen.start("collect", "job", "-q")
        try:
            wait_until(functools.partial(_is_far_enough, store, after, collector), 60)
            kept.update(read_record_lines(store))
            _kill(umpteen, collector.pid, target, generator)
        finally:
            collector.kill()
            collector.communicate()
    again = umpteen("collect", "job", "--json", timeout_s=120)
    if again.returncode != 1:  # some of its tasks always fail
        faults.append(f"collect ended with {again.returncode}: {again.stderr}")
    faults += check_outcome(store, tasks)
    faults += list_lost(kept, store)
    if left := list_processes(umpteen):
        faults.append(f"processes are left: {left}")
    return ", ".join(kills), faults


def main() -> int:
    """Run the sweep; 1 where a point had a fault."""
    options = read_options(__doc__, 500)

    def run(number: int, umpteen: Umpteen) -> tuple[str, list[str]]:
        return run_point(umpteen, random.Random(f"{options.seed}-{number}"))

    return run_points(options.points, options.seed, run)


if __name__ == "__main__":
    sys.exit(main())
