"""What a run would do or does, and why: a plan as lines of text and as JSON."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NotRequired, TypedDict

from umpteen.executors.base import PreviewSection
from umpteen.planning.plan import Plan
from umpteen.report.text import render_seconds, shorten_path

__all__ = [
    "PlanJson",
    "plan_to_dict",
    "render_change",
    "render_dry_run",
    "render_plan",
    "render_requests",
]


_SCRIPTS_SHOWN = 10

_Form = str | list[str] | dict[str, str] | None  # of a command, an environment or a folder


class LeftJson(TypedDict):
    """What is left alone: how many that failed, and which are behind."""

    failed: int
    behind: list[str]


class ChangeJson(TypedDict):
    """A task whose command is not what it was."""

    name: str
    before: str | list[str]
    now: str | list[str]


class SettingJson(TypedDict):
    """A setting, and who said it."""

    value: object
    source: str


class RequestJson(TypedDict):
    """What the executor would be asked for: a part of it, or a limit of it."""

    title: str
    text: str
    facts: Mapping[str, str | int | float | None]
    script: NotRequired[str]


class PlanJson(TypedDict):
    """The plan as `--dry-run --json` shows it."""

    name: str
    total: int
    run: dict[str, int]
    done: int
    other_code: int
    running: int
    behind: list[str]
    left: LeftJson
    changed: list[ChangeJson]
    settings: dict[str, SettingJson]
    requests: list[RequestJson]


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


def render_requests(requests: Sequence[PreviewSection]) -> list[str]:
    """What the executor would be asked for; of many alike the first few."""
    scripts = [section for section in requests if section.script]
    lines = [f"  {section.title:<9} {section.text}" for section in scripts[:_SCRIPTS_SHOWN]]
    if (count := len(scripts) - _SCRIPTS_SHOWN) > 0:
        lines.append(f"  …         and {count:,} more")
    lines += [f"  {section.title:<9} {section.text}" for section in requests if not section.script]
    if scripts:
        lines.append("  scripts   are shown by --json")
    return lines


def plan_to_dict(plan: Plan, requests: Sequence[PreviewSection] = ()) -> PlanJson:
    """What would run, and why. requests: what the executor would be asked for."""
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
            if key != "results_options"  # may have secrets
        },
        "requests": [_request_to_dict(section) for section in requests],
    }


def _request_to_dict(section: PreviewSection) -> RequestJson:
    told: RequestJson = {"title": section.title, "text": section.text, "facts": section.facts}
    if section.script:
        told["script"] = section.script
    return told


def _name_tasks(plan: Plan, indices: Iterable[int]) -> list[str]:
    return [plan.by_index(index).name for index in indices]


def render_change(before: _Form, now: _Form) -> str:
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


def _words(value: _Form) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}={text}" for key, text in sorted(value.items())]
    if isinstance(value, list):
        return value
    return str(value).split() if value is not None else []
