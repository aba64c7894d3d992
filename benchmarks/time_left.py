"""Whether the time left is told honestly: its range is to hold in 8 of 10 looks.

Replays jobs of drawn and of recorded durations through a list scheduler, and asks at every
twentieth of the tasks for the range, with what umpteen would know then. Beside it: the rule of
GNU Parallel's `--eta`, which tells one number.
"""

from __future__ import annotations

import bisect
import collections
import functools
import heapq
import itertools
import json
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.measuring import (
    ROOT,
    Goal,
    open_scratch,
    parse_options,
    publish,
    render_table,
    say,
)

from umpteen.query.status import JobStatus, RunningTask
from umpteen.query.time_left import estimate_left_s

__all__ = ["WORKLOADS", "Look", "replay"]

TASKS = (200, 2_000, 10_000)
SLOTS = (2, 8, 64)
SHARES = range(5, 100, 5)
_SAMPLES = 1000  # as many as `umpteen.history.history` keeps
_RATE_WINDOW_S = 30.0


# --- workloads ----------------------------------------------------------------------------------


def draw_bimodal(chance: random.Random) -> float:
    return (5.0 if chance.random() < 0.5 else 0.005) * chance.lognormvariate(0, 0.1)


def draw_pareto(chance: random.Random) -> float:
    return chance.paretovariate(1.5)


def draw_log_normal(sigma: float, chance: random.Random) -> float:
    return chance.lognormvariate(0, sigma)


@functools.cache
def read_recorded(name: str) -> Sequence[float]:
    path = os.path.join(ROOT, "benchmarks", "data", f"durations-{name}.json")
    with open(path, encoding="utf-8") as file:
        return [max(seconds, 0.0005) for seconds in json.load(file)["seconds"]]


def draw_recorded(name: str, chance: random.Random) -> float:
    return chance.choice(read_recorded(name))


WORKLOADS: Mapping[str, Callable[[random.Random], float]] = {
    "log-normal, σ 0.5": functools.partial(draw_log_normal, 0.5),
    "log-normal, σ 1": functools.partial(draw_log_normal, 1.0),
    "log-normal, σ 1.5": functools.partial(draw_log_normal, 1.5),
    "Pareto, α 1.5": draw_pareto,
    "5 ms or 5 s": draw_bimodal,
    "recorded: `xz` of files": functools.partial(draw_recorded, "xz"),
    "recorded: `python -m dis`": functools.partial(draw_recorded, "dis"),
    "recorded: our own tests": functools.partial(draw_recorded, "tests"),
}


# --- a job, replayed ----------------------------------------------------------------------------


class Look(NamedTuple):
    """One look at a job, and what came: all in seconds, `eta` as GNU Parallel tells it."""

    truth: float
    low: float
    high: float
    eta: float
    took: float

    @property
    def holds(self) -> bool:
        return self.low <= self.truth <= self.high


class Eta:
    """`parallel --eta`, version 20221122: `compute_eta` in /usr/bin/parallel, line 4373.

        $first_completed ||= time;
        $avgtime = (time - $first_completed) / $completed;
        $smoothed_avg_time = (1 - $pctcomplete) * $smoothed_avg_time + $pctcomplete * $avgtime;
        $eta = int($left * $smoothed_avg_time);
        an eta that is up to a ninth above the last one is not shown; the last one is

    It knows no slots and no running tasks: the time for each that ended is time for all slots.
    Its clock has whole seconds; here it is exact, and nothing is rounded, which can only help.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.first_s = self.average = -1.0
        self.last = 0.0

    def tell(self, completed: int, now: float) -> float:
        if self.first_s < 0:
            self.first_s = now
        average = (now - self.first_s) / completed
        share = completed / self.total
        before = self.average if self.average > 0 else average
        self.average = (1 - share) * before + share * average
        eta = (self.total - completed) * self.average
        if not eta * 0.9 < self.last < eta:
            self.last = eta
        return self.last


def run_list(durations: Sequence[float], slots: int) -> Iterator[tuple[float, int, list[float]]]:
    """At every end: the time, the task, and when those that run then have begun."""
    starts = itertools.count()
    running = [(durations[task], 0.0, task) for task in itertools.islice(starts, slots)]
    heapq.heapify(running)
    while running:
        now, _, ended = heapq.heappop(running)
        task = next(starts)
        if task < len(durations):
            heapq.heappush(running, (now + durations[task], now, task))
        yield now, ended, [start for _, start, _ in running]


def replay(durations: Sequence[float], slots: int) -> list[Look]:
    """Look at a job of these tasks, in this order, when 5 %, 10 % … 95 % of them have ended."""
    total = len(durations)
    looks: list[tuple[float, tuple[float, float], float, float]] = []
    marks = {total * share // 100 for share in SHARES}
    samples: collections.deque[float] = collections.deque(maxlen=_SAMPLES)
    ends: list[float] = []
    eta = Eta(total)
    now = 0.0
    for now, task, begun in run_list(durations, slots):
        samples.append(durations[task])
        ends.append(now)
        told = eta.tell(len(ends), now)
        if len(ends) in marks:
            since = max(0.0, now - _RATE_WINDOW_S)
            rate = (len(ends) - bisect.bisect_right(ends, since)) / (now - since)
            status = build_status(total, len(ends), begun, slots)
            began = time.process_time()
            found = estimate_left_s(status, samples, rate, now)
            took = time.process_time() - began
            assert found is not None
            looks.append((now, found, told, took))
    return [Look(now - then, *found, told, took) for then, found, told, took in looks]


def build_status(total: int, ended: int, begun: Sequence[float], slots: int) -> JobStatus:
    waiting = total - ended - len(begun)
    states = ("failed", "timed_out", "cancelled", "skipped")
    counts = {"waiting": waiting, "running": len(begun), "succeeded": ended}
    return JobStatus(
        name="replayed", address="", executor="local", state="running", total=total,
        counts={**counts, **dict.fromkeys(states, 0)},
        running=[RunningTask(index=0, slot=0, start_s=start, batch="1") for start in begun],
        slots=slots, seconds=0.0, started_s=0.0, last_end_s=0.0,
    )  # fmt: skip


# --- the table ----------------------------------------------------------------------------------


def render_row(looks: Sequence[Look]) -> list[str]:
    shares = [
        sum(look.holds for look in looks),
        sum(look.truth < look.low for look in looks),
        sum(look.truth > look.high for look in looks),
    ]
    medians = [
        statistics.median((look.high - look.low) / look.truth for look in looks),
        statistics.median(abs(math.sqrt(look.low * look.high) / look.truth - 1) for look in looks),
        statistics.median(abs(look.eta / look.truth - 1) for look in looks),
    ]
    return [f"{100 * share / len(looks):.0f} %" for share in shares] + [
        f"{median:.2f}" for median in medians
    ]


def render_sizes(looks: Mapping[tuple[str, int, int], Sequence[Look]]) -> list[str]:
    """The share of looks whose range holds, by tasks and slots."""
    tasks = sorted({tasks for _, tasks, _ in looks})
    rows = []
    for count in tasks:
        row = [f"{count:,} tasks"]
        for slots in SLOTS:
            some = join(v for (_, t, s), v in looks.items() if (t, s) == (count, slots))
            row.append(f"{100 * sum(look.holds for look in some) / len(some):.0f} %")
        rows.append(row)
    return render_table(["the range holds", *(f"{slots} slots" for slots in SLOTS)], rows)


def join(parts: Iterable[Sequence[Look]]) -> list[Look]:
    return list(itertools.chain.from_iterable(parts))


def main() -> None:
    options = parse_options(__doc__, tasks=max(TASKS), rounds=20)
    looks: dict[tuple[str, int, int], list[Look]] = {}
    for name, draw in WORKLOADS.items():
        for tasks, slots in itertools.product(TASKS, SLOTS):
            if tasks > options.tasks:
                continue
            found = looks[name, tasks, slots] = []
            for number in range(options.rounds):
                chance = random.Random(f"{name}, {tasks} tasks, {slots} slots, job {number}")
                found += replay([draw(chance) for _ in range(tasks)], slots)
        own = join(v for (n, _, _), v in looks.items() if n == name)
        say(f"{name}: the range holds in {render_row(own)[0]} of {len(own):,} looks")
    rows = [
        [name, *render_row(join(v for (n, _, _), v in looks.items() if n == name))]
        for name in WORKLOADS
    ]
    every = join(looks.values())
    recorded = join(v for (n, _, _), v in looks.items() if n.startswith("recorded"))
    rows += [["all recorded", *render_row(recorded)], ["all", *render_row(every)]]
    share = 100 * sum(look.holds for look in every) / len(every)
    goals = Goal(70, is_least=True, unit="%"), Goal(90, unit="%")
    head = ["durations", "the range holds", "the truth is below", "above", "width of the range",
            "its middle is off by", "`parallel --eta` is off by"]  # fmt: skip
    sizes = {tasks for _, tasks, _ in looks}
    most = join(looks[name, max(sizes), max(SLOTS)] for name in WORKLOADS)
    took = sorted(look.took * 1000 for look in most)
    notes = (
        f"- Target: the range holds in {goals[0]} and {goals[1]} of all looks. {share:.0f} %: "
        f"{goals[0].judge(share) if share < 80 else goals[1].judge(share)}.\n"
        f"- {options.rounds} jobs for each of the durations, {len(SLOTS)} numbers of slots and "
        f"{len(sizes)} of tasks, in random order; {len(SHARES)} looks at each, {len(every):,} in "
        "all. Width and errors are medians, as parts of the truth; the middle is the geometric "
        "one.\n"
        f"- With {max(SLOTS)} slots and {max(sizes):,} tasks one look takes "
        f"{took[len(took) // 2]:.1f} ms, the slowest in twenty "
        f"{took[len(took) * 19 // 20]:.1f} ms of processor time."
    )
    with open_scratch(options, "time-left") as scratch:
        lines = [*render_table(head, rows), "", *render_sizes(looks), "", notes]
        publish("time_left", lines, scratch, options)


if __name__ == "__main__":
    main()
