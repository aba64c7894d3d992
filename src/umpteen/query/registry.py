"""Which jobs there are: one small file per address in the user's data folder.

Written whenever a verb opens a store, to find jobs by name. For a job that is in no folder nothing
else tells whether this user submitted it from here, and what its store is opened with: such options
stand in a job file, and are needed before anything in the store can be read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from umpteen.errors import ErrorCode, InputError, StoreError, find_nearest, say_nearest
from umpteen.job.secrets import split_secrets
from umpteen.model.variables import RESULTS_OPTIONS
from umpteen.store.address import is_remote, open_store, parse_address, read_options
from umpteen.store.base import Options, Store
from umpteen.store.layout import JOB
from umpteen.system.user_folders import data_folder
from umpteen.system.whole_files import replace_file

__all__ = [
    "RESULTS_FOLDER",
    "RegisteredJob",
    "find_address",
    "find_addresses",
    "find_options",
    "forget",
    "give_options",
    "hinting_at_options",
    "is_job",
    "list_entries",
    "list_names",
    "open_job_store",
    "register",
    "was_handed_in",
]

RESULTS_FOLDER = "umpteen-results"
_OF_BUNDLE = re.compile("-[0-9]{14}$")  # behind its name, in that of a job

# By address, what a job file says that this process was given: with what is secret.
_given_options: dict[str, dict[str, Any]] = {}


class RegisteredJob(NamedTuple):
    """A job that was opened on this machine."""

    name: str
    # Of its store.
    address: str
    # When it was opened last, in seconds since 1970.
    seen_s: float
    # The one that it was submitted from on this machine; empty where it was only looked at.
    folder: str = ""
    # What its store is opened with, and the names of such options that are secret: no file of
    # ours has those.
    options: Mapping[str, Any] = {}
    left_out: Sequence[str] = ()


def _folder() -> str:
    return os.path.join(data_folder(), "jobs")


def register(
    name: str, address: str, folder: str = "", options: Mapping[str, Any] | None = None
) -> None:
    """Remember a job; silently not, where the data folder cannot be written.

    folder: the one it is submitted from; empty where it is only looked at. options: what its
    store is opened with, where a job file says so or says that there are none.
    """
    path = _path(address)
    known = _read_entry(path) or RegisteredJob(name, address, 0)
    options = _given_options.get(address) if options is None else options
    kept, left_out = (known.options, known.left_out) if options is None else split_secrets(options)
    entry: dict[str, Any] = {"name": name, "address": address, "seen_s": round(time.time())}
    entry["folder"] = folder or known.folder
    if kept or left_out:
        entry.update(options=kept, left_out=left_out)
    try:
        os.makedirs(_folder(), exist_ok=True)
        replace_file(path, json.dumps(entry), mode=0o600)
    except OSError:
        return


def _read_entry(path: str) -> RegisteredJob | None:
    """What a file of the registry says; None where it is damaged or not there."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        entry = RegisteredJob(
            found["name"], found["address"], found["seen_s"], found.get("folder", ""),
            dict(found.get("options", {})), list(map(str, found.get("left_out", ()))),
        )  # fmt: skip
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


def give_options(address: str, options: Mapping[str, Any]) -> None:
    """Have a job's store opened with what a job file says, for as long as this process lives."""
    _given_options[parse_address(address)] = dict(options)


def find_options(address: str) -> dict[str, Any]:
    """What the store at an address is opened with: as a job file given to this process says, else
    as the job was submitted from here, and as the environment says.
    """
    if not is_remote(address):
        return {}
    address = parse_address(address)
    if given := _given_options.get(address):
        return given
    known = _read_entry(_path(address))
    return _merge(known.options if known else {}, read_options())


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Options:
    """Options of two places, where tables in them are joined as well."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            merged[key] = _merge(below[key], above[key])
    return merged


def open_job_store(address: str, patience_s: float | None = None) -> Store:
    """The store of a job. patience_s: as of `open_store`."""
    return open_store(address, find_options(address), patience_s)


@contextlib.contextmanager
def hinting_at_options(address: str) -> Iterator[None]:
    """Adds to the error of a store that cannot be read which of its options are kept nowhere."""
    try:
        yield
    except StoreError as error:
        known = _read_entry(_path(parse_address(address)))
        _, there = split_secrets(find_options(address))
        lacking = [name for name in known.left_out if name not in there] if known else []
        if lacking and not (error.transient or error.damaged):
            error.hint = (
                f"the job has {' and '.join(lacking)} in `options` of its results, which is kept "
                f"nowhere: give its file in place of its name, or {RESULTS_OPTIONS}"
            )
        raise


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

    name: only jobs of that name, or of a bundle of that name, so that no other disk is asked.
    """
    beside = [entry for entry in _list_beside() if _is_meant(entry, name)]
    entries = {entry.address: entry for entry in beside}
    for file in _list_files(_folder()):
        path = os.path.join(_folder(), file)
        entry = _read_entry(path)
        if entry is None or not _is_meant(entry, name):
            continue
        if is_remote(entry.address) or os.path.exists(os.path.join(entry.address, JOB)):
            entries[entry.address] = entry
        elif os.path.isdir(os.path.dirname(entry.address)):  # gone, and not only unmounted
            with contextlib.suppress(OSError):
                os.unlink(path)
    return sorted(entries.values(), key=lambda entry: -entry.seen_s)


def _is_meant(entry: RegisteredJob, name: str | None) -> bool:
    return name in (None, entry.name, _OF_BUNDLE.sub("", entry.name))


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
    `./umpteen-results` and what was handed in from here; where there are none, those elsewhere;
    where there are none either, that of the newest bundle of this name.
    """
    if ("/" in name or os.path.isdir(name)) and is_job(name):
        return [parse_address(name)]
    found, working = list_entries(name), _here()
    entries = [entry for entry in found if entry.name == name]
    here = [entry.address for entry in entries if entry.folder == working]
    beside = os.path.join(RESULTS_FOLDER, name)
    if os.path.isdir(beside) and is_job(beside):
        here.insert(0, parse_address(beside))
    newest = max((entry.name for entry in found), default="")
    return list(dict.fromkeys(here)) or [
        entry.address for entry in entries or found if entry.name in (name, newest)
    ]


def _here() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def is_job(address: str) -> bool:
    """Whether there is a job at that address. Raises SettingsError where it cannot be one."""
    folder, _, name = JOB.rpartition("/")
    with hinting_at_options(address):
        return name in open_job_store(address).names(folder)
