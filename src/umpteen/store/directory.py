"""A results store in a folder, on a local disk or a shared one.

Files are put whole: written under a temporary name, then linked or renamed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from umpteen.errors import StoreError
from umpteen.store.base import Appender, Content, Glance, Store
from umpteen.store.layout import HANDED, JOB, OPTIONS_SUFFIX, STATUS_BYTES, TASKS
from umpteen.system.plain_files import (
    NEW_FILE,
    Found,
    NotPlainError,
    folder_below,
    folder_of,
    open_below,
    open_beside,
    walk_below,
)
from umpteen.system.whole_files import written_whole

__all__ = ["DirectoryStore", "RecordsFile"]

_CHUNK = 1 << 20
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


_WHOLE_MOST = 1 << 32  # bytes of one file of a store


class RecordsFile(Appender):
    """The records file of one start, appended to by its runner alone.

    What could not be written (a full disk) is kept in memory and written before anything
    else; a line that was cut in the middle is ended first, so that it harms no other.
    """

    def __init__(self, top: str, key: str) -> None:
        flags = NEW_FILE | os.O_APPEND
        self.path = f"{top}/{key}"
        with folder_of(top, key, make=True) as (folder, name):
            self.fd = os.open(name, flags, 0o644, dir_fd=folder)
        self.size = 0
        self.pending = b""
        self.synced = 0

    def append(self, lines: bytes) -> None:
        """Write whole lines, after those that are pending; raises OSError and keeps them."""
        self.pending += lines
        while self.pending:
            written = os.write(self.fd, self.pending)
            self.size += written
            self.pending = self.pending[written:]

    def flush(self) -> None:
        """Write what is pending; raises OSError and keeps it."""
        self.append(b"")

    def close(self) -> None:
        """Close the file; nothing may be pending."""
        os.close(self.fd)


class DirectoryStore(Store):
    """A folder. `address` is its absolute path."""

    def __init__(self, address: str) -> None:
        self.address = address

    def path(self, key: str) -> str:
        """Where the file is."""
        return f"{self.address}/{key}"

    def read(self, key: str, offset: int = 0, size: int = -1) -> bytes | None:
        """At most `size` bytes of the file from `offset` on; None if there is no such file."""
        with self._explained("read", key):
            try:
                with self._open(key) as file:
                    if size < 0:
                        self._check_size(file, key)
                    if offset:
                        file.seek(offset)
                    return file.read(size)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read_own(self, key: str) -> tuple[bytes | None, bool]:
        """The file, and whether it is this user's, and others may not write to it."""
        with self._explained("read", key):
            try:
                with self._open(key) as file:
                    found = os.fstat(file.fileno())
                    is_own = found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE
                    self._check_size(file, key)
                    return file.read(), is_own
            except (FileNotFoundError, NotADirectoryError):
                return None, False

    def read_tail(self, key: str, size: int) -> bytes | None:
        """The last `size` bytes of the file, or all of it; None if there is no such file."""
        with self._explained("read", key):
            try:
                with self._open(key) as file:
                    length = file.seek(0, os.SEEK_END)
                    file.seek(max(0, length - size))
                    return file.read()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def _open(self, key: str) -> io.FileIO:
        return io.FileIO(open_below(self.address, key), "rb")

    def _check_size(self, file: io.FileIO, key: str) -> None:
        """Raises NotPlainError where it is nothing to be read whole, as one that is all holes."""
        if os.fstat(file.fileno()).st_size > _WHOLE_MOST:
            raise NotPlainError(errno.EFBIG, "it is larger than 4 GiB", self.path(key))

    def create(self, key: str, content: Content) -> bool:
        """Put a file whole where none is; False, and nothing done, if there is one."""
        with self._explained("write", key), self._folder_of(key) as (folder, name):
            temporary = _write_beside(folder, name, key, content)
            try:
                os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
                    raise
                return _create_without_links(folder, name, temporary)
            finally:
                os.unlink(temporary, dir_fd=folder)
        return True

    def replace(self, key: str, content: Content) -> None:
        """Put a file whole, in place of what is there."""
        with self._explained("write", key), self._folder_of(key) as (folder, name):
            temporary = _write_beside(folder, name, key, content)
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)

    def open_records(self, key: str) -> RecordsFile:
        """New records of a start; OSError where they cannot be made."""
        return RecordsFile(self.address, key)

    def fetch(self, key: str, path: str) -> bool:
        """Copy a file to `path` on this machine, put whole; False if there is no such file."""
        with self._explained(f"copy to {path}", key):
            try:
                source = self._open(key)
            except (FileNotFoundError, NotADirectoryError):
                return False
            with source, written_whole(path) as temporary, open(temporary, "xb") as target:
                shutil.copyfileobj(source, target, _CHUNK)
        return True

    def put(self, key: str, path: str) -> None:
        """Copy the file at `path` of this machine into the store, put whole."""
        with (
            self._explained(f"copy {path} to", key),
            open(path, "rb") as source,
            self._folder_of(key) as (folder, name),
        ):
            parts = iter(functools.partial(source.read, _CHUNK), b"")
            temporary = _write_beside(folder, name, key, parts)
            try:
                os.chmod(temporary, stat.S_IMODE(os.fstat(source.fileno()).st_mode), dir_fd=folder)
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(temporary, dir_fd=folder)
                raise

    def move(self, source: str, target: str) -> None:
        """Give a file, or a folder with all below it, another key; nothing if it is not there."""
        with self._explained(f"move to {self.path(target)}", source):
            try:
                with folder_of(self.address, source) as (here, old):
                    os.lstat(old, dir_fd=here)
                    with self._folder_of(target) as (there, new):
                        os.rename(old, new, src_dir_fd=here, dst_dir_fd=there)
            except (FileNotFoundError, NotADirectoryError):
                return

    def delete(self, key: str) -> None:
        """Remove a file, if it is there."""
        with (
            self._explained("remove", key),
            contextlib.suppress(FileNotFoundError),
            folder_of(self.address, key) as (folder, name),
        ):
            os.unlink(name, dir_fd=folder)

    def walk(self, folder: str) -> list[tuple[str, int]]:
        """Every file below a folder, in no order: its path relative to that, and its bytes.

        A link is a file, whatever it points to.
        """
        return [(found.path, found.size) for found in self.look(folder)]

    def look(self, folder: str) -> list[Found]:
        """The same with what each file is."""
        with self._explained("list", folder):
            return walk_below(self.address, folder)

    def names(self, folder: str) -> list[str]:
        """The names in a folder, in no order; none if there is no such folder."""
        with self._explained("list", folder):
            try:
                with folder_below(self.address, folder) as opened:
                    return os.listdir(opened)
            except (FileNotFoundError, NotADirectoryError):
                return []

    def glance(self, folders: Sequence[str], name: str) -> list[Glance]:
        """At many folders of tasks; name: of their status file."""
        return [self._glance(folder, name) for folder in folders]

    def _glance(self, folder: str, name: str) -> Glance:
        with self._explained("read", folder):
            try:
                with (
                    folder_below(self.address, folder) as opened,
                    io.FileIO(open_beside(opened, name, self.path(folder)), "rb") as file,
                ):
                    return Glance(file.read(STATUS_BYTES), _is_there("stdout", opened))
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError, NotPlainError):
                return Glance(None, has_stdout=False)

    def _folder_of(self, key: str) -> AbstractContextManager[tuple[int, str]]:
        return folder_of(self.address, key, make=True)

    @contextlib.contextmanager
    def _explained(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        except NotPlainError as error:
            message = f"{error.filename} is damaged: {error.strerror}"
            raise StoreError(message, path=self.path(key), damaged=True) from error
        except MemoryError as error:
            message = f"{self.path(key)} is larger than the memory that there is for it"
            raise StoreError(message, path=self.path(key), damaged=True) from error
        except OSError as error:
            raise StoreError(
                f"could not {doing} {self.path(key)}: {error.strerror}",
                (_READ_HINTS if doing in _READING else _HINTS).get(error.errno or 0),
                path=self.path(key),
            ) from error


_READING = ("read", "list")
_READ_HINTS = {
    errno.EACCES: "you may not read it; its owner can allow that: chmod -R g+rX FOLDER",
    errno.ENOTDIR: "something in that path is a file: give the folder of a job's results",
}
_HINTS = {
    errno.ENOSPC: "the disk is full: make room, then run the same command again",
    errno.EDQUOT: "your quota is used up: make room, then run the same command again",
    errno.EACCES: "you may not write there; umpteen run takes another folder: --results FOLDER",
    errno.EROFS: "it is read-only; umpteen run takes another folder: --results FOLDER",
    errno.ENOTDIR: "a part of that path is a file; umpteen run takes another: --results FOLDER",
}


def _write_beside(folder: int, name: str, key: str, content: Content) -> str:
    """A temporary file beside the one it is for, which has that content; its name."""
    temporary = f"{name}.{os.urandom(4).hex()}.new"
    # Settings may name what others must not see, and hand-ins what is done in our name.
    mode = 0o644 if key.startswith((HANDED, TASKS)) else 0o666
    mode = 0o600 if key.endswith((JOB, OPTIONS_SUFFIX)) else mode
    fd = os.open(temporary, NEW_FILE, mode, dir_fd=folder)
    try:
        try:
            for part in [content] if isinstance(content, (bytes, bytearray)) else content:
                _write_all(fd, part)
        finally:
            os.close(fd)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise
    return temporary


def _is_there(name: str, folder: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        os.lstat(name, dir_fd=folder)
        return True
    return False


def _create_without_links(folder: int, name: str, temporary: str) -> bool:
    """For file systems that have no hard links: exclusive, but not put whole."""
    try:
        mode = stat.S_IMODE(os.lstat(temporary, dir_fd=folder).st_mode)
        target = os.open(name, NEW_FILE, mode, dir_fd=folder)
    except FileExistsError:
        return False
    source = open_beside(folder, temporary, temporary)
    with open(target, "wb") as written, open(source, "rb") as content:
        shutil.copyfileobj(content, written)
    return True


def _write_all(fd: int, content: bytes | bytearray) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
