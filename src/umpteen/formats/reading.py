"""The front door of the formats: chooses a reader, joins what files and flags say.

Takes the arguments of `run`, gives a Job. Knows no key of any format.
"""

from __future__ import annotations

import functools
import json
import operator
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import msgspec

from umpteen._version import __version__
from umpteen.errors import InputError
from umpteen.formats.documents import Document, Source, check_encoding
from umpteen.formats.json_documents import JsonDocument, JsonLinesDocument
from umpteen.formats.lines import find_interpreter, read_lines, refuse_makefile
from umpteen.formats.matrix import build_product, join_tables, parse_words
from umpteen.formats.native import read_csv, read_native
from umpteen.formats.placeholders import refuse_placeholders
from umpteen.formats.saturn_batch import read_sc
from umpteen.formats.sources import Inputs, choose_job_name, names_files
from umpteen.formats.tables import read_table
from umpteen.formats.tasks import (
    ParsedFile,
    TaskDefaults,
    TaskEntry,
    build_frame,
    build_tasks,
    locate_error,
)
from umpteen.formats.yaml_documents import YamlDocument
from umpteen.job.dependencies import GraphError, build_graph
from umpteen.job.settings import DEFAULTS, Setting, Settings, merge_settings
from umpteen.job.spec import Job, Task, check_job_name
from umpteen.model.command import shell_command
from umpteen.model.names import find_bad_name

__all__ = [
    "find_program",
    "open_document",
    "read_executor",
    "read_job",
    "read_names",
    "write_command",
]

_YAML = (".yaml", ".yml")
_JSON_LIST = re.compile(rb'\[(?:\s*[\[{\]]|"|\s*\n)')
_JSON_OBJECT = re.compile(rb'\{\s*["}]')
_YAML_LINE = re.compile(rb"""(?:---|%YAML|["']?[A-Za-z_]\w*["']?[ \t]*:(?=\s|$)|-[ \t]+\S)""")
_NOT_BLANK = re.compile(rb"\S")


def read_job(
    arguments: Sequence[str],
    *,
    tables: Sequence[str] = (),
    flags: Mapping[str, Setting] = {},
    name: str | None = None,
    stdin: BinaryIO | None = None,
    may_be_empty: bool = False,
) -> Job:
    """The job that the arguments of `umpteen run` describe.

    arguments: a job file, a run file and a tasks file, `-`, or a command with `key=values`.
    tables: files of rows for the command, one after the other. flags: by the names of
    settings.DEFAULTS, and `timeout_s`, `env`, `cwd`, and `retries`, `cpus`, `memory`, `gpus` and
    `output_limit` as Terms has them, for all tasks. may_be_empty: a batch file may have no runs, as
    a program may have made it that found nothing to do. Raises InputError.
    """
    task_flags = {key: flag.value for key, flag in flags.items() if key not in DEFAULTS}
    _check_arguments(arguments)
    inputs = _open_inputs(stdin, [*arguments, *tables, task_flags])
    draft, run = _tell_apart(_read_drafts(arguments, tables, inputs), may_be_empty)
    chosen = check_job_name(name) if name is not None else _choose_name(draft, run, arguments[0])
    hint = "tables are looked for beside the job file"
    read = functools.partial(inputs.open, folder=draft.source.folder, hint=hint)
    settings = _merge_settings(draft, run, flags)
    canary = settings.canary
    try:
        frame = build_frame(_join_defaults(draft, run), task_flags, read, canary=canary > 0)
    except InputError as error:
        raise _locate_default(error, draft, run) from None
    tasks, origins = build_tasks(draft, frame)
    _check_names(draft, tasks, origins)
    _check_dependencies(draft, tasks, origins, canary)
    return Job(chosen, tasks, settings, inputs.digest(), draft.is_part)


def read_names(file: str, name: str | None = None) -> tuple[str, str]:
    """The name of the job that a job file or run file is for, and the address where it runs.

    name: what the job is called in place of what the file says. Raises InputError.
    """
    draft = _read_source(Inputs(None).open(file))
    chosen = check_job_name(name) if name is not None else _choose_name(draft, None, file)
    given = draft.settings.get("address")
    address = str(given.value) if given else str(DEFAULTS["address"])
    return chosen, address.replace("{name}", chosen)


def read_executor(file: str) -> tuple[str, Mapping[str, Any]] | None:
    """The executor that a job file or run file names, and its options. Raises InputError."""
    given = _read_source(Inputs(None).open(file)).settings
    if "executor" not in given:
        return None
    options = given.get("executor_options")
    return str(given["executor"].value), dict(options.value) if options else {}


def open_document(file: str, key: str, hint: str) -> Document:
    """A YAML or JSON file that has this key at its top.

    Raises InputError where there is no such file, with the hint, or it is another.
    """
    source = Inputs(None).open(file, hint=hint)
    document = _open_document(source, os.path.splitext(file)[1].lower())
    if document is None or key not in document.list_keys():
        raise InputError(f"has no {key!r}", hint, file=source.name, field=key)
    return document


def _open_inputs(stdin: BinaryIO | None, given: list[Any]) -> Inputs:
    """Inputs whose digest begins with what is not in a file."""
    inputs = Inputs(stdin)
    text = json.dumps([__version__, *given], sort_keys=True, default=msgspec.to_builtins)
    inputs.add(text.encode())
    return inputs


def _read_drafts(
    arguments: Sequence[str], tables: Sequence[str], inputs: Inputs
) -> list[ParsedFile]:
    if not names_files(arguments):
        return [_read_command(arguments, tables, inputs)]
    if tables:
        message = f"a table goes with a command, and {arguments[0]!r} is taken for a job file"
        command = f"{write_command(arguments[:1])} {{x}}"
        raise InputError(message, shell_command(["umpteen", "run", command, "--from", tables[0]]))
    if len(arguments) > 2:
        hint = "give one job file, or a run file and a tasks file"
        raise InputError(f"{len(arguments)} files are too many for one job", hint)
    return [_read_source(inputs.open(argument)) for argument in arguments]


def find_program(word: str) -> str:
    """What runs the script of that name; empty where it is none."""
    return find_interpreter(Inputs(None).open(word)) if os.path.isfile(word) else ""


def write_command(words: Sequence[str]) -> str:
    """The command that these words of a command line mean, a script begun by what runs it."""
    program = find_program(words[0])
    return shell_command([program] * bool(program) + [*words])


def _check_arguments(arguments: Sequence[str]) -> None:
    if not arguments or not arguments[0].strip():
        raise InputError("nothing to run", "give a job file, or a command in quotes")
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InputError(f"the argument {argument!r} is not UTF-8 text") from None


def _read_command(arguments: Sequence[str], tables: Sequence[str], inputs: Inputs) -> ParsedFile:
    """A command template, its values from words and tables."""
    hint = "give a .csv, .tsv, .json or .jsonl file"
    read = [(name, read_table(inputs.open(name, hint=hint))) for name in tables]
    values = [join_tables(read)] if read else []
    _refuse_loose_words(arguments)
    if arguments[1:]:
        values.append(parse_words(arguments[1:]))
    matrix = build_product(values) if values else None
    if not values:
        refuse_placeholders(arguments[0])
    return ParsedFile(Source("", b""), entries=[TaskEntry(command=arguments[0], matrix=matrix)])


def _refuse_loose_words(arguments: Sequence[str]) -> None:
    """Raises InputError, with what to type, for a command in words of its own."""
    loose = [place for place, word in enumerate(arguments) if place and "=" not in word]
    if loose and len(arguments[0].split()) == 1:
        end = loose[-1] + 1
        words = ["umpteen", "run", write_command(arguments[:end]), *arguments[end:]]
        raise InputError(
            f"{arguments[loose[0]]!r} is neither a job file nor key=values",
            f"a command with blanks needs quotes: {shell_command(words)}",
        )


def _read_source(source: Source) -> ParsedFile:
    """What a file says, by the reader that its content asks for."""
    extension = os.path.splitext(source.name)[1].lower()
    if not _NOT_BLANK.search(source.data):
        raise InputError(f"{source.name} has no tasks", "the file is empty")
    if extension in (".csv", ".tsv"):
        check_encoding(source)
        return read_csv(source)
    refuse_makefile(source)
    if document := _open_document(source, extension):
        keys = document.list_keys()
        return (
            read_sc(document) if "runs" in keys and "tasks" not in keys else read_native(document)
        )
    return read_lines(source)


def _open_document(source: Source, extension: str) -> Document | None:
    """The file as a document; None where it is plain lines."""
    data = source.data
    start = _NOT_BLANK.search(data)
    at = start.start() if start else 0
    if extension == ".jsonl":
        return JsonLinesDocument(source, "tasks")
    if extension == ".json" or _JSON_OBJECT.match(data, at) or _JSON_LIST.match(data, at):
        try:
            return _open_json(source, at)
        except InputError:
            if extension not in _YAML:
                raise
    if extension in _YAML or _YAML_LINE.match(_first_line(data)):
        check_encoding(source)
        return YamlDocument(source, list_key="tasks", free=("executor",))
    return None


def _open_json(source: Source, at: int) -> Document:
    if source.data[at : at + 1] == b"[":
        return JsonDocument(source, list_key="tasks")
    if _has_object_a_line(source.data[at:] if at else source.data):
        return JsonLinesDocument(source, "tasks")
    document = JsonDocument(source)
    if "command" in document.list_keys() and "tasks" not in document.list_keys():
        return JsonLinesDocument(source, "tasks")
    return document


def _has_object_a_line(data: bytes) -> bool:
    end = data.find(b"\n")
    following = _NOT_BLANK.search(data, end) if end >= 0 else None
    if following is None or following[0] != b"{":
        return False
    try:
        msgspec.json.decode(data[:end], type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return True


def _first_line(data: bytes) -> bytes:
    """The first line that holds something, comments left out."""
    match = re.search(rb"^(?![ \t]*(?:#|\r?$))[^\n]+", data, re.MULTILINE)
    return match[0] if match else b""


def _tell_apart(
    drafts: Sequence[ParsedFile], may_be_empty: bool
) -> tuple[ParsedFile, ParsedFile | None]:
    """The draft with the tasks, and the one with settings alone."""
    with_tasks = [draft for draft in drafts if draft.entries is not None]
    if len(with_tasks) > 1:
        names = " and ".join(draft.source.name for draft in drafts)
        raise InputError(
            f"{names} both have tasks", "give one of them, or a run file and a tasks file"
        )
    if not with_tasks or not (with_tasks[0].entries or (may_be_empty and with_tasks[0].is_part)):
        named = (with_tasks or drafts)[0].source.name
        raise InputError(f"{named} has no tasks", "give it tasks, or a tasks file beside it")
    draft = with_tasks[0]
    return draft, next((other for other in drafts if other is not draft), None)


def _choose_name(draft: ParsedFile, run: ParsedFile | None, argument: str) -> str:
    given = (run.name if run else None) or draft.name
    if given is not None:
        return given
    if not draft.source.name:
        return check_job_name(choose_job_name(argument))
    return check_job_name(os.path.splitext(os.path.basename(draft.source.name))[0])


def _join_defaults(draft: ParsedFile, run: ParsedFile | None) -> TaskDefaults:
    """The run file's defaults over those of the tasks file; variables one by one."""
    if run is None:
        return draft.defaults
    joined: dict[str, Any] = msgspec.structs.asdict(draft.defaults)
    for key, value in msgspec.structs.asdict(run.defaults).items():
        if value is not None:
            joined[key] = {**(joined[key] or {}), **value} if key == "env" else value
    return TaskDefaults(**joined)


def _locate_default(error: InputError, draft: ParsedFile, run: ParsedFile | None) -> InputError:
    given_by_run = run and getattr(run.defaults, str(error.field), None) is not None
    return locate_error(run if run and given_by_run else draft, error, None)


def _merge_settings(
    draft: ParsedFile, run: ParsedFile | None, flags: Mapping[str, Setting]
) -> Settings:
    """Flags over the run file over the tasks file; `fail_fast` stops at the first failure."""
    given = {key: flag for key, flag in flags.items() if key in DEFAULTS}
    layers = [draft.settings, run.settings if run else {}, given]
    settings = merge_settings(*layers)
    if settings.fail_fast and not settings.max_failures:
        implied = Setting(1, settings.sources["fail_fast"])
        settings = merge_settings(*layers, {"max_failures": implied})
    return settings


def _check_names(draft: ParsedFile, tasks: Sequence[Task], origins: Sequence[int] | None) -> None:
    """Raises InputError, with the line, for the first name that cannot be."""
    names = [task.name for task in tasks]
    if not any(names):
        return
    positions: Sequence[int] = range(len(names))
    if not all(names):
        positions = [position for position, name in enumerate(names) if name]
        names = [names[position] for position in positions]
    bad = find_bad_name(names)
    if bad is None:
        return
    position = positions[bad.position]
    hint, parameters = bad.hint, tasks[position].parameters
    if parameters and bad.message.startswith("two tasks"):
        hint = "the name must hold what differs: " + "-".join(f"{{{key}}}" for key in parameters)
    error = InputError(bad.message, hint, field="name")
    raise locate_error(draft, error, origins[position] if origins else position, label=False)


def _check_dependencies(
    draft: ParsedFile, tasks: Sequence[Task], origins: Sequence[int] | None, canary: int
) -> None:
    """Raises InputError, with the line, for an unknown name in an `after`, and for a cycle."""
    if not any(map(operator.attrgetter("terms"), tasks)) or _are_all_after_earlier(tasks):
        return
    try:
        build_graph(tasks, canary)
    except GraphError as error:
        index = origins[error.position] if origins else error.position
        raise locate_error(draft, error, index) from None


def _are_all_after_earlier(tasks: Sequence[Task]) -> bool:
    """Whether each `after` names tasks further up alone: nothing can be wrong then."""
    above = set()
    for task in tasks:
        if task.terms is not None:
            for name, _ in task.terms.after:
                if name not in above:
                    return False
        above.add(task.name)
    return True
