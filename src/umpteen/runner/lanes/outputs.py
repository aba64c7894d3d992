"""Where one attempt leaves its files on this machine: the folder, made before, completed after.

Not here: what the command is, and when it ends (`attempt`), and outputs that travel on to another
store (`uploads`); a lane only ever writes into folders. Standard library alone.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import random
import shutil
import time
from collections.abc import Iterator

from umpteen.model.batch import BatchView
from umpteen.runner.lanes.protocol import Ticket
from umpteen.store.address import is_remote, output_folder
from umpteen.store.base import Store
from umpteen.store.identity import tell_loss
from umpteen.store.layout import OUTPUTS, UNFINISHED, attempt_folder, scratch_folder, spool_folder
from umpteen.store.owners import check_folder, own_ids
from umpteen.store.records import list_starts, read_start
from umpteen.system.host import read_machine
from umpteen.system.plain_files import NEW_FILE, NotPlainError

__all__ = ["OutputFolders", "Outputs", "explain_unkept", "is_left"]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_MOST_KNOWN = 10_000  # folders that are remembered, so that each is looked at only once
_TRIES = 1000  # to make a folder that others may remove while it is empty: a few suffice, mostly
_PAUSE_S = 0.002  # between two of them, at most


class OutputFolders:
    """The folders of one lane: makes those of its attempts, and has one for results by slot."""

    def __init__(self, store: Store, place: str, token: str, spool: str) -> None:
        self.store = store  # a folder of this machine, where it is not the job's own
        self.place = place  # of the job's own store, as `find_place` has it
        self.token = token  # of the runner
        self.spool = spool  # for outputs that go elsewhere than to a folder
        # Who owns the store, too: an engine's worker may be another user than who handed in.
        self._own_ids = own_ids() | _list_owner(store.address)
        self._known = {store.address}  # folders that tasks' folders may be made in
        self._scratch = store.path(scratch_folder(token))
        self._results: dict[int, str] = {}  # by slot, of those that were used
        self._earlier: dict[str, _EarlierStarts] = {}  # by batch

    def make(self, outputs: Outputs) -> None:
        """Make the folder of an attempt, with nothing of former ones in it; raises OSError."""
        folder = outputs.folder
        above = folder.rpartition("/")[0]
        if above not in self._known:
            top = self.store.address
            if not outputs.task_folder.startswith(top + "/"):
                top = os.path.dirname(outputs.task_folder)  # a run's own place, the user's choice
            self._make_above(top, above)
        try:
            os.mkdir(folder)
        except FileExistsError:
            check_folder(folder, self._own_ids)
            self._set_aside(outputs)
        except FileNotFoundError:
            self._known.discard(above)
            raise

    def _make_above(self, top: str, folder: str) -> None:
        """Make the folder of tasks' folders and the way to it below `top`, or find it ours."""
        if top == self.store.address and tell_loss(top, self.place):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), top)  # none is made anew
        os.makedirs(top, exist_ok=True)
        parts = folder[len(top) + 1 :].split("/") if folder != top else []
        for count in range(1, len(parts) + 1):
            path = "/".join([top, *parts[:count]])
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
            check_folder(path, self._own_ids)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known.add(folder)

    # --- what former attempts left --------------------------------------------------------

    def _set_aside(self, outputs: Outputs) -> None:
        """Move what an earlier attempt left in the task's folder below `attempts/`.

        Through a folder that has another name until all is in it: whoever comes after a kill in
        between moves the rest there, so that an attempt is never in two.
        """
        folder = outputs.folder
        left = [name for name in OUTPUTS if os.path.lexists(f"{folder}/{name}")]
        unfinished = self._find_unfinished(folder)
        if not left and not unfinished:
            return
        making = unfinished or _begin_aside(folder, attempt_folder(*self._find_origin(outputs)))
        for name in left:
            if not os.path.lexists(f"{making}/{name}"):
                os.rename(f"{folder}/{name}", f"{making}/{name}")
        os.rename(making, making[: -len(UNFINISHED)])
        if unfinished:
            self._set_aside(outputs)

    def _find_unfinished(self, folder: str) -> str:
        """The folder of an attempt that was being set aside; empty where there is none."""
        attempts = f"{folder}/attempts"
        try:
            check_folder(attempts, self._own_ids)
            names = os.listdir(attempts)
        except FileNotFoundError:
            return ""
        return next((f"{attempts}/{name}" for name in names if name.endswith(UNFINISHED)), "")

    def _find_origin(self, outputs: Outputs) -> tuple[int, str]:
        """The number and the runner of the attempt that left what is in the task's folder.

        An attempt that was recorded and is not set aside yet, else one that was killed.
        """
        ticket, batch = outputs.ticket, outputs.batch
        if ticket.is_again:
            return ticket.attempt - 1, self.token
        earlier = self._earlier.get(batch.batch)
        if earlier is None:
            earlier = self._earlier[batch.batch] = _EarlierStarts(self.store, batch, self.token)
        recorded = earlier.newest.get(batch.indices[ticket.position])
        if recorded is None and str(ticket.position) in batch.before:
            attempt, token = batch.before[str(ticket.position)][:2]
            recorded = (attempt, token) if attempt else None
        if recorded and not os.path.exists(f"{outputs.folder}/{attempt_folder(*recorded)}"):
            return recorded
        return ticket.attempt, earlier.last_runner

    # --- results ----------------------------------------------------------------------------

    def slot_results(self, slot: int) -> str:
        """The folder that what runs in a slot writes its results to; raises OSError."""
        if slot not in self._results:
            self.renew_slot_results(slot)
        return self._results[slot]

    def is_of_slot(self, folder: str, slot: int) -> bool:
        """Whether a folder for results is the slot's own, rather than one that the run names."""
        return folder == self._results.get(slot)

    def renew_slot_results(self, slot: int) -> None:
        """Have it empty; that it is as old as can be shows at a glance that it still is."""
        folder = f"{self._scratch}/{slot}"
        for left in reversed(range(_TRIES)):
            try:
                self._make_slot_results(folder)
                break
            except FileNotFoundError:  # a runner that ended has just removed the folder above
                if not left:
                    raise
                time.sleep(random.uniform(0, _PAUSE_S))  # not in step with it
        os.utime(folder, (0, 0))
        self._results[slot] = folder

    def _make_slot_results(self, folder: str) -> None:
        with contextlib.suppress(FileExistsError):
            try:
                os.mkdir(folder)
            except FileNotFoundError:
                self._make_above(self.store.address, self._scratch)
                os.mkdir(folder)


class _EarlierStarts:
    """What the starts of a batch before ours recorded."""

    def __init__(self, store: Store, batch: BatchView, token: str) -> None:
        self.newest: dict[int, tuple[int, str]] = {}  # by task index: attempt, and its runner
        self.last_runner = "unrecorded"  # of the last of them
        for key in list_starts(store, batch.batch):
            if key.token == token:
                break
            start = read_start(store, batch.batch, key, read_machine())
            self.newest.update(
                (record.task, (record.attempt, key.token)) for record in start.records
            )
            self.last_runner = key.token


class Outputs:
    """The files of one attempt: made empty, filled by its command, and completed at its end."""

    __slots__ = (
        "batch",
        "below",
        "folder",
        "is_prepared",
        "is_spooled",
        "limit_bytes",
        "made_results",
        "results",
        "task_folder",
        "ticket",
    )

    def __init__(self, ticket: Ticket, batch: BatchView, folders: OutputFolders) -> None:
        position = ticket.position
        output = batch.output(position)
        self.ticket, self.batch = ticket, batch
        self.is_prepared = False
        self.limit_bytes: int | None = None  # of stdout and stderr together
        self.results = ""  # the folder that the command is given for its results
        self.made_results = False  # we made that one, and nobody can look for it later
        self.is_spooled = is_remote(output)  # they go to a store that is no folder
        self.task_folder = (
            spool_folder(folders.spool, batch.indices[position], ticket.attempt)
            if self.is_spooled
            else output_folder(output)
        )
        self.below = ""  # where they belong, relative to the task's folder in its store
        self.folder = self.task_folder  # where they are

    def prepare(self, folders: OutputFolders, slot: int, cwd: str | None) -> tuple[int, int]:
        """Make the folders; the new files for stdout and stderr, open. Raises OSError."""
        if not self.is_prepared:
            if self.ticket.is_fenced:
                self.below = attempt_folder(self.ticket.attempt, folders.token)
            if self.below and not self.is_spooled:
                self.folder = f"{self.task_folder}/{self.below}"
            folders.make(self)
            self.is_prepared = True
        stdout = _open_fresh(self.folder + "/stdout")
        stderr = _open_fresh(self.folder + "/stderr")
        try:
            self._choose_results(folders, slot, cwd)
        except OSError:
            os.close(stdout)
            os.close(stderr)
            raise
        return stdout, stderr

    def _choose_results(self, folders: OutputFolders, slot: int, cwd: str | None) -> None:
        given = self.batch.runs[self.ticket.position].get("local_results_dir")
        if not given:
            self.results = folders.slot_results(slot)
            return
        self.results = os.path.abspath(os.path.join(cwd or "", given))
        self.made_results = self.batch.is_made_up(given) and not os.path.isdir(self.results)
        os.makedirs(self.results, exist_ok=True)

    # --- while it runs ----------------------------------------------------------------------

    def measure(self) -> tuple[int, int]:
        """Bytes of stdout and stderr."""
        return _size(self.folder + "/stdout"), _size(self.folder + "/stderr")

    def is_over_limit(self) -> bool:
        """Whether the command has printed more than it may."""
        return self.limit_bytes is not None and sum(self.measure()) > self.limit_bytes

    # --- when it has ended ------------------------------------------------------------------

    def collect(self, folders: OutputFolders, slot: int) -> None:
        """Have the results in their place; raises OSError."""
        if os.path.islink(self.folder):  # somebody put it there while the command ran
            raise NotPlainError(errno.ELOOP, "it is a link, and is not followed", self.folder)
        self._collect_results(folders, slot)
        if self.batch.written is not None and not self.is_spooled:
            os.makedirs(f"{self.folder}/results", exist_ok=True)  # as programs expect of `sc`

    def _collect_results(self, folders: OutputFolders, slot: int) -> None:
        target = self.folder + "/results"
        if not folders.is_of_slot(self.results, slot):
            if self.results and os.path.isdir(self.results) and os.listdir(self.results):
                _copy_folder(self.results, target)
            if self.made_results:
                shutil.rmtree(self.results, ignore_errors=True)
            return
        try:
            if os.stat(self.results).st_mtime_ns == 0 or not os.listdir(self.results):
                return
            _move_folder(self.results, target)
        except FileNotFoundError:
            pass  # the command removed its own results folder
        except NotADirectoryError:
            os.unlink(self.results)  # or put a file in its place
        folders.renew_slot_results(slot)

    def cut(self) -> None:
        """Leave no more of what was printed than the limit; raises OSError."""
        assert self.limit_bytes is not None
        for name in ("stdout", "stderr"):
            _cut(f"{self.folder}/{name}", self.limit_bytes)

    def find_missing(self, cwd: str | None) -> str:
        """The first file that the task should have left and has not; empty where all are there."""
        for path in self.batch.terms_of(self.ticket.position).get("expect", ()):
            is_result = path.startswith("results/")
            folder = self.folder if is_result else cwd or os.getcwd()
            if not is_left(folder, path):
                return str(path)
        return ""

    def write_status(self, exit_code: int) -> None:
        """Write the file that says that all else is there; raises OSError."""
        fd = _open_fresh(f"{self.folder}/{self.batch.status_file}")
        try:
            os.write(fd, b"%d" % exit_code)
        finally:
            os.close(fd)


def is_left(folder: str, path: str) -> bool:
    """Whether there is a file, or one like a pattern, in a folder."""
    if os.path.lexists(os.path.join(folder, path)):
        return True
    return any(sign in path for sign in "*?[") and next(_find(folder, path), None) is not None


def _find(folder: str, pattern: str) -> Iterator[str]:
    # Not root_dir, which Python 3.9 does not have.
    return glob.iglob(os.path.join(glob.escape(folder), pattern), recursive=True)


def explain_unkept(error: OSError) -> str:
    """What kept files from their place; of the errors of a whole folder the first."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        source, _, reason = error.args[0][0]
        return f"{reason}: {source}"
    return f"{error.strerror}: {error.filename}"


# --- files and folders ----------------------------------------------------------------------


def _begin_aside(folder: str, label: str) -> str:
    """Make the folder for what is left in a task's."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{folder}/attempts")
    target = unique = f"{folder}/{label}"
    number = 1
    while os.path.lexists(unique):
        number += 1
        unique = f"{target}.{number}"
    os.mkdir(unique + UNFINISHED)
    return unique + UNFINISHED


def _open_fresh(path: str) -> int:
    """A new file, in place of what is there."""
    try:
        return os.open(path, NEW_FILE, 0o666)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, NEW_FILE, 0o666)


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _cut(path: str, size: int) -> None:
    if _size(path) > size:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)


def _move_folder(source: str, target: str) -> None:
    """Put what is in one folder into another, beside what the command left there by itself."""
    if os.path.islink(target) or os.path.isfile(target):
        os.unlink(target)
    try:
        os.rename(source, target)
    except OSError as error:
        # Of a task with an address of its own; or something is there, maybe half of this.
        if error.errno not in (errno.EXDEV, errno.ENOTEMPTY, errno.EEXIST):
            raise
        _copy_folder(source, target)
        shutil.rmtree(source)


def _copy_folder(source: str, target: str) -> None:
    """Its files, links and folders; all that can be copied is, before the first error is raised.

    Others may write in it meanwhile: what they remove is left out. It may hold the target,
    or be it.
    """
    os.makedirs(target, exist_ok=True)
    there = os.stat(target)
    failed: list[tuple[str, OSError]] = []
    if not os.path.samestat(os.stat(source), there):
        _copy_below(source, target, there, failed)
    failed = [each for each in failed if os.path.lexists(each[0])]
    for _, error in failed:
        if error.errno in _NO_ROOM:
            raise error
    if failed:
        raise shutil.Error([(path, target, error.strerror) for path, error in failed])


def _copy_below(
    source: str, target: str, skipped: os.stat_result, failed: list[tuple[str, OSError]]
) -> None:
    try:
        with os.scandir(source) as found:
            entries = list(found)
        os.makedirs(target, exist_ok=True)
    except OSError as error:
        failed.append((source, error))
        return
    for entry in entries:
        goal = f"{target}/{entry.name}"
        try:
            if entry.is_symlink():
                _copy_link(entry.path, goal)
            elif entry.is_file():
                if os.path.islink(goal):
                    os.unlink(goal)
                shutil.copy2(entry.path, goal)
            elif entry.is_dir() and not os.path.samestat(entry.stat(), skipped):
                _copy_below(entry.path, goal, skipped, failed)
        except OSError as error:
            failed.append((entry.path, error))
    with contextlib.suppress(OSError):  # last, as a folder may not allow writing
        shutil.copystat(source, target)


def _copy_link(source: str, goal: str) -> None:
    if os.path.lexists(goal):
        os.unlink(goal)
    os.symlink(os.readlink(source), goal)


def _list_owner(folder: str) -> set[int]:
    try:
        return {os.stat(folder).st_uid}
    except OSError:
        return set()
