"""`umpteen run`: a job from files or one line, run here, watched until it ends."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from umpteen.cli.view import open_view, stop_signals
from umpteen.dispatch import Submission, exit_code, plan_run, settle, submit, watch
from umpteen.errors import EXIT_INTERRUPTED, SettingsError
from umpteen.executors.local import LocalExecutor
from umpteen.formats import read_job
from umpteen.job import Job
from umpteen.report import plan_to_dict, render_dry_run
from umpteen.settings import Setting, parse_duration_s
from umpteen.status import JobStatus

__all__ = ["run_command"]


def _duration(_: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_duration_s(value)
    except SettingsError as error:
        raise SettingsError(f"{parameter.opts[0]}: {error}", error.hint) from error


@click.command(
    "run",
    short_help="Run a file of commands, or one command with values.",
    epilog="""\b
Examples:
  umpteen run tasks.yaml --slots 8
  umpteen run run.yaml tasks.yaml --name my-job
  umpteen run 'python sim.py --lr {lr} --seed {seed}' lr=0.1,0.01 seed=1..50
  umpteen run 'python sim.py {lr}' --from params.csv --timeout 15m
  ls *.png | sed 's/.*/convert & &.jpg/' | umpteen run - --name thumbnails""",
)
@click.argument("job", nargs=-1, required=True, metavar="JOB...")
@click.option("--name", help="The job's name; else the file's stem.")
@click.option("--prefix", help="Name the job by this and the time (UTC).")
@click.option("--from", "table", metavar="TABLE", help="A CSV, TSV or JSON table of values.")
@click.option("--results", metavar="ADDRESS", help="Where outputs go; {name} is the job's name.")
@click.option("--slots", "--nprocs", type=click.IntRange(min=1), help="Tasks at once.")
@click.option("--executor", help="Where tasks run (this version: local).")
@click.option("--timeout", callback=_duration, help="Of one task: 90, 15m, 2h.")
@click.option("--deadline", callback=_duration, help="Of the whole job.")
@click.option("--grace", callback=_duration, help="Between TERM and KILL (10s).")
@click.option("--env", multiple=True, metavar="KEY=VALUE", help="A variable for every task.")
@click.option("--cwd", help="The folder that tasks start in.")
@click.option(
    "--rerun",
    type=click.Choice(["default", "all", "failed", "changed", "none"]),
    default="default",
    help="What of a job that ran before runs again (what has not succeeded, or changed).",
)
@click.option("--dry-run", is_flag=True, help="Only say what would run, and why.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="One event a line on stdout.")
def run_command(job: tuple[str, ...], *, quiet: bool, as_json: bool, **options: Any) -> int:
    """Run the tasks of a JOB and keep all their outputs.

    JOB is a job file (YAML, JSON, JSON-lines, CSV, or one command per line), a run file and a
    tasks file, - for standard input, or a command template followed by its values.

    Running it again runs only what is not done. Exit code: 0 if every task succeeded, 1 if
    not, 2 for wrong input, 3 if the results cannot be written, 130 if interrupted.
    """
    began = time.monotonic()
    read = _read(job, options)
    if options["dry_run"]:
        return _show_plan(read, options["rerun"], as_json=as_json)
    with stop_signals() as stop:
        submission = submit(read, options["rerun"])
        del read  # a million tasks take room, and the store has them
        view = open_view(submission, quiet=quiet, as_json=as_json)
        interrupted = 0
        status: JobStatus | None = None
        with view:
            for status in watch(submission):
                view.show(status)
                if stop.count > interrupted:
                    interrupted = stop.count
                    if not _interrupt(submission, at_once=stop.count > 1):
                        break
                    view.tell_interrupted(stop.count)
        assert status is not None
        view.show_end(status, time.monotonic() - began, is_interrupted=interrupted > 0)
    return EXIT_INTERRUPTED if interrupted else exit_code(status)


def _interrupt(submission: Submission, *, at_once: bool) -> bool:
    """End our own runner's tasks; False where the job is another's, and goes on without us."""
    submission.is_interrupted = True
    if submission.is_own and isinstance(submission.executor, LocalExecutor):
        submission.executor.order_end(at_once=at_once)
        return True
    return False


def _read(arguments: tuple[str, ...], options: dict[str, Any]) -> Job:
    name = _choose_name(options)
    job = read_job(
        arguments,
        table=options["table"],
        flags=_collect_flags(options),
        name=name,
        stdin=sys.stdin.buffer,
    )
    return settle(job, os.getcwd())


def _choose_name(options: dict[str, Any]) -> str | None:
    name, prefix = options["name"], options["prefix"]
    if name is not None and prefix is not None:
        raise SettingsError("--name and --prefix exclude each other", "give one of them")
    if prefix is not None:
        return str(prefix) + time.strftime("-%Y%m%dT%H%M%SZ", time.gmtime())
    return None if name is None else str(name)


def _collect_flags(options: dict[str, Any]) -> dict[str, Setting]:
    names = {
        "slots": "slots",
        "results": "address",
        "executor": "executor",
        "timeout": "timeout_s",
        "deadline": "deadline_s",
        "grace": "grace_s",
        "cwd": "cwd",
    }
    flags = {
        setting: Setting(options[option], f"--{option}")
        for option, setting in names.items()
        if options[option] is not None
    }
    if options["env"]:
        flags["env"] = Setting(dict(_split(pair) for pair in options["env"]), "--env")
    return flags


def _split(pair: str) -> tuple[str, str]:
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise SettingsError(f"--env {pair!r} is not KEY=VALUE", "write --env OMP_NUM_THREADS=2")
    return key, value


def _show_plan(job: Job, rerun: str, *, as_json: bool) -> int:
    plan, _ = plan_run(job, rerun)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(plan_to_dict(plan)).decode())
    else:
        for line in render_dry_run(plan):
            click.echo(line)
    return 0
