"""What a place on the network is asked for by a results store that is there.

A backend knows requests, and which of its errors pass; nothing of jobs. Everything here runs in
one event loop; each kind of place is a module of its own, which alone imports its library.
"""

from __future__ import annotations

import abc
import asyncio
import functools
import io
import itertools
import os
import random
import time
from collections.abc import Awaitable, Sequence
from typing import Any, BinaryIO, Callable, NamedTuple, TypeVar, cast

from umpteen.errors import UmpteenError
from umpteen.store.backends.faults import Fault, FaultError, WrongOptionsError
from umpteen.store.backends.loop import gather, open_loop

__all__ = ["Backend", "Body", "Entry", "remove_empty_folders", "retried"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_COMPARED_BYTES = 64 * 1024 * 1024

Answer = TypeVar("Answer")
Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])


class Entry(NamedTuple):
    """A name in a folder."""

    name: str
    size: int  # bytes, 0 for a folder
    is_folder: bool


class Body(NamedTuple):
    """What is to be put: bytes, or a file of this machine."""

    content: bytes
    path: str  # of the file; empty where `content` is all
    size: int  # bytes

    def open(self) -> BinaryIO:
        """It as a file, from its beginning; each attempt opens its own."""
        return open(self.path, "rb") if self.path else io.BytesIO(self.content)

    def is_same(self, content: bytes | None) -> bool:
        """Whether it is these bytes."""
        if content is None or len(content) != self.size:
            return False
        with self.open() as file:
            return file.read() == content


def retried(method: Method) -> Method:
    """Have a method of a backend tried again while its errors may pass."""

    @functools.wraps(method)
    async def retry(self: Backend, *arguments: Any, **more: Any) -> Any:
        return await self.retry(lambda: method(self, *arguments, **more))

    return cast("Method", retry)


async def remove_empty_folders(
    entries: Callable[[str], Awaitable[Sequence[Entry]]],
    remove: Callable[[str], Awaitable[None]],
    is_ours: Callable[[str], bool],
) -> None:
    """Remove the folders that are empty, the deepest first. No link is followed.

    remove: of one folder, if it is empty.
    """
    levels = [[""]]
    while levels[-1]:
        listed = await gather(entries, ((folder,) for folder in levels[-1]))
        below = [
            f"{folder}/{entry.name}".strip("/")
            for folder, found in zip(levels[-1], listed)
            for entry in found
            if entry.is_folder
        ]
        levels.append([path for path in below if is_ours(path)])
    for level in reversed(levels):
        await gather(remove, ((folder,) for folder in level))


class Backend(abc.ABC):
    """Where the files of a store are; keys are its keys. Errors are FaultError."""

    # Whether a new file is made only where none is; None where only a trial shows it.
    is_exclusive: bool | None = None
    # Whether the mark of a new file can be asked for later.
    keeps_marks = False
    # Whether a thousand files in many folders are one request.
    lists_deep = False

    def __init__(self) -> None:
        # No attempt begins later than this after the first.
        self.patience_s = 0.0

    @property
    def ready_s(self) -> float:
        """When it could be asked first, on the monotonic clock."""
        return float("-inf")

    def open_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it is to be asked in."""
        return open_loop()

    async def put_new(self, key: str, body: Body) -> bool:
        """Put a file whole where none is; False, and nothing done, if there is one."""
        mark = os.urandom(8).hex()
        is_made, attempts = await self._try(lambda: self.send(key, body, mark=mark))
        if is_made:
            return True
        # An attempt whose answer was lost may have been the one that made it.
        if self.keeps_marks or attempts == 1 or body.size > _COMPARED_BYTES:
            return False
        return body.is_same(await self.get(key, 0, -1))

    async def put(self, key: str, body: Body) -> None:
        """Put a file whole, in place of what is there."""
        await self.retry(lambda: self.send(key, body, mark=""))

    @abc.abstractmethod
    async def send(self, key: str, body: Body, *, mark: str) -> bool:
        """One attempt to put a file; with a mark, False where there is one that has another."""

    @abc.abstractmethod
    async def get(self, key: str, offset: int, size: int) -> bytes | None:
        """At most `size` bytes (-1: all) from `offset` on; offset -n: the last n bytes."""

    @abc.abstractmethod
    async def download(self, key: str, path: str) -> bool:
        """Copy a file to this machine, put whole; False if there is no such file."""

    @abc.abstractmethod
    async def entries(self, folder: str) -> Sequence[Entry]:
        """What is in a folder; nothing if there is no such folder."""

    @abc.abstractmethod
    async def walk(self, folder: str) -> Sequence[tuple[str, int]]:
        """Every file below a folder: its path relative to that, and its bytes."""

    async def look_up(self, keys: Sequence[str]) -> dict[str, str] | None:  # noqa: ARG002
        """Those of many files that are there, and the MD5 of each (empty: not told), by listings.

        None where no listing costs less than to ask for each.
        """
        return None

    @abc.abstractmethod
    async def remove(self, key: str) -> None:
        """Remove a file, if it is there."""

    async def remove_many(self, keys: Sequence[str]) -> None:
        """Remove files, those that are there."""
        await gather(self.remove, ((key,) for key in keys))

    async def remove_empty(self, is_ours: Callable[[str], bool]) -> None:  # noqa: B027 -- most have none
        """Remove the folders, by what their keys are, that are empty, and the top one."""

    @abc.abstractmethod
    async def move(self, source: str, target: str) -> None:
        """Give a file, or a folder with all below it, another key; nothing if it is not there."""

    @abc.abstractmethod
    def judge(self, error: Exception) -> Fault:
        """What an error of the library means."""

    async def recover(self, error: Exception) -> None:  # noqa: B027 -- most have nothing to mend
        """Before another attempt: what has to be made anew after such an error."""

    async def close(self) -> None:  # noqa: B027 -- some have nothing to close
        """Let go of connections."""

    async def retry(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """What the call gives; tried again, with growing pauses, while its errors may pass."""
        return (await self._try(call))[0]

    async def _try(self, call: Callable[[], Awaitable[Answer]]) -> tuple[Answer, int]:
        """What the call gives, and how many attempts that took."""
        began_s = time.monotonic()
        for attempt in itertools.count(1):
            try:
                return await call(), attempt
            except (FaultError, UmpteenError):
                raise
            except WrongOptionsError as error:
                raise FaultError(error.fault) from error
            except Exception as error:  # every library has its own; `judge` knows them
                fault = self.judge(error)
                longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempt - 1, 10))
                pause_s = longest_s * random.uniform(0.5, 1.0)
                is_late = time.monotonic() + pause_s - began_s > self.patience_s
                if not fault.is_transient or is_late:
                    raise FaultError(fault) from error
                await self.recover(error)
            await asyncio.sleep(pause_s)
        raise AssertionError
