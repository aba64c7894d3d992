"""Reads and writes the files of a job: what each says, in the form that docs/files.md gives it.

Who reads or writes a file of a job asks here, and need not know its name. A file that has not its
form is damaged, and a StoreError says so. Lines of records are in `records`; what only the head
needs of a submission is in `umpteen.history`. Standard library alone.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, TypedDict, TypeVar, cast

from umpteen.errors import StoreError
from umpteen.model.batch import BatchFile, encode_batch, parse_batch
from umpteen.model.forms import (
    MOST_TASKS,
    FormError,
    get,
    list_of,
    load_json,
    number,
    parse_ranges,
    place,
    table_of,
    text,
    token,
    whole,
)
from umpteen.store.base import Store
from umpteen.store.layout import (
    BATCHES,
    CANCEL,
    HANDED,
    JOB,
    JSON,
    RecordsKey,
    batch_key,
    closed_key,
    handed_key,
    parse_numbers,
    running_key,
)

__all__ = [
    "CancelMark",
    "JobFile",
    "Running",
    "RunningTask",
    "SubmissionPart",
    "SubmittedBatch",
    "close_batch",
    "damaged",
    "encode_running",
    "is_closed",
    "list_batch_numbers",
    "list_submission_numbers",
    "parse_job",
    "parse_running",
    "read_batch_file",
    "read_cancel_mark",
    "read_form",
    "read_job",
    "read_running",
    "read_submissions",
    "write_batch_file",
    "write_cancel_mark",
]

_MOST_NAME = 1000  # bytes
_Content = TypeVar("_Content")
_HINT = "put it back from a copy; a job without its .umpteen runs from its beginning"


def damaged(path: str, why: object) -> StoreError:
    """A file of a store that is not what it must be."""
    return StoreError(f"{path} is damaged: {why}", _HINT, path=path, damaged=True)


def read_form(store: Store, key: str, parse: Callable[[bytes], _Content]) -> _Content | None:
    """What a file says; None where there is none. Raises StoreError where it is damaged."""
    content = store.read(key)
    if content is None:
        return None
    try:
        return parse(content)
    except FormError as error:
        raise damaged(store.path(key), error) from error


# --- batches ------------------------------------------------------------------------------


def list_batch_numbers(store: Store) -> list[int]:
    """The numbers of all batches that were made of a plan, in order."""
    return parse_numbers(store.list(BATCHES), JSON)


def read_batch_file(store: Store, batch: str) -> BatchFile:
    """A batch file. Raises StoreError where there is none, or it is damaged."""
    token(batch, "a batch")
    content = read_form(store, batch_key(batch), functools.partial(parse_batch, batch))
    if content is None:
        message = f"there is no batch {batch} at {store.address}"
        raise StoreError(message, path=store.address, damaged=True)
    return content


def write_batch_file(store: Store, file: BatchFile) -> None:
    """Put a batch file in its place, over one that may be there."""
    store.replace(batch_key(file["umpteen"]["batch"]), encode_batch(file))


def close_batch(store: Store, batch: str) -> None:
    """Have no start of a batch begin any more."""
    store.create(closed_key(batch), b"")


def is_closed(store: Store, batch: str) -> bool:
    """Whether no start of a batch may begin any more."""
    return store.read(closed_key(batch)) is not None


# --- submissions --------------------------------------------------------------------------


class SubmittedBatch(NamedTuple):
    """A batch of a submission."""

    batch: str
    indices: list[range]  # of its tasks


class SubmissionPart(NamedTuple):
    """What a runner needs of `handed/K.json`; all of it is in `umpteen.history.files`."""

    number: int  # K
    segment: str  # in the names of its own files, where files of others were in the way
    batches: list[SubmittedBatch]


def list_submission_numbers(store: Store) -> list[int]:
    """The numbers of all submissions, in order."""
    return parse_numbers(store.list(HANDED), JSON)


def read_submissions(store: Store) -> list[SubmissionPart]:
    """Every submission of a job by its number; raises StoreError."""
    numbers = list_submission_numbers(store)
    keys = list(map(handed_key, numbers))
    contents = store.read_many([(key, 0, -1) for key in keys])
    found = []
    for number_of_it, key, content in zip(numbers, keys, contents):
        try:
            found.append(_parse_submission(number_of_it, content or b"{}"))
        except FormError as error:
            raise damaged(store.path(key), error) from error
    return found


def _parse_submission(number_of_it: int, content: bytes) -> SubmissionPart:
    submission = table_of(load_json(content))
    segment = submission.get("segment")
    batches = [
        SubmittedBatch(get(each, "batch", token), parse_ranges(each.get("indices")))
        for each in list_of(table_of, submission.get("batches", []), what="'batches'")
    ]
    return SubmissionPart(number_of_it, token(segment) if segment else "", batches)


# --- the job ------------------------------------------------------------------------------


class JobFile(TypedDict, total=False):
    """What `job.json` says."""

    name: str
    version: int  # of the format of all files
    id: str  # by which copies of the job are told from it
    created: float  # seconds since 1970
    settings: dict[str, Any]  # by the names of `umpteen.job.settings.Settings`
    removing: str  # which part of the job is being removed: `outputs` or the `rest`


def read_job(store: Store) -> JobFile | None:
    """What `job.json` says; None where there is no job. Raises StoreError where it is damaged."""
    return read_form(store, JOB, parse_job)


def parse_job(content: bytes) -> JobFile:
    """`job.json`: its name, and what else there is. Raises FormError."""
    job = table_of(load_json(content))
    name = get(job, "name", text)
    if "/" in name or len(name.encode()) > _MOST_NAME:
        raise FormError(f"'name' is {name[:40]!r}")
    whole(job.get("version", 0), what="'version'")
    number(job.get("created", 0), what="'created'")
    table_of(job.get("settings", {}), what="'settings'")
    return cast(JobFile, job)


# --- what is wanted of it, and what happens -----------------------------------------------


class CancelMark(NamedTuple):
    """What `.umpteen/cancel` says: what is never to start again."""

    upto: int  # batches up to this number
    tasks: dict[int, int]  # by index: a task in batches up to this number

    def has_batch(self, batch: str) -> bool:
        """Whether the batch is never to start again."""
        return batch.isdecimal() and int(batch) <= self.upto


def read_cancel_mark(store: Store) -> CancelMark:
    """The mark; one that is below every batch where there is none."""
    return read_form(store, CANCEL, _parse_cancel_mark) or CancelMark(0, {})


def write_cancel_mark(store: Store, mark: CancelMark) -> None:
    """Put a mark in place of the one that is there."""
    tasks = {str(index): upto for index, upto in mark.tasks.items()}
    store.replace(CANCEL, _encode({"upto": mark.upto, "tasks": tasks}))


def _parse_cancel_mark(content: bytes) -> CancelMark:
    mark = table_of(load_json(content))
    tasks = table_of(mark.get("tasks", {}), what="'tasks'")
    return CancelMark(
        whole(mark.get("upto", 0), what="'upto'"),
        {place(index): whole(upto, what="'tasks'") for index, upto in tasks.items()},
    )


class RunningTask(NamedTuple):
    """A task that runs, as its runner wrote last."""

    task: int  # its index
    slot: int
    start_s: float  # seconds since 1970
    pid: int


class Running(NamedTuple):
    """What a running file says."""

    tasks: list[RunningTask]
    trouble: str  # what keeps the runner from going on; empty where nothing does


def read_running(store: Store, batch: str, key: RecordsKey, below: int = MOST_TASKS) -> Running:
    """What a start of a batch wrote last of what it runs.

    below: more than the index of each task.
    """
    return parse_running(store.read(running_key(batch, key)), below)


def encode_running(running: Running) -> bytes:
    """The content of a running file."""
    return _encode({"running": running.tasks, "trouble": running.trouble}) + b"\n"


def parse_running(content: bytes | None, below: int) -> Running:
    """What a running file says; without its form it says nothing: another comes within seconds.

    below: more than the index of each task.
    """
    try:
        told = table_of(load_json(content or b"{}"))
        check = functools.partial(_parse_running_task, below)
        trouble = text(told.get("trouble", ""), what="'trouble'")
        return Running(list_of(check, told.get("running", [])), trouble)
    except FormError:
        return Running([], "")


def _parse_running_task(below: int, row: object) -> RunningTask:
    if not isinstance(row, list) or len(row) < len(RunningTask._fields):
        raise FormError("a running task is no list")
    task, slot, start_s, pid = row[: len(RunningTask._fields)]
    return RunningTask(whole(task, most=below - 1), whole(slot), number(start_s), whole(pid))


def _encode(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
