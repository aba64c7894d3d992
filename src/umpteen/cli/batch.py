"""`umpteen batch`: one batch file, run here by a runner that takes this process's place."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Any

import click
import msgspec

from umpteen.errors import InputError, SettingsError, StoreError
from umpteen.formats import read_job
from umpteen.formats.reading import open_document
from umpteen.formats.saturn_batch import read_batch
from umpteen.job.spec import Job
from umpteen.model.command import RUNNER_VARIABLE, write_verb
from umpteen.query.registry import register
from umpteen.runner.import_batch import DEFAULT_SLOTS, build_batch_id
from umpteen.runner.launch import build_runner_command
from umpteen.store.address import parse_address

__all__ = ["batch_command"]

_RUN_KEYS = ("cmd", "remote_output_path", "local_results_dir")


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
    if not os.path.exists(file):
        raise InputError(f"no such file: {file!r}", "give a batch file, such as 0.json")
    job = read_job([file], may_be_empty=True)
    if not job.is_part:
        raise InputError(f"{file} is no batch file: it has no 'runs'", write_verb("run", file))
    with contextlib.suppress(SettingsError):  # an address that the runner will refuse
        register(job.name, parse_address(job.settings.address))
    flags = ["--strict"] * strict + ["--take-over"] * take_over
    flags += ["--echo"] * (echo and not quiet)
    token = os.urandom(6).hex()
    command = [*build_runner_command(), f"--token={token}", *flags, *_place(file, job)]
    os.execve(command[0], command, {**os.environ, RUNNER_VARIABLE: token})


def _place(file: str, job: Job) -> list[str]:
    """The runner's arguments: JSON as it is, YAML as JSON beside the id of what was written."""
    with open(file, "rb") as opened:
        content = opened.read()
    try:
        msgspec.json.decode(content)
    except msgspec.DecodeError:
        path = _write_temporary(msgspec.json.encode(_build_batch(file, job)))
        return [path, f"--batch-id={build_batch_id(content)}"]
    return [file]


def _write_temporary(content: bytes) -> str:
    """The path of a new file. Raises StoreError where no place for one can be written."""
    try:
        handle, path = tempfile.mkstemp(suffix=".json", prefix="umpteen-batch-")
        with os.fdopen(handle, "wb") as written:
            written.write(content)
    except OSError as error:
        reason = f"no temporary file can be written: {error.strerror}"
        raise StoreError(reason, "set TMPDIR to a folder that you may write to") from error
    return path


def _build_batch(file: str, job: Job) -> dict[str, Any]:
    """What the file says, in its own words."""
    batch = read_batch(open_document(file, "runs", ""))
    return {
        "nprocs": job.settings.slots or DEFAULT_SLOTS,
        "remote_output_path": batch.top or job.settings.address,
        "runs": [
            {key: value for key in _RUN_KEYS if (value := getattr(run, key))} for run in batch.runs
        ],
    }
