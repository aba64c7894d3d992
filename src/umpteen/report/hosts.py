"""Hosts behind ssh as a table and as JSON: what each has and runs, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

from umpteen.executors.ssh.hosts import Host
from umpteen.model.agent_messages import COPY, RUNNER, HostItem, HostRunner
from umpteen.report.text import cut, render_number, render_seconds, render_size, render_table
from umpteen.system.terminal import clean
from umpteen.verbs.hosts import Answered, HostFacts

__all__ = ["CleanedJson", "HostJson", "cleaned_to_dict", "host_to_dict", "render_cleaned",
           "render_hosts"]  # fmt: skip

_HEAD = ("host", "slots", "memory", "gpus", "disk free", "load", "python", "answers in", "runs",
         "copies", "wrong")  # fmt: skip
_RIGHT = "lrrrrrlr"
_WORD = 40  # columns of a word that a host says
_JOBS_SHOWN = 2


class HostRunnerJson(TypedDict):
    """A runner that lives on a host."""

    token: str
    address: str
    job: str
    started_s: float


class HostCopyJson(TypedDict):
    """What a host keeps of a job whose folder it does not see."""

    name: str
    job: str
    size_bytes: int
    changed_s: float
    has_runner: bool
    is_home: bool


class HostJson(TypedDict, total=False):
    """A host, as `hosts --json` shows it; of one that is not reached the first four and `wrong`."""

    host: str
    is_reached: bool
    reason: str
    hint: str
    name: str
    user: str
    folder: str
    python: str
    cpus: int
    slots: int
    capabilities: list[str]
    memory_bytes: int
    gpus: int
    load: float
    disk_free_bytes: int
    round_trip_ms: float
    clock_ahead_s: float
    runners: list[HostRunnerJson]
    copies: list[HostCopyJson]
    wrong: list[str]


class HostItemJson(TypedDict):
    """Something that was removed from a host, or would be."""

    kind: str
    name: str
    job: str
    size_bytes: int
    failure: str


class CleanedJson(TypedDict):
    """What was removed from a host, as `hosts clean --json` shows it."""

    host: str
    is_reached: bool
    reason: str
    hint: str
    is_dry: bool
    removed: list[HostItemJson]


# --- what is there --------------------------------------------------------------------------------


def render_hosts(answers: Sequence[Answered[HostFacts]]) -> list[str]:
    """The lines of a table: the head, and one for each host."""
    rows = [
        _build_cells(each.host, each.found)
        if each.found
        else [each.host.name, *"-" * (len(_HEAD) - 2), each.reason]
        for each in answers
    ]
    return render_table(_HEAD, rows, right=_RIGHT)


def _build_cells(host: Host, facts: HostFacts) -> list[str]:
    probe = facts.probe
    return [
        host.name,
        f"{host.slots} of {probe.cpus}" if host.slots else f"{probe.cpus}",
        render_size(probe.memory),
        f"{probe.gpus}",
        render_size(probe.disk_free),
        f"{probe.load:.1f}",
        _shorten(probe.python),
        _render_trip(facts.trip_s),
        _render_runners(facts) or "-",
        _render_copies(facts) or "-",
        "; ".join(_list_wrong(facts)) or "-",
    ]


def _shorten(word: str) -> str:
    return cut(clean(word), _WORD)


def _render_trip(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def _render_runners(facts: HostFacts) -> str:
    """Each job that has runners there, by its name else its address, and since when."""
    jobs: dict[str, list[HostRunner]] = {}
    for runner in facts.runners:
        jobs.setdefault(runner.job or runner.address or runner.token, []).append(runner)
    shown = []
    for job, runners in list(jobs.items())[:_JOBS_SHOWN]:
        since_s = max(0.0, facts.probe.time - min(runner.time for runner in runners))
        several = f"{len(runners):,} runners, " if len(runners) > 1 else ""
        shown.append(f"{_shorten(job)} ({several}for {render_seconds(since_s)})")
    more = len(jobs) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def _render_copies(facts: HostFacts) -> str:
    if not facts.copies:
        return ""
    return f"{len(facts.copies):,}, {render_size(sum(copy.size for copy in facts.copies))}"


def _list_wrong(facts: HostFacts) -> list[str]:
    """What is wrong with a host that answers, each in some words."""
    found = []
    if facts.is_disk_low:
        found.append(f"its disk is nearly full: {render_size(facts.probe.disk_free)} left")
    if facts.is_clock_wrong:
        way = "ahead" if facts.ahead_s > 0 else "behind"
        found.append(f"its clock is {render_seconds(abs(facts.ahead_s))} {way}")
    return found


def host_to_dict(answered: Answered[HostFacts]) -> HostJson:
    """All that is known of a host."""
    host, facts = answered.host, answered.found
    told = HostJson(
        host=host.name, is_reached=facts is not None, reason=answered.reason, hint=answered.hint
    )
    if facts is None:
        return HostJson(**told, wrong=[answered.reason])
    probe = facts.probe
    return HostJson(
        **told,
        name=probe.host,
        user=probe.user,
        folder=probe.folder,
        python=probe.python,
        cpus=probe.cpus,
        slots=host.slots or probe.cpus,
        capabilities=sorted(host.capabilities),
        memory_bytes=probe.memory,
        gpus=probe.gpus,
        load=probe.load,
        disk_free_bytes=probe.disk_free,
        round_trip_ms=round(facts.trip_s * 1000, 3),
        clock_ahead_s=round(facts.ahead_s, 3),
        runners=[
            HostRunnerJson(
                token=runner.token,
                address=runner.address,
                job=runner.job,
                started_s=facts.find_time(runner.time),
            )
            for runner in facts.runners
        ],
        copies=[
            HostCopyJson(
                name=copy.name,
                job=copy.job,
                size_bytes=copy.size,
                changed_s=facts.find_time(copy.time),
                has_runner=copy.has_runner,
                is_home=copy.is_home,
            )
            for copy in facts.copies
        ],
        wrong=_list_wrong(facts),
    )


# --- what was removed -----------------------------------------------------------------------------


def render_cleaned(answers: Sequence[Answered[list[HostItem]]], *, is_dry: bool) -> Iterator[str]:
    """The lines of a table: one for each that was removed, and for each host without any."""
    rows: list[list[str]] = []
    for each in answers:
        items = each.found or []
        rows += [
            [each.host.name, _name_item(item), render_size(item.size), _shorten(item.failure)]
            for item in items
        ]
        if not items:
            said = "nothing" if each.found is not None else "-"
            rows.append([each.host.name, said, "", each.reason])
    yield from render_table(["host", "to be removed" if is_dry else "removed", "size", ""], rows,
                            right="llr")  # fmt: skip
    items = [item for each in answers for item in each.found or [] if not item.failure]
    size = render_size(sum(item.size for item in items))
    yield f"{render_number(len(items), 'thing')}, {size}" + (" to be removed" if is_dry else "")


def _name_item(item: HostItem) -> str:
    name = _shorten(item.name)
    if item.kind == COPY:
        return f"copy of {_shorten(item.job)}, {name}" if item.job else f"copy {name}"
    return f"runner {name}" if item.kind == RUNNER else f"synced folder {name}"


def cleaned_to_dict(answered: Answered[list[HostItem]], *, is_dry: bool) -> CleanedJson:
    """What was removed from a host."""
    items = answered.found or []
    return {
        "host": answered.host.name,
        "is_reached": answered.found is not None,
        "reason": answered.reason,
        "hint": answered.hint,
        "is_dry": is_dry,
        "removed": [
            {
                "kind": item.kind,
                "name": item.name,
                "job": item.job,
                "size_bytes": item.size,
                "failure": item.failure,
            }
            for item in items
        ],
    }
