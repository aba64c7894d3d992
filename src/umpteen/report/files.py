"""Files that tasks left, as JSON."""

from __future__ import annotations

from typing import Any

from umpteen.query.files import TaskFiles
from umpteen.query.pull import Pulled

__all__ = ["pulled_to_dict", "task_files_to_dict"]


def task_files_to_dict(found: TaskFiles, state: str) -> dict[str, Any]:
    """What a task left, as `results --json` shows it. state: of the task."""
    return {
        "name": found.task.name,
        "index": found.task_index,
        "state": state,
        "parameters": found.task.parameters,
        "folder": found.outputs.address,
        "files": found.results,
    }


def pulled_to_dict(pulled: Pulled) -> dict[str, Any]:
    """What was copied and what was left out, as `results DEST --json` shows it."""
    left_out = [
        {"path": each.path, "kind": each.kind.value, "why": each.why} for each in pulled.left_out
    ]
    return {**pulled._asdict(), "left_out": left_out}
