"""Why an attempt ended as it did, where its state and its exit code do not say it.

A record keeps a reason as a text. Here alone such a text is made, and here alone it is read.
"""

from __future__ import annotations

import enum
import functools
import re
from typing import NamedTuple

from umpteen.model.states import read_end, tell_end

__all__ = [
    "NOT_STARTED",
    "FoundReason",
    "Reason",
    "read_reason",
    "write_after",
    "write_reason",
]


class Reason(enum.Enum):
    """A reason, and the text that a record has for it; names in braces stand for its parts."""

    # Something ended the attempt before the command did.
    INTERRUPTED = "interrupted"  # its runner was stopped; another start runs the task again
    DEADLINE = "deadline"  # of the whole job, not the task's own timeout
    OUTPUT_LIMIT = "output limit"
    OUT_OF_MEMORY = "out of memory"  # the kernel killed it
    KILLED_ITS_RUNNER = "killed its runner"  # three died while it ran

    # The command ended with exit code 0, and the task failed all the same.
    MISSING_FILE = "did not leave {path}"  # of those that the task is to leave

    # The command could not be started.
    NUL_CHARACTER = "the command holds a NUL character"
    BAD_FOLDER = "cannot run in {folder}: {why}"
    TOO_LONG = "cannot start: {why}"  # the command, or its environment; or what the child says
    BAD_PROGRAM = "cannot start {program}: {why}"
    NOT_PREPARED = "could not prepare {path}: {why}"
    FILES_NOT_KEPT = "could not keep its files: {why}"

    # The task was never started.
    TOO_LARGE = "needs {wanted} {what}, and this machine has {most}"
    AFTER = "after {task}, which {end}"  # a task that it is after came to another end than asked
    TOO_MANY_FAILURES = "not started after {failures} failed"


# Where the command could not be started; its stderr then has the same text.
NOT_STARTED = (Reason.NUL_CHARACTER, Reason.BAD_FOLDER, Reason.TOO_LONG, Reason.BAD_PROGRAM)


class FoundReason(NamedTuple):
    """What the text of a record says."""

    reason: Reason
    parts: dict[str, str]

    @property
    def text(self) -> str:
        """The reason as this version writes it."""
        return write_reason(self.reason, **self.parts)


def write_reason(reason: Reason, **parts: object) -> str:
    """The text of a reason with its parts filled in."""
    return reason.value.format(**parts) if parts else reason.value


def write_after(task: str, state: str) -> str:
    """Why a task is skipped: `task`, which it is after, came to its end in `state`."""
    return write_reason(Reason.AFTER, task=task, end=tell_end(state))


def read_reason(text: str) -> FoundReason | None:
    """The reason that a text is of; None for another text, as of a later version."""
    for reason, pattern in _build_patterns():
        if found := pattern.fullmatch(text):
            parts = found.groupdict()
            if reason is Reason.AFTER:  # earlier versions wrote the state: `which skipped`
                parts["end"] = tell_end(read_end(parts["end"]))
            return FoundReason(reason, parts)
    return None


@functools.cache
def _build_patterns() -> list[tuple[Reason, re.Pattern[str]]]:
    """Built when first asked for: the lanes of a runner only write."""
    return [(reason, re.compile(_to_pattern(reason.value), re.DOTALL)) for reason in Reason]


def _to_pattern(template: str) -> str:
    parts = re.split(r"{(\w+)}", template)
    named = [_PART_PATTERNS.get(name, f"(?P<{name}>.+)") for name in parts[1::2]]
    fixed = [re.escape(part) for part in parts[::2]]
    return "".join(text + name for text, name in zip(fixed, [*named, ""]))


_PART_PATTERNS = {"end": r"(?P<end>\w+(?: \w+)?)", "wanted": r"(?P<wanted>\S+)"}
