"""A login to an SSH server, and the SFTP channels that requests share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from umpteen.store.backends.faults import WrongOptionsError
from umpteen.store.base import Options

__all__ = ["SftpConnection", "connect"]

_SESSIONS = 10  # that OpenSSH allows a connection; `max_sessions` of the options
_OTHER_SESSIONS = 2  # of those are left for others
_REQUESTS = 4  # at once on a channel, before another is opened


class SftpConnection:
    """A connection of asyncssh, with a few channels."""

    def __init__(self, client: Any, channels_most: int, channel_options: Options) -> None:
        self._client = client
        # No more than so many channels are opened; fewer where the server refuses one.
        self._channels_most = channels_most
        self._channel_options = channel_options
        self._requests: dict[Any, int] = {}  # those under way, by channel
        self._opening = asyncio.Lock()

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be asked through it any more."""
        return bool(self._client.is_closed())

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[Any]:
        """A channel for one request, shared with others."""
        channel = self._find_idle()
        if channel is None:
            async with self._opening:
                channel = self._find_idle() or await self._open_channel()
        self._requests[channel] += 1
        try:
            yield channel
        finally:
            self._requests[channel] -= 1

    def _find_idle(self) -> Any:
        """The channel with the fewest requests; None where another should be opened."""
        channel = min(self._requests, key=self._requests.__getitem__, default=None)
        is_full = len(self._requests) >= self._channels_most
        return channel if channel and (is_full or self._requests[channel] < _REQUESTS) else None

    async def _open_channel(self) -> Any:
        import asyncssh

        try:
            channel = await self._client.start_sftp_client(**self._channel_options)
        except asyncssh.ChannelOpenError:
            if not self._requests:
                raise
            self._channels_most = len(self._requests)
            return self._find_idle()
        except (TypeError, ValueError) as refused:
            raise WrongOptionsError("sftp", refused) from refused
        self._requests[channel] = 0
        return channel

    async def close(self) -> None:
        """Log out."""
        self._client.close()
        await self._client.wait_closed()


async def connect(options: Options) -> SftpConnection:
    """Log in; raises WrongOptionsError where the options allow no connection.

    options: those of `asyncssh.connect`, and three of fsspec's sftp://: `timeout`,
    `max_sessions` and `sftp_client_kwargs`.
    """
    import asyncssh

    options = dict(options)
    limit_s = options.pop("timeout", None)
    sessions = options.pop("max_sessions", _SESSIONS)
    channel_options = options.pop("sftp_client_kwargs", None) or {}
    if type(sessions) is not int or sessions <= _OTHER_SESSIONS:
        said = f"must be greater than {_OTHER_SESSIONS} and a whole number, not {sessions!r}"
        raise WrongOptionsError("sftp", ValueError(f"max_sessions {said}"))
    try:
        client = await asyncio.wait_for(asyncssh.connect(**options), limit_s)
    except (TypeError, ValueError) as refused:
        raise WrongOptionsError("sftp", refused) from refused
    return SftpConnection(client, sessions - _OTHER_SESSIONS, channel_options)
