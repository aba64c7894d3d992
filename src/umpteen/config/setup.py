"""Makes the folders of a machine, here or by ssh, and the line of its ~/.bashrc that names them."""

from __future__ import annotations

import re
import shlex
import subprocess

from umpteen.config.machines import Machine
from umpteen.errors import BackendError
from umpteen.system.openssh import HostError, Login, parse_destination
from umpteen.system.ssh_command import build_command

__all__ = ["FOLDERS", "build_export", "set_up"]

FOLDERS = ("data", "models", "slurm", "jobs", "results")

_CONNECT_S = 15
_SPECIAL = re.compile(r'(["\\$`])')
_SCRIPT = """\
set -e
path=$1 line=$2
shift 2
mkdir -p -- "$path"
cd -- "$path"
mkdir -p -- "$@"
touch ~/.bashrc
grep -qxF -- "$line" ~/.bashrc && exit
[ -z "$(tail -c 1 ~/.bashrc)" ] || echo >>~/.bashrc
printf '%s\\n' "$line" >>~/.bashrc
"""


def build_export(path: str) -> str:
    """The line of shell that gives programs the folder of a machine, as milex-scheduler has it."""
    escaped = _SPECIAL.sub(r"\\\1", path)
    return f'export MILEX="{escaped}"'


def set_up(machine: Machine) -> None:
    """Make its folders, and put the line into ~/.bashrc there unless it is in it.

    Raises BackendError where it cannot be reached or refuses, SettingsError where it has no path.
    """
    words = [machine.folder, build_export(machine.folder), *FOLDERS]
    command = ["sh", "-c", _SCRIPT, "sh", *words]
    if not machine.is_local:
        # The shell there, which may be any, splits this again.
        command = [*_build_ssh(machine), shlex.join(command)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise BackendError(f"cannot start {command[0]}: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1].strip() if said else f"exit code {done.returncode}"
        raise BackendError(reason, returned=done.returncode, last_lines="\n".join(said) or None)


def _build_ssh(machine: Machine) -> list[str]:
    destination = parse_destination(machine.target)
    assert destination, machine.target  # as is seen to where machines are read
    try:
        command = build_command(destination, Login(machine.key_path, _CONNECT_S))
    except HostError as error:
        raise BackendError(error.reason, error.hint) from error
    return [*command, *destination.arguments()]
