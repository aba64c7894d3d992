"""What several verbs have in common: the job's name, and flags with values to be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from umpteen.errors import SettingsError, UmpteenError
from umpteen.settings import parse_duration_s
from umpteen.where import FIELDS, PLAN_FIELDS, Where, compile_where

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = [
    "complete_file",
    "complete_name",
    "job_argument",
    "read_duration",
    "read_memory",
    "read_size",
    "read_where",
    "watch_options",
]

_Verb = TypeVar("_Verb", bound=Callable[..., Any])
_Value = TypeVar("_Value")


def job_argument(verb: _Verb) -> _Verb:
    """The NAME of a job that was handed in, completed from the registry."""
    return click.argument("name", shell_complete=complete_name)(verb)


def complete_file(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What the shell finds itself."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def complete_name(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The jobs that begin like that, by the registry alone."""
    from click.shell_completion import CompletionItem

    from umpteen.registry import list_names

    return [CompletionItem(name) for name in list_names() if name.startswith(incomplete)]


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
    from umpteen.formats.terms import parse_memory

    return _read(parse_memory, parameter, value)


def read_size(_: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Bytes; raises SettingsError that names the flag."""
    if value is None:
        return None
    from umpteen.formats.terms import parse_size

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
