"""Which files the tasks of a job left, and copies of those that are wanted, wherever they are.

A store that is no folder is listed as a whole once, not task by task.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from umpteen.errors import InputError, SettingsError, StoreError
from umpteen.history import History
from umpteen.job import Task
from umpteen.lookup import Outputs, find_outputs
from umpteen.results.base import OUTPUTS, Store
from umpteen.results.opening import is_remote

__all__ = ["Pulled", "TaskFiles", "list_task_files", "pull"]

_AT_ONCE = 64


class TaskFiles(NamedTuple):
    """A task, where its outputs are, and of each file its path below that and its bytes."""

    task_index: int
    task: Task
    outputs: Outputs
    files: list[tuple[str, int]]


class Pulled(NamedTuple):
    """How many files and bytes were wanted and are here now, and how many of them were before."""

    files: int
    size_bytes: int
    kept: int


def list_task_files(history: History, complaints: list[str]) -> Iterator[TaskFiles]:
    """Each task that counts with what its newest attempt left, in order of its files' paths.

    complaints: gets a sentence for each task whose outputs are not looked at, and which is left
    out.
    """
    listed: dict[str, list[tuple[str, int]]] | None = None
    for index, task in enumerate(history.read_tasks()):
        if index in history.dropped:
            continue
        try:
            outputs = find_outputs(history, task, "", None)
        except (StoreError, SettingsError) as error:
            complaints.append(str(error))
            continue
        if outputs.store is history.store and is_remote(history.store.address):
            if listed is None:
                listed = _list_all(history.store)
            found = listed.get(outputs.folder, [])
        else:
            below = outputs.store.walk(outputs.folder)
            found = [(path, size) for path, size in below if path.split("/")[0] in OUTPUTS]
        yield TaskFiles(index, task, outputs, sorted(found))


def _list_all(store: Store) -> dict[str, list[tuple[str, int]]]:
    """By the folder of a task, what is in it and is no earlier attempt's."""
    found: dict[str, list[tuple[str, int]]] = {}
    for path, size in store.walk(""):
        parts = path.split("/")
        for place in range(1, len(parts)):
            if parts[place] in OUTPUTS and "attempts" not in parts[:place]:
                folder, rest = "/".join(parts[:place]), "/".join(parts[place:])
                found.setdefault(folder, []).append((rest, size))
                break
    return found


def pull(
    history: History,
    destination: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    complaints: list[str] | None = None,
) -> Iterator[Pulled]:
    """Copy files to `destination/TASK/…`; how far it is, after each part.

    include and exclude: globs of whole paths (`TASK/results/a.csv`) or, without a `/`, of the
    last part; all files where nothing is included. A file that was pulled before, and whose
    task has not run since, is left alone: its time is that of the task's end. Raises StoreError,
    and InputError where nothing fits.
    """
    ends = {index: record.end_s for index, (_, record) in history.read_newest().items()}
    wanted: list[tuple[Store, str, str, int, float]] = []
    for index, task, outputs, found in list_task_files(
        history, [] if complaints is None else complaints
    ):
        for path, size in found:
            shown = f"{task.name}/{path}"
            if ".." in path.split("/"):  # would lead out of the destination
                continue
            if _is_wanted(shown, include, exclude):
                target = os.path.join(destination, shown)
                key = outputs.key(path)
                wanted.append((outputs.store, key, target, size, ends.get(index, 0.0)))
    if not wanted and (include or exclude):
        raise InputError("no file fits --include and --exclude", "umpteen results lists them")
    files, size_bytes, kept = 0, 0, 0
    for place in range(0, len(wanted), _AT_ONCE):
        part = wanted[place : place + _AT_ONCE]
        missing = [entry for entry in part if not _is_here(*entry[2:])]
        for store in dict.fromkeys(entry[0] for entry in missing):
            mine = [entry for entry in missing if entry[0] is store]
            store.fetch_many([(key, target) for _, key, target, _, _ in mine])
            for _, _, target, _, end_s in mine:
                if os.path.exists(target):
                    os.utime(target, (end_s, end_s))
        files += len(part)
        size_bytes += sum(entry[3] for entry in part)
        kept += len(part) - len(missing)
        yield Pulled(files, size_bytes, kept)


def _is_here(target: str, size: int, end_s: float) -> bool:
    try:
        found = os.stat(target)
    except OSError:
        return False
    return found.st_size == size and abs(found.st_mtime - end_s) < 0.001 and end_s > 0


def _is_wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return (not include or _fits(path, include)) and not _fits(path, exclude)


def _fits(path: str, patterns: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(path if "/" in p else name, p) for p in patterns)
