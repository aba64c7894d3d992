"""What a process knows of the batches that it submitted itself, beyond what handles tell.

Not every executor knows more: a queue that is asked by commands leaves it at `OwnRuns`, and
then the store and `poll` say all.
"""

from __future__ import annotations

import time
from typing import NamedTuple

__all__ = ["ExitStatus", "OwnRuns"]


class ExitStatus(NamedTuple):
    """How a runner ended."""

    code: int  # its exit code
    complaint: str = ""  # what it wrote to its stderr


class OwnRuns:
    """The runs of the newest submission of this process; here nothing is known of them."""

    is_attached = False
    """Whether they end when this process does."""

    def exit_status(self) -> ExitStatus | None:
        """The worst exit status of its runners; None while some live."""
        return ExitStatus(0)

    def wait(self, timeout_s: float) -> None:
        """Wait until there may be news, or `timeout_s` seconds."""
        time.sleep(timeout_s)

    def stop(self, *, at_once: bool) -> None:
        """Have what is attached end its tasks: kindly, or at once."""

    def detach(self) -> None:
        """Have what is attached go on when this process ends."""

    def close(self) -> None:
        """Free what leads to the runners; what is attached ends its tasks then."""
