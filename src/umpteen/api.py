"""umpteen from Python: what the verbs of the command line do, as functions.

    import umpteen
    sweep = umpteen.run("python sim.py --lr {lr}", values={"lr": [0.1, 0.01]})
    for task in sweep:
        print(task.name, task.exit_code, task.stdout)

A job here is a job file in Python: the same keys, read by the same reader.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import io
import math
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload

import msgspec

from umpteen.errors import EXIT_INTERRUPTED, BackendError, InputError, UmpteenError, nearest_hint
from umpteen.formats import read_job
from umpteen.formats.native import TASK_KEYS, parse_executor
from umpteen.formats.placeholders import refuse_placeholders
from umpteen.formats.sources import choose_job_name, names_files
from umpteen.formats.task_options import parse_retries
from umpteen.formats.tasks import parse_duration_field
from umpteen.job.settings import Setting
from umpteen.job.spec import Job as PlannedJob
from umpteen.model.command import shell_command
from umpteen.model.record import Record
from umpteen.planning.plan import RERUN_CHOICES
from umpteen.query.expression import PLAN_FIELDS, compile_where
from umpteen.query.facts import read_facts
from umpteen.query.failures import describe_end
from umpteen.query.find import open_history
from umpteen.query.liveness import read_status
from umpteen.query.outputs import Outputs, find_outputs
from umpteen.query.status import JobStatus
from umpteen.query.verify import read_gone
from umpteen.report.views import stop_signals
from umpteen.report.watch import watch_to_end
from umpteen.report.why import render_why
from umpteen.store.address import working_folder
from umpteen.submission.settings import detach, resolve_settings
from umpteen.units import parse_memory, show_value
from umpteen.verbs.cancel import cancel
from umpteen.verbs.collect import collect as collect_job
from umpteen.verbs.handle import JobHandle
from umpteen.verbs.remove import plan_removal, remove
from umpteen.verbs.retry import Rerun, retry
from umpteen.verbs.run import choose_where
from umpteen.verbs.run import submit as submit_job
from umpteen.verbs.watch import watch
from umpteen.verbs.why import explain

__all__ = ["Job", "OpenJob", "Task", "TaskResult", "collect", "open_job", "run", "submit"]

_MOST = 2**31
_NOT_OF_TASKS = ("command", "name")
_Class = TypeVar("_Class")


@contextlib.contextmanager
def _hinted() -> Iterator[None]:
    """Have an error show what the command line prints with it: a runner's last words, the hint."""
    try:
        yield
    except UmpteenError as error:
        if isinstance(error, BackendError) and error.last_lines:
            error.add_note(error.last_lines)
        if error.hint:
            error.add_note(f"hint: {error.hint}")
        raise


def _with_known_keywords(kind: type[_Class]) -> type[_Class]:
    """The dataclass, which answers an unknown keyword with the nearest: raises InputError."""
    build: Callable[..., None] = kind.__init__
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]

    @functools.wraps(build)
    @_hinted()
    def check(self: object, *arguments: Any, **keywords: Any) -> None:
        for name in keywords:
            if name not in known:
                raise InputError(f"a {kind.__name__} has no {name!r}", nearest_hint(name, known))
        build(self, *arguments, **keywords)

    kind.__init__ = check  # type: ignore[method-assign]
    return kind


@_with_known_keywords
@dataclasses.dataclass
class Task:
    """One command, or with a matrix one for each row; the keys are those of a job file.

    timeout: a duration such as `90` (seconds), `"15m"`. memory, output_limit: a size such as
    `"4G"`. Raises InputError for a keyword that is none of them.
    """

    command: str | Iterable[Any]
    name: str | None = None
    matrix: Any = None
    after: Any = None
    retries: Any = None
    timeout: str | float | None = None
    cpus: int | None = None
    memory: str | int | None = None
    gpus: int | None = None
    env: Mapping[str, Any] | None = None
    cwd: str | os.PathLike[str] | None = None
    tags: str | Iterable[str] | None = None
    expect: str | Iterable[str] | None = None
    output_limit: str | int | None = None
    priority: int | None = None
    shell: bool | None = None


@_with_known_keywords
@dataclasses.dataclass
class Job:
    """A name, tasks, and settings; the keys are those of a job file.

    defaults: keys of a task that hold for all of them, where a task has none of its own.
    Raises InputError for a keyword that is none of them.
    """

    name: str
    tasks: Iterable[Task | str]
    slots: int | None = None
    results: str | os.PathLike[str] | None = None
    executor: str | Mapping[str, Any] | None = None
    batch_size: int | None = None
    deadline: str | float | None = None
    grace: str | float | None = None
    canary: int | None = None
    max_failures: int | None = None
    fail_fast: bool | None = None
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_Work = Job | Task | Iterable[Task | str] | str | os.PathLike[str]


@_hinted()
def run(
    job: _Work,
    *,
    values: Mapping[str, Any] | None = None,
    name: str | None = None,
    slots: int | None = None,
    results: str | os.PathLike[str] | None = None,
    executor: str | Mapping[str, Any] | None = None,
    timeout: str | float | None = None,
    memory: str | int | None = None,
    retries: Any = None,
    cpus: int | None = None,
    gpus: int | None = None,
    only: str | None = None,
    rerun: str = "default",
    verify: bool = False,
    progress: bool = True,
) -> OpenJob:
    """Run what is not done of a job, and wait until all of it has ended.

    job: a Job, a Task, a list of tasks, the path of a job file, or a command; values: of the
    command's placeholders, by name. executor: where it runs, as in a job file, such as
    `{"dask": {"scheduler_address": "tcp://…"}}`. timeout (`90` is seconds, `"15m"`), memory (`"4G"`), retries,
    cpus and gpus are those of every task. only: an expression for the tasks that have their turn;
    rerun: as the flag. verify: whether what is done has to have what it left, too. A task that fails raises nothing: look at `ok`. Raises InputError and
    SettingsError for what cannot be, StoreError where results cannot be written.
    """
    flags = _collect_flags(slots, results, timeout, memory, retries, cpus, gpus)
    flags.update(_choose_executor(executor))
    planned = _read(job, values, name, flags)
    return _watch(_hand_in(planned, only, rerun, is_verified=verify), progress=progress)


@_hinted()
def submit(
    job: _Work,
    *,
    values: Mapping[str, Any] | None = None,
    name: str | None = None,
    slots: int | None = None,
    results: str | os.PathLike[str] | None = None,
    executor: str | Mapping[str, Any] | None = None,
    timeout: str | float | None = None,
    memory: str | int | None = None,
    retries: Any = None,
    cpus: int | None = None,
    gpus: int | None = None,
    only: str | None = None,
    rerun: str = "default",
    verify: bool = False,
) -> OpenJob:
    """As `run`, but come back at once: the job goes on without this process."""
    flags = _collect_flags(slots, results, timeout, memory, retries, cpus, gpus)
    flags.update(_choose_executor(executor))
    planned = detach(_read(job, values, name, flags))
    submission = _hand_in(planned, only, rerun, is_verified=verify)
    return OpenJob(submission.history.store.address)


@_hinted()
def collect(name: str | os.PathLike[str], *, progress: bool = True) -> OpenJob:
    """Wait until a job has ended that was handed in before, here or elsewhere."""
    return _watch(collect_job(str(name)), progress=progress)


@_hinted()
def open_job(name: str | os.PathLike[str]) -> OpenJob:
    """A job by its name or the address of its results. Raises InputError where there is none."""
    return OpenJob(open_history(str(name)).store.address)


# --- what is given ----------------------------------------------------------------------


def _collect_flags(
    slots: Any, results: Any, timeout: Any, memory: Any, retries: Any, cpus: Any, gpus: Any
) -> dict[str, Setting]:
    """What `read_job` takes as flags. Raises InputError."""
    given = {
        "slots": ("slots", _parse_count("slots", slots, 1)),
        "results": ("address", _parse_address(results)),
        "timeout": ("timeout_s", parse_duration_field("timeout", _to_plain(timeout))),
        "memory": ("memory", _parse_memory(memory)),
        "retries": ("retries", None if retries is None else parse_retries(_to_plain(retries))),
        "cpus": ("cpus", _parse_count("cpus", cpus, 1)),
        "gpus": ("gpus", _parse_count("gpus", gpus, 0)),
    }
    return {
        key: Setting(value, f"{argument}=")
        for argument, (key, value) in given.items()
        if value is not None
    }


def _choose_executor(given: Any) -> dict[str, Setting]:
    """The executor and its options, as a job file would have them. Raises InputError."""
    if given is None:
        return {}
    name, options = parse_executor(given)
    return {
        "executor": Setting(name, "executor="),
        "executor_options": Setting(dict(options), "executor="),
    }


def _parse_count(argument: str, given: Any, least: int) -> int | None:
    count = _to_plain(given)
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, int) or not least <= count <= _MOST:
        message = f"{argument!r} must be a whole number of at least {least}"
        raise InputError(f"{message}, not {show_value(count)}", field=argument)
    return count


def _parse_address(given: Any) -> str | None:
    address = _to_plain(given)
    if address is None:
        return None
    if not isinstance(address, str) or not address:
        hint = "write results='/shared/runs/{name}'"
        raise InputError(f"'results' must be an address, not {show_value(address)}", hint)
    return address


def _parse_memory(given: Any) -> int | None:
    return None if given is None else parse_memory(_to_plain(given))


def _read(
    job: Any, values: Mapping[str, Any] | None, name: str | None, flags: Mapping[str, Setting]
) -> PlannedJob:
    """The settled job, whatever was given. Raises InputError and SettingsError."""
    name = None if name is None else str(name)
    if isinstance(job, str) and values is not None:
        name = choose_job_name(job) if name is None else name
        planned = _read_content([_fill(job, values)], name, flags)
    elif values is not None:
        hint = 'give a task its own: Task("echo {x}", matrix={"x": [1, 2]})'
        raise InputError("'values' go with a command, as text", hint)
    elif isinstance(job, (str, os.PathLike)):
        planned = read_job([_check_text(job)], name=name, flags=flags)
    elif isinstance(job, Task):
        planned = _read_content([job], _name_after(job) if name is None else name, flags)
    elif isinstance(job, Job):
        planned = _read_content(job.tasks, name, flags, job)
    elif isinstance(job, Iterable) and not isinstance(job, (bytes, Mapping)):
        if name is None:
            raise InputError("a list of tasks needs a name", "run([...], name='sweep')")
        planned = _read_content(job, name, flags)
    else:
        hint = "give a Job, a Task, a list of tasks, the path of a job file, or a command"
        raise InputError(f"{type(job).__name__!r} is no job", hint)
    return resolve_settings(planned, working_folder())


def _fill(command: str, values: Mapping[str, Any]) -> Task:
    """The command with its values, as a task."""
    if not isinstance(values, Mapping):
        hint = 'write values={"x": [1, 2]}'
        raise InputError(f"'values' must be a mapping, not {show_value(_to_plain(values))}", hint)
    if os.path.isfile(command) and not os.access(command, os.X_OK):
        hint = "in a file, values stand in the 'matrix' of a task"
        raise InputError(f"'values' go with a command, and {command!r} is a file", hint)
    if command.strip():
        names_files([command, *(f"{name}=" for name in values)])  # refuses a file that is missing
    return Task(command, matrix=values)


def _check_text(job: str | os.PathLike[str]) -> str:
    """A command without values, or the path of a job file. Raises InputError."""
    text = os.fsdecode(job)
    if not text.strip() or names_files([text]):
        return text
    if isinstance(job, os.PathLike):
        raise InputError(f"no such file: {text!r}", "a command is given as text")
    try:
        refuse_placeholders(text)
    except InputError as error:
        raise InputError(error.message, 'write values={"x": [1, 2]}') from None
    return text


def _name_after(task: Task) -> str:
    command = _to_plain(task.command)
    words = list(map(str, command)) if isinstance(command, list) else str(command)
    return choose_job_name(shell_command(words))


def _read_content(
    tasks: Iterable[Task | str],
    name: str | None,
    flags: Mapping[str, Setting],
    job: Job | None = None,
) -> PlannedJob:
    """A job by the same reader that reads files."""
    content = {} if job is None else _to_plain({**vars(job), "tasks": None})
    defaults = content.pop("defaults", None) or {}
    if not isinstance(defaults, dict):
        raise InputError("'defaults' must be a mapping", 'write defaults={"timeout": "10m"}')
    for key in defaults:
        if key not in TASK_KEYS or key in _NOT_OF_TASKS:
            known = [key for key in TASK_KEYS if key not in _NOT_OF_TASKS]
            raise InputError(f"unknown key {key!r} in 'defaults'", nearest_hint(key, known))
    content.update(defaults, tasks=_to_plain(tasks))
    if not content["tasks"]:
        raise InputError("the job has no tasks", "give it at least one")
    try:
        data = msgspec.json.encode(content)
        return read_job(["-"], name=name, flags=flags, stdin=io.BytesIO(data))
    except UnicodeEncodeError as error:
        raise InputError(f"{error.object[:40]!r} is not UTF-8 text") from None
    except InputError as error:
        place, colon, message = error.message.partition(": ")
        is_placed = bool(colon) and place.startswith("stdin")
        raise InputError(
            message if is_placed else error.message, error.hint, field=error.field
        ) from None


def _to_plain(value: Any) -> Any:
    """What a job file would say: arrays and ranges as lists, paths as text. Raises InputError."""
    if hasattr(value, "tolist"):  # of numpy, pandas, torch: its values, or the one that it is
        return _to_plain(value.tolist())
    if isinstance(value, enum.Enum):
        return _to_plain(value.value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, (str, os.PathLike)):
        return "".join([os.fsdecode(value)])  # plain text, also of a class of its own
    if isinstance(value, Task):
        return {key: _to_plain(item) for key, item in vars(value).items() if item is not None}
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_to_plain(item) for item in value]
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    raise InputError(f"a job cannot hold {value!r}", "give a text or a number")


def _hand_in(job: PlannedJob, only: str | None, rerun: str, *, is_verified: bool) -> JobHandle:
    if rerun not in RERUN_CHOICES:
        hint = nearest_hint(str(rerun), RERUN_CHOICES)
        raise InputError(f"there is no rerun={rerun!r}", hint, field="rerun")
    where = None if only is None else compile_where(str(only), PLAN_FIELDS)
    chosen = None if where is None else choose_where(where, job)
    return submit_job(job, rerun, only=chosen, is_verified=is_verified)


def _watch(submission: JobHandle, *, progress: bool) -> OpenJob:
    began_s = time.monotonic()
    with stop_signals() as stop:
        code = watch_to_end(
            submission, stop, began_s, quiet=False, as_json=False, is_silent=not progress
        )
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
    def reason(self) -> str:
        """How it ended, as the command line says it: `exit 2`, `timed out after 1 s`.

        Empty where it has not ended, or has succeeded.
        """
        return "" if self.record is None or self.ok else describe_end(self.record)

    @property
    def path(self) -> str:
        """The folder of its outputs, or their address where they are in no folder."""
        return self._outputs.address

    @property
    def _outputs(self) -> Outputs:
        facts = self._facts
        return find_outputs(
            self._job.history, facts["task"], facts["token"], self.record, is_newest=_is_over(facts)
        )

    @property
    def results(self) -> str:
        """The folder of what it wrote to its results directory; it may not be there."""
        return self.path + "/results"

    @property
    def stdout(self) -> str:
        """What it printed; empty where there is nothing."""
        return _read_text(self._outputs, "stdout")

    @property
    def stderr(self) -> str:
        """What it printed to stderr; empty where there is nothing."""
        return _read_text(self._outputs, "stderr")


def _is_over(facts: Mapping[str, Any]) -> bool:
    """Whether its newest record tells of what is in its folder: no attempt has begun since."""
    return facts["state"] not in ("waiting", "running")


def _read_text(outputs: Outputs, name: str) -> str:
    return (outputs.store.read(outputs.key(name)) or b"").decode(errors="replace")


class OpenJob:
    """A job that was handed in: how it stands, its tasks, and what can be done with it.

    Iterating gives a TaskResult for each task, in order, as it stands then. A task is also
    found by its name, its position or a slice, as in a mapping and in a list; `in` asks for a
    name.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.history = open_history(address)
        self.name: str = self.history.job.get("name", "")

    def __repr__(self) -> str:
        status = self.status()
        return f"OpenJob({self.name!r}, {status.state!r}, {status.total} tasks)"

    @_hinted()
    def status(self, *, verify: bool = False) -> JobStatus:
        """How it stands now. verify: whether what is done has to have what it left, too."""
        if verify:
            history = open_history(self.address)
            read_gone(history)
            return read_status(history)
        self.history.refresh()
        return read_status(self.history)

    @property
    def ok(self) -> bool:
        """Whether every task has succeeded."""
        return self.status().state == "succeeded"

    def __iter__(self) -> Iterator[TaskResult]:
        self.history.refresh()
        return iter([TaskResult(self, facts) for facts in read_facts(self.history)])

    def __len__(self) -> int:
        return self.status().total

    def __contains__(self, name: object) -> bool:
        return any(task.name == name for task in self)

    @overload
    def __getitem__(self, key: str | int) -> TaskResult: ...
    @overload
    def __getitem__(self, key: slice) -> list[TaskResult]: ...
    def __getitem__(self, key: str | int | slice) -> TaskResult | list[TaskResult]:
        """Raises KeyError for a name, and IndexError for a position, that is not there."""
        tasks = list(self)
        if not isinstance(key, str):
            return tasks[key]
        for task in tasks:
            if task.name == key:
                return task
        raise KeyError(key)

    @property
    def failed(self) -> list[TaskResult]:
        """The tasks that came to an end without success."""
        return [task for task in self if task.state not in ("succeeded", "waiting", "running")]

    @_hinted()
    def to_rows(self) -> list[dict[str, Any]]:
        """A row a task, as `umpteen export` has it: `pandas.DataFrame(job.to_rows())`."""
        from umpteen.query.table import list_rows

        self.history.refresh()
        return list(list_rows(self.history))

    @_hinted()
    def why(self, task: _Which) -> str:
        """What became of a task, in sentences, as `umpteen why` has it."""
        return "\n".join(render_why(explain(self.address, self._name(task))))

    @_hinted()
    def wait(self, *, progress: bool = False) -> OpenJob:
        """Until it has ended; what nobody is at any more is handed in again."""
        return _watch(collect_job(self.address), progress=progress)

    @_hinted()
    def cancel(self, *tasks: _Which) -> None:
        """End it, or some of its tasks by name or pattern, and wait until that is recorded."""
        for _ in watch(cancel(self.address, self._names(tasks)).handle):
            pass

    @_hinted()
    def retry(
        self,
        *tasks: _Which,
        where: str | None = None,
        timeout: str | float | None = None,
        memory: str | int | None = None,
        slots: int | None = None,
        progress: bool = True,
    ) -> OpenJob:
        """Run again what did not succeed, or the tasks named, or those for which `where` holds; and
        what is behind them.

        timeout, memory: of these tasks, from now on. slots: how many at once, where not as
        before.
        """
        chosen = None if where is None else compile_where(str(where))
        timeout_s = parse_duration_field("timeout", _to_plain(timeout))
        bytes_of_memory = _parse_memory(memory)
        count = _parse_count("slots", slots, 1)
        wanted = Rerun(self._names(tasks), chosen, count, timeout_s, bytes_of_memory)
        return _watch(retry(self.address, wanted), progress=progress)

    @_hinted()
    def remove(self) -> None:
        """Remove it with all its outputs, without asking. Raises InputError while it runs."""
        remove(plan_removal(self.address))

    def _names(self, tasks: Iterable[_Which]) -> list[str]:
        return [self._name(task) for task in tasks]

    def _name(self, task: _Which) -> str:
        if isinstance(task, str):
            return task
        return task.name if isinstance(task, TaskResult) else self[task].name


_Which = str | int | TaskResult
