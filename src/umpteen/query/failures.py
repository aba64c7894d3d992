"""The tasks that did not succeed, with the last line that each wrote."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

import msgspec

from umpteen.errors import UmpteenError
from umpteen.history.history import History
from umpteen.model.reasons import read_reason
from umpteen.model.record import Record
from umpteen.query.outputs import open_output
from umpteen.system.terminal import clean

__all__ = ["Failure", "choose_failures", "describe_end", "is_failure", "read_failure"]


class Failure(msgspec.Struct, frozen=True):
    """A task that came to an end without success."""

    index: int
    name: str
    state: str
    # How it ended, in a word or two.
    reason: str
    # Of its stderr, where that says more than the reason.
    last_line: str
    has_stderr: bool


def is_failure(record: Record) -> bool:
    """Whether a task went wrong by itself: what was skipped or cancelled did not."""
    return record.state in ("failed", "timed_out")


def describe_end(record: Record) -> str:
    """How an attempt ended, in a word or two: `exit 1`, `signal 9`, `timed out after 2 s`.

    Empty where its state says it all.
    """
    if record.state == "timed_out" and record.reason:
        return "ended by the job's deadline"
    if record.state == "timed_out":
        return (
            f"timed out after {record.seconds:.2g} s"
            if record.seconds < 100
            else (f"timed out after {record.seconds:.0f} s")
        )
    if record.reason:
        found = read_reason(record.reason)
        return found.text if found else record.reason
    if record.state == "cancelled":
        return "" if record.signal or record.exit_code is not None else "not started"
    if record.signal is not None:
        return f"signal {record.signal}"
    if record.exit_code is None:
        return "not started"
    return f"exit {record.exit_code}"


_LAST_BYTES = 4096


def read_failure(history: History, batch: str, record: Record) -> Failure:
    """A record that did not succeed, with its task's name and the last line of its stderr."""
    name, output = history.describe_task(batch, record.task)
    last = _read_last_line(history, name, output, record)
    reason = describe_end(record)
    has_stderr = bool(last)
    if last == f"umpteen: {reason}":
        last = ""  # said once is enough
    return Failure(record.task, name, record.state, reason, last, has_stderr)


def choose_failures(entries: Sequence[tuple[str, Record]], most: int) -> list[tuple[str, Record]]:
    """The newest so many, the newest last: what failed goes before what was skipped."""
    failed = sum(is_failure(record) for _, record in entries)
    others = max(0, most - failed)
    left = {True: failed - most, False: len(entries) - failed - others}  # to be left out
    chosen = []
    for batch, record in entries:
        left[is_failure(record)] -= 1
        if left[is_failure(record)] < 0:
            chosen.append((batch, record))
    return chosen


def _read_last_line(history: History, name: str, output: str, record: Record) -> str:
    """Of an attempt's stderr; empty where there is none, or nothing that may be read."""
    with contextlib.suppress(UmpteenError):
        found, folder = open_output(history, output, name)
        below = f"{folder}/{record.outputs}" if record.outputs else folder
        try:
            return _find_last_line(found.read_tail(f"{below}/stderr", _LAST_BYTES) or b"")
        finally:
            if found is not history.store:
                found.close()
    return ""


def _find_last_line(content: bytes) -> str:
    lines = re.split(r"[\r\n]+", content.decode("utf-8", "replace"))
    shown = (clean(line).strip() for line in reversed(lines))
    return next((line for line in shown if line), "")
