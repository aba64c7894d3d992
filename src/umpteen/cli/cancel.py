"""`umpteen cancel`: end a job, or some tasks of it."""

from __future__ import annotations

import json
import time

import click

from umpteen.cli.options import TaskCommand, complete_task, executor_option, job_argument
from umpteen.errors import EXIT_INTERRUPTED, EXIT_SOME_FAILED, EXIT_SUCCEEDED
from umpteen.job.settings import ExecutorChoice
from umpteen.query.status import JobStatus
from umpteen.report.printing import say
from umpteen.report.run import render_cancel
from umpteen.report.signals import stop_signals
from umpteen.report.status import render_counts, status_to_dict
from umpteen.verbs.cancel import cancel, count_cancelled, wait_for_runner
from umpteen.verbs.watch import watch

__all__ = ["cancel_command"]

_SAY_S = 2.0


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
@executor_option
@click.option("--json", "as_json", is_flag=True, help="What was cancelled, as one JSON object.")
def cancel_command(
    name: str,
    tasks: tuple[str, ...],
    executor: ExecutorChoice | None,
    *,
    as_json: bool,
) -> int:
    """End the job NAME, or those TASKs of it (names, patterns or indices), and wait for it.

    What runs is ended with all its children (TERM, the grace, KILL) and keeps what it
    printed; what waits never starts. Exit code: 0, even where all had ended before.
    """
    with stop_signals(is_last=True) as stop:
        cancelling = cancel(name, tasks, executor)
        handle = cancelling.handle
        status: JobStatus | None = None
        said_s = time.monotonic()
        for status in watch(handle):
            if stop.count:
                handle.interrupt()
            if not as_json and status.counts["running"] and time.monotonic() - said_s > _SAY_S:
                said_s = time.monotonic()
                say(f"{status.name}: {render_counts(status)}", err=True)
        assert status is not None
        status = wait_for_runner(handle, status)
    counts = count_cancelled(cancelling, status)
    if as_json:
        found = {"name": status.name, **counts._asdict(), "status": status_to_dict(status)}
        click.echo(json.dumps(found))
    else:
        for line in render_cancel(status, name, counts):
            say(line, err=True)
    if handle.is_interrupted:
        return EXIT_INTERRUPTED
    return EXIT_SOME_FAILED if counts.left else EXIT_SUCCEEDED
