"""The words that travel to machines: states, records, and what a task sees.

Standard library alone, and nothing else of ours: this is read on machines that have only
`python3` (3.9 or newer). The order and the finality of states live here and nowhere else.
"""

from __future__ import annotations

import enum
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "FORMAT_VERSION",
    "FREE",
    "IS_FINAL",
    "NUMBER_OF",
    "OUTCOMES",
    "REASON_DEADLINE",
    "REASON_INTERRUPTED",
    "REASON_KILLED_ITS_RUNNER",
    "REASON_OUTPUT_LIMIT",
    "REASON_OUT_OF_MEMORY",
    "RUNNER_VARIABLE",
    "Record",
    "SLOTS_MOST",
    "STATES",
    "TaskState",
    "build_digest",
    "build_environment",
    "link",
    "meets",
    "shell_command",
    "tell_end",
    "write_verb",
]

FORMAT_VERSION = 1  # of the files of a store; all that were ever released can be read
RUNNER_VARIABLE = "UMPTEEN_RUNNER"
SLOTS_MOST = 10_000  # tasks at once of one runner, each of which has its processes

REASON_INTERRUPTED = "interrupted"
REASON_DEADLINE = "deadline"
REASON_KILLED_ITS_RUNNER = "killed its runner"
REASON_OUT_OF_MEMORY = "out of memory"
REASON_OUTPUT_LIMIT = "output limit"


_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class TaskState(str, enum.Enum):
    """How far a task is. `lost` is what a reader concludes, so it is not here."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        """Whether the attempt is over: nothing follows it but another attempt."""
        return self not in (TaskState.WAITING, TaskState.RUNNING)

    def may_become(self, other: TaskState) -> bool:
        """Whether `other` may follow within one attempt.

        A runner that ends a running task itself puts it back to `waiting`.
        """
        if self.is_final or other is self:
            return False
        if self is TaskState.WAITING:
            return other in (TaskState.RUNNING, TaskState.CANCELLED, TaskState.SKIPPED)
        return other is not TaskState.SKIPPED


# States are told as small numbers where there are many of them: by their place here.
STATES = tuple(state.value for state in TaskState)
NUMBER_OF = {state: number for number, state in enumerate(STATES)}
IS_FINAL = tuple(state.is_final for state in TaskState)


# What may be asked of a task that another is after.
OUTCOMES = ("succeeded", "any", "failed")

# In place of a barrier: behind none.
FREE = -1


def link(number: int) -> int:
    """What stands for one task in place of a barrier, and the other way round."""
    return -2 - number


def meets(outcome: str, state: str) -> bool:
    """Whether a task that came to its end in `state` is what was asked of it."""
    if outcome == "any":
        return True
    if outcome == "succeeded":
        return state == TaskState.SUCCEEDED.value
    return state not in (TaskState.SUCCEEDED.value, TaskState.SKIPPED.value)


_ENDS = {"timed_out": "timed out", "cancelled": "was cancelled", "skipped": "was skipped"}


def tell_end(state: str) -> str:
    """`failed`, `timed out`, `was skipped`: what a task did, as a sentence has it."""
    return _ENDS.get(state, state)


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


def build_digest(
    command: str | Sequence[str], env: Mapping[str, str] | None, cwd: str | None
) -> str:
    """16 hex digits of a task's command, declared environment and directory as written."""
    if isinstance(command, str) and not env and cwd is None:
        content = command
    else:
        content = "\0" + json.dumps([command, env or {}, cwd], sort_keys=True)
    return hashlib.blake2b(content.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def shell_command(command: str | Sequence[str]) -> str:
    """The command as text for `sh -c`; a list is quoted word by word."""
    return command if isinstance(command, str) else shlex.join(command)


def write_verb(verb: str, *names: str, flags: str = "") -> str:
    """What to type: `umpteen logs job 3 --stderr`, that works whatever jobs and tasks are called."""
    parts = ["umpteen", verb, shlex.join(names), flags]
    if any(name.startswith("-") for name in names):
        parts = ["umpteen", verb, flags, "--", shlex.join(names)]
    return " ".join(filter(None, parts))


def build_environment(
    job: str, task: str, index: int, attempt: int, slot: int, results_dir: str, output: str
) -> list[bytes]:
    """The variables a task finds beside those it inherits (store.md, section 8), as `KEY=value`.

    results_dir: the folder on this machine that it writes results to. output: the address
    of the folder of all its outputs. Programs written for `sc` expect a slash behind the former.
    """
    text = (
        f"UMPTEEN_JOB={job}\0UMPTEEN_TASK={task}\0UMPTEEN_TASK_INDEX={index}\0"
        f"UMPTEEN_ATTEMPT={attempt}\0UMPTEEN_SLOT={slot}\0SATURN_RUN_LOCAL_RANK={slot}\0"
        f"UMPTEEN_RESULTS_DIR={results_dir}\0SATURN_RUN_LOCAL_RESULTS_DIR={results_dir}/\0"
        f"RESULTS_DIR={results_dir}\0UMPTEEN_OUTPUT={output}\0"
        f"SATURN_RUN_REMOTE_OUTPUT_PATH={output}"
    )
    return text.encode("utf-8", "surrogateescape").split(b"\0")
