"""What libraries of fsspec answer, and what their errors mean: each has its own words."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Mapping
from typing import Any

from umpteen.store.backends.faults import ASK_FOR_ACCESS, CHECK_NETWORK, Fault, judge_network

__all__ = ["is_missing", "judge_fsspec", "look_up", "read_size"]

# By name: the libraries that have them need not be there.
_TRANSIENT = {"ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError"}
_TRANSIENT |= {"ServiceRequestError", "ServiceResponseError", "IncompleteReadError"}
_TRANSIENT |= {"ConnectionError", "Timeout", "ChunkedEncodingError", "RetryError"}  # of requests
_TRANSIENT |= {"error_temp", "error_proto"}  # of ftplib
_MAKE_PLACE = "make it, or name another"
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR})
_FTP_REFUSED = ("550", "553")  # it may be missing, and we may not be allowed to


def judge_fsspec(error: Exception) -> Fault:
    """What an error of some library means, as far as that can be told."""
    status = _read_status(error)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if status == 429 or 500 <= status <= 599:
        return Fault(f"the server answered {status}", CHECK_NETWORK, is_transient=True)
    if "SSLError" in kinds:
        return Fault("the server's certificate is not trusted", CHECK_NETWORK)
    if kinds & _TRANSIENT:
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


def look_up(found: Any, key: str) -> Any:
    """One thing of what was found; most libraries tell it by a dict, some by an object."""
    return found.get(key) if isinstance(found, Mapping) else getattr(found, key, None)


def read_size(found: Any) -> int:
    """The bytes of what was found; 0 where that is not told."""
    return int(look_up(found, "size") or 0)


def _read_status(error: Exception) -> int:
    """The status of HTTP in an error, whatever the library calls it; 0 where there is none."""
    holders = (error, getattr(error, "response", None))
    for holder, name in itertools.product(holders, ("status", "status_code", "code")):
        value = getattr(holder, name, None)
        if isinstance(value, int):
            return value
    return 0


def is_missing(error: Exception) -> bool:
    """Whether the library says, in its own way, that there is no such file."""
    is_ftp = type(error).__name__ == "error_perm" and str(error).startswith(_FTP_REFUSED)
    return getattr(error, "errno", None) in _NO_FILE or _read_status(error) == 404 or is_ftp
