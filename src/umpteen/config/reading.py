"""The files of machines in, a `Config` out: umpteen's own, and that of milex-scheduler.

Where both describe a machine, each value of umpteen's own file counts more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from umpteen.config.machines import DEFAULT, FIELDS, LOCAL, Config, Machine
from umpteen.config.milex import read_milex
from umpteen.config.toml import read_toml
from umpteen.errors import InputError
from umpteen.job.settings import Setting
from umpteen.system.user_folders import config_folder, data_folder

__all__ = ["config_path", "milex_path", "read_config"]

_BAD_TARGET = re.compile(r"^-|[\s\x00-\x1f\x7f]")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


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


def _build_machine(name: str, values: Mapping[str, Setting]) -> Machine:
    texts = {field: values[field].value for field in FIELDS if field in values}
    for field in ("host", "user"):
        if _BAD_TARGET.search(texts.get(field, "")):
            raise _refuse(values, field, f"{texts[field]!r} is nothing that ssh connects to")
    if name == LOCAL and texts.get("host"):
        hint = "name the other machine differently"
        raise _refuse(values, "host", f"{LOCAL!r} is this machine, and has no host", hint)
    for field in ("path", "account", "key_path"):
        if _CONTROLS.search(texts.get(field, "")):
            raise _refuse(values, field, f"{field!r} must be one line of text")
    if path := texts.get("path", ""):
        texts["path"] = os.path.expanduser(path) if not texts.get("host") else path
        if not os.path.isabs(texts["path"]):
            hint = "begin it with '/'"
            raise _refuse(values, "path", f"the path {path!r} is not absolute", hint)
    slurm = {
        key.removeprefix("slurm."): setting.value
        for key, setting in values.items()
        if key.startswith("slurm.")
    }
    sources = {key: setting.source for key, setting in values.items()}
    return Machine(name, **texts, slurm=slurm, sources=sources)


def _refuse(
    values: Mapping[str, Setting], field: str, message: str, hint: str | None = None
) -> InputError:
    return InputError(message, hint, file=values[field].source, field=field)
