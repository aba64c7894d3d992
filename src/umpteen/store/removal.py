"""Removes what umpteen wrote of a job, and nothing else.

Goes from folder to folder by open descriptors that never follow a symbolic link, so nothing
outside the store's own folder can be reached, whatever its files say. What is removed is marked
first, so that a removal that was cut short is known as such, and is gone on with.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from umpteen.errors import StoreError
from umpteen.store.address import is_remote
from umpteen.store.base import Store
from umpteen.store.job_files import read_job
from umpteen.store.layout import JOB, LOCK, OUTPUTS, OWN_FOLDER, REMOVING
from umpteen.store.owners import own_ids
from umpteen.system.plain_files import (
    folder_below,
    folder_of,
    remove_below,
    remove_empty,
    walk_below,
)

__all__ = ["Measured", "Removed", "measure_job", "remove_job", "remove_rest"]

_OF_A_TASK = (*OUTPUTS, "attempts")


class Measured(NamedTuple):
    """How much would be removed."""

    tasks: int  # that have outputs
    size_bytes: int


class Removed(NamedTuple):
    """How much was removed, and what was not."""

    tasks: int  # whose outputs were removed
    left: int  # files of others in the folders of tasks
    is_empty: bool = True  # nothing else is at the address, as far as is known


def measure_job(store: Store, names: Sequence[str]) -> Measured:
    """Of what `remove_job` would remove."""
    return (_measure_far if is_remote(store.address) else _measure_folder)(store, names)


def _measure_far(store: Store, names: Sequence[str]) -> Measured:
    find = _build_finder(names)
    ours = [(found, size) for path, size in store.walk("") if (found := find(path)) is not None]
    return Measured(len({task for task, _ in ours if task}), sum(size for _, size in ours))


def _measure_folder(store: Store, names: Sequence[str]) -> Measured:
    tasks = 0
    size = sum(found.size for found in walk_below(store.address, OWN_FOLDER))
    for name in names:
        with _opened(store.address, name) as folder:
            entries = _list_outputs(folder)
            tasks += bool(entries)
            for entry in entries:
                size += _measure(store.address, f"{name}/{entry}", folder)
    return Measured(tasks, size)


def _measure(top: str, key: str, folder: int | None) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed."""
    found = os.lstat(key.rpartition("/")[2], dir_fd=folder)
    if not stat.S_ISDIR(found.st_mode):
        return found.st_size
    return sum(each.size for each in walk_below(top, key))


def remove_job(store: Store, names: Sequence[str]) -> Removed:
    """Remove the outputs of these tasks, then what is known of the job, but for its lock.

    names: folders of tasks below the address. A run that is killed in between is a job still,
    is said to be on its way out, and can be removed again. Raises StoreError.
    """
    _mark(store, "outputs")
    remove = _remove_far if is_remote(store.address) else _remove_folder
    return remove(store, names)


def _mark(store: Store, stage: str) -> None:
    """Have job.json say what is being removed: `outputs`, or the `rest`, which is not read."""
    job = read_job(store)
    if job is not None and job.get(REMOVING) != "rest":
        store.replace(JOB, json.dumps({**job, REMOVING: stage}).encode())


def _remove_folder(store: Store, names: Sequence[str]) -> Removed:
    top = store.address
    tasks = 0
    with _explained(top):
        for name in names:
            with _opened(top, name) as folder:
                own = own_ids() | ({os.fstat(folder).st_uid} if folder is not None else set())
                entries = _list_outputs(folder)
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # gone in between
                        _remove_own(top, f"{name}/{entry}", folder, own)
            tasks += bool(entries)
            _remove_empty_and_above(top, name)
        left = sum(_count(top, name) for name in {name.split("/")[0] for name in names})
        _mark(store, "rest")
        last = [os.path.basename(JOB), os.path.basename(LOCK)]
        entries = [entry for entry in store.names(OWN_FOLDER) if entry not in last]
        for entry in [*entries, *last[:1]]:
            remove_below(top, f"{OWN_FOLDER}/{entry}")
    return Removed(tasks, left)


@contextlib.contextmanager
def _opened(top: str, folder: str) -> Iterator[int | None]:
    """A folder below another; None where there is none, or the way leads through a link."""
    with contextlib.ExitStack() as stack:
        opened = None
        with contextlib.suppress(OSError):
            opened = stack.enter_context(folder_below(top, folder))
        yield opened


def _list_outputs(folder: int | None) -> list[str]:
    names = set(os.listdir(folder)) if folder is not None else set[str]()
    return [name for name in _OF_A_TASK if name in names]


def _remove_own(top: str, key: str, folder: int | None, own: set[int]) -> None:
    """It and all below it, but for files of users that are none of `own`. folder: it is in."""
    name = key.rpartition("/")[2]
    found = os.lstat(name, dir_fd=folder)
    if not stat.S_ISDIR(found.st_mode):
        if found.st_uid in own:
            os.unlink(name, dir_fd=folder)
        return
    below = walk_below(top, key)
    if all(each.owner in own for each in below):
        remove_below(top, key)
        return
    for each in below:
        if each.owner in own:
            remove_below(top, f"{key}/{each.path}")
            _remove_empty_and_above(top, f"{key}/{each.path}".rpartition("/")[0])


def _remove_empty_and_above(top: str, folder: str) -> None:
    """The folder, and those above it below `top`, as far as they are empty."""
    while folder and remove_empty(top, folder):
        folder = folder.rpartition("/")[0]


def _count(top: str, name: str) -> int:
    """How many files there are below a folder, links and the like among them."""
    try:
        with folder_of(top, name) as (folder, last):
            is_folder = stat.S_ISDIR(os.lstat(last, dir_fd=folder).st_mode)
    except OSError:
        return 0
    return len(walk_below(top, name)) if is_folder else 1


def _remove_far(store: Store, names: Sequence[str]) -> Removed:
    """Where there may be no folders: by the names of all files."""
    find = _build_finder(names)
    paths = [path for path, _ in store.walk("") if path not in (LOCK, JOB)]
    tasks = {path: find(path) for path in paths}
    store.delete_many([path for path in paths if tasks[path]])
    _mark(store, "rest")
    store.delete_many([path for path in paths if tasks[path] == ""])
    store.delete(JOB)
    tops = {name.split("/")[0] for name in names}
    others = [path for path in paths if tasks[path] is None]
    left = sum(path.split("/")[0] in tops for path in others)
    return Removed(len({task for task in tasks.values() if task}), left, not others)


def _build_finder(names: Sequence[str]) -> Callable[[str], str | None]:
    """The task whose output a path is, empty for the job's own; None for what is not ours."""
    known = set(names)

    def find(path: str) -> str | None:
        parts = path.split("/")
        if parts[0] == OWN_FOLDER:
            return ""
        above = ("/".join(parts[:end]) for end in range(1, len(parts)) if parts[end] in _OF_A_TASK)
        return next((folder for folder in above if folder in known), None)

    return find


def remove_rest(store: Store, names: Sequence[str]) -> None:
    """Remove the folders that are empty by now: where the lock was, and the store's own.

    An address that is a symbolic link stays.
    """
    if not is_remote(store.address):
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(store.address, OWN_FOLDER))
            os.rmdir(store.address)
        return
    find = _build_finder(names)
    split = [name.split("/") for name in names]
    above = {"/".join(parts[:end]) for parts in split for end in range(1, len(parts) + 1)}
    store.remove_empty(lambda path: path in above or find(path) is not None)


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = error.filename or address
        message = f"could not remove {what} in {address}: {error.strerror}"
        raise StoreError(message, path=address) from error
