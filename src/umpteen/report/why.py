"""Why a task is as it is, in sentences: a `Why` as lines of text and as JSON."""

from __future__ import annotations

import math
import textwrap
import time
from collections.abc import Sequence

import msgspec

from umpteen.model.command import write_verb
from umpteen.model.reasons import Reason, read_reason
from umpteen.model.record import Record
from umpteen.model.states import IS_FINAL, STATES, tell_end
from umpteen.query.attempts import Attempt
from umpteen.query.failures import describe_end, is_own_timeout
from umpteen.query.why import Blocker, Why
from umpteen.report.plan import render_change
from umpteen.report.text import render_seconds

__all__ = ["render_why", "why_to_dict"]

_SHOWN_BLOCKERS = 3


def render_why(why: Why, job: str = "", width: int = 0) -> list[str]:
    """How a task stands, in sentences, with what to type; then its attempts, if several.

    job: what to type for its job, where not its name. width: of the terminal, for which the
    sentence is broken.
    """
    said = _say_state(why)
    sentence = textwrap.wrap(said, width, break_on_hyphens=False) if width else [said]
    lines = [*sentence, *_list_commands(why, job or why.job)]
    if why.newer:
        how = "is behind itself" if why.is_newer_behind else "is newer"
        lines.append(f"  behind    it is after {why.newer}, which {how}")
    if why.before is not None:
        change = render_change(why.before, why.command)
        lines.append(f"  changed   since attempt {why.attempts[-1].record.attempt}: {change}")
    if why.missing:
        lines.append(f"  missing   {why.missing}")
    if why.instead:
        lines.append(f"  instead   it left {why.instead}: that is what to write in `expect`")
    if why.code:
        since = f"; since then {', '.join(why.code_since)} was synced" if why.code_since else ""
        lines.append(f"  code      {', '.join(why.code)}{since}")
    lines += [f"  lacks     it needs {what}" for what in why.lacks]
    if len(why.attempts) > 1 or (why.attempts and why.state == "waiting"):
        lines += [f"  attempt   {_say_attempt(attempt)}" for attempt in why.attempts]
    if why.batch:
        who = f"runner {why.runner} on {why.host}" if why.runner else "no runner yet"
        alive = "" if why.is_alive or not why.runner else ", which has ended"
        lines.append(f"  batch     {why.batch}, {who}{alive}")
    if why.queue:
        lines.append(f"  queue     {why.queue}")
    if why.death and why.state in ("waiting", "running"):
        lines.append(f"  trouble   {why.death}")
    return lines


def why_to_dict(why: Why) -> dict[str, object]:
    """The same as `--json` shows it; records as they are on disk."""
    shown: dict[str, object] = msgspec.structs.asdict(why)
    shown["attempts"] = [_attempt_to_dict(attempt) for attempt in why.attempts]
    shown["blockers"] = [
        {
            **msgspec.structs.asdict(blocker),
            "attempt": _attempt_to_dict(blocker.attempt) if blocker.attempt else None,
        }
        for blocker in why.blockers
    ]
    return shown


def _attempt_to_dict(attempt: Attempt) -> dict[str, object]:
    shown = {**attempt.record.to_dict(), "runner": attempt.runner, "host": attempt.host}
    return {**shown, "lost": True} if attempt.is_lost else shown


def _say_state(why: Why) -> str:
    """One sentence."""
    name, last = why.name, why.attempts[-1] if why.attempts else None
    if why.is_dropped:
        return f"{name} is not in the job any more; what it left is kept."
    if why.state == "running":
        since = f"{_render_time(why.start_s)} ({render_seconds(time.time() - why.start_s)})"
        return f"{name} runs since {since}, in slot {why.slot} on {why.host}, process {why.pid}."
    if why.state in ("waiting", "skipped"):
        return _say_waiting(why, last)
    if last is None:
        return f"{name}: {why.state}."
    if why.state == "cancelled":
        record = last.record
        ran = _say_took(record) or ", before it began"
        reason = f": {record.reason}" if record.reason else ""
        return f"{name} was cancelled at {_render_time(record.end_s)}{ran}{reason}."
    return f"{name} {_say_end(last)}{_say_took(last.record)}."


def _say_waiting(why: Why, last: Attempt | None) -> str:
    if why.blockers and why.state == "skipped":
        ended = [b for b in why.blockers if IS_FINAL[STATES.index(b.state)]] or why.blockers
        return f"{why.name} was skipped after {_say_blockers(ended, ', and after ')}."
    if why.blockers:
        waits = _say_blockers(why.blockers, ", and for ")
        return f"{why.name} has not run: it waits for {waits}."
    if why.state == "skipped":
        reason = f": {last.record.reason}" if last and last.record.reason else ""
        return f"{why.name} was skipped{reason}; what it is after has changed since."
    if not why.batch:
        return f"{why.name} has not run: it was never submitted."
    if not why.is_alive:
        return f"{why.name} has not come to an end, and nobody is at it any more."
    if last and last.record.retry:
        return f"{why.name} {_say_end(last)}, and is tried again by its rules."
    return f"{why.name} has not run: it waits for a free slot."


def _say_blockers(blockers: Sequence[Blocker], joint: str) -> str:
    """Those through which the same task stands in the way are told together."""
    groups: dict[str, list[Blocker]] = {}
    for place, blocker in enumerate(blockers):
        groups.setdefault(blocker.name if blocker.by else f"\0{place}", []).append(blocker)
    said = [_say_blocker(group[0], len(group)) for group in groups.values()]
    more = len(said) - _SHOWN_BLOCKERS
    return joint.join(said[:_SHOWN_BLOCKERS]) + (f", and {more:,} more" if more > 0 else "")


def _say_blocker(blocker: Blocker, count: int) -> str:
    """count: how many tasks pass it on alike."""
    name = f"the canary {blocker.name}" if blocker.is_canary else blocker.name
    if not IS_FINAL[STATES.index(blocker.state)]:
        return f"{name}, which has not ended"
    how = _say_end(blocker.attempt) if blocker.attempt else tell_end(blocker.state)
    if blocker.by:
        passed = f"{blocker.by[0]}, which was"
        if count > 1:
            passed = f"{blocker.by[0]} and {count - 1:,} more, which were"
        return f"{passed} skipped because {name} {how}"
    if blocker.outcome == "failed":
        return f"{name}, which was to fail and {how}"
    return f"{name}, which {how}"


def _say_end(attempt: Attempt) -> str:
    """`failed (exit 2) at 14:03 on n17`."""
    record = attempt.record
    where = f" on {attempt.host}" if attempt.host else ""
    how = _say_how(record)
    return f"{tell_end(record.state)}{how} at {_render_time(record.end_s)}{where}"


def _say_how(record: Record) -> str:
    """` (exit 2)`; empty where the state and the time that it took say all."""
    how = "" if is_own_timeout(record) or record.succeeded else describe_end(record)
    return f" ({how})" if how else ""


def _say_attempt(attempt: Attempt) -> str:
    record = attempt.record
    if attempt.is_lost:
        began = _render_time(record.start_s)
        return f"{record.attempt} was lost: it began at {began}, and its runner died"
    found = read_reason(record.reason)
    if found and found.reason is Reason.INTERRUPTED:
        when = _render_time(record.end_s)
        return f"{record.attempt} was interrupted at {when}{_say_took(record)}"
    again = ", and was tried again by its rules" if record.retry else ""
    return f"{record.attempt} {_say_end(attempt)}{_say_took(record)}{again}"


def _say_took(record: Record) -> str:
    """`, after 2 s`; empty where it took no time."""
    return f", after {render_seconds(record.seconds)}" if record.seconds >= 0.01 else ""


def _list_commands(why: Why, job: str) -> list[str]:
    """What to type next."""
    name = why.name
    if why.state == "succeeded" and why.newer and not why.is_dropped:
        return [f"  {write_verb('retry', job, name)}     runs it again"]
    if why.is_dropped or why.state in ("running", "succeeded"):
        return []
    ended = [b for b in why.blockers if b.state not in ("waiting", "skipped", "succeeded")]
    if ended and why.state in ("waiting", "skipped"):
        other = ended[0].name
        behind = f"{ended[0].name}{_name_behind(ended[0].behind)}"
        return [
            "  " + write_verb("logs", job, other, flags="--stderr"),
            f"  {write_verb('retry', job, other)}     runs {behind}",
        ]
    if why.state in ("failed", "timed_out"):
        again = f"  {write_verb('retry', job, name)}     runs it again{_name_behind(why.behind)}"
        lines = ["  " + write_verb("logs", job, name, flags="--stderr"), again]
        if why.state == "timed_out" and why.attempts and not why.attempts[-1].record.reason:
            longer = _double(why.attempts[-1].record.seconds)
            again = write_verb("retry", job, name, flags=f"--timeout {longer}")
            lines.append(f"  {again}     gives it longer")
        return lines
    if why.state == "cancelled":
        return [f"  {write_verb('retry', job, name)}     runs it{_name_behind(why.behind)}"]
    if why.state == "waiting" and not why.is_alive:
        return [f"  {write_verb('collect', job)}     runs what has not run"]
    return []


def _double(seconds: float) -> str:
    """Twice a duration, as --timeout takes it."""
    doubled = 2 * max(1, math.ceil(seconds))
    return f"{doubled}s" if doubled < 180 else f"{math.ceil(doubled / 60)}m"


def _name_behind(count: int) -> str:
    return f" and the {count:,} {'task' if count == 1 else 'tasks'} behind it" if count else ""


def _render_time(then_s: float) -> str:
    """`14:03` today, else with its date; by the clock of this machine."""
    then, now = time.localtime(then_s), time.localtime()
    return time.strftime("%H:%M" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)
