"""What verbs that watch say as lines of text: first, while the job runs, and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from umpteen.executors.registry import runs_here
from umpteen.model.command import write_verb
from umpteen.model.states import tell_end
from umpteen.query.status import JobStatus
from umpteen.report.status import render_bar, render_counts, render_left
from umpteen.report.text import (
    LEAST_COLUMNS,
    cut,
    render_number,
    render_seconds,
    shorten_path,
    tell_ends,
)
from umpteen.system.terminal import clean
from umpteen.verbs.cancel import CancelCounts

__all__ = [
    "Ending",
    "Note",
    "build_ending",
    "build_goes_on",
    "fit_progress",
    "render_cancel",
    "render_goes_on",
    "render_leave",
    "render_nothing_to_retry",
    "render_start",
]
_SHOWN_NAMES = 3


class Progress(NamedTuple):
    """The parts of the line that shows how far a job is."""

    bar: str
    counts: str
    left: str


def fit_progress(status: JobStatus, width: int) -> Progress:
    """The line for a terminal of that many columns; what does not fit is left out, the least first.

    First goes the rate, then the bar, then the time left. A blank is before it.
    """
    counts = f"  {100 * status.finished // max(1, status.total):>3} %   {render_counts(status)}"
    left = render_left(status.left_s)
    left = f"   {left}" if left else ""
    rate = ""
    if status.rate >= 0.1 and status.left_s:
        rate = f"   {status.rate:.1f}/s" if status.rate < 100 else f"   {status.rate:,.0f}/s"
    if width - 1 - len(counts) - len(rate) - len(left) < LEAST_COLUMNS:
        rate = ""
    room = min(30, width - 1 - len(counts) - len(rate) - len(left))
    if room < 0:
        room, left = 0, ""
    return Progress(render_bar(status, room), cut(counts + rate, width - 1), left)


def render_start(status: JobStatus, *, is_left: bool = False) -> str:
    """The first line of a run; is_left: of one that nobody watches."""
    tasks = render_number(status.total, "task")
    where = "this machine" if runs_here(status.executor) else status.executor
    at_once = f"{status.slots:,} at a time " if status.slots else ""
    first = f"{status.name}: {tasks}, {at_once}on {where}"
    if is_left:
        return first + "; nothing needs to stay open"
    return f"{first}, results in {shorten_path(status.address)}"


def render_leave(job: str, left_over: int) -> list[str]:
    """How to come back to a job that nobody watches. left_over: tasks for a later run.

    job: what to type for it, its name or where it is; so below.
    """
    lines = [f"  watch     {write_verb('collect', job)}"]
    if left_over:
        what = f"the {left_over:,} that changed while a former run has them"
        lines.append(f"  later     {what}: the same command once that has ended, or collect")
    return lines


def render_cancel(status: JobStatus, job: str, counts: CancelCounts) -> list[str]:
    """What became of a cancel."""
    cancelled, never, meanwhile, before, left = counts
    if not cancelled and not left and not meanwhile and not never:
        return [f"{status.name}: nothing to cancel, {before:,} had ended before"]
    words = [(never, "will not start"), (meanwhile, "ended meanwhile")]
    words += [(before, "had ended before"), (left, "still running")]
    said = "".join(f", {count:,} {word}" for count, word in words if count)
    lines = [f"{status.name}: {cancelled:,} cancelled{said}"]
    if cancelled:
        lines.append(f"  again     {write_verb('retry', job)}")
    if left:
        lines.append("  left      their runner does not answer; it ends them as soon as it can")
    return lines


def render_nothing_to_retry(status: JobStatus, job: str, *, is_chosen: bool) -> list[str]:
    """Why a retry has nothing to do. is_chosen: where only some tasks were meant."""
    if is_chosen:
        return [f"{status.name}: nothing to retry, no task that did not succeed is like that"]
    lines = [f"{status.name}: nothing to retry, {render_counts(status)}"]
    if waiting := status.counts["waiting"]:
        lines.append(_say_collect(job, waiting).render())
    return lines


def _say_collect(job: str, waiting: int) -> Note:
    command = write_verb("collect", job)
    return Note("again", f"{command}   runs the {waiting:,} that did not run")


def render_goes_on(status: JobStatus, job: str) -> list[str]:
    """What to say to somebody who stops watching."""
    return build_goes_on(status, job).render()


def build_goes_on(status: JobStatus, job: str) -> Ending:
    """The same, as the ending of a command."""
    watch, end = write_verb("collect", job), write_verb("cancel", job)
    first = f"{status.name} goes on without this terminal"
    return Ending(first, [Note("watch", watch), Note("end", end)])


class Note(NamedTuple):
    """A line below others, with a word before it that says what it is about."""

    label: str
    text: str

    def render(self) -> str:
        """`  results   umpteen-results/sweep`."""
        return f"  {self.label:<9} {self.text}"


class Ending(NamedTuple):
    """What is said at the end of a run."""

    # How it ended, in a sentence.
    first: str
    # `results`, `behind` and `again`: where the results are, and what to type.
    notes: list[Note]

    def render(self) -> list[str]:
        """All of it as lines."""
        return [self.first, *(note.render() for note in self.notes)]


def build_ending(
    status: JobStatus,
    job: str,
    seconds: float,
    work_s: float,
    *,
    is_whole: bool = True,
    left_failed: int = 0,
    left_behind: Sequence[str] = (),
) -> Ending:
    """How a run ended, where the results are, how to go on.

    is_whole: whether the command that ends here runs all there is to run. left_failed: how many
    did not succeed before, and were left alone; left_behind: names of those that are behind.
    """
    counts = {**status.counts}
    waiting = counts.pop("waiting") + counts.pop("running")
    words = [f"{n:,} {state.replace('_', ' ')}" for state, n in counts.items() if n]
    if waiting:
        words.append(f"{waiting:,} not run")
    slots = min(status.slots, status.total)
    work = f"{render_seconds(work_s / (slots or 1))} of work" + (" a slot" if slots else "")
    took = f"{render_seconds(seconds)} ({work})"
    left = min(left_failed, status.not_succeeded) + len(left_behind)
    alone = f" ({left:,} left alone)" if left else ""
    notes = [Note("results", shorten_path(status.address))]
    if left_behind:
        command = write_verb("retry", job, *left_behind[:1])
        notes.append(Note("behind", f"{_name_some(left_behind)}     {command}"))
    notes += _list_again(status, job, waiting, is_whole=is_whole)
    return Ending(f"{status.name}: {', '.join(words) or 'no tasks'}{alone} in {took}", notes)


def _list_again(status: JobStatus, job: str, waiting: int, *, is_whole: bool) -> list[Note]:
    """What to type for what did not succeed or did not run."""
    ended = _name_ended(status)
    if waiting and is_whole:
        runs = [ended] * bool(ended) + [f"the {waiting:,} that did not run"]
        return [Note("again", f"the same command runs {' and '.join(runs)}")]
    notes = []
    if ended:
        notes.append(Note("again", f"{write_verb('retry', job)}     runs {ended}"))
    if waiting:
        notes.append(_say_collect(job, waiting))
    return notes


def _name_some(names: Sequence[str]) -> str:
    """`merge`; of many the first, and how many more."""
    more = len(names) - _SHOWN_NAMES
    shown = ", ".join(clean(name) for name in names[:_SHOWN_NAMES])
    return f"{shown} and {more:,} more" if more > 0 else shown


def _name_ended(status: JobStatus) -> str:
    """`the 3 that failed`: what ended without success; empty where there is nothing."""
    states = ("failed", "timed_out", "cancelled", "skipped")
    there = [state for state in states if status.counts[state]]
    if not there:
        return ""
    if len(there) > 1:
        return f"the {status.not_succeeded:,} that did not succeed"
    (state,) = there
    count = status.counts[state]
    return f"the {count:,} that {tell_ends(state) if count > 1 else tell_end(state)}"
