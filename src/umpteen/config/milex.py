"""`~/.milexconfig`, the file of milex-scheduler: a JSON object with an object for each machine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from umpteen.errors import InputError
from umpteen.job.settings import Setting
from umpteen.system.whole_files import read_file
from umpteen.units import refuse_value

__all__ = ["read_milex"]

# Its keys, and what they are called here. Whatever else it holds milex-scheduler leaves alone.
_FIELDS = {
    "path": "path",
    "env_command": "env_command",
    "slurm_account": "account",
    "hostname": "host",
    "hosturl": "host",
    "username": "user",
    "key_path": "key_path",
}
_OF_URL = ("hosturl", "username", "key_path")


def read_milex(path: str) -> dict[str, dict[str, Setting]]:
    """By machine what it says of it; nothing where there is no such file. Raises InputError."""
    content = b""
    with contextlib.suppress(FileNotFoundError):
        content = _read(path)
    if not content.strip():
        return {}
    try:
        found = json.loads(content.decode())
    except json.JSONDecodeError as error:
        raise InputError(f"{error.msg}", file=path, line=error.lineno, column=error.colno) from None
    except (ValueError, RecursionError):  # such as a number of more digits than Python reads
        raise InputError("is no JSON text", file=path) from None
    if not isinstance(found, dict):
        raise InputError("is no JSON object of machines", file=path)
    return {name: _read_machine(path, name, entry) for name, entry in found.items()}


def _read(path: str) -> bytes:
    try:
        return read_file(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error


def _read_machine(path: str, name: str, entry: Any) -> dict[str, Setting]:
    if not isinstance(entry, Mapping):
        raise _locate(path, refuse_value(name, "an object", entry))
    values = {key: entry[key] for key in _FIELDS if entry.get(key) is not None}
    for key, value in values.items():
        if not isinstance(value, str):
            raise _locate(path, refuse_value(f"{name}.{key}", "text", value))
    if values.get("hostname"):  # it wins over the other way of naming a host, and over all of it
        values = {key: value for key, value in values.items() if key not in _OF_URL}
    else:
        values.pop("hostname", None)
    return {_FIELDS[key]: Setting(value, path) for key, value in values.items()}


def _locate(path: str, error: InputError) -> InputError:
    return InputError(error.message, error.hint, file=path, field=error.field)
