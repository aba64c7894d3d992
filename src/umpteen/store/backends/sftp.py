"""Results behind an SSH server: files of a folder there, put whole by link and rename."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from collections.abc import AsyncIterator, Sequence
from typing import Any, Callable

from umpteen.errors import SettingsError
from umpteen.store.backends.base import Backend, Body, Entry, remove_empty_folders, retried
from umpteen.store.backends.faults import (
    ASK_FOR_ACCESS,
    CHECK_NETWORK,
    CONNECT_S,
    READ_S,
    Fault,
    judge_network,
    read_number,
)
from umpteen.store.backends.loop import OpenOnce, gather
from umpteen.store.backends.sftp_connection import SftpConnection, connect
from umpteen.store.base import Options
from umpteen.store.layout import JOB
from umpteen.system.whole_files import written_whole

__all__ = ["SftpBackend"]

_KEEPALIVES = 4  # without an answer, and the connection is given up
_HOST = re.compile(r"(?:(?P<username>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:]+)(?::(?P<port>\d+))?")
_LOOK_THERE = "it may be full, or a part of that path a file: look there, or choose another folder"
_CHECK_LOGIN = "check user and keys: `ssh` or `sftp` to that host must work without a password"
_ACCEPT_KEY = "accept it once with `ssh`, or name a file as `known_hosts` in `options`"
_PART_BYTES = 4 * 1024 * 1024


class SftpBackend(Backend):
    """A folder of an SFTP server. Paths are absolute; `/~/` at the start is its home."""

    is_exclusive = True

    def __init__(self, address: str, options: Options) -> None:
        super().__init__()
        host, _, path = address.partition("://")[2].partition("/")
        match = _HOST.fullmatch(host)
        if match is None:
            raise SettingsError(
                "the sftp:// address of the results names no host", "write sftp://user@host/folder"
            )
        self.root = path[2:] if path.startswith("~/") else f"/{path}"
        named = {key: value for key, value in match.groupdict().items() if value}
        named["host"] = named["host"].strip("[]")
        options = dict(options)
        read_s = read_number(options, "read_timeout", READ_S)
        self._options: Options = {
            "connect_timeout": read_number(options, "connect_timeout", CONNECT_S),
            "login_timeout": read_s,
            "keepalive_interval": read_s / _KEEPALIVES,
            "keepalive_count_max": _KEEPALIVES - 1,
            "known_hosts": (),  # the user's own
            **named,
            **options,
        }
        if "port" in self._options:
            self._options["port"] = int(read_number(self._options, "port", 22))
        self._left: list[str] = []  # that could not be removed
        self._connection: OpenOnce[SftpConnection] = OpenOnce(lambda: connect(self._options))

    async def send(self, key: str, body: Body, *, mark: str) -> bool:
        """One attempt to put a file; with a mark, False where there is one."""
        is_new = mark != ""
        path = self._path(key)
        temporary = f"{path}.{os.urandom(4).hex()}.new"
        async with self._channel() as channel:
            await self._remove_left(channel)
            try:
                await _write(channel, temporary, body, is_private=key == JOB)
                if not is_new:
                    await _rename(channel, temporary, path)
                    return True
                made = await _link(channel, temporary, path, body)
                await channel.remove(temporary)
            except Exception:
                try:
                    await channel.remove(temporary)
                except Exception:  # by the next attempt, where the connection was lost
                    self._left.append(temporary)
                raise
        return made

    async def _remove_left(self, channel: Any) -> None:
        """What former attempts could not remove, as their connections were lost."""
        from asyncssh.sftp import SFTPConnectionLost, SFTPError

        while self._left:
            path = self._left.pop()
            try:
                await channel.remove(path)
            except SFTPConnectionLost:
                self._left.append(path)
                raise
            except SFTPError:  # it was never made
                continue

    @retried
    async def get(self, key: str, offset: int, size: int) -> bytes | None:
        """At most `size` bytes (-1: all) from `offset` on; offset -n: the last n bytes."""
        from asyncssh.sftp import SFTPNoSuchFile

        async with self._channel() as channel:
            try:
                async with channel.open(self._path(key), "rb") as file:
                    if size < 0:
                        end = (await file.stat()).size or 0
                        offset = max(0, end + offset) if offset < 0 else offset
                        size = max(0, end - offset)
                    content: bytes = await file.read(size, offset)
            except SFTPNoSuchFile:
                return None
        return content

    @retried
    async def download(self, key: str, path: str) -> bool:
        """Copy a file to this machine, put whole; False if there is no such file."""
        from asyncssh.sftp import SFTPNoSuchFile

        async with self._channel() as channel:
            try:
                with written_whole(path) as temporary:
                    await channel.get(self._path(key), temporary)
            except SFTPNoSuchFile:
                return False
        return True

    @retried
    async def entries(self, folder: str) -> Sequence[Entry]:
        """What is in a folder; nothing if there is no such folder."""
        from asyncssh.sftp import SFTPNoSuchFile

        async with self._channel() as channel:
            try:
                found = await channel.readdir(self._path(folder))
            except SFTPNoSuchFile:
                return ()
        return [
            Entry(each.filename, each.attrs.size or 0, stat.S_ISDIR(each.attrs.permissions or 0))
            for each in found
            if each.filename not in {".", ".."}
        ]

    async def walk(self, folder: str) -> Sequence[tuple[str, int]]:
        """Every file below a folder: its path relative to that, and its bytes."""
        found: list[tuple[str, int]] = []
        prefixes = [""]
        while prefixes:
            paths = [f"{folder}/{prefix}".strip("/") for prefix in prefixes]
            levels = await gather(self.entries, ((path,) for path in paths))
            below = [(p + e.name, e) for p, level in zip(prefixes, levels) for e in level]
            found += [(path, entry.size) for path, entry in below if not entry.is_folder]
            prefixes = [f"{path}/" for path, entry in below if entry.is_folder]
        return found

    @retried
    async def remove(self, key: str) -> None:
        """Remove a file, if it is there."""
        from asyncssh.sftp import SFTPNoSuchFile

        async with self._channel() as channel:
            with contextlib.suppress(SFTPNoSuchFile):
                await channel.remove(self._path(key))

    async def remove_empty(self, is_ours: Callable[[str], bool]) -> None:
        """Remove the folders that are empty, the deepest first. No link is followed."""
        await remove_empty_folders(self.entries, self._remove_folder, is_ours)

    async def _remove_folder(self, folder: str) -> None:
        """If it is empty."""
        from asyncssh.sftp import SFTPError

        # Errors of every kind, as servers differ in what they say.
        async with self._channel() as channel:
            with contextlib.suppress(SFTPError):
                await channel.rmdir(self._path(folder))

    @retried
    async def move(self, source: str, target: str) -> None:
        """Rename it; nothing if it is not there."""
        from asyncssh.sftp import SFTPNoSuchFile

        old, new = self._path(source), self._path(target)

        async with self._channel() as channel:
            try:
                await _rename(channel, old, new)
            except SFTPNoSuchFile:
                if await channel.lexists(old):
                    await channel.makedirs(new.rpartition("/")[0], exist_ok=True)
                    await _rename(channel, old, new)

    async def recover(self, error: Exception) -> None:  # noqa: ARG002 -- the connection knows better
        """Have another connection made where this one is lost."""
        if self._connection.opened and self._connection.opened.is_lost:
            self._connection.forget()

    async def close(self) -> None:
        """Let go of the connection."""
        if connection := self._connection.forget():
            await connection.close()

    def judge(self, error: Exception) -> Fault:
        """What an error of asyncssh, or of the connection below it, means."""
        import asyncssh
        from asyncssh import sftp

        if isinstance(error, (asyncssh.PermissionDenied, PermissionError)):
            return Fault("the server refused the login", _CHECK_LOGIN)
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return Fault("the key of the host is not known here", _ACCEPT_KEY)
        passing = (sftp.SFTPConnectionLost, sftp.SFTPNoConnection, asyncssh.ChannelOpenError)
        if isinstance(error, (*passing, asyncssh.DisconnectError)):
            return Fault("the connection was lost or refused", CHECK_NETWORK, is_transient=True)
        if isinstance(error, (sftp.SFTPPermissionDenied, sftp.SFTPWriteProtect)):
            return Fault("permission denied", ASK_FOR_ACCESS)
        if isinstance(error, sftp.SFTPError):
            return Fault(f"the server says {error.reason!r}", _LOOK_THERE)
        if isinstance(error, socket.gaierror):
            return Fault("no such host is known", CHECK_NETWORK, is_transient=True)
        return judge_network(error) or Fault(f"{type(error).__name__}: {error}")

    def _path(self, key: str) -> str:
        return f"{self.root.rstrip('/')}/{key}".rstrip("/") or "/"

    @contextlib.asynccontextmanager
    async def _channel(self) -> AsyncIterator[Any]:
        connection = self._connection.opened or await self._connection.get()
        async with connection.channel() as channel:
            yield channel


async def _write(channel: Any, path: str, body: Body, *, is_private: bool) -> None:
    from asyncssh.sftp import SFTPAttrs, SFTPNoSuchFile

    attributes = SFTPAttrs(permissions=0o600) if is_private else SFTPAttrs()
    with body.open() as source:
        try:
            target = await channel.open(path, "xb", attributes)
        except SFTPNoSuchFile:
            await channel.makedirs(path.rpartition("/")[0], exist_ok=True)
            target = await channel.open(path, "xb", attributes)
        async with target:
            while part := source.read(_PART_BYTES):
                await target.write(part)


async def _link(channel: Any, temporary: str, path: str, body: Body) -> bool:
    """Have the file under its name too, if none is there."""
    from asyncssh import sftp

    try:
        await channel.link(temporary, path)
    except (sftp.SFTPFailure, sftp.SFTPFileAlreadyExists):
        if not await channel.lexists(path):
            raise
        return False
    except sftp.SFTPOpUnsupported:  # exclusive, but not put whole
        if await channel.lexists(path):
            return False
        await _write(channel, path, body, is_private=path.endswith(JOB))
    return True


async def _rename(channel: Any, old: str, new: str) -> None:
    from asyncssh.sftp import SFTPNoSuchFile, SFTPOpUnsupported

    try:
        await channel.posix_rename(old, new)
    except SFTPOpUnsupported:
        with contextlib.suppress(SFTPNoSuchFile):
            await channel.remove(new)
        await channel.rename(old, new)
