"""The event loop that places are asked in: one for the process, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Iterable
from typing import Any, Callable, Generic, TypeVar

__all__ = ["IN_FLIGHT", "OpenOnce", "gather", "open_loop"]

IN_FLIGHT = 32  # requests at once

Answer = TypeVar("Answer")

_opening = threading.Lock()
_loops: list[asyncio.AbstractEventLoop] = []
_of_parent: list[asyncio.AbstractEventLoop] = []  # kept, so that nobody warns that they are open


def open_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process; a new one after a fork, which leaves threads behind."""
    with _opening:
        if not _loops:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="umpteen-results", daemon=True).start()
            _loops.append(loop)
        return _loops[0]


def _forget_loop() -> None:
    global _opening
    _opening = threading.Lock()  # another thread may have had the old one
    _of_parent.extend(_loops)
    _loops.clear()


os.register_at_fork(after_in_child=_forget_loop)


class OpenOnce(Generic[Answer]):
    """What the first request opens and all others use."""

    def __init__(self, open_it: Callable[[], Awaitable[Answer]]) -> None:
        self._open_it = open_it
        # Made in the event loop: in Python 3.9 it belongs to the one that it was made in.
        self._opening: asyncio.Lock | None = None
        # None before the first request, and after `forget`.
        self.opened: Answer | None = None

    async def get(self) -> Answer:
        """What is open; opened now where nothing is."""
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self.opened is None:
                self.opened = await self._open_it()
        return self.opened

    def forget(self) -> Answer | None:
        """Have it opened again at the next request; what was open until now."""
        opened, self.opened = self.opened, None
        return opened


async def gather(
    call: Callable[..., Awaitable[Answer]], arguments: Iterable[tuple[Any, ...]]
) -> list[Answer]:
    """What the call gives for each, in order; some at once. The first error ends all."""
    answers: dict[int, Answer] = {}
    asked = list(enumerate(arguments))
    waiting = iter(asked)

    async def work() -> None:
        for number, argument in waiting:
            answers[number] = await call(*argument)

    tasks = [asyncio.ensure_future(work()) for _ in range(min(IN_FLIGHT, len(asked)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [answers[number] for number in sorted(answers)]
