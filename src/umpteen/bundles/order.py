"""Which job of a bundle comes before which: dependencies with their kinds, and the order."""

from __future__ import annotations

import graphlib
from typing import NamedTuple

from umpteen.bundles.bundle import Bundle, BundleJob
from umpteen.errors import InputError, nearest_hint

__all__ = ["AFTER_OK", "KINDS", "SINGLETON", "Dependency", "list_dependencies", "sort_jobs"]

AFTER_OK = "afterok"
SINGLETON = "singleton"
KINDS = (AFTER_OK, "afterany", "afternotok")


class Dependency(NamedTuple):
    """What a job waits for, as Slurm has it."""

    kind: str
    # The job; empty for `singleton`, which means all others with the same name and user.
    job: str


def list_dependencies(bundle: Bundle, job: BundleJob) -> list[Dependency]:
    """What a job waits for; raises InputError where the bundle has no such job."""
    return [_parse(bundle, job, text) for text in job.dependencies]


def sort_jobs(bundle: Bundle) -> list[BundleJob]:
    """The jobs, each after all that it waits for.

    Raises InputError where jobs wait for one another, or for one that the bundle has not.
    """
    before = {
        name: [each.job for each in list_dependencies(bundle, job) if each.job]
        for name, job in bundle.jobs.items()
    }
    try:
        return [bundle.jobs[name] for name in graphlib.TopologicalSorter(before).static_order()]
    except graphlib.CycleError as error:
        said = " after ".join(reversed(error.args[1]))
        raise InputError(
            f"jobs wait for one another: {said}", "remove one of these dependencies",
            file=bundle.path, field="dependencies",
        ) from None  # fmt: skip


def _parse(bundle: Bundle, job: BundleJob, text: str) -> Dependency:
    if text in bundle.jobs:  # whatever it is called
        return Dependency(AFTER_OK, text)
    if text == SINGLETON:
        return Dependency(SINGLETON, "")
    kind, _, name = text.partition(":")
    if kind in KINDS and name in bundle.jobs:
        return Dependency(kind, name)
    raise InputError(
        f"the job {job.name!r} depends on {text!r}, which the bundle does not have",
        nearest_hint(name if kind in KINDS else text, bundle.jobs),
        file=bundle.path,
        field=f"{job.name}.dependencies",
    )
