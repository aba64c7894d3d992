"""Results on S3 beside results in a folder: how long, and how many requests.

The S3 server is a real one on this machine (Ceph's gateway), behind a proxy that adds 20 ms to
each request and counts them. Then a job of many tasks that are done: what handing it in,
`status` and a second `run` ask of S3.
"""

from __future__ import annotations

import functools
import glob
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.measuring import (
    Goal,
    build_environment,
    compare,
    fresh_folder,
    open_scratch,
    parse_options,
    publish,
    render_table,
    render_time,
    run_rounds,
    run_timed,
    say,
    umpteen,
    write_job,
)
from benchmarks.million_done import build_store
from benchmarks.million_plan import build_command
from tests.support.proxy import FaultProxy
from tests.support.s3 import S3, S3Server

from umpteen.store.address import OPTIONS_VARIABLE, open_store

_LATENCY_S = 0.02
_SLOTS = 8


def run_tasks(
    scratch: str, tasks: int, address: str, environment: Mapping[str, str], number: list[int]
) -> float:
    """Seconds for so many tasks of 200 ms; each run has a place of its own."""
    number[0] += 1
    folder = fresh_folder(scratch, "run")
    write_job(f"{folder}/job.json", tasks, lambda n: f"sleep 0.2; echo {n}")
    place = address.replace("{run}", str(number[0])) if address else "results"
    command = umpteen("run", "job.json", "--slots", str(_SLOTS), "-q", "--results", place)
    return run_timed(command, folder, environment).seconds


def count_requests(proxy: FaultProxy, call: Callable[[], float]) -> tuple[float, dict[str, int]]:
    proxy.count()
    return call(), proxy.count()


def measure_done(
    scratch: str, tasks: int, s3: S3, proxy: FaultProxy, environment: Mapping[str, str]
) -> list[list[str]]:
    """A row for each thing that is asked of a job whose tasks are done but for one in a hundred."""
    folder = fresh_folder(scratch, "done")
    write_job(f"{folder}/million.json", tasks, build_command)
    local = build_store(
        scratch, "local", f"{folder}/million.json", tasks // 100, build_environment(scratch)
    )
    address = s3.address
    rows = []

    def add(what: str, *command: str) -> None:
        timed, requests = count_requests(
            proxy, lambda: run_timed(list(command), folder, environment).seconds
        )
        listed = ", ".join(f"{count:,} {method}" for method, count in sorted(requests.items()))
        rows.append([what, f"{tasks:,}", f"{timed:.1f} s", listed])

    add("hand in", sys.executable, "-m", "benchmarks.handing_in", "million.json", "--results",
        address)  # fmt: skip
    put_records(local.store, s3.address, s3.options)
    status = shlex.join(umpteen("status", address, "--json"))
    add("`status`", "sh", "-c", f"{status} || [ $? = 1 ]")  # 1: not all of them are done
    dry = ("run", "million.json", "--results", address, "--dry-run", "--json")
    add("`run`, 1 % left: what is to run", *umpteen(*dry))
    return rows


def put_records(local: str, address: str, options: dict[str, Any]) -> None:
    """The same hand-in and records that a real job would have there."""
    store = open_store(address, options)
    for part in ("handed", "batches"):
        pairs = [
            (os.path.relpath(path, local), path) for path in glob.glob(f"{local}/.umpteen/{part}/*")
        ]
        store.put_many(pairs)
    pairs = []
    for path in glob.glob(f"{local}/.umpteen/records/*/*.jsonl"):
        key = os.path.relpath(path, local)
        pairs.append((key.replace(".jsonl", ".0.jsonl"), path))
    store.put_many(pairs)
    store.close()


def main() -> None:
    options = parse_options(__doc__, tasks=2000, rounds=3)
    shutil.which("radosgw", path="/usr/sbin:/usr/bin") or sys.exit("bench: needs radosgw")
    with (
        open_scratch(options, "far-store") as scratch,
        S3Server(Path(fresh_folder(scratch, "s3"))) as server,
        FaultProxy(server.port) as proxy,
    ):
        s3 = server.make_bucket()
        local = build_environment(scratch)
        far = {**local, OPTIONS_VARIABLE: json.dumps(s3.through(proxy.port))}
        number = [0]
        say(f"{options.tasks} tasks of 200 ms, {_SLOTS} at a time")
        proxy.latency_s = _LATENCY_S / 2  # each way
        place = f"s3://{s3.bucket}/run-{{run}}"
        calls = {
            "S3": functools.partial(run_tasks, scratch, options.tasks, place, far, number),
            "folder": functools.partial(run_tasks, scratch, options.tasks, "", local, number),
        }
        found = run_rounds([calls], options.rounds, lambda seconds: f"{seconds:.2f} s")
        requests = sum(proxy.count().values()) / options.rounds / options.tasks
        goal, ratio = Goal(1.2), compare(found["S3"], found["folder"])
        rows = [[
            f"{options.tasks:,}", render_time(found["S3"]), render_time(found["folder"]),
            str(ratio), str(goal), goal.judge(ratio.median), f"{requests:.2f}",
        ]]  # fmt: skip
        proxy.latency_s = 0.0
        done = measure_done(scratch, options.tasks * 500, s3, proxy, far)
        head = ["tasks of 200 ms", "S3, 20 ms away", "a folder", "S3 / folder", "target", "",
                "requests a task"]  # fmt: skip
        lines = [
            *render_table(head, rows),
            "",
            "Each task has three files (stdout, stderr, status_code): three requests at least.",
            "",
            *render_table(["on S3, not delayed", "tasks", "time", "requests"], done),
        ]
        publish("far_store", lines, scratch, options)


if __name__ == "__main__":
    main()
