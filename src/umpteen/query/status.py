"""How a job stands: history and what executors say in, one `JobStatus` out.

The table and `--json` show this and work out nothing themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from umpteen.errors import EXIT_SOME_FAILED, EXIT_SUCCEEDED
from umpteen.executors.base import BatchState
from umpteen.executors.registry import runs_here
from umpteen.history.files import Submission
from umpteen.history.history import History
from umpteen.model.states import STATES
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
    "choose_exit_code",
    "list_living",
]

UNREACHABLE, UNREADABLE, DAMAGED = UNREAD = "unreachable", "unreadable", "damaged"


class RunningTask(msgspec.Struct, frozen=True):
    """A task that runs now."""

    index: int
    slot: int
    # Seconds since 1970, by its runner's clock.
    start_s: float
    batch: str


class JobStatus(msgspec.Struct, frozen=True):
    """One look at a job."""

    name: str
    # Of its results.
    address: str
    executor: str
    # `running`, `succeeded`, `failed` (some tasks did not succeed), `empty` (it has no tasks),
    # `unfinished` (nobody runs the rest), `removing` (it is being removed, or that was cut short)
    # or `unknown` (only another machine can tell, which `collect` finds out within 60 s, or an
    # executor that was not asked or does not answer). In a list of jobs also one of UNREAD.
    state: str
    # How many tasks there are.
    total: int
    # Of tasks, by state; `running` is one.
    counts: dict[str, int]
    running: list[RunningTask]
    # Tasks at once; 0 where that is not known.
    slots: int
    # Of work, all tasks together.
    seconds: float
    # When the job was made and when a task ended last, in seconds since 1970.
    started_s: float
    last_end_s: float
    # The least and the most that is left, for who watches.
    left_s: tuple[float, float] | None = None
    # Tasks that end in a second, for who watches.
    rate: float = 0.0
    # What keeps it from going on or from being read, in words.
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
    """The batches that are run by somebody, by what their executors answered for their handles."""
    return {
        batch.batch
        for batch in history.list_open()
        if any(
            polled.get(handle) in (BatchState.QUEUED, BatchState.RUNNING)
            for handle in (batch.handle, batch.lease)
        )
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
    return slots if runs_here(newest.executor) else (slots or 1) * newest.workers


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


def choose_exit_code(status: JobStatus) -> int:
    """Of a verb that shows it: 0 where every task succeeded, else 1."""
    return EXIT_SUCCEEDED if status.state == "succeeded" else EXIT_SOME_FAILED
