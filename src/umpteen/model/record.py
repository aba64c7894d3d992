"""The record of an attempt: what is known of it when it has ended."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, TypedDict, cast

from umpteen.model.forms import MOST_TASKS, MOST_TIME_S, FormError, number, text, truth, whole
from umpteen.model.states import NUMBER_OF, TaskState

__all__ = ["Record", "RecordLine", "parse_record"]

_OUTPUTS = re.compile(r"attempts/[0-9]{1,10}-[0-9a-z]{1,64}")  # see `attempt_folder`


_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class Record(NamedTuple):
    """What happened to one attempt of one task; one line of a records file."""

    task: int  # its index
    digest: str  # of its command, environment and directory
    attempt: int  # from 1
    state: str
    exit_code: int | None = None
    signal: int | None = None  # that ended it
    start_s: float = 0.0  # seconds since 1970 by the machine's clock
    end_s: float = 0.0
    seconds: float = 0.0  # how long it took, by the machine's monotonic clock
    cpu_s: float = 0.0
    peak_kb: int = 0  # memory
    slot: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    outputs: str = ""  # where its files are, relative to the task's own address; empty: in it
    reason: str = ""  # see `umpteen.model.reasons`
    machine: str = ""
    retry: bool = False  # another attempt follows by the task's own rules

    @property
    def is_final(self) -> bool:
        """Whether the task has come to its end with this: no attempt follows by itself."""
        return TaskState(self.state).is_final and not self.retry

    def find_seconds(self, before_s: float = 0.0) -> float:
        """How long the task is known to take. before_s: by its attempts before this one.

        One that was ended before its end says no more than that it takes as long as that.
        """
        is_ended = self.state == TaskState.WAITING.value
        return max(before_s, self.seconds) if is_ended else self.seconds

    @property
    def succeeded(self) -> bool:
        """Whether the command ended with exit code 0 and nothing spoke against it."""
        return self.state == TaskState.SUCCEEDED.value

    def to_dict(self) -> RecordLine:
        """The record with what is not at its default, as one line of the file has it."""
        defaults = Record._field_defaults
        said = {
            key: value
            for key, value in zip(self._fields, self)
            if key not in defaults or value != defaults[key]
        }
        return cast(RecordLine, said)

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


class _Known(TypedDict):
    task: int
    digest: str
    attempt: int
    state: str


class RecordLine(_Known, total=False):
    """A line of a records file that is a record: the fields of `Record` that say something."""

    exit_code: int | None
    signal: int | None
    start_s: float
    end_s: float
    seconds: float
    cpu_s: float
    peak_kb: int
    slot: int
    stdout_bytes: int
    stderr_bytes: int
    outputs: str
    reason: str
    machine: str
    retry: bool


# --- reading --------------------------------------------------------------------------------


def parse_record(line: Mapping[str, Any]) -> Record | None:
    """The record that a line is; None for an event, or what has no task or no state.

    Of the other fields those of later versions, and what is not as it must be, are passed over.
    """
    given: dict[str, Any] = {"digest": "", "attempt": 1}
    for name, value in line.items():
        kind = _KINDS.get(name)
        if kind is None:
            continue
        if type(value) is kind and (value.isascii() if kind is str else 0 <= value <= MOST_TIME_S):
            given[name] = value  # as nearly all are
            continue
        with contextlib.suppress(FormError):
            given[name] = _CHECKS[name](value)
    is_ours = given.get("task", MOST_TASKS) < MOST_TASKS and given.get("state") in NUMBER_OF
    if not is_ours or type(line.get("retry", False)) is not bool:
        return None
    if "outputs" in given and not _OUTPUTS.fullmatch(given["outputs"]):
        del given["outputs"]
    return Record(**given)


def _parse_code(code: object) -> int | None:
    return None if code is None else whole(code, -(2**31))


def _parse_words(words: object) -> str:
    """Text that is only shown."""
    text(words.replace("\0", "") if isinstance(words, str) else words)
    return str(words)


# By what nearly all values of a field are.
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("digest", "state", "outputs", "reason", "machine"), str),
    **dict.fromkeys(("task", "attempt", "slot", "peak_kb", "stdout_bytes", "stderr_bytes"), int),
    **dict.fromkeys(("start_s", "end_s", "seconds", "cpu_s"), float),
    **dict.fromkeys(("exit_code", "signal"), int),
    "retry": bool,
}


_CHECK_OF: dict[type, Callable[[Any], Any]] = {
    str: _parse_words,
    int: whole,
    float: number,
    bool: truth,
}
_CHECKS = {
    **{name: _CHECK_OF[kind] for name, kind in _KINDS.items()},
    **dict.fromkeys(("exit_code", "signal"), _parse_code),
}
