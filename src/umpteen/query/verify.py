"""Whether what tasks left is still there, and what became of them where it is not as recorded.

A job's history in, exit codes out, by records and status files together: a task is done where both
say so. Writes nothing, and reads only those records that are in doubt.
"""

from __future__ import annotations

import collections
import fnmatch
import os
from collections.abc import Callable, Collection, Iterable, Sequence

from umpteen.executors.registry import ExecutorRegistry, runs_here
from umpteen.history.history import SUCCEEDED, History
from umpteen.job.spec import Task
from umpteen.model.record import Record
from umpteen.model.states import IS_FINAL, NUMBER_OF
from umpteen.query.liveness import Liveness
from umpteen.query.outputs import check_output
from umpteen.query.registry import find_options
from umpteen.runner.lanes.outputs import is_left
from umpteen.store.address import is_remote, open_store, place_of
from umpteen.store.base import Options
from umpteen.store.status_codes import STATUS_CODE, Left, find_left, has_left, judge

__all__ = ["forget_missing", "read_codes", "read_gone", "verify"]

_RESULTS = "results/"
_FAILED = NUMBER_OF["failed"]
_JUDGED = frozenset(NUMBER_OF[state] for state in ("failed", "timed_out"))


def read_codes(history: History, indices: Sequence[int], places: Sequence[str]) -> list[int | None]:
    """The exit code of each task by index, whose folder is at a place; None where it is not done.

    Raises StoreError and SettingsError.
    """
    options = find_options(history.store.address) or None
    lefts = _find_lefts(history, indices, places, options)
    records = {record.task: record for _, record in history.failures.read_all()}
    doubtful = {
        index
        for index, left in zip(indices, lefts, strict=True)
        if _is_doubtful(history.states[index], left)
    }
    if doubtful:
        for index, past in history.read_records(doubtful).items():
            if record := next((r for _, r in reversed(past) if has_left(r)), None):
                records[index] = record
    lefts = _look_aside(indices, places, lefts, records, options)
    return [
        judge(history.states[index], records.get(index), left)
        for index, left in zip(indices, lefts, strict=True)
    ]


def _is_doubtful(state: int, left: Left) -> bool:
    """Whether the newest record has to be read to tell."""
    if state == SUCCEEDED:
        return left.code is None or not left.has_stdout
    return state not in _JUDGED and left.code is not None


def _find_lefts(
    history: History, indices: Sequence[int], places: Sequence[str], options: Options | None
) -> list[Left]:
    """What each task left, its status file having the name that the batch of the task gives it."""
    names = [
        str(batch.settings.get("status_file", STATUS_CODE)) for batch in history.batches.values()
    ]
    by_name: dict[str, list[int]] = collections.defaultdict(list)
    for position, index in enumerate(indices):
        number = history.batch_of[index]
        by_name[names[number] if number >= 0 else STATUS_CODE].append(position)
    lefts = [Left(None, has_stdout=False)] * len(indices)
    for name, positions in by_name.items():
        found = find_left([places[position] for position in positions], name, options)
        for position, left in zip(positions, found, strict=True):
            lefts[position] = left
    return lefts


def _look_aside(
    indices: Sequence[int],
    places: Sequence[str],
    lefts: list[Left],
    records: dict[int, Record],
    options: Options | None,
) -> list[Left]:
    """What is still below `attempts/`, as an earlier start may have lived, is there too."""
    aside = {
        position: f"{places[position]}/{records[index].outputs}"
        for position, index in enumerate(indices)
        if lefts[position].code is None and index in records and records[index].outputs
    }
    for position, left in zip(aside, find_left(list(aside.values()), options=options), strict=True):
        lefts[position] = left
    return lefts


def verify(
    history: History, living: Collection[str] = (), tasks: Sequence[Task] | None = None
) -> list[int]:
    """Have each task count for what is in its folder, where that is not what is recorded.

    living: batches that somebody runs, whose tasks are left alone until they have ended. tasks: all
    of the job's, where these were read before. Returns the indices of tasks that were done and are
    not. Raises StoreError and SettingsError.
    """
    tasks = history.read_tasks() if tasks is None else tasks
    at = history.numbers_of(living)
    indices = [
        index
        for index in range(history.count)
        if index not in history.dropped
        and (IS_FINAL[history.states[index]] or history.batch_of[index] not in at)
    ]
    places = [_find_place(history, tasks[index]) for index in indices]
    lost = []
    for index, code in zip(indices, read_codes(history, indices, places), strict=True):
        was_done = history.states[index] == SUCCEEDED
        if was_done and code != 0:
            history.overrule(index, _FAILED if code else 0)
            lost.append(index)
        elif not was_done and code == 0:
            history.overrule(index, SUCCEEDED)
    return [*lost, *forget_missing(history, tasks.__getitem__, indices)]


def forget_missing(
    history: History, find: Callable[[int], Task], indices: Iterable[int]
) -> list[int]:
    """Have tasks count as gone that are done and did not leave all that they should; their indices.

    find: gives a task by its index. Raises StoreError and SettingsError.
    """
    missing = [
        index
        for index in indices
        if index < history.count
        and history.states[index] == SUCCEEDED
        and _is_missing(history, find(index), index)
    ]
    for index in missing:
        history.overrule(index, 0)
    return missing


def _find_place(history: History, task: Task) -> str:
    return place_of(history.store, task.name, task.output).rstrip("/")


def _is_missing(history: History, task: Task, index: int) -> bool:
    """Whether a file is not there that a task should have left."""
    expected = task.options.expect if task.options else None
    if not expected:
        return False
    results = [path for path in expected if path.startswith(_RESULTS)]
    others = [path for path in expected if not path.startswith(_RESULTS)]
    base = _find_base(history, task, index) if others else ""
    if base and not all(is_left(base, path) for path in others):
        return True
    return bool(results) and not _has_results(history, task, results)


def _find_base(history: History, task: Task, index: int) -> str:
    """The folder of this machine that a task ran in; empty where it ran elsewhere."""
    batch = history.find_batch(index)
    if batch is None or not runs_here(batch.executor):
        return ""
    folder = str(batch.settings.get("cwd", ""))
    folder = os.path.join(folder, os.path.expanduser(task.cwd or ""))
    return folder if folder and os.path.isdir(folder) else ""


def _has_results(history: History, task: Task, expected: Sequence[str]) -> bool:
    place = _find_place(history, task)
    if not is_remote(place):
        return all(is_left(place, path) for path in expected)
    store = open_store(place, find_options(history.store.address) or None)
    try:
        there = [_RESULTS + name for name, _ in store.walk(_RESULTS.rstrip("/"))]
    finally:
        store.close()
    return all(
        any(fnmatch.fnmatchcase(name, path) or name.startswith(f"{path}/") for name in there)
        for path in expected
    )


def read_gone(history: History, executors: ExecutorRegistry) -> list[str]:
    """The names of tasks that are done, as recorded, but whose outputs are not as they were left.

    From now on they count in `history` for what is there. executors: as of `Liveness`.
    """
    tasks = history.read_tasks()
    for task in tasks:
        if task.output:
            check_output(history, task.output, task.name)
    lost = verify(history, Liveness(executors).list_living(history), tasks)
    return [tasks[index].name for index in sorted(lost)]
