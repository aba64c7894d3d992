"""A results store in a folder, on a local disk or a shared one.

Files are put whole: written under a temporary name, then linked or renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator

from umpteen.errors import StoreError
from umpteen.results.base import JOB, OPTIONS_SUFFIX, Appender, Content, Store

__all__ = ["DirectoryStore", "RecordsFile", "written_whole"]


class RecordsFile(Appender):
    """The records file of one start, appended to by its runner alone.

    What could not be written (a full disk) is kept in memory and written before anything
    else; a line that was cut in the middle is ended first, so that it harms no other.
    """

    def __init__(self, path: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self.fd = os.open(path, flags, 0o644)
        self.path = path
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
                with open(self.path(key), "rb", buffering=0) as file:
                    if offset:
                        file.seek(offset)
                    return file.read(size)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read_tail(self, key: str, size: int) -> bytes | None:
        """The last `size` bytes of the file, or all of it; None if there is no such file."""
        with self._explained("read", key):
            try:
                with open(self.path(key), "rb", buffering=0) as file:
                    length = file.seek(0, os.SEEK_END)
                    file.seek(max(0, length - size))
                    return file.read()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def create(self, key: str, content: Content) -> bool:
        """Put a file whole where none is; False, and nothing done, if there is one."""
        path = self.path(key)
        with self._explained("write", key):
            temporary = self._write_beside(path, content)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
                    raise
                return _create_without_links(path, temporary)
            finally:
                os.unlink(temporary)
        return True

    def replace(self, key: str, content: Content) -> None:
        """Put a file whole, in place of what is there."""
        path = self.path(key)
        with self._explained("write", key):
            os.replace(self._write_beside(path, content), path)

    def open_records(self, key: str) -> RecordsFile:
        """New records of a start; OSError where they cannot be made."""
        return RecordsFile(self.path(key))

    def fetch(self, key: str, path: str) -> bool:
        """Copy a file to `path` on this machine, put whole; False if there is no such file."""
        with self._explained(f"copy to {path}", key):
            try:
                source = open(self.path(key), "rb")  # noqa: SIM115 -- closed by the next line
            except (FileNotFoundError, NotADirectoryError):
                return False
            with source, written_whole(path) as temporary, open(temporary, "xb") as target:
                shutil.copyfileobj(source, target)
        return True

    def put(self, key: str, path: str) -> None:
        """Copy the file at `path` of this machine into the store, put whole."""
        target = self.path(key)
        with self._explained(f"copy {path} to", key), written_whole(target) as temporary:
            shutil.copy(path, temporary)

    def move(self, source: str, target: str) -> None:
        """Give a file, or a folder with all below it, another key; nothing if it is not there."""
        old, new = self.path(source), self.path(target)
        with self._explained(f"move to {new}", source):
            if os.path.lexists(old):
                os.makedirs(os.path.dirname(new), exist_ok=True)
                os.rename(old, new)

    def delete(self, key: str) -> None:
        """Remove a file, if it is there."""
        with self._explained("remove", key), contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(key))

    def walk(self, folder: str) -> list[tuple[str, int]]:
        """Every file below a folder, in no order: its path relative to that, and its bytes.

        A link is a file, whatever it points to.
        """
        found: list[tuple[str, int]] = []
        with self._explained("list", folder):
            _walk(self.path(folder), "", found)
        return found

    def list(self, folder: str) -> list[str]:
        """The names in a folder, in no order; none if there is no such folder."""
        with self._explained("list", folder):
            try:
                return os.listdir(self.path(folder))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def _write_beside(self, path: str, content: Content) -> str:
        temporary = f"{path}.{os.urandom(4).hex()}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        # Settings may name what others must not see.
        mode = 0o600 if path.endswith((JOB, OPTIONS_SUFFIX)) else 0o666
        try:
            fd = os.open(temporary, flags, mode)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            fd = os.open(temporary, flags, mode)
        try:
            with os.fdopen(fd, "wb", buffering=0) as file:
                for part in [content] if isinstance(content, (bytes, bytearray)) else content:
                    _write_all(file.fileno(), part)
        except BaseException:
            os.unlink(temporary)
            raise
        return temporary

    @contextlib.contextmanager
    def _explained(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
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


@contextlib.contextmanager
def written_whole(path: str) -> Iterator[str]:
    """A temporary name beside `path`, which has that name if all went well; folders are made."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = f"{path}.{os.urandom(4).hex()}.new"
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _walk(folder: str, prefix: str, found: list[tuple[str, int]]) -> None:
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _walk(entry.path, f"{prefix}{entry.name}/", found)
                continue
            with contextlib.suppress(FileNotFoundError):  # gone in between
                found.append((prefix + entry.name, entry.stat(follow_symlinks=False).st_size))


def _create_without_links(path: str, temporary: str) -> bool:
    """For file systems that have no hard links: exclusive, but not put whole."""
    try:
        target = open(path, "xb")  # noqa: SIM115 -- that it is there already is an answer
    except FileExistsError:
        return False
    with target, open(temporary, "rb") as source:
        shutil.copyfileobj(source, target)
    return True


def _write_all(fd: int, content: bytes | bytearray) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
