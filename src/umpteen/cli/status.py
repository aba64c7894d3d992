"""`umpteen status`: how a job stands."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence

import click

from umpteen.cli.options import job_argument
from umpteen.history.history import History
from umpteen.model.command import write_verb
from umpteen.model.record import Record
from umpteen.query.failures import choose_failures, is_failure, read_failure
from umpteen.query.find import open_history
from umpteen.query.liveness import read_status
from umpteen.query.verify import read_gone
from umpteen.report.printing import say
from umpteen.report.run import FoldedCounts, render_counts, render_failures, status_to_dict
from umpteen.report.text import render_ago, shorten_path
from umpteen.verbs.watch import exit_code

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
    type=click.IntRange(min=0),
    help="How many failures to list.",
    show_default=True,
)
@click.option("--verify", is_flag=True, help="Done is what still has what it left, too.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def status_command(name: str, failures: int, *, verify: bool, as_json: bool) -> int:
    """Show how the job NAME (or the one at an address) stands.

    Exit code: 0 if every task succeeded, else 1.
    """
    history = open_history(name)
    gone = read_gone(history) if verify else []
    status = read_status(history)
    ended = history.read_failures()
    if as_json:
        shown = [read_failure(history, *entry) for entry in choose_failures(ended, failures)]
        fields = ("index", "name", "state", "reason", "last_line")
        listed = [{field: getattr(failure, field) for field in fields} for failure in shown]
        running = [
            {"index": task.index, "slot": task.slot, "start_s": task.start_s}
            for task in status.running
        ]
        shown_status = {**status_to_dict(status), "failures": listed, "running": running}
        click.echo(json.dumps({**shown_status, "gone": gone} if verify else shown_status))
        return exit_code(status)
    say(f"{status.name}: {status.state}, {render_counts(status)}")
    say(f"  results   {shorten_path(status.address)}")
    if status.started_s:
        say(f"  started   {render_ago(status.started_s)}")
    if status.trouble:
        say(f"  trouble   {status.trouble}")
    again = write_verb("collect", name)
    if status.state == "removing":
        say(f"  again     {write_verb('rm', name)}   goes on with its removal")
    if status.state == "unknown":
        say(f"  again     {again}   finds out within 60 s whether it is run")
    if status.state == "unfinished" and status.counts["waiting"] > len(gone):
        say(f"  again     {again}   goes on with it")
    if gone:
        _show_gone(name, gone)
    if failures:
        _show_failures(history, name, ended, failures)
    return exit_code(status)


def _show_gone(job: str, gone: Sequence[str]) -> None:
    """Tasks that were done: their names, and what runs them again."""
    few = ", ".join(gone[:_SHOWN_GONE])
    more = ", …" if len(gone) > _SHOWN_GONE else ""
    say(f"  gone      {len(gone):,} were done, and have not what they left: {few}{more}")
    if more:
        say("  again     the command that ran it, with --verify")
    else:
        say(f"  again     {write_verb('retry', job, *gone)}")


def _show_failures(
    history: History, job: str, ended: Sequence[tuple[str, Record]], most: int
) -> None:
    """The newest failures, a line each; what was skipped or cancelled is counted."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    failed = [entry for entry in ended if is_failure(entry[1])]
    folds = FoldedCounts()
    for entry in ended:
        if not is_failure(entry[1]):
            folds.add(history, *entry)
    shown = [read_failure(history, *entry) for entry in failed[-most:]]
    for line in render_failures(job, shown, width):
        say(line)
    if len(failed) > len(shown):
        say(f" … and {len(failed) - len(shown):,} more: --failures {len(failed)}")
    for line in folds.render(width):
        say(line)
