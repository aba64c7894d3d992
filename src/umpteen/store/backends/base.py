"""What a place on the network is asked for by a results store that is there.

A place knows requests, and which of its errors pass; nothing of jobs. Everything here runs in
one event loop; each kind of place is a module of its own, which alone imports its library.
"""

from __future__ import annotations

import abc
import asyncio
import errno
import io
import itertools
import os
import random
import re
import time
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, BinaryIO, Callable, NamedTuple, TypeVar

from umpteen.errors import SettingsError, UmpteenError

__all__ = [
    "ASK_FOR_ACCESS",
    "CHECK_NETWORK",
    "CONNECT_S",
    "IN_FLIGHT",
    "READ_S",
    "WRITE_ENDPOINT",
    "Backend",
    "Body",
    "Entry",
    "Fault",
    "FaultError",
    "WrongOptionsError",
    "gather",
    "judge_network",
    "read_number",
]

CONNECT_S, READ_S = 5.0, 20.0
IN_FLIGHT = 32
CHECK_NETWORK = "check the network and the address, then run the same command again"
ASK_FOR_ACCESS = "these credentials may not do this: use others, or ask whoever owns the place"
_CHECK_OPTIONS = "check `options` of the results: they are those of fsspec's {}://"
WRITE_ENDPOINT = "write the endpoint as http://HOST:PORT or https://HOST"
_UNKNOWN_OPTION = re.compile(r"unexpected (?:keyword argument|option):? '(\w+)'")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_COMPARED_BYTES = 64 * 1024 * 1024

Answer = TypeVar("Answer")

_NETWORK = {
    errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH,
    errno.ENETDOWN, errno.ENETUNREACH, errno.EPIPE, errno.ETIMEDOUT,
}  # fmt: skip


class Fault(NamedTuple):
    """Why a request failed, in words, and whether the same request may succeed later.

    is_input: whether what the user said of the place is wrong.
    """

    reason: str
    hint: str | None = None
    is_transient: bool = False
    is_input: bool = False


class WrongOptionsError(Exception):
    """A place cannot be opened with what `options` or the environment say."""

    def __init__(self, scheme: str, error: Exception) -> None:
        text = " ".join(str(error).split())
        unknown = _UNKNOWN_OPTION.search(text)
        reason = f"there is no option {unknown[1]!r}" if unknown else text
        hint = WRITE_ENDPOINT if "endpoint" in text else _CHECK_OPTIONS.format(scheme)
        super().__init__(reason)
        self.trouble = Fault(reason, hint, is_input=True)


class FaultError(Exception):
    """A request failed for good."""

    def __init__(self, trouble: Fault) -> None:
        super().__init__(trouble.reason)
        self.trouble = trouble


class Entry(NamedTuple):
    """A name in a folder; size: bytes, 0 for a folder."""

    name: str
    size: int
    is_folder: bool


class Body(NamedTuple):
    """What is to be put: bytes, or the file at `path` on this machine. size: bytes."""

    content: bytes
    path: str
    size: int

    def open(self) -> BinaryIO:
        """It as a file, from its beginning; each attempt opens its own."""
        return open(self.path, "rb") if self.path else io.BytesIO(self.content)

    def is_same(self, content: bytes | None) -> bool:
        """Whether it is these bytes."""
        if content is None or len(content) != self.size:
            return False
        with self.open() as file:
            return file.read() == content


class Backend(abc.ABC):
    """Where the files of a store are; keys are its keys. Errors are FaultError.

    is_exclusive: whether a new file is made only where none is; None where only a trial tells.
    keeps_marks: whether the mark of a new file can be asked for later. lists_deep: whether a
    thousand files in many folders are one request. patience_s: no attempt begins later than
    this after the first. ready_s: when it could be asked first, on the monotonic clock.
    """

    is_exclusive: bool | None = None
    keeps_marks = False
    lists_deep = False
    patience_s = 0.0
    ready_s = float("-inf")

    async def put_new(self, key: str, body: Body) -> bool:
        """Put a file whole where none is; False, and nothing done, if there is one."""
        mark = os.urandom(8).hex()
        attempts = 0

        async def send() -> bool:
            nonlocal attempts
            attempts += 1
            return await self.send(key, body, mark=mark)

        if await self.tried(send):
            return True
        # An attempt whose answer was lost may have been the one that made it.
        if self.keeps_marks or attempts == 1 or body.size > _COMPARED_BYTES:
            return False
        return body.is_same(await self.get(key, 0, -1))

    async def put(self, key: str, body: Body) -> None:
        """Put a file whole, in place of what is there."""
        await self.tried(lambda: self.send(key, body, mark=""))

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

    async def tried(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """What the call gives; tried again, with growing pauses, while its errors may pass."""
        began_s = time.monotonic()
        for attempt in itertools.count(1):
            try:
                return await call()
            except (FaultError, UmpteenError):
                raise
            except WrongOptionsError as error:
                raise FaultError(error.trouble) from error
            except Exception as error:  # every library has its own; `judge` knows them
                trouble = self.judge(error)
                longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempt - 1, 10))
                pause_s = longest_s * random.uniform(0.5, 1.0)
                is_late = time.monotonic() + pause_s - began_s > self.patience_s
                if not trouble.is_transient or is_late:
                    raise FaultError(trouble) from error
                await self.recover(error)
            await asyncio.sleep(pause_s)
        raise AssertionError


def read_number(options: dict[str, Any], name: str, usual: float) -> float:
    """Take an option that is a number out of the others. Raises SettingsError."""
    said = options.pop(name, usual)
    try:
        return float(said)
    except (TypeError, ValueError):
        raise SettingsError(f"the option {name} of the results is no number") from None


def judge_network(error: BaseException) -> Fault | None:
    """What an error of the system or its sockets means; None where it is of another kind."""
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return Fault("no answer in time", CHECK_NETWORK, is_transient=True)
    if isinstance(error, (ConnectionError, EOFError)):
        return Fault("the connection was lost or refused", CHECK_NETWORK, is_transient=True)
    if isinstance(error, OSError) and error.errno in _NETWORK:
        return Fault(os.strerror(error.errno or 0), CHECK_NETWORK, is_transient=True)
    if isinstance(error, PermissionError):
        return Fault("permission denied", ASK_FOR_ACCESS)
    return None


async def gather(
    call: Callable[..., Awaitable[Answer]], arguments: Iterable[tuple[Any, ...]]
) -> list[Answer]:
    """What the call gives for each, in order; some at once. The first error ends all."""
    answers: dict[int, Answer] = {}
    waiting = enumerate(arguments)

    async def work() -> None:
        for number, argument in waiting:
            answers[number] = await call(*argument)

    tasks = [asyncio.ensure_future(work()) for _ in range(IN_FLIGHT)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [answers[number] for number in sorted(answers)]
