"""The yardstick of the million-task benchmarks: msgspec alone decodes the same bytes.

    python -m benchmarks.decoding tasks FILE       into all fields of a task
    python -m benchmarks.decoding commands FILE    into a struct of its command alone
    python -m benchmarks.decoding records STORE

Prints the seconds that decoding took, in this process, of files that were read before.
"""

from __future__ import annotations

import glob
import sys
import time

import msgspec


class TaskEntry(msgspec.Struct, gc=False):
    """One task of the job file: the fields of umpteen.job.Task."""

    command: str | list[str]
    name: str = ""
    env: dict[str, str] | None = None
    cwd: str | None = None
    timeout_s: float | None = None
    parameters: dict[str, str] | None = None
    tags: list[str] | None = None
    output: str | None = None
    results_dir: str | None = None
    automatic: bool = False


class JobFile(msgspec.Struct):
    """The whole job file."""

    tasks: list[TaskEntry]


class CommandEntry(msgspec.Struct, gc=False):
    """One task, as thin as can be."""

    command: str


class CommandFile(msgspec.Struct):
    """The whole job file, as thin as can be."""

    tasks: list[CommandEntry]


class RecordLine(msgspec.Struct, gc=False):
    """A line of a records file: the fields of umpteen.model.record.Record; of an event, none."""

    task: int = -1
    digest: str = ""
    attempt: int = 0
    state: str = ""
    exit_code: int | None = None
    signal: int | None = None
    start_s: float = 0.0
    end_s: float = 0.0
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_kb: int = 0
    slot: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    outputs: str = ""
    reason: str = ""
    machine: str = ""


def decode_tasks(path: str, kind: type[JobFile | CommandFile]) -> tuple[float, int]:
    """(seconds, tasks) of a job file."""
    decoder = msgspec.json.Decoder(kind)
    with open(path, "rb") as file:
        content = file.read()
    began = time.perf_counter()
    job = decoder.decode(content)
    return time.perf_counter() - began, len(job.tasks)


def decode_records(store: str) -> tuple[float, int]:
    """(seconds, records) of all records files of a store, each file's lines let go at once."""
    decoder = msgspec.json.Decoder(RecordLine)
    contents = []
    for path in sorted(glob.glob(f"{store}/.umpteen/records/*/*.jsonl")):
        with open(path, "rb") as file:
            contents.append(file.read())
    count = 0
    began = time.perf_counter()
    for content in contents:
        count += len(decoder.decode_lines(content))
    return time.perf_counter() - began, count


def main() -> None:
    kind, place = sys.argv[1:]
    if kind == "records":
        seconds, count = decode_records(place)
    else:
        seconds, count = decode_tasks(place, JobFile if kind == "tasks" else CommandFile)
    print(f"{seconds:.6f} {count}")


if __name__ == "__main__":
    main()
