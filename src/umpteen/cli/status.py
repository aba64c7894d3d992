"""`umpteen status`: how a job stands."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from umpteen.cli.options import WholeNumber, job_argument
from umpteen.model.command import write_verb
from umpteen.query.job_view import JobView
from umpteen.query.status import JobStatus, choose_exit_code
from umpteen.query.unrun import EndedTasks
from umpteen.report.printing import count_columns, say
from umpteen.report.status import (
    failure_to_dict,
    render_counts,
    render_failures,
    render_unrun,
    running_to_dict,
    status_to_dict,
)
from umpteen.report.text import render_ago, shorten_path

__all__ = ["status_command"]

_SHOWN, _SHOWN_GONE = 10, 5


@click.command(
    "status",
    short_help="Show how a job stands.",
    epilog="""\b
Examples:
  umpteen status my-job
  umpteen status ./umpteen-results/my-job --json""",
)
@job_argument
@click.option(
    "--failures",
    default=_SHOWN,
    type=WholeNumber(min=0),
    help="How many failures to list.",
    show_default=True,
)
@click.option("--verify", is_flag=True, help="Done is what still has what it left, too.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def status_command(name: str, failures: int, *, verify: bool, as_json: bool) -> int:
    """Show how the job NAME (or the one at an address) stands.

    Exit code: 0 if every task succeeded, else 1.
    """
    with JobView.open(name) as job:
        gone = job.read_gone() if verify else []
        status = job.read_status()
        if as_json:
            shown = {
                **status_to_dict(status),
                "failures": list(map(failure_to_dict, job.read_failures(failures))),
                "running": list(map(running_to_dict, status.running)),
            }
            click.echo(json.dumps({**shown, "gone": gone} if verify else shown))
        else:
            _show_state(status, name, gone)
            if failures:
                _show_failures(job.read_ended(failures), name)
    return choose_exit_code(status)


def _show_state(status: JobStatus, job: str, gone: Sequence[str]) -> None:
    """Its counts, and what to type for it."""
    say(f"{status.name}: {status.state}, {render_counts(status)}")
    say(f"  results   {shorten_path(status.address)}")
    if status.started_s:
        say(f"  started   {render_ago(status.started_s)}")
    if status.trouble:
        say(f"  trouble   {status.trouble}")
    again = write_verb("collect", job)
    if status.state == "removing":
        say(f"  again     {write_verb('rm', job)}   goes on with its removal")
    if status.state == "unknown":
        say(f"  again     {again}   finds out within 60 s whether it is run")
    if status.state == "unfinished" and status.counts["waiting"] > len(gone):
        say(f"  again     {again}   goes on with it")
    if gone:
        _show_gone(job, gone)


def _show_gone(job: str, gone: Sequence[str]) -> None:
    """Tasks that were done: their names, and what runs them again."""
    few = ", ".join(gone[:_SHOWN_GONE])
    more = ", …" if len(gone) > _SHOWN_GONE else ""
    say(f"  gone      {len(gone):,} were done, and have not what they left: {few}{more}")
    if more:
        say("  again     the command that ran it, with --verify")
    else:
        say(f"  again     {write_verb('retry', job, *gone)}")


def _show_failures(ended: EndedTasks, job: str) -> None:
    """The newest failures, a line each; what was skipped or cancelled is counted."""
    width = count_columns()
    for line in render_failures(job, ended.failures, width):
        say(line)
    if more := ended.failed - len(ended.failures):
        say(f" … and {more:,} more: --failures {ended.failed}")
    for line in render_unrun(ended.unrun, width):
        say(line)
