"""Batches on a Dask cluster: one of Dask's tasks is one batch, run by a child of a worker.

Only text crosses: an expression and an order in JSON, and the carrier as a file that every
worker is given, later ones too. The scheduler forgets a batch when it has ended; what came of
it is in the store.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from umpteen.errors import RUNNER_CRASHED, BackendError, SettingsError
from umpteen.executors.base import ENDED, QUEUED, RUNNING, UNKNOWN, BatchRequest, SubmitRequest
from umpteen.executors.dask.cluster import is_kept_dead, keep_cluster, load_class
from umpteen.executors.dask.connection import (
    Client,
    check_address,
    connect,
    explained,
    import_distributed,
    tell_error,
)
from umpteen.executors.engine import (
    EngineExecutor,
    Handle,
    build_order,
    is_hopeless,
    parse_handle,
    rank_answer,
    read_answer,
)
from umpteen.executors.zipapp import build_carrier
from umpteen.store.identity import Identity

Future = Any  # Dask's own, which has no types

__all__ = ["DaskExecutor"]

_PREFIX = "umpteen"
_ANSWER_S, _HASTEN_S, _CLUSTER_S = 8.0, 3.0, 600.0
_COUNT_CORES = "len(__import__('os').sched_getaffinity(0))"
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


def _build_call(load: SubmitRequest, order: BatchRequest) -> str:
    told = build_order(load, order, cpus=count_cores(load.slots, order.cpus), is_beside_others=True)
    return f"__import__({build_carrier().name!r}).run_batch({told!r})"


def count_cores(slots: int, cpus: int) -> int:
    """How many of its worker's a batch takes; 0 for all, with as many as its machine has.

    One of so many slots has its worker for itself; else it runs one command at a time.
    """
    return 0 if slots > 1 else max(1, cpus)


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
        self.check_mappings("cluster_kwargs", "resources")
        self.check_amounts(self.options.get("resources") or {})
        self.answers: _Answers | None = None
        self.wanted: dict[str, float] = {}

    def check(self) -> None:
        """Raises SettingsError where Dask is missing, neither address nor cluster is given, or
        options are not what they should be.
        """
        import_distributed()
        if scheduler := self._find_given():
            check_address(scheduler)
        elif self.options.get("cluster_class"):
            load_class(str(self.options["cluster_class"]))
        else:
            raise SettingsError(
                "the executor 'dask' needs scheduler_address or cluster_class",
                "write executor: {dask: {scheduler_address: tcp://HOST:8786}}, or "
                "--scheduler-address",
            )

    def _find_given(self) -> str:
        """The scheduler that options name, else Dask's own configuration."""
        given = self.options.get("scheduler_address")
        if not given and not self.options.get("cluster_class"):
            import dask

            given = dask.config.get("scheduler-address", None)
        return str(given or "").rstrip("/")  # which Dask itself takes for a part of the port

    def submit(self, load: SubmitRequest) -> dict[str, str]:
        """One task of Dask for each batch, that the scheduler keeps without us."""
        scheduler = self._find_given() or self._make_cluster(load.store)
        handles = {batch: Handle(scheduler, load.mark, batch) for batch in load.batches}
        client, resources = connect(scheduler), self.options.get("resources") or {}
        wanted = max(count_cores(load.slots, order.cpus) for order in load.orders)
        with explained(scheduler):
            threads = client.nthreads() if wanted > 1 else {}  # a thread is a core
        self._refuse_narrow(threads, wanted, load.slots)
        with explained(scheduler):
            _upload(client)
            futures = _map(client, load, handles, resources, threads)
            _confirm(client, list(map(build_key, handles.values())))
        self.answers, self.waits_since_s = _Answers(client, futures), None
        self.wanted = build_resources(resources, max(order.gpus for order in load.orders))
        return {batch: str(handle) for batch, handle in handles.items()}

    def _refuse_narrow(self, threads: Mapping[str, int], wanted: int, slots: int) -> None:
        """Raises BackendError where no worker has the cores for a batch,
        as of a cluster just made.
        """
        most = max(threads.values(), default=wanted)
        if wanted > most:
            hint = self.hint_cores(slots, wanted)
            raise BackendError(
                f"a task needs {wanted} cpus; a worker of dask has at most {most}", hint
            )

    def _make_cluster(self, store: Identity) -> str:
        spec, keywords = self.options["cluster_class"], self.options.get("cluster_kwargs") or {}
        return keep_cluster(store, spec, keywords, min(self.limit_s, _CLUSTER_S), self.tell)

    def poll(self, handles: Sequence[str]) -> dict[str, str]:
        """What each scheduler says; UNKNOWN where it does not answer."""
        return {
            handle: _STATES.get(state, UNKNOWN) for handle, state in _ask_states(handles).items()
        }

    def hasten(self, handles: Sequence[str]) -> None:
        """Have the runners of these look at the mark now."""
        for scheduler, (some, _) in _group(_ask_states(handles)).items():
            with explained(scheduler):
                _hasten(connect(scheduler), sorted({handle.mark for handle in some}))

    def cancel(self, handles: Sequence[str]) -> None:
        """Have the scheduler forget what waits, and runners look at the mark now."""
        for scheduler, (some, _) in _group(_ask_states(handles)).items():
            with explained(scheduler):
                _withdraw(connect(scheduler), list(map(build_key, some)))
                _hasten(connect(scheduler), sorted({handle.mark for handle in some}))

    def count_workers(self, slots: int, cpus: int = 1) -> int:
        """Threads of the workers that are there, or workers where one batch takes a whole one."""
        threads = self._list_threads()
        return len(threads) if slots else sum(count // max(1, cpus) for count in threads)

    def count_cores(self, slots: int) -> int:
        """The threads of the widest worker, or the cores of its machine where it has all of it."""
        scheduler = self._find_given()
        if not scheduler or slots <= 1:
            return max(self._list_threads(), default=0) if slots <= 1 else 0
        client = connect(scheduler)
        return max(_ask_workers(client, _COUNT_CORES).values(), default=0)

    def hint_cores(self, slots: int, cpus: int) -> str:
        """What to do for such a batch to have so many cores."""
        if slots > 1:
            return f"start workers on machines with {cpus} cores"
        if self._find_given():
            return f"start workers with --nthreads {cpus}"
        return f"write threads_per_worker: {cpus} in cluster_kwargs"

    def _list_threads(self) -> list[int]:
        """Of each worker that is there, or will be as the options say."""
        scheduler = self._find_given()
        if scheduler:
            client = connect(scheduler)
            with explained(scheduler):
                return list(client.nthreads().values())
        kwargs = self.options.get("cluster_kwargs") or {}
        workers, threads = kwargs.get("n_workers") or 0, kwargs.get("threads_per_worker") or 1
        is_told = isinstance(workers, int) and isinstance(threads, int)
        return [threads] * workers if is_told else []

    def explain(self, handles: Sequence[str]) -> str:
        """What batches wait for that are with the scheduler."""
        found = _group(_ask_states(handles))
        states = {state for _, group in found.values() for state in group}
        if not handles or not {_STATES.get(state) for state in states} <= {QUEUED}:
            self.waits_since_s = None
            return ""
        if not found:
            return "the Dask scheduler does not answer"
        scheduler = next(iter(found))
        with explained(scheduler):
            count = len(connect(scheduler).nthreads())
        wanted = self.wanted or build_resources(self.options.get("resources") or {}, 0)
        if not count:
            reason = "the Dask cluster has no workers yet"
        elif wanted:
            reason = f"no worker of the Dask cluster has free {_show(wanted)}"
        else:
            workers = "only worker" if count == 1 else f"{count} workers"
            reason = f"the {workers} of the Dask cluster cannot take it yet"
        self.limit_wait(reason, handles, "workers")
        return f"waiting for workers: {reason}"

    def read_ending(self) -> tuple[int | None, str]:
        """The worst answer of what this process submitted; None while some of it lives.

        A runner that cannot work at all ends the others that wait.
        """
        return self.answers.read() if self.answers else (0, "")


class _Answers:
    """What carriers answer, read by a thread as it comes: a worker may have one and hang.

    An answer that was read need not be kept by its worker, which would have to give it again.
    """

    def __init__(self, client: Client, futures: dict[str, Future]) -> None:
        self.client, self.missing = client, futures  # by batch
        self.worst = 0, ""
        self.silent_since_s: float | None = None
        threading.Thread(target=self._work, daemon=True).start()

    def read(self) -> tuple[int | None, str]:
        """The worst, None while there may be worse."""
        missing = list(self.missing.values())
        if is_hopeless(self.worst[0]) or not missing:
            return self.worst
        if any(future.status == "pending" for future in missing):
            self.silent_since_s = None
            return None, ""
        self.silent_since_s = self.silent_since_s or time.monotonic()
        is_given_up = time.monotonic() - self.silent_since_s > _ANSWER_S
        return self.worst if is_given_up else (None, "")

    def _work(self) -> None:
        from distributed import as_completed

        batches = {future.key: batch for batch, future in self.missing.items()}
        follow: Any = as_completed
        told = follow(
            list(self.missing.values()),
            loop=self.client.loop,
            with_results=True,
            raise_errors=False,
        )
        for future, answer in told:
            self._take(_read_answer(future.status, answer))
            del self.missing[batches[future.key]], future

    def _take(self, answer: tuple[int, str]) -> None:
        if is_hopeless(answer[0]) and not is_hopeless(self.worst[0]):
            with contextlib.suppress(Exception):  # whatever it is, nobody is to hear of it
                _withdraw(self.client, [future.key for future in self.missing.values()])
        self.worst = max(self.worst, answer, key=rank_answer)


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


def _restrict(threads: Mapping[str, int], cores: int) -> dict[str, Any]:
    """Where a batch is to go: to workers that have the cores, as long as there are any."""
    wide = [address for address, count in threads.items() if count >= cores]
    is_all = len(wide) == len(threads)
    return {} if is_all or not wide else {"workers": wide, "allow_other_workers": True}


def _map(
    client: Client,
    load: SubmitRequest,
    handles: Mapping[str, Handle],
    resources: Mapping[str, float],
    threads: Mapping[str, int],
) -> dict[str, Future]:
    """Submit batches in their order, each after those that it waits for.

    threads: of each worker.
    """
    from distributed import client as dask_client

    keep: Any = dask_client.fire_and_forget
    earlier = _hold_earlier(client, load)
    keys = {batch: build_key(handle) for batch, handle in handles.items()}
    futures: dict[str, Future] = {}
    needs = itertools.groupby(load.orders, key=lambda order: (order.gpus, order.cpus))
    for (gpus, cpus), group in needs:
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
            **_restrict(threads, count_cores(load.slots, cpus)),
        )
        keep(found)
        futures.update(zip((order.batch for order in orders), found, strict=True))
    return futures


def _hold_earlier(client: Client, load: SubmitRequest) -> dict[str, Future]:
    """Batches handed in before that have not ended. One that ends after this look is kept.

    To ask for one that the scheduler has forgotten would make it wait for that for ever.
    """
    keys = {batch: build_key(parse_handle(text)) for batch, text in load.earlier.items()}
    states = client.sync(client.scheduler.get_task_status, keys=list(keys.values()))
    open_ones = [batch for batch, key in keys.items() if _STATES.get(states.get(key)) != ENDED]
    held = {batch: _future(keys[batch], client) for batch in open_ones}
    states = client.sync(client.scheduler.get_task_status, keys=list(keys.values()))
    return {batch: f for batch, f in held.items() if states.get(keys[batch]) not in _FORGOTTEN}


def _withdraw(client: Client, keys: Sequence[Key]) -> None:
    """Have the scheduler forget those of these that have not begun."""
    states = client.sync(client.scheduler.get_task_status, keys=list(keys))
    queued = [key for key in keys if _STATES.get(states.get(key)) == QUEUED]
    client.cancel([_future(key, client) for key in queued], force=True)


def _confirm(client: Client, keys: Sequence[Key]) -> None:
    """Wait until the scheduler has taken these: what is sent to it is not answered."""
    limit_s = time.monotonic() + _ANSWER_S
    while None in client.sync(client.scheduler.get_task_status, keys=keys).values():
        if time.monotonic() > limit_s:
            raise TimeoutError("it did not take the batches")
        time.sleep(0.01)


def _hasten(client: Client, marks: Sequence[str]) -> None:
    """Runners look at the mark by themselves, too."""
    _ask_workers(client, f"__import__({build_carrier().name!r}).hasten({marks!r})")


def _ask_workers(client: Client, call: str) -> dict[str, Any]:
    """What each worker answers, but none that hangs is waited for."""
    answers: dict[str, Any] = {}

    def ask() -> None:
        with contextlib.suppress(Exception):
            answers.update(client.run(eval, call, on_error="ignore"))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_HASTEN_S)
    return dict(answers)


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
            client = connect(scheduler)
            keys = [build_key(parse_handle(text)) for text in texts]
            with explained(scheduler):
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


def _read_answer(status: str, answer: Any) -> tuple[int, str]:
    """(exit code, complaint) that the carrier gave, or Dask in its place."""
    if status == "finished" and isinstance(answer, str):
        return read_answer(answer)
    if status == "error":
        return RUNNER_CRASHED, f"Dask gave it up: {tell_error(answer[1])}"
    return 0, ""  # forgotten, as its end was before we asked, or cancelled


def _show(resources: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {amount:g}" for name, amount in resources.items())
