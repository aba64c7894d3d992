"""`umpteen summarize-batch`: what became of the runs of a batch file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from umpteen.cli.options import complete_file
from umpteen.errors import EXIT_SUCCEEDED
from umpteen.formats.saturn_batch import Run
from umpteen.report.printing import say
from umpteen.verbs.summarize_batch import summarize_batch

__all__ = ["summarize_batch_command"]

_COLUMNS = ("status", "status_code", "remote_output_path", "cmd")
_GAP = " " * 4


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
        for line in _render(runs):
            say(line)
    return EXIT_SUCCEEDED


def _render(runs: Sequence[Run]) -> Iterator[str]:
    rows = [_COLUMNS, *([_show(getattr(run, column)) for column in _COLUMNS] for run in runs)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield _GAP.join(cells).rstrip()


def _show(value: object) -> str:
    """One line, whatever it holds."""
    return "" if value is None else " ".join(str(value).split("\n"))
