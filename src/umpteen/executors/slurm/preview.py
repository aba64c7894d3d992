"""What a submission would ask Slurm for, for people and programs. Pure: asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from umpteen.executors.base import PreviewSection
from umpteen.job.slurm_options import GPU_OPTIONS, MEMORY_OPTIONS

__all__ = ["ArrayPreview", "Limits", "build_preview", "count_seconds"]


class ArrayPreview(NamedTuple):
    """An array that would be submitted."""

    elements: int
    options: Mapping[str, str]  # of sbatch
    script: str


class Limits(NamedTuple):
    """How much a cluster takes."""

    array_size: int  # MaxArraySize
    job_count: int  # MaxJobCount
    submit_jobs: int | None  # MaxSubmitJobs of the user; None: not known


def build_preview(
    arrays: Sequence[ArrayPreview], limits: Limits, time: str = ""
) -> list[PreviewSection]:
    """The arrays, what they ask for together, and limits.

    time: what sbatch finds in the environment for where no other is said.
    """
    sections = [_build_array(number, array, time) for number, array in enumerate(arrays)]
    return [*sections, _build_sum(arrays, time), _build_limits(arrays, limits)]


def _build_array(number: int, array: ArrayPreview, time: str) -> PreviewSection:
    options = array.options
    memory = " ".join(f"{key}={options[key]}" for key in MEMORY_OPTIONS if key in options)
    gpus = " ".join(f"{key}={options[key]}" for key in GPU_OPTIONS if key in options)
    limit = options.get("time", time)
    cpus = int(options["cpus-per-task"])
    words = [
        f"{array.elements:,} element{'s' * (array.elements != 1)}",
        f"of each {cpus} cpu{'s' * (cpus != 1)}",
        memory or "memory as the partition gives it",
        *([gpus] if gpus else []),
        f"time={limit}" if limit else "time as the partition gives it",
    ]
    facts = {
        "elements": array.elements, "cpus": cpus, "memory": memory or None, "gpus": gpus or None,
        "time": limit or None,
    }  # fmt: skip
    return PreviewSection(f"array {number}", ", ".join(words), facts, array.script)


def _build_sum(arrays: Sequence[ArrayPreview], time: str) -> PreviewSection:
    """Elements × cores × time, which is the most that they can take."""
    elements = sum(array.elements for array in arrays)
    hours = 0.0
    for array in arrays:
        seconds = count_seconds(array.options.get("time", time))
        if seconds is None:
            text = f"{elements:,} elements; no time is said, so core-hours are not known"
            return PreviewSection("in all", text, {"elements": elements, "core_hours": None})
        hours += array.elements * int(array.options["cpus-per-task"]) * seconds / 3600
    shown = f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
    text = f"{elements:,} elements, at most {shown} core-hours"
    return PreviewSection("in all", text, {"elements": elements, "core_hours": round(hours, 3)})


def _build_limits(arrays: Sequence[ArrayPreview], limits: Limits) -> PreviewSection:
    told = {
        "MaxArraySize": limits.array_size, "MaxJobCount": limits.job_count,
        "MaxSubmitJobs": limits.submit_jobs,
    }  # fmt: skip
    binding = list(_list_binding(arrays, limits))
    shown = ", ".join(f"{name}={limit}" for name, limit in told.items() if limit is not None)
    text = f"{shown}: " + ("; ".join(f"{name} {what}" for name, what in binding) or "none binds")
    binds = ",".join(name for name, _ in binding)
    return PreviewSection("limits", text, {**told, "binds": binds or None})


def _list_binding(arrays: Sequence[ArrayPreview], limits: Limits) -> Iterator[tuple[str, str]]:
    """Those that are reached, each with what comes of it."""
    elements = sum(array.elements for array in arrays)
    if limits.submit_jobs is not None and elements > limits.submit_jobs:
        yield "MaxSubmitJobs", "has it submitted in parts"
    if elements > limits.job_count:
        yield "MaxJobCount", "has it submitted in parts"
    if len(arrays) > 1 and max(a.elements for a in arrays) == limits.array_size:
        yield "MaxArraySize", "makes several arrays of one"


def count_seconds(text: str) -> int | None:
    """A time limit that `parse_time` gave, in seconds; None where there is none."""
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":") if part.isdecimal()]
    if not parts:
        return None
    if days:  # hours come first
        hours, minutes, seconds = [*parts, 0, 0][:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    if len(parts) == 3:
        return (parts[0] * 60 + parts[1]) * 60 + parts[2]
    return parts[0] * 60 + sum(parts[1:])
