"""Makes one archive of a folder, or of a single file, named by a digest of what is in it.

Takes a folder or a file, gives the digest and the parts of a tar.gz. Equal names, contents, modes
and links give equal digests, whenever and wherever they were copied to. Knows nothing of stores or
jobs; `runner.synced` unpacks it on the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

from umpteen.errors import InputError
from umpteen.model.archive import CHUNK, DIGEST_BYTES, stays_inside
from umpteen.store.layout import JOB
from umpteen.submission.ignore import IgnoreRules

__all__ = ["Packed", "measure", "pack"]

_GIT = ".git"
_CACHES = frozenset(
    (".idea", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__")
)
_RULES, _OWN_RULES = ".gitignore", ".umpteenignore"
_MODE = 0o777
_LEVEL = 3  # of compression: what is packed is mostly small, or cannot be made smaller
_GZIP = 16 + zlib.MAX_WBITS  # with a header that has neither time nor name
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a named pipe"}
_NOTHING: Mapping[str, str | None] = {}
_LEAVE_OUT = f"leave it out with a line in {_OWN_RULES}"

# Is called now and then with the files and bytes so far.
Progress = Callable[[int, int], None]


class Packed(NamedTuple):
    """What a folder is called by, and how much is in it.

    digest: the blake2b of the tar in the archive, 40 hex digits. files: links are counted,
    folders are not. left_out: what rules leave out, folders with a `/` behind. outward: links
    that lead out of the folder, each with where to.
    """

    digest: str
    files: int
    size_bytes: int
    left_out: Sequence[str] = ()
    outward: Sequence[tuple[str, str]] = ()


class _Entry(NamedTuple):
    """A file, link or folder, by its path below the source.

    rules: of the `.gitignore` files above it, the nearest first, each with where the paths
    that it judges begin.
    """

    path: str
    found: os.stat_result
    rules: tuple[tuple[int, IgnoreRules], ...] = ()


def measure(
    source: str,
    *,
    name: str | None = None,
    exclude: Sequence[str] = (),
    instead: Mapping[str, str | None] = _NOTHING,
    keeps_links: bool = False,
    on_progress: Progress | None = None,
) -> Packed:
    """Read a folder, and write nothing.

    name: of the only file, where the source is one. exclude: absolute paths that stay out, such
    as the job's own results. instead: names at the top, each with the path of the file that
    stands for it, or None where it stays out. keeps_links: links may lead out of the folder.
    Raises InputError, naming the path, for what cannot be packed.
    """
    folder = _open_source(source, name, exclude, instead, keeps_links)
    tar = _Tar(folder, on_progress)
    for _ in tar.parts():
        continue
    return tar.packed()


def pack(
    source: str,
    digest: str,
    *,
    name: str | None = None,
    exclude: Sequence[str] = (),
    instead: Mapping[str, str | None] = _NOTHING,
    keeps_links: bool = False,
    on_progress: Progress | None = None,
) -> Iterator[bytes]:
    """The parts of the archive of a folder. digest: what `measure` gave with the same arguments.

    Raises InputError at the end where the folder has changed since: then the parts are of no use.
    """
    tar = _Tar(_open_source(source, name, exclude, instead, keeps_links), on_progress)
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    for part in tar.parts():
        if compressed := compressor.compress(part):
            yield compressed
    if tar.packed().digest != digest:
        raise InputError("changed while it was being read", "run the command again", file=source)
    yield compressor.flush()


class _Tar:
    """The tar of one folder, in parts, and what was in it so far."""

    def __init__(self, folder: _Folder, on_progress: Progress | None) -> None:
        self._folder = folder
        self._on_progress = on_progress
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._files = self._bytes = 0

    def packed(self) -> Packed:
        """Of the parts so far."""
        folder = self._folder
        counts = self._hash.hexdigest(), self._files, self._bytes
        return Packed(*counts, tuple(sorted(folder.left_out)), tuple(sorted(folder.outward)))

    def parts(self) -> Iterator[bytes]:
        """None much larger than a chunk; raises InputError."""
        for part in self._list_parts():
            self._hash.update(part)
            yield part

    def _list_parts(self) -> Iterator[bytes]:
        for entry in self._folder.walk():
            if stat.S_ISREG(entry.found.st_mode):
                yield from self._read_file(entry.path)
            else:
                yield self._folder.build_header(entry.path, entry.found)
            if not stat.S_ISDIR(entry.found.st_mode):
                self._count(files=1)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _read_file(self, path: str) -> Iterator[bytes]:
        size = 0
        with self._folder.open(path) as file:
            before = os.fstat(file.fileno())
            yield self._folder.build_header(path, before)
            while chunk := file.read(CHUNK):
                size += len(chunk)
                if size > before.st_size:
                    break
                yield chunk
                self._count(size_bytes=len(chunk))
            after = os.fstat(file.fileno())
        if size != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
            hint = f"run the command again, or {_LEAVE_OUT}"
            raise self._folder.refuse(path, "changed while it was being read", hint)
        yield bytes(-size % tarfile.BLOCKSIZE)

    def _count(self, *, files: int = 0, size_bytes: int = 0) -> None:
        self._files += files
        self._bytes += size_bytes
        if self._on_progress:
            self._on_progress(self._files, self._bytes)


class _Folder:
    """What goes in of a source folder. Paths are those below it.

    left_out, outward: as in `Packed`, of what was looked at so far.
    """

    def __init__(
        self,
        source: str,
        exclude: Sequence[str],
        instead: Mapping[str, str | None],
        keeps_links: bool,
    ) -> None:
        self._source = source
        self._top = _check_source(source)
        self._instead = {name: path for name, path in instead.items() if path is not None}
        self._excluded = _find_excluded(source, self._top, exclude)
        self._excluded |= instead.keys() - self._instead.keys()
        self._keeps_links = keeps_links
        self.left_out: list[str] = []
        self.outward: list[tuple[str, str]] = []
        self._own_rules = self._read_rules(_OWN_RULES)

    def walk(self) -> Iterator[_Entry]:
        """All of it, parents first, in the order of their names; raises InputError."""
        waiting = self._list(_Entry("", os.stat(self._top)))
        while waiting:
            entry = waiting.pop()
            yield entry
            if stat.S_ISDIR(entry.found.st_mode):
                waiting += self._list(entry)

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """A plain file."""
        with self._explained(path), open(os.open(self._at(path), _READ), "rb", 0) as file:
            yield file

    def build_header(self, path: str, found: os.stat_result) -> bytes:
        """What stands before a member's content in a tar; raises InputError."""
        self._check_text(path, path)
        member = tarfile.TarInfo(path)
        member.mode = stat.S_IMODE(found.st_mode) & _MODE
        if stat.S_ISDIR(found.st_mode):
            member.type, member.mode = tarfile.DIRTYPE, member.mode | 0o700
        elif stat.S_ISLNK(found.st_mode):
            member.type, member.mode = tarfile.SYMTYPE, _MODE
            member.linkname = self._read_link(path)
        elif stat.S_ISREG(found.st_mode):
            member.size, member.mode = found.st_size, member.mode | 0o400
        else:
            kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a device")
            raise self.refuse(path, f"is {kind}, which cannot be synced", _LEAVE_OUT)
        return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")

    def refuse(self, path: str, message: str, hint: str) -> InputError:
        """What is wrong with a path, to be raised."""
        shown = os.path.join(self._source, path).encode(errors="backslashreplace").decode()
        return InputError(message, hint, file=shown)

    def _at(self, path: str) -> str:
        return self._instead.get(path) or os.path.join(self._top, path)

    def _list(self, folder: _Entry) -> list[_Entry]:
        """What goes in of a folder, the last first."""
        with self._explained(folder.path):
            there = os.listdir(self._at(folder.path))
        names = sorted({*there, *(() if folder.path else self._instead)}, reverse=True)
        rules = folder.rules
        if _RULES in names and (found := self._read_rules(os.path.join(folder.path, _RULES))):
            rules = ((len(os.fsencode(os.path.join(folder.path, ""))), found), *rules)
        paths = (os.path.join(folder.path, name) for name in names)
        return [entry for path in paths if (entry := self._look_at(path, rules))]

    def _look_at(self, path: str, rules: tuple[tuple[int, IgnoreRules], ...]) -> _Entry | None:
        """What is there; None where it stays out."""
        name = os.path.basename(path)
        if name == _GIT or path in self._excluded:
            return None
        with self._explained(path):
            found = os.lstat(self._at(path))
        is_folder = stat.S_ISDIR(found.st_mode)
        if is_folder and (name in _CACHES or os.path.lexists(os.path.join(self._at(path), JOB))):
            return None
        is_out = self._is_left_out(os.fsencode(path), rules, is_folder=is_folder)
        if is_out:
            self.left_out.append(path + "/" * is_folder)
        return None if is_out else _Entry(path, found, rules)

    def _is_left_out(
        self, path: bytes, rules: tuple[tuple[int, IgnoreRules], ...], *, is_folder: bool
    ) -> bool:
        for start, judge in ((0, self._own_rules), *rules):
            judged = judge.judge(path[start:], is_folder=is_folder) if judge else None
            if judged is not None:
                return judged
        return False

    def _read_rules(self, path: str) -> IgnoreRules | None:
        """None where there is no such plain file; git follows no link there, either."""
        with self._explained(path):
            try:
                if not stat.S_ISREG(os.lstat(self._at(path)).st_mode):
                    return None
            except FileNotFoundError:
                return None
        with self.open(path) as file:
            return IgnoreRules(file.read())

    def _read_link(self, path: str) -> str:
        with self._explained(path):
            target = os.readlink(self._at(path))
        self._check_text(path, target)
        if not stays_inside(path, target) and self._keeps_links:
            self.outward.append((path, target))
        elif not stays_inside(path, target):
            raise self.refuse(path, f"is a link to {target}, which leaves the folder", _LEAVE_OUT)
        return target

    def _check_text(self, path: str, text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            message = (
                "has a name that is not UTF-8"
                if text is path
                else "is a link to a name that is not UTF-8"
            )
            raise self.refuse(path, message, f"rename it, or {_LEAVE_OUT}") from None

    @contextlib.contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self.refuse(path, f"could not be read: {error.strerror}", _LEAVE_OUT) from error


class _OneFile(_Folder):
    """A single file, as the only one of a folder, by a name that it may not have here."""

    def __init__(self, source: str, name: str) -> None:
        self._source, self._name = source, name
        self.left_out, self.outward = [], []
        self._top = os.path.realpath(source)

    def walk(self) -> Iterator[_Entry]:
        """The file."""
        with self._explained(self._name):
            yield _Entry(self._name, os.stat(self._top))

    def refuse(self, path: str, message: str, hint: str) -> InputError:
        """What is wrong with it, to be raised."""
        del path
        return InputError(message, hint, file=self._source)

    def _at(self, path: str) -> str:
        del path
        return self._top


def _open_source(
    source: str,
    name: str | None,
    exclude: Sequence[str],
    instead: Mapping[str, str | None],
    keeps_links: bool,
) -> _Folder:
    if name is not None:
        return _OneFile(source, name)
    return _Folder(source, exclude, instead, keeps_links)


def _check_source(source: str) -> str:
    """Its path without links; raises InputError where it is no folder."""
    if os.path.isdir(source):
        return os.path.realpath(source)
    if os.path.lexists(source):
        above = os.path.dirname(source) or "."
        raise InputError("is no folder", f"sync the folder that it is in: {above}", file=source)
    raise InputError("there is no such folder to sync", file=source)


def _find_excluded(source: str, top: str, exclude: Sequence[str]) -> frozenset[str]:
    """The paths below the source that stay out; raises InputError where nothing would be left."""
    paths = {os.path.relpath(os.path.realpath(path), top) for path in exclude}
    if os.curdir in paths:
        raise InputError(
            "cannot be synced: the results of the job are kept in that same folder",
            "choose another folder for one of them",
            file=source,
        )
    return frozenset(paths)
