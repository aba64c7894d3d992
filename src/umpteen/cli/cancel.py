"""`umpteen cancel`: end a job, or some tasks of it."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import click

from umpteen.cli.options import TaskCommand, complete_task, job_argument
from umpteen.errors import EXIT_INTERRUPTED, EXIT_SOME_FAILED, EXIT_SUCCEEDED
from umpteen.model.states import IS_FINAL, STATES
from umpteen.query.liveness import read_status
from umpteen.query.status import JobStatus
from umpteen.report.printing import say
from umpteen.report.run import render_cancel, render_counts, status_to_dict
from umpteen.report.views import stop_signals
from umpteen.verbs.run import JobHandle, cancel, watch

__all__ = ["cancel_command"]

_SAY_S = 2.0
_LOOK_S = 0.02


@click.command(
    "cancel",
    cls=TaskCommand,
    short_help="End a job, or some tasks of it.",
    epilog="""\b
Examples:
  umpteen cancel sweep
  umpteen cancel sweep train-0.1-7 'eval-*'""",
)
@job_argument
@click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=complete_task)
@click.option("--json", "as_json", is_flag=True, help="What was cancelled, as one JSON object.")
def cancel_command(name: str, tasks: tuple[str, ...], *, as_json: bool) -> int:
    """End the job NAME, or those TASKs of it (names, patterns or indices), and wait for it.

    What runs is ended with all its children (TERM, the grace, KILL) and keeps what it
    printed; what waits never starts. Exit code: 0, even where all had ended before.
    """
    with stop_signals(is_last=True) as stop:
        submission = cancel(name, tasks)
        chosen = list(submission.cancelling or ())
        status: JobStatus | None = None
        said_s = time.monotonic()
        for status in watch(submission):
            submission.is_interrupted = stop.count > 0
            if not as_json and status.counts["running"] and time.monotonic() - said_s > _SAY_S:
                said_s = time.monotonic()
                say(f"{status.name}: {render_counts(status)}", err=True)
        assert status is not None
        if not status.counts["running"] + status.counts["waiting"]:
            status = _look_until_over(submission, status)
    found = _count(submission, status, chosen)
    if as_json:
        click.echo(json.dumps({**found, "status": status_to_dict(status)}))
    else:
        for line in render_cancel(status, name, found):
            say(line, err=True)
    if submission.is_interrupted:
        return EXIT_INTERRUPTED
    return EXIT_SOME_FAILED if found["left"] else EXIT_SUCCEEDED


def _look_until_over(submission: JobHandle, status: JobStatus) -> JobStatus:
    """The status once the runner has gone, which has nothing more to do."""
    until_s = time.monotonic() + _SAY_S
    while status.state == "running" and time.monotonic() < until_s:
        time.sleep(_LOOK_S)
        submission.history.refresh()
        status = read_status(submission.history)
    return status


def _count(submission: JobHandle, status: JobStatus, chosen: list[int]) -> dict[str, Any]:
    """How many were cancelled, and what became of the others.

    never_starts: of those that wait, and are recorded as cancelled when their turn would be.
    left: of those that still run.
    """
    history = submission.history
    states = Counter(STATES[history.states[index]] for index in chosen)
    running = {task.index for task in status.running}
    open_ones = [index for index in chosen if not IS_FINAL[history.states[index]]]
    left = len(running.intersection(open_ones))
    return {
        "name": history.job.get("name", ""),
        "cancelled": states["cancelled"],
        "never_starts": len(open_ones) - left,
        "ended_meanwhile": len(chosen) - len(open_ones) - states["cancelled"],
        "ended_before": submission.done,
        "left": left,
    }
