"""Locks between processes of this user on this machine, and the folder that they lie in."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator

from umpteen.errors import StoreError
from umpteen.model.variables import LEASES

__all__ = ["leases_folder", "local_lock", "lock_file", "passing_lock", "refuse"]


_HINT = "set UMPTEEN_LEASES to a folder on a local disk that has room and that you may write to"


def leases_folder() -> str:
    """The folder of this user's leases, made with mode 700; its owner is checked.

    It lies inside what UMPTEEN_LEASES names, where anything else may be too. Raises StoreError
    where it cannot be made, or somebody else owns it.
    """
    folder = _name_folder()
    try:
        with contextlib.suppress(FileExistsError):
            os.makedirs(folder, mode=0o700)
        found = os.lstat(folder)
    except OSError as error:
        raise refuse(f"cannot make {folder}", error) from error
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise StoreError(
            f"{folder} is not a folder of yours", "set UMPTEEN_LEASES to one that is", path=folder
        )
    return folder


def _name_folder() -> str:
    above, own = os.environ.get(LEASES) or "/var/tmp", f"umpteen-{os.getuid()}"
    return above if os.path.basename(above.rstrip("/")) == own else os.path.join(above, own)


def refuse(doing: str, error: OSError) -> StoreError:
    """The error to raise where nothing can be written beside the leases."""
    return StoreError(f"{doing}: {error.strerror}", _HINT, path=error.filename)


@contextlib.contextmanager
def local_lock(name: str) -> Iterator[None]:
    """Hold a lock that processes of this user on this machine share; waits until it is free."""
    with lock_file(os.path.join(leases_folder(), name + ".lock")):
        yield


@contextlib.contextmanager
def passing_lock(name: str) -> Iterator[None]:
    """The same for what there are many of: no file of it stays."""
    path = os.path.join(leases_folder(), name + ".lock")
    with lock_file(path):
        try:
            yield
        finally:
            os.unlink(path)


@contextlib.contextmanager
def lock_file(path: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock, made where there is none; waits until it is free.

    shared: together with others who share it. Whoever holds it alone may remove the file.
    Raises StoreError where it cannot be made.
    """
    while True:
        try:
            fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise refuse(f"cannot make {path}", error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if _is_at(path, fd):
                os.utime(fd)  # what is old is forgotten
                yield
                return
        finally:
            os.close(fd)


def _is_at(path: str, fd: int) -> bool:
    """Whether the open file still has that name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
