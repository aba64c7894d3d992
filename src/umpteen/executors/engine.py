"""What executors share whose batches an engine carries to its workers: handles, orders, waiting.

One of the engine's own tasks is a batch; what is sent is text for the carrier
(`runner/engine_worker.py`), and it answers with text.
"""

from __future__ import annotations

import abc
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from umpteen.errors import (
    EXIT_UNREACHABLE,
    EXIT_WRONG_USE,
    RUNNER_CRASHED,
    BackendError,
    SettingsError,
    nearest_hint,
)
from umpteen.executors.base import (
    Abilities,
    Executor,
    Lack,
    SubmitRequest,
    TaskNeeds,
)
from umpteen.executors.own_runs import ExitStatus
from umpteen.units import parse_duration_s

__all__ = [
    "HOPELESS_CODES",
    "EngineExecutor",
    "Handle",
    "build_order",
    "group_by_place",
    "is_hopeless",
    "parse_handle",
    "rank_status",
    "read_answer",
]


_FORGET_S = 30.0
# Of a runner that cannot work at all: so could no other of the same submission.
HOPELESS_CODES = (EXIT_WRONG_USE, EXIT_UNREACHABLE)


class Handle(NamedTuple):
    """Where a batch is."""

    place: str  # address of the scheduler or cluster
    mark: str  # of the submission
    batch: str  # its number in the store

    def __str__(self) -> str:
        return f"{self.place} {self.mark}/{self.batch}"


def parse_handle(text: str) -> Handle:
    """What `str` made of a handle."""
    place, _, rest = text.rpartition(" ")
    mark, _, batch = rest.partition("/")
    return Handle(place, mark, batch)


def group_by_place(handles: Iterable[Handle]) -> dict[str, list[Handle]]:
    """Handles by the scheduler or cluster that is to be asked after them."""
    groups: dict[str, list[Handle]] = {}
    for handle in handles:
        groups.setdefault(handle.place, []).append(handle)
    return groups


def build_order(
    request: SubmitRequest, batch: str, *, cpus: int, is_beside_others: bool = False
) -> str:
    """What the carrier is told of a batch; `runner/engine_worker.py` reads it."""
    order = {
        "address": request.address,
        "store": request.store.id,
        "batch": batch,
        "mark": request.mark,
        "slots": max(1, request.slots),
        "cpus": cpus,  # what its tasks may use together; 0: all of the machine
        # Whether it takes them of its worker's cores itself, as the engine does not count them.
        "is_beside_others": is_beside_others,
        "environment": dict(request.environment),
    }
    return json.dumps(order)


def read_answer(text: str) -> ExitStatus:
    """Of a runner, as the carrier answers; a signal counts as a crash."""
    answer = json.loads(text)
    code = answer["code"] if answer["code"] >= 0 else RUNNER_CRASHED
    return ExitStatus(code, answer["said"])


def is_hopeless(code: int) -> bool:
    """Whether a runner that ended with it cannot work at all, and so could no other."""
    return code in HOPELESS_CODES


def rank_status(status: ExitStatus) -> tuple[bool, ExitStatus]:
    """What is higher for the worse of two."""
    return is_hopeless(status.code), status


class EngineExecutor(Executor):
    """Runs batches on an engine's workers; the rest is each engine's own.

    option_names: those that it takes; `worker_timeout`, how long what batches wait for is
    waited for, is one of all.
    """

    abilities = Abilities(
        dependencies=True, capabilities=False, reconnect=True, is_engine=True,
        batches_most=2000, start_up_s=0.3,
    )  # fmt: skip
    option_names: Sequence[str]

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        known = (*self.option_names, "worker_timeout")
        for name in options:
            if name not in known:
                hint = nearest_hint(name, known)
                raise SettingsError(f"the executor {self.name!r} has no option {name!r}", hint)
        limit = options.get("worker_timeout")
        self.limit_s = parse_duration_s(limit) if limit is not None else float("inf")
        self.waits_since_s: float | None = None
        self.waited_s = 0.0  # when that was asked last

    def check_mappings(self, *names: str) -> None:
        """Raises SettingsError where one of these options is anything else."""
        for name in names:
            if not isinstance(self.options.get(name) or {}, Mapping):
                raise SettingsError(
                    f"the option {name!r} of {self.name!r} must be names with values"
                )

    def check_amounts(self, amounts: Mapping[str, Any]) -> None:
        """Raises SettingsError where one of these is no number, or below zero."""
        for name, amount in amounts.items():
            is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
            if not is_number or not 0 <= amount < math.inf:
                raise SettingsError(
                    f"{name!r} of the executor {self.name!r} must be a number: {amount!r}"
                )

    def lacks(self, tasks: Sequence[TaskNeeds], slots: int) -> Lack | None:
        """Cores that no worker has; the engine is asked only where a task needs several."""
        cpus = [needs.cpus or 1 for needs in tasks]
        wanted = max(cpus, default=1)
        most = self.count_cores(slots) if wanted > 1 else 0
        if not 0 < most < wanted:
            return None
        limit = f"a worker of {self.name} has at most {most}"
        hint = f"{self.hint_cores(slots, wanted)}, or write --cpus {most} for all tasks"
        return Lack(cpus.index(wanted), wanted, "cpus", limit, hint)

    @abc.abstractmethod
    def count_cores(self, slots: int) -> int:
        """The most cores that a task may have in a batch of so many slots; 0: unknown.

        Raises BackendError where there is nobody to ask.
        """

    @abc.abstractmethod
    def hint_cores(self, slots: int, cpus: int) -> str:
        """What to do for a batch of so many slots to have so many cores."""

    def limit_wait(self, reason: str, handles: Sequence[str], what: str) -> float:
        """For how many seconds these have waited. what: to be started where that is too long.

        Then they are cancelled, and BackendError says the reason.
        """
        now = time.monotonic()
        if now - self.waited_s > _FORGET_S:  # something ran since, and nobody had to ask
            self.waits_since_s = None
        self.waits_since_s, self.waited_s = self.waits_since_s or now, now
        waited_s = now - self.waits_since_s
        if waited_s < self.limit_s:
            return waited_s
        self.cancel(handles)
        raise BackendError(
            f"{reason} after {self.limit_s:g} s",
            f"start {what}, and run it again; worker_timeout sets how long they are waited for",
        )
