"""`umpteen why`: what became of a task, and what to type next."""

from __future__ import annotations

import json

import click

from umpteen.cli.options import TaskCommand, complete_task, job_argument, one_task
from umpteen.query.job_view import JobView
from umpteen.report.printing import count_columns, say
from umpteen.report.why import render_why, why_to_dict

__all__ = ["why_command"]


@click.command(
    "why",
    cls=TaskCommand,
    short_help="Say why a task has failed, or has not run.",
    epilog="""\b
Examples:
  umpteen why sweep train-0.1-7
  umpteen why sweep 12 --json""",
)
@job_argument
@click.argument("task", shell_complete=complete_task)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def why_command(name: str, task: str, *, as_json: bool) -> int:
    """Say how TASK (its name or index) of the job NAME stands: its attempts, what it waits for,
    whether it has changed, and what to type next.
    """
    with JobView.open(name) as job, one_task(task, "why"):
        why = job.explain(task)
    if as_json:
        click.echo(json.dumps(why_to_dict(why)))
        return 0
    width = count_columns()
    for line in render_why(why, name, width):
        say(line)
    return 0
