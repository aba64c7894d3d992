"""A million tasks whose results are on S3: handed in, and when they are done, looked at.

The S3 server is a real one on this machine (Ceph's gateway), not delayed. Beside it: msgspec
alone decodes the same job file, and the lines of the same records. What is asked of S3 is
counted in a pass of its own, through a proxy.
"""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.far_store import put_records
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
    write_job,
)
from benchmarks.million_done import Place, build_store, run_dry, run_status
from benchmarks.million_done import decode as decode_records
from benchmarks.million_plan import build_command
from benchmarks.million_plan import decode as decode_tasks
from tests.support.proxy import FaultProxy
from tests.support.s3 import S3, S3Server

from umpteen.store.address import OPTIONS_VARIABLE, open_store

# What is measured, in an environment that says how S3 is reached; the seconds.
Call = Callable[[Mapping[str, str]], float]

_PLAN_GOAL, _DONE_GOAL = Goal(8), Goal(3)


def hand_in(folder: str, address: str, environment: Mapping[str, str]) -> float:
    command = [sys.executable, "-m", "benchmarks.handing_in", "million.json", "--results", address]
    return run_timed(command, folder, environment).seconds


def hand_in_anew(
    place: Place, s3: S3, number: Iterator[int], environment: Mapping[str, str]
) -> float:
    """Seconds; what it left is checked and removed, since the server has it in memory."""
    address = f"s3://{s3.bucket}/plan-{next(number)}"
    seconds = hand_in(place.folder, address, environment)
    counts = read_status(address, place.folder, place.environment)
    if counts["waiting"] != place.tasks:
        sys.exit(f"bench: {place.tasks} tasks were handed in as {counts}")
    store = open_store(address, s3.options)
    store.delete_many([path for path, _ in store.walk("")])
    store.close()
    return seconds


def copy_store(local: Place, address: str, s3: S3, environment: Mapping[str, str]) -> Place:
    """The same job on S3, with the same records."""
    hand_in(local.folder, address, environment)
    put_records(local.store, address, s3.options)
    return local._replace(store=address, environment=environment)


def count_requests(proxy: FaultProxy, call: Call, environment: Mapping[str, str]) -> str:
    proxy.count()
    call(environment)
    asked = Counter("LIST" if "list-type=" in path else kind for kind, path in proxy.requests)
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(asked.items()))


def main() -> None:
    options = parse_options(__doc__, tasks=1_000_000, rounds=3)
    shutil.which("radosgw", path="/usr/sbin:/usr/bin") or sys.exit("bench: needs radosgw")
    left = max(1, options.tasks // 100)
    with (
        open_scratch(options, "far-million") as scratch,
        S3Server(Path(fresh_folder(scratch, "s3"))) as server,
        FaultProxy(server.port) as proxy,
    ):
        s3 = server.make_bucket()
        local = build_environment(scratch)
        direct = {**local, OPTIONS_VARIABLE: json.dumps(s3.options)}
        counted = {**local, OPTIONS_VARIABLE: json.dumps(s3.through(proxy.port))}
        job = f"{scratch}/million.json"
        write_job(job, options.tasks, build_command)
        say("writing the stores")
        here = {
            "all done": build_store(scratch, "done", job, 0, local),
            f"{left:,} left": build_store(scratch, "left", job, left, local),
        }
        far = {
            name: copy_store(place, f"s3://{s3.bucket}/done-{number}", s3, direct)
            for number, (name, place) in enumerate(here.items())
        }
        first, number = next(iter(far.values())), itertools.count()
        plan: Call = functools.partial(hand_in_anew, first, s3, number)
        calls: dict[str, Call] = {"read, plan, hand in": plan}
        bare: dict[str, Callable[[], float]] = {
            "read, plan, hand in": lambda: (
                decode_tasks("tasks", scratch, job, options.tasks, local).seconds
            )
        }
        for name, place in far.items():
            for what, run in (("status", run_status), ("run --dry-run", run_dry)):
                calls[f"`umpteen {what}`, {name}"] = functools.partial(_run_at, run, place)
                bare[f"`umpteen {what}`, {name}"] = functools.partial(decode_records, here[name])
        requests = {name: count_requests(proxy, call, counted) for name, call in calls.items()}
        groups: list[dict[str, Callable[[], float]]] = [
            {name: functools.partial(call, direct), f"decoding, {name}": bare[name]}
            for name, call in calls.items()
        ]
        found = run_rounds(groups, options.rounds, lambda seconds: f"{seconds:.2f} s")
        rows = []
        for name, call in calls.items():
            own, alone = found[name], found[f"decoding, {name}"]
            goal = _PLAN_GOAL if call is plan else _DONE_GOAL
            ratio = compare(own, alone)
            rows.append(
                [name, render_time(own), render_time(alone), str(ratio), str(goal),
                 goal.judge(ratio.median), requests[name]]
            )  # fmt: skip
        head = ["", "on S3", "decoding alone", "ratio", "target in a folder", "", "requests"]
        note = (
            f"{options.tasks:,} tasks; medians of {options.rounds} rounds. umpteen is timed as a "
            "whole process, with the start of Python and the server's own work on these cores; "
            "the decoding within one, of files that are in memory before."
        )
        publish("far_million", [*render_table(head, rows), "", note], scratch, options)


def _run_at(run: Callable[[Place], float], place: Place, environment: Mapping[str, str]) -> float:
    return run(place._replace(environment=environment))


if __name__ == "__main__":
    main()
