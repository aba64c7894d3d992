"""A results store in a folder, on a local disk or a shared one.

Files are put whole: written under a temporary name, then linked or renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator

from umpteen.errors import SettingsError, StoreError
from umpteen.results.base import JOB, Content, Store

__all__ = ["DirectoryStore", "open_store", "parse_address"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")


def parse_address(address: str) -> str:
    """The absolute path of a folder address, or of a `file://` one.

    Raises SettingsError for every other scheme.
    """
    scheme = _SCHEME.match(address)
    if scheme and scheme[1].lower() != "file":
        raise SettingsError(
            f"results at {scheme[0]} are not supported yet by this version",
            "use a folder, such as ./umpteen-results/{name}",
        )
    if scheme:
        from urllib.parse import unquote  # costs more to import than all else here

        address = unquote(address[scheme.end() :])
        if not address.startswith("/"):
            raise SettingsError(
                "a file:// address needs an absolute path", "write file:///folder/name"
            )
    return os.path.abspath(os.path.expanduser(address))


def open_store(address: str) -> DirectoryStore:
    """The store at an address; nothing is made there yet. Raises SettingsError."""
    return DirectoryStore(parse_address(address))


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

    def replace(self, key: str, content: bytes) -> None:
        """Put a file whole, in place of what is there."""
        path = self.path(key)
        with self._explained("write", key):
            os.replace(self._write_beside(path, content), path)

    def list(self, folder: str) -> list[str]:
        """The names in a folder, in no order; none if there is no such folder."""
        with self._explained("list", folder):
            try:
                return os.listdir(self.path(folder))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def delete(self, key: str) -> None:
        """Remove a file, if it is there."""
        with self._explained("remove", key), contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(key))

    def _write_beside(self, path: str, content: Content) -> str:
        temporary = f"{path}.{os.urandom(4).hex()}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        mode = 0o600 if path.endswith(JOB) else 0o666  # settings may name what others must not see
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
                _HINTS.get(error.errno or 0),
                path=self.path(key),
            ) from error


_HINTS = {
    errno.ENOSPC: "the disk is full: make room, then run the same command again",
    errno.EDQUOT: "your quota is used up: make room, then run the same command again",
    errno.EACCES: "choose a folder you may write to with --results",
    errno.EROFS: "the file system is read-only: choose another folder with --results",
    errno.ENOTDIR: "something in that path is a file: choose another folder with --results",
}


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
