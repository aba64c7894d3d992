"""The file of a batch as a runner reads it: each field checked before anything is made of it.

Takes a store and the batch's name, gives what the file says; docs/files.md has the fields. Its
cost is a check or two a task, where a run costs a process. Standard library alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from umpteen.errors import StoreError
from umpteen.model.dependencies import OUTCOMES
from umpteen.model.forms import (
    MOST_TASKS,
    FormError,
    get,
    list_of,
    load_json,
    number,
    parse_ranges,
    place,
    refuse_nul,
    table_of,
    text,
    token,
    truth,
    whole,
)
from umpteen.model.names import find_malformed_name
from umpteen.store.base import Store
from umpteen.store.job_files import read_form
from umpteen.store.layout import batch_key
from umpteen.store.records import parse_record

__all__ = ["read_batch_file"]

_MOST_SLOTS = 2**31  # an older version took any number
_DIGEST = re.compile(r"[0-9a-f]{16,128}")


def read_batch_file(store: Store, batch: str) -> dict[str, Any]:
    """A batch file. Raises StoreError where there is none, or it is damaged."""
    token(batch, "a batch")
    content = read_form(store, batch_key(batch), functools.partial(_parse, batch))
    if content is None:
        message = f"there is no batch {batch} at {store.address}"
        raise StoreError(message, path=store.address, damaged=True)
    return content


def _parse(batch: str, content: bytes) -> dict[str, Any]:
    parsed = table_of(load_json(content))
    refuse_nul(parsed, content)
    own = get(parsed, "umpteen", table_of)
    whole(own.get("version", 0), what="'version'")
    get(parsed, "nprocs", whole, 1, _MOST_SLOTS)
    runs = get(parsed, "runs", functools.partial(list_of, _check_run))
    get(own, "job", text)
    if get(own, "batch", text) != batch:
        raise FormError(f"it is batch {own['batch'][:40]!r}")
    names = get(own, "names", functools.partial(list_of, text))
    indices = get(own, "indices", parse_ranges)
    if not len(runs) == len(names) == sum(map(len, indices)):
        raise FormError("it has not as many names as runs, or as indices")
    if problem := find_malformed_name(names):
        raise FormError(problem.message)
    for position, extra in table_of(own.get("extras", {})).items():
        place(position, len(runs))
        _check_extra(table_of(extra))
    _check_extra(table_of(own.get("common", {})))
    for position, written in table_of(own.get("written", {})).items():
        place(position, len(runs))
        text(written, what="'written'")
    for position, before in table_of(own.get("attempts", {})).items():
        place(position, len(runs))
        _check_before(before)
    _check_settings(own)
    _check_after(own, len(runs))
    return parsed


def _check_run(run: object) -> dict[str, Any]:
    """One of as many as there are tasks, so it is quick where all is well."""
    if not isinstance(run, dict):
        raise FormError("a run is no object")
    command, output = run.get("cmd"), run.get("remote_output_path")
    if type(command) is not str or type(output) is not str or not output.strip("/"):
        raise FormError("a run has no 'cmd' or no 'remote_output_path'")
    if not output.isascii():
        text(output, what="'remote_output_path'")
    if run.get("local_results_dir") is not None:
        text(run["local_results_dir"], what="'local_results_dir'")
    return run


def _check_extra(extra: Mapping[str, Any]) -> None:
    if "argv" in extra and not get(extra, "argv", functools.partial(list_of, text)):
        raise FormError("'argv' is empty")
    for name, value in table_of(extra.get("env") or {}, what="'env'").items():
        text(name, what="'env'")
        text(value, what="'env'")
    if extra.get("cwd") is not None:
        text(extra["cwd"], what="'cwd'")
    if extra.get("timeout_s") is not None:
        number(extra["timeout_s"], what="'timeout_s'")
    for name in ("cpus", "memory", "gpus", "output_limit"):
        if extra.get(name) is not None:
            whole(extra[name], what=repr(name))
    list_of(text, extra.get("expect") or [], what="'expect'")
    list_of(_check_rule, extra.get("retries") or [], what="'retries'")


def _check_rule(rule: object) -> None:
    """A rule of retries, see `umpteen.job.Retry`."""
    rule = table_of(rule, what="'retries'")
    list_of(text, rule.get("when"), what="'when'")
    whole(rule.get("times", 1), what="'times'")
    number(rule.get("wait_s", 1.0), what="'wait_s'")
    number(rule.get("memory_factor", 1.0), what="'memory_factor'")
    if rule.get("memory") is not None:
        whole(rule["memory"], what="'memory'")
    truth(rule.get("alone", False), what="'alone'")


def _check_before(before: object) -> None:
    """The newest earlier attempt: number and runner, and records that another was to follow."""
    if not isinstance(before, list) or len(before) < 2:
        raise FormError("'attempts' has no number and runner")
    whole(before[0], what="'attempts'")
    if before[1] != "":
        token(before[1], what="'attempts'")
    for record in list_of(table_of, (before[2] if before[2:] else None) or [], what="'attempts'"):
        if parse_record(record) is None:
            raise FormError("'attempts' has what is no record")


def _check_settings(own: Mapping[str, Any]) -> None:
    if own.get("status_file", "status_code") not in ("status_code", "status"):
        raise FormError("'status_file' is no name of ours")
    number(own.get("grace_s", 10.0), what="'grace_s'")
    if own.get("deadline_s") is not None:
        number(own["deadline_s"], what="'deadline_s'")
    if own.get("cwd") is not None:
        text(own["cwd"], what="'cwd'")
    for name in ("graph", "priorities", "fail_fast", "live"):
        truth(own.get(name, False), what=repr(name))
    whole(own.get("max_failures", 0), what="'max_failures'")
    list_of(_check_synced, own.get("synced", []), what="'synced'")


def _check_synced(entry: object) -> None:
    if not isinstance(entry, list) or len(entry) != 3:
        raise FormError("'synced' has no digest, destination and home")
    digest, destination, home = entry
    if not _DIGEST.fullmatch(text(digest)):
        raise FormError("'synced' has no digest")
    if destination is not None:
        text(destination, what="'synced'")
    text(home, what="'synced'")


def _check_after(own: Mapping[str, Any], runs: int) -> None:
    barriers = list_of(table_of, own.get("barriers", []), what="'barriers'")
    for barrier in barriers:
        text(barrier.get("doomed", ""), what="'doomed'")
        for outcome in OUTCOMES:
            parse_ranges(barrier.get(outcome, ""), what="'barriers'")
    after = list_of(
        functools.partial(whole, least=-1 - MOST_TASKS, most=len(barriers) - 1, what="'after'"),
        own.get("after", []),
        what="'after'",
    )
    if after and len(after) != runs:
        raise FormError("'after' is not as long as 'runs'")
    list_of(functools.partial(token, what="'waits'"), own.get("waits", []), what="'waits'")
