"""The folder that copies are put into: nothing outside it is touched, nor what others made in it.

A copy is made in a folder of its own there, and is moved to its place when it is whole. Its time is
that of the task's end: by that a later call knows which files are copies, and which the user made
or changed. Folders of calls that were killed are removed by the next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from typing import Self

from umpteen.errors import InputError, StoreError
from umpteen.store.layout import JOB
from umpteen.system.plain_files import (
    NotPlainError,
    check_key,
    folder_below,
    folder_of,
    remove_below,
)

__all__ = ["Destination", "has_time", "tell_obstacle"]

_MAKING = ".umpteen-pull-"
_LOCK = "lock"
_OPEN_LOCK = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEAR_S, _COARSE_S = 0.001, 2.0


class Destination:
    """The folder while copies are put into it, as a context manager; made where there is none.

    Entering raises InputError where it is the folder of a job, StoreError where it cannot be
    written.
    """

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(folder)
        self.is_empty = False  # whether nothing was there before
        self._lock = -1
        self._making = ""

    def __enter__(self) -> Self:
        if os.path.lexists(os.path.join(self.folder, JOB)):
            message = f"{self.folder} is the folder of a job"
            raise InputError(message, "take another folder for the copies")
        with self._explained():
            os.makedirs(self.folder, exist_ok=True)
            self._clear_dead()
            self.is_empty = not os.listdir(self.folder)
            self._making = _MAKING + os.urandom(4).hex()
            with folder_of(self.folder, f"{self._making}/{_LOCK}", make=True) as (folder, name):
                self._lock = os.open(
                    name, _OPEN_LOCK | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder
                )
            with contextlib.suppress(OSError):  # where there are no locks nothing is cleared
                fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            remove_below(self.folder, self._making)
        os.close(self._lock)

    def _clear_dead(self) -> None:
        for name in os.listdir(self.folder):
            if name.startswith(_MAKING):
                with contextlib.suppress(OSError):
                    self._clear_if_dead(name)

    def _clear_if_dead(self, making: str) -> None:
        with folder_below(self.folder, making) as folder:
            try:
                lock = os.open(_LOCK, _OPEN_LOCK, dir_fd=folder)
            except FileNotFoundError:  # killed before it had one, so nothing else is in it
                os.rmdir(os.path.join(self.folder, making))
                return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_below(self.folder, making)
        finally:
            os.close(lock)

    def reserve(self, number: int) -> str:
        """Where the copy with that number is to be made."""
        return os.path.join(self.folder, self._making, str(number))

    def find(self, key: str) -> os.stat_result | None:
        """What is at a place; None where nothing is.
        Raises NotPlainError and NotADirectoryError.
        """
        try:
            with folder_of(self.folder, key) as (folder, name):
                return os.lstat(name, dir_fd=folder)
        except FileNotFoundError:
            return None

    def place(self, number: int, key: str, end_s: float, before: os.stat_result | None) -> str:
        """Move a copy to its place; what is in the way, in words, where it cannot be there.

        before: what `find` has found there, which it replaces. Raises StoreError.
        """
        with self._explained():
            try:
                self._place(str(number), key, end_s, before)
            except FileExistsError:
                return "something has come there meanwhile"
            except (NotPlainError, NotADirectoryError, IsADirectoryError) as error:
                return tell_obstacle(error)
        return ""

    def _place(self, made: str, key: str, end_s: float, before: os.stat_result | None) -> None:
        check_key(key)
        with (
            folder_below(self.folder, self._making) as making,
            folder_of(self.folder, key, make=True) as (folder, name),
        ):
            os.utime(made, (end_s, end_s), dir_fd=making, follow_symlinks=False)
            if before is None and self._link(made, making, name, folder):
                os.unlink(made, dir_fd=making)
            else:
                os.replace(made, name, src_dir_fd=making, dst_dir_fd=folder)

    def _link(self, made: str, making: int, name: str, folder: int) -> bool:
        """Give it its name if nothing has that; False where the file system has no links."""
        try:
            os.link(made, name, src_dir_fd=making, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
                raise
            return False
        return True

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"could not copy to {self.folder}: {error.strerror}"
            raise StoreError(message, path=self.folder) from error


def tell_obstacle(error: OSError) -> str:
    """What is on the way to a place."""
    if isinstance(error, NotPlainError):
        return f"{error.filename} is in the way: {error.strerror}"
    return f"{error.filename or 'a part of its path'} is in the way: it is no folder"


def has_time(found: os.stat_result, time_s: float) -> bool:
    """Whether a file has that time; some file systems keep it to a second or two."""
    apart_s = abs(found.st_mtime - time_s)
    return apart_s < _NEAR_S or (apart_s < _COARSE_S and found.st_mtime == int(found.st_mtime))
