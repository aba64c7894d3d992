"""`umpteen logs`: what a task wrote, as it was written."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from umpteen.cli.options import complete_task, job_argument, one_task
from umpteen.errors import EXIT_SOME_FAILED, EXIT_SUCCEEDED, InputError, SettingsError
from umpteen.history import History
from umpteen.job import Task
from umpteen.lookup import find_outputs, find_task, open_history, read_status
from umpteen.task import STATES, Record, TaskState

__all__ = ["logs_command"]

_CHUNK = 1 << 20
_FOLLOW_S = 0.2

_Attempt = tuple[str, Record]


@click.command(
    "logs",
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
    folder = find_outputs(history, found, token, record).address
    path = f"{folder}/{'stderr' if is_stderr else 'stdout'}"
    if follow:
        return _follow(history, found.name, index, path)
    if not os.path.exists(path):
        if record is None:
            state = STATES[history.states[index]]
            raise InputError(
                f"{found.name} has written nothing yet: it is {state}",
                "--follow waits for it" if read_status(history).state == "running" else None,
            )
        raise InputError(f"the outputs of {found.name} are no longer at {folder}")
    _copy(path, 0)
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
        folder = find_outputs(history, task, token, record).address
        attempts.append(
            {
                "record": record.to_dict() if record else None,
                "folder": folder,
                "stdout": _read_text(f"{folder}/stdout"),
                "stderr": _read_text(f"{folder}/stderr"),
            }
        )
    return {**attempts[-1], "attempts": attempts if records or is_running else []}


def _read_text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _copy(path: str, offset: int) -> int:
    """Copy the file to stdout from `offset` on; where it ended."""
    try:
        with open(path, "rb", buffering=0) as file:
            if offset > file.seek(0, os.SEEK_END):  # a new attempt began
                offset = 0
            file.seek(offset)
            while chunk := file.read(_CHUNK):
                sys.stdout.buffer.write(chunk)
                offset += len(chunk)
    except FileNotFoundError:
        return 0
    sys.stdout.buffer.flush()
    return offset


def _is_running(history: History, index: int) -> bool:
    return any(task.index == index for task in read_status(history).running)


def _follow(history: History, name: str, index: int, path: str) -> int:
    """Copy what comes until the task is over, or nobody is at the job any more."""
    offset = 0
    if not os.path.exists(path) and not TaskState(STATES[history.states[index]]).is_final:
        sys.stderr.write(f"{name} has written nothing yet: what it writes comes here\n")
    while True:
        status = read_status(history)
        history.refresh()
        is_final = TaskState(STATES[history.states[index]]).is_final
        offset = _copy(path, offset)
        if is_final:
            return EXIT_SUCCEEDED
        if status.state != "running":
            sys.stderr.write(f"{name} has not ended, and nobody is at {status.name} any more\n")
            return EXIT_SOME_FAILED
        time.sleep(_FOLLOW_S)
