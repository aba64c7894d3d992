"""`umpteen summarize-batch`: what became of the runs of a batch file."""

from __future__ import annotations

import click

from umpteen.cli.options import complete_file
from umpteen.errors import EXIT_SUCCEEDED
from umpteen.report.printing import say
from umpteen.report.text import render_table
from umpteen.verbs.summarize_batch import summarize_batch

__all__ = ["summarize_batch_command"]

_COLUMNS = ("status", "status_code", "remote_output_path", "cmd")


@click.command(
    "summarize-batch",
    short_help="Show what became of the runs of a batch file.",
    epilog="""\b
Examples:
  umpteen summarize-batch batch.yaml
  umpteen summarize-batch batch.json --json | jq '.runs[] | select(.status == "error") .cmd'""",
)
@click.argument("file", shell_complete=complete_file)
@click.option("--remote-output-path", metavar="URL", help="In place of the file's.")
@click.option("--json", "as_json", is_flag=True, help="One object: counts, and the runs.")
def summarize_batch_command(file: str, *, remote_output_path: str | None, as_json: bool) -> int:
    """Print a row for each run of a batch FILE: failures, then what completed, then the rest.

    What has not come to an end has no status.
    """
    found = summarize_batch(file, remote_output_path)
    runs = [*found.failed, *found.completed, *found.unfinished]
    if as_json:
        import msgspec

        counts = {name: len(each) for name, each in found._asdict().items()}
        shown = [{column: getattr(run, column) for column in _COLUMNS} for run in runs]
        click.echo(msgspec.json.encode({"counts": counts, "runs": shown}).decode())
    else:
        rows = ([_show(getattr(run, column)) for column in _COLUMNS] for run in runs)
        for line in render_table(_COLUMNS, rows, gap=4, is_ruled=True):
            say(line)
    return EXIT_SUCCEEDED


def _show(value: object) -> str:
    """One line, whatever it holds."""
    return "" if value is None else " ".join(str(value).split("\n"))
