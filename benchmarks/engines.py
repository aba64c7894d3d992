"""Many commands through Dask and Ray, beside one future or one remote for each.

Real schedulers and workers on this machine. Short commands: how long all of them take, beside
a program that hands each to the engine and gathers what it printed, and beside umpteen without
an engine. Short and long ones: when the last has ended, beside the best order there is and
beside batches of three a worker. A million: what the scheduler's memory grows by.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import os
import random
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

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
    say,
    umpteen,
    write_job,
)
from tests.support.dask import DaskCluster
from tests.support.ray import RayCluster

_LONG_S, _SHORT_S = 5.0, 0.005
_MIXED_WORKERS = 4
_MEMORY_MOST = 100  # MB
_BATCHES_MOST = 2000

# One future a command, as people write it.
_FUTURES = """
    import subprocess, sys
    from distributed import Client

    def run(command):
        done = subprocess.run(["sh", "-c", command], capture_output=True)
        return done.returncode, done.stdout, done.stderr

    with Client(sys.argv[1]) as client:
        commands = [f"/bin/true {n}" for n in range(int(sys.argv[2]))]
        answers = client.gather(client.map(run, commands, pure=False))
    assert sum(code == 0 for code, _, _ in answers) == len(commands)
"""


# One remote a command.
_REMOTES = """
    import subprocess, sys
    import ray

    ray.init(address=sys.argv[1], log_to_driver=False)

    @ray.remote
    def run(command):
        done = subprocess.run(["sh", "-c", command], capture_output=True)
        return done.returncode, done.stdout, done.stderr

    commands = [f"/bin/true {n}" for n in range(int(sys.argv[2]))]
    answers = ray.get([run.remote(command) for command in commands])
    assert sum(code == 0 for code, _, _ in answers) == len(commands)
"""


class Place(NamedTuple):
    """Where runs work, their variables, and the cluster: its address, and flags for umpteen."""

    scratch: str
    environment: Mapping[str, str]
    cluster: DaskCluster | RayCluster
    address: str
    flags: list[str]


@contextlib.contextmanager
def open_dask(scratch: str, environment: Mapping[str, str], workers: int) -> Iterator[Place]:
    """A scheduler and workers of one thread each."""
    cluster = DaskCluster(Path(fresh_folder(scratch, "dask")), dict(environment))
    try:
        cluster.start()
        for _ in range(workers):
            cluster.add_worker()
        flags = ["--executor", "dask", "--scheduler-address", cluster.address]
        yield Place(scratch, environment, cluster, cluster.address, flags)
    finally:
        cluster.stop()


@contextlib.contextmanager
def open_ray(scratch: str, environment: Mapping[str, str], cpus: int) -> Iterator[Place]:
    """A head that has so many CPUs, and no other machine."""
    cluster = RayCluster(dict(environment))
    try:
        cluster.start(cpus)
        flags = ["--executor", "ray", "--scheduler-address", cluster.address]
        yield Place(scratch, environment, cluster, cluster.address, flags)
    finally:
        cluster.stop()


def run_umpteen(place: Place, job: str, tasks: int, *flags: str) -> float:
    """Seconds, once it was checked that every task succeeded."""
    folder = fresh_folder(place.scratch, "run")
    os.link(job, f"{folder}/t.json")
    seconds = run_timed(umpteen("run", "t.json", "-q", *flags), folder, place.environment).seconds
    counts = read_status(f"{folder}/umpteen-results/t", folder, place.environment)
    if counts["succeeded"] != tasks:
        sys.exit(f"bench: records say {counts}")
    return seconds


def run_each(place: Place, program: str, tasks: int) -> float:
    """Seconds of a program that hands in each command by itself."""
    folder = fresh_folder(place.scratch, "each")
    Path(folder, "each.py").write_text(textwrap.dedent(program))
    command = [sys.executable, "each.py", place.address, str(tasks)]
    return run_timed(command, folder, place.environment).seconds


def measure_short(
    scratch: str, environment: Mapping[str, str], tasks: int, rounds: int
) -> list[list[str]]:
    """A row for each ratio of many short commands."""
    job = f"{fresh_folder(scratch, 'job')}/short.json"
    write_job(job, tasks, lambda number: f"/bin/true {number}")
    rows = []
    for engine, open_cluster, program, each in (
        ("Dask", open_dask, _FUTURES, "one future each"),
        ("Ray", open_ray, _REMOTES, "one remote each"),
    ):
        with open_cluster(scratch, environment, 2) as place:
            calls: dict[str, Callable[[], float]] = {
                engine: functools.partial(run_umpteen, place, job, tasks, *place.flags),
                each: functools.partial(run_each, place, program, tasks),
                "this machine": functools.partial(run_umpteen, place, job, tasks, "--slots", "2"),
            }
            found = run_rounds([calls], rounds, lambda seconds: f"{seconds:.2f} s")
        ours = found[engine]
        for beside, goal in ((each, Goal(4, is_least=True)),
                             ("this machine", Goal(0.8, is_least=True))):  # fmt: skip
            ratio = compare(found[beside], ours)
            rows.append([
                engine, f"{tasks:,}", render_time(ours, tasks), beside,
                render_time(found[beside], tasks), str(ratio), str(goal), goal.judge(ratio.median),
            ])  # fmt: skip
    return rows


def find_best_s(durations: list[float], workers: int) -> float:
    """When the last ends if each, the longest first, goes to whoever is free first."""
    free = [0.0] * workers
    for seconds in sorted(durations, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free)


def measure_mixed(
    scratch: str, environment: Mapping[str, str], tasks: int, rounds: int
) -> list[list[str]]:
    """A row for batches that shrink, and one for batches of three a worker."""
    draw = random.Random(20261121)
    durations = [_LONG_S if draw.random() < 0.1 else _SHORT_S for _ in range(tasks)]
    job = f"{fresh_folder(scratch, 'job')}/mixed.json"
    write_job(job, tasks, lambda number: f"sleep {durations[number]}")
    best_s = find_best_s(durations, _MIXED_WORKERS)
    with open_dask(scratch, environment, _MIXED_WORKERS) as place:
        calls: dict[str, Callable[[], float]] = {
            "shrinking": lambda: run_umpteen(place, job, tasks, *place.flags),
            "three a worker": lambda: run_umpteen(
                place, job, tasks, *place.flags, "--batch-size", "3"
            ),
        }
        found = run_rounds([calls], rounds, lambda seconds: f"{seconds:.2f} s")
    goal = Goal(1.15)
    rows = []
    for name, seconds in found.items():
        ratio = compare(seconds, [best_s] * rounds)
        judged = [str(goal), goal.judge(ratio.median)] if name == "shrinking" else ["", ""]
        rows.append([name, render_time(seconds), f"{best_s:.2f} s", str(ratio), *judged])
    return rows


def measure_million(scratch: str, environment: Mapping[str, str], tasks: int) -> list[str]:
    """A row of what the scheduler holds of a job that no worker has begun with."""
    job = f"{fresh_folder(scratch, 'job')}/million.json"
    write_job(job, tasks, lambda number: f"python3 train.py --seed {number}")
    folder = fresh_folder(scratch, "million")
    os.link(job, f"{folder}/t.json")
    with open_dask(scratch, environment, 0) as place:
        assert isinstance(place.cluster, DaskCluster)
        assert place.cluster.scheduler is not None
        before = read_resident_mb(place.cluster.scheduler.pid)
        size = ["--batch-size", str(-(-tasks // _BATCHES_MOST))]
        command = umpteen("run", "t.json", "-q", "--detach", *place.flags, *size)
        seconds = run_timed(command, folder, environment).seconds
        grown = read_resident_mb(place.cluster.scheduler.pid) - before
        batches = len(os.listdir(f"{folder}/umpteen-results/t/.umpteen/batches"))
        run_timed(umpteen("cancel", "t"), folder, environment)
    goal = Goal(_MEMORY_MOST, unit="MB")
    return [f"{tasks:,}", f"{batches:,}", f"{seconds:.1f} s", f"{grown:.0f} MB", str(goal),
            goal.judge(grown)]  # fmt: skip


def read_resident_mb(pid: int) -> float:
    """The memory of a process, without its children."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    options = parse_options(__doc__, tasks=10_000, rounds=3, more={"mixed": 400})
    with open_scratch(options, "engines") as scratch:
        environment = build_environment(scratch)
        say(f"{options.tasks:,} short commands, two at a time")
        short = measure_short(scratch, environment, options.tasks, options.rounds)
        mixed = options.more["mixed"]
        say(f"{mixed} commands of 5 ms and 5 s, {_MIXED_WORKERS} at a time")
        uneven = measure_mixed(scratch, environment, mixed, options.rounds)
        say("a job of a million, that nobody begins with")
        million = measure_million(scratch, environment, options.tasks * 100)
        lines = [
            *render_table(
                ["umpteen on", "`/bin/true`", "", "beside", "", "times as fast", "target", ""],
                short,
            ),
            "",
            f"{mixed} commands, a tenth of them 5 s, the others 5 ms, on {_MIXED_WORKERS} workers:",
            "",
            *render_table(
                ["batches", "umpteen on Dask", "best order", "times that", "target", ""], uneven
            ),
            "",
            *render_table(
                ["handed in", "batches", "time", "the scheduler grows by", "target", ""], [million]
            ),
        ]
        publish("engines", lines, scratch, options)


if __name__ == "__main__":
    main()
