"""Files as a whole: whoever reads one sees all of its content, or what was there before."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

__all__ = ["read_file", "replace_file", "written_whole"]

_MOST = 1 << 32  # bytes: more is nothing that somebody wrote, as one that is all holes


@contextlib.contextmanager
def written_whole(path: str, *, makes_folder: bool = True) -> Iterator[str]:
    """A temporary name beside `path`, for the caller to write; then it takes the place of `path`.

    Where an error is raised the temporary file is removed, and `path` is as it was. makes_folder:
    whether the folder of `path` is made where it is missing.
    """
    if makes_folder:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = f"{path}.{os.urandom(4).hex()}.new"
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def replace_file(path: str, content: str, mode: int = 0o666) -> None:
    """Write a text file whole, in a folder that is there; raises OSError.

    mode: its permissions, before the umask takes some away.
    """

    def create(name: str, flags: int) -> int:
        return os.open(name, flags, mode)

    with (
        written_whole(path, makes_folder=False) as temporary,
        open(temporary, "x", encoding="utf-8", opener=create) as file,
    ):
        file.write(content)


def read_file(path: str) -> bytes:
    """A whole file; raises OSError, also where it is larger than 4 GiB or than memory."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > _MOST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        try:
            return file.read()
        except MemoryError:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), path) from None
