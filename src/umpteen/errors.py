"""What can stop the tool: a code for programs, a message and a hint for people, an exit code.

A failed task is data (a record), never one of these. Nothing recognises an error by its message:
that is what codes are for.

    UmpteenError            code, message, hint
    ├── InputError          file, line, column, field            exit 2
    ├── SettingsError       a flag or setting that cannot be     exit 2
    ├── BackendError        transient, command, exit code, tail  exit 3
    ├── StoreError          path, transient, what was being done exit 3
    ├── OutputError         what was asked for cannot be printed exit 3
    │   └── ReaderLeftError who read it has gone                 exit 141
    └── PoolError                                                exit 3
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_READER_LEFT",
    "EXIT_SOME_FAILED",
    "EXIT_SUCCEEDED",
    "EXIT_UNREACHABLE",
    "EXIT_WRONG_USE",
    "RUNNER_CRASHED",
    "BackendError",
    "ErrorCode",
    "InputError",
    "OutputError",
    "PoolError",
    "ReaderLeftError",
    "SettingsError",
    "StoreError",
    "UmpteenError",
    "find_nearest",
    "nearest_hint",
    "say_nearest",
]

EXIT_SUCCEEDED = 0
EXIT_SOME_FAILED = 1
EXIT_WRONG_USE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130
EXIT_READER_LEFT = 141  # as a shell says of what SIGPIPE has ended
RUNNER_CRASHED = 70  # a runner's own, where a part of it was killed


class ErrorCode(enum.Enum):
    """What went wrong, as a word that stays the same when the message is worded anew.

    Each has the word that `--json` shows, the exit code, and a hint for where no better one is
    given.
    """

    # A file or the command line is wrong.
    INPUT = ("input", EXIT_WRONG_USE)
    # No job has that name or address.
    NO_JOB = ("no_job", EXIT_WRONG_USE)
    # Several jobs have that name.
    SEVERAL_JOBS = ("several_jobs", EXIT_WRONG_USE)
    # The job has no task of that name or index.
    NO_TASK = ("no_task", EXIT_WRONG_USE)
    # Two tasks of a job would have the same name.
    SAME_NAME = ("same_name", EXIT_WRONG_USE)
    # A setting is unknown, or has a value that it cannot have.
    SETTING = ("setting", EXIT_WRONG_USE)
    # The place where tasks should run does not answer, or answers wrongly.
    BACKEND = ("backend", EXIT_UNREACHABLE)
    # The results store cannot be read or written.
    STORE = ("store", EXIT_UNREACHABLE)
    # The store does not answer now; the same may succeed later.
    STORE_TRANSIENT = ("store_transient", EXIT_UNREACHABLE)
    # What is in the store is wrong or missing; waiting does not help.
    STORE_DAMAGED = ("store_damaged", EXIT_UNREACHABLE)
    # Outputs are at a place that somebody else may have named, which is not opened.
    STORE_NOT_TRUSTED = ("store_not_trusted", EXIT_UNREACHABLE)
    # What was asked for cannot be printed.
    OUTPUT = ("output", EXIT_UNREACHABLE)
    # Who read the output has gone.
    READER_LEFT = ("reader_left", EXIT_READER_LEFT)
    # The head of the pool refused, or is not there.
    POOL = ("pool", EXIT_UNREACHABLE)
    # A mistake in umpteen itself.
    UNEXPECTED = ("unexpected", EXIT_WRONG_USE, "--debug shows where; please report it")

    def __init__(self, word: str, exit_code: int, hint: str | None = None) -> None:
        self.word, self.exit_code, self.hint = word, exit_code, hint


class UmpteenError(Exception):
    """Something that stops the tool: one sentence, and what to do about it."""

    code = ErrorCode.UNEXPECTED
    exit_code = code.exit_code

    def __init__(
        self, message: str, hint: str | None = None, *, code: ErrorCode | None = None
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code, self.exit_code = code, code.exit_code
        self.message = message
        self.hint = hint if hint is not None else self.code.hint

    def __str__(self) -> str:
        return self.message

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON shows it: its kind, code, message and hint, and where it is."""
        shown = {key: value for key, value in vars(self).items() if value is not None}
        shown.pop("exit_code", None)  # the process tells it
        return {"error": type(self).__name__, **shown, "code": self.code.word}


class InputError(UmpteenError):
    """The user's file or command line is wrong at a place that can be named."""

    code = ErrorCode.INPUT
    exit_code = code.exit_code

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        code: ErrorCode | None = None,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        field: str | None = None,
    ) -> None:
        place = [file] if file else []
        if line:
            place.append(f"line {line}")
        if line and column:
            place.append(f"column {column}")
        super().__init__(f"{', '.join(place)}: {message}" if place else message, hint, code=code)
        self.file, self.line, self.column, self.field = file, line, column, field


class SettingsError(UmpteenError):
    """A setting that is unknown, or has a value that it cannot have."""

    code = ErrorCode.SETTING
    exit_code = code.exit_code


class BackendError(UmpteenError):
    """The place where tasks should run answered wrongly or not at all."""

    code = ErrorCode.BACKEND
    exit_code = code.exit_code

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        transient: bool = False,
        command: str | None = None,
        returned: int | None = None,
        last_lines: str | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.transient, self.command = transient, command
        self.returned, self.last_lines = returned, last_lines


class StoreError(UmpteenError):
    """The results store could not be read or written.

    transient: the same may succeed later. damaged: what is there is wrong or missing, so that
    waiting does not help.
    """

    code = ErrorCode.STORE
    exit_code = code.exit_code

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        path: str | None = None,
        transient: bool = False,
        damaged: bool = False,
    ) -> None:
        code = ErrorCode.STORE_DAMAGED if damaged else None
        code = ErrorCode.STORE_TRANSIENT if transient else code
        super().__init__(message, hint, code=code)
        self.path, self.transient, self.damaged = path, transient, damaged


class OutputError(UmpteenError):
    """What was asked for could not be printed."""

    code = ErrorCode.OUTPUT
    exit_code = code.exit_code


class ReaderLeftError(OutputError):
    """Whoever read stdout has gone, as `head` does: no message is needed."""

    code = ErrorCode.READER_LEFT
    exit_code = code.exit_code

    def __init__(self) -> None:
        super().__init__("nobody reads stdout any more")


class PoolError(UmpteenError):
    """The head of the pool refused, or is not there."""

    code = ErrorCode.POOL
    exit_code = code.exit_code


def nearest_hint(word: str, valid: Iterable[str]) -> str:
    """`did you mean 'command'?`, or the valid words where none is near."""
    choices = sorted(valid)
    near = find_nearest(word, choices)
    if not near:
        return "valid are " + ", ".join(choices)
    return say_nearest(near)


def find_nearest(word: str, choices: Sequence[str]) -> list[str]:
    """The up to three words that are most like a misspelt one, the nearest first."""
    return difflib.get_close_matches(word, choices, n=3, cutoff=0.6)


def say_nearest(near: Sequence[str]) -> str:
    """`did you mean 'a' or 'b'?`."""
    return "did you mean " + " or ".join(repr(choice) for choice in near) + "?"
