"""The tasks that did not succeed, with the last line that each wrote."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

import msgspec

from umpteen.errors import UmpteenError
from umpteen.history.history import History
from umpteen.model.reasons import NOT_STARTED, read_reason
from umpteen.model.record import Record
from umpteen.model.states import tell_end
from umpteen.query.outputs import open_output
from umpteen.system.terminal import clean

__all__ = [
    "Failure",
    "choose_failures",
    "describe_end",
    "is_failure",
    "is_own_timeout",
    "read_failure",
]


class Failure(msgspec.Struct, frozen=True):
    """A task that came to an end without success."""

    index: int
    name: str
    state: str
    # How it ended, in a word or two; `more` is what of that its state does not say already.
    reason: str
    more: str
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
    more = _describe_more(record)
    return f"{tell_end(record.state)} {more}" if is_own_timeout(record) else more


def is_own_timeout(record: Record) -> bool:
    """Whether its own timeout has ended the attempt, not the deadline of the job."""
    return record.state == "timed_out" and not record.reason


def _describe_more(record: Record) -> str:
    """The same beside its state, of an attempt that timed out: `after 2 s`."""
    if is_own_timeout(record):
        seconds = record.seconds
        return f"after {seconds:.2g} s" if seconds < 100 else f"after {seconds:.0f} s"
    if record.state == "timed_out":
        return "ended by the job's deadline"
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
    found = read_reason(record.reason)
    if found and found.reason in NOT_STARTED:
        last = ""  # said once is enough
    more = _describe_more(record)
    return Failure(record.task, name, record.state, reason, more, last, has_stderr)


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
