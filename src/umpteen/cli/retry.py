"""`umpteen retry`: run again what did not succeed, without the job's file."""

from __future__ import annotations

import time
from typing import Any

import click

from umpteen.cli.options import (
    TaskCommand,
    WholeNumber,
    complete_task,
    executor_option,
    job_argument,
    read_duration,
    read_memory,
    read_where,
    refuse_loose,
    watch_options,
)
from umpteen.model.command import write_verb
from umpteen.query.job_view import JobView
from umpteen.report.printing import say
from umpteen.report.signals import Waiting, stop_signals
from umpteen.report.views import show_idle, show_leave, show_plan
from umpteen.report.watch import watch_to_end
from umpteen.submission.preview import preview_request
from umpteen.verbs.retry import Rerun, find_blocked, plan_retry, retry

__all__ = ["retry_command"]


@click.command(
    "retry",
    cls=TaskCommand,
    short_help="Run again what did not succeed.",
    epilog="""\b
Examples:
  umpteen retry sweep
  umpteen retry sweep --where 'state=timed_out and lr<0.1' --timeout 2h
  umpteen retry sweep prep 'train-*-7' --dry-run""",
)
@job_argument
@click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=complete_task)
@click.option("--where", callback=read_where, metavar="EXPR", help="Of these, only such tasks.")
@click.option("--timeout", callback=read_duration, help="Of one task, from now on: 90, 15m, 2h.")
@click.option("--memory", callback=read_memory, help="That each needs from now on: 512M, 8G.")
@click.option("--slots", type=WholeNumber(min=1), help="Tasks at once.")
@executor_option
@click.option("--dry-run", is_flag=True, help="Only say what would run, and why.")
@click.option("--detach", is_flag=True, help="Come back at once; the job needs no terminal.")
@watch_options
def retry_command(
    name: str, tasks: tuple[str, ...], *, quiet: bool, as_json: bool, **options: Any
) -> int:
    """Run again what failed, timed out, was cancelled or skipped of the job NAME.

    With TASKs (names, patterns or indices) these run again, whatever became of them. With
    either, what was skipped because of them runs after them, and so does what is behind them.
    Exit codes are those of run.
    """
    began_s = time.monotonic()
    refuse_loose("--where", options["where"], tasks)
    rerun = Rerun(tasks, options["where"], options["slots"], options["timeout"], options["memory"])
    if options["dry_run"]:
        plan, history = plan_retry(name, rerun, options["executor"])
        return show_plan(plan, preview_request(plan, history), as_json=as_json)
    with stop_signals(is_last=True) as stop:
        tell = Waiting(stop, is_shown=not (quiet or as_json)).tell
        handle = retry(
            name,
            rerun,
            executor=options["executor"],
            detach=options["detach"],
            on_progress=tell,
        )
        if handle.is_idle or options["detach"]:
            with JobView(handle.history) as view:
                status = view.read_status()
            if not handle.is_idle:
                return show_leave(handle, status, name, quiet=quiet, as_json=as_json)
            is_chosen = bool(tasks) or options["where"] is not None
            return show_idle(
                handle, status, name, is_chosen=is_chosen, quiet=quiet, as_json=as_json
            )
        code = watch_to_end(handle, stop, began_s, quiet=quiet, as_json=as_json, job=name)
    is_told = bool(tasks) and not (quiet or as_json)
    if is_told and (blocked := find_blocked(handle, name, tasks)):
        words = write_verb("retry", name, blocked.blocker)
        say(f"  first     {words}     {blocked.task} is after it", err=True)
    return code
