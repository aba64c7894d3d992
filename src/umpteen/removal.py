"""Removes what umpteen wrote of a job, and nothing else.

Goes from folder to folder by open descriptors that never follow a symbolic link, so nothing
outside the store's own folder can be reached.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from umpteen.errors import StoreError
from umpteen.results.base import JOB, LOCK, OUTPUTS, OWN_FOLDER, Store
from umpteen.results.opening import is_remote

__all__ = ["Removed", "measure_job", "remove_job", "remove_rest"]

_OF_A_TASK = (*OUTPUTS, "attempts")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Removed(NamedTuple):
    """How many tasks' outputs were removed, and how many files were left that are not ours."""

    tasks: int
    left: int


def measure_job(store: Store, names: Sequence[str]) -> int:
    """The bytes of what `remove_job` would remove."""
    if is_remote(store.address):
        ours = _build_test(names)
        return sum(size for path, size in store.walk("") if ours(path))
    return _measure_folder(store.address, names)


def _measure_folder(address: str, names: Sequence[str]) -> int:
    with _open_address(address) as top:
        total = 0 if top is None else _measure(OWN_FOLDER, top)
        for name in names if top is not None else ():
            with _open_below(top, name) as folder:
                if folder is not None:
                    total += sum(_measure(entry, folder) for entry in _OF_A_TASK)
    return total


def remove_job(store: Store, names: Sequence[str]) -> Removed:
    """Remove the outputs of these tasks, then what is known of the job, but for its lock.

    names: folders of tasks below the address. A run that is killed in between is a job still,
    and can be removed again. Raises StoreError.
    """
    return (_remove_far if is_remote(store.address) else _remove_folder)(store, names)


def _remove_folder(store: Store, names: Sequence[str]) -> Removed:
    address = store.address
    tasks = left = 0
    with _explained(address), _open_address(address) as top:
        if top is None:
            return Removed(0, 0)
        for name in names:
            with _open_below(top, name) as folder:
                if folder is None:
                    continue
                tasks += 1
                for entry in _OF_A_TASK:
                    _remove(entry, folder)
            _remove_empty(name, top)
        left = sum(_count(name, top) for name in {name.split("/")[0] for name in names})
        with _open_below(top, OWN_FOLDER) as own:
            if own is not None:
                last = [os.path.basename(JOB), os.path.basename(LOCK)]
                for entry in [e for e in os.listdir(own) if e not in last] + last[:1]:
                    _remove(entry, own)
    return Removed(tasks, left)


def _remove_far(store: Store, names: Sequence[str]) -> Removed:
    """Where there are no folders: by the names of all files."""
    ours = _build_test(names)
    paths = [path for path, _ in store.walk("") if path != LOCK]
    found = [path for path in paths if ours(path)]
    store.delete_many([path for path in found if path != JOB])
    store.delete(JOB)
    tops = {name.split("/")[0] for name in names}
    left = sum(not ours(path) and path.split("/")[0] in tops for path in paths)
    folders = {path.rpartition("/")[0] for path in found}
    return Removed(len(folders.intersection(names)), left)


def _build_test(names: Sequence[str]) -> Callable[[str], bool]:
    """Whether a file is the job's own, or of what its tasks left."""
    known = set(names)

    def is_ours(path: str) -> bool:
        parts = path.split("/")
        if parts[0] == OWN_FOLDER:
            return True
        above = ("/".join(parts[:end]) for end in range(1, len(parts)) if parts[end] in _OF_A_TASK)
        return any(folder in known for folder in above)

    return is_ours


def remove_rest(address: str) -> None:
    """Remove the folders that are empty by now: where the lock was, and the store's own.

    An address that is a symbolic link stays.
    """
    with contextlib.suppress(OSError):
        os.rmdir(os.path.join(address, OWN_FOLDER))
        os.rmdir(address)


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = error.filename or address
        message = f"could not remove {what} in {address}: {error.strerror}"
        raise StoreError(message, path=address) from error


@contextlib.contextmanager
def _open_address(address: str) -> Iterator[int | None]:
    """The store's folder, which alone may be reached through a link."""
    try:
        top = os.open(address, _FOLDER & ~os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    try:
        yield top
    finally:
        os.close(top)


@contextlib.contextmanager
def _open_below(top: int | None, path: str) -> Iterator[int | None]:
    """A folder below another; None where there is none, or the way leads through a link."""
    opened: list[int] = []
    try:
        at = top
        for part in path.split("/"):
            at = os.open(part, _FOLDER, dir_fd=at)
            opened.append(at)
    except OSError:
        at = None
    try:
        yield at
    finally:
        for fd in opened:
            os.close(fd)


def _remove(name: str, folder: int) -> None:
    """A file, a link (never what it points to), or a folder with all that is in it."""
    try:
        is_folder = stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode)
        shutil.rmtree(name, dir_fd=folder) if is_folder else os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def _remove_empty(path: str, top: int) -> None:
    """The folder, and those above it below `top`, as far as they are empty."""
    parts = path.split("/")
    for count in range(len(parts), 0, -1):
        with _open_below(top, "/".join(parts[: count - 1])) if count > 1 else _same(top) as above:
            try:
                os.rmdir(parts[count - 1], dir_fd=above)
            except OSError:
                return


@contextlib.contextmanager
def _same(folder: int) -> Iterator[int]:
    yield folder


def _measure(name: str, folder: int) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed."""
    try:
        found = os.lstat(name, dir_fd=folder)
    except OSError:
        return 0
    if not stat.S_ISDIR(found.st_mode):
        return found.st_size
    with _open_below(folder, name) as below:
        return 0 if below is None else sum(_measure(entry, below) for entry in os.listdir(below))


def _count(name: str, folder: int) -> int:
    """How many files there are below a folder, links and the like among them."""
    try:
        is_folder = stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode)
    except OSError:
        return 0
    if not is_folder:
        return 1
    with _open_below(folder, name) as below:
        return 0 if below is None else sum(_count(entry, below) for entry in os.listdir(below))
