"""The memory of the process that watches a job of a million tasks while it runs.

Only `umpteen run` itself is looked at, with its live view; its runner is another process.
The job is interrupted after the given seconds.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.measuring import (
    Goal,
    build_environment,
    fresh_folder,
    open_scratch,
    parse_options,
    publish,
    read_status,
    render_memory,
    render_table,
    run_rounds,
    umpteen,
    write_job,
)

_SAMPLE_S = 0.1
_INTERRUPTED = 130
_FIELDS = re.compile(r"^(VmRSS|VmHWM):\s+(\d+) kB$", re.MULTILINE)


class Memory(NamedTuple):
    """What one run took, in bytes, and how many tasks it did meanwhile."""

    planning_peak: int
    watching_peak: int
    watching_end: int
    done: int


def watch(scratch: str, job: str, seconds: int, environment: Mapping[str, str]) -> Memory:
    folder = fresh_folder(scratch, "watch")
    os.link(job, f"{folder}/million.json")
    screen, terminal = pty.openpty()
    os.set_blocking(screen, False)
    process = subprocess.Popen(
        umpteen("run", "million.json", "--slots", "2"),
        cwd=folder,
        env={**environment, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    store = f"{folder}/umpteen-results/million"
    handed = f"{store}/.umpteen/handed/1.handles.json"
    samples: list[tuple[int, int]] = []
    planning_peak, until_s = 0, 0.0
    while process.poll() is None:
        _drain(screen)
        sample = _read_memory(process.pid)
        now = time.monotonic()
        if sample and until_s:
            samples.append(sample)
        elif sample and os.path.exists(handed):
            until_s = now + seconds
            planning_peak = sample[1]
        if until_s and now >= until_s:
            process.terminate()  # a SIGINT is ignored where a shell runs this in the background
            until_s = float("inf")
        time.sleep(_SAMPLE_S)
    os.close(screen)
    if process.returncode not in (0, _INTERRUPTED) or not samples:
        sys.exit(f"bench: the run ended with {process.returncode} and {len(samples)} samples")
    done = read_status(store, folder, environment)["succeeded"]
    return Memory(planning_peak, max(rss for rss, _ in samples), samples[-1][0], done)


def _read_memory(pid: int) -> tuple[int, int] | None:
    """(resident now, its peak so far) in bytes; None where the process is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            found = dict(_FIELDS.findall(file.read()))
    except OSError:
        return None
    if "VmRSS" not in found:  # a process that has ended and was not waited for
        return None
    return int(found["VmRSS"]) * 1024, int(found["VmHWM"]) * 1024


def _drain(screen: int) -> None:
    """A terminal that nobody reads stops its writer."""
    with contextlib.suppress(OSError):
        while os.read(screen, 65536):
            pass


def main() -> None:
    options = parse_options(__doc__, tasks=1_000_000, rounds=1, more={"seconds": 60})
    seconds = options.more["seconds"]
    if not os.path.exists("/proc/self/status"):
        sys.exit("bench: memory_watch needs /proc, which Linux has")
    with open_scratch(options, "memory-watch") as scratch:
        environment = build_environment(scratch)
        job = f"{scratch}/million.json"
        write_job(job, options.tasks, lambda number: f"true {number}")
        found = run_rounds(
            [{"watching": lambda: watch(scratch, job, seconds, environment)}],
            options.rounds,
            lambda memory: f"{memory.watching_peak / 1e6:.0f} MB",
        )["watching"]
        goal = Goal(300, unit="MB")
        watching = [memory.watching_peak for memory in found]
        rows = [
            ["the most while watching", render_memory(watching), str(goal),
             goal.judge(statistics.median(watching) / 1e6)],
            ["at the end of it", render_memory([memory.watching_end for memory in found]), "", ""],
            ["peak until the hand-in", render_memory([memory.planning_peak for memory in found]),
             "", ""],
        ]  # fmt: skip
        done = statistics.median(memory.done for memory in found)
        table = render_table(["resident memory of `umpteen run`", "", "target", ""], rows)
        note = (
            f"{options.tasks:,} tasks of `true N`, 2 slots, sampled every {_SAMPLE_S:g} s for "
            f"{seconds} s after the hand-in; {done:,.0f} tasks were done by then. "
            f"Rounds: {options.rounds}."
        )
        publish("memory_watch", [*table, "", note], scratch, options)


if __name__ == "__main__":
    main()
