"""Signals that ask to stop: how often that was meant. Standard library alone."""

from __future__ import annotations

import signal
import time

__all__ = ["STOP_SIGNALS", "Stops"]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_S = 1.0


class Stops:
    """What was asked by Ctrl-C, SIGTERM or a closed terminal.

    count: 0, 1, or 2 once Ctrl-C has been pressed after an earlier one was heard. number: of the
    first signal. Programs between a terminal and us hand on the Ctrl-C that the terminal has sent
    to all, and process managers repeat their SIGTERM: what comes within a second came once, and
    no SIGTERM is more urgent than another.
    """

    def __init__(self) -> None:
        self.count = self.number = 0
        self._heard_s = 0.0

    def add(self, number: int, *_: object) -> bool:
        """A signal handler; whether it asks for something that was not asked for before."""
        now = time.monotonic()
        is_news = self.count == 0 or (
            self.count == 1 and number == signal.SIGINT and now - self._heard_s > _SAME_S
        )
        if is_news:
            self.count, self.number = self.count + 1, self.number or number
            self._heard_s = now
        return is_news
