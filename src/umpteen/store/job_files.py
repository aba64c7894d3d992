"""What each small file of a job says, once it has the form that docs/files.md gives it.

The door through which a runner and a reader take what others wrote: a file without its form is
damaged, and a StoreError says so. Lines of records are in `records`, what only readers need in
`umpteen.history`. Standard library alone.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, NamedTuple, TypeVar

from umpteen.errors import StoreError
from umpteen.model.batch import BatchFile, encode_batch, parse_batch
from umpteen.model.forms import (
    FormError,
    get,
    list_of,
    load_json,
    number,
    place,
    table_of,
    text,
    token,
    whole,
)
from umpteen.store.base import Store
from umpteen.store.layout import CANCEL, batch_key

__all__ = [
    "CancelMark",
    "Running",
    "RunningTask",
    "damaged",
    "parse_job",
    "parse_running",
    "read_batch_file",
    "read_cancel_mark",
    "read_form",
    "write_batch_file",
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


# --- the job ------------------------------------------------------------------------------


def parse_job(content: bytes) -> dict[str, Any]:
    """`job.json`: its name, and what else there is. Raises FormError."""
    job = table_of(load_json(content))
    name = get(job, "name", text)
    if "/" in name or len(name.encode()) > _MOST_NAME:
        raise FormError(f"'name' is {name[:40]!r}")
    whole(job.get("version", 0), what="'version'")
    number(job.get("created", 0), what="'created'")
    table_of(job.get("settings", {}), what="'settings'")
    return job


# --- what is wanted of it, and what happens -----------------------------------------------


class CancelMark(NamedTuple):
    """What `.umpteen/cancel` says: batches up to `upto`, and of `tasks` those by index up to theirs."""

    upto: int
    tasks: dict[int, int]

    def has_batch(self, batch: str) -> bool:
        """Whether the batch is never to start again."""
        return batch.isdecimal() and int(batch) <= self.upto


def read_cancel_mark(store: Store) -> CancelMark:
    """The mark; one that is below every batch where there is none."""
    return read_form(store, CANCEL, _parse_cancel_mark) or CancelMark(0, {})


def _parse_cancel_mark(content: bytes) -> CancelMark:
    mark = table_of(load_json(content))
    tasks = table_of(mark.get("tasks", {}), what="'tasks'")
    return CancelMark(
        whole(mark.get("upto", 0), what="'upto'"),
        {place(index): whole(upto, what="'tasks'") for index, upto in tasks.items()},
    )


class RunningTask(NamedTuple):
    """A task that runs, by its index, as its runner told last."""

    task: int
    slot: int
    start_s: float
    pid: int


class Running(NamedTuple):
    """What a running file says: tasks, and what keeps the runner from going on."""

    tasks: list[RunningTask]
    trouble: str


def parse_running(content: bytes | None, below: int) -> Running:
    """What has no form counts for nothing: another comes within seconds.

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
