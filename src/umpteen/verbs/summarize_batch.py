"""What became of the runs of a batch file, by what is in the store.

It reads the `status_code` of each run, which every tool leaves, and the records of the job that has
the same place. A run is done where both say so; a code that others have written since counts before
the record. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from umpteen.errors import InputError
from umpteen.formats.files import open_document
from umpteen.formats.saturn_batch import BatchFile, Run, complete_runs, is_of_a_job, read_batch
from umpteen.history.history import History
from umpteen.job.spec import Task
from umpteen.query.verify import read_codes
from umpteen.store.address import open_store, parse_address
from umpteen.store.layout import JOB
from umpteen.store.status_codes import find_left

__all__ = ["SortedRuns", "open_batch", "read_exit_codes", "sort_runs", "summarize_batch"]

_BATCH_HINT = "give a batch file: nprocs, remote_output_path and runs"


class SortedRuns(NamedTuple):
    """Runs by what became of them, each in the order of the file."""

    unfinished: list[Run]
    failed: list[Run]
    completed: list[Run]


def summarize_batch(file: str, top: str | None) -> SortedRuns:
    """What became of the runs of a batch file. top: where its results are, if not as it says."""
    batch, top = open_batch(file, top)
    complete_runs(batch, top)
    return sort_runs(batch.runs, read_exit_codes(top, batch.runs))


def open_batch(file: str, top: str | None) -> tuple[BatchFile, str]:
    """A batch file, and where its results are; raises InputError."""
    batch = read_batch(open_document(file, "runs", _BATCH_HINT))
    if is_of_a_job(batch.document):
        raise InputError(
            "is a batch of a job that umpteen runs, which a chunk cannot stand for",
            "split the file that the job was made from",
            file=file,
            field="umpteen",
        )
    if not (top or batch.top):
        hint = "give it at the top of the file, or --remote-output-path"
        raise batch.build_error("has no 'remote_output_path'", "remote_output_path", hint=hint)
    return batch, top or batch.top


def sort_runs(runs: Sequence[Run], codes: Sequence[int | None]) -> SortedRuns:
    """Runs by their exit codes, which they get, with the words of `sc` for them."""
    found = SortedRuns([], [], [])
    for run, code in zip(runs, codes, strict=True):
        run.status_code = code
        if code is None:
            run.status = None
            found.unfinished.append(run)
        else:
            run.status = "error" if code else "completed"
            (found.failed if code else found.completed).append(run)
    return found


def read_exit_codes(top: str, runs: Sequence[Run]) -> list[int | None]:
    """The exit code of each run that has succeeded or failed (minus the signal that ended it).

    None for one that has not run, or not to its end, whose outputs are gone, or that had another
    command then. Every run has its `remote_output_path`. Raises StoreError and SettingsError.
    """
    spelling = _Spelling()
    places = [spelling.unify(run.remote_output_path or "") for run in runs]
    codes: list[int | None] = [None] * len(runs)
    unknown = _read_records(top, runs, places, codes, spelling)
    for position, left in zip(unknown, find_left([places[p] for p in unknown]), strict=True):
        codes[position] = left.code
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
        return folder + address[start:]


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
        address = store.address
        index_of = {
            spelling.unify(task.output or f"{address}/{task.name}"): index
            for index, task in enumerate(tasks)
            if index not in history.dropped
        }
        known, unknown = _part(runs, places, tasks, index_of)
        found = read_codes(
            history, [index_of[places[p]] for p in known], [places[p] for p in known]
        )
    finally:
        store.close()
    for position, code in zip(known, found, strict=True):
        codes[position] = code
    return unknown


def _part(
    runs: Sequence[Run], places: Sequence[str], tasks: Sequence[Task], index_of: Mapping[str, int]
) -> tuple[list[int], list[int]]:
    """The positions of runs that the job has with the same command, and of runs that it does not
    have.
    """
    known: list[int] = []
    unknown: list[int] = []
    for position, (run, place) in enumerate(zip(runs, places, strict=True)):
        index = index_of.get(place)
        if index is None:
            unknown.append(position)
        elif tasks[index].command == run.cmd:
            known.append(position)
    return known, unknown
