"""What a task wrote, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from umpteen.model.record import RecordLine
from umpteen.verbs.logs import AttemptLog, TaskLog

__all__ = ["AttemptJson", "LogJson", "log_to_dict"]


class AttemptJson(TypedDict):
    """What one attempt wrote; its record as it is on disk, None where it has not ended."""

    record: RecordLine | None
    folder: str
    stdout: str | None
    stderr: str | None


class LogJson(AttemptJson):
    """What the newest attempt of a task wrote, and each of them."""

    name: str
    index: int
    state: str
    attempts: list[AttemptJson]


def log_to_dict(log: TaskLog, attempts: Sequence[AttemptLog]) -> LogJson:
    """A task with what all its attempts wrote, as `logs --json` shows it."""
    shown = [_attempt_to_dict(attempt) for attempt in attempts]
    return {
        "name": log.task.name,
        "index": log.index,
        "state": log.state,
        **shown[-1],
        "attempts": shown if log.has_begun else [],
    }


def _attempt_to_dict(attempt: AttemptLog) -> AttemptJson:
    return {
        "record": attempt.record.to_dict() if attempt.record else None,
        "folder": attempt.folder,
        "stdout": attempt.stdout,
        "stderr": attempt.stderr,
    }
