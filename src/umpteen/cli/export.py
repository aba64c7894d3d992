"""`umpteen export`: the job as a table for other programs."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable
from typing import IO

import click
import msgspec

from umpteen.cli.options import job_argument
from umpteen.errors import SettingsError, StoreError
from umpteen.query.job_view import JobView
from umpteen.query.table import Cell, Table
from umpteen.report.printing import say
from umpteen.store.address import make_absolute
from umpteen.system.whole_files import written_whole

__all__ = ["export_command"]

_SHOWN = 10


@click.command(
    "export",
    short_help="Write a row a task: parameters, outcome, metrics.",
    epilog="""\b
Examples:
  umpteen export sweep --csv > sweep.csv
  umpteen export sweep --json --output sweep.jsonl""",
)
@job_argument
@click.option("--csv", "as_csv", is_flag=True, help="As CSV with a head (the default).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--output", metavar="FILE", help="Into a file, whole or not at all; else to stdout.")
def export_command(name: str, *, as_csv: bool, as_json: bool, output: str | None) -> int:
    """Write a row for each task of the job NAME: name, state, parameters, how its newest attempt
    went, and the numbers in the results/metrics.json that it wrote (`{"loss": {"test": 0.1}}`
    becomes the column loss.test).
    """
    if as_csv and as_json:
        raise SettingsError("--csv and --json exclude each other", "give one of them")
    if output is not None and os.path.isdir(output):
        hint = f"give a file in it: --output {os.path.join(output, 'job.csv')}"
        raise SettingsError(f"--output: {output!r} is a folder", hint)
    make_absolute(output or "/")  # refuses what nobody can find again
    with JobView.open(name) as job:
        table = job.read_table(are_typed=as_json)
    if output is None:
        file = io.TextIOWrapper(sys.stdout.buffer, "utf-8", newline="")
        try:
            _write(file, table, as_json=as_json)
        finally:
            file.detach()
    else:
        _put(output, table, as_json=as_json)
    for line in table.complaints[:_SHOWN]:
        say(line, err=True)
    if len(table.complaints) > _SHOWN:
        say(f"… and {len(table.complaints) - _SHOWN:,} more", err=True)
    return 0


def _put(path: str, table: Table, *, as_json: bool) -> None:
    """Raises StoreError where it cannot be written."""
    try:
        with (
            written_whole(path, makes_folder=False) as temporary,
            open(temporary, "w", encoding="utf-8", newline="") as file,
        ):
            _write(file, table, as_json=as_json)
    except OSError as error:
        raise StoreError(f"could not write {path}: {error.strerror}", path=path) from error


def _write(file: IO[str], table: Table, *, as_json: bool) -> None:
    if as_json:
        encode = msgspec.json.Encoder().encode
        file.writelines(encode(row).decode() + "\n" for row in table.rows)
        return
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(_build_cells(row.values()) for row in table.rows)


def _build_cells(values: Iterable[Cell]) -> list[Cell]:
    return [json.dumps(value) if isinstance(value, (list, bool)) else value for value in values]
