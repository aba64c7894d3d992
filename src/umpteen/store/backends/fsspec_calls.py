"""Calls of a file system of fsspec: each with a limit, in a thread where it blocks."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import threading
from typing import Any, Callable

from umpteen.store.backends.faults import WrongOptionsError
from umpteen.store.backends.fsspec_answers import is_missing, judge_fsspec
from umpteen.store.backends.loop import OpenOnce
from umpteen.store.base import Options

__all__ = ["FsspecCaller"]

_SLOWEST_BYTES_S = 50_000
_WRITES = {"pipe_file": 0, "put_file": 1, "rm_file": 0}  # which argument the file is
_LIMITS_S = {"get_file": None, "find": 600.0}  # of what may be long
_ONE_AT_A_TIME = {"ftp"}  # which has one connection for all that is asked


class FsspecCaller:
    """A file system of fsspec; what is missing there is FileNotFoundError."""

    def __init__(
        self, scheme: str, kind: Any, options: Options, connect_s: float, read_s: float
    ) -> None:
        self._scheme, self._kind, self._options = scheme, kind, options
        self.limit_s = connect_s + read_s  # for what is not long
        self._opened: OpenOnce[Any] = OpenOnce(self._open)
        self._alone: Any = (
            threading.Lock() if scheme in _ONE_AT_A_TIME else contextlib.nullcontext()
        )
        # Writes in threads that are not at their end, by the path that they write.
        self._writing: dict[str, asyncio.Future[Any]] = {}

    async def call(self, name: str, *arguments: Any, size: int = 0, **more: Any) -> Any:
        """What it answers, in so long as it may take. size: bytes that are to be written."""
        limit_s = self.limit_s + size / _SLOWEST_BYTES_S
        try:
            opened = await self._opened.get()
            if opened.async_impl:
                asked = getattr(opened, f"_{name}")(*arguments, **more)
            else:
                path = arguments[_WRITES[name]] if name in _WRITES else ""
                call = functools.partial(getattr(opened, name), *arguments, **more)
                asked = self._do_in_turn(path, functools.partial(self._do_alone, call))
            return await asyncio.wait_for(asked, _LIMITS_S.get(name, limit_s))
        except Exception as error:
            cause = error.__cause__
            if isinstance(cause, Exception) and judge_fsspec(cause).is_transient:
                raise cause from None  # some take any trouble for a file that is not there
            if isinstance(error, (FileNotFoundError, FileExistsError)):
                raise
            if is_missing(error):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
            if getattr(error, "errno", None) == errno.EEXIST:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            raise

    def forget(self) -> None:
        """Let go of it; it is opened again at the next call."""
        self._opened.forget()

    def reconnect(self) -> None:
        """Have another connection made where the library makes one only when it is opened."""
        if self._opened.opened is not None and not self._opened.opened.async_impl:
            self.forget()

    async def _do_in_turn(self, path: str, call: Callable[[], Any]) -> Any:
        """What a call in a thread gives; path: the file that it writes, one after another.

        A write that was given up may go on in its thread, and must not end after a later one.
        """
        while path in self._writing:
            await asyncio.wait([self._writing[path]])
        answer = _start_thread(call)
        if path:
            self._writing[path] = answer
            answer.add_done_callback(lambda _: self._writing.pop(path, None))
        return await asyncio.shield(answer)

    def _do_alone(self, call: Callable[[], Any]) -> Any:
        with self._alone:
            return call()

    async def _open(self) -> Any:
        opening = _start_thread(lambda: self._kind(**self._options))
        try:
            return await asyncio.wait_for(asyncio.shield(opening), self.limit_s)
        except TypeError as error:  # an option that it does not know
            raise WrongOptionsError(self._scheme, error) from error


def _start_thread(call: Callable[[], Any]) -> asyncio.Future[Any]:
    """What a call will give, in a thread that the end of the program does not wait for.

    A library that has no limit of its own may wait for ever.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())

    def work() -> None:
        try:
            settle = functools.partial(answer.set_result, call())
        except Exception as error:  # whatever the library has; `judge` knows them
            settle = functools.partial(answer.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=work, name="umpteen-results", daemon=True).start()
    return answer
