"""`umpteen submit`: submits the newest bundle of a name, or the one of a time."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from umpteen.bundles.bundle import Bundle
from umpteen.bundles.folder import BundleFolder
from umpteen.bundles.log import show_log
from umpteen.cli.machine_options import complete_bundle, machine_options, pick_machine_fields
from umpteen.config.machines import Machine
from umpteen.config.reading import choose_machine, read_config
from umpteen.errors import EXIT_SUCCEEDED, InputError
from umpteen.model.command import write_verb
from umpteen.report.printing import say
from umpteen.report.signals import Waiting, stop_signals
from umpteen.verbs.submit_bundle import SubmittedJob, plan_bundle, submit_bundle

__all__ = ["submit_and_show", "submit_command"]


@click.command(
    "submit",
    short_help="Submit the jobs of a bundle to Slurm.",
    epilog="""\b
Examples:
  umpteen submit sweep
  umpteen submit sweep --machine big --dry-run
  umpteen submit sweep --at 20261127093000""",
)
@click.argument("bundle", shell_complete=complete_bundle)
@click.option("--at", metavar="TIMESTAMP", help="Not the newest of that name, but this one.")
@click.option("--dry-run", is_flag=True, help="Only say what would be submitted, in which order.")
@machine_options
@click.option("--json", "as_json", is_flag=True, help="As a JSON object.")
def submit_command(
    bundle: str,
    *,
    at: str | None,
    machine: str | None,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Submit the jobs of BUNDLE to Slurm, each behind what it depends on.

    They become a job of umpteen, so that status, logs, cancel and retry know BUNDLE. Submitted
    again, what has succeeded is left alone, unless what it runs was changed.

    Exit code: 0 if it was submitted, 2 for wrong input, 3 if Slurm refuses it or nothing can be
    written.
    """
    config = read_config()
    chosen = choose_machine(config, machine, pick_machine_fields(flags))
    found = _read(BundleFolder(config), bundle, at)
    if dry_run:
        return _show_plan(found, chosen, as_json=as_json)
    return submit_and_show(found, chosen, as_json=as_json)


def _read(folder: BundleFolder, name: str, timestamp: str | None) -> Bundle:
    try:
        return folder.read(name, timestamp)
    except InputError as error:
        if error.file or not os.path.isfile(name):
            raise
        hint = f"{write_verb('run', name)} --detach submits a job file"
        raise InputError(error.message, hint) from None


def submit_and_show(bundle: Bundle, machine: Machine, *, as_json: bool) -> int:
    """Submit it, and say for each job where it is and how to look."""
    with stop_signals(is_last=True) as stop:
        done = submit_bundle(bundle, machine, Waiting(stop, is_shown=not as_json).tell)
    if as_json:
        jobs = [
            {"job": job.name, "slurm_id": job.slurm_id, "tasks": job.tasks, "log": _show_log(job)}
            for job in done.jobs
        ]
        told = {"bundle": bundle.name, "timestamp": bundle.timestamp, "machine": machine.name}
        click.echo(json.dumps({**told, "address": done.address, "jobs": jobs}))
        return EXIT_SUCCEEDED
    for job in done.jobs:
        say(_render(job, done.word))
    if not done.jobs:
        say(f"the bundle {bundle.name} has no jobs")
    return EXIT_SUCCEEDED


def _render(job: SubmittedJob, word: str) -> str:
    name = f"{job.name} ({job.tasks} tasks)" if job.tasks > 1 else job.name
    if job.slurm_id is None:
        return f"{name}: was submitted before, {write_verb('status', word)}"
    look = write_verb("logs", word, job.name) if job.tasks == 1 else write_verb("status", word)
    return f"{name}: Slurm job {job.slurm_id}, {look}"


def _show_log(job: SubmittedJob) -> str | None:
    if job.slurm_id is None or job.tasks > 1:
        return None
    return show_log(job.log, job.slurm_name, job.slurm_id)


def _show_plan(bundle: Bundle, machine: Machine, *, as_json: bool) -> int:
    jobs = plan_bundle(bundle, machine)
    if as_json:
        told = {"bundle": bundle.name, "timestamp": bundle.timestamp, "machine": machine.name}
        click.echo(json.dumps({**told, "jobs": [job._asdict() for job in jobs]}))
        return EXIT_SUCCEEDED
    for job in jobs:
        after = f" after {', '.join(job.after)}" if job.after else ""
        count = f" ({job.tasks} tasks)" if job.tasks > 1 else ""
        say(f"would submit {job.name}{count}{after}: {job.script}")
    return EXIT_SUCCEEDED
