"""Results in a folder of a host behind ssh, by the user's own OpenSSH: only python3 is there."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from umpteen.errors import SettingsError
from umpteen.store.backends.base import Backend, Body, Entry, remove_empty_folders, retried
from umpteen.store.backends.faults import Fault, WrongOptionsError, judge_network, read_number
from umpteen.store.base import Options
from umpteen.store.layout import JOB
from umpteen.system.host_agent import PART_BYTES
from umpteen.system.openssh import (
    Answer,
    HostConnection,
    HostError,
    Login,
    connect,
    parse_destination,
)
from umpteen.system.whole_files import written_whole

__all__ = ["SshBackend"]

_SILENT_S = 300.0  # without any answer, and the connection is given up
_LOOK_THERE = "look there, or choose another folder"


class SshBackend(Backend):
    """A folder of a host. Paths are absolute; `/~/` at the start is its home.

    options: `identity_file`, the path of a private key, and the two of every scheme.
    """

    is_exclusive = True

    def __init__(self, address: str, options: Options) -> None:
        super().__init__()
        host, _, path = address.partition("://")[2].partition("/")
        destination = parse_destination(host)
        if destination is None:
            raise SettingsError(
                "the ssh:// address of the results names no host", "write ssh://user@host/folder"
            )
        self._destination = destination
        self._path_there = path if path.startswith("~/") else f"/{path}"
        options = dict(options)
        self._login = Login(
            str(options.pop("identity_file", "")),
            read_number(options, "connect_timeout", 0),
            read_number(options, "read_timeout", 0),
        )
        self._left: list[str] = []  # that could not be removed
        unknown = next(iter(options), None)
        self._wrong = ValueError(f"unexpected option '{unknown}'") if unknown else None

    async def send(self, key: str, body: Body, *, mark: str) -> bool:
        """One attempt to put a file; with a mark, False where there is one."""
        connection = await self._connect()
        path = _find_path(connection, self._path_there, key)
        temporary = f"{path}.{os.urandom(4).hex()}.new"
        while self._left:  # once: what cannot be removed stays
            with contextlib.suppress(OSError):
                await _ask(connection, "remove", path=self._left.pop())
        try:
            await _write(connection, temporary, body, is_private=key == JOB)
            named = await _ask(
                connection, "give_name", path=temporary, target=path, is_new=mark != ""
            )
        except (HostError, asyncio.TimeoutError):
            self._left.append(temporary)  # which the next attempt removes
            raise
        except OSError:  # such as a full disk
            with contextlib.suppress(OSError, HostError):
                await _ask(connection, "remove", path=temporary)
            raise
        return named.found is True

    @retried
    async def get(self, key: str, offset: int, size: int) -> bytes | None:
        """At most `size` bytes (-1: all) from `offset` on; offset -n: the last n bytes."""
        try:
            if offset < 0:
                offset = max(0, (await self._call("measure", key)).found + offset)
            content = b""
            while True:
                wanted = PART_BYTES if size < 0 else min(size - len(content), PART_BYTES)
                given = {"offset": offset + len(content), "size": wanted}
                part = (await self._call("read", key, **given)).content[:wanted]
                content += part
                if len(part) < wanted or len(content) == size:
                    return content
        except (FileNotFoundError, NotADirectoryError):
            return None

    @retried
    async def download(self, key: str, path: str) -> bool:
        """Copy a file to this machine, put whole; False if there is no such file."""
        part = await self.get(key, 0, PART_BYTES)
        if part is None:
            return False
        size = 0
        with written_whole(path) as temporary:
            _append(temporary, part)
            while len(part) == PART_BYTES:
                size += len(part)
                part = await self.get(key, size, PART_BYTES) or b""
                _append(temporary, part)
        return True

    @retried
    async def entries(self, folder: str) -> Sequence[Entry]:
        """What is in a folder; nothing if there is no such folder."""
        try:
            found = (await self._call("list_folder", folder)).found
        except (FileNotFoundError, NotADirectoryError):
            return ()
        return [
            Entry(str(name), int(size), bool(is_folder))
            for name, size, is_folder in found
            if "/" not in name and name not in {".", ".."}
        ]

    @retried
    async def walk(self, folder: str) -> Sequence[tuple[str, int]]:
        """Every file below a folder: its path relative to that, and its bytes."""
        found = (await self._call("walk", folder)).found
        return [(str(path), int(size)) for path, size in found]

    @retried
    async def remove(self, key: str) -> None:
        """Remove a file, if it is there."""
        await self._call("remove", key)

    async def remove_empty(self, is_ours: Callable[[str], bool]) -> None:
        """Remove the folders that are empty, the deepest first. No link is followed."""
        await remove_empty_folders(self.entries, self._remove_folder, is_ours)

    @retried
    async def _remove_folder(self, folder: str) -> None:
        await self._call("remove_folder", folder)

    @retried
    async def move(self, source: str, target: str) -> None:
        """Rename it; nothing if it is not there."""
        connection = await self._connect()
        path = _find_path(connection, self._path_there, target)
        await self._call("move", source, target=path)

    def judge(self, error: Exception) -> Fault:
        """What an error of the host, or of the connection to it, means."""
        if isinstance(error, HostError):
            return Fault(error.reason, error.hint, is_transient=error.is_transient)
        if passing := judge_network(error):
            return passing
        if isinstance(error, OSError):
            return Fault(f"{self._destination} says {error.strerror!r}", _LOOK_THERE)
        return Fault(f"{self._destination} answers what cannot be: {type(error).__name__}")

    async def _connect(self) -> HostConnection:
        if self._wrong:
            raise WrongOptionsError("ssh", self._wrong)
        opening: concurrent.futures.Future[HostConnection] = concurrent.futures.Future()
        opening.set_running_or_notify_cancel()

        def open_it() -> None:
            try:
                opening.set_result(connect(self._destination, self._login))
            except BaseException as error:  # for whoever waits
                opening.set_exception(error)

        # Not in the loop, which others wait in; nor in its pool, which is waited for at exit.
        threading.Thread(target=open_it, name="umpteen-connect", daemon=True).start()
        return await asyncio.wrap_future(opening)

    async def _call(self, call: str, key: str, **given: Any) -> Answer:
        """Once more where there was no answer: nobody's patience is as long as that is waited for.

        Each of these calls may be made twice.
        """
        with contextlib.suppress(asyncio.TimeoutError):
            return await self._call_once(call, key, given)
        return await self._call_once(call, key, given)

    async def _call_once(self, call: str, key: str, given: Mapping[str, Any]) -> Answer:
        connection = await self._connect()
        path = _find_path(connection, self._path_there, key)
        return await _ask(connection, call, path=path, **given)


async def _write(connection: HostConnection, path: str, body: Body, *, is_private: bool) -> None:
    is_first = True
    with body.open() as source:
        while (part := source.read(PART_BYTES)) or is_first:
            await _ask(
                connection, "write_part", part, path=path, is_first=is_first, is_private=is_private
            )
            is_first = False


def _append(path: str, content: bytes) -> None:
    with open(path, "ab") as file:
        file.write(content)


def _find_path(connection: HostConnection, folder: str, key: str) -> str:
    top = f"{connection.home}/{folder[2:]}" if folder.startswith("~/") else folder
    return f"{top.rstrip('/')}/{key}".rstrip("/") or "/"


async def _ask(connection: HostConnection, call: str, body: bytes = b"", **given: Any) -> Answer:
    asked = asyncio.wrap_future(connection.ask(call, body, **given))
    try:
        while True:
            try:
                return await asyncio.wait_for(asyncio.shield(asked), _SILENT_S)
            except asyncio.TimeoutError:
                # As where a file system there hangs; others may take the line for long.
                if time.monotonic() - connection.heard_s >= _SILENT_S:
                    connection.drop()
                    raise
    finally:
        asked.cancel()
