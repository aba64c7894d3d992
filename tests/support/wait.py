"""Waiting by condition with a limit, never by a fixed sleep."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["wait_until"]

Answer = TypeVar("Answer")


def wait_until(condition: Callable[[], Answer], limit_s: float = 60) -> Answer:
    """What `condition` gives as soon as it is true; fails after `limit_s` seconds."""
    end = time.monotonic() + limit_s
    while not (answer := condition()):
        if time.monotonic() > end:
            what = getattr(condition, "__name__", repr(condition))
            message = f"{what} was not true within {limit_s} s, but {answer!r}"
            raise AssertionError(message)
        time.sleep(0.02)
    return answer
