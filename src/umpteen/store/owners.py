"""Whose a folder of results is: nothing is run in what belongs to somebody else.

Whoever owns a folder may put a link in place of anything in it, and so have us write where they
could not. Our own folders are trusted, and root's, which can do anything anyway. Standard
library alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from umpteen.errors import StoreError
from umpteen.model.variables import SUDO_UID
from umpteen.store.layout import OWN_FOLDER
from umpteen.system.plain_files import NEW_FILE, NotPlainError, folder_below

__all__ = ["check_folder", "own_ids", "refuse_strangers"]

_HINT = (
    "take another folder with --results; if it shall be yours, its owner or root can chown -R it"
)


def own_ids() -> set[int]:
    """The users whose folders are trusted: who runs this, who called sudo to, and root."""
    own = {0, os.geteuid()}
    called = os.environ.get(SUDO_UID, "")
    if os.geteuid() == 0 and called.isdecimal():
        own.add(int(called))
    return own


def refuse_strangers(address: str) -> None:
    """Raises StoreError where a store's folder, or `.umpteen` in it, is not ours to write in."""
    _check_links(address)
    own = own_ids()
    for path in (address, f"{address}/{OWN_FOLDER}"):
        try:
            found = os.stat(path)
        except OSError:  # there is none yet, or who comes after us will say what is wrong
            return
        if found.st_uid not in own:
            own |= _ask_file_system(address)
        if found.st_uid not in own:
            message = f"{path} belongs to {_name(found.st_uid)}: nothing is run in others' folders"
            raise StoreError(message, _HINT, path=path)


def check_folder(path: str, own: set[int]) -> None:
    """Raises NotPlainError where it is a link, or belongs to nobody of `own`."""
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise NotPlainError(errno.ELOOP, "it is a link, and is not followed", path)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if found.st_uid not in own:
        raise NotPlainError(errno.EPERM, f"it belongs to {_name(found.st_uid)}", path)


def _check_links(address: str) -> None:
    """Raises StoreError where the way to the store leads through a link that anybody may have put.

    That is one of another's in a folder in which all may write, or as the store itself.
    """
    own = own_ids()
    parts = address.split("/")
    for count in range(2, len(parts) + 1):
        path = "/".join(parts[:count])
        try:
            found = os.lstat(path)
            if not stat.S_ISLNK(found.st_mode) or found.st_uid in own:
                continue
            is_open = os.stat(os.path.dirname(path)).st_mode & stat.S_IWOTH
        except OSError:
            return
        if is_open or count == len(parts):
            message = f"{path} is a link of {_name(found.st_uid)}, and is not followed"
            raise StoreError(
                message, f"give the folder itself: {os.path.realpath(path)}", path=path
            )


def _ask_file_system(folder: str) -> set[int]:
    """Who we are where files are not shown as ours: on NFS root may be nobody."""
    name = f".{os.urandom(6).hex()}.new"
    with contextlib.suppress(OSError), folder_below(folder, "") as opened:
        fd = os.open(name, NEW_FILE, 0o600, dir_fd=opened)
        try:
            return {os.fstat(fd).st_uid}
        finally:
            os.close(fd)
            os.unlink(name, dir_fd=opened)
    return set()


def _name(uid: int) -> str:
    import pwd  # which few need

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
