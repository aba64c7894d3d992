"""How long a job still takes: a range, from the durations of its tasks so far.

Takes numbers and gives numbers. Nothing is drawn at random: the same look gives the same range.

What is known is biased: long tasks end late, so those that have ended are the short ones. Of a task
that runs it is only known that it takes longer than it has run (it is right-censored). So:

1. Durations: the Kaplan-Meier estimator (Kaplan and Meier 1958, JASA 53, 457-481) of all that
   ended and all that run.
2. Beyond the longest few, where hardly anything was seen: a log-normal tail. Its width comes from
   the gaps between the longest durations, each weighted by the hazard of the normal distribution,
   as Hill (1975, Annals of Statistics 3, 1163-1174) does for power laws. The sum of so many gaps
   is gamma distributed; its quantiles are those of Wilson and Hilferty (1931, PNAS 17, 684-688).
3. How heavy the tail is can hardly be seen, so there are five guesses at it, all as likely.
4. For each: when the last waiting task starts (all slots are busy until then), and from that the
   chance that all has ended by some time. The range is between the times at which the mean of
   these chances is 0.1 and 0.9.

How often the range holds, and the numbers below: benchmarks/time_left.py.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from statistics import NormalDist

__all__ = ["estimate_range"]

_LOW, _HIGH = 0.1, 0.9
_PRECISION = 0.005
_SHORTEST_S = 1e-4
_STEPS_MOST = 40
_GUESSES = 5
# Chosen by benchmarks/time_left.py: how much weighs a task that is longer than all seen, how many
# of the longest make way for the tail, how many gaps tell of it, and for how many these count.
_UNSEEN = 0.4
_CUT = 2
_GAPS, _GAPS_COUNT_AS = 20, 3.0
_WIDEST_TAIL, _WIDEST_SPREAD = 4.0, 2.0
_ROOT = math.sqrt(0.5)
_LEAST_SHARE = 1e-15
_OLDEST_ALONE, _TOGETHER = 4, 10


def estimate_range(
    ended: Sequence[float],
    running: Sequence[float],
    waiting: int,
    slots: int,
    *,
    of: int = 0,
    busy: float = 1.0,
) -> tuple[float, float]:
    """The seconds until the last task ends, in 8 of 10 cases.

    ended: durations, at least one. running: for how long each has run. of: how many tasks `ended`
    stands for, if more. busy: the share of their time that slots do work.
    """
    seen = _observe(ended, running, len(ended) / max(of, len(ended)))
    slots = max(slots, len(running), 1)
    if waiting + len(running) <= slots:  # nobody waits for another's end
        running, waiting = [*running, *[0.0] * waiting], 0
    groups = _group(running)
    outlooks = [
        _build_outlook(_Durations(seen, z), groups, waiting, slots, busy) for z in _levels()
    ]
    low = _find_quantile(outlooks, _LOW, 0.0)
    return low, _find_quantile(outlooks, _HIGH, low)


# --- durations ----------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """What is known of durations."""

    lengths: list[float]  # sorted
    shares: list[float]  # of tasks that are shorter than each of them, summed
    sums: list[float]  # the same of shares times length
    squares: list[float]  # and times the square of the length
    z: float  # how far out on a normal scale the last of them is
    gaps: float  # how many tell how fast lengths grow from there on
    gap_sum: float  # of what they tell


def _observe(ended: Sequence[float], running: Sequence[float], weight: float) -> _Seen:
    """Kaplan-Meier: each end takes its share of what was left. weight: of a running task."""
    lengths, elapsed = sorted(ended), sorted(running)
    too_short = bisect_left(lengths, _SHORTEST_S)
    lengths[:too_short] = [_SHORTEST_S] * too_short
    parts: list[float] = []
    known_longer, longer = len(elapsed) * weight, 1.0
    for age in (*elapsed, math.inf):
        count = bisect_right(lengths, age) - len(parts)
        part = longer / (len(lengths) - len(parts) + known_longer + _UNSEEN)
        parts += [part] * count
        longer -= part * count
        known_longer -= weight
    gap_sum, gaps = 0.0, min(_GAPS, len(lengths) - 1)
    beyond = longer
    for at in range(len(lengths) - 1, len(lengths) - 1 - gaps, -1):
        beyond += parts[at]
        longer_ones = beyond / parts[at] - _UNSEEN
        gap_sum += longer_ones * math.log(lengths[at] / lengths[at - 1]) * _hazard(beyond)
    for age in elapsed[bisect_right(elapsed, lengths[-1]) :]:
        gap_sum += weight * math.log(age / lengths[-1]) * _hazard(longer)
    # The more is unseen, the less do gaps between short ones tell of it.
    believed = (1 - longer) * min(1.0, _GAPS_COUNT_AS / max(1, gaps))
    if cut := min(_CUT, len(lengths) // 20):
        longer += sum(parts[-cut:])
        del lengths[-cut:], parts[-cut:]
    first = [part * length for part, length in zip(parts, lengths, strict=True)]
    second = [part * length for part, length in zip(first, lengths, strict=True)]
    return _Seen(
        lengths,
        [0.0, *accumulate(parts)],
        [0.0, *accumulate(first)],
        [0.0, *accumulate(second)],
        _find_z(longer),
        gaps * believed + 1,  # and a made-up one, for where there are none
        gap_sum * believed + 1,
    )


class _Durations:
    """How long a task takes: what was seen, and a tail beyond."""

    # level: how light the tail is, a point of the normal distribution.
    def __init__(self, seen: _Seen, level: float) -> None:
        self.seen = seen
        # The sum of that many gaps is gamma distributed (quantiles by Wilson and Hilferty).
        root = 1 - 1 / (9 * seen.gaps) + level / (3 * math.sqrt(seen.gaps))
        heaviness = seen.gap_sum / (seen.gaps * max(0.05, root) ** 3)
        self.sigma = sigma = min(max(heaviness, 0.01), _WIDEST_TAIL)
        self.longest = seen.lengths[-1]
        middle = math.log(self.longest) - sigma * seen.z
        self._mean = math.exp(middle + sigma**2 / 2)
        self._square = math.exp(2 * middle + 2 * sigma**2)
        self._mean_share = _upper(seen.z - sigma)
        self._square_share = _upper(seen.z - 2 * sigma)

    def share_longer(self, length: float) -> float:
        """The share of tasks that take longer."""
        if length < self.longest:
            return 1 - self.seen.shares[bisect_right(self.seen.lengths, length)]
        return 0.5 * math.erfc(_ROOT * self._find_z(length))

    def split(self, length: float) -> tuple[float, float]:
        """The share of tasks that take longer, and what one task has done by then on average."""
        seen = self.seen
        if length < self.longest:
            at = bisect_right(seen.lengths, length)
            longer = 1 - seen.shares[at]
            return longer, seen.sums[at] + length * longer
        z = self._find_z(length)
        longer = 0.5 * math.erfc(_ROOT * z)
        beyond = self._mean * (self._mean_share - _upper(z - self.sigma))
        return longer, seen.sums[-1] + beyond + length * longer

    def square(self, length: float) -> float:
        """What one task has done by then, squared, on average."""
        seen = self.seen
        if length < self.longest:
            at = bisect_right(seen.lengths, length)
            return seen.squares[at] + length**2 * (1 - seen.shares[at])
        z = self._find_z(length)
        beyond = self._square * (self._square_share - _upper(z - 2 * self.sigma))
        return seen.squares[-1] + beyond + length**2 * _upper(z)

    def _find_z(self, length: float) -> float:
        return self.seen.z + math.log(length / self.longest) / self.sigma


@functools.cache
def _normal() -> NormalDist:
    """The standard normal distribution; loaded late, as most commands end without an estimate."""
    from statistics import NormalDist

    return NormalDist()


@functools.cache
def _levels() -> list[float]:
    """Points that stand for a normal distribution: the middles of equal parts, with its spread."""
    middles = [_normal().inv_cdf((part + 0.5) / _GUESSES) for part in range(_GUESSES)]
    spread = math.sqrt(sum(z * z for z in middles) / _GUESSES)
    return [z / spread for z in middles]


def _hazard(share: float) -> float:
    """Of the normal distribution where `share` of it is still to come."""
    return _normal().pdf(_find_z(share)) / share


def _find_z(share: float) -> float:
    """The point of the normal distribution beyond which there is `share` of it."""
    return -_normal().inv_cdf(min(max(share, _LEAST_SHARE), 1 - _LEAST_SHARE))


def _upper(z: float) -> float:
    """The share of the normal distribution beyond z; `NormalDist.cdf` is too coarse far out."""
    return 0.5 * math.erfc(_ROOT * z)


# --- what comes ---------------------------------------------------------------------------------


class _Group(NamedTuple):
    """Running tasks of like age."""

    elapsed: float
    size: int
    longer: float = 1.0  # the share of tasks that take longer than these have until now


class _Outlook(NamedTuple):
    """One guess at the durations, and when by it the last task starts: one of `starts`."""

    durations: _Durations
    groups: list[_Group]
    waiting: int
    slots: int
    starts: list[float]

    def chance(self, time: float) -> float:
        """How likely it is that all has ended by then."""
        kept = [start for start in self.starts if start <= time]
        if not kept:
            return 0.0
        longer = self.durations.share_longer
        chance = 1.0
        for elapsed, size, before in self.groups:
            chance *= (1 - longer(elapsed + time) / before) ** size
            if chance < _LOW / 100:
                return 0.0
        if not self.waiting:
            return chance
        split = self.durations.split
        work = split(time)[1]
        of_waiting = 0.0
        for start in kept:  # if the last one starts then, and the others evenly before it
            unfinished = self.waiting / start * (work - split(time - start)[1])
            of_waiting += min(1.0, max(0.0, 1 - unfinished / self.slots)) ** self.slots
        return chance * of_waiting / len(self.starts)


def _group(running: Sequence[float]) -> list[_Group]:
    """The oldest each alone, as they decide most."""
    ages = sorted(running, reverse=True)
    parts = [[age] for age in ages[:_OLDEST_ALONE]]
    rest = range(_OLDEST_ALONE, len(ages), _TOGETHER)
    parts += [ages[at : at + _TOGETHER] for at in rest]
    return [_Group(sum(part) / len(part), len(part)) for part in parts]


def _build_outlook(
    durations: _Durations, groups: list[_Group], waiting: int, slots: int, busy: float
) -> _Outlook:
    longer = durations.share_longer
    groups = [group._replace(longer=max(longer(group.elapsed), 1e-12)) for group in groups]
    starts = [0.0]
    if waiting:
        start = _find_last_start(durations, groups, waiting, slots)
        variance = max(0.0, durations.square(start) - durations.split(start)[1] ** 2)
        running = sum(group.size for group in groups)
        # The mean is known from what has ended only; a tenth more, as is the variance.
        total = waiting * (1 + waiting / len(durations.seen.lengths)) + running
        spread = min(1.1 * math.sqrt(variance * total) / (slots * start), _WIDEST_SPREAD)
        starts = [start / busy * math.exp(spread * z - spread * spread / 2) for z in _levels()]
    return _Outlook(durations, groups, waiting, slots, starts)


def _find_last_start(
    durations: _Durations, groups: list[_Group], waiting: int, slots: int
) -> float:
    """When the last waiting task starts: all slots are busy until then, and do what work there is.

    The work found falls short of what slots could do by a convex function of the time, so Newton's
    method goes to its zero from above, without a step too far.
    """
    split = durations.split
    known = [(group, split(group.elapsed)[1]) for group in groups]

    def find_shortfall(time: float) -> tuple[float, float]:
        # Those that start evenly from now on: the integral of what each has done, over the time.
        longer, work = split(time)
        begun = work - durations.square(time) / (2 * time)
        done, slope = waiting * begun, waiting * (work - begun) / time
        for (elapsed, size, before), work_before in known:
            longer, work = split(elapsed + time)
            done += size * (work - work_before) / before
            slope += size * longer / before
        return slots * time - done, slots - slope

    time = (waiting + slots) * durations.longest / slots
    for _ in range(_STEPS_MOST):
        if find_shortfall(time)[0] >= 0:
            break
        time *= 4
    for _ in range(_STEPS_MOST):
        shortfall, slope = find_shortfall(time)
        step = shortfall / slope if slope > 0 else 0.0
        time = max(_SHORTEST_S, time - step)
        if step < _PRECISION / 10 * time:
            break
    return time


def _find_quantile(outlooks: Sequence[_Outlook], share: float, low: float) -> float:
    """The time, after `low`, by which all has ended with that chance (by regula falsi)."""

    def find_excess(time: float) -> float:
        return sum(outlook.chance(time) for outlook in outlooks) / len(outlooks) - share

    high = max(low, outlooks[0].durations.longest, outlooks[len(outlooks) // 2].starts[-1])
    below, above = -share, find_excess(high)
    for _ in range(_STEPS_MOST):
        if above >= 0:
            break
        low, high, below = high, 2 * high, above
        above = find_excess(high)
    for _ in range(_STEPS_MOST):
        if high - low <= _PRECISION * high:
            break
        middle = low + (high - low) * min(max(below / (below - above), 0.1), 0.9)
        excess = find_excess(middle)
        if excess < 0:
            low, below = middle, excess
        else:
            high, above = middle, excess
    return high
