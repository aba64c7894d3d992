"""Puts the archive of a synced folder onto this machine: once, however many ask for it.

`submission.archive` makes that archive. Here are known a digest and how to fetch an archive;
nothing of stores, jobs or runners. Standard library alone.

A copy is shared by all jobs that sync the same content, and lies at
`synced/DIGEST/content` beside the leases. `synced/DIGEST/listing` says what was unpacked:
a start that finds one of those files changed or gone sets the copy aside and unpacks anew,
so that no job gets what another one spoilt. What commands add is left there.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Optional, cast

from umpteen.errors import StoreError
from umpteen.model.archive import CHUNK, DIGEST_BYTES, stays_inside
from umpteen.runner.lease import SYNCED
from umpteen.system.locks import leases_folder, local_lock, lock_file
from umpteen.system.plain_files import walk_below

__all__ = [
    "copy_into",
    "link_at",
    "list_unused",
    "mark_used",
    "remove_unused",
    "synced_folder",
    "unpack_once",
]

_DIGEST = re.compile(f"[0-9a-f]{{{2 * DIGEST_BYTES}}}")
_CONTENT, _LISTING = "content", "listing"
_OUR_LINK = re.compile(f"/.*/{SYNCED}/{_DIGEST.pattern}/{_CONTENT}(/[^/]*)?")
_MAKING, _ASIDE, _LOCK = ".new", ".old", ".lock"
_FORGET_S = 3600.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_MODE = 0o777

# What was unpacked, by path, parents first: size and change time in ns; None for a folder.
_Listing = dict[str, Optional[list[int]]]


def unpack_once(digest: str, fetch: Callable[[str], None], root: str | None = None) -> str:
    """The folder on this machine that holds what was synced; fetched and unpacked if need be.

    fetch: puts the archive at the path that it is given. root: `synced` beside the leases.
    Raises StoreError where the archive is damaged or holds what could reach outside, and
    leaves nothing then; and whatever `fetch` raises.
    """
    if not _DIGEST.fullmatch(digest):
        raise StoreError(f"{digest!r} is no digest of a synced folder")
    folder = os.path.join(root or os.path.join(leases_folder(), SYNCED), digest)
    content = os.path.join(folder, _CONTENT)
    with _explained("unpack to", folder):
        os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
        with lock_file(folder + _LOCK, shared=True):
            if _is_whole(folder):
                return content
        with lock_file(folder + _LOCK):
            if not _is_whole(folder):
                _renew(folder, digest, fetch)
    return content


def synced_folder(digest: str) -> str:
    """Where `unpack_once` puts what has that digest."""
    return os.path.join(leases_folder(), SYNCED, digest, _CONTENT)


def mark_used(content: str) -> None:
    """Say that a folder of `unpack_once` is in use, so that `remove_unused` leaves it."""
    with contextlib.suppress(OSError):
        os.utime(_listing_path(content))


def list_unused(older_than_s: float) -> dict[str, int]:
    """The folders that `remove_unused` would remove, and their bytes."""
    root = os.path.join(leases_folder(), SYNCED)
    found: dict[str, int] = {}
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        folder = os.path.join(root, name)
        if _DIGEST.match(name) and os.path.isdir(folder) and _age_s(folder) >= older_than_s:
            found[name] = sum(file.size for file in walk_below(root, name))
    return found


def remove_unused(older_than_s: float, root: str | None = None) -> int:
    """Remove copies that no start has used for so long, and what dead ones left; how many."""
    root = root or os.path.join(leases_folder(), SYNCED)
    with _explained("clear", root):
        names = sorted(os.listdir(root)) if os.path.isdir(root) else []
        return sum(_remove_unused(root, digest, older_than_s) for digest in _list_digests(names))


def copy_into(content: str, destination: str) -> None:
    """Put a folder of `unpack_once` into another one, over what is there.

    A file that is equal is left alone, one that differs is put whole; nothing is removed.
    One process at a time. Raises StoreError, naming the path, where a folder stands in the
    place of a file or the reverse, or where a folder is a link.
    """
    destination = os.path.realpath(os.path.expanduser(destination))
    name = hashlib.blake2b(os.fsencode(destination), digest_size=8).hexdigest()
    with _explained("write to", destination), local_lock(f"place-{name}"):
        listing = _read_listing(_listing_path(content))
        if listing is None:
            raise StoreError(f"{content} is no folder that was unpacked", path=content)
        os.makedirs(destination, exist_ok=True)
        _forget_torn(destination)
        for path, found in listing.items():
            source, target = os.path.join(content, path), os.path.join(destination, path)
            if found is None:
                _place_folder(source, target)
            else:
                _place_file(source, target, destination)


def link_at(content: str, home: str) -> None:
    """Make a link to a folder of `unpack_once` where that was on the machine it comes from.

    home: that path; a folder's with / at its end, else that of the only file. What is there
    already is left alone, but for an older link of ours; so is a place where this user may
    make nothing. Raises StoreError.
    """
    path = home.rstrip("/")
    target = content if home.endswith("/") else os.path.join(content, os.path.basename(path))
    with _explained("make", path):
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _put_link(target, path)
        except OSError as error:
            if error.errno not in _FORBIDDEN:
                raise


def _put_link(target: str, path: str) -> None:
    """One that replaces another is there from one moment to the next."""
    try:
        found = os.readlink(path)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # somebody else was faster
            os.symlink(target, path)
        return
    except OSError as error:
        if error.errno == errno.EINVAL:  # it is no link
            return
        raise
    if found != target and _OUR_LINK.fullmatch(found):
        temporary = f"{path}.{os.urandom(4).hex()}{_MAKING}"
        os.symlink(target, temporary)
        os.replace(temporary, path)


# --- a copy -------------------------------------------------------------------------------


def _is_whole(folder: str) -> bool:
    """Whether all that was unpacked is there and as it was; then it is marked as used."""
    listing = _read_listing(os.path.join(folder, _LISTING))
    if listing is None:
        return False
    content = os.path.join(folder, _CONTENT)
    try:
        is_whole = all(
            _look_at(os.path.join(content, path)) == found for path, found in listing.items()
        )
    except OSError:
        return False
    if is_whole:
        mark_used(content)
    return is_whole


def _look_at(path: str) -> list[int] | None:
    """What the listing has of a file or link; None of a folder."""
    found = os.lstat(path)
    return None if stat.S_ISDIR(found.st_mode) else [found.st_size, found.st_ctime_ns]


def _listing_path(content: str) -> str:
    return os.path.join(os.path.dirname(content), _LISTING)


def _read_listing(path: str) -> _Listing | None:
    try:
        with open(path, encoding="utf-8") as file:
            found: _Listing = json.load(file)
    except (OSError, ValueError):
        return None
    return found


def _renew(folder: str, digest: str, fetch: Callable[[str], None]) -> None:
    """Unpack beside, then rename; only with the lock held."""
    _remove_torn(folder)
    making = f"{folder}.{os.urandom(4).hex()}{_MAKING}"
    os.mkdir(making, 0o700)
    try:
        archive = os.path.join(making, "archive")
        fetch(archive)
        listing = _unpack(archive, os.path.join(making, _CONTENT), digest)
        os.unlink(archive)
        with open(os.path.join(making, _LISTING), "w", encoding="utf-8") as file:
            json.dump(listing, file)
        _set_aside(folder)
        os.rename(making, folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def _set_aside(folder: str) -> None:
    """Out of the way of the next, but not removed: commands may be at work in it."""
    if os.path.lexists(folder):
        mark_used(os.path.join(folder, _CONTENT))
        os.rename(folder, f"{folder}.{os.urandom(4).hex()}{_ASIDE}")


def _remove_torn(folder: str) -> None:
    """What processes left that died while they unpacked; only with the lock held."""
    root, digest = os.path.split(folder)
    for name in os.listdir(root):
        if name.startswith(digest + ".") and name.endswith(_MAKING):
            shutil.rmtree(os.path.join(root, name), ignore_errors=True)


def _list_digests(names: list[str]) -> list[str]:
    return sorted({name[: 2 * DIGEST_BYTES] for name in names if _DIGEST.match(name)})


def _remove_unused(root: str, digest: str, older_than_s: float) -> int:
    lock = os.path.join(root, digest + _LOCK)
    with lock_file(lock):
        _remove_torn(os.path.join(root, digest))
        names = {name for name in os.listdir(root) if name.startswith(digest)} - {digest + _LOCK}
        old = [name for name in names if _age_s(os.path.join(root, name)) >= older_than_s]
        for name in old:
            # Renamed first, so that one that is half removed is never taken for whole.
            torn = os.path.join(root, f"{digest}.{os.urandom(4).hex()}{_MAKING}")
            os.rename(os.path.join(root, name), torn)
            shutil.rmtree(torn, ignore_errors=True)
        if len(old) == len(names):
            os.unlink(lock)
    return len(old)


def _age_s(folder: str) -> float:
    listing = os.path.join(folder, _LISTING)
    used = os.stat(listing if os.path.exists(listing) else folder)
    return time.time() - used.st_mtime


# --- an archive ---------------------------------------------------------------------------


class _Hashed:
    """A stream for `tarfile` that keeps a digest of all that was read."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file, self._hash = file, hashlib.blake2b(digest_size=DIGEST_BYTES)

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    def hexdigest(self) -> str:
        """Of the whole stream, whatever of it has not been read yet."""
        while self.read(CHUNK):
            continue
        return self._hash.hexdigest()


def _unpack(archive: str, folder: str, digest: str) -> _Listing:
    """Unpack into a new folder and give what is there; raises StoreError."""
    os.mkdir(folder, 0o700)
    listing: _Listing = {}
    try:
        with gzip.open(archive, "rb") as file:
            hashed = _Hashed(file)
            stream = cast("IO[bytes]", hashed)
            with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="strict") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
                    _add(tar, member, folder, listing)
            found = hashed.hexdigest()
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        raise _damaged(digest, str(error)) from error
    if found != digest:
        raise _damaged(digest, f"its digest is {found}")
    return listing


def _damaged(digest: str, why: str) -> StoreError:
    return StoreError(
        f"the archive {digest} of a synced folder is damaged: {why}",
        "run the job again from where that folder is, which sends it anew",
        damaged=True,
    )


def _add(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: str, listing: _Listing) -> None:
    """One member, if it is as `submission.archive` makes them: parents first, each name once."""
    name = member.name
    if problem := _find_problem(member, listing):
        shown = f"{name!r}, {problem}"
        message = f"the archive of a synced folder holds {shown}; nothing was unpacked"
        raise StoreError(message, damaged=True)
    path = os.path.join(folder, name)
    try:
        if member.isdir():
            os.mkdir(path)
            os.chmod(path, member.mode & _MODE | 0o700)
        elif member.issym():
            os.symlink(member.linkname, path)
        else:
            _write(tar, member, path)
    except FileExistsError:  # where names differ only by what this file system takes as the same
        raise StoreError(f"{name!r} of a synced folder is there twice on this disk") from None
    listing[name] = _look_at(path)


def _find_problem(member: tarfile.TarInfo, listing: _Listing) -> str | None:
    """Why a member is refused; None where it is not."""
    name = member.name
    parent = name.rpartition("/")[0]
    if name.startswith("/"):
        return "an absolute path"
    if ".." in name.split("/"):
        return "a path that leaves the folder"
    if not {"", "."}.isdisjoint(name.split("/")) or "\0" in name:
        return "which is no name of a file"
    if name in listing:
        return "which is there twice"
    if parent and (parent not in listing or listing[parent] is not None):
        return "which is not in a folder of the archive"
    if member.issym():
        inside = member.linkname and stays_inside(name, member.linkname)
        return None if inside else f"a link to {member.linkname!r}, outside of the folder"
    if member.islnk():
        return "a hard link"
    if member.issparse():
        return "a file with holes"
    return None if member.isdir() or member.type == tarfile.REGTYPE else "which is no plain file"


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    source = tar.extractfile(member)
    assert source is not None
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        shutil.copyfileobj(source, file, CHUNK)
        os.fchmod(file.fileno(), member.mode & _MODE | 0o400)


# --- a place of the user's own ------------------------------------------------------------


def _place_folder(source: str, target: str) -> None:
    try:
        os.mkdir(target)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(target).st_mode):
            raise _occupied(target, "a folder") from None
    else:
        os.chmod(target, stat.S_IMODE(os.stat(source).st_mode))


def _place_file(source: str, target: str, destination: str) -> None:
    """A file or link, written under a name of our own at the top, then renamed."""
    wanted = os.lstat(source)
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(target)
        if stat.S_ISDIR(found.st_mode):
            raise _occupied(target, "a file")
        if _are_equal(source, wanted, target, found):
            return
    temporary = os.path.join(destination, f".umpteen-{os.urandom(8).hex()}{_MAKING}")
    try:
        if stat.S_ISLNK(wanted.st_mode):
            os.symlink(os.readlink(source), temporary)
        else:
            shutil.copyfile(source, temporary)
            os.chmod(temporary, stat.S_IMODE(wanted.st_mode))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _are_equal(
    one: str, its_status: os.stat_result, other: str, other_status: os.stat_result
) -> bool:
    """Of two files, or two links."""
    if stat.S_ISLNK(its_status.st_mode):
        return stat.S_ISLNK(other_status.st_mode) and os.readlink(one) == os.readlink(other)
    is_alike = its_status.st_mode == other_status.st_mode
    return is_alike and filecmp.cmp(one, other, shallow=False)


def _occupied(path: str, wanted: str) -> StoreError:
    return StoreError(
        f"{path} stands where {wanted} of a synced folder should be",
        "remove it, or sync to another folder",
        path=path,
    )


def _forget_torn(folder: str) -> None:
    """What a process left that died while it placed a file; another machine's may be at work."""
    for name in os.listdir(folder):
        if re.fullmatch(rf"\.umpteen-[0-9a-f]{{16}}\{_MAKING}", name):
            with contextlib.suppress(OSError):
                path = os.path.join(folder, name)
                if time.time() - os.lstat(path).st_mtime > _FORGET_S:
                    os.unlink(path)


@contextlib.contextmanager
def _explained(doing: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"could not {doing} {path}: {error.strerror or error}",
            "make room, then run the same command again" if error.errno in _FULL else None,
            path=path,
        ) from error
