"""The channels of a connection to a real SSH server of asyncssh, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncssh
import pytest

from umpteen.store.backends.faults import WrongOptionsError
from umpteen.store.backends.sftp_connection import SftpConnection, connect


class AnyUser(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return bool(username == "nobody")


def use(call: Callable[[SftpConnection], Awaitable[Any]], **options: Any) -> Any:
    """What a call gives that has a connection."""

    async def use() -> Any:
        key = asyncssh.generate_private_key("ssh-ed25519")
        server = await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[key], server_factory=AnyUser, sftp_factory=True
        )
        async with server:
            where = {"host": "127.0.0.1", "port": server.get_port(), "username": "me"}
            connection = await connect({**where, "known_hosts": None, **options})
            try:
                return await call(connection)
            finally:
                await connection.close()

    return asyncio.run(use())


def count_channels(requests: int) -> Callable[[SftpConnection], Awaitable[int]]:
    async def count(connection: SftpConnection) -> int:
        async with AsyncExitStack() as held:
            asked = [held.enter_async_context(connection.channel()) for _ in range(requests)]
            return len({id(channel) for channel in await asyncio.gather(*asked)})

    return count


@pytest.mark.parametrize(("requests", "channels"), [(1, 1), (4, 1), (5, 2), (100, 8)])
def test_requests_share_a_few_channels(requests: int, channels: int) -> None:
    assert use(count_channels(requests)) == channels


def test_options_say_how_many_channels() -> None:
    assert use(count_channels(100), max_sessions=4) == 2


def test_a_channel_that_is_free_is_used_again() -> None:
    async def count(connection: SftpConnection) -> tuple[int, int]:
        return await count_channels(8)(connection), await count_channels(8)(connection)

    assert use(count) == (2, 2)


def test_a_connection_that_is_closed_is_lost() -> None:
    async def close(connection: SftpConnection) -> tuple[bool, bool]:
        before = connection.is_lost
        await connection.close()
        return before, connection.is_lost

    assert use(close) == (False, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_sessions": 2}, "max_sessions must be greater than 2"),
        ({"max_sessions": "9"}, "max_sessions must be .* a whole number, not '9'"),
        ({"max_sessions": 4.5}, "max_sessions must be .* a whole number, not 4.5"),
        ({"hidden": 1}, "there is no option 'hidden'"),
        ({"sftp_client_kwargs": {"hidden": 1}}, "there is no option 'hidden'"),
    ],
)
def test_options_that_cannot_be_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(WrongOptionsError, match=words):
        use(count_channels(1), **options)
