"""What verbs that use a machine have in common: flags that name it, or say something else of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from umpteen.bundles.folder import BundleFolder
from umpteen.config.reading import read_config
from umpteen.errors import UmpteenError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["complete_bundle", "complete_machine", "machine_options", "pick_machine_fields"]

_Verb = TypeVar("_Verb", bound=Callable[..., Any])

# The flag for each field of a machine, with the spellings of milex-scheduler.
_FLAGS = {
    "hostname": ("host", "Where ssh connects to: an alias of ~/.ssh/config."),
    "hosturl": ("host", "The same: a host."),
    "username": ("user", "Who connects there."),
    "key_path": ("key_path", "With which key."),
    "path": ("path", "The folder there below which all work is."),
    "slurm_account": ("account", "Slurm's account."),
    "env_command": ("env_command", "The line of shell that makes programs available."),
}


def machine_options(verb: _Verb) -> _Verb:
    """--machine, and flags that count more than what is configured for it."""
    for name, (_, text) in reversed(_FLAGS.items()):
        spellings = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        verb = click.option(*spellings, name, help=text)(verb)
    return click.option(
        "--machine",
        metavar="NAME",
        shell_complete=complete_machine,
        help="Of umpteen config; else this one.",
    )(verb)


def pick_machine_fields(flags: Mapping[str, Any]) -> dict[str, str]:
    """By field of a machine what flags say; an alias counts more than a host."""
    given = {name: flags[name] for name in reversed(_FLAGS) if flags[name] is not None}
    return {_FLAGS[name][0]: value for name, value in given.items()}


def complete_machine(
    _: click.Context, __: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The machines that begin like that."""
    return _complete(lambda: read_config().machines, incomplete)


def complete_bundle(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The bundles that begin like that."""
    return _complete(lambda: BundleFolder(read_config()).list_names(), incomplete)


def _complete(list_names: Callable[[], Iterable[str]], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    try:
        return [CompletionItem(name) for name in list_names() if name.startswith(incomplete)]
    except UmpteenError:
        return []
