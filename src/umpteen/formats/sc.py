"""Batch files of `sc`: `nprocs`, `remote_output_path` and `runs` in, a Draft out.

The only module that knows these words. What a runner adds to its own batch files, under the
key `umpteen`, is left alone.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from umpteen.errors import InputError
from umpteen.formats.documents import Document
from umpteen.formats.entries import Draft, locate_error
from umpteen.formats.native import explain_invalid
from umpteen.job import Task, check_job_name
from umpteen.settings import Setting

__all__ = ["read_sc"]


class _Run(msgspec.Struct, forbid_unknown_fields=True, gc=False):
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


_RUN_KEYS = tuple(field.name for field in msgspec.structs.fields(_Run))
_HEAD_KEYS = ("runs", *(field.name for field in msgspec.structs.fields(_Head)))


def read_sc(document: Document) -> Draft:
    """What a batch file says; raises InputError with file and line."""
    values = {key: document.value(key) for key in document.list_keys() if key in _HEAD_KEYS[1:]}
    try:
        head = document.convert_values(values, _Head)
    except msgspec.ValidationError as error:
        raise explain_invalid(document, error, (), _HEAD_KEYS) from None
    try:
        runs = document.convert("runs", list[_Run])
    except msgspec.ValidationError as error:
        raise explain_invalid(document, error, ("runs",), _RUN_KEYS) from None
    draft = Draft(document.source, path=("runs",), find=document.find)
    draft.settings = _read_settings(head, document.source.name)
    draft.is_part = True  # a split makes many such files for one place
    draft.name = _name_by_place(head.remote_output_path)
    top = head.remote_output_path
    for index, run in enumerate(runs):
        if not top and not run.remote_output_path:
            missing = InputError("no 'remote_output_path'", "give one at the top of the file")
            raise locate_error(draft, missing, index)
    draft.entries = [_build_task(run, index, top) for index, run in enumerate(runs)]
    return draft


def _read_settings(head: _Head, source: str) -> dict[str, Setting]:
    found = {"slots": head.nprocs, "address": head.remote_output_path}
    return {key: Setting(value, source) for key, value in found.items() if value}


def _name_by_place(top: str | None) -> str | None:
    """The job's name, the same for all files of one place; None where it would be none."""
    name = (top or "").rstrip("/").rpartition("/")[2]
    try:
        return check_job_name(name)
    except InputError:
        return None


def _build_task(run: _Run, index: int, top: str | None) -> Task:
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
