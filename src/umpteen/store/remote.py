"""A results store that is not a folder: on S3, behind SFTP, or wherever fsspec can write.

What is asked of the place runs in an event loop (`RemoteFiles`); here it is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
import weakref
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, Callable, TypeVar

from umpteen.store.backends.base import Backend, Body
from umpteen.store.backends.loop import gather
from umpteen.store.backends.opening import open_backend
from umpteen.store.base import Appender, Content, Glance, Options, Store
from umpteen.store.remote_files import RemoteFiles
from umpteen.store.segments import Segments

__all__ = ["RemoteStore"]

_MEMORY_BYTES = 8 * 1024 * 1024  # content of unknown size that is larger goes to a file
_GLANCES = 1000  # folders that are looked up together
_CLOSE_S = 2.0
_LOOKING_S = 10.0

Answer = TypeVar("Answer")


class RemoteStore(Store):
    """What an address with a scheme stands for; may be used by several threads.

    Connects when it is first asked for something. Never carried over a fork: open it after.
    Requests are tried again for 10 s, since somebody may look on or try again himself; for
    `patience_s` where the store is `patient`. Raises SettingsError where the package for its
    scheme is missing.
    """

    is_lasting = True

    def __init__(self, address: str, options: Options, patience_s: float) -> None:
        self.address = address
        self._patience_s = patience_s
        self._backend = open_backend(address, options)
        self._backend.patience_s = min(_LOOKING_S, patience_s)
        self._files = RemoteFiles(address, options, self._backend)
        self._loop = self._backend.open_loop()
        self.lists_deep = self._backend.lists_deep
        self._is_exclusive = self._backend.is_exclusive
        self._probing = threading.Lock()
        self._closing = weakref.finalize(self, _close, self._backend, self._loop, os.getpid())

    def path(self, key: str) -> str:
        """The address of the file."""
        return self._files.path(key)

    @property
    def ready_s(self) -> float:
        """When the place could be asked first; infinite until then."""
        return self._backend.ready_s

    @property
    def heard_s(self) -> float:
        """When the place last answered, on the monotonic clock."""
        return self._files.answered_s

    @property
    def has_exclusive_create(self) -> bool:
        """Whether of several who create the same file just one succeeds; tried out once."""
        with self._probing:
            if self._is_exclusive is None:
                self._is_exclusive = self._run(self._files.try_exclusive())
            return self._is_exclusive

    def read(self, key: str, offset: int = 0, size: int = -1) -> bytes | None:
        """At most `size` bytes of the file from `offset` on; None if there is no such file."""
        return self.read_many([(key, offset, size)])[0]

    def read_tail(self, key: str, size: int) -> bytes | None:
        """The last `size` bytes of the file, or all of it; None if there is no such file."""
        return self.read_many([(key, -size, -1)])[0] if size else self.read(key, 0, 0)

    def read_many(self, asked: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """`read` of each (key, offset, size); offset -n with size -1 is the last n bytes."""
        return self._run(self._files.read_many(asked))

    def create(self, key: str, content: Content) -> bool:
        """Put a file whole where none is; False, and nothing done, if there is one.

        Where the place cannot do that in one step, others may come in between.
        """
        if not self.has_exclusive_create and self.read(key, 0, 0) is not None:
            return False
        with _as_body(content) as body:
            return self._run(self._files.create(key, body))

    def replace(self, key: str, content: Content) -> None:
        """Put a file whole, in place of what is there."""
        with _as_body(content) as body:
            self._run(self._files.replace(key, body))

    def open_records(self, key: str) -> Appender:
        """New records of a start; nothing is there before their first flush."""
        return Segments(self, key)

    def fetch(self, key: str, path: str) -> bool:
        """Copy a file to `path` on this machine, put whole; False if there is no such file."""
        return self.fetch_many([(key, path)])[0]

    def fetch_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """`fetch` of each (key, path)."""
        return self._run(self._files.fetch_many(pairs))

    def put(self, key: str, path: str) -> None:
        """Copy the file at `path` of this machine into the store, put whole."""
        self.put_many([(key, path)])

    def put_many(self, pairs: Sequence[tuple[str, str]]) -> None:
        """`put` of each (key, path)."""
        self._run(self._files.put_many(pairs))

    def move(self, source: str, target: str) -> None:
        """Give a file, or a folder with all below it, another key; nothing if it is not there."""
        self._run(self._files.move(source, target))

    def delete(self, key: str) -> None:
        """Remove a file, if it is there."""
        self.delete_many([key])

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove files, those that are there."""
        self._run(self._files.delete_many(keys))

    def remove_empty(self, is_ours: Callable[[str], bool]) -> None:
        """Remove the folders that are empty, and the store's own one, where the place has some."""
        self._run(self._files.remove_empty(is_ours))

    def walk(self, folder: str) -> list[tuple[str, int]]:
        """Every file below a folder, in no order: its path relative to that, and its bytes.

        Records are shown as the segments that they are in.
        """
        return list(self._run(self._files.walk(folder)))

    def names(self, folder: str) -> list[str]:
        """The names in a folder, in no order; none if there is no such folder."""
        return self._run(self._files.names(folder))

    def names_many(self, folders: Sequence[str]) -> list[list[str]]:
        """`names` of each folder."""
        return self._run(self._files.names_many(folders))

    def glance(self, folders: Sequence[str], name: str) -> list[Glance]:
        """At many folders of tasks, in as few requests as may be; name: of their status file."""
        parts = [folders[n : n + _GLANCES] for n in range(0, len(folders), _GLANCES)]
        glances = self._run(gather(self._files.glance, ((part, name) for part in parts)))
        return [glance for part in glances for glance in part]

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Try again for longer, where nobody else would try again."""
        before, self._backend.patience_s = self._backend.patience_s, self._patience_s
        try:
            yield
        finally:
            self._backend.patience_s = before

    def close(self) -> None:
        """Let go of connections; the store is not used any more."""
        self._closing()

    def abandon(self) -> None:
        """Do not even close it at the end of the program: it may still be waited for."""
        self._closing.detach()

    def _run(self, asking: Coroutine[Any, Any, Answer]) -> Answer:
        future = asyncio.run_coroutine_threadsafe(asking, self._loop)
        try:
            return future.result()
        except BaseException:  # also where we were interrupted
            future.cancel()
            raise


@contextlib.contextmanager
def _as_body(content: Content) -> Iterator[Body]:
    """Content as what a backend can put again; what is large is in a file meanwhile."""
    if isinstance(content, (bytes, bytearray)):
        yield Body(bytes(content), "", len(content))
        return
    parts = iter(content)
    start = _take(parts, _MEMORY_BYTES)
    if len(start) < _MEMORY_BYTES:
        yield Body(start, "", len(start))
        return
    with tempfile.NamedTemporaryFile(prefix="umpteen-") as file:
        file.write(start)
        for part in parts:
            file.write(part)
        file.flush()
        yield Body(b"", file.name, file.tell())


def _take(parts: Iterable[bytes | bytearray], size: int) -> bytes:
    """The first parts, until they have so many bytes."""
    taken = bytearray()
    for part in parts:
        taken += part
        if len(taken) >= size:
            break
    return bytes(taken)


def _close(backend: Backend, loop: asyncio.AbstractEventLoop, owner: int) -> None:
    if os.getpid() != owner or not loop.is_running():
        return
    future = asyncio.run_coroutine_threadsafe(backend.close(), loop)
    try:
        future.result(_CLOSE_S)
    except Exception:  # a connection that is lost cannot be closed
        future.cancel()
