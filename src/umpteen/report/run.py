"""How a job looks: `JobStatus` and plans as lines of text, tables and JSON.

Works nothing out that is not in what it is given, but for names and last lines of failures.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from umpteen.errors import StoreError
from umpteen.executors.base import LOCAL
from umpteen.history.history import History
from umpteen.model.command import write_verb
from umpteen.model.record import Record
from umpteen.model.states import tell_end
from umpteen.planning.plan import Plan
from umpteen.query.failures import Failure, describe_end
from umpteen.query.status import JobStatus
from umpteen.report.text import (
    LEAST_COLUMNS,
    UNITS_S,
    align,
    cut,
    fit,
    render_number,
    render_seconds,
    shorten_path,
)
from umpteen.system.terminal import clean
from umpteen.verbs.cancel import CancelCounts

__all__ = [
    "FoldedCounts",
    "fit_progress",
    "plan_to_dict",
    "render_bar",
    "render_cancel",
    "render_change",
    "render_counts",
    "render_dry_run",
    "render_end",
    "render_failures",
    "render_goes_on",
    "render_leave",
    "render_left",
    "render_nothing_to_retry",
    "render_plan",
    "render_start",
    "status_to_dict",
]
_SHOWN_FOLDS, _SHOWN_NAMES, _SHOWN_ALIKE = 5, 3, 2
_AFTER_WHICH = re.compile(r" after .+, which (.+)", re.DOTALL)
_Fold = dict[str, tuple[int, list[str]]]  # by reason: how many, and the names of the first
_PLURAL = {"was skipped": "were skipped", "was cancelled": "were cancelled"}


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
    where = "this machine" if status.executor in ("", LOCAL) else status.executor
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
        lines.append(_say_collect(job, waiting))
    return lines


def _say_collect(job: str, waiting: int) -> str:
    return f"  again     {write_verb('collect', job)}   runs the {waiting:,} that did not run"


def render_goes_on(status: JobStatus, job: str) -> list[str]:
    """What to say to somebody who stops watching."""
    return [
        f"{status.name} goes on without this terminal",
        f"  watch     {write_verb('collect', job)}",
        f"  end       {write_verb('cancel', job)}",
    ]


def render_plan(
    done: int,
    running: int,
    why: Mapping[str, int],
    former: int = 0,
    left_behind: int = 0,
    other_code: int = 0,
) -> str:
    """What of a job that ran before is run now: `97 done before, 20 new`.

    former: how many are running as they were before they changed. left_behind: how many are
    behind what they are after, and left alone. other_code: how many of those done were done with
    other code.
    """
    words = [
        (done, "done before"),
        (other_code, "of these with other code"),
        (running, "being run already"),
        (former, "of these changed and run again after that"),
        (why.get("failed", 0), "failed before and run again"),
        (why.get("timed_out", 0), "timed out before and run again"),
        (why.get("cancelled", 0), "cancelled before and run again"),
        (why.get("skipped", 0), "skipped before"),
        (why.get("changed", 0), "changed"),
        (why.get("unfinished", 0), "not finished before"),
        (why.get("succeeded", 0), "succeeded before and run again"),
        (why.get("gone", 0), "done before without their outputs now"),
        (why.get("code", 0), "done before with other code"),
        (why.get("behind", 0), "behind what they are after"),
        (left_behind, "behind what they are after and left alone"),
        (why.get("new", 0), "new"),
        (why.get("needed", 0), "needed by them"),
    ]
    return ", ".join(f"{n:,} {_as_one(word) if n == 1 else word}" for n, word in words if n)


def _as_one(word: str) -> str:
    word = word.replace("their outputs", "its outputs")
    return word.replace("they are after", "it is after")


def render_end(
    status: JobStatus,
    job: str,
    seconds: float,
    work_s: float,
    *,
    is_whole: bool = True,
    left_failed: int = 0,
    left_behind: Sequence[str] = (),
) -> list[str]:
    """The last lines of a run: how it ended, where the results are, how to go on.

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
    lines = [
        f"{status.name}: {', '.join(words) or 'no tasks'}{alone} in {took}",
        f"  results   {shorten_path(status.address)}",
    ]
    if left_behind:
        command = write_verb("retry", job, *left_behind[:1])
        lines.append(f"  behind    {_name_some(left_behind)}     {command}")
    ended = _name_ended(status)
    if waiting and is_whole:
        runs = [ended] * bool(ended) + [f"the {waiting:,} that did not run"]
        lines.append(f"  again     the same command runs {' and '.join(runs)}")
        return lines
    if ended:
        lines.append(f"  again     {write_verb('retry', job)}     runs {ended}")
    if waiting:
        lines.append(_say_collect(job, waiting))
    return lines


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
    how = tell_end(state)
    return f"the {count:,} that {_PLURAL.get(how, how) if count > 1 else how}"


def render_failures(job: str, failures: Sequence[Failure], width: int = 0) -> list[str]:
    """A line each: state, name, how it ended, its last line of stderr, what to type for all.

    `width`: of the terminal. What is too much for it is cut; where even that does not do, what
    to type has a line of its own below each. 0 aligns and cuts nothing.
    """
    rows = [_failure_cells(job, failure) for failure in failures]
    if not width or not rows:
        return [" " + "  ".join(cell for cell in row if cell) for row in rows]
    widths = fit([max(map(len, column)) for column in zip(*rows, strict=True)], width)
    if widths is not None:
        return [align(row, widths) for row in rows]
    widest = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    widths = fit(widest, width) or widest
    return [line for row in rows for line in (align(row[:-1], widths), f"   {row[-1]}")]


class FoldedCounts:
    """Tasks that were skipped or cancelled: counted by why, with the names of a few."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], _Fold] = {}  # by state and kind

    def add(self, history: History, batch: str, record: Record) -> None:
        """Count one more."""
        why = _say_unrun(record)
        fold = self._found.setdefault((record.state, _say_kind(why)), {})
        count, names = fold.get(why, (0, []))
        if count <= _SHOWN_NAMES and len(fold) <= _SHOWN_NAMES:
            names.append(clean(_read_name(history, batch, record)))
        fold[why] = (count + 1, names)

    def render(self, width: int = 0) -> list[str]:
        """`60 skipped after prep, which failed`: a line for each reason, the most first; one for
        all that differ in nothing but whom they were after, where these are many.

        width: of the terminal; 0 cuts nothing.
        """
        found = [
            (count, f"{state}{why}", names)
            for (state, kind), fold in self._found.items()
            for why, count, names in _list_lines(kind, fold)
        ]
        found.sort(key=lambda entry: -entry[0])
        lines = []
        for count, said, names in found[:_SHOWN_FOLDS]:
            few = f" ({', '.join(names)})" if count <= _SHOWN_NAMES else ""
            lines.append(f" {count:,} {said}{few}")
        if more := sum(count for count, _, _ in found[_SHOWN_FOLDS:]):
            lines.append(f" {more:,} more skipped or cancelled for other reasons")
        return [cut(line, width) for line in lines] if width else lines


def _list_lines(kind: str, fold: _Fold) -> Iterator[tuple[str, int, list[str]]]:
    """(why, how many, names of the first of them) for each line that is shown of one kind."""
    if len(fold) > _SHOWN_ALIKE:
        names = [name for _, some in fold.values() for name in some]
        yield kind, sum(count for count, _ in fold.values()), names
        return
    for why, (count, some) in fold.items():
        yield why, count, some


def _read_name(history: History, batch: str, record: Record) -> str:
    try:
        return history.describe_task(batch, record.task)[0]
    except StoreError:  # counted all the same
        return f"task {record.task}"


def _say_unrun(record: Record) -> str:
    """What follows `skipped` or `cancelled`; alike for all but the first of a chain."""
    how = describe_end(record)
    if record.state == "skipped" and how.endswith(", which was skipped"):
        return " after tasks that were skipped"
    if record.state == "skipped" and how.startswith("after "):
        return f" {how}"
    return f": {how}" if how else ""


def _say_kind(why: str) -> str:
    """The same for all that differ in the name of what they were after alone."""
    found = _AFTER_WHICH.fullmatch(why)
    return f" after tasks that {_PLURAL.get(found[1], found[1])}" if found else why


def _failure_cells(job: str, failure: Failure) -> list[str]:
    flags = "--stderr" if failure.has_stderr else ""
    command = write_verb("logs", job, failure.name, flags=flags)
    state = failure.state.replace("_", " ")
    name = clean(failure.name)
    reason = failure.reason.removeprefix(f"{state} ")
    how = f"{reason}  {failure.last_line}" if failure.last_line else reason
    return [state, name, clean(how), clean(command)]


def status_to_dict(status: JobStatus) -> dict[str, Any]:
    """The status as `--json` shows it."""
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


def render_dry_run(plan: Plan) -> list[str]:
    """What a run would do, why, and who said which setting."""
    count = sum(plan.why.values())
    reasons = render_plan(0, 0, plan.why, 0, len(plan.left_behind)) or "nothing to do"
    lines = [f"would run {count:,} of {plan.total:,} tasks: {reasons}"]
    if plan.done:
        lines.append(f"  done      {plan.done:,} are done and left alone")
    if plan.other_code:
        it = "it" if plan.other_code == 1 else "them"
        lines.append(
            f"  code      {plan.other_code:,} of these with other code than is synced now; "
            f"--rerun code runs {it} again"
        )
    if plan.dropped:
        lines.append(f"  dropped   {len(plan.dropped):,} that it had before are no longer in it")
    if plan.running:
        lines.append(f"  running   {plan.running:,} are being run already")
    for change in plan.changes[:10]:
        for field in ("command", "env", "cwd"):
            before, now = getattr(change.before, field), getattr(change.now, field)
            if before != now:
                lines.append(
                    f"  changed   {change.now.name}: {field}   {render_change(before, now)}"
                )
    if len(plan.changes) > 10:
        lines.append(f"  changed   … and {len(plan.changes) - 10:,} more")
    for index, other in itertools.islice((plan.behind | plan.left_behind).items(), 10):
        name, cause = plan.by_index(index).name, plan.by_index(other).name
        alone = "; left alone" if index in plan.left_behind else ""
        lines.append(f"  behind    {name}, which is after {cause}{alone}")
    if (count := len(plan.behind) + len(plan.left_behind)) > 10:
        lines.append(f"  behind    … and {count - 10:,} more")
    settings = plan.job.settings
    shown = {
        "slots": settings.slots,
        "executor": settings.executor,
        "address": shorten_path(settings.address),
        "deadline_s": settings.deadline_s and render_seconds(settings.deadline_s),
        "grace_s": render_seconds(settings.grace_s),
    }
    for key, value in shown.items():
        if value:
            label = {"address": "results"}.get(key, key.removesuffix("_s"))
            source = settings.sources[key]
            lines.append(f"  {label:<9} {value!s:<24} from {source}")
    return lines


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as `--dry-run --json` shows it."""
    settings = plan.job.settings
    return {
        "name": plan.job.name,
        "total": plan.total,
        "run": plan.why,
        "done": plan.done,
        "other_code": plan.other_code,
        "running": plan.running,
        "behind": _name_tasks(plan, plan.behind),
        "left": {"failed": plan.left_failed, "behind": _name_tasks(plan, plan.left_behind)},
        "changed": [
            {"name": c.now.name, "before": c.before.command, "now": c.now.command}
            for c in plan.changes
        ],
        "settings": {
            key: {"value": getattr(settings, key), "source": source}
            for key, source in settings.sources.items()
        },
    }


def _name_tasks(plan: Plan, indices: Iterable[int]) -> list[str]:
    return [plan.by_index(index).name for index in indices]


def render_change(before: Any, now: Any) -> str:
    """Two forms of a command or the like, without the words they begin and end with alike."""
    old, new = _words(before), _words(now)
    if old == new:
        return f"{before!r}  →  {now!r}"  # blanks alone
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    start = max(0, start - 1)  # one word that both have shows where the change is
    shown = [" ".join(words[start : len(words) - end]) or "(nothing)" for words in (old, new)]
    return "  →  ".join(shown)


def _words(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}={text}" for key, text in sorted(value.items())]
    if isinstance(value, list):
        return value
    return str(value).split() if value is not None else []
