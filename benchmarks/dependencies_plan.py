"""A hundred thousand tasks with as many dependencies: read, planned, written; and without them."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.measuring import (
    Goal,
    build_environment,
    compare,
    fresh_folder,
    open_scratch,
    parse_options,
    publish,
    read_status,
    render_table,
    render_time,
    run_rounds,
    run_timed,
)

_PLAIN = "no task is after another"
_JOBS: dict[str, Callable[[int], dict[str, Any]]] = {
    _PLAIN: lambda _: {},
    "each is after the one before it": lambda n: {"after": f"t{n - 1}"} if n else {},
    "each is after the first": lambda n: {"after": "t0"} if n else {},
}


def write_job(path: str, tasks: int, more: Callable[[int], dict[str, Any]]) -> None:
    listed = [{"name": f"t{n}", "command": f"python train.py {n}", **more(n)} for n in range(tasks)]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"tasks": listed}, file)


def hand_in(job: str, scratch: str, tasks: int, environment: Mapping[str, str]) -> float:
    folder = fresh_folder(scratch, "plan")
    os.link(job, f"{folder}/job.json")
    command = [sys.executable, "-m", "benchmarks.handing_in", "job.json"]
    seconds = run_timed(command, folder, environment).seconds
    counts = read_status(f"{folder}/umpteen-results/job", folder, environment)
    if counts["waiting"] != tasks:
        sys.exit(f"bench: {tasks} tasks were handed in as {counts}")
    return seconds


def main() -> None:
    options = parse_options(__doc__, tasks=100_000, rounds=9)
    with open_scratch(options, "dependencies-plan") as scratch:
        environment = build_environment(scratch)
        group: dict[str, Callable[[], float]] = {}
        for number, (name, more) in enumerate(_JOBS.items()):
            job = f"{scratch}/{number}.json"
            write_job(job, options.tasks, more)
            arguments = (job, scratch, options.tasks, environment)
            group[name] = functools.partial(hand_in, *arguments)
            hand_in(*arguments)
        found = run_rounds([group], options.rounds, lambda seconds: f"{seconds:.2f} s")
        goal = Goal(2)
        rows = []
        for name in list(_JOBS)[1:]:
            ratio = compare(found[name], found[_PLAIN])
            rows.append([
                name, render_time(found[name]), render_time(found[_PLAIN]), str(ratio), str(goal),
                goal.judge(ratio.median),
            ])  # fmt: skip
        head = [f"{options.tasks:,} tasks", "time", "without", "ratio", "target", ""]
        note = f"Medians of {options.rounds} rounds; times of a whole process, as above."
        publish("dependencies_plan", [*render_table(head, rows), "", note], scratch, options)


if __name__ == "__main__":
    main()
