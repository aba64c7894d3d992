"""The signals that a runner takes. Standard library alone."""

from __future__ import annotations

import signal

from umpteen.system.stop_signals import STOP_SIGNALS, Stops

__all__ = ["Signals"]


class Signals:
    """Notes the signals that come; the loop asks what they were."""

    def __init__(self) -> None:
        """Take SIGUSR1 at once, as it would kill."""
        self.stops = Stops()  # how often it was asked to stop, and by which signal first
        self._must_look = False
        self._stop: int | None = None
        signal.signal(signal.SIGUSR1, self._on_look)

    def take_stops(self) -> None:
        """From now on stop signals do not kill, but are noted."""
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._on_stop)

    def _on_look(self, *_: object) -> None:
        self._must_look = True

    def _on_stop(self, number: int, *_: object) -> None:
        if self.stops.add(number):
            self._stop = number

    def pop_look(self) -> bool:
        """Whether somebody asked to look at the store, since the last call."""
        asked, self._must_look = self._must_look, False
        return asked

    def pop_stop(self) -> int | None:
        """The signal that asked to stop since the last call; None where none did."""
        asked, self._stop = self._stop, None
        return asked
