"""`umpteen run`: a job from files or one line, run here, watched until it ends."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from umpteen.cli.options import (
    WholeNumber,
    check_pull,
    complete_file,
    pull_at_end,
    pull_options,
    read_duration,
    read_memory,
    read_size,
    read_where,
    refuse_loose,
    watch_options,
)
from umpteen.errors import SettingsError
from umpteen.formats import read_job
from umpteen.formats.flags import PULLS, build_flags
from umpteen.job.spec import Job
from umpteen.planning.choosing import RERUN_CHOICES
from umpteen.query.job_view import JobView
from umpteen.report.signals import Waiting, stop_signals
from umpteen.report.views import show_leave, show_plan
from umpteen.report.watch import watch_to_end
from umpteen.store.address import working_folder
from umpteen.submission.preview import preview_request
from umpteen.submission.settings import detach as detach_job
from umpteen.submission.settings import resolve_settings
from umpteen.verbs.run import choose_where, plan_run, submit

if TYPE_CHECKING:
    from umpteen.config.machines import Machine
    from umpteen.query.expression import Where

__all__ = ["run_command"]


@click.command(
    "run",
    short_help="Run a file of commands, or one command with values.",
    epilog="""\b
Examples:
  umpteen run tasks.yaml --slots 8
  umpteen run run.yaml tasks.yaml --name my-job
  umpteen run 'python sim.py --lr {lr} --seed {seed}' lr=0.1,0.01 seed=1..50
  umpteen run 'python sim.py {lr}' --from params.csv --timeout 15m
  umpteen run tasks.yaml --hosts lab1,me@lab2:2222
  ls *.png | sed 's/.*/convert & &.jpg/' | umpteen run - --name thumbnails""",
)
@click.argument("job", nargs=-1, required=True, metavar="JOB...", shell_complete=complete_file)
@click.option("--name", help="The job's name; else the stem of its file, script or program.")
@click.option("--prefix", help="Name the job by this and the time (UTC).")
@click.option(
    "--from", "tables", multiple=True, metavar="TABLE", help="A CSV, TSV or JSON table of values."
)
@click.option("--results", metavar="ADDRESS", help="Where outputs go; {name} is the job's name.")
@click.option("--slots", "--nprocs", type=WholeNumber(min=1), help="Tasks at once.")
@click.option("--executor", help="Where tasks run: local, dask, ray, slurm, ssh, an import path.")
@click.option("--hosts", metavar="A,USER@B:PORT", help="Machines behind ssh that tasks run on.")
@click.option("--machine", metavar="NAME", help="Of umpteen config: run in its Slurm.")
@click.option("--batch-size", type=WholeNumber(min=1), help="Tasks that a cluster gets at once.")
@click.option("--scheduler-address", metavar="ADDRESS", help="Of a cluster: tcp://HOST:8786.")
@click.option("--timeout", callback=read_duration, help="Of one task: 90, 15m, 2h.")
@click.option("--deadline", callback=read_duration, help="Of the whole job.")
@click.option("--grace", callback=read_duration, help="Between TERM and KILL (10s).")
@click.option("--retries", type=WholeNumber(min=0), help="How often what fails is tried again.")
@click.option("--cpus", type=WholeNumber(min=1), help="Cores that each task needs.")
@click.option("--memory", callback=read_memory, help="That each task needs: 512M, 4G.")
@click.option("--gpus", type=WholeNumber(min=0), help="GPUs that each task needs.")
@click.option("--needs", multiple=True, metavar="NAME", help="What each task's machine must have.")
@click.option("--output-limit", callback=read_size, help="Of stdout and stderr of a task: 100M.")
@click.option("--max-failures", type=WholeNumber(min=0), help="Start nothing after so many.")
@click.option("--fail-fast", is_flag=True, default=None, help="End all at the first failure.")
@click.option("--canary", type=WholeNumber(min=0), help="Of each template, run so many first.")
@click.option("--env", multiple=True, metavar="KEY=VALUE", help="A variable for every task.")
@click.option("--cwd", help="The folder that tasks start in.")
@click.option(
    "--rerun",
    type=click.Choice(RERUN_CHOICES),
    default="default",
    help="What of a job that ran before runs again (what has not succeeded, changed or is behind).",
)
@click.option("--only", callback=read_where, metavar="EXPR", help="Tasks such as lr<0.1 or tag=a.")
@click.option("--sync", multiple=True, metavar="SRC[:DEST]", help="Have a folder where tasks run.")
@click.option("--verify", is_flag=True, help="Done is what still has what it left, too.")
@click.option("--dry-run", is_flag=True, help="Only say what would run, and why.")
@click.option("--detach", is_flag=True, help="Come back at once; the job needs no terminal.")
@pull_options
@watch_options
def run_command(
    job: tuple[str, ...],
    *,
    name: str | None,
    prefix: str | None,
    tables: tuple[str, ...],
    machine: str | None,
    rerun: str,
    only: Where | None,
    verify: bool,
    dry_run: bool,
    detach: bool,
    pull: str | None,
    include: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Run the tasks of a JOB and keep all their outputs.

    JOB is a job file (YAML, JSON, JSON-lines, CSV, or one command per line), a run file and a
    tasks file, - for standard input, or a command template followed by its values.

    Running it again runs only what is not done. Exit code: 0 if every task succeeded (with
    --detach: if it was submitted), 1 if not, 2 for wrong input, 3 if the results cannot be
    written, 130 if interrupted.
    """
    began_s = time.monotonic()
    refuse_loose("--only", only, job)
    kind = pull if pull in PULLS else None
    pull = None if kind else pull
    check_pull(pull, include)
    if pull and detach:
        raise SettingsError("--pull is at the end", "umpteen collect NAME --pull DEST waits for it")
    place = _find_machine(machine) if machine else None
    flags["pull"] = kind
    read = _read(job, tables, flags, _choose_name(name, prefix), place, is_detached=detach)
    chosen = None if only is None else choose_where(only, read)
    if dry_run:
        plan, history = plan_run(read, rerun, only=chosen, is_verified=verify)
        return show_plan(plan, preview_request(plan, history), as_json=as_json)
    with stop_signals(is_last=True) as stop:
        tell = Waiting(stop, is_shown=not (quiet or as_json)).tell
        handle = submit(read, rerun, chosen, tell, is_verified=verify)
        del read, chosen  # a million tasks take room, and the store has them
        if detach and not handle.is_idle:
            with JobView(handle.history) as view:
                status = view.read_status()
            return show_leave(handle, status, view.word, quiet=quiet, as_json=as_json)
        code = watch_to_end(handle, stop, began_s, quiet=quiet, as_json=as_json)
    return pull_at_end(handle, code, pull, include, quiet=quiet, as_json=as_json)


def _read(
    arguments: tuple[str, ...],
    tables: tuple[str, ...],
    flags: dict[str, Any],
    name: str | None,
    machine: Machine | None,
    *,
    is_detached: bool,
) -> Job:
    if loose := next((word for word in arguments[1:] if word.startswith("=")), None):
        key = arguments[arguments.index(loose) - 1]
        message = f"a value stands beside its name without blanks, not {key!r} {loose!r}"
        raise SettingsError(message, "write rate=0.1,0.9")
    if machine is None or machine.is_local:
        _check_folder(flags["cwd"])
    given = build_flags(**flags)
    job = read_job(arguments, tables=tables, flags=given, name=name, stdin=sys.stdin.buffer)
    if machine:
        from umpteen.submission.placement import place_on  # few runs name one

        job = place_on(job, machine)
    job = resolve_settings(job, working_folder())
    return detach_job(job) if is_detached else job


def _find_machine(name: str) -> Machine:
    from umpteen.config.reading import read_config

    return read_config().find(name)


def _choose_name(name: str | None, prefix: str | None) -> str | None:
    if name is not None and prefix is not None:
        raise SettingsError("--name and --prefix exclude each other", "give one of them")
    if prefix is not None:
        return prefix + time.strftime("-%Y%m%dT%H%M%SZ", time.gmtime())
    return name


def _check_folder(cwd: str | None) -> None:
    if cwd and not os.path.isdir(os.path.expanduser(cwd)):
        raise SettingsError(f"--cwd {cwd!r} is no folder")
