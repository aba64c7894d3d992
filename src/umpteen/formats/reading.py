"""The front door of the formats: joins what files, words and flags say.

Takes the arguments of `run`, gives a Job. Knows no key of any format. What reads files and tables
is loaded where one is given: a command alone needs none of it.
"""

from __future__ import annotations

import functools
import json
import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import msgspec

from umpteen._version import __version__
from umpteen.errors import InputError
from umpteen.formats.documents import Source
from umpteen.formats.flags import JobFlags
from umpteen.formats.placeholders import refuse_placeholders
from umpteen.formats.sources import Inputs, choose_job_name, names_files
from umpteen.formats.tasks import (
    ParsedFile,
    TaskDefaults,
    TaskEntry,
    build_common_options,
    build_tasks,
    locate_error,
)
from umpteen.formats.values import Table
from umpteen.job.dependencies import GraphError, build_graph
from umpteen.job.settings import DEFAULTS, ExecutorChoice, Setting, Settings, merge_settings
from umpteen.job.spec import Job, Task, check_job_name
from umpteen.model.command import shell_command
from umpteen.model.names import NameProblem, find_bad_name

__all__ = [
    "find_program",
    "read_content",
    "read_executor",
    "read_job",
    "read_names",
    "write_command",
]


def read_job(
    arguments: Sequence[str],
    *,
    tables: Sequence[str] = (),
    flags: JobFlags = JobFlags(),  # noqa: B008 -- a frozen value
    name: str | None = None,
    stdin: BinaryIO | None = None,
    may_be_empty: bool = False,
) -> Job:
    """The job that the arguments of `umpteen run` describe.

    arguments: a job file, a run file and a tasks file, `-`, or a command with `key=values`.
    tables: files of rows for the command, one after the other. may_be_empty: a batch file may
    have no runs, as a program may have made it that found nothing to do. Raises InputError.
    """
    _check_arguments(arguments)
    inputs = _open_inputs(stdin, [*arguments, *tables, flags.tasks])
    parsed, run = _tell_apart(_read_files(arguments, tables, inputs), may_be_empty)
    chosen = check_job_name(name) if name is not None else _choose_name(parsed, run, arguments[0])
    return _build_job(chosen, parsed, run, flags, inputs)


def read_content(content: Mapping[str, Any], *, name: str | None, flags: JobFlags) -> Job:
    """The job that a program describes: the keys of a job file, with plain values.

    name: in place of the one in the content. Raises InputError.
    """
    from umpteen.formats.native import read_native
    from umpteen.formats.objects import ObjectDocument

    inputs = _open_inputs(None, [flags.tasks])
    try:
        inputs.add(msgspec.json.encode(content))
    except UnicodeEncodeError as error:
        raise InputError(f"{error.object[:40]!r} is not UTF-8 text") from None
    parsed = read_native(ObjectDocument(content))
    chosen = parsed.name if name is None else check_job_name(name)
    if chosen is None:
        raise InputError("the job has no name", "write Job('sweep', [...])", field="name")
    return _build_job(chosen, parsed, None, flags, inputs)


def _build_job(
    name: str, parsed: ParsedFile, run: ParsedFile | None, flags: JobFlags, inputs: Inputs
) -> Job:
    """What is said of the job by a file, a run file beside it, and flags, as one."""
    hint = "tables are looked for beside the job file"
    opened = functools.partial(inputs.open, folder=parsed.source.folder, hint=hint)
    settings = _merge_settings(parsed, run, flags)
    canary = settings.canary
    try:
        common = build_common_options(
            _join_defaults(parsed, run),
            flags.tasks,
            lambda file: _read_table(opened(file)),
            canary=canary > 0,
        )
    except InputError as error:
        raise _locate_default(error, parsed, run) from None
    tasks, origins = build_tasks(parsed, common)
    _check_names(parsed, tasks, origins)
    _check_dependencies(parsed, tasks, origins, canary)
    return Job(name, tasks, settings, inputs.digest(), parsed.is_part)


class NamedJob(NamedTuple):
    """Which job a file is for."""

    name: str
    address: str  # where it runs
    options: Mapping[str, Any]  # that its store is opened with


def read_names(file: str, name: str | None = None) -> NamedJob:
    """Which job a job file or run file is for, and where that is.

    name: what the job is called in place of what the file says. Raises InputError.
    """
    parsed = _read_head(file)
    chosen = check_job_name(name) if name is not None else _choose_name(parsed, None, file)
    given = parsed.settings.get("address")
    address = str(given.value) if given else str(DEFAULTS["address"])
    options = parsed.settings.get("results_options")
    return NamedJob(chosen, address.replace("{name}", chosen), options.value if options else {})


def read_executor(file: str) -> ExecutorChoice | None:
    """The executor that a job file or run file names. Raises InputError."""
    given = _read_head(file).settings
    if "executor" not in given:
        return None
    options = given.get("executor_options")
    return ExecutorChoice(str(given["executor"].value), options.value if options else {})


def _read_head(file: str) -> ParsedFile:
    """What a file says of the job as a whole: a verb asks for its name, and for its executor."""
    try:
        found = os.stat(file)
    except OSError:
        return _read_head_once(file, ())  # which says why
    return _read_head_once(file, (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size))


@functools.lru_cache(maxsize=1)
def _read_head_once(file: str, _version: tuple[int, ...]) -> ParsedFile:
    """Without its tasks, which may be a million: it is kept as long as the job is watched."""
    parsed = _read_source(Inputs(None).open(file))
    return ParsedFile(Source(parsed.source.name, b""), parsed.name, parsed.settings)


def _open_inputs(stdin: BinaryIO | None, given: list[Any]) -> Inputs:
    """Inputs whose digest begins with what is not in a file."""
    inputs = Inputs(stdin)
    text = json.dumps([__version__, *given], sort_keys=True, default=msgspec.to_builtins)
    inputs.add(text.encode())
    return inputs


def _read_files(
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
    if not os.path.isfile(word):
        return ""
    from umpteen.formats.lines import find_interpreter

    return find_interpreter(Inputs(None).open(word))


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


def _read_source(source: Source) -> ParsedFile:
    from umpteen.formats.files import read_source

    return read_source(source)


def _read_table(source: Source) -> Table:
    from umpteen.formats.tables import read_table

    return read_table(source)


def _read_command(arguments: Sequence[str], tables: Sequence[str], inputs: Inputs) -> ParsedFile:
    """A command template, its values from words and tables."""
    matrix = None
    if arguments[1:] or tables:
        matrix = _read_values(arguments, tables, inputs)
    else:
        refuse_placeholders(arguments[0])
    return ParsedFile(Source("", b""), entries=[TaskEntry(command=arguments[0], matrix=matrix)])


def _read_values(arguments: Sequence[str], tables: Sequence[str], inputs: Inputs) -> Table:
    """What the placeholders of a command stand for. Raises InputError."""
    from umpteen.formats.matrix import build_product, parse_words
    from umpteen.formats.tables import join_tables

    hint = "give a .csv, .tsv, .json or .jsonl file"
    read = [(name, _read_table(inputs.open(name, hint=hint))) for name in tables]
    values = [join_tables(read)] if read else []
    _refuse_loose_words(arguments)
    if arguments[1:]:
        values.append(parse_words(arguments[1:]))
    return build_product(values)


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


def _tell_apart(
    parsed_files: Sequence[ParsedFile], may_be_empty: bool
) -> tuple[ParsedFile, ParsedFile | None]:
    """The parsed with the tasks, and the one with settings alone."""
    with_tasks = [parsed for parsed in parsed_files if parsed.entries is not None]
    if len(with_tasks) > 1:
        names = " and ".join(parsed.source.name for parsed in parsed_files)
        raise InputError(
            f"{names} both have tasks", "give one of them, or a run file and a tasks file"
        )
    if not with_tasks or not (with_tasks[0].entries or (may_be_empty and with_tasks[0].is_part)):
        named = (with_tasks or parsed_files)[0].source.name
        raise InputError(f"{named} has no tasks", "give it tasks, or a tasks file beside it")
    parsed = with_tasks[0]
    return parsed, next((other for other in parsed_files if other is not parsed), None)


def _choose_name(parsed: ParsedFile, run: ParsedFile | None, argument: str) -> str:
    given = (run.name if run else None) or parsed.name
    if given is not None:
        return given
    if not parsed.source.name:
        return check_job_name(choose_job_name(argument))
    return check_job_name(os.path.splitext(os.path.basename(parsed.source.name))[0])


def _join_defaults(parsed: ParsedFile, run: ParsedFile | None) -> TaskDefaults:
    """The run file's defaults over those of the tasks file; mappings value by value."""
    if run is None:
        return parsed.defaults
    joined: dict[str, Any] = msgspec.structs.asdict(parsed.defaults)
    for key, value in msgspec.structs.asdict(run.defaults).items():
        if value is not None:
            is_merged = key in ("env", "slurm")
            joined[key] = {**(joined[key] or {}), **value} if is_merged else value
    return TaskDefaults(**joined)


def _locate_default(error: InputError, parsed: ParsedFile, run: ParsedFile | None) -> InputError:
    given_by_run = run and getattr(run.defaults, str(error.field), None) is not None
    return locate_error(run if run and given_by_run else parsed, error, None)


def _merge_settings(parsed: ParsedFile, run: ParsedFile | None, flags: JobFlags) -> Settings:
    """Flags over the run file over the tasks file; `fail_fast` stops at the first failure."""
    layers = [parsed.settings, run.settings if run else {}, flags.list_settings()]
    settings = merge_settings(*layers)
    if settings.fail_fast and not settings.max_failures:
        implied = Setting(1, settings.sources["fail_fast"])
        settings = merge_settings(*layers, {"max_failures": implied})
    return settings


def _check_names(parsed: ParsedFile, tasks: Sequence[Task], origins: Sequence[int] | None) -> None:
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
    if parameters and bad.problem is NameProblem.REPEATED:
        hint = "the name must hold what differs: " + "-".join(f"{{{key}}}" for key in parameters)
    error = InputError(bad.message, hint, field="name")
    raise locate_error(parsed, error, origins[position] if origins else position, label=False)


def _check_dependencies(
    parsed: ParsedFile, tasks: Sequence[Task], origins: Sequence[int] | None, canary: int
) -> None:
    """Raises InputError, with the line, for an unknown name in an `after`, and for a cycle."""
    if not any(map(operator.attrgetter("options"), tasks)) or _are_all_after_earlier(tasks):
        return
    try:
        build_graph(tasks, canary)
    except GraphError as error:
        index = origins[error.position] if origins else error.position
        raise locate_error(parsed, error, index) from None


def _are_all_after_earlier(tasks: Sequence[Task]) -> bool:
    """Whether each `after` names tasks further up alone: nothing can be wrong then."""
    above = set()
    for task in tasks:
        if task.options is not None:
            for name, _ in task.options.after:
                if name not in above:
                    return False
        above.add(task.name)
    return True
