"""How a job stands: history and what executors say in, one `JobStatus` out.

The table and `--json` show this and work out nothing themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec

from umpteen.executors.base import LOCAL, QUEUED, RUNNING
from umpteen.history.files import Submission
from umpteen.history.history import History
from umpteen.model.states import STATES
from umpteen.query.estimate import estimate_range
from umpteen.runner.lease import find_death, find_trouble
from umpteen.store.layout import REMOVING

__all__ = [
    "DAMAGED",
    "UNREACHABLE",
    "UNREAD",
    "UNREADABLE",
    "JobStatus",
    "RunningTask",
    "build_status",
    "build_unread",
    "estimate_left_s",
    "list_living",
]

UNREACHABLE, UNREADABLE, DAMAGED = UNREAD = "unreachable", "unreadable", "damaged"

_RATE_WINDOW_S = 30.0
_LEAST_BUSY = 0.01


class RunningTask(msgspec.Struct, frozen=True):
    """A task that runs now; `start_s` in seconds since 1970."""

    index: int
    slot: int
    start_s: float
    batch: str


class JobStatus(msgspec.Struct, frozen=True):
    """One look at a job.

    state: `running`, `succeeded`, `failed` (some tasks did not succeed), `empty` (it has none),
    `unfinished` (nobody is at it), `removing` (a removal of it was cut short, or goes on) or
    `unknown` (only another machine can tell, which `collect` finds out within 60 s, or an executor
    that was not asked or is silent). In a list of jobs also `unreachable` (no answer), `unreadable`
    or `damaged`; `trouble` says why. counts: by state, `running` among them. seconds: of work, all
    tasks together. slots: tasks at once, 0 where nobody knows. left_s: a range for what is left.
    rate: tasks that end in a second. started_s and last_end_s: since 1970.
    """

    name: str
    address: str
    executor: str
    state: str
    total: int
    counts: dict[str, int]
    running: list[RunningTask]
    slots: int
    seconds: float
    started_s: float
    last_end_s: float
    left_s: tuple[float, float] | None = None
    rate: float = 0.0
    trouble: str = ""

    @property
    def finished(self) -> int:
        """How many tasks came to an end."""
        return self.total - self.counts["waiting"] - self.counts["running"]

    @property
    def not_succeeded(self) -> int:
        """How many tasks came to an end without success."""
        return self.finished - self.counts["succeeded"]


def list_living(history: History, polled: Mapping[str, str]) -> set[str]:
    """The batches that somebody is at, by what their executors answered for their handles."""
    return {
        batch.batch
        for batch in history.list_open()
        if any(polled.get(handle) in (QUEUED, RUNNING) for handle in (batch.handle, batch.lease))
    }


def build_status(history: History, living: set[str]) -> JobStatus:
    """The status of a job of which `living` batches are still run by somebody."""
    counts = history.counts()
    told = [(name, row) for name in living for row in history.list_running(history.batches[name])]
    running = [
        RunningTask(index=row.task, slot=row.slot, start_s=row.start_s, batch=name)
        for name, row in told
        if history.states[row.task] == 0
    ]
    # Of short tasks many have ended since the runner told, and as many have begun.
    counts["running"] = min(len(told), counts["waiting"])
    counts["waiting"] -= counts["running"]
    total = sum(counts.values())
    newest = next(reversed(history.hand_ins), None)
    return JobStatus(
        name=history.job.get("name", ""),
        address=history.store.address,
        executor=newest.executor if newest else "",
        state=_judge(counts, total, is_living=bool(living), is_going=REMOVING in history.job),
        total=total,
        counts=counts,
        running=sorted(running, key=lambda task: task.start_s),
        slots=next(filter(None, map(_count_slots, reversed(history.hand_ins))), 0) if newest else 1,
        seconds=history.seconds,
        started_s=history.job.get("created", 0.0),
        last_end_s=history.last_end_s,
        trouble=_find_trouble(history, living),
    )


def build_unread(name: str, address: str, state: str, trouble: str) -> JobStatus:
    """The status of a job of which nothing can be read; state: one of UNREAD."""
    return JobStatus(
        name=name,
        address=address,
        executor="",
        state=state,
        total=0,
        counts=dict.fromkeys(STATES, 0),
        running=[],
        slots=0,
        seconds=0.0,
        started_s=0.0,
        last_end_s=0.0,
        trouble=trouble,
    )


def _count_slots(newest: Submission) -> int:
    slots: int = newest.settings.get("slots", 1)
    return slots if newest.executor in ("", LOCAL) else (slots or 1) * newest.workers


def _find_trouble(history: History, living: set[str]) -> str:
    """What keeps the job from going on: as its runners here say, else as the store says.

    Those that were killed are among them, as a part of one may be left that was stopped.
    """
    tokens = {history.batches[name].token for name in living} - {""}
    tokens.update(batch.token for batch in history.list_open() if history.is_begun_here(batch))
    told = [find_trouble(token) for token in sorted(tokens)]
    if not living:
        runners = {batch.runner for batch in history.list_open() if history.unfinished(batch)}
        told += [find_death(token) for token in sorted(runners - {""})]
    return next((text for text in [*told, *history.troubles.values()] if text), "")


def _judge(counts: Mapping[str, int], total: int, *, is_living: bool, is_going: bool) -> str:
    if is_living:
        return "running"
    if is_going:
        return "removing"
    if not total:
        return "empty"
    if counts["waiting"] + counts["running"]:
        return "unfinished"
    return "succeeded" if counts["succeeded"] == total else "failed"


def estimate_left_s(
    status: JobStatus, samples: Sequence[float], rate: float, now_s: float
) -> tuple[float, float] | None:
    """A range for the seconds until all tasks have ended, meant to hold in 8 of 10 cases.

    samples: durations of tasks that ended lately, seconds, the newest last. rate: ends a second,
    over the last 30 s. now_s: since 1970. None where nothing is known: no task has ended yet, or
    none runs and none ends.
    """
    running = [max(0.0, now_s - task.start_s) for task in status.running]
    waiting = status.counts["waiting"] + status.counts["running"] - len(running)
    if not samples or waiting + len(running) <= 0 or not (running or rate > 0):
        return None
    busy = _measure_busy(running, samples, rate, status.slots) if waiting > 0 else 1.0
    return estimate_range(
        samples, running, max(0, waiting), status.slots, of=status.finished, busy=busy
    )


def _measure_busy(
    running: Sequence[float], samples: Sequence[float], rate: float, slots: int
) -> float:
    """The share of the last 30 s, or of the last samples, that slots have worked.

    It is short of 1 where tasks are so short that starting them takes longer, and where the
    runner holds some back.
    """
    count = min(len(samples), int(rate * _RATE_WINDOW_S))
    if count < 1:
        return 1.0
    window = count / rate
    latest = itertools.islice(samples, len(samples) - count, None)
    work = sum(latest) + sum(min(elapsed, window) for elapsed in running)
    return min(1.0, max(_LEAST_BUSY, work / (window * max(1, slots))))
