"""The files of machines in, a `Config` out: umpteen's own, and that of milex-scheduler.

Where both describe a machine, each value of umpteen's own file counts more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import msgspec

from umpteen.config.machines import DEFAULT, FIELDS, LOCAL, Config, Machine
from umpteen.config.milex import read_milex
from umpteen.config.toml import read_toml
from umpteen.errors import InputError
from umpteen.job.settings import Setting
from umpteen.system.openssh import parse_destination
from umpteen.system.user_folders import config_folder, data_folder

__all__ = ["choose_machine", "config_path", "milex_path", "read_config"]

_BAD_TARGET = re.compile(r"^-|\s")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")


def config_path() -> str:
    """Umpteen's own file."""
    return os.path.join(config_folder(), "config.toml")


def milex_path() -> str:
    """The file of milex-scheduler."""
    return os.path.expanduser("~/.milexconfig")


def read_config() -> Config:
    """All machines; raises InputError where a file is not what it must be.

    `local` is there whatever files say: without them its folder is in the user's data folder.
    """
    found = {LOCAL: {"path": Setting(os.path.join(data_folder(), "bundles"), DEFAULT)}}
    for machines in (read_milex(milex_path()), read_toml(config_path())):
        for name, values in machines.items():
            found[name] = {**found.get(name, {}), **values}
    return Config({name: _build_machine(name, values) for name, values in found.items()})


def choose_machine(config: Config, name: str | None, given: Mapping[str, str]) -> Machine:
    """The machine of that name, else the host that is given, else this machine.

    given: by field what the command line says, which counts more than files. Raises InputError
    where it cannot be, and SettingsError where there is no machine of that name.
    """
    is_unnamed = name is None and "host" in given
    known = Machine(given["host"]) if is_unnamed else config.find(name or LOCAL)
    sources = {**known.sources, **dict.fromkeys(given, "the command line")}
    return _check(msgspec.structs.replace(known, **given, sources=sources))


def _build_machine(name: str, values: Mapping[str, Setting]) -> Machine:
    texts = {field: values[field].value for field in FIELDS if field in values}
    slurm = {
        key.removeprefix("slurm."): setting.value
        for key, setting in values.items()
        if key.startswith("slurm.")
    }
    sources = {key: setting.source for key, setting in values.items()}
    return _check(Machine(name, **texts, slurm=slurm, sources=sources))


def _check(machine: Machine) -> Machine:
    """The machine, its path whole; raises InputError where it cannot be."""
    for field in FIELDS[:-1]:
        if _CONTROLS.search(getattr(machine, field)):
            raise _refuse(machine, field, f"{field!r} must be one line of text")
    if _NO_TEXT.search(machine.env_command):
        raise _refuse(machine, "env_command", "'env_command' must be text that a script can hold")
    for field in ("host", "user"):
        if _BAD_TARGET.search(value := getattr(machine, field)):
            raise _refuse(machine, field, f"{value!r} is nothing that ssh connects to")
    if machine.name == LOCAL and machine.host:
        hint = "name the other machine differently"
        raise _refuse(machine, "host", f"{LOCAL!r} is this machine, and has no host", hint)
    if machine.host and parse_destination(machine.target) is None:
        raise _refuse(machine, "host", f"{machine.target!r} is nothing that ssh connects to")
    path = os.path.expanduser(machine.path) if machine.is_local else machine.path
    if path and not os.path.isabs(path):
        raise _refuse(machine, "path", f"the path {path!r} is not absolute", "begin it with '/'")
    return msgspec.structs.replace(machine, path=path)


def _refuse(machine: Machine, field: str, message: str, hint: str | None = None) -> InputError:
    said, place = f"machine {machine.name!r}: {message}", f"machines.{machine.name}.{field}"
    return InputError(said, hint, file=machine.sources[field], field=place)
