"""A results store that is not a folder: on S3, behind SFTP, or wherever fsspec can write.

Knows keys, records in segments, and how to say what went wrong; a `Backend` does the requests.
No option's value is ever in a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, Callable, TypeVar

from umpteen.errors import SettingsError, StoreError
from umpteen.store.backends.base import Backend, Body, Fault, FaultError, gather
from umpteen.store.backends.fsspec import FsspecBackend, need_package, open_loop
from umpteen.store.base import Appender, Content, Glance, Store
from umpteen.store.layout import PROBE, STATUS_BYTES
from umpteen.store.segments import (
    Segment,
    Segments,
    is_records_folder,
    is_records_key,
    join_names,
    plan_read,
)
from umpteen.system.whole_files import written_whole

__all__ = ["RemoteStore"]

_MEMORY_BYTES = 8 * 1024 * 1024  # content of unknown size that is larger goes to a file
_SMALL_BYTES = 1024 * 1024
_DEEP_FROM = 4  # from more folders on all that is above them is listed
_GLANCES = 1000  # folders that are looked up together
_LISTING_S = 15.0  # how long a listing may wait for the read that follows it
_CLOSE_S = 2.0
_LOOKING_S = 10.0
_SHORTEST_SECRET = 4
_FIRST, _SECOND = Body(b"probe", "", 5), Body(b"again", "", 5)
_NEVER: tuple[float, list[Segment]] = (float("-inf"), [])

Answer = TypeVar("Answer")


class RemoteStore(Store):
    """What an address with a scheme stands for; may be used by several threads.

    Connects when it is first asked for something. Never carried over a fork: open it after.
    Trouble that may pass is borne with for 10 s, since somebody may look on or try again
    himself; for `patience_s` where the store is `patient`. Raises SettingsError where the
    package for its scheme is missing.
    """

    is_lasting = True

    def __init__(self, address: str, options: dict[str, Any], patience_s: float) -> None:
        self.address, self.patience_s = address, patience_s
        self.place = _open_place(address, options)
        self.lists_deep = self.place.lists_deep
        self.place.patience_s = min(_LOOKING_S, patience_s)
        self.secrets = sorted(_list_texts(options), key=len, reverse=True)
        self.loop = open_loop()
        self.listed: dict[str, tuple[float, list[Segment]]] = {}
        self.is_exclusive = self.place.is_exclusive
        self.probing = threading.Lock()
        self.closing = weakref.finalize(self, _close, self.place, self.loop, os.getpid())

    def path(self, key: str) -> str:
        """The address of the file."""
        return f"{self.address}/{key}"

    @property
    def ready_s(self) -> float:
        """When the place could be asked first; infinite until then."""
        return self.place.ready_s

    @property
    def has_exclusive_create(self) -> bool:
        """Whether of several who create the same file just one succeeds; tried out once."""
        with self.probing:
            if self.is_exclusive is None:
                self._run(self._named("write", PROBE, self.place.put_new(PROBE, _FIRST)))
                made = self._run(self._named("write", PROBE, self.place.put_new(PROBE, _SECOND)))
                self._run(self._named("remove", PROBE, self.place.remove(PROBE)))
                self.is_exclusive = not made
            return self.is_exclusive

    def read(self, key: str, offset: int = 0, size: int = -1) -> bytes | None:
        """At most `size` bytes of the file from `offset` on; None if there is no such file."""
        return self.read_many([(key, offset, size)])[0]

    def read_tail(self, key: str, size: int) -> bytes | None:
        """The last `size` bytes of the file, or all of it; None if there is no such file."""
        return self.read_many([(key, -size, -1)])[0] if size else self.read(key, 0, 0)

    def read_many(self, asked: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """`read` of each (key, offset, size); offset -n with size -1 is the last n bytes."""
        return self._run(self._read_many(asked))

    def create(self, key: str, content: Content) -> bool:
        """Put a file whole where none is; False, and nothing done, if there is one.

        Where the place cannot do that in one step, others may come in between.
        """
        if not self.has_exclusive_create and self.read(key, 0, 0) is not None:
            return False
        return self._with_body(content, "write", key, self.place.put_new)

    def replace(self, key: str, content: Content) -> None:
        """Put a file whole, in place of what is there."""
        self._with_body(content, "write", key, self.place.put)

    def open_records(self, key: str) -> Appender:
        """New records of a start; nothing is there before their first flush."""
        return Segments(self, key)

    def fetch(self, key: str, path: str) -> bool:
        """Copy a file to `path` on this machine, put whole; False if there is no such file."""
        return self.fetch_many([(key, path)])[0]

    def fetch_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """`fetch` of each (key, path)."""
        return self._run(gather(self._fetch, pairs))

    def put(self, key: str, path: str) -> None:
        """Copy the file at `path` of this machine into the store, put whole."""
        self.put_many([(key, path)])

    def put_many(self, pairs: Sequence[tuple[str, str]]) -> None:
        """`put` of each (key, path)."""
        self._run(gather(self._put, pairs))

    def move(self, source: str, target: str) -> None:
        """Give a file, or a folder with all below it, another key; nothing if it is not there."""
        self._run(self._named("move", source, self.place.move(source, target)))

    def delete(self, key: str) -> None:
        """Remove a file, if it is there."""
        self._run(self._delete_many([key]))

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove files, those that are there."""
        self._run(self._delete_many(keys))

    def remove_empty(self, is_ours: Callable[[str], bool]) -> None:
        """Remove the folders that are empty, and the store's own one, where the place has some."""
        self._run(self._named("remove", "", self.place.remove_empty(is_ours)))

    def walk(self, folder: str) -> list[tuple[str, int]]:
        """Every file below a folder, in no order: its path relative to that, and its bytes.

        Records are shown as the segments that they are in.
        """
        return list(self._run(self._named("list", folder, self.place.walk(folder))))

    def names_many(self, folders: Sequence[str]) -> list[list[str]]:
        """`names` of each folder."""
        above = {folder.rpartition("/")[0] for folder in folders}
        if self.lists_deep and len(folders) > _DEEP_FROM and len(above) == 1:
            return self._list_below(above.pop(), folders)
        return self._run(gather(self._names, ((folder,) for folder in folders)))

    def _list_below(self, above: str, folders: Sequence[str]) -> list[list[str]]:
        """All of them at once, by all that is in the folder that has them."""
        found: dict[str, dict[str, int]] = {folder: {} for folder in folders}
        for path, size in self.walk(above):
            name, _, rest = path.partition("/")
            if (folder := f"{above}/{name}") in found:
                found[folder][rest.partition("/")[0]] = size
        return [self._show_names(folder, found[folder].items()) for folder in folders]

    def glance(self, folders: Sequence[str], name: str) -> list[Glance]:
        """At many folders of tasks, in as few requests as may be; name: of their status file."""
        parts = [folders[n : n + _GLANCES] for n in range(0, len(folders), _GLANCES)]
        glances = self._run(gather(self._glance, ((part, name) for part in parts)))
        return [glance for part in glances for glance in part]

    def names(self, folder: str) -> list[str]:
        """The names in a folder, in no order; none if there is no such folder."""
        return self._run(self._names(folder))

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Bear longer with trouble that may pass, where nobody else would try again."""
        before, self.place.patience_s = self.place.patience_s, self.patience_s
        try:
            yield
        finally:
            self.place.patience_s = before

    def close(self) -> None:
        """Let go of connections; the store is not used any more."""
        self.closing()

    def abandon(self) -> None:
        """Do not even close it at the end of the program: it may still be waited for."""
        self.closing.detach()

    # --- in the event loop --------------------------------------------------------------

    async def _names(self, folder: str) -> list[str]:
        entries = await self._named("list", folder, self.place.entries(folder))
        return self._show_names(folder, ((entry.name, entry.size) for entry in entries))

    def _show_names(self, folder: str, sized: Iterable[tuple[str, int]]) -> list[str]:
        """Records as the files that they are in segments of."""
        if not is_records_folder(folder):
            return [name for name, _ in sized]
        names, found = join_names(sized)
        now_s = time.monotonic()
        self.listed.update({f"{folder}/{name}": (now_s, each) for name, each in found.items()})
        return names

    async def _glance(self, folders: Sequence[str], name: str) -> list[Glance]:
        """Contents are told by their MD5, where the place tells that, and else read."""
        keys = [f"{folder}/{each}" for folder in folders for each in (name, "stdout")]
        asking = self.place.look_up(keys) if len(folders) > _DEEP_FROM else _tell_nothing()
        found = await self._named("list", os.path.commonpath(keys), asking)
        if found is None:
            return await self._glance_at_each(folders, name)
        known = _list_known()
        statuses = [f"{folder}/{name}" for folder in folders]
        unknown = [key for key in statuses if key in found and found[key] not in known]
        asked = [(key, 0, STATUS_BYTES) for key in unknown]
        read = dict(zip(unknown, await self._read_many(asked)))
        return [
            Glance(
                read[key] if key in read else known.get(found.get(key, "")),
                f"{folder}/stdout" in found,
            )
            for folder, key in zip(folders, statuses)
        ]

    async def _glance_at_each(self, folders: Sequence[str], name: str) -> list[Glance]:
        there = await gather(self._names, ((folder,) for folder in folders))
        asked = [
            (f"{folder}/{name}", 0, STATUS_BYTES)
            for folder, names in zip(folders, there)
            if name in names
        ]
        read = dict(zip((key for key, _, _ in asked), await self._read_many(asked)))
        return [
            Glance(read.get(f"{folder}/{name}"), "stdout" in names)
            for folder, names in zip(folders, there)
        ]

    async def _read_many(self, asked: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        segments = await self._find_segments({key for key, _, _ in asked if is_records_key(key)})

        async def read(key: str, offset: int, size: int) -> bytes | None:
            if key in segments:
                return await self._read_segments(key, segments[key], offset, size)
            return await self._named("read", key, self.place.get(key, offset, size))

        return await gather(read, asked)

    async def _find_segments(self, keys: set[str]) -> dict[str, list[Segment]]:
        """The segments of each records file, by a listing that no read has used before."""
        oldest_s = time.monotonic() - _LISTING_S
        fresh = {key: self.listed.pop(key, _NEVER) for key in keys}
        missing = [key for key, (listed_s, _) in fresh.items() if listed_s < oldest_s]
        await gather(self._names, ((folder,) for folder in {k.rpartition("/")[0] for k in missing}))
        fresh.update({key: self.listed.pop(key, _NEVER) for key in missing})
        return {key: segments for key, (_, segments) in fresh.items()}

    async def _read_segments(
        self, key: str, segments: Sequence[Segment], offset: int, size: int
    ) -> bytes | None:
        if not segments:
            return None
        folder = key.rpartition("/")[0]
        parts = await gather(
            lambda name, start: self._named(
                "read", key, self.place.get(f"{folder}/{name}", start, -1)
            ),
            plan_read(segments, offset),
        )
        content = b"".join(part or b"" for part in parts)
        if offset < 0:
            return content[offset:]
        return content if size < 0 else content[:size]

    async def _fetch(self, key: str, path: str) -> bool:
        if not is_records_key(key):
            return await self._named(f"copy to {path}", key, self.place.download(key, path))
        content = (await self._read_many([(key, 0, -1)]))[0]
        if content is not None:
            _write_file(path, content)
        return content is not None

    async def _put(self, key: str, path: str) -> None:
        async def put() -> None:
            await self.place.put(key, _build_body(path))

        await self._named(f"copy {path} to", key, put())

    async def _delete_many(self, keys: Sequence[str]) -> None:
        segments = await self._find_segments({key for key in keys if is_records_key(key)})
        files = [key for key in keys if key not in segments]
        for key, found in segments.items():
            files += [f"{key.rpartition('/')[0]}/{segment.name}" for segment in found]
        if len(files) == 1:
            await self._named("remove", files[0], self.place.remove(files[0]))
        elif files:
            await self._named("remove", files[0], self.place.remove_many(files))

    async def _named(self, doing: str, key: str, asking: Coroutine[Any, Any, Answer]) -> Answer:
        """What it gives; an error says what was being done with which file."""
        try:
            answer = await asking
            self.heard_s = time.monotonic()
            return answer
        except FaultError as error:
            trouble = error.trouble
            cause: BaseException | None = error.__cause__
        except OSError as error:  # of a file on this machine
            place = f": {error.filename}" if error.filename else ""
            trouble = Fault((error.strerror or type(error).__name__) + place)
            cause = error
        if trouble.is_input:
            said = f"the results at {self.address} cannot be used: {trouble.reason}"
            raise SettingsError(self._without_secrets(said), trouble.hint) from cause
        raise StoreError(
            self._without_secrets(f"could not {doing} {self.path(key)}: {trouble.reason}"),
            trouble.hint,
            path=self.path(key),
            transient=trouble.is_transient,
        ) from cause

    def _without_secrets(self, text: str) -> str:
        for secret in self.secrets:
            if secret not in self.address:
                text = text.replace(secret, "…")
        return text

    # --- outside of it ------------------------------------------------------------------

    def _with_body(
        self,
        content: Content,
        doing: str,
        key: str,
        call: Callable[[str, Body], Coroutine[Any, Any, Answer]],
    ) -> Answer:
        if isinstance(content, (bytes, bytearray)):
            body = Body(bytes(content), "", len(content))
            return self._run(self._named(doing, key, call(key, body)))
        parts = iter(content)
        start = _take(parts, _MEMORY_BYTES)
        if len(start) < _MEMORY_BYTES:
            body = Body(start, "", len(start))
            return self._run(self._named(doing, key, call(key, body)))
        with tempfile.NamedTemporaryFile(prefix="umpteen-") as file:
            file.write(start)
            for part in parts:
                file.write(part)
            file.flush()
            body = Body(b"", file.name, file.tell())
            return self._run(self._named(doing, key, call(key, body)))

    def _run(self, asking: Coroutine[Any, Any, Answer]) -> Answer:
        future = asyncio.run_coroutine_threadsafe(asking, self.loop)
        try:
            return future.result()
        except BaseException:  # also where we were interrupted
            future.cancel()
            raise


def _open_place(address: str, options: dict[str, Any]) -> Backend:
    scheme = address.partition("://")[0]
    need_package(scheme)
    if scheme == "s3":
        from umpteen.store.backends.s3 import S3Backend

        return S3Backend(address, options)
    if scheme == "sftp":
        from umpteen.store.backends.sftp import SftpBackend

        return SftpBackend(address, options)
    return FsspecBackend(address, options)


async def _tell_nothing() -> None:
    """In place of a listing that would not pay."""


@functools.lru_cache(maxsize=1)
def _list_known() -> dict[str, bytes]:
    """What a status file may hold, by its MD5: exit codes, and minus the signals."""
    contents = [b"%d" % code for code in range(-128, 256)]
    return {
        hashlib.md5(content, usedforsecurity=False).hexdigest(): content for content in contents
    }


def _close(place: Backend, loop: asyncio.AbstractEventLoop, owner: int) -> None:
    if os.getpid() != owner or not loop.is_running():
        return
    future = asyncio.run_coroutine_threadsafe(place.close(), loop)
    try:
        future.result(_CLOSE_S)
    except Exception:  # a connection that is lost cannot be closed
        future.cancel()


def _build_body(path: str) -> Body:
    size = os.path.getsize(path)
    if size > _SMALL_BYTES:
        return Body(b"", path, size)
    with open(path, "rb") as file:
        content = file.read()
    return Body(content, "", len(content))


def _write_file(path: str, content: bytes) -> None:
    with written_whole(path) as temporary, open(temporary, "xb") as file:
        file.write(content)


def _take(parts: Iterable[bytes | bytearray], size: int) -> bytes:
    taken = bytearray()
    for part in parts:
        taken += part
        if len(taken) >= size:
            break
    return bytes(taken)


def _list_texts(value: Any) -> set[str]:
    """Every text in the options that is long enough to be told from other words."""
    if isinstance(value, dict):
        return set().union(*map(_list_texts, value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*map(_list_texts, value))
    return {value} if isinstance(value, str) and len(value) >= _SHORTEST_SECRET else set()
