"""What a finished store says, read from its files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from umpteen.store.base import Store
from umpteen.store.layout import JOB, RecordsKey, batch_key, handed_key, records_key, tasks_key
from umpteen.store.records import build_line

__all__ = ["list_records", "put_batch", "put_hand_in", "put_start", "read_record", "read_tree"]


def list_records(store: Path) -> list[dict[str, Any]]:
    """Every record of a job, by batch, start and line; each with its runner's token."""
    found = []
    for path in sorted(store.glob(".umpteen/records/*/*.jsonl")):
        for line in path.read_bytes().split(b"\n")[:-1]:
            parsed = json.loads(line)
            if "task" in parsed:
                found.append({**parsed, "token": path.stem.partition("-")[2]})
    return found


def read_record(store: Path, index: int = 0) -> dict[str, Any]:
    """The only record of a task."""
    (record,) = [record for record in list_records(store) if record["task"] == index]
    return record


def read_tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def put_hand_in(
    store: Store, number: int, lines: list[dict[str, Any]], batches: dict[str, str], **more: Any
) -> None:
    """Hand-in `number` with its lines of `tasks/K.jsonl`, and its batches' index ranges."""
    if number == 1:
        store.create(JOB, b'{"name":"job","version":0}')
    store.create(tasks_key(number), b"".join(map(build_line, lines)))
    handed = {
        "hand_in": number,
        "time": 0.0,
        "executor": "local",
        "mark": "",
        "tasks": sum("index" not in line for line in lines),
        "batches": [{"batch": name, "indices": indices} for name, indices in batches.items()],
        **more,
    }
    store.create(handed_key(number), build_line(handed))


def put_start(store: Store, batch: str, lines: list[dict[str, Any]], start: int = 1) -> None:
    """A start of a batch that recorded these lines after its first."""
    opened = {"event": "start", "machine": "elsewhere", "boot": "b", "token": f"{start:012x}"}
    content = b"".join(map(build_line, [opened, *lines]))
    store.replace(records_key(batch, RecordsKey(start, f"{start:012x}")), content)


def put_batch(store: Store, batch: str, indices: str, names: list[str]) -> None:
    """The file of a batch, with no more than it must have."""
    runs = [{"cmd": "true", "remote_output_path": f"{store.address}/{name}"} for name in names]
    own = {"version": 1, "job": "job", "batch": batch, "indices": indices, "names": names}
    content = {"nprocs": 1, "remote_output_path": store.address, "runs": runs, "umpteen": own}
    store.create(batch_key(batch), build_line(content))
