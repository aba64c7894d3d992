"""Copies of the files that tasks left, in a folder here; called again, only of what is new."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from umpteen.errors import InputError, StoreError
from umpteen.history.history import History
from umpteen.query.destination import Destination, has_time, tell_obstacle
from umpteen.query.files import LeftOut, LeftOutKind, list_task_files
from umpteen.store.base import Store
from umpteen.system.plain_files import Found, NotPlainError, describe_kind

__all__ = ["Pulled", "pull"]

_AT_ONCE = 64
# Of the disk here: every other file would meet the same.
_HERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class Pulled(NamedTuple):
    """How far copying is."""

    # What was wanted and is here now.
    files: int = 0
    size_bytes: int = 0
    # How many of the files were here before.
    kept: int = 0
    left_out: Sequence[LeftOut] = ()


class _Wanted(NamedTuple):
    """A file of a task, and its path below the destination."""

    store: Store
    key: str
    target: str
    found: Found
    task_index: int


class _Missing(NamedTuple):
    """A file to be copied."""

    wanted: _Wanted
    # What is in its place and is to be replaced.
    before: os.stat_result | None


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
    left_out = sorted(
        (each for each in left_out if _is_wanted(each.path, include, exclude)),
        key=lambda each: (each.path, each.kind.value, each.why),
    )
    if not wanted and not left_out and (include or exclude):
        raise InputError("no file fits --include and --exclude", "umpteen results lists them")
    if not wanted:
        yield Pulled(left_out=left_out)
        return
    with Destination(destination) as copies:
        yield from _Pull(history, copies, left_out, force=force).run(wanted)


class _Pull:
    """One call of `pull`: compares what is wanted with what is here, and copies the rest."""

    def __init__(
        self, history: History, destination: Destination, left_out: list[LeftOut], *, force: bool
    ) -> None:
        self._history, self._destination, self._force = history, destination, force
        self._left_out = left_out
        self._newest_end_s = {i: record.end_s for i, (_, record) in history.read_newest().items()}
        # By the index of a task: when its attempts ended, in seconds since 1970.
        self._ends_s: dict[int, list[float]] = {}
        self._numbers = itertools.count()

    def run(self, wanted: Sequence[_Wanted]) -> Iterator[Pulled]:
        self._read_ends(wanted)
        files = size_bytes = kept = 0
        # Links last, so that none is where a folder is to be made.
        ordered = sorted(wanted, key=lambda each: stat.S_ISLNK(each.found.mode))
        for start in range(0, len(ordered), _AT_ONCE):
            here: list[_Wanted] = []
            missing: list[_Missing] = []
            for each in ordered[start : start + _AT_ONCE]:
                self._compare(each, here, missing)
            kept += len(here)
            here += self._copy(missing)
            files += len(here)
            size_bytes += sum(each.found.size for each in here)
            yield Pulled(files, size_bytes, kept, self._left_out)

    def _read_ends(self, wanted: Sequence[_Wanted]) -> None:
        """When earlier attempts ended, of the tasks of which one may have been pulled."""
        asked = set()
        for each in () if self._destination.is_empty else wanted:
            with contextlib.suppress(NotPlainError, NotADirectoryError):
                there = self._destination.find(each.target)
                if there and not has_time(there, self._end_of(each)):
                    asked.add(each.task_index)
        if asked:
            for index, records in self._history.read_records(sorted(asked)).items():
                self._ends_s[index] = [record.end_s for _, record in records]

    def _end_of(self, each: _Wanted) -> float:
        return self._newest_end_s.get(each.task_index, 0.0)

    def _compare(self, each: _Wanted, here: list[_Wanted], missing: list[_Missing]) -> None:
        """Add it to what is here, or to what is missing, or to what is left out."""
        try:
            there = self._destination.find(each.target)
        except (NotPlainError, NotADirectoryError) as error:
            kind = LeftOutKind.NAME if error.errno == errno.EINVAL else LeftOutKind.IN_THE_WAY
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
            self._leave_out(each, LeftOutKind.IN_THE_WAY, f"is {what}")

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
        ends = [0.0, self._end_of(each), *self._ends_s.get(each.task_index, ())]
        return self._force or any(has_time(there, end_s) for end_s in ends)

    def _leave_out(self, each: _Wanted, kind: LeftOutKind, why: str) -> None:
        self._left_out.append(LeftOut(each.target, kind, why))

    def _copy(self, missing: Sequence[_Missing]) -> list[_Wanted]:
        """Those that are here now."""
        numbered = [(next(self._numbers), each) for each in missing]
        made = self._make([(number, each.wanted) for number, each in numbered])
        copied = []
        for number, (each, before) in numbered:
            if number not in made:
                continue
            if why := self._destination.place(number, each.target, self._end_of(each), before):
                self._leave_out(each, LeftOutKind.IN_THE_WAY, why)
            else:
                copied.append(each)
        return copied

    def _make(self, numbered: Sequence[tuple[int, _Wanted]]) -> set[int]:
        """Make copies aside, each called by its number; the numbers of those that could be made."""
        made = set()
        files: dict[Store, list[tuple[int, _Wanted]]] = {}
        for number, each in numbered:
            if stat.S_ISLNK(each.found.mode):
                os.symlink(each.found.link, self._destination.reserve(number))
                made.add(number)
            else:
                files.setdefault(each.store, []).append((number, each))
        for store, mine in files.items():
            pairs = [(each.key, self._destination.reserve(number)) for number, each in mine]
            try:
                fetched = store.fetch_many(pairs)
            except StoreError as error:  # one that cannot be read is not to cost the others
                _raise_if_hopeless(error)
                fetched = [self._fetch(each, number) for number, each in mine]
            else:
                for (_, each), is_there in zip(mine, fetched, strict=True):
                    if not is_there:
                        self._leave_out(each, LeftOutKind.GONE, "is gone")
            made.update(
                number for (number, _), is_there in zip(mine, fetched, strict=True) if is_there
            )
        return made

    def _fetch(self, each: _Wanted, number: int) -> bool:
        try:
            is_there = each.store.fetch(each.key, self._destination.reserve(number))
        except StoreError as error:
            _raise_if_hopeless(error)
            self._leave_out(each, LeftOutKind.UNREADABLE, str(error.__cause__ or error))
            return False
        if not is_there:
            self._leave_out(each, LeftOutKind.GONE, "is gone")
        return is_there


def _raise_if_hopeless(error: StoreError) -> None:
    """Raise what the next file would meet as well."""
    if error.transient or getattr(error.__cause__, "errno", None) in _HERE:
        raise error


def _is_wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return (not include or _fits(path, include)) and not _fits(path, exclude)


def _fits(path: str, patterns: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(path if "/" in p else name, p) for p in patterns)
