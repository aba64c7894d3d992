"""Any file system that fsspec knows, as a place of results.

What has a better way of its own, S3 and SFTP, is a module of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from umpteen.errors import SettingsError
from umpteen.results.directory import written_whole
from umpteen.results.place import (
    ASK_FOR_ACCESS,
    CHECK_NETWORK,
    CONNECT_S,
    IN_FLIGHT,
    READ_S,
    Body,
    Entry,
    Place,
    Trouble,
    gather,
    judge_network,
)

__all__ = ["FilesystemPlace", "known_schemes", "need_package", "open_loop"]

_PACKAGES = {
    "s3": ("s3fs", "s3"),
    "sftp": ("sshfs", "sftp"),
    "gs": ("gcsfs", "gs"),
    "abfs": ("adlfs", "abfs"),
    "sfs": ("saturnfs", "saturn"),
}
_SLOWEST_BYTES_S = 50_000
# By name: the libraries that have them need not be there.
_PASSING = {"ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError"}
_PASSING |= {"ServiceRequestError", "ServiceResponseError", "IncompleteReadError"}
_MEMORY = threading.Lock()


def known_schemes() -> set[str]:
    """Every scheme that an address may have; none where fsspec is missing."""
    try:
        from fsspec import available_protocols
    except ImportError:
        return set()
    return set(available_protocols())


def need_package(scheme: str) -> None:
    """Raises SettingsError that names the package and the extra where one is missing."""
    package, extra = _PACKAGES.get(scheme, ("fsspec", ""))
    if not (importlib.util.find_spec("fsspec") and importlib.util.find_spec(package)):
        raise SettingsError(
            f"results at {scheme}:// need the package {package}",
            f"pip install 'umpteen[{extra}]'" if extra else f"pip install {package}",
        )


def open_loop() -> asyncio.AbstractEventLoop:
    """The event loop of fsspec, in a thread of its own; a new one after a fork."""
    from fsspec.asyn import get_loop

    loop: asyncio.AbstractEventLoop = get_loop()
    return loop


class FilesystemPlace(Place):
    """A folder of a file system that fsspec opens."""

    def __init__(self, address: str, options: dict[str, Any]) -> None:
        from fsspec import get_filesystem_class

        scheme, _, _ = address.partition("://")
        need_package(scheme)
        try:
            self.kind: Any = get_filesystem_class(scheme)
        except ImportError as error:
            raise SettingsError(
                f"results at {scheme}:// need a package that is missing: {error}"
            ) from error
        options = dict(options)
        self.connect_s = float(options.pop("connect_timeout", CONNECT_S))
        self.read_s = float(options.pop("read_timeout", READ_S))
        self.options = {"use_listings_cache": False, **options, "skip_instance_cache": True}
        self.root = str(self.kind._strip_protocol(address)).rstrip("/")  # noqa: SLF001
        self.is_memory = scheme == "memory"
        self.is_exclusive = True if self.is_memory else None
        self.pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="umpteen-results")
        self.opening: asyncio.Lock | None = None
        self.opened: Any = None

    async def send(self, key: str, body: Body, *, mark: str) -> bool:
        """One attempt to put a file; with a mark, False where there is one."""
        is_new = mark != ""
        path = self._path(key)
        try:
            await self._write(path, body, is_new)
        except FileNotFoundError:
            if body.path:
                body.open().close()  # it may be the one that is missing
            await self._do("makedirs", path.rpartition("/")[0], exist_ok=True)
            await self._write(path, body, is_new)
        except FileExistsError:
            if not is_new or await self._size(path) is None:
                raise
            return False
        return True

    async def _write(self, path: str, body: Body, is_new: bool) -> None:
        mode = {"mode": "create"} if is_new else {}
        if body.path:
            await self._do("put_file", body.path, path, size=body.size, **mode)
        else:
            await self._do("pipe_file", path, body.content, size=body.size, **mode)

    async def get(self, key: str, offset: int, size: int) -> bytes | None:
        """At most `size` bytes (-1: all) from `offset` on; offset -n: the last n bytes."""
        return await self.tried(lambda: self._get(self._path(key), offset, size))

    async def _get(self, path: str, offset: int, size: int) -> bytes | None:
        try:
            if offset or size >= 0:
                return await self._get_part(path, offset, size)
            content: bytes = await self._do("cat_file", path)
            return content
        except (FileNotFoundError, NotADirectoryError):
            return None

    async def _get_part(self, path: str, offset: int, size: int) -> bytes | None:
        there = await self._size(path)
        if there is None:
            return None
        start = max(0, there + offset) if offset < 0 else offset
        end = there if size < 0 else min(there, start + size)
        if start >= end:
            return b""
        content: bytes = await self._do("cat_file", path, start=start, end=end)
        return content

    async def _size(self, path: str) -> int | None:
        try:
            return int((await self._do("info", path))["size"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    async def download(self, key: str, path: str) -> bool:
        """Copy a file to this machine, put whole; False if there is no such file."""

        async def get() -> bool:
            with written_whole(path) as temporary:
                await self._do("get_file", self._path(key), temporary)
            return True

        try:
            return await self.tried(get)
        except Exception:
            if await self.tried(lambda: self._size(self._path(key))) is None:
                return False
            raise

    async def entries(self, folder: str) -> list[Entry]:
        """What is in a folder; nothing if there is no such folder."""
        path = self._path(folder)
        entries = await self.tried(lambda: self._list(path))
        return [entry for entry in entries if entry.name]

    async def _list(self, path: str) -> list[Entry]:
        try:
            found = await self._do("ls", path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        start = f"{path}/".lstrip("/")
        return [
            Entry(name, int(each.get("size") or 0), each["type"] == "directory")
            for each in found
            if (name := each["name"].strip("/")[len(start) :])
            and each["name"].lstrip("/").startswith(start)
        ]

    async def walk(self, folder: str) -> list[tuple[str, int]]:
        """Every file below a folder: its path relative to that, and its bytes."""
        path = self._path(folder)
        found = await self.tried(lambda: self._find(path))
        start = f"{path}/".lstrip("/")
        return [
            (name.lstrip("/")[len(start) :], size)
            for name, size in found
            if name.lstrip("/").startswith(start)
        ]

    async def _find(self, path: str) -> list[tuple[str, int]]:
        try:
            found = await self._do("find", path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [(name, int(each.get("size") or 0)) for name, each in found.items()]

    async def remove(self, key: str) -> None:
        """Remove a file, if it is there."""

        async def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                await self._do("rm_file", self._path(key))

        await self.tried(remove)

    async def move(self, source: str, target: str) -> None:
        """Copy all of it, then remove the old; nothing if it is not there."""
        names = [name for name, _ in await self.walk(source)]
        pairs = [(f"{source}/{name}", f"{target}/{name}") for name in names]
        is_file = not pairs and await self.tried(lambda: self._size(self._path(source))) is not None
        if is_file:
            pairs = [(source, target)]
        await gather(self._copy, pairs)
        await self.remove_many([old for old, _ in pairs])

    async def _copy(self, source: str, target: str) -> None:
        async def copy() -> None:
            try:
                await self._do("cp_file", self._path(source), self._path(target))
            except FileNotFoundError:
                folder = self._path(target).rpartition("/")[0]
                await self._do("makedirs", folder, exist_ok=True)
                await self._do("cp_file", self._path(source), self._path(target))

        await self.tried(copy)

    async def close(self) -> None:
        """Let go of connections."""
        self.pool.shutdown(wait=False)
        self.opened = None

    def judge(self, error: Exception) -> Trouble:
        """What an error of some library means, as far as that can be told."""
        status = next(
            (
                value
                for name in ("status", "status_code", "code")
                if isinstance(value := getattr(error, name, None), int)
            ),
            0,
        )
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if status == 429 or 500 <= status <= 599:
            return Trouble(f"the server answered {status}", CHECK_NETWORK, is_transient=True)
        if kinds & _PASSING:
            return Trouble("the connection was lost or refused", CHECK_NETWORK, is_transient=True)
        if status in {401, 403}:
            return Trouble(f"the server answered {status}", ASK_FOR_ACCESS)
        if isinstance(error, NotImplementedError):
            return Trouble("this kind of place cannot do that", "choose another for the results")
        return judge_network(error) or Trouble(f"{type(error).__name__}: {error}")

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root

    async def _do(self, name: str, *arguments: Any, size: int = 0, **more: Any) -> Any:
        limit_s = self.connect_s + self.read_s + size / _SLOWEST_BYTES_S
        opened = await self._open()
        if opened.async_impl:
            call = getattr(opened, f"_{name}")(*arguments, **more)
        else:
            call = asyncio.get_running_loop().run_in_executor(
                self.pool, lambda: self._do_alone(getattr(opened, name), *arguments, **more)
            )
        return await (call if name in {"get_file", "find"} else asyncio.wait_for(call, limit_s))

    def _do_alone(self, call: Any, *arguments: Any, **more: Any) -> Any:
        with self._alone():
            return call(*arguments, **more)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Files in memory are one object for all who read them, their position too."""
        with _MEMORY if self.is_memory else contextlib.nullcontext():
            yield

    async def _open(self) -> Any:
        if self.opening is None:
            self.opening = asyncio.Lock()
        async with self.opening:
            if self.opened is None:
                loop = asyncio.get_running_loop()
                self.opened = await loop.run_in_executor(
                    self.pool, lambda: self.kind(**self.options)
                )
        return self.opened
