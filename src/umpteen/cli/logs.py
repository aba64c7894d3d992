"""`umpteen logs`: what a task wrote, as it was written."""

from __future__ import annotations

import json
import sys

import click

from umpteen.cli.options import TaskCommand, WholeNumber, complete_task, job_argument, one_task
from umpteen.errors import EXIT_SOME_FAILED, EXIT_SUCCEEDED, SettingsError
from umpteen.query.job_view import JobView
from umpteen.report.logs import log_to_dict
from umpteen.report.printing import say
from umpteen.verbs.logs import TaskLog, open_log, read_all, read_chunks
from umpteen.verbs.logs import follow as follow_log

__all__ = ["logs_command"]


@click.command(
    "logs",
    cls=TaskCommand,
    short_help="Print what a task wrote to stdout or stderr.",
    epilog="""\b
Examples:
  umpteen logs sim lr=0.1,seed=17 --stderr
  umpteen logs sim 3 --follow
  umpteen logs sim 3 --attempt 1""",
)
@job_argument
@click.argument("task", shell_complete=complete_task)
@click.option("--stderr", "is_stderr", is_flag=True, help="stderr in place of stdout.")
@click.option("--attempt", type=WholeNumber(min=1), help="That one, in place of the newest.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the task has ended.")
@click.option("--json", "as_json", is_flag=True, help="All of it, of each attempt, as JSON.")
def logs_command(
    name: str, task: str, *, is_stderr: bool, attempt: int | None, follow: bool, as_json: bool
) -> int:
    """Print what TASK (its name or index) of the job NAME wrote, byte for byte.

    Of its newest attempt, if no other is asked for: of the one that runs, where one does.
    """
    if follow and attempt is not None:
        raise SettingsError("--follow and --attempt exclude each other", "give one of them")
    with JobView.open(name) as job:
        with one_task(task, "logs"):
            log = open_log(job, task)
        if as_json:
            click.echo(json.dumps(log_to_dict(log, read_all(log))))
            return EXIT_SUCCEEDED
        file = "stderr" if is_stderr else "stdout"
        if follow:
            return _follow(log, file)
        for chunk in read_chunks(log, file, attempt):
            _write(chunk)
    return EXIT_SUCCEEDED


def _follow(log: TaskLog, file: str) -> int:
    name = log.task.name
    waiting = f"{name} has written nothing yet: what it writes comes here"
    followed = follow_log(log, file, _write, lambda: say(waiting, err=True))
    if followed.has_ended:
        return EXIT_SUCCEEDED
    say(f"{name} has not ended, and nobody is at {followed.job} any more", err=True)
    return EXIT_SOME_FAILED


def _write(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
