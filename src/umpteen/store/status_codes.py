"""The status files that tasks left, of many at once, and what they say beside the records.

A status file is what other tools go by, and what others can remove or change. Where one is not
what the newest record left there, it decides. Standard library alone.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from typing import NamedTuple

from umpteen.model.record import Record
from umpteen.model.states import NUMBER_OF, TaskState
from umpteen.store.address import is_remote, open_store
from umpteen.store.base import Glance, Options, Store
from umpteen.store.layout import STATUS_BYTES

__all__ = ["STATUS_CODE", "Left", "find_left", "has_left", "judge"]

STATUS_CODE = "status_code"

_SUCCEEDED = NUMBER_OF[TaskState.SUCCEEDED.value]
_FAILED = (NUMBER_OF[TaskState.FAILED.value], NUMBER_OF[TaskState.TIMED_OUT.value])
_UNKNOWN_CODE = 1


class Left(NamedTuple):
    """What is in a task's folder."""

    code: int | None  # its exit code; None where there is none that can be read
    has_stdout: bool


_NOTHING = Left(None, has_stdout=False)


def find_left(
    places: Sequence[str], name: str = STATUS_CODE, options: Options | None = None
) -> list[Left]:
    """What each folder of a task has; name: of their status files.

    An address has no `/` at its end. options: of these places, as of `open_store`. Raises
    StoreError and SettingsError.
    """
    found = [_NOTHING] * len(places)
    for prefix, positions in _group(places).items():
        store = open_store(prefix, options)
        try:
            wanted = _list_there(store, prefix, positions, places)
            glances = store.glance([places[place][len(prefix) :] for place in wanted], name)
        finally:
            store.close()
        for place, glance in zip(wanted, glances):
            found[place] = _read(glance)
    return found


def judge(state: int, record: Record | None, left: Left) -> int | None:
    """The exit code of a task by its state, its newest record, and what is in its folder.

    None where it is not done: has not run, or not to its end, or its outputs are gone. Where
    the code there is not what the record left, others have put it there since, and it counts.
    """
    if left.code is None:
        return None
    if record is None:
        code = 0 if state == _SUCCEEDED else None
    else:
        code = -record.signal if record.signal else record.exit_code
    if left.code != code:
        return left.code
    if record is not None and record.stdout_bytes and not left.has_stdout:
        return None
    if state == _SUCCEEDED:
        return 0
    # What was ended at its timeout may have exited with 0, and has failed all the same.
    return (code or _UNKNOWN_CODE) if state in _FAILED else None


def has_left(record: Record) -> bool:
    """Whether an attempt left a status file: it came to its end by itself,
    or was ended for good.
    """
    is_over = record.signal is not None or record.exit_code is not None
    return is_over and record.state != TaskState.WAITING.value


def _group(places: Sequence[str]) -> dict[str, list[int]]:
    """The positions by the folder, with a `/` at its end, that all on their host are below.

    On this machine by the folder that they are in: what is above it may be reached by links.
    """
    groups: dict[str, list[int]] = collections.defaultdict(list)
    by_host: dict[str, list[int]] = collections.defaultdict(list)
    for position, place in enumerate(places):
        if host := _find_host(place):
            by_host[host].append(position)
        else:
            groups[place[: place.rindex("/") + 1]].append(position)
    for host, positions in by_host.items():
        folders = {
            places[position].rpartition("/")[0][len(host) :] or "/" for position in positions
        }
        groups[host + os.path.commonpath(folders).rstrip("/") + "/"] = positions
    return groups


def _find_host(place: str) -> str:
    """Of `s3://bucket/path` the `s3://bucket`; empty for a path of this machine."""
    if not is_remote(place):
        return ""
    return place[: place.index("/", place.index("://") + 3)]


def _list_there(
    store: Store, prefix: str, positions: Sequence[int], places: Sequence[str]
) -> list[int]:
    """Those whose folder may be there: to list what is above it costs less than to ask for each."""
    if store.lists_deep:
        return list(positions)
    counts = collections.Counter(places[position].rpartition("/")[0] for position in positions)
    shared = [folder for folder, count in counts.items() if count > 1]
    listed = store.names_many([folder[len(prefix) :] for folder in shared])
    there = {folder: set(names) for folder, names in zip(shared, listed)}
    found: list[int] = []
    for position in positions:
        folder, _, name = places[position].rpartition("/")
        if folder not in there or name in there[folder]:
            found.append(position)
    return found


def _read(glance: Glance) -> Left:
    """Without a code where it is no number: of an interrupted run `sc` leaves the word `None`."""
    status = glance.status
    if status is None or len(status) >= STATUS_BYTES:
        return Left(None, glance.has_stdout)
    try:
        return Left(int(status), glance.has_stdout)
    except ValueError:
        return Left(None, glance.has_stdout)
