"""What a store's files say, read without umpteen's own code, and what is wrong with them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

__all__ = [
    "check_store",
    "estimate_records",
    "list_lost",
    "list_wrong_outputs",
    "read_record_lines",
]

_RECORD_BYTES = 220


def read_record_lines(store: Path) -> dict[Path, list[bytes]]:
    """The whole lines of every records file, as they are, but for those that are blank."""
    return {
        path: [line for line in path.read_bytes().split(b"\n")[:-1] if line.strip()]
        for path in sorted(store.glob(".umpteen/records/*/*.jsonl"))
    }


def estimate_records(store: Path) -> int:
    """About how many records the store has, by the size of its files: reading costs time."""
    sizes = (path.stat().st_size for path in store.glob(".umpteen/records/*/*.jsonl"))
    return sum(sizes) // _RECORD_BYTES


def list_lost(before: Mapping[Path, list[bytes]], store: Path) -> list[str]:
    """What is wrong where records that were there before are not there, or not as they were.

    before: by path, in this store or in a copy of what it was.
    """
    now = {path.parts[-2:]: lines for path, lines in read_record_lines(store).items()}
    return [
        f"{path.name} lost or changed a record"
        for path, lines in before.items()
        if now.get(path.parts[-2:], [])[: len(lines)] != lines
    ]


def list_wrong_outputs(folder: Path, task: int) -> list[str]:
    """What is wrong in the folder of an attempt of a task that says its number in each file."""
    told = {"stdout": f"{task}\n", "results/n": f"{task}\n", "status_code": "0"}
    found = {name: path.read_text() for name in told if (path := folder / name).exists()}
    return [f"task {task} left {found}"] if found != told else []


def check_store(store: Path, tasks: int) -> list[str]:
    """What is wrong with a finished store, by its files alone; empty where nothing is."""
    faults = []
    successes: Counter[int] = Counter()
    for lines in read_record_lines(store).values():
        for line in lines:
            record = json.loads(line)
            if record.get("state") == "succeeded":
                successes[record["task"]] += 1
    if len(successes) != tasks:
        faults.append(f"{len(successes)} of {tasks} tasks have a success")
    twice = [task for task, count in successes.items() if count > 1]
    if twice:
        faults.append(f"{len(twice)} tasks have more than one success, such as {twice[0]}")
    for task in range(tasks):
        faults += list_wrong_outputs(store / str(task), task)
    return faults
