"""`umpteen hosts`: what hosts behind ssh have, and the removal of what old jobs left there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from umpteen.cli.machine_options import complete_machine
from umpteen.cli.options import complete_name
from umpteen.errors import (
    EXIT_SOME_FAILED,
    EXIT_SUCCEEDED,
    EXIT_UNREACHABLE,
    SettingsError,
)
from umpteen.report.hosts import cleaned_to_dict, host_to_dict, render_cleaned, render_hosts
from umpteen.report.printing import say
from umpteen.report.signals import Waiting, stop_signals
from umpteen.verbs.hosts import clean_hosts, find_hosts, inspect_hosts

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from umpteen.executors.ssh.hosts import Host

__all__ = ["hosts_command"]

_CLEAN = "clean"
_FIRST_SHOW_S = 1.0


def _complete(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    machines = complete_machine(context, parameter, incomplete)
    return [*machines, *complete_name(context, parameter, incomplete)]


@click.command(
    "hosts",
    short_help="Show hosts behind ssh, and remove what old jobs left there.",
    epilog="""\b
Examples:
  umpteen hosts a user@b:2222
  umpteen hosts sweep.yaml --json
  umpteen hosts clean a --dry-run""",
)
@click.argument(
    "words", nargs=-1, metavar="[clean] [HOST|MACHINE|NAME|FILE]...", shell_complete=_complete
)
@click.option("--all", "is_all", is_flag=True, help="Of clean: all that no runner there uses.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Of clean: only list what would go.")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array, one object a host.")
def hosts_command(words: tuple[str, ...], *, is_all: bool, is_dry: bool, as_json: bool) -> int:
    """Show what each HOST has and runs, what jobs left there, and what is wrong with it.

    A MACHINE is one of umpteen config; a job NAME, or its FILE, means the hosts that it names.
    Without any: all machines of umpteen config that have a host.

    clean removes copies of jobs, runners of other versions and synced folders that were not used
    for 30 days; of copies also those from which all has been brought home. Nothing goes that a
    runner there uses. --all removes the rest, too: outputs that were not brought home are lost.

    Exit code: 0, 3 where a host was not reached, 1 where something could not be removed.
    """
    is_clean = words[:1] == (_CLEAN,)
    if (is_all or is_dry) and not is_clean:
        raise SettingsError("--all and --dry-run are for clean", "umpteen hosts clean HOST")
    hosts = find_hosts(words[1:] if is_clean else words)
    with stop_signals(is_last=True) as stop:
        tell = Waiting(stop, is_shown=not as_json, first_s=_FIRST_SHOW_S).tell
        if is_clean:
            return _clean(hosts, tell, is_all=is_all, is_dry=is_dry, as_json=as_json)
        return _show(hosts, tell, as_json=as_json)


def _show(hosts: Sequence[Host], tell: Callable[[str], None], *, as_json: bool) -> int:
    answers = inspect_hosts(hosts, tell)
    if as_json:
        click.echo(json.dumps(list(map(host_to_dict, answers))))
    else:
        for line in render_hosts(answers):
            say(line)
    return EXIT_SUCCEEDED if all(each.found for each in answers) else EXIT_UNREACHABLE


def _clean(
    hosts: Sequence[Host], tell: Callable[[str], None], *, is_all: bool, is_dry: bool, as_json: bool
) -> int:
    answers = clean_hosts(hosts, tell, is_all=is_all, is_dry=is_dry)
    if as_json:
        click.echo(json.dumps([cleaned_to_dict(each, is_dry=is_dry) for each in answers]))
    else:
        for line in render_cleaned(answers, is_dry=is_dry):
            say(line)
    if any(each.found is None for each in answers):
        return EXIT_UNREACHABLE
    is_left = any(item.failure for each in answers for item in each.found or ())
    return EXIT_SOME_FAILED if is_left else EXIT_SUCCEEDED
