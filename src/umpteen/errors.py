"""What can stop the tool, and the exit code of each.

A failed task is data (a record), never one of these.

    UmpteenError            message, hint
    ├── InputError          file, line, column, field            exit 2
    ├── SettingsError       a flag or setting that cannot be     exit 2
    ├── BackendError        transient, command, exit code, tail  exit 3
    ├── StoreError          path, transient, what was being done exit 3
    ├── OutputError          what was asked for cannot be printed exit 3
    │   └── ReaderLeftError who read it has gone                 exit 141
    └── PoolError                                                exit 3
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
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
    "InputError",
    "OutputError",
    "PoolError",
    "ReaderLeftError",
    "SettingsError",
    "StoreError",
    "UmpteenError",
    "nearest_hint",
]

EXIT_SUCCEEDED = 0
EXIT_SOME_FAILED = 1
EXIT_WRONG_USE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130
EXIT_READER_LEFT = 141  # as a shell says of what SIGPIPE has ended
RUNNER_CRASHED = 70  # a runner's own, where a part of it was killed


class UmpteenError(Exception):
    """Something that stops the tool: one sentence, and what to do about it."""

    exit_code = EXIT_WRONG_USE

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON shows it: its kind, message and hint, and where it is."""
        shown = {key: value for key, value in vars(self).items() if value is not None}
        return {"error": type(self).__name__, **shown}


class InputError(UmpteenError):
    """The user's file or command line is wrong at a place that can be named."""

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
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
        super().__init__(f"{', '.join(place)}: {message}" if place else message, hint)
        self.file, self.line, self.column, self.field = file, line, column, field


class SettingsError(UmpteenError):
    """A setting that is unknown, or has a value that it cannot have."""


class BackendError(UmpteenError):
    """The place where tasks should run answered wrongly or not at all."""

    exit_code = EXIT_UNREACHABLE

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

    exit_code = EXIT_UNREACHABLE

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        path: str | None = None,
        transient: bool = False,
        damaged: bool = False,
    ) -> None:
        super().__init__(message, hint)
        self.path, self.transient, self.damaged = path, transient, damaged


class OutputError(UmpteenError):
    """What was asked for could not be printed."""

    exit_code = EXIT_UNREACHABLE


class ReaderLeftError(OutputError):
    """Who read what is printed has gone, as `head` does, and needs no word of it."""

    exit_code = EXIT_READER_LEFT

    def __init__(self) -> None:
        super().__init__("nobody reads stdout any more")


class PoolError(UmpteenError):
    """The head of the pool refused, or is not there."""

    exit_code = EXIT_UNREACHABLE


def nearest_hint(word: str, valid: Iterable[str]) -> str:
    """`did you mean 'command'?`, or the valid words where none is near."""
    choices = sorted(valid)
    near = difflib.get_close_matches(word, choices, n=3, cutoff=0.6)
    if not near:
        return "valid are " + ", ".join(choices)
    return "did you mean " + " or ".join(repr(choice) for choice in near) + "?"
