"""Any file system that fsspec knows, as a place of results.

What has a better way of its own, S3 and SFTP, is a module of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import importlib.util
import inspect
import itertools
import os
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import Any, Callable

from umpteen.errors import SettingsError
from umpteen.store.backends.base import (
    ASK_FOR_ACCESS,
    CHECK_NETWORK,
    CONNECT_S,
    READ_S,
    Backend,
    Body,
    Entry,
    Fault,
    WrongOptionsError,
    gather,
    judge_network,
    read_number,
)
from umpteen.system.whole_files import written_whole

__all__ = ["FsspecBackend", "known_schemes", "need_package", "open_loop"]

_PACKAGES = {
    "s3": ("s3fs", "s3"),
    "sftp": ("sshfs", "sftp"),
    "gs": ("gcsfs", "gs"),
    "abfs": ("adlfs", "abfs"),
    "sfs": ("saturnfs", "saturn"),
}
_VARIABLES = {"sfs": ("SATURN_BASE_URL", "SATURN_TOKEN")}  # that have no default
_SLOWEST_BYTES_S = 50_000
# By name: the libraries that have them need not be there.
_PASSING = {"ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError"}
_PASSING |= {"ServiceRequestError", "ServiceResponseError", "IncompleteReadError"}
_PASSING |= {"ConnectionError", "Timeout", "ChunkedEncodingError", "RetryError"}  # of requests
_PASSING |= {"error_temp", "error_proto"}  # of ftplib
_WRITES = {"pipe_file": 0, "put_file": 1, "rm_file": 0}  # which argument the file is
_LIMITS_S = {"get_file": None, "find": 600.0}  # of what may be long
_MAKE_PLACE = "make it, or name another"
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR})
_FTP_REFUSED = ("550", "553")  # it may be missing, and we may not be allowed to
_SCHEMAS = threading.Lock()
_MEMORY = threading.Lock()
# Where one thing at a time can be done. Files in memory are one object for all who read them,
# their position too; FTP has one connection for all that is asked.
_ALONE: dict[str, Callable[[], Any]] = {"memory": lambda: _MEMORY, "ftp": threading.Lock}


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
            _hint_install(package, extra),
        )


def _hint_install(package: str, extra: str) -> str:
    if sys.flags.no_site:  # a runner, on a machine that needs nothing else of ours
        return f"{sys.executable} -m pip install {package}"
    return f"pip install 'umpteen[{extra}]'" if extra else f"pip install {package}"


def open_loop() -> asyncio.AbstractEventLoop:
    """The event loop of fsspec, in a thread of its own; a new one after a fork."""
    from fsspec.asyn import get_loop

    loop: asyncio.AbstractEventLoop = get_loop()
    return loop


class FsspecBackend(Backend):
    """A folder of a file system that fsspec opens."""

    def __init__(self, address: str, options: dict[str, Any]) -> None:
        scheme = self.scheme = address.partition("://")[0]
        need_package(scheme)
        self.kind = _load_kind(scheme)
        options = dict(options)
        self.connect_s = read_number(options, "connect_timeout", CONNECT_S)
        self.read_s = read_number(options, "read_timeout", READ_S)
        self.options = {
            "use_listings_cache": False,
            **self.kind._get_kwargs_from_urls(address),  # noqa: SLF001 -- the host, a user
            **options,
            "skip_instance_cache": True,
        }
        self.root = str(self.kind._strip_protocol(address)).rstrip("/")  # noqa: SLF001
        self.alone: Any = _ALONE.get(scheme, contextlib.nullcontext)()
        self.exclusive = _list_exclusive(self.kind)
        is_tried = "pipe_file" in self.exclusive
        self.is_exclusive = True if scheme == "memory" else (None if is_tried else False)
        self.reads_parts = not self.kind.async_impl and self.kind.cat_file is _fsspec().cat_file
        self.writing: dict[str, asyncio.Future[Any]] = {}
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
        # What is put as a file has a size that is known; saturnfs waits where it is 0 and is not.
        source = body.path or ("" if body.size else os.devnull)
        name = "put_file" if source else "pipe_file"
        mode = {"mode": "create"} if is_new and name in self.exclusive else {}
        is_sure = mode and (not source or self.exclusive[name])
        if is_new and not is_sure and await self._get(path, 0, 0) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        arguments = (source, path) if source else (path, body.content)
        await self._do(name, *arguments, size=body.size, **mode)

    async def get(self, key: str, offset: int, size: int) -> bytes | None:
        """At most `size` bytes (-1: all) from `offset` on; offset -n: the last n bytes."""
        return await self.tried(lambda: self._get(self._path(key), offset, size))

    async def _get(self, path: str, offset: int, size: int) -> bytes | None:
        try:
            if not offset and size < 0:
                return bytes(await self._do("cat_file", path))
            if not self.reads_parts:
                return await self._get_part(path, offset, size)
            end = None if size < 0 else offset + size
            return bytes(await self._do("cat_file", path, start=offset, end=end))
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
        content: bytes = await self._do("cat_file", path, start=start, end=end)
        return content

    async def _size(self, path: str) -> int | None:
        try:
            return _read_size(await self._do("info", path))
        except FileNotFoundError:
            return None

    async def _is_file(self, path: str) -> bool:
        try:
            return bool(_look_up(await self._do("info", path), "type") == "file")
        except FileNotFoundError:
            return False

    async def download(self, key: str, path: str) -> bool:
        """Copy a file to this machine, put whole; False if there is no such file."""

        async def get() -> bool:
            with written_whole(path) as temporary:
                await self._get_file(self._path(key), temporary)
            return True

        try:
            return await self.tried(get)
        except Exception:
            if await self.tried(lambda: self._size(self._path(key))) is None:
                return False
            raise

    async def _get_file(self, path: str, temporary: str) -> None:
        """Copy a file to this machine, for as long as more of it comes."""
        copying = asyncio.ensure_future(self._do("get_file", path, temporary))
        before, size = -1, 0
        try:
            while size != before:
                before = size
                await asyncio.wait([copying], timeout=self.connect_s + self.read_s)
                if copying.done():
                    return copying.result()  # type: ignore[no-any-return]
                size = _measure(temporary)
            raise TimeoutError
        finally:
            copying.cancel()

    async def entries(self, folder: str) -> list[Entry]:
        """What is in a folder; nothing if there is no such folder."""
        path = self._path(folder)
        entries = await self.tried(lambda: self._list(path))
        return [entry for entry in entries if entry.name]

    async def _list(self, path: str) -> list[Entry]:
        try:
            found = await self._do("ls", path, detail=True)
        except FileNotFoundError:
            return []
        start = f"{path}/".lstrip("/")
        named = [(str(_look_up(each, "name")).strip("/"), each) for each in found]
        return [
            Entry(name[len(start) :], _read_size(each), _look_up(each, "type") == "directory")
            for name, each in named
            if name.startswith(start)
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
        except FileNotFoundError:
            return []
        return [(name, _read_size(each)) for name, each in found.items()]

    async def remove(self, key: str) -> None:
        """Remove a file, if it is there."""

        async def remove() -> None:
            try:
                await self._do("rm_file", self._path(key))
            except FileNotFoundError:
                if await self._size(self._path(key)) is not None:
                    raise

        await self.tried(remove)

    async def move(self, source: str, target: str) -> None:
        """Copy all of it, then remove the old; nothing if it is not there."""
        pairs = [(source, target)]
        if not await self.tried(lambda: self._is_file(self._path(source))):
            names = [name for name, _ in await self.walk(source)]
            pairs = [(f"{source}/{name}", f"{target}/{name}") for name in names]
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
            except NotImplementedError:
                with tempfile.TemporaryDirectory(prefix="umpteen-") as folder:
                    here = f"{folder}/copy"
                    await self._get_file(self._path(source), here)
                    body = Body(b"", here, _measure(here))
                    await self.send(target, body, mark="")

        await self.tried(copy)

    async def recover(self, error: Exception) -> None:  # noqa: ARG002 -- any may have broken it
        """Have another connection made where the library makes one only when it is opened."""
        if self.opened is not None and not self.opened.async_impl:
            self.opened = None

    async def close(self) -> None:
        """Let go of connections."""
        self.opened = None

    def judge(self, error: Exception) -> Fault:
        """What an error of some library means, as far as that can be told."""
        status = _read_status(error)
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if status == 429 or 500 <= status <= 599:
            return Fault(f"the server answered {status}", CHECK_NETWORK, is_transient=True)
        if "SSLError" in kinds:
            return Fault("the server's certificate is not trusted", CHECK_NETWORK)
        if kinds & _PASSING:
            return Fault("the connection was lost or refused", CHECK_NETWORK, is_transient=True)
        if "JSONDecodeError" in kinds:
            return Fault("what answered is no such server", "check the address of the server")
        if status in {401, 403}:
            return Fault(f"the server answered {status}", ASK_FOR_ACCESS)
        if isinstance(error, FileNotFoundError):
            return Fault(f"there is no such place: {error.__cause__ or error}", _MAKE_PLACE)
        if isinstance(error, NotImplementedError):
            return Fault("this kind of place cannot do that", "choose another for the results")
        return judge_network(error) or Fault(f"{type(error).__name__}: {error}")

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root

    async def _do(self, name: str, *arguments: Any, size: int = 0, **more: Any) -> Any:
        """Ask the library, for so long as it may take; what is missing is FileNotFoundError."""
        limit_s = self.connect_s + self.read_s + size / _SLOWEST_BYTES_S
        try:
            opened = await self._open()
            if opened.async_impl:
                asked = getattr(opened, f"_{name}")(*arguments, **more)
            else:
                path = arguments[_WRITES[name]] if name in _WRITES else ""
                call = functools.partial(getattr(opened, name), *arguments, **more)
                asked = self._do_in_turn(path, functools.partial(self._do_alone, call))
            return await asyncio.wait_for(asked, _LIMITS_S.get(name, limit_s))
        except Exception as error:
            cause = error.__cause__
            if isinstance(cause, Exception) and self.judge(cause).is_transient:
                raise cause from None  # some take any trouble for a file that is not there
            if isinstance(error, (FileNotFoundError, FileExistsError)):
                raise
            if _is_missing(error):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
            if getattr(error, "errno", None) == errno.EEXIST:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            raise

    async def _do_in_turn(self, path: str, call: Callable[[], Any]) -> Any:
        """What a call in a thread gives; path: the file that it writes, one after another.

        A write that was given up may go on in its thread, and must not end after a later one.
        """
        while path in self.writing:
            await asyncio.wait([self.writing[path]])
        answer = _start_thread(call)
        if path:
            self.writing[path] = answer
            answer.add_done_callback(lambda _: self.writing.pop(path, None))
        return await asyncio.shield(answer)

    def _do_alone(self, call: Callable[[], Any]) -> Any:
        with self.alone:
            return call()

    async def _open(self) -> Any:
        if self.opening is None:
            self.opening = asyncio.Lock()
        async with self.opening:
            if self.opened is None:
                opening = _start_thread(lambda: self.kind(**self.options))
                try:
                    limit_s = self.connect_s + self.read_s
                    self.opened = await asyncio.wait_for(asyncio.shield(opening), limit_s)
                except TypeError as error:  # an option that it does not know
                    raise WrongOptionsError(self.scheme, error) from error
        return self.opened


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


def _load_kind(scheme: str) -> Any:
    """The class of fsspec for a scheme; raises SettingsError where it cannot be loaded."""
    from fsspec import get_filesystem_class

    variables = _VARIABLES.get(scheme, ())
    if missing := [name for name in variables if not os.environ.get(name)]:
        raise SettingsError(
            f"results at {scheme}:// need {' and '.join(missing)} in the environment",
            "it is there on Saturn Cloud; elsewhere: export the address and a token of yours",
        )
    try:
        kind = get_filesystem_class(scheme)
        if scheme == "sfs":
            _build_schemas()
        return kind
    except ImportError as error:
        raise SettingsError(
            f"results at {scheme}:// need a package that is missing: {error}"
        ) from error
    except Exception as error:  # what a package does when it is loaded is its own affair
        reason = f"{type(error).__name__}: {error}"
        raise SettingsError(
            f"results at {scheme}://: their package cannot be loaded: {reason}"
        ) from error


def _build_schemas() -> None:
    """Have saturnfs build now what it builds when it is first used: two threads cannot at once."""
    from saturnfs.schemas.base import DataclassSchema

    with _SCHEMAS:
        for kind in DataclassSchema.__subclasses__():
            getattr(kind, "Schema", None)


def _measure(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _fsspec() -> Any:
    from fsspec import AbstractFileSystem

    return AbstractFileSystem


def _list_exclusive(kind: Any) -> dict[str, bool]:
    """The writes that may be told to make a new file, and whether each is sure to know the word.

    fsspec's own look first, and then write, so that they keep nobody apart.
    """
    found: dict[str, bool] = {}
    for name in ("pipe_file", "put_file"):
        call = getattr(kind, f"_{name}" if kind.async_impl else name)
        if call is not getattr(_fsspec(), name):
            taken = inspect.signature(call).parameters
            if "mode" in taken or any(each.kind is each.VAR_KEYWORD for each in taken.values()):
                found[name] = "mode" in taken
    return found


def _look_up(found: Any, key: str) -> Any:
    """One thing of what was found; most libraries tell it by a dict, some by an object."""
    return found.get(key) if isinstance(found, Mapping) else getattr(found, key, None)


def _read_size(found: Any) -> int:
    return int(_look_up(found, "size") or 0)


def _read_status(error: Exception) -> int:
    """The status of HTTP in an error, whatever the library calls it; 0 where there is none."""
    holders = (error, getattr(error, "response", None))
    for holder, name in itertools.product(holders, ("status", "status_code", "code")):
        value = getattr(holder, name, None)
        if isinstance(value, int):
            return value
    return 0


def _is_missing(error: Exception) -> bool:
    """Whether the library says, in its own way, that there is no such file."""
    is_ftp = type(error).__name__ == "error_perm" and str(error).startswith(_FTP_REFUSED)
    return getattr(error, "errno", None) in _NO_FILE or _read_status(error) == 404 or is_ftp
