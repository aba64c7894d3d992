"""umpteen's own job file: YAML, JSON, JSON-lines or CSV in, a ParsedFile out.

The schema is here and in `tasks`, once for all syntaxes. Knows no other tool's words,
but those of the saturn-run documents, whose files are native ones.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec

from umpteen.errors import InputError, nearest_hint
from umpteen.formats.documents import Document, Path, Source, SourcePosition, error_at
from umpteen.formats.placeholders import Template, TextTemplate
from umpteen.formats.syncs import parse_syncs
from umpteen.formats.tables import iterate_csv
from umpteen.formats.tasks import (
    AfterEntry,
    Duration,
    Entry,
    ParsedFile,
    PlainEntry,
    TaskDefaults,
    TaskEntry,
    locate_error,
    parse_duration_field,
)
from umpteen.job.settings import ExecutorChoice, Setting
from umpteen.job.spec import Task, check_job_name
from umpteen.model.command import shell_command
from umpteen.model.names import automatic_name
from umpteen.units import show_value

__all__ = [
    "JOB_KEYS",
    "PLANNED_KEYS",
    "TASK_KEYS",
    "VALUE_WORDS",
    "explain_invalid",
    "parse_executor",
    "read_csv",
    "read_native",
]

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Whole = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class _JobEntry(TaskDefaults, forbid_unknown_fields=True, kw_only=True):
    """The keys at the top of a job file, but `tasks`."""

    name: str | int | float | None = None
    slots: _Count | None = None
    nprocs: _Count | None = None
    results: Any = None
    executor: Any = None
    batch_size: _Count | None = None
    deadline: Duration = None
    grace: Duration = None
    canary: _Whole | None = None
    max_failures: _Whole | None = None
    fail_fast: bool | None = None
    file_syncs: Any = None


TASK_KEYS = tuple(field.name for field in msgspec.structs.fields(TaskEntry))
JOB_KEYS = ("tasks", *(field.name for field in msgspec.structs.fields(_JobEntry)))

# Refused with a message that says that a later version will have them.
PLANNED_KEYS = frozenset(["results_lines"])

# What the value of a key must be, in the words of messages and of the reference pages.
VALUE_WORDS = {
    "after": "a name, a list of names, or a mapping of names to outcomes",
    "batch_size": "a whole number of at least 1",
    "canary": "a whole number of at least 0",
    "cmd": "a text",
    "command": "a text or a list of words",
    "cpus": "a whole number of at least 1",
    "cwd": "a text",
    "deadline": "a duration such as 90, 15m or 2h",
    "env": "a mapping of names to values",
    "expect": "a text or a list of texts",
    "fail_fast": "true or false",
    "file_syncs": "a list of folders, each with src and perhaps dest",
    "gpus": "a whole number of at least 0",
    "grace": "a duration such as 10s",
    "local_results_dir": "a text",
    "max_failures": "a whole number of at least 0",
    "memory": "a size such as 512M or 4G",
    "name": "a text",
    "needs": "a name or a list of names",
    "nprocs": "a whole number of at least 1",
    "output_limit": "a size such as 512M or 4G",
    "priority": "a whole number",
    "remote_output_path": "a text",
    "retries": "a number, a rule or a list of rules",
    "runs": "a list of runs",
    "shell": "true or false",
    "slots": "a whole number of at least 1",
    "slurm": "a mapping of options to values",
    "tags": "a text or a list of texts",
    "tasks": "a list of tasks",
    "timeout": "a duration such as 90, 15m or 2h",
}
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*?)`(?: - at `(\$[^`]*)`)?", re.DOTALL)
_WRONG_TYPE = re.compile(r".* - at `(.*)`", re.DOTALL)
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+)\]")
_NUMBER = re.compile(r"[-+]?[\d.]+")
_RESULTS = {"LocalResults": "path", "S3Results": "s3_url"}
_LIVE = "S3Results"  # puts what tasks print every 5 s


def read_native(document: Document) -> ParsedFile:
    """What a job file says; raises InputError with file and line."""
    head = _read_head(document)
    parsed = ParsedFile(
        document.source,
        defaults=TaskDefaults(**{key: getattr(head, key) for key in _DEFAULT_KEYS}),
        path=("tasks",),
        find=document.find,
    )
    if "tasks" in document.list_keys():
        parsed.entries = _read_entries(document)
    try:
        parsed.name = check_job_name(str(head.name)) if head.name is not None else None
        parsed.settings = _read_settings(document, head)
    except InputError as error:
        raise locate_error(parsed, error, None) from None
    return parsed


_DEFAULT_KEYS = tuple(field.name for field in msgspec.structs.fields(TaskDefaults))


def _read_head(document: Document) -> _JobEntry:
    values = {key: document.value(key) for key in document.list_keys() if key != "tasks"}
    try:
        head: _JobEntry = document.convert_values(values, _JobEntry)
    except msgspec.ValidationError as error:
        raise explain_invalid(document, error, (), JOB_KEYS) from None
    return head


def _read_entries(document: Document) -> list[Entry]:
    entries: list[Entry] = []
    for kind in (list[PlainEntry | str], list[AfterEntry | str], list[TaskEntry | str]):
        try:
            entries = document.convert("tasks", kind)
            break
        except msgspec.ValidationError as error:
            if kind == list[TaskEntry | str]:
                raise explain_invalid(document, error, ("tasks",), TASK_KEYS) from None
    if document.is_text:
        _refuse_numbers(document, entries)
    return entries


def _refuse_numbers(document: Document, entries: list[Entry]) -> None:
    """Where all scalars are text, a command that is a number is told by its looks."""
    for index, entry in enumerate(entries):
        command = entry if isinstance(entry, str) else entry.command
        if isinstance(command, str) and _NUMBER.fullmatch(command):
            path = f"$[{index}]" + ("" if isinstance(entry, str) else ".command")
            error = msgspec.ValidationError(f"Expected text - at `{path}`")
            raise explain_invalid(document, error, ("tasks",), TASK_KEYS)


def explain_invalid(
    document: Document, error: msgspec.ValidationError, path: Path, keys: tuple[str, ...]
) -> InputError:
    """msgspec's error in our words, with the line; `path` leads to what was decoded."""
    text = str(error)
    if match := _UNKNOWN_KEY.fullmatch(text):
        steps = [*path, *_parse_steps(match[2] or "")]
        return _unknown_key(document, match[1], steps, keys)
    match = _WRONG_TYPE.fullmatch(text)
    steps = [*path, *_parse_steps(match[1] if match else "")]
    position = document.find(steps)
    key = next((step for step in reversed(steps) if isinstance(step, str)), "")
    expected = VALUE_WORDS.get(key, "something else")
    subject = repr(key)
    label = _name_task(document, steps)
    if steps and isinstance(steps[-1], int) and key in ("tasks", "runs"):
        subject, expected, label = f"item {steps[-1]} of {key!r}", "a mapping or a command", ""
    shown = show_value(position.value) if position else "this"
    message = f"{subject} must be {expected}, not {shown}{label}"
    return error_at(document.source, position, message, field=key or None)


def _unknown_key(
    document: Document, key: str, steps: list[str | int], keys: tuple[str, ...]
) -> InputError:
    position = document.find([*steps, key])
    label = _name_task(document, steps)
    message, hint = f"unknown key {key!r}{label}", nearest_hint(key, keys)
    if key in PLANNED_KEYS:
        message, hint = f"{key!r} is not supported yet by this version{label}", ""
    return error_at(document.source, position, message, hint or None, field=key)


def _parse_steps(path: str) -> list[str | int]:
    return [int(index) if index else name for name, index in _STEP.findall(path)]


def _name_task(document: Document, steps: list[str | int]) -> str:
    """` in task 'train'`, or its position; empty for what is no part of a task."""
    for end, step in enumerate(steps, 1):
        if isinstance(step, int):
            position = document.find(steps[:end])
            value = position.value if position else None
            name = value.get("name") if isinstance(value, dict) else None
            return f" in task {str(name)!r}" if name not in (None, "") else f" in task {step}"
    return ""


def _read_settings(document: Document, head: _JobEntry) -> dict[str, Setting]:
    found: dict[str, Any] = {}
    if head.slots and head.nprocs and head.slots != head.nprocs:
        raise InputError(
            "'slots' and 'nprocs' are the same, and differ", "give one", field="nprocs"
        )
    if head.slots or head.nprocs:
        found["slots"] = head.slots or head.nprocs
    if head.results is not None:
        found.update(_parse_results(head.results))
        if found.get("results_options"):  # numbers as numbers
            found["results_options"] = dict(document.free("results")["options"])
    if head.executor is not None:
        chosen = parse_executor(document.free("executor"))
        found.update(executor=chosen.name, executor_options=chosen.options)
    if head.deadline is not None:
        found["deadline_s"] = parse_duration_field("deadline", head.deadline)
    if head.grace is not None:
        found["grace_s"] = parse_duration_field("grace", head.grace)
    if head.file_syncs is not None:
        found["file_syncs"] = [tuple(sync) for sync in parse_syncs(head.file_syncs)]
    alike = ("batch_size", "canary", "max_failures", "fail_fast")
    numbers = {key: getattr(head, key) for key in alike}
    found.update((key, value) for key, value in numbers.items() if value is not None)
    source = document.source.name or "Python"
    return {key: Setting(value, source) for key, value in found.items()}


def _parse_results(given: Any) -> dict[str, object]:
    """`address`, `live`, and `status_file` where saturn-run's classes ask for theirs."""
    if isinstance(given, str) and given:
        return {"address": given}
    if not isinstance(given, Mapping):
        hint = "write results: /shared/runs/{name}"
        raise InputError(
            f"'results' must be an address, not {show_value(given)}", hint, field="results"
        )
    spec = given.get("class_spec")
    if spec is not None and spec not in _RESULTS:
        hint = nearest_hint(str(spec), _RESULTS)
        raise InputError(f"unknown class_spec {str(spec)!r} in 'results'", hint, field="results")
    valid = [_RESULTS[spec]] if spec else ["path", "s3_url"]
    for key in given:
        if key not in ("class_spec", "options", "live", *valid):
            hint = nearest_hint(str(key), [*valid, "options", "live"])
            raise InputError(f"unknown key {str(key)!r} in 'results'", hint, field="results")
    options = given.get("options") or {}
    if not isinstance(options, Mapping):
        raise InputError("'options' of 'results' must be a mapping", field="results")
    addresses = [given[key] for key in valid if key in given]
    if len(addresses) != 1 or not isinstance(addresses[0], str) or not addresses[0]:
        raise InputError(f"'results' needs {' or '.join(valid)}", field="results")
    found: dict[str, object] = {"address": addresses[0]}
    if spec:
        found["status_file"] = "status"
    found["live"] = _parse_live(given["live"]) if "live" in given else spec == _LIVE
    return {**found, "results_options": dict(options)} if options else found


def _parse_live(given: Any) -> bool:
    try:
        return msgspec.convert(given, bool, strict=False)
    except msgspec.ValidationError:
        message = f"'live' of 'results' must be true or false, not {show_value(given)}"
        raise InputError(message, field="results") from None


def parse_executor(given: Any) -> ExecutorChoice:
    """Short name and options; `DaskExecutor` becomes `dask`, an import path stays."""
    hint = "write executor: slurm, or executor: {slurm: {partition: gpu}}"
    if isinstance(given, str) and given:
        return ExecutorChoice(given)
    if isinstance(given, Mapping) and "class_spec" in given:
        spec = given["class_spec"]
        if isinstance(spec, str) and spec:
            options = {key: value for key, value in given.items() if key != "class_spec"}
            name = spec if "." in spec else spec.removesuffix("Executor").lower()
            return ExecutorChoice(name, options)
    elif isinstance(given, Mapping) and len(given) == 1:
        name, options = next(iter(given.items()))
        if isinstance(options, Mapping) or options in (None, ""):
            return ExecutorChoice(str(name), dict(options or {}))
        hint = f"write executor: {{{name}: {{option: value}}}}"
    raise InputError(
        "'executor' must be a name, or one name with its options", hint, field="executor"
    )


def read_csv(source: Source) -> ParsedFile:
    """A task a row: `command`, optional `name`, and every other column a parameter.

    Raises InputError with file and line.
    """
    rows = iterate_csv(source)
    _, header = next(rows)
    if "command" not in header:
        raise InputError(
            "the table has no column 'command'",
            "to fill a template from it: umpteen run 'python sim.py {x}' --from "
            + shell_command([source.name]),
            file=source.name,
            line=1,
        )
    entries: list[Entry] = []
    parsed = ParsedFile(source, entries=entries, find=functools.partial(_find_row, source))
    build = _row_builder(tuple(header))
    for index, (_, cells) in enumerate(rows):
        try:
            entries.append(build(dict(zip(header, cells, strict=True))))
        except InputError as error:
            raise locate_error(parsed, error, index) from None
    return parsed


def _row_builder(header: tuple[str, ...]) -> Callable[[dict[str, str]], Task]:
    names = tuple(name for name in header if name not in ("command", "name"))

    @functools.lru_cache(maxsize=1024)
    def compile_command(text: str) -> Template:
        return Template(text, names)

    def build(row: dict[str, str]) -> Task:
        values = {name: row[name] for name in names}
        name = row.get("name", "").strip()
        if name:
            name = TextTemplate(name, names, for_name=True).fill(values)
        elif values:
            name = automatic_name(values)
        command = compile_command(row["command"]).fill(values)
        return Task(command, name, parameters=values or None)

    return build


def _find_row(source: Source, path: Path) -> SourcePosition | None:
    wanted = path[0] if path else 0
    for index, (line, cells) in enumerate(iterate_csv(source), -1):
        if index == wanted:
            return SourcePosition(line, cells)
    return None
