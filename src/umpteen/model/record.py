"""The record of an attempt: what is known of it when it has ended."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from umpteen.model.states import TaskState

__all__ = ["Record"]


_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class Record(NamedTuple):
    """What happened to one attempt of one task; one line of a records file.

    `start_s` and `end_s` are seconds since 1970 by the machine's clock; `seconds` is the
    duration by its monotonic clock. `outputs` is where the files are, relative to the
    task's own address (empty: in it). retry: another attempt follows by the task's own rules.
    """

    task: int
    digest: str
    attempt: int
    state: str
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
    retry: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the task has come to its end with this: no attempt follows by itself."""
        return TaskState(self.state).is_final and not self.retry

    @property
    def succeeded(self) -> bool:
        """Whether the command ended with exit code 0 and nothing spoke against it."""
        return self.state == TaskState.SUCCEEDED.value

    def to_dict(self) -> dict[str, Any]:
        """The record with what is not at its default, as one line of the file has it."""
        defaults = Record._field_defaults
        return {
            key: value
            for key, value in zip(self._fields, self)
            if key not in defaults or value != defaults[key]
        }

    def to_line(self) -> str:
        """The record as one line of JSON, without its end. A plain success is written by hand:
        one is written for every task.
        """
        if self.reason or self.outputs or self.exit_code is None or self.machine or self.retry:
            return _ENCODE(self.to_dict())
        return (
            f'{{"task":{self.task},"digest":"{self.digest}","attempt":{self.attempt},'
            f'"state":"{self.state}","exit_code":{self.exit_code},"start_s":{self.start_s:.3f},'
            f'"end_s":{self.end_s:.3f},"seconds":{self.seconds:.4f},"cpu_s":{self.cpu_s:.4f},'
            f'"peak_kb":{self.peak_kb},"slot":{self.slot},"stdout_bytes":{self.stdout_bytes},'
            f'"stderr_bytes":{self.stderr_bytes}}}'
        )
