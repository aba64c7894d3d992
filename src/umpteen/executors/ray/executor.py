"""Batches on a Ray cluster: one of Ray's tasks is one batch, run by a child of a worker.

Ray's tasks end with the process that submitted them, so an actor on the cluster owns them: one
for each submission, named by its mark, that ends when its batches have. See `owner` for it,
`driver` for the process of our own that speaks to it, and `requests` for what is said. Only text
is sent: orders in JSON, and the carrier.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from umpteen.errors import BackendError, SettingsError
from umpteen.executors.base import (
    NO_NEEDS,
    BatchRequest,
    BatchState,
    OnProgress,
    SubmitRequest,
    TaskNeeds,
    ignore_progress,
)
from umpteen.executors.engine import EngineExecutor, Handle, group_by_place, parse_handle
from umpteen.executors.own_runs import ExitStatus, OwnRuns
from umpteen.executors.ray.connection import ANSWER_S, AUTO, DRIVERS, Driver
from umpteen.executors.ray.requests import (
    OwnerAnswer,
    Silence,
    build_environment,
    build_needs,
    build_owner_request,
    count_room,
    find_wanted,
    find_worst,
    read_answer,
    read_state,
    tell_room,
)

__all__ = ["RayExecutor"]

_OWNER_S, _ENVIRONMENT_S = 60.0, 600.0  # for a worker to start, and where it is to be furnished
_START_S = 5.0  # within which a worker starts, where there is room
_LOOK_S = 0.3  # how often owners are asked how their batches ended
_OWN_RESOURCES = ("CPU", "GPU", "memory", "object_store_memory")


class RayExecutor(EngineExecutor):
    """Hands batches to the Ray cluster at `address`, else at RAY_ADDRESS, else that of this
    machine.

    `num_cpus` and `resources` are what a batch takes beside what its tasks say; `runtime_env` is
    Ray's; `worker_timeout` how long machines that have room are waited for.
    """

    name = "ray"
    option_names = ("address", "scheduler_address", "runtime_env", "num_cpus", "resources")

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.check_mappings("runtime_env", "resources")
        resources = dict(self.options.get("resources") or {})
        self.check_amounts({"num_cpus": self.options.get("num_cpus", 1), **resources})
        self.workers = 0  # as they were counted last

    def check(self) -> None:
        """Raises SettingsError where Ray is missing, or options are not what they should be."""
        if importlib.util.find_spec("ray") is None:
            raise SettingsError(
                "the executor 'ray' needs a package that is not here: ray",
                "pip install 'umpteen[ray]'",
            )
        for name in self.options.get("resources") or {}:
            if name in _OWN_RESOURCES or name.startswith("bundle"):
                raise SettingsError(
                    f"{name!r} is none of the custom resources of 'ray'",
                    "write num_cpus: 4 beside it, or cpus, gpus and memory of the tasks",
                )
        if "working_dir" in (self.options.get("runtime_env") or {}):
            raise SettingsError(
                "commands do not run in the working_dir of a runtime_env of 'ray'",
                "--sync FOLDER brings a folder along, and cwd says where tasks run",
            )
        if self._find_address() == "local":
            raise SettingsError(
                "umpteen makes no Ray cluster itself",
                "start one with `ray start --head`, and leave the address out",
            )

    def _find_address(self) -> str:
        given = self.options.get("scheduler_address") or self.options.get("address")
        return str(given or os.environ.get("RAY_ADDRESS") or AUTO)

    def _connect(self) -> Driver:
        return DRIVERS.connect(self._find_address(), build_environment(self.options))

    def submit(
        self, request: SubmitRequest, on_progress: OnProgress = ignore_progress
    ) -> dict[str, str]:
        """An actor for all of them, that stays with the cluster without us."""
        del on_progress  # nothing is waited for long
        limit_s = _ENVIRONMENT_S if self.options.get("runtime_env") else _OWNER_S
        driver = self._connect()
        text = json.dumps(build_owner_request(request, self.options, self.workers))
        driver.ask(
            "submit", mark=request.mark, text=text, limit_s=limit_s, within_s=limit_s + ANSWER_S
        )
        handles = [Handle(driver.cluster, request.mark, batch) for batch in request.batches]
        self.own_runs, self.waits_since_s = _Answers(handles), None
        return {handle.batch: str(handle) for handle in handles}

    def poll(self, handles: Sequence[str]) -> dict[str, BatchState]:
        """What the actors say; UNKNOWN where their cluster does not answer."""
        parsed = {text: parse_handle(text) for text in handles}
        found = _ask_owners(parsed.values())
        return {text: read_state(found[h.place, h.mark], h.batch) for text, h in parsed.items()}

    def wake(self, handles: Sequence[str]) -> None:
        """Have the runners of these look at the mark now."""
        _tell_owners("wake", handles)

    def cancel(self, handles: Sequence[str]) -> None:
        """Let no more of these begin, and have runners look at the mark now."""
        _tell_owners("cancel", handles)

    def count_workers(self, slots: int, needs: TaskNeeds = NO_NEEDS) -> int:
        """How often what a batch takes is there, machine by machine."""
        nodes = self._connect().ask("list_nodes")
        order = BatchRequest("", cpus=max(1, needs.cpus))
        self.workers = count_room(nodes, build_needs(self.options, slots, order))
        return self.workers

    def count_cores(self, slots: int) -> int:
        """CPUs of the machine that has the most; not known where others are to be waited for."""
        del slots
        if "worker_timeout" in self.options:
            return 0
        nodes = self._connect().ask("list_nodes")
        return int(max((node.get("CPU", 0) for node in nodes), default=0))

    def hint_cores(self, slots: int, cpus: int) -> str:
        """What to do for such a batch to have so many cores."""
        del slots
        return f"start machines with {cpus} CPUs (worker_timeout: 10m waits for them so long)"

    def why_waiting(self, handles: Sequence[str]) -> str:
        """What batches wait for that are with the cluster."""
        parsed = list(map(parse_handle, handles))
        found = _ask_owners(parsed)
        told = {read_state(found[h.place, h.mark], h.batch) for h in parsed}
        states = told - {BatchState.ENDED}
        if not states <= {BatchState.QUEUED}:
            self.waits_since_s = None
            return "the Ray cluster does not answer" if states == {BatchState.UNKNOWN} else ""
        wants = find_wanted(found.values())
        if wants is None:
            return ""
        try:
            nodes = DRIVERS.connect(parsed[0].place).ask("list_nodes")
        except BackendError:
            return ""
        reason, is_lasting = tell_room(nodes, wants), not count_room(nodes, wants)
        waited_s = self.limit_wait(reason, handles, "machines")
        return f"waiting for room: {reason}" if is_lasting or waited_s > _START_S else ""


class _Answers(OwnRuns):
    """How the runners of one submission ended, as its actor says.

    An actor that is gone, or does not answer, has nothing to say: the store tells what is left.
    """

    def __init__(self, handles: Sequence[Handle]) -> None:
        self.handles = handles
        self.worst: ExitStatus | None = None  # as it was answered last
        self.asked_s = 0.0

    def exit_status(self) -> ExitStatus | None:
        """The worst; None while some of them live."""
        if not self.handles or time.monotonic() - self.asked_s < _LOOK_S:
            return self.worst
        self.asked_s = time.monotonic()
        answers = _ask_owners(self.handles).values()
        self.worst = find_worst(answers)
        if self.worst is not None and Silence.SILENT not in answers:  # that one may answer again
            self.handles = []
        return self.worst


# One for each submission, by the address of its cluster and its mark.
Key = tuple[str, str]


def _ask_owners(handles: Iterable[Handle]) -> dict[Key, OwnerAnswer]:
    """What the owners of these say."""
    found: dict[Key, OwnerAnswer] = {}
    for cluster, some in group_by_place(handles).items():
        marks = sorted({handle.mark for handle in some})
        answers = dict.fromkeys(marks, "silent")
        with contextlib.suppress(BackendError):
            driver = DRIVERS.connect(cluster)
            answers = driver.ask("look", marks=marks)
            if "silent" in answers.values():
                driver.kill()  # it may know a cluster that is gone: Ray would wait for a minute
        found.update(((cluster, mark), read_answer(answers[mark])) for mark in marks)
    return found


def _tell_owners(call: str, handles: Sequence[str]) -> None:
    """Have each cluster that answers tell the owners of these batches."""
    for cluster, some in group_by_place(map(parse_handle, handles)).items():
        batches: dict[str, list[str]] = {}
        for handle in some:
            batches.setdefault(handle.mark, []).append(handle.batch)
        with contextlib.suppress(BackendError):
            DRIVERS.connect(cluster).ask("tell_owners", order=call, batches=batches)
