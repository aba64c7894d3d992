"""Threads that do what takes long, so that nobody has to wait. Standard library alone."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Generic, Optional, TypeVar

from umpteen.errors import StoreError
from umpteen.store.base import Appender
from umpteen.system.host import sync_filesystem

__all__ = ["Aside", "Beside", "Syncer", "is_unsynced"]

_ASIDE_S = 5.0

Answer = TypeVar("Answer")


class Beside(threading.Thread, Generic[Answer]):
    """One call in a thread of its own."""

    def __init__(self, call: Callable[[], Answer]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.answers: list[Answer] = []
        self.error: Optional[BaseException] = None  # noqa: UP045 -- Python 3.9
        self.start()

    def run(self) -> None:
        """The call."""
        try:
            self.answers.append(self.call())
        except BaseException as error:  # for whoever takes the answer
            self.error = error

    def is_over(self, wait_s: float = 0.0) -> bool:
        """Whether it has ended, if need be after so many seconds."""
        self.join(wait_s)
        return not self.is_alive()

    def take(self) -> Answer:
        """What the call gave, when it has ended; raises what it raised."""
        self.join()
        if self.error is not None:
            raise self.error
        return self.answers[0]


class Aside:
    """A thread that does one thing after the other, so that no store is waited for."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            call = self.calls.get()
            with contextlib.suppress(StoreError, OSError):
                call()

    def finish(self) -> None:
        """Wait until all is done, for a few seconds."""
        done = threading.Event()
        self.calls.put(done.set)
        done.wait(_ASIDE_S)

    def do(self, call: Callable[[], None]) -> None:
        """Have it done when all before it is; a store's errors are passed over."""
        self.calls.put(call)


class Syncer:
    """Waits for the disk in a thread of its own, so that nobody else has to."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.marks: list[tuple[Appender, int]] = []
        self.error: StoreError | None = None  # of the newest, where that failed

    def begin(self, marks: list[tuple[Appender, int]]) -> None:
        """Start to sync all that was written so far, if nothing is being synced."""
        if self.thread is None:
            self.marks, self.error = marks, None
            self.thread = threading.Thread(target=self._sync, daemon=True)
            self.thread.start()

    def _sync(self) -> None:
        try:
            for file, _ in self.marks:
                file.flush()
            if self.marks[0][0].fd >= 0:
                sync_filesystem(self.marks[0][0].fd)
        except StoreError as error:
            self.error = error
        except OSError as error:
            self.error = StoreError(f"{error.strerror}: {error.filename or 'the disk'}")

    def take(self, *, wait: bool) -> list[tuple[Appender, int]]:
        """How far each file is on the disk by now; empty while that is not known."""
        if self.thread is None or (self.thread.is_alive() and not wait):
            return []
        self.thread.join()
        self.thread = None
        marks, self.marks = self.marks, []
        return [] if self.error else marks


def is_unsynced(file: Appender) -> bool:
    """Whether it has what a power loss, or our own end, would take away."""
    return bool(file.pending) if file.fd < 0 else file.size > file.synced
