"""`umpteen results`: the files that tasks left, listed or copied here."""

from __future__ import annotations

import json

import click

from umpteen.cli.copies import show_left_out, show_pull
from umpteen.cli.options import job_argument
from umpteen.errors import EXIT_SUCCEEDED, SettingsError
from umpteen.query.files import LeftOut
from umpteen.query.job_view import JobView
from umpteen.report.files import task_files_to_dict
from umpteen.report.printing import say
from umpteen.report.text import shorten_path
from umpteen.store.address import make_absolute

__all__ = ["results_command"]


@click.command(
    "results",
    short_help="List the files that tasks left as results, or copy them here.",
    epilog="""\b
Examples:
  umpteen results sweep
  umpteen results sweep ./here --include '*.csv'
  umpteen results sweep --json | jq -r '.folder'""",
)
@job_argument
@click.argument("dest", required=False, type=click.Path(file_okay=False))
@click.option("--include", multiple=True, metavar="GLOB", help="Only such files; may be repeated.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No such files; may be repeated.")
@click.option("--force", is_flag=True, help="Replace files in DEST that were not pulled, too.")
@click.option("--json", "as_json", is_flag=True, help="One object a task: name, state, files.")
def results_command(
    name: str,
    dest: str | None,
    *,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> int:
    """List the result files of the job NAME, one path a line; with DEST, copy its outputs there.

    All that tasks left is copied to DEST/TASK, also from where it is in no folder. A GLOB
    without a / is for the last part of a path, such as '*.csv', else for all of it, such as
    'seed=1*/results/*'. Called again it copies only what is missing or has changed. What cannot be
    copied is named at the end: links that lead out of a task's results, pipes and the like, and
    what would replace a file in DEST that was not pulled; exit code 1 for such a file.
    """
    with JobView.open(name) as job:
        if dest is None and (include or exclude or force):
            message = "--include, --exclude and --force are for copies"
            raise SettingsError(message, "say where to: DEST")
        if dest is None:
            return _list(job, as_json=as_json)
        make_absolute(dest)  # refuses what nobody can find again
        pulls = job.pull(dest, include, exclude, force=force)
        return show_pull(pulls, dest, as_json=as_json)


def _list(job: JobView, *, as_json: bool) -> int:
    count = total = 0
    left_out: list[LeftOut] = []
    for task in job.list_files(left_out):
        total += 1
        count += bool(task.results)
        if as_json:
            click.echo(json.dumps(task_files_to_dict(task, job.state_of(task.task_index))))
        else:
            for result in task.results:
                say(shorten_path(task.find_address(result)))
    if not as_json:
        where = shorten_path(job.address)
        say(f"{count:,} of {total:,} tasks left results in {where}", err=True)
        show_left_out(left_out)
    return EXIT_SUCCEEDED
