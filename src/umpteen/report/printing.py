"""Prints: lines for people without control characters; an error where stdout takes no more."""

from __future__ import annotations

import errno
import io
import os
import select
import shutil
import sys
from typing import Any

import click

from umpteen.errors import OutputError, ReaderLeftError
from umpteen.system.streams import lead_nowhere
from umpteen.system.terminal import clean

__all__ = ["count_columns", "guard_stdout", "say"]


def say(line: str, *, err: bool = False) -> None:
    """Print a line of text on stdout, or stderr: whatever is in it, it stays one line of text."""
    click.echo(clean(line), err=err)


def count_columns() -> int:
    """Of the terminal that stdout is; 0 where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def guard_stdout() -> None:
    """Have stdout raise ReaderLeftError or OutputError where it cannot be written, once."""
    before = sys.stdout
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Stdout(1, "w", closefd=False)),
        encoding=before.encoding,
        # A name that this terminal cannot show is no reason to show nothing.
        errors="backslashreplace" if before.errors == "strict" else before.errors,
        line_buffering=bool(before.line_buffering),
    )


class _Stdout(io.FileIO):
    def write(self, content: Any) -> int:
        try:
            while (written := super().write(content)) is None:  # it would have to wait
                select.select([], [self], [])
        except OSError as error:
            lead_nowhere(1)  # what is still to be written, at the end too
            if error.errno == errno.EPIPE:
                raise ReaderLeftError from None
            reason = os.strerror(error.errno or 0)
            raise OutputError(f"stdout cannot be written: {reason}") from error
        return written
