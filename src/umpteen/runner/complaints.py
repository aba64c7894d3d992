"""What a runner says on stderr of what keeps it from going on: to people, or to its starter."""

from __future__ import annotations

import sys
from typing import Optional

from umpteen.model.complaint import build_complaint
from umpteen.system.terminal import clean

__all__ = ["STORE_HINT", "Complaints"]

STORE_HINT = "make room or give access, then run the same command again"


class Complaints:
    """Writes to stderr. Lines of JSON where a program of ours started the runner, else text."""

    def __init__(self, *, are_for_people: bool) -> None:
        self._are_for_people = are_for_people

    def add(self, message: str, hint: Optional[str]) -> None:  # noqa: UP045 -- Python 3.9
        """Say what is wrong, and what to do about it."""
        message, hint = clean(message), clean(hint or "")
        text = f"error: {message}" + f"\n\nhint: {hint}" * bool(hint)
        line = text if self._are_for_people else build_complaint(message, hint)
        sys.stderr.write(f"{line}\n")
