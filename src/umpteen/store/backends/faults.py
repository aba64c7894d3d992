"""What went wrong when a place was asked, and whether the request may succeed later."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from typing import NamedTuple

from umpteen.errors import SettingsError
from umpteen.store.base import Options

__all__ = [
    "ASK_FOR_ACCESS",
    "CHECK_NETWORK",
    "CONNECT_S",
    "READ_S",
    "WRITE_ENDPOINT",
    "Fault",
    "FaultError",
    "WrongOptionsError",
    "judge_network",
    "read_number",
]

CONNECT_S, READ_S = 5.0, 20.0
CHECK_NETWORK = "check the network and the address, then run the same command again"
ASK_FOR_ACCESS = "these credentials may not do this: use others, or ask whoever owns the place"
_CHECK_OPTIONS = "check `options` of the results: they are those of fsspec's {}://"
WRITE_ENDPOINT = "write the endpoint as http://HOST:PORT or https://HOST"
_UNKNOWN_OPTION = re.compile(r"unexpected (?:keyword argument|option):? '(\w+)'")

_NETWORK = {
    errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH,
    errno.ENETDOWN, errno.ENETUNREACH, errno.EPIPE, errno.ETIMEDOUT,
}  # fmt: skip


class Fault(NamedTuple):
    """Why a request failed."""

    reason: str
    hint: str | None = None
    # Whether the same request may succeed later.
    is_transient: bool = False
    # Whether what the user said of the place is wrong.
    is_input: bool = False


class FaultError(Exception):
    """A request failed for good."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class WrongOptionsError(Exception):
    """A place cannot be opened with what `options` or the environment say."""

    def __init__(self, scheme: str, error: Exception) -> None:
        text = " ".join(str(error).split())
        unknown = _UNKNOWN_OPTION.search(text)
        reason = f"there is no option {unknown[1]!r}" if unknown else text
        hint = WRITE_ENDPOINT if "endpoint" in text else _CHECK_OPTIONS.format(scheme)
        super().__init__(reason)
        self.fault = Fault(reason, hint, is_input=True)


def read_number(options: Options, name: str, usual: float) -> float:
    """Take an option that is a number out of the others. Raises SettingsError."""
    said = options.pop(name, usual)
    try:
        return float(said)
    except (TypeError, ValueError):
        raise SettingsError(f"the option {name} of the results is no number") from None


def judge_network(error: BaseException) -> Fault | None:
    """What an error of the system or its sockets means; None where it is of another kind."""
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return Fault("no answer in time", CHECK_NETWORK, is_transient=True)
    if isinstance(error, (ConnectionError, EOFError)):
        return Fault("the connection was lost or refused", CHECK_NETWORK, is_transient=True)
    if isinstance(error, OSError) and error.errno in _NETWORK:
        return Fault(os.strerror(error.errno or 0), CHECK_NETWORK, is_transient=True)
    if isinstance(error, PermissionError):
        return Fault("permission denied", ASK_FOR_ACCESS)
    return None
