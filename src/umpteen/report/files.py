"""Files that tasks left, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from umpteen.query.files import TaskFiles
from umpteen.query.pull import Pulled

__all__ = ["LeftOutJson", "PulledJson", "TaskFilesJson", "pulled_to_dict", "task_files_to_dict"]


class TaskFilesJson(TypedDict):
    """What a task left, as `results --json` shows it."""

    name: str
    index: int
    state: str
    parameters: Mapping[str, str] | None
    folder: str
    files: list[str]


class LeftOutJson(TypedDict):
    """What was not copied."""

    path: str
    kind: str
    why: str


class PulledJson(TypedDict):
    """What was copied and what was left out, as `results DEST --json` shows it."""

    files: int
    size_bytes: int
    kept: int
    left_out: list[LeftOutJson]


def task_files_to_dict(found: TaskFiles, state: str) -> TaskFilesJson:
    """state: of the task."""
    return {
        "name": found.task.name,
        "index": found.task_index,
        "state": state,
        "parameters": found.task.parameters,
        "folder": found.outputs.address,
        "files": found.results,
    }


def pulled_to_dict(pulled: Pulled) -> PulledJson:
    """All that was copied, by one call."""
    return {
        "files": pulled.files,
        "size_bytes": pulled.size_bytes,
        "kept": pulled.kept,
        "left_out": [
            {"path": each.path, "kind": each.kind.value, "why": each.why}
            for each in pulled.left_out
        ],
    }
