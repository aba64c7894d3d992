"""`cancel`: end a job, or some tasks of it, and wait until that is recorded."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from umpteen.executors.registry import DEFAULT
from umpteen.history.history import History
from umpteen.job.settings import ExecutorChoice
from umpteen.model.states import IS_FINAL, STATES, TaskState
from umpteen.query.find import find_names, open_history
from umpteen.query.liveness import UNKNOWN_S, list_handles, read_status
from umpteen.query.status import JobStatus, build_status
from umpteen.query.trust import find_stranger
from umpteen.runner.leftovers import clear_dead
from umpteen.store.submission_lock import submission_lock
from umpteen.submission.cancel import (
    is_open,
    put_cancel_mark,
    record_cancelled,
    refuse_adopted,
)
from umpteen.submission.read_back import read_back_settings
from umpteen.submission.submit import find_submitted
from umpteen.verbs.handle import JobHandle

__all__ = [
    "CancelCounts",
    "Cancelling",
    "cancel",
    "cancel_rest",
    "count_cancelled",
    "wait_for_runner",
    "watch_ending",
]

_RECORD_S = 10.0  # beyond the grace, for records to be written
_SEEN_S = 5.0  # by when a runner has seen the mark
_LEAVE_S, _LEAVE_POLL_S = 2.0, 0.02  # how long a runner may take to end that has nothing to do


class Cancelling(NamedTuple):
    """A cancel that has begun."""

    handle: JobHandle  # to be watched until it is recorded
    chosen: list[int]  # indices of the tasks that it ends
    ended_before: int  # how many of those that were meant had ended


class CancelCounts(NamedTuple):
    """What became of the tasks that were meant."""

    cancelled: int
    never_starts: int  # they wait, and are recorded as cancelled when their turn would be
    ended_meanwhile: int
    ended_before: int
    left: int  # they still run


def cancel(
    name: str, tasks: Sequence[str] = (), executor: ExecutorChoice | None = None
) -> Cancelling:
    """End a job, or some tasks of it; `watch` ends when all of them are recorded as cancelled.

    tasks: names, patterns or indices. executor: which has the job, where the caller says so.
    Raises InputError where there is no such job or task, SettingsError where the executor has to
    be given.
    """
    history = open_history(name)
    # Of a colleague's job it is the mark in the store that ends it, and his executor is not asked.
    is_strange = bool(find_stranger(history))
    settings = read_back_settings(
        history, detach=True, executor=ExecutorChoice(DEFAULT) if is_strange else executor
    )
    handle = JobHandle(find_submitted(history, settings))
    living = handle.liveness.list_living(history)
    meant = _list_meant(history, tasks, living)
    chosen = [index for index in meant if is_open(history, index)]
    ended_before = sum(IS_FINAL[history.states[index]] for index in meant)
    clear_dead(history.identity)
    handle.end(chosen)
    if chosen:
        _put_mark(history, chosen, is_whole=not tasks)
        living = handle.liveness.list_living(history)
        _wake_runners(handle, living, is_whole=not tasks)
    return Cancelling(handle, chosen, ended_before)


def cancel_rest(handle: JobHandle, living: set[str]) -> None:
    """Cancel what is left of a job that is watched. living: the batches that somebody runs."""
    history = handle.history
    with submission_lock(history.store) as lock:
        history.refresh()
        lock.check()
        put_cancel_mark(history, None)
    _wake_runners(handle, living, is_whole=True)
    handle.end([index for index in range(history.count) if is_open(history, index)])


def _list_meant(history: History, tasks: Sequence[str], living: set[str]) -> list[int]:
    """The tasks given, else all; of those that the job has no more, what somebody runs."""
    run_now = history.numbers_of(living)
    found: Iterable[int] = range(history.count)
    if tasks:
        index_of = {task.name: index for index, task in enumerate(history.read_tasks())}
        found = sorted({index_of[name] for name in find_names(history, list(index_of), tasks)})
    return [
        index
        for index in found
        if index not in history.dropped or history.batch_of[index] in run_now
    ]


def _put_mark(history: History, chosen: Sequence[int], *, is_whole: bool) -> None:
    with submission_lock(history.store) as lock:
        history.refresh()
        still_open = [index for index in chosen if is_open(history, index)]
        refuse_adopted(history, still_open)
        lock.check()
        put_cancel_mark(history, None if is_whole else still_open)


def _wake_runners(handle: JobHandle, living: set[str], *, is_whole: bool) -> None:
    """Have the runners of living batches look at the mark now.

    is_whole: whether all of the job is cancelled. Else a batch that has not begun has other
    tasks, too, and sees the mark when it does.
    """
    history = handle.history
    # Also those that seem lost: a machine that is not reached may still be at them.
    batches = history.list_open() if is_whole else map(history.batches.__getitem__, living)
    executors = handle.liveness.executors
    for name, handles in list_handles(history, batches, executors.given).items():
        executor = executors.open_any(name)
        if is_whole:
            executor.cancel(handles)
        else:
            executor.wake(handles)


def watch_ending(handle: JobHandle) -> Iterator[JobStatus]:
    """Until what was cancelled is recorded; what nobody runs is recorded by this process.

    A waiting task is recorded only when it would have started, so these are waited for briefly.
    """
    left: Sequence[int] = handle.ending or ()
    began_s = time.monotonic()
    recorded: set[str] = set()
    while True:
        history = handle.history
        living = handle.liveness.list_living(history)
        history.refresh()
        status = build_status(history, living)
        yield status
        left = [index for index in left if is_open(history, index)]
        batches = _list_batches(history, left)
        if lost := batches - living - recorded:
            recorded |= lost
            _record_lost(history, lost, left)
            handle.reread()
            continue
        are_running = not {task.index for task in status.running}.isdisjoint(left)
        limit_s = handle.settings.grace_s + UNKNOWN_S + _RECORD_S if are_running else _SEEN_S
        if time.monotonic() - began_s > limit_s or not batches & living or handle.is_interrupted:
            return
        handle.executor.own_runs.wait(handle.poll_s)


def _list_batches(history: History, indices: Sequence[int]) -> set[str]:
    names = list(history.batches)
    return {names[history.batch_of[index]] for index in indices}


def _record_lost(history: History, lost: set[str], left: Sequence[int]) -> None:
    with submission_lock(history.store) as lock:
        lock.check()
        record_cancelled(history, lost, set(left))


def wait_for_runner(handle: JobHandle, status: JobStatus) -> JobStatus:
    """The status once the runner of a job that is over has gone, too; waits for a moment."""
    if status.counts["running"] + status.counts["waiting"]:
        return status
    until_s = time.monotonic() + _LEAVE_S
    while status.state == "running" and time.monotonic() < until_s:
        time.sleep(_LEAVE_POLL_S)
        handle.history.refresh()
        status = read_status(handle.history)
    return status


def count_cancelled(cancelling: Cancelling, status: JobStatus) -> CancelCounts:
    """What became of the tasks, by the last look at the job."""
    states = cancelling.handle.history.states
    running = {task.index for task in status.running}
    chosen = [(STATES[states[index]], index in running) for index in cancelling.chosen]
    return count_ends(chosen, cancelling.ended_before)


def count_ends(chosen: Sequence[tuple[str, bool]], ended_before: int) -> CancelCounts:
    """What became of tasks, given the state of each, and whether it still runs."""
    still_open = [runs for state, runs in chosen if not TaskState(state).is_final]
    cancelled = sum(state == TaskState.CANCELLED for state, _ in chosen)
    left = sum(still_open)
    return CancelCounts(
        cancelled=cancelled,
        never_starts=len(still_open) - left,
        ended_meanwhile=len(chosen) - len(still_open) - cancelled,
        ended_before=ended_before,
        left=left,
    )
