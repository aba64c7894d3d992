"""Batch files of `sc`: `nprocs`, `remote_output_path` and `runs` in, a ParsedFile or chunks out.

The only module that knows these words. What a runner adds to its own batch files, under the
key `umpteen`, is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from umpteen.errors import InputError
from umpteen.formats.documents import Document, error_at
from umpteen.formats.native import explain_invalid
from umpteen.formats.tasks import ParsedFile, locate_error
from umpteen.job.settings import Setting
from umpteen.job.spec import Task, check_job_name
from umpteen.store.address import is_root

__all__ = [
    "HEAD_KEYS",
    "RUN_KEYS",
    "BatchFile",
    "Run",
    "complete_runs",
    "encode_chunk",
    "is_of_a_job",
    "read_batch",
    "read_saturn_batch",
]


class Run(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One item of `runs`; the two about its status are what an earlier split saw."""

    cmd: str = ""
    remote_output_path: str | None = None
    local_results_dir: str | None = None
    status_code: Any = None
    status: Any = None


class _Head(msgspec.Struct):
    """The keys at the top that mean something here."""

    nprocs: Annotated[int, msgspec.Meta(ge=1)] | None = None
    remote_output_path: str | None = None


RUN_KEYS = tuple(field.name for field in msgspec.structs.fields(Run))
HEAD_KEYS = ("runs", *(field.name for field in msgspec.structs.fields(_Head)))


class BatchFile(NamedTuple):
    """A batch file as it stands there. top: its own `remote_output_path`, empty for none."""

    document: Document
    nprocs: int | None
    top: str
    runs: list[Run]

    def build_error(
        self, message: str, field: str, number: int | None = None, hint: str | None = None
    ) -> InputError:
        """What is wrong with a field at the top, or of the run of that number."""
        path = (field,) if number is None else ("runs", number, field)
        position = self.document.find(path)
        return error_at(self.document.source, position, message, hint, field=field)


def read_batch(document: Document) -> BatchFile:
    """What a batch file says, and no more; raises InputError with file and line."""
    values = {key: document.value(key) for key in document.list_keys() if key in HEAD_KEYS[1:]}
    try:
        head = document.convert_values(values, _Head)
    except msgspec.ValidationError as error:
        raise explain_invalid(document, error, (), HEAD_KEYS) from None
    try:
        runs = document.convert("runs", list[Run])
    except msgspec.ValidationError as error:
        raise explain_invalid(document, error, ("runs",), RUN_KEYS) from None
    return BatchFile(document, head.nprocs, head.remote_output_path or "", runs)


def read_saturn_batch(document: Document) -> ParsedFile:
    """What a batch file says; raises InputError with file and line."""
    batch = read_batch(document)
    parsed = ParsedFile(document.source, path=("runs",), find=document.find)
    parsed.settings = _read_settings(batch)
    parsed.is_part = True  # a split makes many such files for one place
    parsed.name = _name_by_place(batch.top)
    for index, run in enumerate(batch.runs):
        if not batch.top and not run.remote_output_path:
            missing = InputError("no 'remote_output_path'", "give one at the top of the file")
            raise locate_error(parsed, missing, index)
        if run.remote_output_path and is_root(run.remote_output_path):
            message = "'remote_output_path' cannot be the root folder itself"
            raise locate_error(parsed, InputError(message, "give a folder below it"), index)
    parsed.entries = [_build_task(run, index, batch.top) for index, run in enumerate(batch.runs)]
    return parsed


def complete_runs(batch: BatchFile, top: str) -> None:
    """Give each run what it does not say itself: its place below `top`, a folder for results.

    Raises InputError, with file and line, for a run without a command and for two with one
    place.
    """
    prefix = top.rstrip("/") + "/"
    folders = os.urandom(16 * len(batch.runs)).hex()
    places: dict[str, int] = {}
    for index, run in enumerate(batch.runs):
        if not run.cmd.strip():
            raise batch.build_error(f"run {index} has no cmd", "cmd", index)
        if not run.remote_output_path:
            run.remote_output_path = f"{prefix}{index}"
        if not run.local_results_dir:
            run.local_results_dir = f"/tmp/{folders[32 * index : 32 * index + 32]}/"
        first = places.setdefault(run.remote_output_path.rstrip("/"), index)
        if first != index:
            raise batch.build_error(
                f"runs {first} and {index} have one remote_output_path, {run.remote_output_path}",
                "remote_output_path",
                index,
                "give each run a path of its own",
            )


def encode_chunk(runs: Sequence[Run], top: str, nprocs: int, split: str) -> bytes:
    """A batch file of some runs, in JSON. split: of which it is, so that no two are the same."""
    head = {"remote_output_path": top, "nprocs": nprocs, "umpteen": {"split": split}}
    return _ENCODER.encode({"runs": runs, **head})


def is_of_a_job(document: Document) -> bool:
    """Whether a batch file is one that umpteen made for a runner, which is no chunk."""
    if "umpteen" not in document.list_keys():
        return False
    own = document.value("umpteen")
    return not isinstance(own, dict) or "split" not in own


_ENCODER = msgspec.json.Encoder()


def _read_settings(batch: BatchFile) -> dict[str, Setting]:
    found = {"slots": batch.nprocs, "address": batch.top}
    source = batch.document.source.name
    return {key: Setting(value, source) for key, value in found.items() if value}


def _name_by_place(top: str) -> str | None:
    """The job's name, the same for all files of one place; None where it would be none."""
    name = top.rstrip("/").rpartition("/")[2]
    try:
        return check_job_name(name)
    except InputError:
        return None


def _build_task(run: Run, index: int, top: str) -> Task:
    path = run.remote_output_path
    name = _name_below(top, path) if top and path else ""
    return Task(
        run.cmd,
        name or str(index),
        output=path if path and not name else None,
        results_dir=run.local_results_dir or None,
    )


def _name_below(top: str, path: str) -> str:
    """The run's path relative to the batch's; empty where it does not lie below it."""
    folder = top.rstrip("/") + "/"
    if not path.startswith(folder):
        return ""
    name = path[len(folder) :].strip("/")
    return "" if {"", ".", ".."}.intersection(name.split("/")) else name
