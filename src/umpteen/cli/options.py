"""What several verbs have in common: the job's name, and flags with values to be read."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from umpteen.errors import (
    EXIT_SOME_FAILED,
    EXIT_SUCCEEDED,
    ErrorCode,
    InputError,
    SettingsError,
    UmpteenError,
)
from umpteen.query.job_names import find_job, is_job_file
from umpteen.store.address import make_absolute

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from umpteen.job.settings import ExecutorChoice
    from umpteen.query.expression import Where
    from umpteen.verbs.handle import JobHandle

__all__ = [
    "TaskCommand",
    "WholeNumber",
    "check_pull",
    "choose_executor",
    "complete_file",
    "complete_name",
    "complete_task",
    "executor_option",
    "job_argument",
    "one_task",
    "pull_at_end",
    "pull_options",
    "read_duration",
    "read_memory",
    "read_size",
    "read_where",
    "refuse_loose",
    "watch_options",
]

_WORD = "umpteen.word"  # in click's `meta`: what was typed for the job

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


class WholeNumber(click.IntRange):
    """A number of at least so many; says what was given where it is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number. Raises click.BadParameter."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            given = int(value) if _is_number(value) else repr(value)
            message = f"{given} is no whole number of at least {self.min}"
            raise click.BadParameter(message, ctx, param) from error


def _is_number(value: Any) -> bool:
    try:
        int(value)
    except ValueError:
        return False
    return True


def job_argument(verb: _Verb) -> _Verb:
    """The NAME of a job that was submitted, completed from the registry.

    The verb gets what stands for the job here: the word as it was typed, or for a job file the
    name or the address of its job. So hints can repeat it.
    """
    return click.argument("name", shell_complete=complete_name, callback=_read_job)(verb)


def _read_job(context: click.Context, _: click.Parameter, value: str) -> str:
    context.meta[_WORD] = value
    return find_job(value)


def executor_option(verb: _Verb) -> _Verb:
    """--executor of a verb that goes on with a job.

    Where the store's own is an import path, the one that the job file names counts too.
    """
    return click.option(
        "--executor",
        callback=_read_executor,
        help="Its executor: an import path has to be given again, here or by the job's FILE.",
    )(verb)


def _read_executor(
    context: click.Context, _: click.Parameter, value: str | None
) -> ExecutorChoice | None:
    chosen = choose_executor(context.meta.get(_WORD, ""), value)
    return chosen and chosen._replace(is_fallback=value is None)


def choose_executor(word: str, given: str | None) -> ExecutorChoice | None:
    """The executor that the caller names himself, and its options.

    word: what he typed for the job. given: by a flag, which counts more than a job file.
    """
    if given is not None:
        from umpteen.job.settings import ExecutorChoice

        return ExecutorChoice(given)
    if not is_job_file(word):
        return None
    from umpteen.formats import read_executor

    return read_executor(word)


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
        if error.code is not ErrorCode.NO_TASK or not any(sign in wanted for sign in "*?["):
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

    from umpteen.query.completion import list_first_tasks

    try:
        names = list_first_tasks(str(context.params["name"]))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]
    except (UmpteenError, KeyError):
        return []


def watch_options(verb: _Verb) -> _Verb:
    """--quiet and --json, as every verb has them that shows a job until it ends."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One event a line on stdout."),
        click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors."),
    ):
        verb = option(verb)
    return verb


def pull_options(verb: _Verb) -> _Verb:
    """--pull and --include, of verbs that watch a job to its end."""
    include = "Of what --pull copies, only such files; may be repeated."
    for option in (
        click.option("--include", multiple=True, metavar="GLOB", help=include),
        click.option(
            "--pull",
            metavar="DEST",
            help="Copy what tasks left to DEST at the end; with hosts none, logs or all: what they "
            "bring to the results.",
        ),
    ):
        verb = option(verb)
    return verb


def check_pull(dest: str | None, include: Sequence[str]) -> None:
    """Raises SettingsError where that cannot be done, before anything runs."""
    if include and dest is None:
        raise SettingsError("--include is for copies", "say where to: --pull DEST")
    if dest is None:
        return
    folder = make_absolute(dest)  # refuses what nobody can find again
    if not dest or (os.path.exists(folder) and not os.path.isdir(folder)):
        raise SettingsError(f"--pull {dest!r} is no folder")


def pull_at_end(
    handle: JobHandle,
    code: int,
    dest: str | None,
    include: Sequence[str],
    *,
    quiet: bool,
    as_json: bool,
) -> int:
    """Copy what tasks left, where that is wanted and the job has ended; the exit code.

    code: of the job. Nothing that fits is as a file that is lacking.
    """
    if dest is None or code not in (EXIT_SUCCEEDED, EXIT_SOME_FAILED):
        return code
    from umpteen.cli.copies import show_pull  # few ask for it
    from umpteen.query.job_view import JobView
    from umpteen.report.printing import say

    with JobView(handle.history) as view:
        try:
            pulls = view.pull(dest, include, ())
            copied = show_pull(pulls, dest, quiet=quiet, as_json=as_json, event="pulled")
        except InputError as error:
            say(f"error: {error}", err=True)
            copied = EXIT_SOME_FAILED
    return max(code, copied)


def read_duration(_: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Seconds; raises SettingsError that names the flag."""
    if value is None:
        return None
    from umpteen.units import parse_duration_s

    return _read(parse_duration_s, parameter, value)


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
    from umpteen.query.expression import FIELDS, PLAN_FIELDS, compile_where

    fields = PLAN_FIELDS if parameter.name == "only" else FIELDS
    return _read(lambda text: compile_where(text, fields), parameter, value)


def _read(parse: Callable[[str], _Value], parameter: click.Parameter, value: str) -> _Value:
    try:
        return parse(value)
    except UmpteenError as error:
        raise SettingsError(f"{parameter.opts[0]}: {error}", error.hint) from error
