"""Which files the tasks of a job left, and copies of those that are wanted, wherever they are.

A store that is no folder is listed as a whole once, not task by task.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from umpteen.errors import InputError, SettingsError, StoreError
from umpteen.history.history import History
from umpteen.job.spec import Task
from umpteen.model.archive import stays_inside
from umpteen.query.destination import Destination, has_time, tell_obstacle
from umpteen.query.outputs import NotOpenedError, Outputs, find_outputs
from umpteen.store.address import is_remote
from umpteen.store.base import Store
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import OUTPUTS
from umpteen.system.plain_files import Found, NotPlainError, describe_kind

__all__ = ["LeftOut", "Pulled", "TaskFiles", "list_task_files", "pull"]

_AT_ONCE = 64
_RESULTS = "results/"
# Of the disk here, which no other file would find otherwise.
_HERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class TaskFiles(NamedTuple):
    """A task, where its outputs are, and what files and the like are there, by path below that."""

    task_index: int
    task: Task
    outputs: Outputs
    files: list[Found]


class LeftOut(NamedTuple):
    """Something that was wanted and not copied.

    kind: `outputs`, `name`, `link`, `special`, `unreadable`, `gone` or `in the way`. why: in words.
    """

    path: str
    kind: str
    why: str


class Pulled(NamedTuple):
    """How many files and bytes were wanted and are here now, and how many of them were before."""

    files: int
    size_bytes: int
    kept: int
    left_out: list[LeftOut]


class _Wanted(NamedTuple):
    """A file of a task, and its path below the destination."""

    store: Store
    key: str
    target: str
    found: Found
    task_index: int


class _Missing(NamedTuple):
    """A file to be copied. before: what is in its place and is to be replaced."""

    wanted: _Wanted
    before: os.stat_result | None


def list_task_files(history: History, left_out: list[LeftOut]) -> Iterator[TaskFiles]:
    """Each task that counts with what its newest attempt left, in order of its files' paths.

    left_out: gets each task whose outputs are not looked at, and what is no file among them.
    """
    listed: dict[str, list[Found]] | None = None
    for index, task in enumerate(history.read_tasks()):
        if index in history.dropped:
            continue
        try:
            outputs = find_outputs(history, task, "", None)
            if outputs.store is history.store and is_remote(history.store.address):
                if listed is None:
                    listed = _list_all(history.store)
                found = listed.get(outputs.folder, [])
            else:
                found = _look(outputs)
        except (NotOpenedError, SettingsError) as error:
            left_out.append(LeftOut(task.name, "outputs", str(error)))
            continue
        except StoreError as error:
            if not error.damaged:
                raise
            left_out.append(LeftOut(task.name, "outputs", str(error)))
            continue
        yield TaskFiles(index, task, outputs, list(_choose_files(task.name, found, left_out)))


def _look(outputs: Outputs) -> list[Found]:
    store = outputs.store
    if isinstance(store, DirectoryStore):
        below = store.look(outputs.folder)
    else:
        below = [_describe(path, size) for path, size in store.walk(outputs.folder)]
    return [found for found in below if found.path.split("/")[0] in OUTPUTS]


def _describe(path: str, size: int) -> Found:
    return Found(path, stat.S_IFREG, size)


def _list_all(store: Store) -> dict[str, list[Found]]:
    """By the folder of a task, what is in it and is no earlier attempt's."""
    found: dict[str, list[Found]] = {}
    for path, size in store.walk(""):
        parts = path.split("/")
        for place in range(1, len(parts)):
            if parts[place] in OUTPUTS and "attempts" not in parts[:place]:
                folder, rest = "/".join(parts[:place]), "/".join(parts[place:])
                found.setdefault(folder, []).append(_describe(rest, size))
                break
    return found


def _choose_files(name: str, found: Sequence[Found], left_out: list[LeftOut]) -> Iterator[Found]:
    """Files, and links that stay in the task's results."""
    for each in sorted(found):
        shown = f"{name}/{each.path}"
        if stat.S_ISREG(each.mode):
            yield each
        elif not stat.S_ISLNK(each.mode):
            left_out.append(LeftOut(shown, "special", f"is {describe_kind(each.mode)}"))
        elif each.path.startswith(_RESULTS) and stays_inside(each.path[len(_RESULTS) :], each.link):
            yield each
        else:
            left_out.append(LeftOut(shown, "link", f"is a link to {each.link}"))


def pull(
    history: History,
    destination: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    force: bool = False,
) -> Iterator[Pulled]:
    """Copy files to `destination/TASK/…`; how far it is, after each part.

    include and exclude: globs of whole paths (`TASK/results/a.csv`) or, without a `/`, of the
    last part; all files where nothing is included. A file that was pulled before, and whose
    task has not run since, is left alone: its time is that of the task's end. One that was not
    pulled is left alone as well, but with `force`. Raises StoreError, and InputError where
    nothing fits.
    """
    left_out: list[LeftOut] = []
    wanted = [
        _Wanted(outputs.store, outputs.key(found.path), f"{task.name}/{found.path}", found, index)
        for index, task, outputs, files in list_task_files(history, left_out)
        for found in files
        if _is_wanted(f"{task.name}/{found.path}", include, exclude)
    ]
    left_out = sorted(each for each in left_out if _is_wanted(each.path, include, exclude))
    if not wanted and not left_out and (include or exclude):
        raise InputError("no file fits --include and --exclude", "umpteen results lists them")
    if not wanted:
        yield Pulled(0, 0, 0, left_out)
        return
    with Destination(destination) as landing:
        yield from _Pull(history, landing, left_out, force=force).run(wanted)


class _Pull:
    """One call of `pull`. ends: by task index, when its attempts ended, in seconds since 1970."""

    def __init__(
        self, history: History, landing: Destination, left_out: list[LeftOut], *, force: bool
    ) -> None:
        self.history, self.landing, self.force = history, landing, force
        self.left_out = left_out
        self.newest = {i: record.end_s for i, (_, record) in history.read_newest().items()}
        self.ends: dict[int, list[float]] = {}
        self.numbers = itertools.count()

    def run(self, wanted: Sequence[_Wanted]) -> Iterator[Pulled]:
        self._learn_ends(wanted)
        files = size_bytes = kept = 0
        # Links last, so that none is where a folder is to be made.
        ordered = sorted(wanted, key=lambda each: stat.S_ISLNK(each.found.mode))
        for start in range(0, len(ordered), _AT_ONCE):
            here: list[_Wanted] = []
            missing: list[_Missing] = []
            for each in ordered[start : start + _AT_ONCE]:
                self._judge(each, here, missing)
            kept += len(here)
            here += self._copy(missing)
            files += len(here)
            size_bytes += sum(each.found.size for each in here)
            yield Pulled(files, size_bytes, kept, self.left_out)

    def _learn_ends(self, wanted: Sequence[_Wanted]) -> None:
        """Of the tasks of which an earlier attempt may have been pulled."""
        asked = set()
        for each in () if self.landing.is_empty else wanted:
            with contextlib.suppress(NotPlainError, NotADirectoryError):
                there = self.landing.find(each.target)
                if there and not has_time(there, self._end_of(each)):
                    asked.add(each.task_index)
        if asked:
            for index, records in self.history.read_records(sorted(asked)).items():
                self.ends[index] = [record.end_s for _, record in records]

    def _end_of(self, each: _Wanted) -> float:
        return self.newest.get(each.task_index, 0.0)

    def _judge(self, each: _Wanted, here: list[_Wanted], missing: list[_Missing]) -> None:
        """Add it to what is here, or to what is missing, or to what is left out."""
        try:
            there = self.landing.find(each.target)
        except (NotPlainError, NotADirectoryError) as error:
            kind = "name" if error.errno == errno.EINVAL else "in the way"
            self._leave_out(each, kind, tell_obstacle(error))
            return
        if there is None:
            missing.append(_Missing(each, there))
        elif self._is_here(each, there):
            here.append(each)
        elif self._is_ours(each, there):
            missing.append(_Missing(each, there))
        else:
            is_file = stat.S_ISREG(there.st_mode)
            what = "a file that was not pulled" if is_file else describe_kind(there.st_mode)
            self._leave_out(each, "in the way", f"is {what}")

    def _is_here(self, each: _Wanted, there: os.stat_result) -> bool:
        end_s = self._end_of(each)
        is_same = stat.S_IFMT(there.st_mode) == stat.S_IFMT(each.found.mode)
        is_whole = is_same and there.st_size == each.found.size
        return is_whole and end_s > 0 and has_time(there, end_s)

    def _is_ours(self, each: _Wanted, there: os.stat_result) -> bool:
        """Whether it may be replaced: it was pulled, and nobody has changed it since."""
        if not (stat.S_ISREG(there.st_mode) or stat.S_ISLNK(there.st_mode)):
            return False
        # What was pulled while a task ran has the time 0.
        ends = [0.0, self._end_of(each), *self.ends.get(each.task_index, ())]
        return self.force or any(has_time(there, end_s) for end_s in ends)

    def _leave_out(self, each: _Wanted, kind: str, why: str) -> None:
        self.left_out.append(LeftOut(each.target, kind, why))

    def _copy(self, missing: Sequence[_Missing]) -> list[_Wanted]:
        """Those that are here now."""
        numbered = [(next(self.numbers), each) for each in missing]
        made = self._make([(number, each.wanted) for number, each in numbered])
        copied = []
        for number, (each, before) in numbered:
            if number not in made:
                continue
            if why := self.landing.place(number, each.target, self._end_of(each), before):
                self._leave_out(each, "in the way", why)
            else:
                copied.append(each)
        return copied

    def _make(self, numbered: Sequence[tuple[int, _Wanted]]) -> set[int]:
        """Make copies that have no place yet; the numbers of those that could be made."""
        made = set()
        files: dict[Store, list[tuple[int, _Wanted]]] = {}
        for number, each in numbered:
            if stat.S_ISLNK(each.found.mode):
                os.symlink(each.found.link, self.landing.reserve(number))
                made.add(number)
            else:
                files.setdefault(each.store, []).append((number, each))
        for store, mine in files.items():
            pairs = [(each.key, self.landing.reserve(number)) for number, each in mine]
            try:
                fetched = store.fetch_many(pairs)
            except StoreError as error:  # one that cannot be read is not to cost the others
                _refuse_hopeless(error)
                fetched = [self._fetch(each, number) for number, each in mine]
            else:
                for (_, each), is_there in zip(mine, fetched, strict=True):
                    if not is_there:
                        self._leave_out(each, "gone", "is gone")
            made.update(
                number for (number, _), is_there in zip(mine, fetched, strict=True) if is_there
            )
        return made

    def _fetch(self, each: _Wanted, number: int) -> bool:
        try:
            is_there = each.store.fetch(each.key, self.landing.reserve(number))
        except StoreError as error:
            _refuse_hopeless(error)
            self._leave_out(each, "unreadable", str(error.__cause__ or error))
            return False
        if not is_there:
            self._leave_out(each, "gone", "is gone")
        return is_there


def _refuse_hopeless(error: StoreError) -> None:
    """Raise what the next file would meet as well."""
    if error.transient or getattr(error.__cause__, "errno", None) in _HERE:
        raise error


def _is_wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return (not include or _fits(path, include)) and not _fits(path, exclude)


def _fits(path: str, patterns: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(path if "/" in p else name, p) for p in patterns)
