"""What a Ctrl-C does while a verb runs, and what is shown while it waits for something."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

from umpteen.system.stop_signals import STOP_SIGNALS, Stops
from umpteen.system.streams import write_stderr

__all__ = ["Waiting", "stop_signals"]

_SHOW_S, _FIRST_SHOW_S = 5.0, 3.0


class Waiting:
    """Shows on stderr what a verb waits for, before there is a job to look at."""

    # first_s: seconds until something is shown for the first time.
    def __init__(self, stop: Stops, *, is_shown: bool, first_s: float = _FIRST_SHOW_S) -> None:
        self._stop, self._is_shown = stop, is_shown
        self._shown_s = time.monotonic() + first_s - _SHOW_S

    def tell(self, text: str) -> None:
        """Show it now and then. Raises KeyboardInterrupt once the user asked to stop."""
        if self._stop.count:
            raise KeyboardInterrupt
        if self._is_shown and time.monotonic() - self._shown_s >= _SHOW_S:
            self._shown_s = time.monotonic()
            write_stderr(text)


@contextlib.contextmanager
def stop_signals(*, is_last: bool = False) -> Iterator[Stops]:
    """Count signals instead of dying of them.

    is_last: whether the process only has to end after this; once asked to, it ignores more.
    """
    stop = Stops()
    if threading.current_thread() is not threading.main_thread():  # only that one gets signals
        yield stop
        return
    # What is ignored stays so, as under nohup.
    caught = [n for n in STOP_SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop.add) for number in caught}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if is_last and stop.count else handler)
