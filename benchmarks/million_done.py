"""A store in which a million tasks are done: how long until umpteen knows that.

The records are written here as the runner writes them, which a small real run is compared
with first. Beside it: msgspec alone decodes the lines of the same records files.
"""

from __future__ import annotations

import functools
import glob
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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
from benchmarks.million_plan import build_command

from umpteen.model.command import build_digest
from umpteen.model.forms import parse_ranges
from umpteen.model.ranges import find_ranges
from umpteen.model.record import Record
from umpteen.store.identity import describe_place, find_place
from umpteen.store.records import EndLine, StartLine, SyncedLine
from umpteen.system.host import read_machine

_BEGAN_S = 1_750_000_000.0
_TASK_S, _RATE = 0.0012, 1000.0
_OPENED = re.compile(r'\bopenat\(\S+ "((?:[^"\\]|\\.)*)"')
_NAMED = re.compile(r'"((?:[^"\\]|\\.)*)"')


# --- a store that looks as if the tasks had run -----------------------------------------


class Place(NamedTuple):
    """A folder with a job file and its store, and how many tasks are not done there."""

    folder: str
    store: str
    tasks: int
    left: int
    environment: Mapping[str, str]


def build_store(
    scratch: str, name: str, job: str, left: int, environment: Mapping[str, str]
) -> Place:
    """Hand the job in, and write the records of all its tasks but `left`, spread evenly."""
    folder = fresh_folder(scratch, name)
    os.link(job, f"{folder}/million.json")
    command = [sys.executable, "-m", "benchmarks.handing_in", "million.json"]
    tasks = int(run_timed(command, folder, environment, keep_stdout=True).stdout.split()[0])
    store = f"{folder}/umpteen-results/million"
    step = tasks // left if left else 0
    is_left: Callable[[int], bool] = lambda index: bool(step) and index % step == step - 1  # noqa: E731
    with open(f"{store}/.umpteen/handed/1.handles.json", encoding="utf-8") as file:
        handles: dict[str, str] = json.load(file)
    with open(f"{store}/.umpteen/handed/1.json", encoding="utf-8") as file:
        batches: list[dict[str, str]] = json.load(file)["batches"]
    for batch in batches:
        token = handles[batch["batch"]].rsplit("/", 1)[1]
        indices = [index for part in parse_ranges(batch["indices"]) for index in part]
        write_records(store, batch["batch"], token, indices, is_left)
    return Place(folder, store, tasks, sum(map(is_left, range(tasks))), environment)


def write_records(
    store: str, batch: str, token: str, indices: Sequence[int], is_left: Callable[[int], bool]
) -> None:
    """One start of a batch, from its first line to its last."""
    here = read_machine()
    done = [index for index in indices if not is_left(index)]
    start = StartLine(
        token=token,
        machine=here.machine,
        boot=here.boot,
        host=here.host,
        pid=4321,
        time=_BEGAN_S + indices[0] / _RATE,
        slots=2,
        place=describe_place(here, find_place(store)),
    )
    end = EndLine(
        time=round(_BEGAN_S + indices[-1] / _RATE, 3),
        left=len(indices) - len(done),
        seconds=round(_TASK_S * len(done), 3),
        states={"succeeded": find_ranges(done)},
    )
    content = start.to_line()
    content += "".join(build_record(index).to_line() + "\n" for index in done).encode()
    content += end.to_line()
    content += SyncedLine(len(content)).to_line()
    os.makedirs(f"{store}/.umpteen/records/{batch}")
    with open(f"{store}/.umpteen/records/{batch}/1-{token}.jsonl", "wb") as file:
        file.write(content)


def build_record(index: int) -> Record:
    start_s = _BEGAN_S + index / _RATE
    return Record(
        task=index,
        digest=build_digest(build_command(index), None, None),
        attempt=1,
        state="succeeded",
        exit_code=0,
        start_s=start_s,
        end_s=start_s + _TASK_S,
        seconds=_TASK_S,
        cpu_s=0.0008,
        peak_kb=13000 + index % 100,
        slot=index % 2,
    )


def check_shapes(scratch: str, environment: Mapping[str, str]) -> None:
    """Stop unless a real run leaves lines of the same kinds, fields and types."""
    folder = fresh_folder(scratch, "shapes")
    write_job(f"{folder}/job.json", 50, lambda number: f"true {number}")
    run_timed(umpteen("run", "job.json", "--slots", "2", "-q"), folder, environment)
    store = f"{folder}/umpteen-results/job"
    (real,) = glob.glob(f"{store}/.umpteen/records/1/*.jsonl")
    write_records(folder, "1", "0123456789ab", range(50), lambda index: index == 7)
    (own,) = glob.glob(f"{folder}/.umpteen/records/1/*.jsonl")
    if _read_shapes(real) != _read_shapes(own):
        sys.exit(
            "bench: the runner writes other records than this benchmark does:\n"
            f"{_read_shapes(real)}\n{_read_shapes(own)}"
        )


def _read_shapes(path: str) -> dict[str, list[tuple[str, str]]]:
    shapes: dict[str, list[tuple[str, str]]] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            content: dict[str, Any] = json.loads(line)
            kind = content.get("event", "record")
            shapes[kind] = [(key, type(value).__name__) for key, value in content.items()]
    return shapes


# --- contenders -------------------------------------------------------------------------


def look(place: Place) -> list[str]:
    return umpteen("status", place.store, "--json")


def plan_again(place: Place) -> list[str]:
    where = ("--slots", "2", "--results", place.store)
    return umpteen("run", "million.json", *where, "--dry-run", "--json")


def run_status(place: Place) -> float:
    accepted = (1,) if place.left else (0,)
    timing = run_timed(
        look(place), place.folder, place.environment, keep_stdout=True, accepted=accepted
    )
    counts = json.loads(timing.stdout)["counts"]
    if (counts["waiting"], counts["succeeded"]) != (place.left, place.tasks - place.left):
        sys.exit(f"bench: {place.left} of {place.tasks} are left, status says {counts}")
    return timing.seconds


def run_dry(place: Place) -> float:
    timing = run_timed(plan_again(place), place.folder, place.environment, keep_stdout=True)
    plan = json.loads(timing.stdout)
    if (sum(plan["run"].values()), plan["done"]) != (place.left, place.tasks - place.left):
        sys.exit(f"bench: {place.left} of {place.tasks} are left, --dry-run says {plan}")
    return timing.seconds


def decode(place: Place) -> float:
    command = [sys.executable, "-m", "benchmarks.decoding", "records", place.store]
    timing = run_timed(command, place.folder, place.environment, keep_stdout=True)
    return float(timing.stdout.split()[0])


def count_opened(command: Sequence[str], place: Place) -> tuple[int, int]:
    """(files opened, calls that name something below a task's folder), by strace."""
    log = f"{place.folder}/strace"
    traced = ["strace", "-f", "-e", "trace=%file", "-s", "4096", "-o", log, *command]
    run_timed(traced, place.folder, place.environment, accepted=(0, 1))
    opened = below = 0
    with open(log, encoding="utf-8", errors="replace") as file:
        for line in file:
            opened += bool(_OPENED.search(line)) and " = -1 " not in line
            below += any(_is_of_task(path, place.store) for path in _NAMED.findall(line))
    return opened, below


def _is_of_task(path: str, store: str) -> bool:
    prefix = store + "/"
    return path.startswith(prefix) and not path.startswith(prefix + ".umpteen")


# --- the comparison ---------------------------------------------------------------------


def main() -> None:
    options = parse_options(__doc__, tasks=1_000_000)
    left = max(1, options.tasks // 100)
    with open_scratch(options, "million-done") as scratch:
        environment = build_environment(scratch)
        check_shapes(scratch, environment)
        job = f"{scratch}/million.json"
        write_job(job, options.tasks, build_command)
        say("writing the stores")
        places = {
            "all done": build_store(scratch, "done", job, 0, environment),
            f"{left:,} left": build_store(scratch, "left", job, left, environment),
        }
        groups = [
            {
                f"status, {name}": functools.partial(run_status, place),
                f"run --dry-run, {name}": functools.partial(run_dry, place),
                f"decoding, {name}": functools.partial(decode, place),
            }
            for name, place in places.items()
        ]
        run_status(places["all done"])  # the first start reads programs from the disk
        found = run_rounds(groups, options.rounds, lambda seconds: f"{seconds:.2f} s")
        goal = Goal(3)
        rows = []
        for name, place in places.items():
            bare = found[f"decoding, {name}"]
            for what, command in (("status", look(place)), ("run --dry-run", plan_again(place))):
                own = found[f"{what}, {name}"]
                ratio = compare(own, bare)
                rows.append(
                    [f"`umpteen {what}`, {name}", render_time(own), render_time(bare), str(ratio),
                     str(goal), goal.judge(ratio.median), *_render_opened(command, place)]
                )  # fmt: skip
        head = ["", "umpteen", "decoding alone", "ratio", "target", "", "files opened",
                "calls for a task's own files (must be 0)"]  # fmt: skip
        note = (
            f"{options.tasks:,} tasks; {_describe_records(places['all done'])}; medians of "
            f"{options.rounds} rounds. umpteen is timed as a whole process, with the start of "
            "Python; the decoding within one, and its files are in memory before."
        )
        publish("million_done", [*render_table(head, rows), "", note], scratch, options)


def _render_opened(command: Sequence[str], place: Place) -> list[str]:
    if shutil.which("strace") is None:
        return ["no strace here", ""]
    opened, below = count_opened(command, place)
    return [f"{opened:,}", str(below)]


def _describe_records(place: Place) -> str:
    files = glob.glob(f"{place.store}/.umpteen/records/*/*.jsonl")
    size = sum(os.path.getsize(file) for file in files)
    return f"{len(files):,} records files of {size / 1e6:,.0f} MB together"


if __name__ == "__main__":
    main()
