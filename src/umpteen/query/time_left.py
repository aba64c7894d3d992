"""How long a job that is watched still takes, by what it has done so far."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from umpteen.query.estimate import estimate_range
from umpteen.query.status import JobStatus

__all__ = ["estimate_left_s"]

_RATE_WINDOW_S = 30.0
_LEAST_BUSY = 0.01


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
