"""Connections to Dask's schedulers, one for each in a process; Dask's errors as ours."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import socket
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from umpteen.errors import BackendError, SettingsError
from umpteen.executors.engine_logs import are_silenced

__all__ = [
    "CLIENTS",
    "Client",
    "ClientPool",
    "check_address",
    "explained",
    "import_distributed",
    "tell_error",
]

Client = Any  # Dask's own, half of which has no types
_ANSWER_S, _REACH_S = 8.0, 3.0
_SCHEMES = ("tcp", "tls", "ws", "wss", "ucx")
_PORT = 8786


def import_distributed() -> Any:
    """Dask's package. Raises SettingsError where it is missing."""
    try:
        import distributed
    except ImportError as error:
        raise SettingsError(
            f"the executor 'dask' needs a package that is not here: {error.name}",
            "pip install 'umpteen[dask]'",
        ) from error
    return distributed


def check_address(scheduler: str) -> None:
    """Raises SettingsError for what is no address of a scheduler."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(scheduler if "://" in scheduler else f"tcp://{scheduler}")
        if parts.scheme in _SCHEMES and parts.hostname and parts.port != 0:
            return
    raise SettingsError(
        f"{scheduler!r} is no address of a Dask scheduler", f"write tcp://HOST:{_PORT}"
    )


class ClientPool:
    """The clients of this process, one for each scheduler.

    are_logs_shown: whether Dask may log what is wrong, as it does where Python programs use it.
    """

    def __init__(self, *, are_logs_shown: bool = True) -> None:
        self.are_logs_shown = are_logs_shown
        self._clients: dict[str, Client] = {}
        self._lock = threading.Lock()  # a job is looked at in threads

    def connect(self, scheduler: str) -> Client:
        """The client for a scheduler. Raises BackendError, SettingsError."""
        with self._lock:
            known = self._clients.get(scheduler)
            if known is None or known.status != "running":
                known = self._clients[scheduler] = self._build(scheduler)
            return known

    def _build(self, scheduler: str) -> Client:
        distributed = import_distributed()
        _reach(scheduler)
        if not self.are_logs_shown:
            logging.disable(logging.CRITICAL)
        client = _build_client(distributed, scheduler)
        atexit.register(_close, client)
        return client


def _build_client(distributed: Any, scheduler: str) -> Client:
    with explained(scheduler), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions that differ: only text crosses
        with ThreadPoolExecutor(1) as beside:  # as a notebook's cells are run by a loop
            theirs = beside.submit(lambda: asyncio.run(_greet(scheduler))).result()
        # One that cannot connect would wait for its own end for half a minute.
        kind: Any = type("Client", (distributed.Client,), {"__del__": lambda _: None})
        try:
            return kind(scheduler, timeout=_ANSWER_S, set_as_default=False)
        except Exception as error:  # whatever its many parts may raise
            if theirs == distributed.__version__:
                raise
            raise BackendError(
                f"the scheduler at {scheduler} has Dask {theirs}, which this Dask "
                f"{distributed.__version__} cannot speak to: {tell_error(error)}",
                f"pip install distributed=={theirs}",
            ) from error


def _reach(scheduler: str) -> None:
    """Raises BackendError where nobody listens: Dask itself would try for seconds."""
    parts = urlsplit(scheduler if "://" in scheduler else f"tcp://{scheduler}")
    if parts.scheme not in ("tcp", "tls") or not parts.hostname:
        return
    try:
        socket.create_connection((parts.hostname, parts.port or _PORT), _REACH_S).close()
    except OSError as error:
        raise _no_answer(scheduler, error.strerror or str(error)) from error


async def _greet(scheduler: str) -> str:
    """The version of a scheduler. Raises whatever keeps us from talking to it."""
    from distributed.core import rpc
    from distributed.security import Security

    call: Any = rpc
    build: Any = Security
    arguments = build().get_connection_args("client")
    async with call(scheduler, timeout=_ANSWER_S, connection_args=arguments) as asked:
        found = await asyncio.wait_for(asked.identity(), _ANSWER_S)
        told = await asyncio.wait_for(asked.versions(), _ANSWER_S)
    if found.get("type") != "Scheduler":
        raise ValueError(f"it is a {found.get('type')}")
    version = dict(told["packages"]).get("distributed")
    return str(version["version"] if isinstance(version, dict) else version)


def _close(client: Client) -> None:
    """At the end of this process, which says nothing of clusters that ended before it."""
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(Exception):
        client.close(timeout=2)


@contextlib.contextmanager
def explained(scheduler: str) -> Iterator[None]:
    """Errors of Dask as BackendError."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:  # whatever its many parts may raise
        reason = tell_error(error)
        is_secure = scheduler.startswith("tls:") or "ssl" in reason.lower() or "tls" in reason
        if is_secure:
            raise BackendError(
                f"the Dask scheduler at {scheduler} does not take this connection: {reason}",
                "set DASK_DISTRIBUTED__COMM__TLS__CA_FILE and "
                "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and __KEY, as its owner has them",
            ) from error
        hint = "is it Dask's? Where it has TLS, its address begins with tls://"
        raise _no_answer(scheduler, reason, hint) from error


def _no_answer(scheduler: str, reason: str, hint: str = "") -> BackendError:
    return BackendError(
        f"the Dask scheduler at {scheduler} does not answer: {reason}",
        hint or "start it with `dask scheduler`, or give its --scheduler-address",
        transient=True,
    )


def tell_error(error: BaseException) -> str:
    """One line, whatever there is."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# Of the process and not of an executor: to connect takes half a second and a thread, and a notebook
# looks at its jobs again and again, each time with executors of its own.
CLIENTS = ClientPool(are_logs_shown=not are_silenced())
