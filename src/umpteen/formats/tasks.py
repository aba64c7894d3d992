"""What files say of their tasks, and the tasks made of it.

Every reader gives a `ParsedFile`; `build_tasks` fills in defaults, flags and matrices. Knows the
native keys of a task, and no file syntax.
"""

from __future__ import annotations

import contextlib
import gc
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from umpteen.errors import InputError, UmpteenError
from umpteen.formats.documents import Path, Source, SourcePosition, error_at
from umpteen.formats.flags import TaskFlags
from umpteen.formats.placeholders import Template, TextTemplate, refuse_placeholder_in_name
from umpteen.formats.task_options import (
    GivenOptions,
    TaskOptionsEntry,
    TaskOptionsTemplate,
    build_after_options,
    build_options,
    merge_options,
    parse_options,
)
from umpteen.formats.values import ReadTable, Table, value_text
from umpteen.job.settings import Setting
from umpteen.job.spec import Task
from umpteen.model.names import automatic_name
from umpteen.units import DURATION_HINT, read_duration_s, say_no_duration

__all__ = [
    "AfterEntry",
    "CommonOptions",
    "Duration",
    "Entry",
    "ParsedFile",
    "PlainEntry",
    "TaskDefaults",
    "TaskEntry",
    "build_common_options",
    "build_tasks",
    "locate_error",
    "parse_duration_field",
]

_CHUNK = 10_000
_NO_FLAGS = TaskFlags()

Duration = str | int | float | None


class TaskDefaults(TaskOptionsEntry, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The keys that a task has and a job may have for all its tasks."""

    shell: bool | None = None
    matrix: Any = None
    timeout: Duration = None
    env: dict[str, Any] | None = None
    cwd: str | None = None
    tags: str | list[Any] | None = None


class TaskEntry(TaskDefaults, forbid_unknown_fields=True, kw_only=True, gc=False):
    """One item of `tasks:`."""

    command: str | list[Any] = ""
    name: str | int | float | None = ""


class PlainEntry(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An item of `tasks:` with nothing but the usual: half the time and memory of the above."""

    command: str = ""
    name: str = ""


class AfterEntry(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The same with what it is after: what nearly all tasks of a chain are."""

    command: str = ""
    name: str = ""
    after: str | list[str] | None = None


Entry = TaskEntry | PlainEntry | AfterEntry | Task | str


class ParsedFile(msgspec.Struct):
    """What one file says: every format gives this."""

    source: Source
    name: str | None = None
    settings: dict[str, Setting] = {}
    defaults: TaskDefaults = msgspec.field(default_factory=TaskDefaults)
    # None where the file says nothing of tasks.
    entries: list[Entry] | None = None
    # Of the list of entries in the file.
    path: Path = ()
    # Where the value at a path stands in the file.
    find: Callable[[Path], SourcePosition | None] = lambda _path: None
    # Whether other files may have tasks of the same store.
    is_part: bool = False


class CommonOptions(msgspec.Struct, frozen=True):
    """What holds for all tasks: defaults, which a task overrides, and flags, which override it."""

    shell: bool | None
    matrix: Table | None
    timeout_s: float | None
    env: dict[str, str]
    cwd: str | None
    tags: list[str] | None
    # What the defaults say of what TaskOptions has.
    options: GivenOptions
    flags: TaskFlags
    # Gives the table that a matrix names.
    read_table: ReadTable
    # Whether a task holds the number of the entry that it was made from.
    is_template_kept: bool

    def is_empty(self) -> bool:
        """Whether a task is just what its entry says."""
        return not (
            self.matrix
            or self.timeout_s is not None
            or self.env
            or self.cwd
            or self.tags
            or self.shell is False
            or self.options
            or self.flags != _NO_FLAGS
        )


@contextlib.contextmanager
def _pause_collections() -> Iterator[None]:
    """For what makes no cycles: each collection would look at all tasks made so far."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_pause_collections()
def build_tasks(parsed: ParsedFile, common: CommonOptions) -> tuple[list[Task], list[int] | None]:
    """The tasks, and for each its entry's position (None: its own); empties the entries.

    Raises InputError with file and line.
    """
    entries: list[Any] = parsed.entries or []
    tasks: list[Task] = []
    origins: list[int] | None = None
    for start in range(0, len(entries), _CHUNK):
        chunk = entries[start : start + _CHUNK]
        # A million entries beside a million tasks would be a third more memory.
        entries[start : start + _CHUNK] = [None] * len(chunk)
        built = _build_plain(chunk) if common.is_empty() else None
        if built is not None:
            if origins is not None:
                origins.extend(range(start, start + len(built)))
            tasks.extend(built)
            continue
        for index, entry in enumerate(chunk, start):
            try:
                made = _build_entry(entry, common, index)
            except UmpteenError as error:
                raise locate_error(parsed, error, index) from None
            if origins is None and len(made) != 1:
                origins = list(range(len(tasks)))
            if origins is not None:
                origins.extend([index] * len(made))
            tasks.extend(made)
    return tasks, origins


def _build_plain(chunk: list[Any]) -> list[Task] | None:
    """The tasks of entries with a command, a name, and an `after`; None where one has more."""
    kind = type(chunk[0])
    if kind is str:
        built = [Task(entry) for entry in chunk if type(entry) is str]
    elif kind is PlainEntry:
        built = [Task(entry.command, entry.name) for entry in chunk if type(entry) is PlainEntry]
    elif kind is AfterEntry:
        built = _build_after(chunk)
    else:
        built = [entry for entry in chunk if type(entry) is Task]
    if len(built) != len(chunk):
        return None
    commands = [task.command for task in built if type(task.command) is str]
    # What is wrong is told by the slower way, which knows the place.
    are_bad = "" in commands or any(map(str.isspace, commands)) or "\0" in "".join(commands)
    are_bad = are_bad or "{" in "".join([task.name for task in built])
    return None if are_bad else built


def _build_after(chunk: list[Any]) -> list[Task]:
    """Empty where an entry is of another kind, or an `after` is wrong."""
    if set(map(type, chunk)) != {AfterEntry}:
        return []
    given = [e.after if type(e.after) is not list else tuple(e.after) for e in chunk]
    try:
        options: dict[Any, Any] = build_after_options([n for n in given if n is not None])
    except InputError:
        return []
    options[None] = options[()] = None
    return [
        Task(e.command, e.name, options=options[names])
        for e, names in zip(chunk, given, strict=True)
    ]


def build_common_options(
    defaults: TaskDefaults, flags: TaskFlags, read: ReadTable, *, canary: bool = False
) -> CommonOptions:
    """What holds for all tasks; raises InputError with the field."""
    return CommonOptions(
        shell=defaults.shell,
        matrix=_parse_matrix(defaults.matrix, read),
        timeout_s=parse_duration_field("timeout", defaults.timeout),
        env=_parse_env(defaults.env),
        cwd=_check_text("cwd", defaults.cwd),
        tags=_parse_tags(defaults.tags),
        options=parse_options(defaults),
        flags=flags,
        read_table=read,
        is_template_kept=canary,
    )


def _build_entry(entry: Entry, common: CommonOptions, index: int) -> list[Task]:
    if isinstance(entry, Task):
        return [_build_given(entry, common)]
    if isinstance(entry, str):
        entry = TaskEntry(command=entry)
    elif isinstance(entry, PlainEntry):
        entry = TaskEntry(command=entry.command, name=entry.name)
    elif isinstance(entry, AfterEntry):
        entry = TaskEntry(command=entry.command, name=entry.name, after=entry.after)
    table = (
        common.matrix if entry.matrix is None else _parse_matrix(entry.matrix, common.read_table)
    )
    shell = common.shell if entry.shell is None else entry.shell
    timeout_s = parse_duration_field("timeout", entry.timeout)
    tags = _parse_tags(entry.tags)
    if table is None and entry.name is not None:
        refuse_placeholder_in_name(entry.name)
    options: GivenOptions = {
        **merge_options(common.options, parse_options(entry)),
        **common.flags.list_options(),
    }
    if common.is_template_kept and table is not None:
        options["template"] = index + 1
    pattern = Task(
        command=_parse_command(entry.command, shell=shell),
        name=_parse_name(entry.name),
        env=_merge_env(common, _parse_env(entry.env)),
        cwd=common.flags.cwd or _check_text("cwd", entry.cwd) or common.cwd,
        timeout_s=_choose_timeout(common, timeout_s),
        tags=common.tags if tags is None else tags,
        options=build_options(options),
    )
    return [pattern] if table is None else _fill_pattern(pattern, table)


def _build_given(task: Task, common: CommonOptions) -> Task:
    """A task that a reader has built itself, with what holds for all filled in."""
    _parse_command(task.command, shell=None)
    if common.is_empty():
        return task
    values = task.parameters or {}
    options = build_options({**common.options, **common.flags.list_options()})
    return msgspec.structs.replace(
        task,
        env=_merge_env(common, task.env or {}),
        cwd=common.flags.cwd or task.cwd or common.cwd,
        timeout_s=_choose_timeout(common, task.timeout_s),
        tags=common.tags if task.tags is None else task.tags,
        options=TaskOptionsTemplate(options, tuple(values)).fill(values),
    )


def _fill_pattern(pattern: Task, table: Table) -> list[Task]:
    """A task for each row; its name, environment, directory and options are templates, too."""
    command = Template(pattern.command, table.names)
    name = TextTemplate(pattern.name, table.names, for_name=True) if pattern.name else None
    cwd = TextTemplate(pattern.cwd, table.names) if pattern.cwd else None
    env = {key: TextTemplate(value, table.names) for key, value in (pattern.env or {}).items()}
    options = TaskOptionsTemplate(pattern.options, table.names)
    tasks = []
    for row in table.rows:
        values = dict(zip(table.names, row, strict=True))
        tasks.append(
            Task(
                command=command.fill(values),
                name=name.fill(values) if name else automatic_name(values),
                env={key: text.fill(values) for key, text in env.items()} or None,
                cwd=cwd.fill(values) if cwd else None,
                timeout_s=pattern.timeout_s,
                parameters=values,
                tags=pattern.tags,
                options=options.fill(values),
            )
        )
    return tasks


def _parse_matrix(given: Any, read: ReadTable) -> Table | None:
    if given is None:
        return None
    from umpteen.formats.matrix import parse_matrix  # which a command alone does not need

    try:
        return parse_matrix(given, read)
    except InputError as error:
        if error.file:
            raise
        raise InputError(error.message, error.hint, field="matrix") from None


def _parse_command(command: str | list[Any], *, shell: bool | None) -> str | list[str]:
    if isinstance(command, list):
        words = [value_text(word, "the words of a command", "command") for word in command]
        if not words or not words[0]:
            raise InputError("no command", "give it a command")
        return words
    if not command.strip():
        raise InputError("no command", "give it a command")
    if "\0" in command:
        raise InputError("the command holds a NUL character", field="command")
    if shell is not False:
        return command
    try:
        return shlex.split(command)
    except ValueError:
        raise InputError("a quote in the command is not closed", field="command") from None


def _parse_name(name: str | float | None) -> str:
    return "" if name is None else str(name)


def _parse_env(env: Mapping[str, Any] | None) -> dict[str, str]:
    found = {}
    for name, value in (env or {}).items():
        if not name or "=" in name or "\0" in name:
            raise InputError(f"{name!r} cannot be the name of a variable", field="env")
        found[name] = value_text(value, f"the value of variable {name!r}", "env")
    return found


def _merge_env(common: CommonOptions, env: Mapping[str, str]) -> dict[str, str] | None:
    return {**common.env, **env, **common.flags.env} or None


def _choose_timeout(common: CommonOptions, own_s: float | None) -> float | None:
    if common.flags.timeout_s is not None:
        return common.flags.timeout_s
    return common.timeout_s if own_s is None else own_s


def _parse_tags(tags: str | list[Any] | None) -> list[str] | None:
    if tags is None:
        return None
    given = [tags] if isinstance(tags, str) else tags
    return [value_text(tag, "the values of 'tags'", "tags") for tag in given]


def _check_text(field: str, text: str | None) -> str | None:
    if text and "\0" in text:
        raise InputError(f"{field!r} holds a NUL character", field=field)
    return text or None


def parse_duration_field(field: str, value: Duration) -> float | None:
    """Seconds; raises InputError that names the key."""
    if value is None:
        return None
    seconds = read_duration_s(value)
    if seconds is None:
        raise InputError(f"the {field} {say_no_duration(value)}", DURATION_HINT, field=field)
    return seconds


def locate_error(
    parsed: ParsedFile, error: UmpteenError, index: int | None, *, label: bool = True
) -> InputError:
    """The error with the file and line of its entry, and (`label`) the task it speaks of."""
    if isinstance(error, InputError) and error.file:
        return error
    field = getattr(error, "field", None)
    if not (parsed.source.name or parsed.path):  # the words of a command line are no list
        return InputError(error.message, error.hint, field=field)
    path = (*parsed.path, index) if index is not None else ()
    entry = parsed.find(path)
    position = parsed.find((*path, field)) if field else entry
    message = error.message
    if index is not None and label:
        name = entry.value.get("name") if entry and isinstance(entry.value, dict) else None
        message = f"task {str(name)!r}: {message}" if name else f"task {index}: {message}"
    return error_at(parsed.source, position, message, error.hint, field=field)
