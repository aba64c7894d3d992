"""What the user submits: a name, settings, and tasks in order.

Formats build these from files and flags; nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Hashable

import msgspec

from umpteen.errors import InputError
from umpteen.job.settings import Settings
from umpteen.model.names import OWN_FOLDER

__all__ = ["Job", "Retry", "Task", "TaskOptions", "check_job_name"]

_BAD_JOB_NAME = re.compile(r"[/\\\x00-\x1f\x7f\ud800-\udfff]")
_MAX_NAME_BYTES = 200


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a task that did not succeed is tried again, and how."""

    # What must have happened, one of: `failed`, `timed_out`, `out_of_memory`, `output_limit`,
    # `exit_code:75`, `exit_code:1-9`, `signal:9`.
    when: list[str]
    times: int = 1
    # Before the first retry; each later one waits twice as long, at most 60 s.
    wait_s: float = 1.0
    # What the task then needs: so many times what it needed, or so many bytes.
    memory_factor: float = 1.0
    memory: int | None = None
    # Whether nothing else runs beside it.
    alone: bool = False


class TaskOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What most tasks do not say: dependencies, retries, what they need, and limits."""

    # The name or the pattern of other tasks, and `succeeded`, `any` or `failed`.
    after: list[tuple[str, str]] = []
    # The first rule that fits and is not used up counts.
    retries: list[Retry] = []
    # Cores, bytes and devices that it needs; None and 0: it does not say.
    cpus: int | None = None
    memory: int | None = None
    gpus: int = 0
    # Files that a success must have left.
    expect: list[str] = []
    # Bytes of stdout and stderr together.
    output_limit: int | None = None
    # The highest starts first.
    priority: int = 0
    # The number of the entry that it was made from, where canaries are asked for; else 0.
    template: int = 0
    # Options of sbatch, for Slurm alone; by long names, empty where one takes no value.
    slurm: dict[str, str] | None = None
    # Capabilities that its machine must have: sorted, each once.
    needs: tuple[str, ...] = ()

    @property
    def asked_for(self) -> Hashable:
        """What a place is asked for to run the task; equal for those that may share a batch."""
        slurm = tuple(sorted(self.slurm.items())) if self.slurm else ()
        return (self.cpus or 1, self.memory or 0, self.gpus, self.needs, slurm)

    @property
    def concern_runner(self) -> bool:
        """Whether a batch file holds more of them than what the task is after."""
        return bool(
            self.retries
            or self.cpus
            or self.memory
            or self.gpus
            or self.expect
            or self.output_limit
        )


class Task(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One command and what it needs; as JSON, one line of `.umpteen/tasks/K.jsonl`."""

    # Text for `sh -c`, or a list of words that no shell sees.
    command: str | list[str]
    # Empty until the plan names the task by its position.
    name: str = ""
    # Only what was declared: the runner adds what it inherited itself.
    env: dict[str, str] | None = None
    cwd: str | None = None
    # Of one attempt.
    timeout_s: float | None = None
    # The values that its template was filled with.
    parameters: dict[str, str] | None = None
    tags: list[str] | None = None
    # An address of its own for its outputs, in place of one below the job's.
    output: str | None = None
    # A folder on the machine that it writes results to, in place of the slot's.
    results_dir: str | None = None
    # Whether the plan has named it by its position.
    automatic: bool = False
    # None where it has none, as most; on disk the key is `terms`.
    options: TaskOptions | None = msgspec.field(default=None, name="terms")


class Job(msgspec.Struct, frozen=True):
    """One submission."""

    name: str
    tasks: list[Task]
    settings: Settings
    # Of every byte that the tasks were read from, with the version that read them: equal digests
    # mean equal tasks. Empty where that is not known.
    source_digest: str = ""
    # Whether its store may have more tasks than these, so that none is taken to be dropped.
    is_part: bool = False


def check_job_name(name: str) -> str:
    """The name itself; raises InputError where it cannot name a folder of results."""
    if name in ("", ".", "..", OWN_FOLDER) or _BAD_JOB_NAME.search(name):
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
