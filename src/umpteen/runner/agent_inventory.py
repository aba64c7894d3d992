"""On a host behind ssh: what umpteen has there, and the removal of what nobody needs any more.

Further calls of the agent. Standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from umpteen.errors import StoreError
from umpteen.model.agent_messages import COPY, RUNNER, UNPACKED, HostCopy, HostItem, HostRunner
from umpteen.model.record import parse_record
from umpteen.runner.batch_start import read_batch
from umpteen.runner.lease import SYNCED, LeaseFolder, list_folders
from umpteen.runner.synced import list_unused, remove_unused
from umpteen.store.address import open_store
from umpteen.store.base import Store
from umpteen.store.identity import Identity, find_place, read_id
from umpteen.store.layout import BATCHES, JOB, JSON, OWN_FOLDER, RECORDS, closed_key
from umpteen.store.records import parse_lines
from umpteen.system.locks import leases_folder
from umpteen.system.plain_files import open_below, remove_below, walk_below

__all__ = ["INVENTORY_CALLS"]

_COPIES = "jobs"  # the folder, beside leases, of copies of jobs
_REMOVING = ".removing"  # behind the name of a copy of which a part may be gone
_ZIP = re.compile(r"runner-[0-9a-f]+\.zip(?:\.[0-9a-f]+\.new)?")
_JOB_BYTES = 1 << 20


def list_all_runners(body: bytes) -> list[dict[str, object]]:
    """Every runner that lives here; a HostRunner of each."""
    del body
    return [_describe_runner(lease)._asdict() for lease in list_folders() if lease.lives()]


def _describe_runner(lease: LeaseFolder) -> HostRunner:
    info = lease.read_info()
    address = info.get("address") or ""
    name = str(_read_job(address).get("name") or "")
    return HostRunner(lease.token, address, name, info.get("time") or 0.0)


def list_copies(body: bytes) -> list[dict[str, object]]:
    """The jobs of which a copy is kept here; a HostCopy of each."""
    del body
    return [copy._asdict() for copy in _list_copies()]


def clean_up(
    body: bytes, keep: str, older_s: float, is_all: bool, is_dry: bool
) -> list[dict[str, object]]:
    """Remove what nobody needs; a HostItem of each.

    keep: the zip file of the runner that stays. older_s: what was not used for so long goes, and
    copies with nothing left to bring. is_all: so does all that no runner uses. is_dry: only say it.
    """
    del body
    items = [*_list_old_copies(older_s, is_all=is_all), *_list_old_zips(keep, older_s, is_all)]
    if not is_dry:
        items = list(map(_remove, items))
    return [item._asdict() for item in (*items, *_clean_unpacked(older_s, is_all, is_dry))]


# --- copies of jobs -------------------------------------------------------------------------------


def _list_copies() -> Iterator[HostCopy]:
    above = f"{leases_folder()}/{_COPIES}"
    used = [lease.read_info() for lease in list_folders() if lease.lives()]
    for name in _list_folder(above):
        folder = f"{above}/{name}"
        job = _read_job(folder)
        known = Identity(folder, read_id(json.dumps(job).encode()), find_place(folder))
        with contextlib.suppress(FileNotFoundError):  # it has just gone
            yield HostCopy(
                name, str(job.get("name") or ""), sum(f.size for f in walk_below(above, name)),
                _find_change(folder), any(map(known.fits, used)), _is_home(folder),
            )  # fmt: skip


def _read_job(address: str) -> Mapping[str, Any]:
    """What the `job.json` in a folder says; nothing where there is none."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        with os.fdopen(open_below(address, JOB), "rb") as file:
            found = json.loads(file.read(_JOB_BYTES))
        return found if isinstance(found, dict) else {}
    return {}


def _find_change(folder: str) -> float:
    """When umpteen wrote there last: every end of a task is a line of some records."""
    times = [os.stat(folder).st_mtime]
    for at, _, files in os.walk(f"{folder}/{OWN_FOLDER}"):
        with contextlib.suppress(FileNotFoundError):
            times += [os.lstat(path).st_mtime for path in (at, *(f"{at}/{f}" for f in files))]
    return max(times)


def _is_home(folder: str) -> bool:
    """Whether nothing is left to bring: no outputs are there, and no batch has tasks to be run."""
    if folder.endswith(_REMOVING):
        return True
    if _list_folder(folder) != [OWN_FOLDER]:
        return False
    store = open_store(folder)
    names = [name for name in _list_folder(f"{folder}/{BATCHES}") if name.endswith(JSON)]
    try:
        return bool(names) and all(_is_over(store, name[: -len(JSON)]) for name in names)
    except (OSError, StoreError):
        return False


def _is_over(store: Store, batch: str) -> bool:
    """Whether every task of a batch has come to its end, as far as is recorded here."""
    if store.read(closed_key(batch)) is not None:
        return True
    left = set(read_batch(store, batch).indices)
    for name in _list_folder(f"{store.address}/{RECORDS}/{batch}"):
        for line in parse_lines(store.read(f"{RECORDS}/{batch}/{name}") or b""):
            record = parse_record(line)
            if record and record.is_final:
                left.discard(record.task)
    return not left


# --- what is old ----------------------------------------------------------------------------------


def _list_old_copies(older_s: float, *, is_all: bool) -> Iterator[HostItem]:
    for copy in _list_copies():
        is_old = is_all or copy.is_home or time.time() - copy.time >= older_s
        if is_old and not copy.has_runner:
            yield HostItem(COPY, copy.name, copy.job, copy.size)


def _list_old_zips(keep: str, older_s: float, is_all: bool) -> Iterator[HostItem]:
    """Runners of other versions, where none lives that may still read its own."""
    own = leases_folder()
    if any(lease.lives() for lease in list_folders()):
        return
    for name in _list_folder(own):
        if _ZIP.fullmatch(name) and name != keep:
            found = os.lstat(f"{own}/{name}")
            used = max(found.st_atime, found.st_mtime)
            if is_all or time.time() - used >= older_s:
                yield HostItem(RUNNER, name, "", found.st_size)


def _remove(item: HostItem) -> HostItem:
    """The item, with why it could not be removed."""
    above, name = leases_folder(), item.name
    try:
        if item.kind == COPY:
            above = f"{above}/{_COPIES}"
            if not name.endswith(_REMOVING):  # so that a half is never taken for the whole
                name += _REMOVING
                remove_below(above, name)
                os.rename(f"{above}/{item.name}", f"{above}/{name}")
        remove_below(above, name)
    except OSError as error:
        return item._replace(failure=error.strerror or str(error))
    return item


def _clean_unpacked(older_s: float, is_all: bool, is_dry: bool) -> Iterator[HostItem]:
    """Folders that were synced, by what each of them was used last."""
    if is_all and not any(lease.lives() for lease in list_folders()):
        older_s = float("-inf")
    found = list_unused(older_s)
    failure = ""
    if found and not is_dry:
        try:
            remove_unused(older_s)
        except (OSError, StoreError) as error:
            failure = str(error)
    root = f"{leases_folder()}/{SYNCED}"
    for name, size in found.items():
        is_left = failure and os.path.lexists(f"{root}/{name}")
        yield HostItem(UNPACKED, name, "", size, failure if is_left else "")


def _list_folder(folder: str) -> list[str]:
    """The sorted names in a folder; nothing where there is none."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


INVENTORY_CALLS = (list_all_runners, list_copies, clean_up)
