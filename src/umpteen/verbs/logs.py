"""`logs`: what a task wrote, as bytes to be printed, also while it runs."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from umpteen.errors import InputError
from umpteen.job.spec import Task
from umpteen.model.record import Record
from umpteen.query.job_view import JobView
from umpteen.query.outputs import Outputs
from umpteen.store.address import is_remote

__all__ = [
    "AttemptLog",
    "Followed",
    "TaskLog",
    "choose_attempt",
    "follow",
    "open_log",
    "read_all",
    "read_chunks",
]

_CHUNK_BYTES = 1 << 20
_FOLLOW_S, _FOLLOW_FAR_S = 0.2, 1.0

_Attempt = tuple[str, Record]


@dataclasses.dataclass(frozen=True)
class TaskLog:
    """A task, and what is known of its attempts."""

    job: JobView
    index: int
    task: Task
    attempts: Sequence[_Attempt]  # those that ended, oldest first, each with its runner's token
    is_running: bool

    @property
    def state(self) -> str:
        """Of the task; `running` where it does."""
        return "running" if self.is_running else self.job.state_of(self.index)

    @property
    def has_begun(self) -> bool:
        """Whether there is any attempt."""
        return bool(self.attempts) or self.is_running


class AttemptLog(NamedTuple):
    """What one attempt of a task wrote."""

    record: Record | None  # None where it has not ended
    folder: str  # or the address of its outputs
    stdout: str | None  # None where there is no such file
    stderr: str | None


class Followed(NamedTuple):
    """How a task stands that is followed."""

    is_over: bool  # nothing more will come
    has_ended: bool  # the task has; else nobody runs its job any more
    job: str


def open_log(job: JobView, task: str) -> TaskLog:
    """Raises InputError where there is no such task."""
    index, found = job.find_task(task)
    return TaskLog(job, index, found, job.read_attempts(index), job.is_running(index))


# --- of one attempt, as it is now -------------------------------------------------------


def read_chunks(log: TaskLog, file: str, number: int | None = None) -> Iterator[bytes]:
    """What an attempt wrote: the one of that number, else the newest. Raises InputError where there
    is none.
    """
    token, record = choose_attempt(log.task.name, log.attempts, number, is_running=log.is_running)
    outputs = log.job.find_outputs(log.task, token, record)
    found = _read_from(outputs, file, 0)
    if found is None:
        raise _build_missing(log, outputs, was_recorded=record is not None)
    return found


def choose_attempt(
    name: str, attempts: Sequence[_Attempt], number: int | None, *, is_running: bool
) -> tuple[str, Record | None]:
    """The runner and the record of an attempt, None where it has not ended.

    Raises InputError for an attempt that there is not.
    """
    if number is None:
        return attempts[-1] if attempts and not is_running else ("", None)
    for token, record in reversed(attempts):
        if record.attempt == number:
            return token, record
    running = attempts[-1][1].attempt + 1 if attempts else 1
    if is_running and number == running:
        return "", None
    numbers = [record.attempt for _, record in attempts] + [running] * is_running
    there = ", ".join(map(str, dict.fromkeys(numbers))) or "none yet"
    raise InputError(f"{name} has no attempt {number}", f"its attempts are {there}")


def _build_missing(log: TaskLog, outputs: Outputs, *, was_recorded: bool) -> InputError:
    name = log.task.name
    if was_recorded:
        return InputError(f"the outputs of {name} are no longer at {outputs.address}")
    is_job_running = log.job.read_status().state == "running"
    hint = "--follow waits for it" if is_job_running else None
    return InputError(f"{name} has written nothing yet: it is {log.state}", hint)


def _read_from(outputs: Outputs, file: str, offset: int) -> Iterator[bytes] | None:
    """The file from `offset` on, in chunks; None where there is none."""
    key = outputs.key(file)
    first = outputs.store.read(key, offset, _CHUNK_BYTES)
    return None if first is None else _read_on(outputs, key, offset, first)


def _read_on(outputs: Outputs, key: str, offset: int, first: bytes) -> Iterator[bytes]:
    chunk: bytes | None = first
    while chunk:
        yield chunk
        offset += len(chunk)
        chunk = outputs.store.read(key, offset, _CHUNK_BYTES)


# --- of all attempts --------------------------------------------------------------------


def read_all(log: TaskLog) -> list[AttemptLog]:
    """What each attempt wrote, the newest last; there is one, even where none has begun."""
    given: list[tuple[str, Record | None]] = [*log.attempts]
    if log.is_running or not log.attempts:
        given.append(("", None))
    return [_read_attempt(log, token, record) for token, record in given]


def _read_attempt(log: TaskLog, token: str, record: Record | None) -> AttemptLog:
    outputs = log.job.find_outputs(log.task, token, record)
    stdout, stderr = outputs.read_text("stdout"), outputs.read_text("stderr")
    return AttemptLog(record, outputs.address, stdout, stderr)


# --- as it comes ------------------------------------------------------------------------


def follow(
    log: TaskLog, file: str, write: Callable[[bytes], None], on_wait: Callable[[], None]
) -> Followed:
    """Write what comes until the task has ended, or nobody runs its job any more.

    on_wait: called once where the task has written nothing yet.
    """
    outputs = log.job.find_outputs(log.task)
    if is_remote(outputs.store.address):
        return _follow_far(log, file, write, on_wait)
    return _follow_near(log, outputs, file, write, on_wait)


def _follow_near(
    log: TaskLog,
    outputs: Outputs,
    file: str,
    write: Callable[[bytes], None],
    on_wait: Callable[[], None],
) -> Followed:
    """Where it runs on hosts that keep its files, they are asked to show what it prints."""
    reader = log.job.follow_output(log.index, file)
    if not log.job.runs_here(log.index):
        reader.begin()
    try:
        return _read_while_it_runs(log, outputs, file, write, on_wait)
    finally:
        reader.end()


def _read_while_it_runs(
    log: TaskLog,
    outputs: Outputs,
    file: str,
    write: Callable[[bytes], None],
    on_wait: Callable[[], None],
) -> Followed:
    path = f"{outputs.address}/{file}"
    if not os.path.exists(path) and not log.job.has_ended(log.index):
        on_wait()
    offset = 0
    while True:
        followed = _look(log)
        if os.path.exists(path) and os.path.getsize(path) < offset:  # a new attempt began
            offset = 0
        chunks = _read_from(outputs, file, offset)
        if chunks is None:
            offset = 0
        else:
            offset += _write_all(chunks, write)
        if followed.is_over:
            return followed
        time.sleep(_FOLLOW_S)


def _follow_far(
    log: TaskLog, file: str, write: Callable[[bytes], None], on_wait: Callable[[], None]
) -> Followed:
    """The same where only the runner sees what a task prints before it has ended."""
    if not log.job.has_ended(log.index):
        on_wait()
    reader = log.job.follow_output(log.index, file)
    reader.begin()
    try:
        while not (followed := _look(log)).is_over:
            write(reader.read())
            time.sleep(_FOLLOW_FAR_S)
    finally:
        reader.end()
    attempts = log.job.read_attempts(log.index)
    token, record = attempts[-1] if attempts else ("", None)
    was_read = reader.key and (reader.key.attempt, reader.key.token)
    is_same = record is not None and was_read == (record.attempt, token)
    outputs = log.job.find_outputs(log.task, token, record)
    _write_all(_read_from(outputs, file, reader.offset if is_same else 0) or (), write)
    return followed


def _look(log: TaskLog) -> Followed:
    status = log.job.read_status()
    log.job.refresh()
    has_ended = log.job.has_ended(log.index)
    return Followed(has_ended or status.state != "running", has_ended, status.name)


def _write_all(chunks: Iterator[bytes] | tuple[()], write: Callable[[bytes], None]) -> int:
    """How many bytes that were."""
    size = 0
    for chunk in chunks:
        write(chunk)
        size += len(chunk)
    return size
