"""Whether the libraries of engines may log to stderr, which the command line keeps for itself.

Python programs that use umpteen get these logs as they have set them up. The command line says
itself, and once, what is wrong, and calls `silence` before an executor is loaded.
"""

from __future__ import annotations

__all__ = ["are_silenced", "silence"]

_is_silent = False


def silence() -> None:
    """Have them log nothing in this process."""
    global _is_silent
    _is_silent = True


def are_silenced() -> bool:
    """Whether they are to log nothing."""
    return _is_silent
