"""Which commands need no shell, and where their program is."""

from __future__ import annotations

import os
import re

__all__ = ["is_plain", "resolve_program"]


# What a POSIX shell, dash or bash does itself, so that running a program of that name
# would not be the same.
_SHELL_WORDS = frozenset(
    ". : [ alias bg bind break builtin caller case cd chdir command compgen complete compopt"
    " continue coproc declare dirs disown do done echo elif else enable esac eval exec exit"
    " export false fc fg fi for function getopts hash help history if in jobs kill let local"
    " logout mapfile newgrp popd printf pushd pwd read readarray readonly return select set"
    " shift shopt source suspend test then time times trap true type typeset ulimit umask"
    " unalias unset until wait while".split()
)


_PLAIN_COMMAND = re.compile(r"[A-Za-z0-9_@%+:,./\-][A-Za-z0-9_@%+=:,./\- \t]*")


# --- starting -------------------------------------------------------------------------


def is_plain(command: str) -> bool:
    """Whether a command holds no shell syntax at all, so that blanks alone part its words."""
    return _PLAIN_COMMAND.fullmatch(command) is not None


def resolve_program(word: str, path: str, cwd: str | None) -> str | None:
    """The program that `sh` would start for the first word of a plain command.

    None where the shell would do something else: a builtin, an assignment, nothing found.
    """
    if "=" in word or word in _SHELL_WORDS:
        return None
    if "/" in word:
        full = word if word.startswith("/") or cwd is None else os.path.join(cwd, word)
        return word if _is_program(full) else None
    for folder in path.split(":"):
        if folder.startswith("/") and _is_program(f"{folder}/{word}"):
            return f"{folder}/{word}"
    return None


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)
