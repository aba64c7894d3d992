"""What became of the runs of a batch file, by what is in the store.

By the records of the job that has their place, where there are any: O(batches) reads. Runs that
no record knows are known by their own `status_code`, as other tools leave it. Writes nothing.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from urllib.parse import unquote

from umpteen.formats.sc import Run
from umpteen.history import SUCCEEDED, History
from umpteen.results.base import JOB
from umpteen.results.opening import is_remote, open_store, parse_address
from umpteen.task import NUMBER_OF

__all__ = ["read_exit_codes"]

_STATUS_CODE = "status_code"
_STATUS_CODE_BYTES = 32  # more than any has
_FAILED = (NUMBER_OF["failed"], NUMBER_OF["timed_out"])
_UNKNOWN_CODE = 1


def read_exit_codes(top: str, runs: Sequence[Run]) -> list[int | None]:
    """The exit code of each run that has succeeded or failed (minus the signal that ended it).

    None for one that has not run, or not to its end, or that had another command then. Every
    run has its `remote_output_path`. Raises StoreError and SettingsError.
    """
    spelling = _Spelling()
    places = [spelling.unify(run.remote_output_path or "") for run in runs]
    codes: list[int | None] = [None] * len(runs)
    unknown = _read_records(top, runs, places, codes, spelling)
    for prefix, positions in _group(places, unknown).items():
        _read_files(prefix, positions, places, codes)
    return codes


class _Spelling:
    """Spells each address as `parse_address` does, which it asks only once for each folder."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def unify(self, address: str) -> str:
        """Folder and name with one `/` between, whatever is behind `scheme://`."""
        address = address.rstrip("/")
        start = address.rfind("/") + 1
        written = address[:start] or "."
        folder = self._folders.get(written)
        if folder is None:
            folder = self._folders[written] = parse_address(written).rstrip("/") + "/"
        if folder == written:
            return address
        name = address[start:]
        return folder + (unquote(name) if written[:5].lower() == "file:" else name)


def _read_records(
    top: str,
    runs: Sequence[Run],
    places: Sequence[str],
    codes: list[int | None],
    spelling: _Spelling,
) -> list[int]:
    """Fill in what the records of the job at `top` tell; the positions they know nothing of."""
    store = open_store(top)
    try:
        if store.read(JOB) is None:
            return list(range(len(runs)))
        history = History(store)
        history.refresh()
        tasks = history.read_tasks()
        failures = {record.task: record for _, record in history.read_failures()}
    finally:
        store.close()
    address = store.address
    known = {
        spelling.unify(task.output or f"{address}/{task.name}"): index
        for index, task in enumerate(tasks)
        if index not in history.dropped
    }
    unknown: list[int] = []
    for position, (run, place) in enumerate(zip(runs, places, strict=True)):
        index = known.get(place)
        if index is None:
            unknown.append(position)
        elif tasks[index].command != run.cmd:
            continue
        elif history.states[index] == SUCCEEDED:
            codes[position] = 0
        elif history.states[index] in _FAILED:
            record = failures.get(index)
            signal = -record.signal if record and record.signal else None
            # What was ended at its timeout may have exited with 0, and has failed all the same.
            codes[position] = (record and record.exit_code) or signal or _UNKNOWN_CODE
    return unknown


def _group(places: Sequence[str], wanted: Sequence[int]) -> dict[str, list[int]]:
    """The positions by the folder, with a `/` at its end, that all on their host are below."""
    by_host: dict[str, list[int]] = collections.defaultdict(list)
    for position in wanted:
        by_host[_find_host(places[position])].append(position)
    groups: dict[str, list[int]] = {}
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


def _read_files(
    prefix: str, positions: Sequence[int], places: Sequence[str], codes: list[int | None]
) -> None:
    """Fill in the content of `status_code` files that are below one folder."""
    store = open_store(prefix)
    try:
        # A listing costs less than to ask for each file, most of which may not be there.
        counts = collections.Counter(places[position].rpartition("/")[0] for position in positions)
        shared = [folder for folder, count in counts.items() if count > 1]
        listed = store.list_many([folder[len(prefix) :] for folder in shared])
        there = {folder: set(names) for folder, names in zip(shared, listed, strict=True)}
        wanted: list[int] = []
        for position in positions:
            folder, _, name = places[position].rpartition("/")
            if folder not in there or name in there[folder]:
                wanted.append(position)
        keys = [f"{places[position][len(prefix) :]}/{_STATUS_CODE}" for position in wanted]
        contents = store.read_many([(key, 0, _STATUS_CODE_BYTES) for key in keys])
    finally:
        store.close()
    for position, content in zip(wanted, contents, strict=True):
        codes[position] = _parse_code(content)


def _parse_code(content: bytes | None) -> int | None:
    """None for what is no number: of an interrupted run the original leaves the word `None`."""
    if content is None or len(content) >= _STATUS_CODE_BYTES:
        return None
    try:
        return int(content)
    except ValueError:
        return None
