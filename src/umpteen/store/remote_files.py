"""The files of a store that is no folder, in the event loop of its backend.

Knows keys, records in segments, and how to say what went wrong with which file; a `Backend` does
the requests. No option's value is ever in a message.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Callable, TypeVar

from umpteen.errors import SettingsError, StoreError
from umpteen.store.backends.base import Backend, Body
from umpteen.store.backends.faults import Fault, FaultError
from umpteen.store.backends.loop import gather
from umpteen.store.base import Glance, Options
from umpteen.store.layout import PROBE, STATUS_BYTES
from umpteen.store.segments import Segment, is_records_folder, is_records_key, join_names, plan_read
from umpteen.system.whole_files import written_whole

__all__ = ["RemoteFiles"]

_SMALL_BYTES = 1024 * 1024
_DEEP_FROM = 4  # from more folders on all that is above them is listed
_LISTING_S = 15.0  # how long a listing may wait for the read that follows it
_SHORTEST_SECRET = 4
_FIRST, _SECOND = Body(b"probe", "", 5), Body(b"again", "", 5)
_NEVER: tuple[float, list[Segment]] = (float("-inf"), [])

Answer = TypeVar("Answer")


class RemoteFiles:
    """What a store asks its backend for. Raises StoreError, and SettingsError for wrong options."""

    def __init__(self, address: str, options: Options, backend: Backend) -> None:
        self._address, self._backend = address, backend
        self._secrets = sorted(_list_texts(options), key=len, reverse=True)
        # When a listing told the segments of a records file, and which: until a read uses them.
        self._listed: dict[str, tuple[float, list[Segment]]] = {}
        # When the backend last answered, on the monotonic clock.
        self.answered_s = float("-inf")

    def path(self, key: str) -> str:
        """The address of the file."""
        return f"{self._address}/{key}"

    async def try_exclusive(self) -> bool:
        """Whether a new file is made only where none is, by a trial."""
        await self._named("write", PROBE, self._backend.put_new(PROBE, _FIRST))
        is_made = await self._named("write", PROBE, self._backend.put_new(PROBE, _SECOND))
        await self._named("remove", PROBE, self._backend.remove(PROBE))
        return not is_made

    async def create(self, key: str, body: Body) -> bool:
        """Put a file whole where none is; False, and nothing done, if there is one."""
        return await self._named("write", key, self._backend.put_new(key, body))

    async def replace(self, key: str, body: Body) -> None:
        """Put a file whole, in place of what is there."""
        await self._named("write", key, self._backend.put(key, body))

    async def put_many(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Put each (key, path) of a file of this machine."""
        await gather(self._put, pairs)

    async def _put(self, key: str, path: str) -> None:
        await self._named(f"copy {path} to", key, self._put_file(key, path))

    async def _put_file(self, key: str, path: str) -> None:
        await self._backend.put(key, _build_body(path))

    async def fetch_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Copy each (key, path) to this machine; False where there is no such file."""
        return await gather(self._fetch, pairs)

    async def _fetch(self, key: str, path: str) -> bool:
        if not is_records_key(key):
            return await self._named(f"copy to {path}", key, self._backend.download(key, path))
        content = (await self.read_many([(key, 0, -1)]))[0]
        if content is not None:
            _write_file(path, content)
        return content is not None

    async def move(self, source: str, target: str) -> None:
        """Give a file, or a folder with all below it, another key; nothing if it is not there."""
        await self._named("move", source, self._backend.move(source, target))

    async def remove_empty(self, is_ours: Callable[[str], bool]) -> None:
        """Remove the folders that are empty, where the place has some."""
        await self._named("remove", "", self._backend.remove_empty(is_ours))

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Remove files, those that are there."""
        segments = await self._find_segments({key for key in keys if is_records_key(key)})
        files = [key for key in keys if key not in segments]
        for key, found in segments.items():
            files += [f"{key.rpartition('/')[0]}/{segment.name}" for segment in found]
        if len(files) == 1:
            await self._named("remove", files[0], self._backend.remove(files[0]))
        elif files:
            await self._named("remove", files[0], self._backend.remove_many(files))

    # --- what is in folders -------------------------------------------------------------

    async def walk(self, folder: str) -> Sequence[tuple[str, int]]:
        """Every file below a folder, segments too: its path relative to that, and its bytes."""
        return await self._named("list", folder, self._backend.walk(folder))

    async def names(self, folder: str) -> list[str]:
        """The names in a folder, in no order; none if there is no such folder."""
        entries = await self._named("list", folder, self._backend.entries(folder))
        return self._join_records(folder, ((entry.name, entry.size) for entry in entries))

    async def names_many(self, folders: Sequence[str]) -> list[list[str]]:
        """`names` of each folder."""
        above = {folder.rpartition("/")[0] for folder in folders}
        if self._backend.lists_deep and len(folders) > _DEEP_FROM and len(above) == 1:
            return await self._list_below(above.pop(), folders)
        return await gather(self.names, ((folder,) for folder in folders))

    async def _list_below(self, above: str, folders: Sequence[str]) -> list[list[str]]:
        """All of them at once, by all that is in the folder that has them."""
        found: dict[str, dict[str, int]] = {folder: {} for folder in folders}
        for path, size in await self.walk(above):
            name, _, rest = path.partition("/")
            if (folder := f"{above}/{name}") in found:
                found[folder][rest.partition("/")[0]] = size
        return [self._join_records(folder, found[folder].items()) for folder in folders]

    def _join_records(self, folder: str, sized: Iterable[tuple[str, int]]) -> list[str]:
        """The names in a folder; of records those of the files that they are in segments of."""
        if not is_records_folder(folder):
            return [name for name, _ in sized]
        names, found = join_names(sized)
        now_s = time.monotonic()
        self._listed.update({f"{folder}/{name}": (now_s, each) for name, each in found.items()})
        return names

    async def glance(self, folders: Sequence[str], name: str) -> list[Glance]:
        """At folders of tasks, by one listing; name: of their status file.

        Contents are told by their MD5, where the place tells that, and else read.
        """
        keys = [f"{folder}/{each}" for folder in folders for each in (name, "stdout")]
        is_many = len(folders) > _DEEP_FROM
        asking = self._backend.look_up(keys) if is_many else _tell_nothing()
        found = await self._named("list", os.path.commonpath(keys), asking)
        if found is None:
            return await self._glance_at_each(folders, name)
        known = _list_known()
        statuses = [f"{folder}/{name}" for folder in folders]
        unknown = [key for key in statuses if key in found and found[key] not in known]
        asked = [(key, 0, STATUS_BYTES) for key in unknown]
        read = dict(zip(unknown, await self.read_many(asked)))
        return [
            Glance(
                read[key] if key in read else known.get(found.get(key, "")),
                f"{folder}/stdout" in found,
            )
            for folder, key in zip(folders, statuses)
        ]

    async def _glance_at_each(self, folders: Sequence[str], name: str) -> list[Glance]:
        there = await gather(self.names, ((folder,) for folder in folders))
        asked = [
            (f"{folder}/{name}", 0, STATUS_BYTES)
            for folder, names in zip(folders, there)
            if name in names
        ]
        read = dict(zip((key for key, _, _ in asked), await self.read_many(asked)))
        return [
            Glance(read.get(f"{folder}/{name}"), "stdout" in names)
            for folder, names in zip(folders, there)
        ]

    # --- reading ------------------------------------------------------------------------

    async def read_many(self, asked: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """Of each (key, offset, size) the bytes; None where there is no such file."""
        segments = await self._find_segments({key for key, _, _ in asked if is_records_key(key)})

        async def read(key: str, offset: int, size: int) -> bytes | None:
            if key in segments:
                return await self._read_segments(key, segments[key], offset, size)
            return await self._read(key, key, offset, size)

        return await gather(read, asked)

    async def _read(self, key: str, file: str, offset: int, size: int) -> bytes | None:
        """Bytes of the file that has `key`, or a segment of it."""
        return await self._named("read", key, self._backend.get(file, offset, size))

    async def _find_segments(self, keys: set[str]) -> dict[str, list[Segment]]:
        """The segments of each records file, by a listing that no read has used before."""
        oldest_s = time.monotonic() - _LISTING_S
        fresh = {key: self._listed.pop(key, _NEVER) for key in keys}
        missing = [key for key, (listed_s, _) in fresh.items() if listed_s < oldest_s]
        await gather(self.names, ((folder,) for folder in {k.rpartition("/")[0] for k in missing}))
        fresh.update({key: self._listed.pop(key, _NEVER) for key in missing})
        return {key: segments for key, (_, segments) in fresh.items()}

    async def _read_segments(
        self, key: str, segments: Sequence[Segment], offset: int, size: int
    ) -> bytes | None:
        if not segments:
            return None
        folder = key.rpartition("/")[0]
        planned = plan_read(segments, offset)
        asked = ((key, f"{folder}/{name}", start, -1) for name, start in planned)
        content = b"".join(part or b"" for part in await gather(self._read, asked))
        if offset < 0:
            return content[offset:]
        return content if size < 0 else content[:size]

    # --- errors -------------------------------------------------------------------------

    async def _named(self, doing: str, key: str, asking: Coroutine[Any, Any, Answer]) -> Answer:
        """What it gives; an error says what was being done with which file."""
        try:
            answer = await asking
            self.answered_s = time.monotonic()
            return answer
        except FaultError as error:
            fault = error.fault
            cause: BaseException | None = error.__cause__
        except OSError as error:  # of a file on this machine
            place = f": {error.filename}" if error.filename else ""
            fault = Fault((error.strerror or type(error).__name__) + place)
            cause = error
        if fault.is_input:
            said = f"the results at {self._address} cannot be used: {fault.reason}"
            raise SettingsError(self._without_secrets(said), fault.hint) from cause
        raise StoreError(
            self._without_secrets(f"could not {doing} {self.path(key)}: {fault.reason}"),
            fault.hint,
            path=self.path(key),
            transient=fault.is_transient,
        ) from cause

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            if secret not in self._address:
                text = text.replace(secret, "…")
        return text


async def _tell_nothing() -> None:
    """In place of a listing that would not pay."""


@functools.lru_cache(maxsize=1)
def _list_known() -> dict[str, bytes]:
    """What a status file may hold, by its MD5: exit codes, and minus the signals."""
    contents = [b"%d" % code for code in range(-128, 256)]
    return {
        hashlib.md5(content, usedforsecurity=False).hexdigest(): content for content in contents
    }


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


def _list_texts(value: Any) -> set[str]:
    """Every text in the options that is long enough to be told from other words."""
    if isinstance(value, dict):
        return set().union(*map(_list_texts, value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*map(_list_texts, value))
    return {value} if isinstance(value, str) and len(value) >= _SHORTEST_SECRET else set()
