"""umpteen from Python: what the verbs of the command line do, as functions.

    import umpteen
    sweep = umpteen.run("python sim.py --lr {lr}", values={"lr": [0.1, 0.01]})
    for task in sweep:
        print(task.name, task.exit_code, task.stdout)

A job here is a job file in Python: the same keys, read by the same reader.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import msgspec

from umpteen import dispatch, lookup
from umpteen.cli.view import stop_signals
from umpteen.cli.watch import watch_to_end
from umpteen.errors import EXIT_INTERRUPTED, InputError
from umpteen.formats import read_job
from umpteen.job import Job as PlannedJob
from umpteen.settings import Setting
from umpteen.status import JobStatus
from umpteen.task import Record
from umpteen.where import compile_where

__all__ = ["Job", "OpenJob", "Task", "TaskResult", "collect", "open_job", "run", "submit"]


class Task(msgspec.Struct, omit_defaults=True):
    """One command, or with a matrix one for each row; the keys are those of a job file.

    timeout: a duration such as `90`, `"15m"`. memory, output_limit: a size such as `"4G"`.
    """

    command: str | list[str]
    name: str | None = None
    matrix: Any = None
    after: Any = None
    retries: Any = None
    timeout: str | float | None = None
    cpus: int | None = None
    memory: str | None = None
    gpus: int | None = None
    env: dict[str, str] | None = None
    cwd: str | None = None
    tags: list[str] | None = None
    expect: list[str] | None = None
    output_limit: str | int | None = None
    priority: int | None = None
    shell: bool | None = None


class Job(msgspec.Struct, omit_defaults=True):
    """A name, tasks, and settings; the keys are those of a job file.

    defaults: keys of a task that hold for all of them.
    """

    name: str
    tasks: Sequence[Task | str]
    slots: int | None = None
    results: str | None = None
    executor: str | dict[str, Any] | None = None
    deadline: str | float | None = None
    grace: str | float | None = None
    canary: int | None = None
    max_failures: int | None = None
    fail_fast: bool | None = None
    defaults: dict[str, Any] = {}


def run(
    job: Job | Sequence[Task | str] | str,
    *,
    values: Mapping[str, Any] | None = None,
    name: str | None = None,
    slots: int | None = None,
    results: str | None = None,
    rerun: str = "default",
    progress: bool = True,
) -> OpenJob:
    """Run what is not done of a job, and wait until all of it has ended.

    job: a Job, a list of tasks, the path of a job file, or a command; values: of the command's
    placeholders, by name. A task that fails raises nothing: look at `ok`. Raises InputError
    and SettingsError for what cannot be, StoreError where results cannot be written.
    """
    planned = _read(job, values, name, slots, results, detach=False)
    return _watch(dispatch.submit(planned, rerun), progress=progress)


def submit(
    job: Job | Sequence[Task | str] | str,
    *,
    values: Mapping[str, Any] | None = None,
    name: str | None = None,
    slots: int | None = None,
    results: str | None = None,
    rerun: str = "default",
) -> OpenJob:
    """As `run`, but come back at once: the job goes on without this process."""
    planned = _read(job, values, name, slots, results, detach=True)
    return OpenJob(dispatch.submit(planned, rerun).history.store.address)


def collect(name: str, *, progress: bool = True) -> OpenJob:
    """Wait until a job has ended that was handed in before, here or elsewhere."""
    return _watch(dispatch.collect(name), progress=progress)


def open_job(name: str) -> OpenJob:
    """A job by its name or the address of its results. Raises InputError where there is none."""
    return OpenJob(lookup.open_history(name).store.address)


def _read(
    job: Job | Sequence[Task | str] | str,
    values: Mapping[str, Any] | None,
    name: str | None,
    slots: int | None,
    results: str | None,
    *,
    detach: bool,
) -> PlannedJob:
    flags = {}
    if slots is not None:
        flags["slots"] = Setting(slots, "slots=")
    if results is not None:
        flags["address"] = Setting(results, "results=")
    if isinstance(job, str) and values is None:
        planned = read_job([job], name=name, flags=flags)
    else:
        if isinstance(job, str):
            name = name or read_job([job], flags=flags).name
            job = [Task(job, matrix=dict(values or {}))]
        planned = _read_values(job, name, flags)
    settled = dispatch.settle(planned, os.getcwd())
    return dispatch.detach(settled) if detach else settled


def _read_values(
    job: Job | Sequence[Task | str], name: str | None, flags: Mapping[str, Setting]
) -> PlannedJob:
    """A job by the same reader that reads files."""
    if isinstance(job, Job):
        content = {**msgspec.to_builtins(job), **job.defaults}
        content.pop("defaults", None)
    else:
        content = {"tasks": msgspec.to_builtins(list(job))}
        if name is None:
            raise InputError("a list of tasks needs a name", "run([...], name='sweep')")
    try:
        return read_job(
            ["-"], name=name, flags=flags, stdin=io.BytesIO(msgspec.json.encode(content))
        )
    except InputError as error:
        place, colon, message = error.message.partition(": ")
        is_placed = bool(colon) and place.startswith("stdin")
        raise InputError(
            message if is_placed else error.message, error.hint, field=error.field
        ) from None


def _watch(submission: dispatch.Submission, *, progress: bool) -> OpenJob:
    began_s = time.monotonic()
    with stop_signals() as stop:
        code = watch_to_end(submission, stop, began_s, quiet=not progress, as_json=False)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    return OpenJob(submission.history.store.address)


class TaskResult:
    """One task of a job, and what its newest attempt left."""

    def __init__(self, job: OpenJob, facts: Mapping[str, Any]) -> None:
        self._job, self._facts = job, facts
        self.name: str = facts["name"]
        self.index: int = facts["index"]
        self.state: str = facts["state"]
        self.parameters: dict[str, str] = facts["parameters"]
        self.record: Record | None = facts["record"]

    def __repr__(self) -> str:
        return f"TaskResult({self.name!r}, {self.state!r})"

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.state == "succeeded"

    @property
    def exit_code(self) -> int | None:
        """Of the command; None where it has not ended, or ended by a signal."""
        return self.record.exit_code if self.record else None

    @property
    def path(self) -> str:
        """The folder of its outputs."""
        return lookup.outputs_folder(
            self._job.history, self._facts["task"], self._facts["token"], self.record
        )

    @property
    def results(self) -> str:
        """The folder of what it wrote to its results directory; it may not be there."""
        return self.path + "/results"

    @property
    def stdout(self) -> str:
        """What it printed; empty where there is nothing."""
        return _read_text(self.path + "/stdout")

    @property
    def stderr(self) -> str:
        """What it printed to stderr; empty where there is nothing."""
        return _read_text(self.path + "/stderr")


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


class OpenJob:
    """A job that was handed in: how it stands, its tasks, and what can be done with it.

    Iterating gives a TaskResult for each task, in order, as it stands then.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.history = lookup.open_history(address)
        self.name: str = self.history.job.get("name", "")

    def __repr__(self) -> str:
        status = self.status()
        return f"OpenJob({self.name!r}, {status.state!r}, {status.total} tasks)"

    def status(self) -> JobStatus:
        """How it stands now."""
        self.history.refresh()
        return lookup.read_status(self.history)

    @property
    def ok(self) -> bool:
        """Whether every task has succeeded."""
        return self.status().state == "succeeded"

    def __iter__(self) -> Iterator[TaskResult]:
        self.history.refresh()
        return iter([TaskResult(self, facts) for facts in lookup.read_facts(self.history)])

    def __len__(self) -> int:
        return self.status().total

    @overload
    def __getitem__(self, key: str) -> TaskResult: ...
    @overload
    def __getitem__(self, key: int) -> TaskResult: ...
    def __getitem__(self, key: str | int) -> TaskResult:
        """A task by its name or index. Raises KeyError."""
        for task in self:
            if key in (task.name, task.index):
                return task
        raise KeyError(key)

    @property
    def failed(self) -> list[TaskResult]:
        """The tasks that came to an end without success."""
        return [task for task in self if task.state not in ("succeeded", "waiting", "running")]

    def to_rows(self) -> list[dict[str, Any]]:
        """A row a task, as `umpteen export` has it: `pandas.DataFrame(job.to_rows())`."""
        from umpteen.export import list_rows

        self.history.refresh()
        return list(list_rows(self.history))

    def wait(self, *, progress: bool = False) -> OpenJob:
        """Until it has ended; what nobody is at any more is handed in again."""
        return _watch(dispatch.collect(self.address), progress=progress)

    def cancel(self, *tasks: str) -> None:
        """End it, or some of its tasks by name or pattern, and wait until that is recorded."""
        for _ in dispatch.watch(dispatch.cancel(self.address, tasks)):
            pass

    def retry(self, *tasks: str, where: str | None = None, progress: bool = True) -> OpenJob:
        """Run again what did not succeed, or the tasks named, or those for which `where` holds."""
        chosen = compile_where(where) if where else None
        return _watch(dispatch.retry(self.address, tasks, chosen), progress=progress)
