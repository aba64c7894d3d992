"""What runs beside this thread: threads for slow calls, and processes that may outlive ours.

Standard library alone.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Optional, TypeVar

from umpteen.errors import StoreError

__all__ = ["BackgroundCall", "BackgroundQueue", "detach"]

_ASIDE_S = 5.0

Answer = TypeVar("Answer")


class BackgroundCall(threading.Thread, Generic[Answer]):
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


class BackgroundQueue:
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


def detach(
    command: Sequence[str],
    *,
    output: Any,
    errors: Any,
    stdin: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    env: Optional[Mapping[str, str]] = None,  # noqa: UP045 -- Python 3.9
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, which may outlive us.

    output, errors: files for its stdout and stderr, as Popen has them. env: all that it finds,
    if not what we have. Raises OSError.
    """
    return _Detached(
        command,
        stdin=stdin,
        stdout=output,
        stderr=errors,
        pass_fds=pass_fds,
        env=env,
        start_new_session=True,
    )


class _Detached(subprocess.Popen[bytes]):
    def __del__(self) -> None:
        # Popen warns of a process that still runs; that this one does is meant.
        super().__del__(_warn=_ignore)  # type: ignore[call-arg]


def _ignore(*_: object, **__: object) -> None:
    return None
