"""`umpteen config`: the machines of this user, in a file of his."""

from __future__ import annotations

import json

import click

from umpteen.cli.machine_options import complete_machine
from umpteen.config.editing import edit
from umpteen.config.machines import DEFAULT, FIELDS, Config, Machine
from umpteen.config.reading import config_path, read_config
from umpteen.config.setup import FOLDERS, set_up
from umpteen.errors import (
    EXIT_SUCCEEDED,
    EXIT_UNREACHABLE,
    BackendError,
    SettingsError,
)
from umpteen.report.printing import say
from umpteen.report.text import render_table

__all__ = ["config_command"]


@click.command(
    "config",
    short_help="Describe the machines that work goes to.",
    epilog="""\b
Examples:
  umpteen config
  umpteen config show big
  umpteen config setup big""",
)
@click.argument(
    "action", type=click.Choice(["edit", "show", "setup", "path"]), default="edit", required=False
)
@click.argument("machines", nargs=-1, metavar="[MACHINE]...", shell_complete=complete_machine)
@click.option("--json", "as_json", is_flag=True, help="Of show: as a JSON object.")
def config_command(action: str, machines: tuple[str, ...], *, as_json: bool) -> int:
    """Describe machines in a file, config.toml.

    edit opens it in your editor ($VISUAL, $EDITOR, git's, nano, vi), checks it, and does setup.
    show prints what is known of each MACHINE, and which file says it. setup makes the folders of
    each MACHINE, here or by ssh, and the line of ~/.bashrc there that exports MILEX. path prints
    where the file is.

    Without a MACHINE: all of them. Exit code: 0, 2 for a wrong file, 3 if a machine could not be
    reached.
    """
    if machines and action in ("edit", "path"):
        raise SettingsError(f"{action} takes no machine", "umpteen config show MACHINE")
    if action == "path":
        click.echo(config_path())
        return EXIT_SUCCEEDED
    if action == "edit":
        edit(config_path())
    config = read_config()
    chosen = [config.find(name) for name in machines]
    if action == "show":
        _show(chosen or list(config.machines.values()), as_json=as_json)
        return EXIT_SUCCEEDED
    return _set_up(chosen or _list_with_folder(config))


def _list_with_folder(config: Config) -> list[Machine]:
    """Those of which the user has said where their work is."""
    return [m for m in config.machines.values() if m.sources.get("path", DEFAULT) != DEFAULT]


def _set_up(machines: list[Machine]) -> int:
    code = EXIT_SUCCEEDED
    for machine in machines:
        try:
            set_up(machine)
        except BackendError as error:
            code = EXIT_UNREACHABLE
            said = f"{machine.name}: skipped, as {machine.target or 'this machine'} says: {error}"
            say(said, err=True)
        else:
            say(f"{machine.name}: {', '.join(FOLDERS)} are in {machine.folder}")
    if not machines:
        say(f"no machine has a path yet: umpteen config edits {config_path()}", err=True)
    return code


def _show(machines: list[Machine], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({machine.name: _to_dict(machine) for machine in machines}))
        return
    rows = [
        [machine.name, key, value["value"] or "yes" * key.startswith("slurm."), value["source"]]
        for machine in machines
        for key, value in _to_dict(machine).items()
    ]
    for line in render_table(["machine", "key", "value", "from"], rows):
        say(line)


def _to_dict(machine: Machine) -> dict[str, dict[str, str]]:
    """By key what it is, and where it was said."""
    values = {field: getattr(machine, field) for field in FIELDS}
    values.update({f"slurm.{key}": value for key, value in machine.slurm.items()})
    return {
        key: {"value": values[key], "source": source} for key, source in machine.sources.items()
    }
