"""What a program gives, as a job: the same reader takes it that reads job files."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import math
import os
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from umpteen.api.spec import Job, Task
from umpteen.errors import InputError, nearest_hint
from umpteen.formats import read_content, read_job
from umpteen.formats.flags import JobFlags, TaskFlags
from umpteen.formats.native import TASK_KEYS, parse_executor
from umpteen.formats.placeholders import refuse_placeholders
from umpteen.formats.sources import choose_job_name, names_files
from umpteen.formats.task_options import parse_retries
from umpteen.formats.tasks import parse_duration_field
from umpteen.job.spec import Job as PlannedJob
from umpteen.model.command import shell_command
from umpteen.store.address import working_folder
from umpteen.submission.settings import resolve_settings
from umpteen.units import parse_memory, show_value

__all__ = [
    "build_flags",
    "build_job",
    "parse_count",
    "parse_size",
    "parse_timeout",
]

_MOST = 2**31
_NOT_OF_TASKS = ("command", "name")
_WITH_NUMBERS = ("executor", "results")  # whose options are numbers where numbers are meant


def build_flags(
    slots: Any,
    results: Any,
    executor: Any,
    timeout: Any,
    memory: Any,
    retries: Any,
    cpus: Any,
    gpus: Any,
) -> JobFlags:
    """The flags of `read_job`; the executor as a job file has it. Raises InputError."""
    count = parse_count("slots", slots, 1)
    address = _parse_address(results)
    tasks = TaskFlags(
        timeout_s=parse_timeout(timeout),
        memory=parse_size(memory),
        retries=None if retries is None else parse_retries(_to_plain(retries)),
        cpus=parse_count("cpus", cpus, 1),
        gpus=parse_count("gpus", gpus, 0),
    )
    chosen = None if executor is None else parse_executor(executor)
    return JobFlags(
        slots=count,
        address=address,
        executor=chosen and chosen.name,
        executor_options=chosen and chosen.options,
        tasks=tasks,
        are_arguments=True,
    )


def parse_count(argument: str, given: Any, least: int) -> int | None:
    """A whole number of at least that. Raises InputError."""
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


def parse_timeout(given: Any) -> float | None:
    """Seconds. Raises InputError."""
    return parse_duration_field("timeout", _to_plain(given))


def parse_size(given: Any) -> int | None:
    """Bytes. Raises InputError."""
    return None if given is None else parse_memory(_to_plain(given))


def build_job(
    job: Any, values: Mapping[str, Any] | None, name: str | None, flags: JobFlags
) -> PlannedJob:
    """The job with complete settings, whatever was given. Raises InputError and SettingsError."""
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
    flags: JobFlags,
    job: Job | None = None,
) -> PlannedJob:
    """A job by the same reader that reads files."""
    content = {}
    for key, value in vars(job).items() if job is not None else ():
        if key != "tasks":
            content[key] = _to_plain(value, has_numbers=key in _WITH_NUMBERS)
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
    return read_content(content, name=name, flags=flags)


def _to_plain(value: Any, *, has_numbers: bool = False) -> Any:
    """What a job file would say: arrays and ranges as lists, paths as text. Raises InputError.

    has_numbers: whether every number stays one, as none becomes a part of a command or name.
    """
    if hasattr(value, "tolist"):  # of numpy, pandas, torch: its values, or the one that it is
        return _to_plain(value.tolist(), has_numbers=has_numbers)
    if isinstance(value, enum.Enum):
        return _to_plain(value.value, has_numbers=has_numbers)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _write_float(value, has_numbers=has_numbers)
    if isinstance(value, (str, os.PathLike)):
        return "".join([os.fsdecode(value)])  # plain text, also of a class of its own
    if isinstance(value, Task):
        return {key: _to_plain(item) for key, item in vars(value).items() if item is not None}
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item, has_numbers=has_numbers) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_to_plain(item, has_numbers=has_numbers) for item in value]
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    raise InputError(f"a job cannot hold {value!r}", "give a text or a number")


def _write_float(value: float, *, has_numbers: bool) -> float | str:
    """As text where JSON writes it otherwise than Python: `0.00001`, not `1e-05`."""
    if not math.isfinite(value):
        return str(value)
    text = msgspec.json.encode(float(value)).decode()
    return float(value) if has_numbers or text == str(float(value)) else text
