"""Watches a job until nobody runs it any more; what a batch left is submitted again."""

from __future__ import annotations

import collections
import time
from collections.abc import Generator, Iterator, Mapping

import msgspec

from umpteen.executors.registry import find_short_name
from umpteen.planning.known import read_known
from umpteen.planning.plan import build_plan
from umpteen.query.liveness import list_handles
from umpteen.query.status import JobStatus, build_status
from umpteen.query.time_left import estimate_left_s
from umpteen.store.submission_lock import submission_lock
from umpteen.submission.cancel import is_cancelled
from umpteen.submission.read_back import read_back_job
from umpteen.submission.submit import submit_again
from umpteen.verbs.cancel import cancel_rest, watch_ending
from umpteen.verbs.handle import JobHandle
from umpteen.verbs.look import look
from umpteen.verbs.runner_end import REFUSED, RunnerEnds

__all__ = ["has_rest", "watch"]

_RATE_WINDOW_S = 30.0
_ESTIMATE_S = 1.0  # how often the time left is worked out: of a thousand slots it takes 16 ms


def watch(handle: JobHandle) -> Iterator[JobStatus]:
    """Looks at the job, one every 0.2 s, until nobody runs it any more.

    While the store does not answer it is the last look again, with what is wrong as `trouble`.
    What a batch left when it ended is submitted again, until every task has had its turn,
    unless `handle` was interrupted meanwhile. Raises StoreError where the runner gave up on the
    store, BackendError where it was killed again and again.
    """
    if handle.ending is None:
        yield from _watch_with_rest(handle)
    if handle.ending is not None:
        yield from watch_ending(handle)


def _watch_with_rest(handle: JobHandle) -> Iterator[JobStatus]:
    """Until nothing is left to submit, or the rest is being cancelled."""
    ends = RunnerEnds()
    while True:
        has_cancelled = yield from _watch_until_ended(handle)
        if has_cancelled or not (_may_go_on(handle, ends) and _submit_rest(handle)):
            return


def _watch_until_ended(handle: JobHandle) -> Generator[JobStatus, None, bool]:
    """Until nobody runs what was submitted last, or the user stops it.

    Whether so many tasks failed that what is left is being cancelled.
    """
    failed_before = count_failed(handle.history.counts())
    rate, left = _Rate(), _TimeLeft()
    status = msgspec.structs.replace(build_status(handle.history, set()), state="running")
    while True:
        found = yield from look(handle, status)
        if found is None:
            return False
        status, living = found
        ends_per_s = rate.observe(status)
        status = msgspec.structs.replace(
            status,
            rate=ends_per_s,
            left_s=left.estimate(status, handle.history.samples, ends_per_s),
            # A dead runner's trouble may be told still, and must not keep a wait without limit.
            trouble=_explain_waiting(handle, status, living) or status.trouble,
        )
        yield status
        if living and _has_failed_enough(handle, status, failed_before):
            cancel_rest(handle, living)
            return True
        if _is_over(handle, living):
            return False
        handle.executor.own_runs.wait(handle.poll_s)


def _is_over(handle: JobHandle, living: set[str]) -> bool:
    """Whether the runner of this process has ended, and there is nothing more to look at."""
    ended = handle.executor.own_runs.exit_status()
    if ended is None:
        return False
    if ended.code in REFUSED:  # whether others run the rest is not to be known
        return True
    return not living or handle.is_interrupted


def _has_failed_enough(handle: JobHandle, status: JobStatus, before: int) -> bool:
    """On an engine each runner counts its own failures; those of all count for who watches."""
    most = handle.settings.max_failures
    if not most or not handle.executor.abilities.is_engine:
        return False
    return count_failed(status.counts) - before >= most


def count_failed(counts: Mapping[str, int]) -> int:
    """How many tasks failed by themselves."""
    return counts["failed"] + counts["timed_out"]


def _explain_waiting(handle: JobHandle, status: JobStatus, living: set[str]) -> str:
    """Why nothing runs of what is submitted, where the executor knows."""
    if not living or status.running:
        return ""
    batches = map(handle.history.batches.__getitem__, living)
    name = handle.settings.executor
    found = list_handles(handle.history, batches, name)
    return handle.executor.why_waiting(found.get(find_short_name(name), ()))


def _may_go_on(handle: JobHandle, ends: RunnerEnds) -> bool:
    """Whether what is left is to be submitted by this process. Raises as `RunnerEnds` does."""
    if handle.is_interrupted:
        return False
    returned, said = handle.executor.own_runs.exit_status() or (None, "")
    ends.add(returned, said, handle.history.counts()["waiting"])
    had_deadline = bool(handle.settings.deadline_s) and bool(handle.batches)
    return not had_deadline and not is_cancelled(handle.history) and has_rest(handle)


def has_rest(handle: JobHandle) -> bool:
    """Whether tasks wait that nobody has yet, or are behind by now and are to run for that."""
    # To look closer takes the room of all tasks.
    return bool(handle.history.counts()["waiting"]) or _has_behind(handle)


def _has_behind(handle: JobHandle) -> bool:
    history, rest = handle.history, handle.rest
    if not (rest.takes_behind and history.has_graph and history.is_of_several):
        return False
    job = read_back_job(history, handle.settings, handle.source_digest)
    living = handle.liveness.list_living(history)
    known = read_known(job, history, "rest")
    plan = build_plan(job, history, known, living, "rest", rest.only, follow=rest.follow)
    return bool(plan.behind)


def _submit_rest(handle: JobHandle) -> bool:
    """Submit what is left, as the store has it now; whether anything is."""
    history = handle.history
    with submission_lock(history.store, handle.on_progress) as lock:
        history.refresh()
        job = read_back_job(history, handle.settings, handle.source_digest)
        submitted = submit_again(
            job, history, lock, handle.rest, handle.liveness, handle.on_progress
        )
    handle.go_on_with(submitted)
    return not handle.is_idle


class _Rate:
    """How many tasks end in a second, over the last 30 s."""

    def __init__(self) -> None:
        self.seen: collections.deque[tuple[float, int]] = collections.deque()

    def observe(self, status: JobStatus) -> float:
        now = time.monotonic()
        self.seen.append((now, status.finished))
        while now - self.seen[0][0] > _RATE_WINDOW_S and len(self.seen) > 2:
            self.seen.popleft()
        since, finished = self.seen[0]
        return (status.finished - finished) / (now - since) if now > since else 0.0


class _TimeLeft:
    """The time left, worked out once a second."""

    def __init__(self) -> None:
        self.left_s: tuple[float, float] | None = None
        self.estimated_s = 0.0

    def estimate(
        self, status: JobStatus, samples: collections.deque[float], rate: float
    ) -> tuple[float, float] | None:
        if self.left_s is None or time.monotonic() - self.estimated_s >= _ESTIMATE_S:
            self.left_s = estimate_left_s(status, samples, rate, time.time())
            self.estimated_s = time.monotonic()
        return self.left_s
