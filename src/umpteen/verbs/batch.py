"""`batch`: one batch file, run here by a runner that takes this process's place."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import NamedTuple, NoReturn, cast

import msgspec

from umpteen.errors import InputError, SettingsError, StoreError
from umpteen.formats import read_job
from umpteen.formats.files import open_document
from umpteen.formats.saturn_batch import BatchFile, Run, read_batch
from umpteen.job.spec import Job
from umpteen.model.batch import GIVEN_KEYS, GivenBatch, GivenRun
from umpteen.model.command import RUNNER_VARIABLE, write_verb
from umpteen.query.registry import register
from umpteen.runner.import_batch import DEFAULT_SLOTS, build_batch_id
from umpteen.runner.launch import build_runner_command
from umpteen.store.address import parse_address
from umpteen.system.whole_files import read_file

__all__ = ["BatchOptions", "become_runner", "build_batch", "build_command"]


class BatchOptions(NamedTuple):
    """How a batch file is run."""

    is_strict: bool = False  # exit with 1 if a task did not succeed
    takes_over: bool = False  # end another start of this batch that lives
    echoes: bool = True  # copy what runs print, as each ends


def become_runner(file: str, options: BatchOptions) -> NoReturn:
    """Run a batch file in place of this process. Raises InputError and StoreError."""
    job = _read_batch_job(file)
    with contextlib.suppress(SettingsError):  # an address that the runner will refuse
        register(job.name, parse_address(job.settings.address))
    token = os.urandom(6).hex()
    command = build_command(token, options, _place(file, job))
    os.execve(command[0], command, {**os.environ, RUNNER_VARIABLE: token})


def _read_batch_job(file: str) -> Job:
    if not os.path.exists(file):
        raise InputError(f"no such file: {file!r}", "give a batch file, such as 0.json")
    job = read_job([file], may_be_empty=True)
    if not job.is_part:
        raise InputError(f"{file} is no batch file: it has no 'runs'", write_verb("run", file))
    return job


def build_command(token: str, options: BatchOptions, place: list[str]) -> list[str]:
    """The command of the runner. place: the file that it reads, and what goes with that."""
    flags = {
        "--strict": options.is_strict,
        "--take-over": options.takes_over,
        "--echo": options.echoes,
    }
    given = [flag for flag, is_given in flags.items() if is_given]
    return [*build_runner_command(), f"--token={token}", *given, *place]


def _place(file: str, job: Job) -> list[str]:
    """The runner's arguments: JSON as it is, YAML as JSON beside the id of what was written."""
    content = read_file(file)
    if _is_json(content):
        return [file]
    batch = build_batch(read_batch(open_document(file, "runs", "")), job)
    path = _write_temporary(msgspec.json.encode(batch))
    return [path, f"--batch-id={build_batch_id(content)}"]


def _is_json(content: bytes) -> bool:
    try:
        msgspec.json.decode(content)
    except msgspec.DecodeError:
        return False
    return True


def build_batch(batch: BatchFile, job: Job) -> GivenBatch:
    """What a batch file says, in its own words."""
    return {
        "nprocs": job.settings.slots or DEFAULT_SLOTS,
        "remote_output_path": batch.top or job.settings.address,
        "runs": [_build_run(run) for run in batch.runs],
    }


def _build_run(run: Run) -> GivenRun:
    said = {key: value for key in GIVEN_KEYS if (value := getattr(run, key))}
    return cast(GivenRun, said)


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
