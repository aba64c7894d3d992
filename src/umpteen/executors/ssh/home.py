"""Brings home what hosts have recorded, where they do not see the job's folder.

A line of a host's records file is added to the same file here only when the files that it vouches
for are here; a task's folder is made aside, and gets its name when it is whole. So whoever reads
the job's folder sees what he would see if the hosts had written there. The records file here is as
long as that much of the host's: its length says how far a host's outcomes are home.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence

from umpteen.executors.ssh.progress import ELSEWHERE, BatchProgress, HostRecord, split_name
from umpteen.model.agent_messages import HostFile, News, RecordsPart, TaskOutputs
from umpteen.model.forms import FormError
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import (
    OUTPUTS,
    RECORDS,
    RUNNING,
    UNFINISHED,
    attempt_folder,
    records_folder,
    scratch_folder,
)
from umpteen.system.host import sync_filesystem
from umpteen.system.plain_files import (
    NEW_FILE,
    folder_of,
    open_below,
    remove_below,
    walk_below,
)

__all__ = ["Fetch", "Home"]

# Writes a large file of a host here: its path below the job's folder there, bytes, path here.
Fetch = Callable[[str, int, str], None]

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_DEEP = 100  # folders in one another
_MOST_RUNNERS = 10_000  # of one host: each has a file for each of its batches
_LAST = ("status_code", "status")  # of a task's files: who finds it finds the others


class Home:
    """The folder of a job on this machine, into which one head brings what hosts have."""

    def __init__(self, store: DirectoryStore, token: str) -> None:
        """token: of the head."""
        self.store = store
        self._scratch = f"{store.address}/{scratch_folder(token)}"
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # of what follows
        self._sizes: dict[str, int] = {}  # bytes of each records file
        self._batches: dict[str, BatchProgress] = {}
        self._owners: dict[str, str] = {}  # by the token of a runner, the host that has told of it
        self._counts: dict[str, int] = {}  # of runners, by host
        self._shown: set[str] = set()  # files of running tasks
        self._gone: set[str] = set()  # files that a host had no more when they were fetched

    # --- what is here already ---------------------------------------------------------------------

    def read_offsets(self, batch: str) -> dict[str, int]:
        """How much of each records file of a batch is here; a torn line at its end is cut off."""
        names = [f"{batch}/{name}" for name in self.store.names(records_folder(batch))]
        return {name: self._measure(name) for name in names if name.endswith(".jsonl")}

    def _measure(self, name: str) -> int:
        """The bytes of a records file here."""
        with self._lock:  # else two cut it off, the second when lines have come again
            if name not in self._sizes:
                content = self.store.read(f"{RECORDS}/{name}") or b""
                whole = content.rfind(b"\n") + 1
                if whole < len(content):
                    with self._opened(name) as fd:
                        os.ftruncate(fd, whole)
                self._sizes[name] = whole
            return self._sizes[name]

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        # Each time anew: there may be more of them than files may be open.
        with folder_of(self.store.address, f"{RECORDS}/{name}", make=True) as (folder, file):
            fd = os.open(file, _APPEND, 0o644, dir_fd=folder)
        try:
            yield fd
        finally:
            os.close(fd)

    def close(self, batch: str) -> None:
        """Forget a batch that has ended."""
        self._batches.pop(batch, None)

    # --- what comes -------------------------------------------------------------------------------

    def add(self, part: RecordsPart, fetch: Fetch, host: str = "") -> list[HostRecord]:
        """Write files and then the lines that vouch for them; what these lines say.

        host: that they come from. Raises FormError where it cannot be, OSError where it cannot be
        written here, and what `fetch` raises; then it is brought once more.
        """
        if ELSEWHERE.endswith(part.lines):  # which is ours, behind what was here then
            return []
        batch, token = split_name(part.name)
        self._check_owner(token, host)
        known = self.find_batch(batch)
        with known.lock:
            if part.offset != self._measure(part.name):
                raise FormError("it is not what was asked for")
            lines, outcomes = known.read_lines(part.lines, token)
            finals = {each.record.task: each for each in outcomes if each.record.is_final}
            for outputs in part.outputs:
                if outputs.task in finals:
                    self._add_outputs(known, finals[outputs.task], outputs, fetch)
            if b'"moved"' in part.lines:
                known.move_fenced(part.lines, token)
            self._append(part.name, lines)
            known.note_lines(lines, outcomes)
        return outcomes

    def _check_owner(self, token: str, host: str) -> None:
        """Raises FormError where another host has that runner, or a host has far too many."""
        with self._lock:
            if token not in self._owners:
                self._owners[token] = host
                self._counts[host] = self._counts.get(host, 0) + 1
            if self._owners[token] != host:
                raise FormError("a runner is another host's")
            if self._counts[host] > _MOST_RUNNERS:
                raise FormError("there are too many runners")

    def find_batch(self, batch: str) -> BatchProgress:
        """How far a batch is. Raises StoreError."""
        with self._lock:
            if batch not in self._batches:
                self._batches[batch] = BatchProgress(self.store, batch)
            return self._batches[batch]

    def _append(self, name: str, lines: bytes) -> None:
        with self._opened(name) as fd:
            if os.fstat(fd).st_size != self._sizes[name]:
                raise OSError(errno.EBUSY, "another process writes it, too", name)
            while lines:
                written = os.write(fd, lines)
                self._sizes[name] += written
                lines = lines[written:]

    def _add_outputs(
        self, known: BatchProgress, outcome: HostRecord, outputs: TaskOutputs, fetch: Fetch
    ) -> None:
        """Have the files of a task in its folder. Raises as `add`."""
        record, folder = outcome.record, known.find_folder(outcome.record.task)
        own = attempt_folder(record.attempt, outcome.token)
        if record.outputs not in ("", own):
            raise FormError("the files of an attempt are in another's folder")
        if outputs.folder not in (folder, f"{folder}/{record.outputs}"):  # it may have moved them
            raise FormError("the files of a task are in another's folder")
        before = known.find_origin(record.task)
        new = f"{self._scratch}/{next(self._numbers)}"
        os.makedirs(self._scratch, 0o700, exist_ok=True)
        os.mkdir(new)
        try:
            self._write_files(new, outputs, fetch)
            self._give_name(new, outputs.folder, before)
        finally:
            remove_below(self.store.address, os.path.relpath(new, self.store.address))

    def _write_files(self, new: str, outputs: TaskOutputs, fetch: Fetch) -> None:
        contents = iter(outputs.contents)
        folders = {""}
        links: list[HostFile] = []
        for file in outputs.files:
            _make_folders(new, file.path.rpartition("/")[0], folders)
            path = f"{new}/{file.path}"
            if stat.S_ISLNK(file.mode):
                links.append(file)  # last, so that no file is written through one
            elif file.is_sent:
                _write_new(path, next(contents), file.mode)
            elif os.path.lexists(os.fsencode(path)):
                raise FormError("two files have one name")
            elif self._fetch(f"{outputs.folder}/{file.path}", file.size, path, fetch):
                os.chmod(path, stat.S_IMODE(file.mode) & 0o755 | 0o600)
        for file in links:
            try:
                os.symlink(os.fsencode(file.link), os.fsencode(f"{new}/{file.path}"))
            except FileExistsError:
                raise FormError("two files have one name") from None

    def _fetch(self, source: str, size: int, path: str, fetch: Fetch) -> bool:
        """Whether a large file is here now; one that is gone for the second time stays gone."""
        try:
            fetch(source, size, path)
            return True
        except FileNotFoundError:
            if source not in self._gone:  # it may have been moved just now
                self._gone.add(source)
                raise
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return False

    # A task's folder that is new comes whole. In one that is there each name is free before its
    # file gets it by one step; what was there has been moved below `attempts/` first, as a runner
    # does it: into a folder that gets its name when all is in it. So a head that comes after one
    # that was killed in between can tell what is old, and goes on.

    def _give_name(self, new: str, folder: str, aside: str) -> None:
        """Have a folder of ours be that of a task. aside: for what an earlier attempt left."""
        with folder_of(self.store.address, folder, make=True) as (above, name):
            try:
                os.rename(new, name, dst_dir_fd=above)
                return
            except OSError:
                if not _is_folder(name, above):
                    raise
        if _are_same(self.store.address, os.path.relpath(new, self.store.address), folder):
            return  # it was brought before, by a head that was killed before its line was written
        for key in [key for key in self._shown if key.rpartition("/")[0] == folder]:
            self._shown.discard(key)
            self.store.delete(key)
        self._set_aside(folder, aside)
        entries = {os.fsdecode(entry) for entry in os.listdir(os.fsencode(new))}
        for entry in sorted(entries, key=lambda entry: (entry in _LAST, entry)):
            if entry == "attempts":
                for attempt in os.listdir(f"{new}/attempts"):
                    self._put(f"{new}/attempts/{attempt}", f"{folder}/attempts/{attempt}")
            else:
                self._put(f"{new}/{entry}", f"{folder}/{entry}", is_ours=entry in OUTPUTS)

    def _put(self, path: str, key: str, *, is_ours: bool = False) -> None:
        """Give a file or a folder its name where it is free. is_ours: also where it is not."""
        with folder_of(self.store.address, key, make=True) as (above, name):
            if is_ours:  # which a head that was killed has put there
                remove_below(self.store.address, key)
            elif _exists(name, above):
                return
            os.rename(os.fsencode(path), os.fsencode(name), dst_dir_fd=above)

    def _set_aside(self, folder: str, aside: str) -> None:
        if self._is_there(f"{folder}/{aside}"):
            return
        making = f"{folder}/{aside}{UNFINISHED}"
        left = [name for name in OUTPUTS if self._is_there(f"{folder}/{name}")]
        for name in left:
            self.store.move(f"{folder}/{name}", f"{making}/{name}")
        if left or self._is_there(making):
            self.store.move(making, f"{folder}/{aside}")

    def _is_there(self, key: str) -> bool:
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            folder_of(self.store.address, key) as (above, name),
        ):
            return _exists(name, above)
        return False

    def show_output(
        self, known: BatchProgress, task: int, name: str, offset: int, content: bytes
    ) -> None:
        """Put what a running task has printed in its place, as far as it is known."""
        folder = known.find_folder(task)
        if not any(key.startswith(f"{folder}/") for key in self._shown):
            self._set_aside(folder, known.find_origin(task))
        self._shown.add(f"{folder}/{name}")
        with folder_of(self.store.address, f"{folder}/{name}", make=True) as (above, file):
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(file, flags | (0 if offset else os.O_TRUNC), 0o644, dir_fd=above)
        try:
            os.pwrite(fd, content, offset)
        finally:
            os.close(fd)

    def show_running(self, news: News, before: Sequence[str], host: str = "") -> None:
        """Have running files be as on the host. before: the names of those that it had.

        Raises FormError as `add`.
        """
        for name in news.stamps:
            self._check_owner(split_name(name)[1], host)
        for part in news.running:
            self.store.replace(f"{RUNNING}/{part.name}", part.content.encode())
        for name in set(before).difference(news.stamps):
            self.store.delete(f"{RUNNING}/{name}")

    # --- the disk ---------------------------------------------------------------------------------

    def sync(self) -> dict[str, int]:
        """Wait for the disk; how much of each records file is safe then. Raises OSError."""
        sizes = dict(self._sizes)
        fd = os.open(self.store.address, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sync_filesystem(fd)
        finally:
            os.close(fd)
        return sizes

    def finish(self) -> None:
        """Remove what was written aside."""
        with contextlib.suppress(OSError):
            remove_below(self.store.address, os.path.relpath(self._scratch, self.store.address))


def _are_same(top: str, one: str, other: str) -> bool:
    """Whether two folders of attempts have the same files; no earlier attempts are looked at."""
    kept = [
        sorted(found for found in walk_below(top, folder) if not found.path.startswith("attempts/"))
        for folder in (one, other)
    ]
    shown = [[(found.path, found.mode, found.size, found.link) for found in some] for some in kept]
    files = [found.path for found in kept[0] if not found.link]
    return shown[0] == shown[1] and all(
        _digest(top, f"{one}/{path}") == _digest(top, f"{other}/{path}") for path in files
    )


def _digest(top: str, key: str) -> bytes:
    with os.fdopen(open_below(top, key), "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def _make_folders(top: str, folder: str, made: set[str]) -> None:
    """Folders below one of ours, with what is above them."""
    if folder in made:
        return
    if folder.count("/") >= _MOST_DEEP:
        raise FormError("folders are too deep")
    _make_folders(top, folder.rpartition("/")[0], made)
    try:
        os.mkdir(os.fsencode(f"{top}/{folder}"))
    except FileExistsError:
        raise FormError("a file and a folder have one name") from None
    made.add(folder)


def _write_new(path: str, content: bytes, mode: int) -> None:
    try:
        fd = os.open(os.fsencode(path), NEW_FILE, stat.S_IMODE(mode) & 0o755 | 0o600)
    except FileExistsError:
        raise FormError("two files have one name") from None
    try:
        while content:
            content = content[os.write(fd, content) :]
    finally:
        os.close(fd)


def _exists(name: str, above: int) -> bool:
    try:
        os.lstat(name, dir_fd=above)
    except FileNotFoundError:
        return False
    return True


def _is_folder(name: str, above: int) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(name, dir_fd=above).st_mode)
    except FileNotFoundError:
        return False
