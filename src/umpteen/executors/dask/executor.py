"""Batches on a Dask cluster: one of Dask's tasks is one batch, run by a child of a worker.

Only text is sent: an expression and an order in JSON, and the carrier as a file for every worker,
also for those that join later. The scheduler forgets a batch when it has ended; what came of
it is in the store. What is asked and answered is worked out in `requests`.
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

from umpteen.errors import BackendError, SettingsError
from umpteen.executors.base import (
    NO_NEEDS,
    BatchState,
    OnProgress,
    SubmitRequest,
    TaskNeeds,
    ignore_progress,
)
from umpteen.executors.dask.answers import Answers, Future, find_future, withdraw
from umpteen.executors.dask.cluster import (
    ClusterSpec,
    has_held_cluster_ended,
    hold_cluster,
    load_class,
)
from umpteen.executors.dask.connection import (
    CLIENTS,
    Client,
    check_address,
    explained,
    import_distributed,
)
from umpteen.executors.dask.requests import (
    FORGOTTEN,
    Key,
    build_call,
    build_key,
    build_resources,
    build_restriction,
    build_wake_call,
    count_cores,
    count_places,
    read_state,
    tell_lack_of_workers,
)
from umpteen.executors.engine import EngineExecutor, Handle, group_by_place, parse_handle
from umpteen.executors.zipapp import build_carrier
from umpteen.store.identity import Identity

__all__ = ["DaskExecutor"]

_ANSWER_S, _WAKE_S, _CLUSTER_S = 8.0, 3.0, 600.0
_COUNT_CORES = "len(__import__('os').sched_getaffinity(0))"


class DaskExecutor(EngineExecutor):
    """Hands batches to the scheduler at `scheduler_address`, or to a cluster it has made.

    `cluster_class` and `cluster_kwargs` say which; a process of its own holds it. `resources` is
    what workers must have declared; `worker_timeout` how long workers are waited for.
    """

    name = "dask"
    option_names = ("scheduler_address", "cluster_class", "cluster_kwargs", "resources")

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.check_mappings("cluster_kwargs", "resources")
        self.check_amounts(self.options.get("resources") or {})
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

    def submit(
        self, request: SubmitRequest, on_progress: OnProgress = ignore_progress
    ) -> dict[str, str]:
        """One task of Dask for each batch, that the scheduler keeps without us."""
        scheduler = self._find_given() or self._make_cluster(request.store, on_progress)
        handles = {batch: Handle(scheduler, request.mark, batch) for batch in request.batches}
        client, resources = CLIENTS.connect(scheduler), self.options.get("resources") or {}
        wanted = max(count_cores(request.slots, order.cpus) for order in request.orders)
        with explained(scheduler):
            threads = client.nthreads() if wanted > 1 else {}  # a thread is a core
        self._refuse_narrow(threads, wanted, request.slots)
        with explained(scheduler):
            _upload(client)
            futures = _map(client, request, handles, resources, threads)
            _confirm(client, list(map(build_key, handles.values())))
        self.own_runs, self.waits_since_s = Answers(client, futures), None
        self.wanted = build_resources(resources, max(order.gpus for order in request.orders))
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

    def _make_cluster(self, store: Identity, on_progress: OnProgress) -> str:
        keywords = self.options.get("cluster_kwargs") or {}
        spec = ClusterSpec(self.options["cluster_class"], keywords)
        return hold_cluster(store, spec, min(self.limit_s, _CLUSTER_S), on_progress)

    def poll(self, handles: Sequence[str]) -> dict[str, BatchState]:
        """What each scheduler says; UNKNOWN where it does not answer."""
        return _ask_states(handles)

    def wake(self, handles: Sequence[str]) -> None:
        """Have the runners of these look at the mark now."""
        for scheduler, some in _group_answered(_ask_states(handles)).items():
            with explained(scheduler):
                _wake(CLIENTS.connect(scheduler), some)

    def cancel(self, handles: Sequence[str]) -> None:
        """Have the scheduler forget what waits, and runners look at the mark now."""
        for scheduler, some in _group_answered(_ask_states(handles)).items():
            with explained(scheduler):
                client = CLIENTS.connect(scheduler)
                withdraw(client, list(map(build_key, some)))
                _wake(client, some)

    def count_workers(self, slots: int, needs: TaskNeeds = NO_NEEDS) -> int:
        """Threads of the workers that are there, or workers where one batch takes a whole one."""
        return count_places(self._list_threads(), slots, needs.cpus)

    def count_cores(self, slots: int) -> int:
        """The threads of the widest worker, or the cores of its machine where it has all of it."""
        scheduler = self._find_given()
        if not scheduler or slots <= 1:
            return max(self._list_threads(), default=0) if slots <= 1 else 0
        client = CLIENTS.connect(scheduler)
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
            client = CLIENTS.connect(scheduler)
            with explained(scheduler):
                return list(client.nthreads().values())
        kwargs = self.options.get("cluster_kwargs") or {}
        workers, threads = kwargs.get("n_workers") or 0, kwargs.get("threads_per_worker") or 1
        is_told = isinstance(workers, int) and isinstance(threads, int)
        return [threads] * workers if is_told else []

    def why_waiting(self, handles: Sequence[str]) -> str:
        """What batches wait for that are with the scheduler."""
        states = _ask_states(handles)
        answered = _group_answered(states)
        if not handles or not set(states.values()) <= {BatchState.QUEUED, BatchState.UNKNOWN}:
            self.waits_since_s = None
            return ""
        if not answered:
            return "the Dask scheduler does not answer"
        scheduler = next(iter(answered))
        with explained(scheduler):
            count = len(CLIENTS.connect(scheduler).nthreads())
        wanted = self.wanted or build_resources(self.options.get("resources") or {}, 0)
        reason = tell_lack_of_workers(count, wanted)
        self.limit_wait(reason, handles, "workers")
        return f"waiting for workers: {reason}"


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
    client: Client,
    request: SubmitRequest,
    handles: Mapping[str, Handle],
    resources: Mapping[str, float],
    threads: Mapping[str, int],
) -> dict[str, Future]:
    """Submit batches in their order, each after those that it waits for.

    threads: of each worker.
    """
    from distributed import client as dask_client

    keep: Any = dask_client.fire_and_forget
    earlier = _hold_earlier(client, request)
    keys = {batch: build_key(handle) for batch, handle in handles.items()}
    futures: dict[str, Future] = {}
    needs = itertools.groupby(request.orders, key=lambda order: (order.gpus, order.cpus))
    for (gpus, cpus), group in needs:
        orders = list(group)
        waited = [
            [
                earlier.get(b) or find_future(keys[b], client)
                for b in o.after
                if b in earlier or b in keys
            ]
            for o in orders
        ]
        found = client.map(
            eval,
            [build_call(request, order) for order in orders],
            [{"after": before} for before in waited],
            key=[keys[order.batch] for order in orders],
            resources=build_resources(resources, gpus) or None,
            pure=False,
            **build_restriction(threads, count_cores(request.slots, cpus)),
        )
        keep(found)
        futures.update(zip((order.batch for order in orders), found, strict=True))
    return futures


def _hold_earlier(client: Client, request: SubmitRequest) -> dict[str, Future]:
    """Batches handed in before that have not ended. One that ends after this look is kept.

    To ask for one that the scheduler has forgotten would make it wait for that for ever.
    """
    keys = {batch: build_key(parse_handle(text)) for batch, text in request.earlier.items()}
    states = client.sync(client.scheduler.get_task_status, keys=list(keys.values()))
    open_ones = [
        batch for batch, key in keys.items() if read_state(states.get(key)) != BatchState.ENDED
    ]
    held = {batch: find_future(keys[batch], client) for batch in open_ones}
    states = client.sync(client.scheduler.get_task_status, keys=list(keys.values()))
    return {batch: f for batch, f in held.items() if states.get(keys[batch]) not in FORGOTTEN}


def _confirm(client: Client, keys: Sequence[Key]) -> None:
    """Wait until the scheduler has taken these: what is sent to it is not answered."""
    limit_s = time.monotonic() + _ANSWER_S
    while None in client.sync(client.scheduler.get_task_status, keys=keys).values():
        if time.monotonic() > limit_s:
            raise TimeoutError("it did not take the batches")
        time.sleep(0.01)


def _wake(client: Client, handles: Sequence[Handle]) -> None:
    """A worker need not get it: runners look for the mark by themselves, too."""
    _ask_workers(client, build_wake_call(sorted({handle.mark for handle in handles})))


def _ask_workers(client: Client, call: str) -> dict[str, Any]:
    """What each worker answers, but none that hangs is waited for."""
    answers: dict[str, Any] = {}

    def ask() -> None:
        with contextlib.suppress(Exception):
            answers.update(client.run(eval, call, on_error="ignore"))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_WAKE_S)
    return dict(answers)


def _ask_states(handles: Sequence[str]) -> dict[str, BatchState]:
    """How far each batch is: by one call to each scheduler; UNKNOWN where that does not answer."""
    found: dict[str, BatchState] = {}
    for scheduler, some in group_by_place(map(parse_handle, handles)).items():
        keys = list(map(build_key, some))
        try:
            client = CLIENTS.connect(scheduler)
            with explained(scheduler):
                states = client.sync(client.scheduler.get_task_status, keys=keys)
        except (BackendError, SettingsError):
            is_over = has_held_cluster_ended(scheduler)
            silent = BatchState.ENDED if is_over else BatchState.UNKNOWN
            found.update((str(handle), silent) for handle in some)
        else:
            read = (read_state(states.get(key)) for key in keys)
            found.update(zip(map(str, some), read, strict=True))
    return found


def _group_answered(states: Mapping[str, BatchState]) -> dict[str, list[Handle]]:
    """By scheduler, the batches that one has answered for."""
    known = (text for text, state in states.items() if state != BatchState.UNKNOWN)
    return group_by_place(map(parse_handle, known))
