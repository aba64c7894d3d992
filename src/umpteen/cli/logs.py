"""`umpteen logs`: what a task wrote, as it was written."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from umpteen.cli.options import TaskCommand, complete_task, job_argument, one_task
from umpteen.errors import EXIT_SOME_FAILED, EXIT_SUCCEEDED, InputError, SettingsError
from umpteen.history.history import History
from umpteen.job.spec import Task
from umpteen.model.record import Record
from umpteen.model.states import IS_FINAL, STATES
from umpteen.query.find import find_task, open_history
from umpteen.query.live import LiveReader
from umpteen.query.liveness import read_status
from umpteen.query.outputs import Outputs, find_outputs
from umpteen.report.printing import say
from umpteen.store.address import is_remote

__all__ = ["logs_command"]

_CHUNK = 1 << 20
_FOLLOW_S, _FOLLOW_FAR_S = 0.2, 1.0

_Attempt = tuple[str, Record]


@click.command(
    "logs",
    cls=TaskCommand,
    short_help="Print what a task wrote to stdout or stderr.",
    epilog="""\b
Examples:
  umpteen logs sim lr=0.1,seed=17 --stderr
  umpteen logs sim 3 --follow
  umpteen logs sim 3 --attempt 1""",
)
@job_argument
@click.argument("task", shell_complete=complete_task)
@click.option("--stderr", "is_stderr", is_flag=True, help="stderr in place of stdout.")
@click.option("--attempt", type=click.IntRange(min=1), help="That one, in place of the newest.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the task has ended.")
@click.option("--json", "as_json", is_flag=True, help="All of it, of each attempt, as JSON.")
def logs_command(
    name: str, task: str, *, is_stderr: bool, attempt: int | None, follow: bool, as_json: bool
) -> int:
    """Print what TASK (its name or index) of the job NAME wrote, byte for byte.

    Of its newest attempt, if no other is asked for: of the one that runs, where one does.
    """
    if follow and attempt is not None:
        raise SettingsError("--follow and --attempt exclude each other", "give one of them")
    history = open_history(name)
    with one_task(task, "logs"):
        index, found = find_task(history, task)
    is_running = _is_running(history, index)
    records = history.read_records([index])[index]
    if as_json:
        state = "running" if is_running else STATES[history.states[index]]
        shown = _build_json(history, found, records, is_running=is_running)
        click.echo(json.dumps({"name": found.name, "index": index, "state": state, **shown}))
        return 0
    token, record = _choose(found.name, records, attempt, is_running=is_running)
    outputs = find_outputs(history, found, token, record)
    file = "stderr" if is_stderr else "stdout"
    if follow:
        copy = _follow_far if is_remote(outputs.store.address) else _follow
        return copy(history, found, index, file)
    if _copy(outputs, file, 0) is None:
        if record is None:
            state = STATES[history.states[index]]
            raise InputError(
                f"{found.name} has written nothing yet: it is {'running' if is_running else state}",
                "--follow waits for it" if read_status(history).state == "running" else None,
            )
        raise InputError(f"the outputs of {found.name} are no longer at {outputs.address}")
    return 0


def _choose(
    name: str, records: Sequence[_Attempt], attempt: int | None, *, is_running: bool
) -> tuple[str, Record | None]:
    """The runner and the record of an attempt, None where it has not ended.

    Raises InputError for an attempt that there is not.
    """
    if attempt is None:
        return records[-1] if records and not is_running else ("", None)
    for token, record in reversed(records):
        if record.attempt == attempt:
            return token, record
    if is_running and attempt == _number_running(records):
        return "", None
    numbers = [record.attempt for _, record in records]
    numbers += [_number_running(records)] * is_running
    there = ", ".join(map(str, dict.fromkeys(numbers))) or "none yet"
    raise InputError(f"{name} has no attempt {attempt}", f"its attempts are {there}")


def _number_running(records: Sequence[_Attempt]) -> int:
    return records[-1][1].attempt + 1 if records else 1


def _build_json(
    history: History, task: Task, records: Sequence[_Attempt], *, is_running: bool
) -> dict[str, Any]:
    """The newest attempt, and all of them with what they wrote."""
    given: list[tuple[str, Record | None]] = [*records]
    if is_running or not records:
        given.append(("", None))
    attempts = []
    for token, record in given:
        outputs = find_outputs(history, task, token, record)
        attempts.append(
            {
                "record": record.to_dict() if record else None,
                "folder": outputs.address,
                "stdout": _read_text(outputs, "stdout"),
                "stderr": _read_text(outputs, "stderr"),
            }
        )
    return {**attempts[-1], "attempts": attempts if records or is_running else []}


def _read_text(outputs: Outputs, name: str) -> str | None:
    content = outputs.store.read(outputs.key(name))
    return None if content is None else content.decode(errors="replace")


def _copy(outputs: Outputs, name: str, offset: int) -> int | None:
    """Copy the file to stdout from `offset` on; where it ended, None where there is none."""
    key = outputs.key(name)
    while (chunk := outputs.store.read(key, offset, _CHUNK)) is not None:
        if not chunk:
            sys.stdout.buffer.flush()
            return offset
        sys.stdout.buffer.write(chunk)
        offset += len(chunk)
    return None


def _is_running(history: History, index: int) -> bool:
    return any(task.index == index for task in read_status(history).running)


def _follow(history: History, task: Task, index: int, name: str) -> int:
    """Copy what comes until the task is over, or nobody is at the job any more."""
    offset = 0
    outputs = find_outputs(history, task, "", None)
    path = f"{outputs.address}/{name}"
    if not os.path.exists(path):
        _say_waiting(history, task.name, index)
    while True:
        is_over, code = _look(history, task.name, index)
        if os.path.exists(path) and os.path.getsize(path) < offset:  # a new attempt began
            offset = 0
        offset = _copy(outputs, name, offset) or 0
        if is_over:
            return code
        time.sleep(_FOLLOW_S)


def _follow_far(history: History, task: Task, index: int, name: str) -> int:
    """The same where only the runner sees what a task prints before it has ended."""
    _say_waiting(history, task.name, index)
    reader = LiveReader(history.store, index, name)
    reader.begin()
    try:
        while True:
            is_over, code = _look(history, task.name, index)
            if is_over:
                break
            sys.stdout.buffer.write(reader.read())
            sys.stdout.buffer.flush()
            time.sleep(_FOLLOW_FAR_S)
    finally:
        reader.end()
    records = history.read_records([index])[index]
    token, record = records[-1] if records else ("", None)
    was_read = reader.key and (reader.key.attempt, reader.key.token)
    is_same = record is not None and was_read == (record.attempt, token)
    _copy(find_outputs(history, task, token, record), name, reader.offset if is_same else 0)
    return code


def _say_waiting(history: History, name: str, index: int) -> None:
    if not IS_FINAL[history.states[index]]:
        say(f"{name} has written nothing yet: what it writes comes here", err=True)


def _look(history: History, name: str, index: int) -> tuple[bool, int]:
    """(whether nothing more will come, the exit code then)."""
    status = read_status(history)
    history.refresh()
    if IS_FINAL[history.states[index]]:
        return True, EXIT_SUCCEEDED
    if status.state == "running":
        return False, EXIT_SUCCEEDED
    say(f"{name} has not ended, and nobody is at {status.name} any more", err=True)
    return True, EXIT_SOME_FAILED
