"""`umpteen collect`: come back to a job that was submitted before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from umpteen.cli.options import (
    check_pull,
    choose_executor,
    complete_file,
    complete_name,
    pull_at_end,
    pull_options,
    watch_options,
)
from umpteen.query.job_names import find_job
from umpteen.report.signals import Waiting, stop_signals
from umpteen.report.watch import watch_to_end
from umpteen.verbs.collect import collect

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["collect_command"]


def _complete(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    names = complete_name(context, parameter, incomplete)
    return names or complete_file(context, parameter, incomplete)


@click.command(
    "collect",
    short_help="Watch a job that runs already, to its end.",
    epilog="""\b
Examples:
  umpteen collect sweep
  umpteen collect sweep --pull ./here --include '*.csv'
  umpteen collect run.yaml --name my-job""",
)
@click.argument("job", metavar="NAME|FILE", shell_complete=_complete)
@click.option("--name", help="The job's name, where FILE is a job file or a run file.")
@click.option("--executor", help="Where it goes on; an import path has to be given again.")
@pull_options
@watch_options
def collect_command(
    job: str,
    name: str | None,
    executor: str | None,
    *,
    pull: str | None,
    include: tuple[str, ...],
    quiet: bool,
    as_json: bool,
) -> int:
    """Watch the job NAME, or the one of a job file or run file, until it has ended.

    Ctrl-C only stops watching. What nobody is at any more, because its runner was killed, is
    submitted again, to the executor that the file names. Exit codes are those of run.
    """
    began_s = time.monotonic()
    check_pull(pull, include)
    with stop_signals(is_last=True) as stop:
        tell = Waiting(stop, is_shown=not (quiet or as_json)).tell
        found = find_job(job, name)
        handle = collect(found, tell, choose_executor(job, executor))
        code = watch_to_end(handle, stop, began_s, quiet=quiet, as_json=as_json, job=found)
    return pull_at_end(handle, code, pull, include, quiet=quiet, as_json=as_json)
