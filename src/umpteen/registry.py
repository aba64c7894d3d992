"""Which jobs there are: one small file per address in the user's data folder.

Written whenever a verb opens a store; a help for finding jobs by name, never the truth.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from typing import NamedTuple

from umpteen.errors import InputError, nearest_hint
from umpteen.results.base import JOB
from umpteen.results.opening import is_remote, open_store, parse_address

__all__ = ["Entry", "find_address", "forget", "is_job", "list_entries", "list_names", "register"]

_RESULTS_FOLDER = "umpteen-results"


class Entry(NamedTuple):
    """A job that was seen: its name, where its store is, and when it was last opened."""

    name: str
    address: str
    seen_s: float


def _folder() -> str:
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(base, "umpteen", "jobs")


def register(name: str, address: str) -> None:
    """Remember a job; silently not, where the data folder cannot be written."""
    path = _path(address)
    temporary = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(_folder(), exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({"name": name, "address": address, "seen_s": round(time.time())}, file)
        os.replace(temporary, path)
    except OSError:
        return


def forget(address: str) -> None:
    """No longer remember what is at an address; silently not, where that cannot be."""
    with contextlib.suppress(OSError):
        os.unlink(_path(address))


def _path(address: str) -> str:
    digest = hashlib.blake2b(address.encode(), digest_size=8).hexdigest()
    return os.path.join(_folder(), digest + ".json")


def list_names() -> list[str]:
    """The name of every job that is still where it was seen, each once, in order."""
    return sorted({entry.name for entry in list_entries()})


def list_entries() -> list[Entry]:
    """Every job that is still where it was seen, the newest first; others are forgotten."""
    entries = {entry.address: entry for entry in _list_beside()}
    for name in _list_files(_folder()):
        path = os.path.join(_folder(), name)
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
            entry = Entry(found["name"], found["address"], found["seen_s"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if is_remote(entry.address) or os.path.exists(os.path.join(entry.address, JOB)):
            entries[entry.address] = entry
        elif os.path.isdir(os.path.dirname(entry.address)):  # gone, and not only unmounted
            os.unlink(path)
    return sorted(entries.values(), key=lambda entry: -entry.seen_s)


def _list_files(folder: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.endswith(".json")]
    except OSError:
        return []


def _list_beside() -> list[Entry]:
    """Jobs in this folder's own umpteen-results."""
    found = []
    root = os.path.abspath(_RESULTS_FOLDER)
    try:
        names = os.listdir(root)
    except OSError:
        return []
    for name in names:
        job = os.path.join(root, name, JOB)
        if os.path.exists(job):
            found.append(Entry(name, os.path.join(root, name), os.stat(job).st_mtime))
    return found


def find_address(name: str) -> str:
    """The address of a job given by its name or address.

    An address wins, then `./umpteen-results/NAME`, then the registry. Raises InputError where
    there is no such job, or several of that name.
    """
    for candidate in (name, os.path.join(_RESULTS_FOLDER, name)):
        if ("/" in candidate or os.path.isdir(candidate)) and is_job(candidate):
            return parse_address(candidate)
    entries = list_entries()
    found = [entry.address for entry in entries if entry.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"there are {len(found)} jobs named {name!r}", "give the address: " + " or ".join(found)
        )
    names = [entry.name for entry in entries]
    hint = nearest_hint(name, names) if names else "umpteen run … starts one"
    hint = "umpteen ls shows all" if hint.startswith("valid") else hint + " umpteen ls shows all"
    raise InputError(f"no job named {name!r} here or in the registry", hint)


def is_job(address: str) -> bool:
    """Whether there is a job at that address. Raises SettingsError where it cannot be one."""
    folder, _, name = JOB.rpartition("/")
    return name in open_store(address).list(folder)
