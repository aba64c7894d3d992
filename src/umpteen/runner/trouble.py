"""What keeps a part of the runner from going on, and when it is given up."""

from __future__ import annotations

import enum
import time

__all__ = ["Trouble", "TroubleState"]


class TroubleState(enum.Enum):
    """Whether something is refused, and whether that may change."""

    NONE = "none"
    TEMPORARY = "temporary"  # it is tried again
    FINAL = "final"  # no trying helps


class Trouble:
    """What a store, or another part of the machine, refuses to one part of the runner."""

    def __init__(self, patience_s: float) -> None:
        self.state = TroubleState.NONE
        self.text = ""  # what is wrong, or was wrong last
        self.hint: str | None = None  # what to do about that
        self._patience_s = patience_s  # for so long it is waited for that to pass
        self._since_s = 0.0  # on the monotonic clock

    def __bool__(self) -> bool:
        return self.state is not TroubleState.NONE

    def begin(self, text: str, hint: str | None = None, *, is_final: bool = False) -> None:
        """Something is refused, maybe not for the first time."""
        if not self:
            self.state, self._since_s = TroubleState.TEMPORARY, time.monotonic()
        if is_final:
            self.state = TroubleState.FINAL
        self.text, self.hint = text, hint

    def end(self) -> None:
        """Nothing is refused any more."""
        self.state = TroubleState.NONE

    def is_lost(self, now: float) -> bool:
        """Whether it will not pass, or has not for too long."""
        has_waited = now - self._since_s > self._patience_s
        return self.state is TroubleState.FINAL or (bool(self) and has_waited)
