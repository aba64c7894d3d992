"""`umpteen batch`: one batch file, run here by a runner that takes this process's place."""

from __future__ import annotations

import click

from umpteen.verbs.batch import BatchOptions, become_runner

__all__ = ["batch_command"]


@click.command(
    "batch",
    short_help="Run one batch file on this machine.",
    epilog="""\b
Examples:
  umpteen batch ~/commands/0.json
  umpteen batch batch.yaml --strict""",
)
@click.argument("file", type=click.Path())
@click.option("--strict", is_flag=True, help="Exit with 1 if a task did not succeed.")
@click.option("--take-over", is_flag=True, help="End another start of this batch that lives.")
@click.option("--echo/--no-echo", default=True, help="Copy what runs print, as each ends (yes).")
@click.option("--quiet", "-q", is_flag=True, help="The same as --no-echo.")
def batch_command(file: str, *, strict: bool, take_over: bool, echo: bool, quiet: bool) -> None:
    """Run the runs of a batch FILE, at most nprocs at once; what is done is left alone.

    What they print is kept in their own files, and copied to stdout and stderr here. Exit
    code: 0 when every outcome is recorded, whatever the outcomes are; 130 or 143 where Ctrl-C or
    SIGTERM has kept it from some of them.
    """
    become_runner(file, BatchOptions(strict, take_over, echo and not quiet))
