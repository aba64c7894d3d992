"""What the user submits: a name, settings, and tasks in order.

Formats build these from files and flags; nothing here reads a file.
"""

from __future__ import annotations

import re

import msgspec

from umpteen.errors import InputError
from umpteen.job.settings import Settings

__all__ = ["Job", "Retry", "Task", "TaskOptions", "check_job_name"]

_BAD_JOB_NAME = re.compile(r"[/\\\x00-\x1f\x7f]")
_MAX_NAME_BYTES = 200


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a task that did not succeed is tried again, and how.

    when: what must have happened, one of them (`failed`, `timed_out`, `out_of_memory`,
    `output_limit`, `exit_code:75`, `exit_code:1-9`, `signal:9`). times: how often. wait_s:
    seconds before the first; each later one waits twice as long, at most 60 s. memory_factor
    and memory: what it then needs. alone: nothing else runs beside it.
    """

    when: list[str]
    times: int = 1
    wait_s: float = 1.0
    memory_factor: float = 1.0
    memory: int | None = None
    alone: bool = False


class TaskOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """On what terms a task runs, where there are any: what most tasks do not have.

    after: (name or pattern of tasks, `succeeded`, `any` or `failed`). cpus: cores; memory:
    bytes; gpus: devices; None and 0: not said. expect: files that a success must have left.
    output_limit: bytes of stdout and stderr together. priority: the highest starts first.
    template: what it was made from, by its number among the entries.
    """

    after: list[tuple[str, str]] = []
    retries: list[Retry] = []
    cpus: int | None = None
    memory: int | None = None
    gpus: int = 0
    expect: list[str] = []
    output_limit: int | None = None
    priority: int = 0
    template: int = 0

    @property
    def are_told(self) -> bool:
        """Whether a batch says of them more than what the task is after."""
        return bool(
            self.retries
            or self.cpus
            or self.memory
            or self.gpus
            or self.expect
            or self.output_limit
        )


class Task(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One command and what it needs; as JSON, one line of `.umpteen/tasks/K.jsonl`.

    name: "" until the plan names it by its position. command: text for `sh -c`, or a list of
    words that no shell sees. env: only what was declared. timeout_s: seconds of one attempt.
    parameters: the values its template was filled with. output: an address of its own for
    its outputs. results_dir: a folder on the machine that it writes results to, in place of
    the slot's. automatic: whether its name is its position. terms: None where it has none.
    """

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
    terms: TaskOptions | None = None


class Job(msgspec.Struct, frozen=True):
    """One submission.

    source_digest: of every byte the tasks were read from, with the version that read them;
    equal digests mean equal tasks. Empty where that is not known. is_part: whether its store
    may have more tasks than these, so that none is taken to be dropped.
    """

    name: str
    tasks: list[Task]
    settings: Settings
    source_digest: str = ""
    is_part: bool = False


def check_job_name(name: str) -> str:
    """The name itself; raises InputError where it cannot name a folder of results."""
    if name in ("", ".", "..", ".umpteen") or _BAD_JOB_NAME.search(name):
        raise InputError(
            f"{name!r} cannot be a job's name: it would leave the results directory"
            if name.split("/", maxsplit=1)[0] in ("", ".", "..")
            else f"{name!r} cannot be a job's name",
            "use letters, digits, '.', '_' and '-'",
            field="name",
        )
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise InputError(
            f"a job's name of {len(name.encode())} bytes is too long",
            f"use at most {_MAX_NAME_BYTES} bytes",
            field="name",
        )
    return name
