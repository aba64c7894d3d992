"""The batch file: what one runner is given to run.

Its fields are here alone, with the one reader of all of it. What is damaged, or was made by
somebody who wants to do harm, raises FormError. That costs a check or two for each task.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import re
from collections.abc import Mapping
from typing import Any, TypedDict

from umpteen.model.command import build_digest
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
from umpteen.model.record import parse_record

__all__ = [
    "GIVEN_KEYS",
    "BarrierEntry",
    "BatchFile",
    "BatchView",
    "GivenBatch",
    "GivenOwn",
    "GivenRun",
    "OwnPart",
    "RetryRule",
    "RunEntry",
    "TaskExtra",
    "encode_batch",
    "parse_batch",
]

_MOST_SLOTS = 2**31  # an older version took any number
_DIGEST = re.compile(r"[0-9a-f]{16,128}")
_MADE_UP = re.compile(r"/tmp/[0-9a-f]{32}/?")  # by a split, of `sc` or ours


# --- the fields -----------------------------------------------------------------------------


class _Run(TypedDict):
    cmd: str
    remote_output_path: str  # the address of the folder of all its outputs


class RunEntry(_Run, total=False):
    """One task, with the keys of `sc` alone."""

    local_results_dir: str | None  # where it writes results to, in place of the slot's folder


class _GivenRun(TypedDict):
    cmd: str


class GivenRun(_GivenRun, total=False):
    """One task of a file from elsewhere, which may leave its place to its number."""

    remote_output_path: str | None
    local_results_dir: str | None


GIVEN_KEYS = ("cmd", "remote_output_path", "local_results_dir")


class _Rule(TypedDict):
    when: list[str]  # what must have happened, one of them


class RetryRule(_Rule, total=False):
    """When a task that did not succeed is tried again, and how; see `umpteen.job.spec.Retry`."""

    times: int
    wait_s: float
    memory_factor: float
    memory: int | None  # bytes
    alone: bool


class TaskExtra(TypedDict, total=False):
    """What some tasks have beside what is in `runs`."""

    argv: list[str]  # in place of `cmd`: words that no shell sees
    env: dict[str, str]
    cwd: str
    timeout_s: float
    retries: list[RetryRule]
    cpus: int
    memory: int  # bytes
    gpus: int
    expect: list[str]  # files that it must have left
    output_limit: int  # bytes of stdout and stderr together


# What some tasks wait for: indices as ranges, by the outcome asked for; or with the one key
# `doomed`: why tasks behind it are skipped.
BarrierEntry = dict[str, str]


class _Own(TypedDict):
    version: int  # of the format
    job: str
    batch: str
    indices: str  # of the tasks, in the order of `runs`, as ranges
    names: list[str]  # in the same order


class OwnPart(_Own, total=False):
    """What is umpteen's own in a batch file. A position is a place in `runs`."""

    # Of a file from elsewhere alone.
    hand_in: int  # the submission that took it into the job
    written: dict[str, str]  # by position: an address of outputs as it stands there, if another

    # Of the tasks.
    extras: dict[str, TaskExtra]  # by position
    common: TaskExtra  # where it is the same for all tasks
    # By position: number and runner of the newest earlier attempt (0 and "" where it may have run
    # and nothing was recorded), records of attempts that another was to follow, and its seconds.
    attempts: Mapping[str, Any]

    # Settings of the job.
    status_file: str
    grace_s: float
    cwd: str | None  # the folder that it was submitted from
    max_failures: int
    fail_fast: bool
    live: bool  # what running tasks print is put in its place, where that is no folder
    # Of each folder: digest, destination, and for engines where it was, a folder's with `/` behind.
    synced: list[tuple[str, str | None, str]]
    deadline_s: float  # seconds since 1970

    # What waits for what, as `umpteen.model.dependencies` writes it.
    graph: bool  # tasks of the job are after others
    after: list[int]  # by position; empty where none waits
    barriers: list[BarrierEntry]
    waits: list[str]  # other batches that have tasks that are waited for
    priorities: bool  # what is released goes before what was ready earlier


class BatchFile(TypedDict):
    """All of it: the keys of `sc`, so that the original runs it too, and one more."""

    nprocs: int
    remote_output_path: str  # the address of the job
    runs: list[RunEntry]
    umpteen: OwnPart


class GivenOwn(TypedDict, total=False):
    """What is umpteen's own in a file from elsewhere."""

    split: str  # of which it is, so that no two are the same
    batch: str  # that it is, where it was made for a runner and is found in another place


class _GivenBatch(TypedDict):
    remote_output_path: str
    runs: list[GivenRun]


class GivenBatch(_GivenBatch, total=False):
    """A batch file from elsewhere: of `sc`, or a chunk of `umpteen split`."""

    nprocs: int
    umpteen: GivenOwn


def encode_batch(file: BatchFile) -> bytes:
    """The content of a batch file, where there are few; a plan uses a faster encoder."""
    return json.dumps(file, separators=(",", ":")).encode()


# --- reading --------------------------------------------------------------------------------


def parse_batch(batch: str, content: bytes) -> BatchFile:
    """The file of a batch, each field checked. Raises FormError."""
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
    return parsed  # type: ignore[return-value]


def _check_run(run: object) -> RunEntry:
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
    return run  # type: ignore[return-value]


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
    """The newest earlier attempt: number, runner, records that another was to follow, seconds."""
    if not isinstance(before, list) or len(before) < 2:
        raise FormError("'attempts' has no number and runner")
    whole(before[0], what="'attempts'")
    if before[1] != "":
        token(before[1], what="'attempts'")
    for record in list_of(table_of, (before[2] if before[2:] else None) or [], what="'attempts'"):
        if parse_record(record) is None:
            raise FormError("'attempts' has what is no record")
    number(before[3] if before[3:] else 0.0, what="'attempts'")


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


# --- what a runner asks of it -----------------------------------------------------------------


class BatchView:
    """A batch file as the runner and its lanes use it; a position is a task's place in `runs`."""

    def __init__(self, content: BatchFile) -> None:
        own = content["umpteen"]
        self.job = own["job"]
        self.batch = own["batch"]
        self.slots = content["nprocs"]
        self.runs = content["runs"]
        self._folders: collections.Counter[str] | None = None
        self.names = own["names"]
        self.indices = [index for part in parse_ranges(own["indices"]) for index in part]
        self.extras = own.get("extras", {})
        self.common = own.get("common", {})
        self.before = own.get("attempts", {})
        self.status_file = own.get("status_file", "status_code")
        self.grace_s = own.get("grace_s", 10.0)
        self.submitted_from = own.get("cwd") or ""
        self.synced = own.get("synced", [])
        self.deadline_s = own.get("deadline_s")
        self.written = own.get("written")  # None: it is no file from elsewhere
        self.has_graph = own.get("graph", False)
        self.after = own.get("after", [])
        self.barriers = own.get("barriers", [])
        self.waits = own.get("waits", [])
        self.has_priorities = own.get("priorities", False)
        self.max_failures = own.get("max_failures", 0)
        self.fail_fast = own.get("fail_fast", False)
        self.live = own.get("live", False)

    def terms_of(self, position: int) -> TaskExtra:
        """What a task has beside its command and its place."""
        return self.extras.get(str(position), self.common) if self.extras else self.common

    def has_own_folder(self, position: int) -> bool:
        """Whether a task says where it runs, wherever the job was submitted from."""
        return os.path.isabs(os.path.expanduser(self.terms_of(position).get("cwd") or ""))

    def digest(self, position: int) -> str:
        """What a task's command, environment and directory are known by."""
        extra = self.terms_of(position)
        command = extra.get("argv") or self.runs[position]["cmd"]
        return build_digest(command, extra.get("env"), extra.get("cwd"))

    def is_made_up(self, folder: str) -> bool:
        """Whether a folder for results is one that a split chose, and of one run alone.

        Nobody can look for such a folder later; one that somebody chose stays.
        """
        if not _MADE_UP.fullmatch(folder):
            return False
        if self._folders is None:
            self._folders = collections.Counter(
                str(run.get("local_results_dir")).rstrip("/") for run in self.runs
            )
        return self._folders[folder.rstrip("/")] == 1

    def output(self, position: int) -> str:
        """The address of the folder of a task's outputs."""
        return self.runs[position]["remote_output_path"]

    def map_outputs(self) -> dict[int, str]:
        """The same of all tasks, by their indices."""
        return dict(zip(self.indices, map(self.output, range(len(self.runs)))))
