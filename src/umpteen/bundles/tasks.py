"""The jobs of a bundle as tasks of a job of umpteen, which runs them in Slurm's queue. Pure.

A job with an array becomes a task for each of its indices.
"""

from __future__ import annotations

import glob
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from umpteen.bundles.bundle import Bundle, BundleJob
from umpteen.bundles.log import build_log_word, build_run_path
from umpteen.bundles.order import SINGLETON, list_dependencies, sort_jobs
from umpteen.bundles.script import build_digest, build_script_path, merge_options
from umpteen.config.machines import Machine
from umpteen.errors import InputError
from umpteen.job.spec import Task, TaskOptions

__all__ = ["JobTasks", "build_tasks"]

_OUTCOMES = {"afterok": "succeeded", "afterany": "any", "afternotok": "failed"}
_PART = re.compile(r"(\d{1,9})(?:-(\d{1,9})(?::([1-9]\d{0,8}))?)?", re.ASCII)
_DOT = re.compile(r"\.")
_LIMIT = re.compile(r"%[1-9]\d*|")
_INDICES_MOST = 1_000_000
# What the command line of a task does itself.
_OF_THE_COMMAND = ("output", "error", "input", "open-mode", "array")


class JobTasks(NamedTuple):
    """What one job of a bundle becomes."""

    job: BundleJob
    tasks: list[Task]


class _Array(NamedTuple):
    indices: list[int]
    limit: str  # `%2`, where so many may run at once


def build_tasks(bundle: Bundle, machine: Machine) -> list[JobTasks]:
    """For each job, in an order in which each is behind all that it is after.

    Raises InputError where jobs wait for one another or for one that is not there.
    """
    jobs = sort_jobs(bundle)
    arrays = {job.name: _parse_array(bundle, job) for job in jobs}
    names = {name: _list_names(name, array) for name, array in arrays.items()}
    words = _list_words(names)
    return [
        JobTasks(job, _build_job(bundle, job, machine, arrays[job.name], names[job.name], words))
        for job in jobs
    ]


def _list_words(names: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """What others say that are after a job: a pattern where it means the job's tasks and no other.

    Else an array after an array would be as many words as both have elements, multiplied.
    """
    # How many tasks have a name that begins so, for each part of it before a dot.
    counts = Counter(
        name[: dot.start()] for own in names.values() for name in own for dot in _DOT.finditer(name)
    )
    return {
        job: [f"{glob.escape(job)}.*"] if len(own) == counts[job] > 1 else own
        for job, own in names.items()
    }


def _build_job(
    bundle: Bundle,
    job: BundleJob,
    machine: Machine,
    array: _Array | None,
    names: Sequence[str],
    words: Mapping[str, Sequence[str]],
) -> list[Task]:
    """The tasks of a job. names: theirs; words: by job, what others say that are after it."""
    options = merge_options(job, machine)
    given = {key: value for key, value in options.items() if key not in _OF_THE_COMMAND}
    after: list[tuple[str, str]] = []
    for dependency in list_dependencies(bundle, job):
        if dependency.kind == SINGLETON:
            given["dependency"] = ",".join(filter(None, [given.get("dependency"), SINGLETON]))
        else:
            outcome = _OUTCOMES[dependency.kind]
            after += ((word, outcome) for word in words[dependency.job])
    if array:
        given["array"] = array.limit
    needs = TaskOptions(after=after, slurm=given)
    script = build_script_path(job, machine, bundle.timestamp)
    digest = build_digest(job, machine)
    shared = _build_variables(array) if array else {}
    return [
        Task(
            _build_command(options, machine, script, digest, index),
            name,
            env={**shared, "SLURM_ARRAY_TASK_ID": str(index)} if array else None,
            options=needs,
        )
        for name, index in zip(names, array.indices if array else [None], strict=True)
    ]


def _build_command(
    options: Mapping[str, str], machine: Machine, script: str, digest: str, index: int | None
) -> str:
    name = options["job-name"]
    words = [
        "exec",  # else who is asked to end is a shell that waits for it, and ends at once
        "sh",
        shlex.quote(build_run_path(machine)),
        "job" if index is None else "array",
        build_log_word(options["output"], name, index),
        build_log_word(options.get("error", ""), name, index),
        shlex.quote(script),
    ]
    if "input" in options:
        words += ["<", build_log_word(options["input"], name, index)]
    # With another digest it is another command, which runs although the one before succeeded.
    return " ".join([*words, f"# {digest}"])


def _build_variables(array: _Array) -> dict[str, str]:
    """Those that its elements share: Slurm's own are of the array that umpteen makes."""
    found = {
        "COUNT": len(array.indices),
        "MIN": min(array.indices),
        "MAX": max(array.indices),
    }
    return {f"SLURM_ARRAY_TASK_{key}": str(value) for key, value in found.items()}


def _list_names(name: str, array: _Array | None) -> list[str]:
    return [f"{name}.{index}" for index in array.indices] if array else [name]


def _parse_array(bundle: Bundle, job: BundleJob) -> _Array | None:
    """`0-9:3,12%2` has the indices 0, 3, 6, 9 and 12, of which two may run at once."""
    given = job.slurm.get("array")
    if given is None:
        return None
    text, sign, limit = given.partition("%")
    parts = [_PART.fullmatch(part.strip()) for part in text.split(",")]
    indices: dict[int, None] = {}
    for part in parts:
        first, last, step = part.groups() if part else ("", "", "")
        found = range(int(first), int(last or first) + 1, int(step or 1)) if first else range(0)
        if (
            not found
            or len(indices) + len(found) > _INDICES_MOST
            or not _LIMIT.fullmatch(sign + limit)
        ):
            field = f"{job.name}.slurm.array"
            raise InputError(
                f"{field}: {given!r} are no indices", "write 0-9, 1,3,5 or 0-9%2",
                file=bundle.path, field=field,
            )  # fmt: skip
        indices.update(dict.fromkeys(found))
    return _Array(list(indices), sign + limit)
