"""`umpteen logs`: what a task wrote, as it was written."""

from __future__ import annotations

import json
import os
import sys
import time

import click

from umpteen.dispatch import find_task, open_history, outputs_folder, read_status
from umpteen.errors import InputError
from umpteen.history import History
from umpteen.task import STATES, TaskState

__all__ = ["logs_command"]

_CHUNK = 1 << 20
_FOLLOW_S = 0.2


@click.command(
    "logs",
    short_help="Print what a task wrote to stdout or stderr.",
    epilog="""\b
Examples:
  umpteen logs sim lr=0.1,seed=17 --stderr
  umpteen logs sim 3 --follow""",
)
@click.argument("name")
@click.argument("task")
@click.option("--stderr", "is_stderr", is_flag=True, help="stderr in place of stdout.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the task has ended.")
@click.option("--json", "as_json", is_flag=True, help="Both, and how it ended, as JSON.")
def logs_command(name: str, task: str, *, is_stderr: bool, follow: bool, as_json: bool) -> int:
    """Print what TASK (its name or index) of the job NAME wrote, byte for byte."""
    history = open_history(name)
    index, found = find_task(history, task)
    records = history.read_records([index])[index]
    token, record = records[-1] if records else ("", None)
    folder = outputs_folder(history, found, token, record)
    if as_json:
        shown = {
            "name": found.name,
            "index": index,
            "state": STATES[history.states[index]],
            "record": record.to_dict() if record else None,
            "folder": folder,
            "stdout": _read_text(f"{folder}/stdout"),
            "stderr": _read_text(f"{folder}/stderr"),
        }
        click.echo(json.dumps(shown))
        return 0
    path = f"{folder}/{'stderr' if is_stderr else 'stdout'}"
    if follow:
        _follow(history, index, path)
        return 0
    if not os.path.exists(path):
        if record is None:
            state = STATES[history.states[index]]
            raise InputError(
                f"{found.name} has written nothing yet: it is {state}", "--follow waits for it"
            )
        raise InputError(f"the outputs of {found.name} are no longer at {folder}")
    _copy(path, 0)
    return 0


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


def _follow(history: History, index: int, path: str) -> None:
    """Copy what comes until the task is over, or nobody is at the job any more."""
    offset = 0
    while True:
        status = read_status(history)
        history.refresh()
        is_over = TaskState(STATES[history.states[index]]).is_final or status.state != "running"
        offset = _copy(path, offset)
        if is_over:
            return
        time.sleep(_FOLLOW_S)
