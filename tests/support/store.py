"""What a finished store says, read from its files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["list_records", "read_record", "read_tree"]


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
