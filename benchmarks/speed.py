"""Many short tasks on one machine, two at a time, beside tools that do the same.

Every umpteen run keeps stdout, stderr, status_code and a record for each task, and is checked
to have done so. xargs keeps nothing.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
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

_BUNDLE_SIZES = (1, 50, 100)
_BUNDLE_TASKS = 2000
_HYPERQUEUE = """import sys
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

program, tasks = sys.argv[1], int(sys.argv[2])
with LocalCluster() as cluster:
    cluster.start_worker(WorkerConfig(cores=2))
    client = cluster.client()
    job = Job()
    for number in range(tasks):
        job.program([program, str(number)], stdout=f"out/{number}.out", stderr=f"out/{number}.err")
    client.wait_for_jobs([client.submit(job)])
"""
_FILES = ("stdout", "stderr", "status_code")


class Place(NamedTuple):
    """Where runs work, and their variables."""

    scratch: str
    environment: Mapping[str, str]


# --- contenders: each runs in a fresh folder and returns its seconds --------------------


def run_umpteen(place: Place, program: str, tasks: int) -> float:
    folder = fresh_folder(place.scratch, "umpteen")
    write_job(f"{folder}/t.json", tasks, lambda number: f"{program} {number}")
    command = umpteen("run", "t.json", "--slots", "2", "-q")
    seconds = run_timed(command, folder, place.environment).seconds
    results = f"{folder}/umpteen-results/t"
    counts = read_status(results, folder, place.environment)
    complete = sum(_is_complete(f"{results}/{number}") for number in range(tasks))
    if counts["succeeded"] != tasks or complete != tasks:
        sys.exit(f"bench: of {tasks} tasks {complete} have all files, and records say {counts}")
    return seconds


def _is_complete(folder: str) -> bool:
    return all(os.path.exists(f"{folder}/{name}") for name in _FILES)


def run_xargs(place: Place, program: str, tasks: int) -> float:
    folder = fresh_folder(place.scratch, "xargs")
    _write_lines(f"{folder}/numbers", tasks, "")
    command = ["xargs", "-P2", "-I{}", "sh", "-c", program + " {}"]
    return run_timed(command, folder, place.environment, stdin=f"{folder}/numbers").seconds


def run_parallel(place: Place, program: str, tasks: int) -> float:
    folder = fresh_folder(place.scratch, "parallel")
    _write_lines(f"{folder}/commands", tasks, f"{program} ")
    command = ["parallel", "--will-cite", "-j2", "--results", "out"]
    timing = run_timed(command, folder, place.environment, stdin=f"{folder}/commands")
    found = sum("stdout" in names for _, _, names in os.walk(f"{folder}/out"))
    if found != tasks:
        sys.exit(f"bench: GNU Parallel kept {found} of {tasks} outputs")
    return timing.seconds


def run_hypershell(place: Place, site: str, tasks: int, bundle: int) -> float:
    """Its key and certificate are made before; its database is new in each run."""
    folder = fresh_folder(place.scratch, "hypershell")
    _write_lines(f"{folder}/commands", tasks, "true ")
    if site:
        shutil.copytree(f"{site}/site/lib/tls", f"{folder}/site/lib/tls")
    command = [
        "hs", "cluster", "commands", "--capture", "-N2", "-b", str(bundle), "-p", _find_port(),
    ]  # fmt: skip
    own = {"HYPERSHELL_SITE": f"{folder}/site", "HYPERSHELL_LOGGING_LEVEL": "ERROR"}
    timing = run_timed(command, folder, {**place.environment, **own})
    found = len(os.listdir(f"{folder}/site/lib/task"))
    if found != 2 * tasks:
        sys.exit(f"bench: HyperShell kept {found} of {2 * tasks} files")
    return timing.seconds


def prepare_hypershell(place: Place) -> str:
    """A folder in which HyperShell has made its key and certificate."""
    before = set(os.listdir(place.scratch))
    run_hypershell(place, "", 1, 1)
    (made,) = set(os.listdir(place.scratch)) - before
    return f"{place.scratch}/{made}"


def choose_bundle(place: Place, site: str, tasks: int) -> tuple[int, str]:
    """The bundle size at which HyperShell is fastest here, and what each one took."""
    tasks = min(tasks, _BUNDLE_TASKS)
    found = {size: run_hypershell(place, site, tasks, size) for size in _BUNDLE_SIZES}
    for size, seconds in found.items():
        say(f"HyperShell with bundles of {size}: {seconds:.2f} s")
    took = ", ".join(f"{seconds:.1f} s at {size}" for size, seconds in found.items())
    took += f" for {tasks:,} tasks"
    return min(found, key=lambda size: found[size]), took


def run_hyperqueue(place: Place, tasks: int) -> float:
    """Server and worker are threads of one process, as PyPI's package has them."""
    folder = fresh_folder(place.scratch, "hyperqueue")
    command = [sys.executable, "-c", _HYPERQUEUE, "/bin/true", str(tasks)]
    timing = run_timed(command, folder, place.environment)
    found = len(os.listdir(f"{folder}/out"))
    if found != 2 * tasks:
        sys.exit(f"bench: HyperQueue kept {found} of {2 * tasks} files")
    return timing.seconds


def _write_lines(path: str, tasks: int, before: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{before}{number}\n" for number in range(tasks))


def _find_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


# --- the comparison ---------------------------------------------------------------------


class Row(NamedTuple):
    """One line of the table: two contenders, and what their ratio is held against."""

    what: str
    own: str
    peer: str
    tasks: int
    goal: Goal


def main() -> None:
    options = parse_options(__doc__, tasks=20000, more={"peer-tasks": 10000})
    tasks, few = options.tasks, min(options.tasks, options.more["peer-tasks"])
    with open_scratch(options, "speed") as scratch:
        place = Place(scratch, build_environment(scratch))
        groups: list[dict[str, Callable[[], float]]] = []
        rows: list[Row] = []
        notes: list[str] = []
        for program, limit in (("true", 0.95), ("/bin/true", 1.5)):
            own, peer = f"umpteen {program}", f"xargs {program}"
            groups.append(
                {
                    own: functools.partial(run_umpteen, place, program, tasks),
                    peer: functools.partial(run_xargs, place, program, tasks),
                }
            )
            what = f"`{program} N` beside `xargs -P2 -I{{}} sh -c '{program} {{}}'`"
            rows.append(Row(what, own, peer, tasks, Goal(limit, is_least=True)))
        slow = _add_slow_peers(place, few, rows, notes)
        groups.append(slow)
        _warm_up(place)
        found = run_rounds(groups, options.rounds, lambda seconds: f"{seconds:.2f} s")
        table = [_render_row(row, found) for row in rows]
        head = ["tasks", "umpteen", "the other", "umpteen is faster by", "target", ""]
        note = (
            f"Medians of {options.rounds} rounds, wall time of the whole command; the ratio is "
            "the median of the rounds' ratios, with the least and the greatest."
        )
        notes = [note, *notes, _describe_versions()]
        lines = [*render_table(["commands", *head], table), ""]
        lines += [f"- {line}" for line in notes]
        publish("speed", lines, scratch, options)


def _add_slow_peers(
    place: Place, tasks: int, rows: list[Row], notes: list[str]
) -> dict[str, Callable[[], float]]:
    """The peers that keep outputs too: fewer tasks, and an umpteen run of as many beside them."""
    owns = {program: f"umpteen {program}, {tasks} tasks" for program in ("true", "/bin/true")}
    group: dict[str, Callable[[], float]] = {}
    goal = Goal(5, is_least=True)
    is_parallel = _is_there("parallel", "GNU parallel")
    for program, own in owns.items():
        group[own] = functools.partial(run_umpteen, place, program, tasks)
        if is_parallel:
            group[f"parallel {program}"] = functools.partial(run_parallel, place, program, tasks)
            what = f"`{program} N` beside `parallel -j2 --results DIR`"
            rows.append(Row(what, own, f"parallel {program}", tasks, goal))
    if not is_parallel:
        notes.append("Not measured: GNU Parallel, there was no `parallel`.")
    if _is_there("hs", "HyperShell"):
        site = prepare_hypershell(place)
        bundle, took = choose_bundle(place, site, tasks)
        group["HyperShell"] = functools.partial(run_hypershell, place, site, tasks, bundle)
        what = f"`true N` beside `hs cluster --capture -N2 -b {bundle}`"
        rows.append(Row(what, owns["true"], "HyperShell", tasks, goal))
        notes.append(f"HyperShell by bundle size, one run each: {took}; the fastest was taken.")
    else:
        notes.append("Not measured: HyperShell, there was no `hs`.")
    if importlib.util.find_spec("hyperqueue"):
        group["HyperQueue"] = functools.partial(run_hyperqueue, place, tasks)
        what = "`/bin/true N` beside HyperQueue's `LocalCluster`, two cores"
        rows.append(Row(what, owns["/bin/true"], "HyperQueue", tasks, Goal(4, is_least=True)))
        notes.append("HyperQueue: PyPI's package, whose server and worker share a process here.")
    else:
        notes.append("Not measured: HyperQueue, there was no Python package `hyperqueue`.")
    notes.append(
        f"Peers that keep outputs are slow, so they and umpteen beside them ran {tasks:,} tasks; "
        "start-up is in all figures."
    )
    return group


def _warm_up(place: Place) -> None:
    """First starts read programs from the disk."""
    run_umpteen(place, "/bin/true", 20)
    run_xargs(place, "/bin/true", 20)
    if shutil.which("parallel"):
        run_parallel(place, "true", 20)


def _render_row(row: Row, found: Mapping[str, list[float]]) -> list[str]:
    own, peer = found[row.own], found[row.peer]
    ratio = compare(peer, own)
    return [
        row.what, f"{row.tasks:,}", render_time(own, row.tasks), render_time(peer, row.tasks),
        str(ratio), str(row.goal), row.goal.judge(ratio.median),
    ]  # fmt: skip


def _is_there(program: str, name: str) -> bool:
    """Whether the program is there and is the one meant: others have these names too."""
    return name.lower() in _read_version(program).lower()


def _read_version(program: str) -> str:
    if shutil.which(program) is None:
        return ""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return (told.stdout.splitlines() or [""])[0].strip()


def _describe_versions() -> str:
    versions = [_read_version(program) for program in ("xargs", "parallel", "hs")]
    if importlib.util.find_spec("hyperqueue"):
        versions.append(f"HyperQueue {importlib.metadata.version('hyperqueue')}")
    return "Versions: " + "; ".join(version for version in versions if version) + "."


if __name__ == "__main__":
    main()
