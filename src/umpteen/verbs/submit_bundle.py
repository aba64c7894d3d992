"""`submit`: the jobs of a bundle become a job in Slurm's queue."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from umpteen.bundles.bundle import Bundle
from umpteen.bundles.log import RUN_SCRIPT, build_run_path
from umpteen.bundles.script import build_script, build_script_path, merge_options
from umpteen.bundles.tasks import JobTasks, build_tasks
from umpteen.config.machines import Machine
from umpteen.errors import InputError
from umpteen.executors.base import OnProgress, ignore_progress
from umpteen.executors.slurm.cluster import find_jobs
from umpteen.history.history import History
from umpteen.job.settings import Setting, merge_settings
from umpteen.job.spec import Job, check_job_name
from umpteen.model.names import find_bad_name
from umpteen.query.job_names import shorten_bundle_job
from umpteen.store.address import open_store, working_folder
from umpteen.submission.placement import place_on
from umpteen.submission.settings import resolve_settings
from umpteen.verbs.run import submit

__all__ = ["PlannedJob", "SubmittedBundle", "SubmittedJob", "plan_bundle", "submit_bundle"]


class PlannedJob(NamedTuple):
    """A job of a bundle as it would be submitted."""

    name: str
    script: str  # its path
    after: list[str]  # what it depends on, as the bundle says it
    tasks: int  # more than one for an array


class SubmittedJob(NamedTuple):
    """A job of a bundle that is in the queue."""

    name: str
    slurm_id: int | None  # None where it is done, and was not submitted again
    log: str  # the pattern of its path, as sbatch has it
    slurm_name: str
    tasks: int


class SubmittedBundle(NamedTuple):
    """What became of a bundle."""

    word: str  # what verbs find it by
    address: str  # of its results
    jobs: list[SubmittedJob]


def plan_bundle(bundle: Bundle, machine: Machine) -> list[PlannedJob]:
    """What would be submitted, in order; nothing is written. Raises InputError."""
    return [
        PlannedJob(
            job.name,
            build_script_path(job, machine, bundle.timestamp),
            list(job.dependencies),
            len(tasks),
        )
        for job, tasks in _build_tasks(bundle, machine)
    ]


def submit_bundle(
    bundle: Bundle, machine: Machine, on_progress: OnProgress = ignore_progress
) -> SubmittedBundle:
    """Write the scripts of a bundle, and submit what is not done of its jobs.

    Raises InputError where the bundle is wrong, before anything is written, and BackendError in
    sbatch's words, after which nothing of it is in the queue.
    """
    found = _build_tasks(bundle, machine)
    if not found:
        return SubmittedBundle(bundle.name, "", [])
    job = resolve_settings(_build_job(bundle, machine, found), working_folder())
    _write_scripts(bundle, machine, job, found)
    handle = submit(job, on_progress=on_progress)
    ids = dict(_list_ids(handle.history, handle.batches))
    jobs = [_describe(each, machine, ids) for each in found]
    word = shorten_bundle_job(bundle.name, job.name, job.settings.address)
    return SubmittedBundle(word, job.settings.address, jobs)


def _build_tasks(bundle: Bundle, machine: Machine) -> list[JobTasks]:
    """What jobs become; raises InputError also where they cannot be tasks beside one another."""
    found = build_tasks(bundle, machine)
    bad = find_bad_name([task.name for each in found for task in each.tasks])
    if bad:
        raise InputError(bad.message, bad.hint, file=bundle.path)
    return found


def _build_job(bundle: Bundle, machine: Machine, found: list[JobTasks]) -> Job:
    """A job of umpteen; each submission of a bundle goes on with the same."""
    name = check_job_name(f"{bundle.name}-{bundle.timestamp}")
    chosen = {key: Setting(1, bundle.path) for key in ("batch_size", "slots")}
    tasks = [task for each in found for task in each.tasks]
    return place_on(Job(name, tasks, merge_settings(chosen)), machine)


def _write_scripts(bundle: Bundle, machine: Machine, job: Job, found: list[JobTasks]) -> None:
    time = bundle.timestamp
    texts = {
        build_script_path(each.job, machine, time): build_script(each.job, machine, time)
        for each in found
    }
    texts[build_run_path(machine)] = RUN_SCRIPT
    host = f"ssh://{machine.target}" if machine.target else ""
    folder = open_store(f"{host}{machine.folder}/slurm", job.settings.results_options or None)
    for path, text in texts.items():
        folder.replace(os.path.basename(path), text.encode())


def _list_ids(history: History, batches: Sequence[str]) -> Iterator[tuple[str, int]]:
    """The names of the tasks that were submitted, each with the number of its Slurm job."""
    tasks = history.read_tasks()
    for name in batches:
        batch = history.batches[name]
        for job in find_jobs(batch.handle)[:1]:
            for part in batch.indices:
                yield from ((tasks[index].name, job) for index in part)


def _describe(found: JobTasks, machine: Machine, ids: Mapping[str, int]) -> SubmittedJob:
    options = merge_options(found.job, machine)
    slurm_ids = [ids[task.name] for task in found.tasks if task.name in ids]
    return SubmittedJob(
        found.job.name,
        slurm_ids[0] if slurm_ids else None,
        options["output"],
        options["job-name"],
        len(found.tasks),
    )
