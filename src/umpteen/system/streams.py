"""The standard streams of a process: all three there, and stderr never in the way.

Supervisors and daemons start programs with closed ones, and what they lead to may be full or
gone. Standard library alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import Any

from umpteen.system.terminal import clean

__all__ = ["fill_streams", "lead_nowhere", "never_mind_stderr", "write_stderr"]

_NAMES = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
_PATIENCE_S = 1.0  # with who reads stderr, where writing to it does not wait


def fill_streams() -> None:
    """Open /dev/null in place of each that is closed: no file opened later is to get its number."""
    for number, (name, mode) in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            lead_nowhere(number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 -- for good


def lead_nowhere(number: int) -> None:
    """Have what is written to a stream from now on end in /dev/null,
    and nothing be read from it.
    """
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    os.set_inheritable(number, True)


def never_mind_stderr() -> None:
    """Have what cannot be written to stderr dropped: nothing may depend on its being read."""
    before = sys.stderr
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Stderr(2, "w", closefd=False)),
        encoding=before.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def write_stderr(line: str) -> None:
    """Print a line on stderr, whatever that is: a program that uses umpteen may have closed it."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(clean(line) + "\n")
            sys.stderr.flush()


class _Stderr(io.FileIO):
    def write(self, content: Any) -> int:
        with contextlib.suppress(OSError):
            if super().write(content) is None:  # it would have to wait
                select.select([], [self], [], _PATIENCE_S)
                super().write(content)
        return len(content)
