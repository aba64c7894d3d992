"""A million tasks in a JSON file: read, planned, and written as batches, with nothing run.

Beside it: msgspec alone decodes the same file.
"""

from __future__ import annotations

import functools
import os
import statistics
import sys
from collections.abc import Callable, Mapping

from benchmarks.measuring import (
    Goal,
    Timing,
    build_environment,
    compare,
    fresh_folder,
    open_scratch,
    parse_options,
    publish,
    read_status,
    render_memory,
    render_table,
    render_time,
    run_rounds,
    run_timed,
    write_job,
)

_OWN, _BARE, _THIN = "read, plan, write", "decoding", "decoding of commands alone"


def build_command(number: int) -> str:
    return f"python train.py --lr 0.001 --seed {number} --output model-{number}.pt"


def hand_in(scratch: str, job: str, tasks: int, environment: Mapping[str, str]) -> Timing:
    folder = fresh_folder(scratch, "plan")
    os.link(job, f"{folder}/million.json")
    command = [sys.executable, "-m", "benchmarks.handing_in", "million.json"]
    timing = run_timed(command, folder, environment, keep_stdout=True)
    counts = read_status(f"{folder}/umpteen-results/million", folder, environment)
    if counts["waiting"] != tasks or not timing.stdout.startswith(f"{tasks} "):
        sys.exit(f"bench: {tasks} tasks were handed in as {counts}")
    return timing


def decode(kind: str, scratch: str, job: str, tasks: int, environment: Mapping[str, str]) -> Timing:
    command = [sys.executable, "-m", "benchmarks.decoding", kind, job]
    timing = run_timed(command, scratch, environment, keep_stdout=True)
    seconds, count = timing.stdout.split()
    assert int(count) == tasks
    return timing._replace(seconds=float(seconds))


def main() -> None:
    options = parse_options(__doc__, tasks=1_000_000)
    with open_scratch(options, "million-plan") as scratch:
        environment = build_environment(scratch)
        job = f"{scratch}/million.json"
        write_job(job, options.tasks, build_command)
        arguments = (scratch, job, options.tasks, environment)
        group: dict[str, Callable[[], Timing]] = {
            _OWN: functools.partial(hand_in, *arguments),
            _BARE: functools.partial(decode, "tasks", *arguments),
            _THIN: functools.partial(decode, "commands", *arguments),
        }
        hand_in(*arguments)  # the first start reads programs from the disk
        found = run_rounds(
            [group], options.rounds, lambda t: f"{t.seconds:.2f} s, {t.peak_bytes / 1e6:.0f} MB"
        )
        own = [timing.seconds for timing in found[_OWN]]
        bare = [timing.seconds for timing in found[_BARE]]
        thin = [timing.seconds for timing in found[_THIN]]
        peaks = [timing.peak_bytes for timing in found[_OWN]]
        ratio = compare(own, bare)
        time_goal, memory_goal = Goal(8), Goal(600, unit="MB")
        peak_mb = statistics.median(peaks) / 1e6
        rows = [
            ["time", render_time(own), render_time(bare), str(ratio), str(time_goal),
             time_goal.judge(ratio.median)],
            ["time, beside decoding of commands alone", render_time(own), render_time(thin),
             str(compare(own, thin)), "", ""],
            ["peak memory", render_memory(peaks), "", "", str(memory_goal),
             memory_goal.judge(peak_mb)],
        ]  # fmt: skip
        head = ["", "read, plan, write", "decoding alone", "ratio", "target", ""]
        note = (
            f"{options.tasks:,} tasks, a file of {os.path.getsize(job) / 1e6:.0f} MB; medians of "
            f"{options.rounds} rounds. The time is of a whole process, with the start of Python; "
            "the decoding is timed within one, and the file is in memory before."
        )
        publish("million_plan", [*render_table(head, rows), "", note], scratch, options)


if __name__ == "__main__":
    main()
