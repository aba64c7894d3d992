"""What a runner says of the error that ended it, to the process that started it.

One line of JSON on its stderr; where nobody started it who reads that, it is text for people.
"""

from __future__ import annotations

import json
from typing import NamedTuple

__all__ = ["Complaint", "build_complaint", "find_complaint", "find_last_word"]


class Complaint(NamedTuple):
    """The error that ended a runner, in words."""

    message: str
    hint: str


def build_complaint(message: str, hint: str) -> str:
    """The line that says so."""
    return json.dumps({"error": message, "hint": hint})


def find_complaint(said: str) -> Complaint | None:
    """The error in what a runner has printed; None where it named none, as when it was killed."""
    for line in reversed(said.splitlines()):
        complaint = _parse(line)
        if complaint is not None:
            return complaint
    return None


def _parse(line: str) -> Complaint | None:
    if not line.startswith('{"error"'):
        return None
    try:
        found = json.loads(line)
        return Complaint(str(found["error"]), str(found["hint"]))
    except (ValueError, KeyError):  # cut off, or something else that was printed
        return None


def find_last_word(said: str) -> str:
    """Of what a process has printed before it died, the line that says why; empty if nothing."""
    complaint = find_complaint(said)
    if complaint is not None:
        return complaint.message
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]  # a hint may stand below it
    return errors[-1][len("error: ") :] if errors else lines[-1] if lines else ""
