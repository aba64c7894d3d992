"""Opens files below a folder and follows no link that is there.

Who writes into a folder of results may be another user than who reads it: a file there may have
become a link, a pipe or a device. The folder itself may be reached through links; below it none is
followed, no name leads out, and nothing but a plain file is opened, which never blocks. Standard
library alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

__all__ = [
    "NEW_FILE",
    "Found",
    "NotPlainError",
    "check_key",
    "describe_kind",
    "folder_below",
    "folder_of",
    "open_below",
    "open_beside",
    "remove_below",
    "remove_empty",
    "walk_below",
]

_TOP = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = _TOP | os.O_NOFOLLOW
# To make a file where there is none, whatever somebody has put there meanwhile.
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}


class NotPlainError(OSError):
    """Something else is there than should be; `strerror` says what, `filename` where."""


class Found(NamedTuple):
    """What is below a folder and is no folder.

    link: what it points to, where it is a link. owner: the id of its user.
    """

    path: str
    mode: int
    size: int
    link: str = ""
    owner: int = -1


def describe_kind(mode: int) -> str:
    """`a link`, `a pipe`: what a file's mode says that it is."""
    return _KINDS.get(stat.S_IFMT(mode), "a device")


def check_key(key: str) -> list[str]:
    """The parts of a path below a folder; raises NotPlainError where it would lead out of it."""
    parts = key.split("/")
    if "" in parts or "." in parts or ".." in parts or "\0" in key:
        raise NotPlainError(errno.EINVAL, "its name leads elsewhere", key)
    return parts


@contextlib.contextmanager
def folder_of(top: str, key: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The folder that a file is in, open, and the file's name there.

    make: make what is not there yet of it. Raises OSError, NotPlainError where a link is in the
    way.
    """
    above, _, name = key.rpartition("/")
    check_key(name)
    with folder_below(top, above, make=make) as folder:
        yield folder, name


@contextlib.contextmanager
def folder_below(top: str, folder: str, *, make: bool = False) -> Iterator[int]:
    """A folder below another, open; the other one itself for an empty path.
    Raises as `folder_of`.
    """
    parts = check_key(folder) if folder else []
    if make:
        os.makedirs(top, exist_ok=True)
    at = os.open(top, _TOP)
    try:
        for number, part in enumerate(parts, 1):
            try:
                below = _open_folder(part, at, make=make)
            except OSError as error:
                error.filename = "/".join([top, *parts[:number]])
                raise
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def _open_folder(name: str, folder: int, *, make: bool) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    except OSError:
        if stat.S_ISLNK(os.lstat(name, dir_fd=folder).st_mode):
            raise NotPlainError(errno.ELOOP, "it is a link, and is not followed", name) from None
        raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
    return _open_folder(name, folder, make=False)


def open_below(top: str, key: str) -> int:
    """A plain file, to be read. Raises OSError, NotPlainError where it is something else."""
    with folder_of(top, key) as (folder, name):
        return open_beside(folder, name, f"{top}/{key}")


def open_beside(folder: int, name: str, place: str) -> int:
    """The same in an open folder. place: what it is called in errors."""
    try:
        fd = os.open(name, _FILE, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EMLINK, errno.EOPNOTSUPP):
            found = os.lstat(name, dir_fd=folder)
            raise _build_refusal(found.st_mode, place) from error
        error.filename = place
        raise
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), place)
    raise _build_refusal(mode, place)


def _build_refusal(mode: int, place: str) -> NotPlainError:
    code = errno.ELOOP if stat.S_ISLNK(mode) else errno.EINVAL
    return NotPlainError(code, f"it is {describe_kind(mode)}, and no file", place)


def walk_below(top: str, folder: str, *, is_patient: bool = False) -> list[Found]:
    """All below a folder that is no folder itself, in no order; nothing where it is not there.

    is_patient: folders that may not be read are passed over. Else that raises PermissionError.
    """
    passed_over = (FileNotFoundError, NotADirectoryError, *[PermissionError] * is_patient)
    found: list[Found] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        # Each from the top again: folders may be deeper than files can be open, or calls nested.
        path = f"{folder}/{prefix}".strip("/")
        with (
            contextlib.suppress(*passed_over),
            folder_below(top, path) as at,
        ):
            waiting += _look_into(at, prefix, found)
    return found


def _look_into(folder: int, prefix: str, found: list[Found]) -> list[str]:
    """Add what is in a folder; the folders in it, with a `/` at the end of each path."""
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # gone in between
                if entry.is_dir(follow_symlinks=False):
                    below.append(f"{prefix}{entry.name}/")
                    continue
                status = entry.stat(follow_symlinks=False)
                link = os.readlink(entry.name, dir_fd=folder) if entry.is_symlink() else ""
                owner, path = status.st_uid, prefix + entry.name
                found.append(Found(path, status.st_mode, status.st_size, link, owner))
    return below


def remove_below(top: str, key: str) -> None:
    """Remove a file, a link, or a folder with all that is in it; nothing where it is not there.

    Raises OSError.
    """
    waiting = [key]
    while waiting:
        path = waiting[-1]
        try:
            with folder_of(top, path) as (folder, name):
                below = _remove_or_list(name, folder, f"{top}/{path}")
        except (FileNotFoundError, NotADirectoryError):
            below = []
        waiting += [f"{path}/{entry}" for entry in below]
        if not below:
            waiting.pop()


def remove_empty(top: str, folder: str) -> bool:
    """Remove a folder that has nothing in it; whether it was there, and could be removed."""
    try:
        with folder_of(top, folder) as (above, name):
            os.rmdir(name, dir_fd=above)
    except OSError:
        return False
    return True


def _remove_or_list(name: str, folder: int, place: str) -> list[str]:
    """Remove it unless it is a folder that is not empty; what is in it then."""
    try:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            os.unlink(name, dir_fd=folder)
            return []
        with contextlib.suppress(OSError):  # as most are not empty, and it is seen below
            os.rmdir(name, dir_fd=folder)
            return []
        opened = _open_folder(name, folder, make=False)
        try:
            below = os.listdir(opened)
        finally:
            os.close(opened)
        if not below:
            os.rmdir(name, dir_fd=folder)
        return below
    except OSError as error:
        error.filename = place
        raise
