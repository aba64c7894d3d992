"""Runs one command of this machine to its end, with a limit of time. Standard library alone."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["TIMED_OUT", "Answer", "run_here", "say_late"]

TIMED_OUT = 124  # as of the program `timeout`


class Answer(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    said: str  # on stderr
    is_lost: bool = False  # nobody knows whether it ran, or runs


def run_here(
    command: Sequence[str], given: bytes, environment: Mapping[str, str], limit_s: float
) -> Answer:
    """Run it, and end it where it takes too long. given: on its stdin. Raises OSError."""
    try:
        done = subprocess.run(
            command, input=given, env=environment, capture_output=True, timeout=limit_s,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return say_late(command, (error.stderr or b"").decode(errors="replace"), limit_s)
    out, said = (part.decode(errors="replace") for part in (done.stdout, done.stderr))
    return Answer(done.returncode, out, said)


def say_late(command: Sequence[str], said: str, limit_s: float) -> Answer:
    """What is known of one that took too long. said: on stderr until then."""
    return Answer(TIMED_OUT, "", f"{said}{command[0]} timed out after {limit_s:g} s", is_lost=True)
