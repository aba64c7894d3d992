"""Which jobs there are: one small file per address in the user's data folder.

Written whenever a verb opens a store; a help for finding jobs by name. Of jobs in no folder it
alone tells which this user handed in from here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from typing import NamedTuple

from umpteen.errors import ErrorCode, InputError, find_nearest, say_nearest
from umpteen.model.variables import DATA_HOME
from umpteen.store.address import is_remote, open_store, parse_address
from umpteen.store.layout import JOB
from umpteen.system.whole_files import replace_file

__all__ = [
    "RESULTS_FOLDER",
    "RegisteredJob",
    "find_address",
    "find_addresses",
    "forget",
    "is_job",
    "list_entries",
    "list_names",
    "register",
    "was_handed_in",
]

RESULTS_FOLDER = "umpteen-results"


class RegisteredJob(NamedTuple):
    """A job that was opened on this machine."""

    name: str
    # Of its store.
    address: str
    # When it was opened last, in seconds since 1970.
    seen_s: float
    # The one that it was submitted from on this machine; empty where it was only looked at.
    folder: str = ""


def _folder() -> str:
    """Where jobs are remembered; a place that cannot be, where this user has no home."""
    given = os.environ.get(DATA_HOME, "")
    base = given if os.path.isabs(given) else os.path.expanduser("~/.local/share")
    return os.path.join(base if os.path.isabs(base) else os.devnull, "umpteen", "jobs")


def register(name: str, address: str, folder: str = "") -> None:
    """Remember a job; silently not, where the data folder cannot be written.

    folder: the one it is handed in from; empty where it is only looked at.
    """
    path = _path(address)
    known = _read_entry(path)
    folder = folder or (known.folder if known else "")
    entry = {"name": name, "address": address, "seen_s": round(time.time()), "folder": folder}
    try:
        os.makedirs(_folder(), exist_ok=True)
        replace_file(path, json.dumps(entry))
    except OSError:
        return


def _read_entry(path: str) -> RegisteredJob | None:
    """What a file of the registry says; None where it is damaged or not there."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        entry = RegisteredJob(
            found["name"], found["address"], found["seen_s"], found.get("folder", "")
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    texts = entry.name, entry.address, entry.folder
    is_sound = all(isinstance(text, str) for text in texts) and isinstance(
        entry.seen_s, (int, float)
    )
    return entry if is_sound else None


def was_handed_in(address: str) -> bool:
    """Whether this user has handed in the job at an address, from this machine."""
    entry = _read_entry(_path(address))
    return bool(entry and entry.folder)


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


def list_entries(name: str | None = None) -> list[RegisteredJob]:
    """Every job that is still where it was seen, the newest first; others are forgotten.

    name: of those that are looked for, where that is not all; of no other a disk is asked.
    """
    beside = [entry for entry in _list_beside() if name in (None, entry.name)]
    entries = {entry.address: entry for entry in beside}
    for file in _list_files(_folder()):
        path = os.path.join(_folder(), file)
        entry = _read_entry(path)
        if entry is None or name not in (None, entry.name):
            continue
        if is_remote(entry.address) or os.path.exists(os.path.join(entry.address, JOB)):
            entries[entry.address] = entry
        elif os.path.isdir(os.path.dirname(entry.address)):  # gone, and not only unmounted
            with contextlib.suppress(OSError):
                os.unlink(path)
    return sorted(entries.values(), key=lambda entry: -entry.seen_s)


def _list_files(folder: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.endswith(".json")]
    except OSError:
        return []


def _list_beside() -> list[RegisteredJob]:
    """Jobs in this folder's own umpteen-results."""
    found = []
    try:
        root = os.path.abspath(RESULTS_FOLDER)
        names = os.listdir(root)
    except OSError:
        return []
    for name in names:
        job = os.path.join(root, name, JOB)
        if os.path.exists(job):
            found.append(RegisteredJob(name, os.path.join(root, name), os.stat(job).st_mtime))
    return found


def find_address(name: str) -> str:
    """The address of a job given by its name or address.

    Raises InputError where there is no such job, or a name fits several.
    """
    found = find_addresses(name)
    if len(found) == 1:
        return found[0]
    if found:
        listed = " or ".join(found)
        raise InputError(
            f"there are {len(found)} jobs named {name!r}",
            f"give the address: {listed}",
            code=ErrorCode.SEVERAL_JOBS,
        )
    names = list_names()
    if not names:
        hint = "umpteen run … starts one"
    else:
        near = find_nearest(name, names)
        hint = f"{say_nearest(near)} umpteen ls shows all" if near else "umpteen ls shows all"
    message = f"no job named {name!r} in {_list_looked_at(name)}"
    raise InputError(message, hint, code=ErrorCode.NO_JOB)


def _list_looked_at(name: str) -> str:
    """Where a job was looked for, in words."""
    places = [f"./{RESULTS_FOLDER}", f"the registry, {_folder()}"]
    return " or ".join([f"{name} itself", *places] if "/" in name else places)


def find_addresses(name: str) -> list[str]:
    """The addresses that a name or an address may mean.

    An address means itself. A name means the jobs of this folder, which are the one in
    `./umpteen-results` and what was handed in from here; where there are none, those elsewhere.
    """
    if ("/" in name or os.path.isdir(name)) and is_job(name):
        return [parse_address(name)]
    entries, working = list_entries(name), _here()
    here = [entry.address for entry in entries if entry.folder == working]
    beside = os.path.join(RESULTS_FOLDER, name)
    if os.path.isdir(beside) and is_job(beside):
        here.insert(0, parse_address(beside))
    return list(dict.fromkeys(here)) or [entry.address for entry in entries]


def _here() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def is_job(address: str) -> bool:
    """Whether there is a job at that address. Raises SettingsError where it cannot be one."""
    folder, _, name = JOB.rpartition("/")
    return name in open_store(address).names(folder)
