"""What several verbs have in common: the job's name, and flags with values to be read."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from umpteen.errors import InputError, SettingsError, UmpteenError
from umpteen.query.expression import FIELDS, PLAN_FIELDS, Where, compile_where
from umpteen.query.registry import find_address, find_addresses, is_job
from umpteen.report.text import shorten_job, shorten_path
from umpteen.store.address import parse_address
from umpteen.units import parse_duration_s

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = [
    "TaskCommand",
    "complete_file",
    "complete_name",
    "complete_task",
    "find_job",
    "is_job_file",
    "job_argument",
    "one_task",
    "read_duration",
    "read_memory",
    "read_size",
    "read_where",
    "refuse_loose",
    "watch_options",
]

_COMPLETED, _COMPLETED_BYTES = 1000, 1 << 20

_Verb = TypeVar("_Verb", bound=Callable[..., Any])
_Value = TypeVar("_Value")


class TaskCommand(click.Command):
    """A verb that takes tasks, which may be called like negative numbers."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Takes `-1` for a task, as no flag begins with a digit."""
        try:
            return super().parse_args(ctx, list(args))
        except click.NoSuchOption:
            tasks = [word for word in args[1:] if word[:1] == "-" and word[1:2].isdigit()]
            if not tasks or "--" in args:
                raise
        others = [word for word in args[1:] if word not in tasks]
        return super().parse_args(ctx, [args[0], *others, "--", *tasks])


def job_argument(verb: _Verb) -> _Verb:
    """The NAME of a job that was handed in, completed from the registry.

    The verb gets what stands for the job here: the word as it was typed, or for a job file the
    name or the address of its job. So hints can repeat it.
    """
    return click.argument("name", shell_complete=complete_name, callback=_read_job)(verb)


def _read_job(_: click.Context, __: click.Parameter, value: str) -> str:
    return find_job(value)


def find_job(word: str, name: str | None = None) -> str:
    """What stands for a job that is given by its name, its address, or a job file or run file.

    A file means the job at the address where it would run from here, and no other.
    name: of the job, where it is not the one that the file says. Raises InputError.
    """
    if name is None and not is_job_file(word):
        return word
    from umpteen.formats import read_names

    found, address = read_names(word, name)
    if not is_job(address):
        raise _no_such_job(word, found, address)
    return shorten_job(found, parse_address(address))


def _no_such_job(file: str, name: str, address: str) -> InputError:
    others = [shorten_path(other) for other in find_addresses(name)]
    hint = f"of that name there is {' and '.join(others)}: give its address" if others else None
    where = shorten_path(parse_address(address))
    message = f"{file} has not been run from here: there is no job at {where}"
    return InputError(message, hint or "umpteen ls shows all jobs")


def is_job_file(word: str) -> bool:
    """Whether a word names a file, and no job is called that."""
    return os.path.isfile(word) and not find_addresses(word)


def complete_file(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What the shell finds itself."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def complete_name(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The jobs that begin like that, by the registry alone."""
    from click.shell_completion import CompletionItem

    from umpteen.query.registry import list_names

    return [CompletionItem(name) for name in list_names() if name.startswith(incomplete)]


@contextlib.contextmanager
def one_task(wanted: str, verb: str) -> Iterator[None]:
    """That a task is not found is told as what it is, where a pattern was given."""
    try:
        yield
    except InputError as error:
        if not any(sign in wanted for sign in "*?[") or not error.message.startswith("no task"):
            raise
        message = f"{error}: {verb} takes one task, no pattern"
        raise InputError(message, "cancel and retry take patterns") from None


def refuse_loose(flag: str, where: Where | None, words: Sequence[str]) -> None:
    """Raises SettingsError where the shell has taken an expression apart."""
    begins = [place for place, word in enumerate(words) if word in ("and", "or", "not")]
    if where is not None and begins:
        whole = " ".join([where.text, *words[begins[0] :]])
        hint = f"write {flag} {shlex.quote(whole)}"
        raise SettingsError(f"{flag} takes one word, so the expression needs quotes", hint)


def complete_task(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The tasks of the job that begin like that, of the first so many."""
    from click.shell_completion import CompletionItem

    try:
        names = _list_tasks(str(context.params["name"]))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]
    except (UmpteenError, KeyError):
        return []


def _list_tasks(job: str) -> list[str]:
    """Their names, from the beginning of what was handed in first: it has to be quick."""
    import msgspec

    from umpteen.history.files import TaskLine
    from umpteen.store.address import is_remote, open_store
    from umpteen.store.layout import tasks_key

    address = find_address(job)
    if is_remote(address):  # who types does not wait for a network
        return []
    content = open_store(address).read(tasks_key(1), size=_COMPLETED_BYTES) or b""
    lines = content[: content.rfind(b"\n") + 1].splitlines()[:_COMPLETED]
    tasks = [msgspec.json.decode(line, type=TaskLine) for line in lines]
    return [task.name or str(index) for index, task in enumerate(tasks)]


def watch_options(verb: _Verb) -> _Verb:
    """--quiet and --json, as every verb has them that shows a job until it ends."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One event a line on stdout."),
        click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors."),
    ):
        verb = option(verb)
    return verb


def read_duration(_: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Seconds; raises SettingsError that names the flag."""
    return None if value is None else _read(parse_duration_s, parameter, value)


def read_memory(_: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Bytes of memory; raises SettingsError that names the flag."""
    if value is None:
        return None
    from umpteen.units import parse_memory

    return _read(parse_memory, parameter, value)


def read_size(_: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Bytes; raises SettingsError that names the flag."""
    if value is None:
        return None
    from umpteen.units import parse_size

    size = parse_size(value)
    if size is None:
        raise SettingsError(f"{parameter.opts[0]}: {value!r} is no size", "write 100K, 512M or 4G")
    return size


def read_where(_: click.Context, parameter: click.Parameter, value: str | None) -> Where | None:
    """The expression; raises SettingsError that names the flag."""
    if value is None:
        return None
    fields = PLAN_FIELDS if parameter.name == "only" else FIELDS
    return _read(lambda text: compile_where(text, fields), parameter, value)


def _read(parse: Callable[[str], _Value], parameter: click.Parameter, value: str) -> _Value:
    try:
        return parse(value)
    except UmpteenError as error:
        raise SettingsError(f"{parameter.opts[0]}: {error}", error.hint) from error
