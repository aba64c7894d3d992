"""Any file system that fsspec knows, as a place of results.

What has a better way of its own, S3 and SFTP, is a module of its own.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile

from umpteen.store.backends.base import Backend, Body, Entry, retried
from umpteen.store.backends.faults import CONNECT_S, READ_S, Fault, read_number
from umpteen.store.backends.fsspec_answers import judge_fsspec, look_up, read_size
from umpteen.store.backends.fsspec_calls import FsspecCaller
from umpteen.store.backends.fsspec_kinds import knows_parts, list_exclusive, load_kind
from umpteen.store.backends.loop import gather
from umpteen.store.base import Options
from umpteen.system.whole_files import written_whole

__all__ = ["FsspecBackend"]


class FsspecBackend(Backend):
    """A folder of a file system that fsspec opens."""

    def __init__(self, address: str, options: Options) -> None:
        super().__init__()
        scheme = address.partition("://")[0]
        kind = load_kind(scheme)
        options = dict(options)
        connect_s = read_number(options, "connect_timeout", CONNECT_S)
        read_s = read_number(options, "read_timeout", READ_S)
        options = {
            "use_listings_cache": False,
            **kind._get_kwargs_from_urls(address),  # noqa: SLF001 -- the host, a user
            **options,
            "skip_instance_cache": True,
        }
        self.root = str(kind._strip_protocol(address)).rstrip("/")  # noqa: SLF001
        self.library = FsspecCaller(scheme, kind, options, connect_s, read_s)
        # The writes that can make a new file only, and whether each is sure to know how.
        self.exclusive = list_exclusive(kind)
        self.is_exclusive = None if "pipe_file" in self.exclusive else False
        self.reads_parts = knows_parts(kind)

    def open_loop(self) -> asyncio.AbstractEventLoop:
        """That of fsspec, which its libraries may use themselves; a new one after a fork."""
        from fsspec.asyn import get_loop

        loop: asyncio.AbstractEventLoop = get_loop()
        return loop

    async def send(self, key: str, body: Body, *, mark: str) -> bool:
        """One attempt to put a file; with a mark, False where there is one."""
        is_new = mark != ""
        path = self._path(key)
        try:
            await self._write(path, body, is_new)
        except FileNotFoundError:
            if body.path:
                body.open().close()  # it may be the one that is missing
            await self.library.call("makedirs", path.rpartition("/")[0], exist_ok=True)
            await self._write(path, body, is_new)
        except FileExistsError:
            if not is_new or await self._size(path) is None:
                raise
            return False
        return True

    async def _write(self, path: str, body: Body, is_new: bool) -> None:
        # What is put as a file has a size that is known; saturnfs waits where it is 0 and is not.
        source = body.path or ("" if body.size else os.devnull)
        name = "put_file" if source else "pipe_file"
        mode = {"mode": "create"} if is_new and name in self.exclusive else {}
        is_sure = mode and (not source or self.exclusive[name])
        if is_new and not is_sure and await self._get(path, 0, 0) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        arguments = (source, path) if source else (path, body.content)
        await self.library.call(name, *arguments, size=body.size, **mode)

    @retried
    async def get(self, key: str, offset: int, size: int) -> bytes | None:
        """At most `size` bytes (-1: all) from `offset` on; offset -n: the last n bytes."""
        return await self._get(self._path(key), offset, size)

    async def _get(self, path: str, offset: int, size: int) -> bytes | None:
        try:
            if not offset and size < 0:
                return bytes(await self.library.call("cat_file", path))
            if not self.reads_parts:
                return await self._get_part(path, offset, size)
            end = None if size < 0 else offset + size
            return bytes(await self.library.call("cat_file", path, start=offset, end=end))
        except FileNotFoundError:
            return None

    async def _get_part(self, path: str, offset: int, size: int) -> bytes | None:
        there = await self._size(path)
        if there is None:
            return None
        start = max(0, there + offset) if offset < 0 else offset
        end = there if size < 0 else min(there, start + size)
        if start >= end:
            return b""
        content: bytes = await self.library.call("cat_file", path, start=start, end=end)
        return content

    async def _size(self, path: str) -> int | None:
        try:
            return read_size(await self.library.call("info", path))
        except FileNotFoundError:
            return None

    async def _is_file(self, path: str) -> bool:
        try:
            return bool(look_up(await self.library.call("info", path), "type") == "file")
        except FileNotFoundError:
            return False

    async def download(self, key: str, path: str) -> bool:
        """Copy a file to this machine, put whole; False if there is no such file."""
        try:
            await self._download(self._path(key), path)
        except Exception:
            if await self.retry(lambda: self._size(self._path(key))) is None:
                return False
            raise
        return True

    @retried
    async def _download(self, source: str, path: str) -> None:
        with written_whole(path) as temporary:
            await self._get_file(source, temporary)

    async def _get_file(self, path: str, temporary: str) -> None:
        """Copy a file to this machine, for as long as more of it comes."""
        copying = asyncio.ensure_future(self.library.call("get_file", path, temporary))
        before, size = -1, 0
        try:
            while size != before:
                before = size
                await asyncio.wait([copying], timeout=self.library.limit_s)
                if copying.done():
                    return copying.result()  # type: ignore[no-any-return]
                size = _measure(temporary)
            raise TimeoutError
        finally:
            copying.cancel()

    async def entries(self, folder: str) -> list[Entry]:
        """What is in a folder; nothing if there is no such folder."""
        path = self._path(folder)
        entries = await self.retry(lambda: self._list(path))
        return [entry for entry in entries if entry.name]

    async def _list(self, path: str) -> list[Entry]:
        try:
            found = await self.library.call("ls", path, detail=True)
        except FileNotFoundError:
            return []
        start = f"{path}/".lstrip("/")
        named = [(str(look_up(each, "name")).strip("/"), each) for each in found]
        return [
            Entry(name[len(start) :], read_size(each), look_up(each, "type") == "directory")
            for name, each in named
            if name.startswith(start)
        ]

    async def walk(self, folder: str) -> list[tuple[str, int]]:
        """Every file below a folder: its path relative to that, and its bytes."""
        path = self._path(folder)
        found = await self.retry(lambda: self._find(path))
        start = f"{path}/".lstrip("/")
        return [
            (name.lstrip("/")[len(start) :], size)
            for name, size in found
            if name.lstrip("/").startswith(start)
        ]

    async def _find(self, path: str) -> list[tuple[str, int]]:
        try:
            found = await self.library.call("find", path, detail=True)
        except FileNotFoundError:
            return []
        return [(name, read_size(each)) for name, each in found.items()]

    @retried
    async def remove(self, key: str) -> None:
        """Remove a file, if it is there."""
        try:
            await self.library.call("rm_file", self._path(key))
        except FileNotFoundError:
            if await self._size(self._path(key)) is not None:
                raise

    async def move(self, source: str, target: str) -> None:
        """Copy all of it, then remove the old; nothing if it is not there."""
        pairs = [(source, target)]
        if not await self.retry(lambda: self._is_file(self._path(source))):
            names = [name for name, _ in await self.walk(source)]
            pairs = [(f"{source}/{name}", f"{target}/{name}") for name in names]
        await gather(self._copy, pairs)
        await self.remove_many([old for old, _ in pairs])

    @retried
    async def _copy(self, source: str, target: str) -> None:
        old, new = self._path(source), self._path(target)
        try:
            await self.library.call("cp_file", old, new)
        except FileNotFoundError:
            await self.library.call("makedirs", new.rpartition("/")[0], exist_ok=True)
            await self.library.call("cp_file", old, new)
        except NotImplementedError:
            with tempfile.TemporaryDirectory(prefix="umpteen-") as folder:
                here = f"{folder}/copy"
                await self._get_file(old, here)
                await self.send(target, Body(b"", here, _measure(here)), mark="")

    async def recover(self, error: Exception) -> None:  # noqa: ARG002 -- any may have broken it
        """Have another connection made, where that is how the library mends one."""
        self.library.reconnect()

    async def close(self) -> None:
        """Let go of connections."""
        self.library.forget()

    def judge(self, error: Exception) -> Fault:
        """What an error of some library means, as far as that can be told."""
        return judge_fsspec(error)

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root


def _measure(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0
