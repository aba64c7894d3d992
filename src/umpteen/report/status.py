"""How a job stands, as lines of text and as JSON: counts, what failed, and what never ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from umpteen.model.command import write_verb
from umpteen.model.states import tell_end
from umpteen.query.failures import Failure
from umpteen.query.status import JobStatus, RunningTask
from umpteen.query.unrun import NAMES_SHOWN, UnrunCause, UnrunGroup
from umpteen.report.text import UNITS_S, align, cut, fit, measure_columns, tell_ends
from umpteen.system.terminal import clean

__all__ = [
    "FailureJson",
    "RunningJson",
    "StatusJson",
    "failure_to_dict",
    "render_bar",
    "render_counts",
    "render_failures",
    "render_left",
    "render_unrun",
    "running_to_dict",
    "status_to_dict",
]

_GROUPS_SHOWN = 5


class FailureJson(TypedDict):
    """A failure as `--json` shows it, wherever it does."""

    index: int
    name: str
    state: str
    reason: str
    last_line: str


class RunningJson(TypedDict):
    """A task that runs, as `status --json` shows it."""

    index: int
    slot: int
    start_s: float


class StatusJson(TypedDict):
    """How a job stands, as `--json` shows it, wherever it does; the keys of JobStatus."""

    name: str
    address: str
    executor: str
    state: str
    total: int
    counts: dict[str, int]
    slots: int
    seconds: float
    started_s: float
    last_end_s: float
    trouble: str
    left_s: list[float] | None


def render_counts(status: JobStatus) -> str:
    """`58 done · 3 failed · 8 running · 31 waiting`; what there is none of is left out."""
    counts = status.counts
    parts = [(counts["succeeded"], "done")]
    parts += [(counts[state], state.replace("_", " ")) for state in ("failed", "timed_out")]
    parts += [(counts[state], state) for state in ("cancelled", "skipped", "running", "waiting")]
    return " · ".join(f"{n:,} {word}" for n, word in parts if n) or "nothing yet"


def render_bar(status: JobStatus, width: int) -> str:
    """A bar of `width` characters for the share of tasks that came to an end."""
    share = status.finished / status.total if status.total else 1.0
    filled = int(share * width)
    half = "╸" if share * width - filled >= 0.5 and filled < width else ""
    return ("━" * filled + half).ljust(width)


def render_left(left_s: tuple[float, float] | None) -> str:
    """`4-6 s left`, in the unit of the longer end."""
    if left_s is None:
        return ""
    low, high = left_s
    if high < 1:
        return "1 s left"
    size, unit = next(pair for pair in UNITS_S if high >= pair[0] * (1 if pair[1] == "s" else 1.5))
    low, high = round(low / size), max(1, round(high / size))
    return f"{high} {unit} left" if low >= high else f"{low}–{high} {unit} left"


def render_failures(job: str, failures: Sequence[Failure], width: int = 0) -> list[str]:
    """A line each: state, name, how it ended, its last line of stderr, what to type for all.

    `width`: of the terminal. What is too much for it is cut; where even that does not do, what
    to type has a line of its own below each. 0 aligns and cuts nothing.
    """
    rows = [_failure_cells(job, failure) for failure in failures]
    if not width or not rows:
        return [" " + "  ".join(cell for cell in row if cell) for row in rows]
    widest = measure_columns(rows)
    widths = fit(widest, width)
    if widths is not None:
        return [align(row, widths) for row in rows]
    widths = fit(widest[:-1], width) or widest[:-1]
    return [line for row in rows for line in (align(row[:-1], widths), f"   {row[-1]}")]


def render_unrun(groups: Sequence[UnrunGroup], width: int = 0) -> list[str]:
    """`60 skipped after prep, which failed`: a line for each of the largest groups.

    width: of the terminal; 0 cuts nothing.
    """
    lines = []
    for group in groups[:_GROUPS_SHOWN]:
        few = f" ({', '.join(group.names)})" if group.tasks <= NAMES_SHOWN else ""
        lines.append(f" {group.tasks:,} {group.state}{_say_cause(group.cause)}{few}")
    if more := sum(group.tasks for group in groups[_GROUPS_SHOWN:]):
        lines.append(f" {more:,} more skipped or cancelled for other reasons")
    return [cut(line, width) for line in lines] if width else lines


def _say_cause(cause: UnrunCause) -> str:
    """What follows `skipped` or `cancelled`; empty where that says it all."""
    if cause.after is None:
        return f": {cause.reason}" if cause.reason else ""
    if cause.after:
        return f" after {cause.after}, which {tell_end(cause.end)}"
    return f" after tasks that {tell_ends(cause.end)}"


def _failure_cells(job: str, failure: Failure) -> list[str]:
    flags = "--stderr" if failure.has_stderr else ""
    command = write_verb("logs", job, failure.name, flags=flags)
    state = failure.state.replace("_", " ")
    name = clean(failure.name)
    how = f"{failure.more}  {failure.last_line}" if failure.last_line else failure.more
    return [state, name, clean(how), clean(command)]


def failure_to_dict(failure: Failure) -> FailureJson:
    """What of it is no matter of this terminal."""
    return {
        "index": failure.index,
        "name": failure.name,
        "state": failure.state,
        "reason": failure.reason,
        "last_line": failure.last_line,
    }


def running_to_dict(task: RunningTask) -> RunningJson:
    """Which it is, and since when it runs where."""
    return {"index": task.index, "slot": task.slot, "start_s": task.start_s}


def status_to_dict(status: JobStatus) -> StatusJson:
    """All of it but who runs now and how fast."""
    return {
        "name": status.name,
        "address": status.address,
        "executor": status.executor,
        "state": status.state,
        "total": status.total,
        "counts": status.counts,
        "slots": status.slots,
        "seconds": round(status.seconds, 3),
        "started_s": status.started_s,
        "last_end_s": status.last_end_s,
        "trouble": status.trouble,
        "left_s": list(status.left_s) if status.left_s and status.finished < status.total else None,
    }
