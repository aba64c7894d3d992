"""Batches on a Dask cluster: one of Dask's tasks is one batch, run by a child of a worker.

Only text crosses: an expression and an order in JSON, and the carrier as a file that every
worker is given, later ones too. The scheduler forgets a batch when it has ended; what came of
it is in the store.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import logging
import os
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from umpteen.errors import EXIT_CRASHED, BackendError, SettingsError
from umpteen.executors.base import ENDED, QUEUED, RUNNING, UNKNOWN, Load, Order
from umpteen.executors.engine import (
    EngineExecutor,
    Handle,
    build_order,
    parse_handle,
    read_answer,
)
from umpteen.keeper import find_keeper, is_kept_dead, load_class, start_keeper
from umpteen.zipapp import build_carrier

# Dask's own, half of which has no types.
Client = Any
Future = Any

__all__ = ["DaskExecutor"]

_PREFIX = "umpteen"
_ANSWER_S, _REACH_S, _CLUSTER_S = 8.0, 3.0, 600.0
_STATES = {
    "released": QUEUED, "waiting": QUEUED, "no-worker": QUEUED, "queued": QUEUED,
    "processing": RUNNING, "memory": ENDED, "erred": ENDED, "forgotten": ENDED, None: ENDED,
}  # fmt: skip
_FORGOTTEN = ("released", None)  # as a key that is asked for and has nothing to be run by

Key = tuple[str, str, str]


# --- builders -----------------------------------------------------------------------------


def build_key(handle: Handle) -> Key:
    """Dask's name for a batch. A tuple, as of other keys it keeps the first part for ever."""
    return (_PREFIX, handle.mark, handle.batch)


def _build_call(load: Load, order: Order) -> str:
    told = build_order(load, order, is_exclusive=load.slots > 1)
    return f"__import__({build_carrier().name!r}).run_batch({told!r})"


def build_resources(wanted: Mapping[str, float], gpus: int) -> dict[str, float]:
    """What a worker must have declared to be given a batch."""
    return {**({"GPU": float(gpus)} if gpus else {}), **wanted}


# --- the thin caller ------------------------------------------------------------------------


class DaskExecutor(EngineExecutor):
    """Hands batches to the scheduler at `scheduler_address`, or to a cluster it has made.

    `cluster_class` and `cluster_kwargs` say which; a keeper holds it. `resources` is what
    workers must have declared; `worker_timeout` how long workers are waited for.
    """

    name = "dask"
    option_names = ("scheduler_address", "cluster_class", "cluster_kwargs", "resources")

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.futures: dict[str, Future] = {}

    def check(self) -> None:
        """Raises SettingsError where Dask is missing, or neither address nor cluster is given."""
        _import_distributed()
        self.check_mappings("cluster_kwargs", "resources")
        if not self._find_given() and not self.options.get("cluster_class"):
            raise SettingsError(
                "the executor 'dask' needs scheduler_address or cluster_class",
                "write executor: {dask: {scheduler_address: tcp://HOST:8786}}, or --scheduler-address",
            )
        if not self._find_given():
            load_class(self.options["cluster_class"])

    def _find_given(self) -> str:
        """The scheduler that options name, else Dask's own configuration."""
        given = self.options.get("scheduler_address")
        if given or self.options.get("cluster_class"):
            return str(given or "")
        import dask

        return str(dask.config.get("scheduler-address", None) or "")

    def submit(self, load: Load) -> dict[str, str]:
        """One task of Dask for each batch, that the scheduler keeps without us."""
        scheduler = self._find_given() or self._make_cluster(load.address)
        handles = {batch: Handle(scheduler, load.mark, batch) for batch in load.batches}
        client = _connect(scheduler)
        with _explained(scheduler):
            _upload(client)
            self.futures = _map(client, load, handles, self.options.get("resources") or {})
            _confirm(client, list(map(build_key, handles.values())))
        self.ending, self.waits_since_s = (None, ""), None
        return {batch: str(handle) for batch, handle in handles.items()}

    def _make_cluster(self, address: str) -> str:
        spec, keywords = self.options["cluster_class"], self.options.get("cluster_kwargs") or {}
        return find_keeper(address) or start_keeper(address, spec, keywords, _CLUSTER_S)

    def poll(self, handles: Sequence[str]) -> dict[str, str]:
        """What each scheduler says; UNKNOWN where it does not answer."""
        return {
            handle: _STATES.get(state, UNKNOWN) for handle, state in _ask_states(handles).items()
        }

    def cancel(self, handles: Sequence[str]) -> None:
        """Let no more begin, and have runners look at the mark now."""
        for scheduler, (some, states) in _group(_ask_states(handles)).items():
            client = _connect(scheduler)
            told = zip(some, states, strict=True)
            queued = [build_key(handle) for handle, s in told if _STATES.get(s) == QUEUED]
            marks = sorted({handle.mark for handle in some})
            with _explained(scheduler):
                client.cancel([_future(key, client) for key in queued], force=True)
                _hasten(client, marks)

    def count_workers(self, slots: int) -> int:
        """Threads of the workers that are there, or workers where one batch takes a whole one."""
        scheduler = self._find_given()
        if not scheduler:
            kwargs = self.options.get("cluster_kwargs") or {}
            workers = kwargs.get("n_workers", 0)
            threads = 1 if slots else kwargs.get("threads_per_worker", 1)
            return workers * threads if isinstance(workers * threads, int) else 0
        client = _connect(scheduler)
        with _explained(scheduler):
            found = client.nthreads()
        return len(found) if slots else sum(found.values())

    def explain(self, handles: Sequence[str]) -> str:
        """What batches wait for that are with the scheduler."""
        found = _group(_ask_states(handles))
        states = {state for _, group in found.values() for state in group}
        if not states <= {"no-worker", "queued", "waiting"} or not handles:
            self.waits_since_s = None
            return ""
        if not found:
            return "the Dask scheduler does not answer"
        scheduler = next(iter(found))
        client, wanted = _connect(scheduler), self.options.get("resources")
        with _explained(scheduler):
            workers = len(client.nthreads())
        if not workers:
            reason = "the Dask cluster has no workers yet"
        elif wanted:
            reason = f"no worker of the Dask cluster has free {_show(wanted)}"
        else:
            reason = f"the {workers} workers of the Dask cluster do not take it yet"
        self.wait_on(reason, handles, "workers")
        return f"waiting for workers: {reason}"

    def read_ending(self) -> tuple[int | None, str]:
        """The worst answer of what this process submitted; None while some of it lives.

        A runner that cannot work at all ends the others that wait.
        """
        if self.ending[0] is not None:
            return self.ending
        over = {batch: f for batch, f in self.futures.items() if f.status != "pending"}
        answers = list(map(_read_answer, over.values()))
        worst = max(answers, default=(0, ""))
        is_hopeless = any(code in (2, 3) for code, _ in answers)
        if is_hopeless and len(over) < len(self.futures):
            left = [f for batch, f in self.futures.items() if batch not in over]
            with contextlib.suppress(Exception):
                left[0].client.cancel(left, force=True)
        if is_hopeless or len(over) == len(self.futures):
            self.ending, self.futures = worst, {}
        return self.ending


def _import_distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise SettingsError(
            f"the executor 'dask' needs a package that is not here: {error.name}",
            "pip install 'umpteen[dask]'",
        ) from error
    return distributed


def _connect(scheduler: str) -> Client:
    """The client of this process for a scheduler. Raises BackendError, SettingsError."""
    with _connecting:
        known = _clients.get(scheduler)
        if known is None or known.status != "running":
            known = _clients[scheduler] = _build_client(scheduler)
        return known


def _build_client(scheduler: str) -> Client:
    distributed = _import_distributed()
    _reach(scheduler)
    _hush()
    with _explained(scheduler), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions that differ: only text crosses
        theirs, ours = asyncio.run(_greet(scheduler)), distributed.__version__
        # One that cannot connect would wait for its own end for half a minute.
        kind: Any = type("Client", (distributed.Client,), {"__del__": lambda _: None})
        try:
            client: Client = kind(scheduler, timeout=_ANSWER_S, set_as_default=False)
        except Exception as error:  # whatever its many parts may raise
            if theirs == ours:
                raise
            raise BackendError(
                f"the scheduler at {scheduler} has Dask {theirs}, which this Dask {ours} "
                f"cannot speak to: {_tell(error)}",
                f"pip install distributed=={theirs}",
            ) from error
    atexit.register(_close, client)
    return client


def _hush() -> None:
    """What Dask logs of lost connections is said by us, once and without tracebacks."""
    for name in ("tornado", "asyncio", *logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


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
    with contextlib.suppress(Exception):
        client.close(timeout=2)


def _reach(scheduler: str) -> None:
    """Raises BackendError where nobody listens: Dask itself would try for seconds."""
    parts = urlsplit(scheduler if "://" in scheduler else f"tcp://{scheduler}")
    try:
        if parts.scheme not in ("tcp", "tls") or not parts.hostname:
            return
        socket.create_connection((parts.hostname, parts.port or 8786), timeout=_REACH_S).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _no_answer(scheduler, reason) from error


def _no_answer(scheduler: str, reason: str, hint: str = "") -> BackendError:
    return BackendError(
        f"the Dask scheduler at {scheduler} does not answer: {reason}",
        hint or "start it with `dask scheduler`, or give its --scheduler-address",
        transient=True,
    )


def _tell(error: BaseException) -> str:
    """One line, whatever there is."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _explained(scheduler: str) -> Iterator[None]:
    """Errors of Dask as BackendError."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:  # whatever its many parts may raise
        reason = _tell(error)
        is_secure = scheduler.startswith("tls:") or "ssl" in reason.lower() or "tls" in reason
        if is_secure:
            raise BackendError(
                f"the Dask scheduler at {scheduler} does not take this connection: {reason}",
                "set DASK_DISTRIBUTED__COMM__TLS__CA_FILE and "
                "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and __KEY, as its owner has them",
            ) from error
        hint = "is it Dask's? Where it has TLS, its address begins with tls://"
        raise _no_answer(scheduler, reason, hint) from error


def _upload(client: Client) -> None:
    """Give every worker the carrier, those that join later too."""
    from distributed.diagnostics.plugin import UploadFile

    carrier = build_carrier()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"{carrier.name}.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(carrier.text)
        plugin = UploadFile(path)
    plugin.idempotent = True  # else each hand-in would send it again
    client.register_plugin(plugin, name=carrier.name)


def _map(
    client: Client, load: Load, handles: Mapping[str, Handle], resources: Mapping[str, float]
) -> dict[str, Future]:
    """Submit batches in their order, each after those that it waits for."""
    from distributed import client as dask_client

    keep: Any = dask_client.fire_and_forget
    earlier = _hold_earlier(client, load)
    keys = {batch: build_key(handle) for batch, handle in handles.items()}
    futures: dict[str, Future] = {}
    for gpus, group in itertools.groupby(load.orders, key=lambda order: order.gpus):
        orders = list(group)
        waited = [
            [
                earlier.get(b) or _future(keys[b], client)
                for b in o.after
                if b in earlier or b in keys
            ]
            for o in orders
        ]
        found = client.map(
            eval,
            [_build_call(load, order) for order in orders],
            [{"after": before} for before in waited],
            key=[keys[order.batch] for order in orders],
            resources=build_resources(resources, gpus) or None,
            pure=False,
        )
        keep(found)
        futures.update(zip((order.batch for order in orders), found, strict=True))
    return futures


def _hold_earlier(client: Client, load: Load) -> dict[str, Future]:
    """Batches handed in before that have not ended. One that ends after this look is kept.

    To ask for one that the scheduler has forgotten would make it wait for that for ever.
    """
    keys = {batch: build_key(parse_handle(text)) for batch, text in load.earlier.items()}
    states = client.sync(client.scheduler.get_task_status, keys=list(keys.values()))
    open_ones = [batch for batch, key in keys.items() if _STATES.get(states.get(key)) != ENDED]
    held = {batch: _future(keys[batch], client) for batch in open_ones}
    states = client.sync(client.scheduler.get_task_status, keys=list(keys.values()))
    return {batch: f for batch, f in held.items() if states.get(keys[batch]) not in _FORGOTTEN}


def _confirm(client: Client, keys: Sequence[Key]) -> None:
    """Wait until the scheduler has taken these: what is sent to it is not answered."""
    limit_s = time.monotonic() + _ANSWER_S
    while None in client.sync(client.scheduler.get_task_status, keys=keys).values():
        if time.monotonic() > limit_s:
            raise TimeoutError("it did not take the batches")
        time.sleep(0.01)


def _hasten(client: Client, marks: Sequence[str]) -> None:
    """Ask workers, but wait for none that hangs: runners look at the mark by themselves, too."""

    def ask() -> None:
        with contextlib.suppress(Exception):
            call = f"__import__({build_carrier().name!r}).hasten({marks!r})"
            client.run(eval, call, on_error="ignore")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_REACH_S)


def _future(key: Key, client: Client) -> Future:
    from distributed import Future

    return Future(key, client)


# --- parsers ----------------------------------------------------------------------------------


def _ask_states(handles: Sequence[str]) -> dict[str, str | None]:
    """What Dask calls the state of each batch: None for one it does not know, UNKNOWN where
    its scheduler does not answer.
    """
    found: dict[str, str | None] = {}
    by_scheduler: dict[str, list[str]] = {}
    for text in handles:
        by_scheduler.setdefault(parse_handle(text).place, []).append(text)
    for scheduler, texts in by_scheduler.items():
        try:
            client = _connect(scheduler)
            keys = [build_key(parse_handle(text)) for text in texts]
            with _explained(scheduler):
                states = client.sync(client.scheduler.get_task_status, keys=keys)
            found.update((text, states.get(key)) for text, key in zip(texts, keys, strict=True))
        except (BackendError, SettingsError):
            is_over = is_kept_dead(scheduler)
            found.update(dict.fromkeys(texts, None if is_over else UNKNOWN))
    return found


def _group(
    states: Mapping[str, str | None],
) -> dict[str, tuple[list[Handle], list[str | None]]]:
    """Handles and states of each scheduler that answers."""
    groups: dict[str, tuple[list[Handle], list[str | None]]] = {}
    for text, state in states.items():
        if state != UNKNOWN:
            handle = parse_handle(text)
            some, their = groups.setdefault(handle.place, ([], []))
            some.append(handle)
            their.append(state)
    return groups


def _read_answer(future: Future) -> tuple[int, str]:
    """(exit code, complaint) that the carrier gave, or Dask in its place."""
    if future.status == "finished":
        with contextlib.suppress(Exception):
            return read_answer(future.result(timeout=_ANSWER_S))
    if future.status == "error":
        error = future.exception(timeout=_ANSWER_S)
        return EXIT_CRASHED, f"Dask gave it up: {_tell(error)}"
    return 0, ""  # forgotten, as its end was before we asked, or cancelled


def _show(resources: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {amount:g}" for name, amount in resources.items())


_clients: dict[str, Client] = {}
_connecting = threading.Lock()  # a job is looked at in threads
