"""Whether what tasks left is still there, and what became of them where it is not as recorded.

A job's history in, the exit codes by records and status files together out: a task is done where
both say so. Writes nothing, and reads of records no more than what is in doubt.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

from umpteen.history import SUCCEEDED, History
from umpteen.status_codes import STATUS_CODE, Left, find_left, has_left, judge
from umpteen.task import NUMBER_OF, Record

__all__ = ["read_codes"]

_JUDGED = frozenset(NUMBER_OF[state] for state in ("failed", "timed_out"))


def read_codes(history: History, indices: Sequence[int], places: Sequence[str]) -> list[int | None]:
    """The exit code of each task by index, whose folder is at a place; None where it is not done.

    Raises StoreError and SettingsError.
    """
    lefts = _find_lefts(history, indices, places)
    records = {record.task: record for _, record in history.read_failures()}
    doubtful = {
        index
        for index, left in zip(indices, lefts, strict=True)
        if _is_doubtful(history.states[index], left)
    }
    if doubtful:
        for index, past in history.read_records(doubtful).items():
            if record := next((r for _, r in reversed(past) if has_left(r)), None):
                records[index] = record
    lefts = _look_aside(indices, places, lefts, records)
    return [
        judge(history.states[index], records.get(index), left)
        for index, left in zip(indices, lefts, strict=True)
    ]


def _is_doubtful(state: int, left: Left) -> bool:
    """Whether the newest record has to be read to tell."""
    if state == SUCCEEDED:
        return left.code is None or not left.has_stdout
    return state not in _JUDGED and left.code is not None


def _find_lefts(history: History, indices: Sequence[int], places: Sequence[str]) -> list[Left]:
    """By the name that status files have in the batch that has the task."""
    names = [
        str(batch.settings.get("status_file", STATUS_CODE)) for batch in history.batches.values()
    ]
    by_name: dict[str, list[int]] = collections.defaultdict(list)
    for position, index in enumerate(indices):
        number = history.batch_of[index]
        by_name[names[number] if number >= 0 else STATUS_CODE].append(position)
    lefts = [Left(None, has_stdout=False)] * len(indices)
    for name, positions in by_name.items():
        found = find_left([places[position] for position in positions], name)
        for position, left in zip(positions, found, strict=True):
            lefts[position] = left
    return lefts


def _look_aside(
    indices: Sequence[int],
    places: Sequence[str],
    lefts: list[Left],
    records: dict[int, Record],
) -> list[Left]:
    """What is still below `attempts/`, as an earlier start may have lived, is there too."""
    aside = {
        position: f"{places[position]}/{records[index].outputs}"
        for position, index in enumerate(indices)
        if lefts[position].code is None and index in records and records[index].outputs
    }
    for position, left in zip(aside, find_left(list(aside.values())), strict=True):
        lefts[position] = left
    return lefts
