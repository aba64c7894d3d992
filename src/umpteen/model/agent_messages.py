"""What is asked of the agent on a host behind ssh about a job, and what it answers.

`runner/agent.py` answers there; `umpteen.executors.ssh` asks, and believes nothing of it before it
has its form here. Standard library alone.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from umpteen.model.forms import (
    FormError,
    get,
    list_of,
    number,
    table_of,
    text,
    token,
    truth,
    whole,
)

__all__ = [
    "ALL",
    "COPY",
    "LOGS",
    "PULLS",
    "RECORDS_ONLY",
    "RUNNER",
    "STATUS",
    "UNPACKED",
    "HostCopy",
    "HostFile",
    "HostItem",
    "HostRunner",
    "News",
    "NewsRequest",
    "Probe",
    "RecordsPart",
    "RunnerReport",
    "RunningPart",
    "StorePlace",
    "TaskOutputs",
    "check_news",
    "parse_copies",
    "parse_host_runners",
    "parse_items",
    "parse_news",
    "parse_place",
    "parse_probe",
    "parse_reports",
]

_RECORDS_NAME = re.compile(r"[0-9]{1,10}/[0-9]{1,10}-[0-9a-f]{1,64}\.jsonl")
_RUNNING_NAME = re.compile(r"[0-9]{1,10}/[0-9]{1,10}-[0-9a-f]{1,64}\.json")
ALL, LOGS, STATUS, RECORDS_ONLY = "all", "logs", "none", "records"  # which files are brought
PULLS = (ALL, LOGS, STATUS)  # those that a user may choose

COPY, RUNNER, UNPACKED = "copy", "runner", "synced"  # kinds of what is removed from a host

_MOST_PATH, _MOST_NAME = 4096, 255  # bytes, as Linux has it
_MOST_CONTENT = 1 << 20  # characters of a running file, as the agent sends at most
_MOST_SAID = 4000
_MOST_RUNNING = 10_000  # running files: one for each batch that is open, or was when it was killed
_MOST_BYTES = 1 << 62
_KINDS = (stat.S_IFREG, stat.S_IFLNK)


class Probe(NamedTuple):
    """What a host is, and has for tasks."""

    host: str  # its name, as it says itself
    machine: str
    boot: str
    python: str  # its version
    cpus: int
    memory: int  # bytes
    gpus: int
    load: float  # over the last minute
    disk_free: int  # bytes, where our folder is
    time: float  # seconds since 1970 by its clock
    user: str
    folder: str  # of this user's own


class StorePlace(NamedTuple):
    """Where the files of a job are for a host."""

    address: str
    is_shared: bool  # they are those of the job itself; else a copy is kept there


class RunnerReport(NamedTuple):
    """How a runner on a host is."""

    token: str
    lives: bool
    given: int  # the number of the newest list of batches that it was given
    batches: Sequence[str]  # that list
    number: int  # of the newest list that it has answered to
    begun: Sequence[str]  # those that it has opened, and others that it left alone
    code: int | None = None  # its exit code, where that is known
    said: str = ""  # on its stderr


class HostFile(NamedTuple):
    """A file that a task has left on a host."""

    path: str  # below the folder of its task
    mode: int
    size: int  # bytes
    link: str  # what it points to, where it is a link
    is_sent: bool  # whether its content is behind the answer


class TaskOutputs(NamedTuple):
    """The files of one task."""

    task: int  # its index
    folder: str  # below that of the job
    files: Sequence[HostFile]
    contents: Sequence[bytes] = ()  # of those that are sent


class RecordsPart(NamedTuple):
    """New lines of a records file, and the files that they vouch for."""

    name: str  # BATCH/START-TOKEN.jsonl
    offset: int  # of these lines in it
    lines: bytes
    outputs: Sequence[TaskOutputs]


class RunningPart(NamedTuple):
    """What a running file says now."""

    name: str  # BATCH/START-TOKEN.json
    content: str


class NewsRequest(NamedTuple):
    """What is asked for: all that is new of some batches and runners."""

    folder: str  # of the job's files there
    batches: Sequence[str]
    offsets: dict[str, int]  # by records file, how much of it is known
    running: dict[str, int]  # by running file, the time stamp that is known
    runners: Sequence[str]  # tokens
    kinds: str  # of files: ALL, LOGS, STATUS or RECORDS_ONLY
    limit: int  # bytes of an answer, about
    wait_s: float  # for something new


class News(NamedTuple):
    """All that is new, or as much as one answer takes."""

    records: Sequence[RecordsPart]
    running: Sequence[RunningPart]
    stamps: dict[str, int]  # of all running files that are there
    runners: Sequence[RunnerReport]


class HostRunner(NamedTuple):
    """A runner that lives on a host, of whatever job. Words are only shown."""

    token: str
    address: str  # of its job's files, as the host has it
    job: str  # its name; empty where it is not known there
    time: float  # when it was started: seconds since 1970 by the host's clock


class HostCopy(NamedTuple):
    """What a host keeps of a job whose folder it does not see. Words are only shown."""

    name: str  # of the folder of the copy
    job: str  # its name; empty where it is not known any more
    size: int  # bytes
    time: float  # when it changed last: seconds since 1970 by the host's clock
    has_runner: bool  # a runner of it lives there
    is_home: bool  # nothing is left there to be brought


class HostItem(NamedTuple):
    """Something that was removed from a host, or would be. Words are only shown."""

    kind: str  # COPY, RUNNER (its zip file) or UNPACKED (a folder that was synced)
    name: str
    job: str  # of a copy
    size: int  # bytes
    failure: str = ""  # why it is still there


# --- reading ------------------------------------------------------------------------------------


def parse_probe(found: object) -> Probe:
    """Raises FormError."""
    table = table_of(found)
    return Probe(
        host=get(table, "host", text),
        machine=get(table, "machine", text),
        boot=get(table, "boot", text),
        python=get(table, "python", text),
        cpus=get(table, "cpus", whole, 1, 1 << 20),
        memory=get(table, "memory", whole, 0, _MOST_BYTES),
        gpus=get(table, "gpus", whole, 0, 1 << 20),
        load=get(table, "load", number),
        disk_free=get(table, "disk_free", whole, 0, _MOST_BYTES),
        time=get(table, "time", number),
        user=get(table, "user", text),
        folder=get(table, "folder", _parse_folder),
    )


def parse_place(found: object) -> StorePlace:
    """Raises FormError."""
    table = table_of(found)
    return StorePlace(get(table, "address", text), get(table, "is_shared", truth))


def _parse_folder(value: object, what: str) -> str:
    folder = text(value, what)
    if not folder.startswith("/") or ".." in folder.split("/"):
        raise FormError(f"{what} is no folder")
    return folder


def parse_reports(found: object) -> list[RunnerReport]:
    """Raises FormError."""
    return list_of(_parse_report, found)


def _parse_report(found: object) -> RunnerReport:
    table = table_of(found)
    code = table.get("code")
    return RunnerReport(
        get(table, "token", token),
        get(table, "lives", truth),
        get(table, "given", whole),
        get(table, "batches", _list_tokens),
        get(table, "number", whole),
        get(table, "begun", _list_tokens),
        None if code is None else whole(code, -(1 << 16), 1 << 16),
        get(table, "said", _parse_said),
    )


def _list_tokens(value: object, what: str) -> list[str]:
    return list_of(token, value, what)


def _parse_said(value: object, what: str) -> str:
    """Only shown."""
    if not isinstance(value, str):
        raise FormError(f"{what} is no text")
    return text(value[-_MOST_SAID:].replace("\0", "").encode(errors="replace").decode(), what)


def parse_host_runners(found: object) -> list[HostRunner]:
    """Raises FormError."""
    return list_of(_parse_host_runner, found)


def _parse_host_runner(found: object) -> HostRunner:
    table = table_of(found)
    return HostRunner(
        get(table, "token", token),
        get(table, "address", _parse_said),
        get(table, "job", _parse_said),
        get(table, "time", number),
    )


def parse_copies(found: object) -> list[HostCopy]:
    """Raises FormError."""
    return list_of(_parse_copy, found)


def _parse_copy(found: object) -> HostCopy:
    table = table_of(found)
    return HostCopy(
        get(table, "name", _parse_said),
        get(table, "job", _parse_said),
        get(table, "size", whole, 0, _MOST_BYTES),
        get(table, "time", number),
        get(table, "has_runner", truth),
        get(table, "is_home", truth),
    )


def parse_items(found: object) -> list[HostItem]:
    """Raises FormError."""
    return list_of(_parse_item, found)


def _parse_item(found: object) -> HostItem:
    table = table_of(found)
    return HostItem(
        get(table, "kind", _parse_said),
        get(table, "name", _parse_said),
        get(table, "job", _parse_said),
        get(table, "size", whole, 0, _MOST_BYTES),
        get(table, "failure", _parse_said),
    )


def parse_news(found: object, content: bytes) -> News:
    """An answer, of which the contents of files are behind one another. Raises FormError."""
    table = table_of(found)
    cursor = _Cursor(content)
    records = [_parse_records(table_of(part), cursor) for part in get(table, "records", _as_list)]
    cursor.end()
    stamps, running = get(table, "stamps", table_of), get(table, "running", _as_list)
    if max(len(stamps), len(running)) > _MOST_RUNNING:
        raise FormError("there are too many running files")
    return News(
        records,
        [_parse_running(table_of(part)) for part in running],
        {
            _parse_name(name, _RUNNING_NAME): whole(stamp, 0, _MOST_BYTES)
            for name, stamp in stamps.items()
        },
        parse_reports(table.get("runners")),
    )


def check_news(news: News, request: NewsRequest) -> None:
    """Raises FormError where it says more than was asked for."""
    known: dict[str, int] = {}
    for part in news.records:
        if part.offset != known.get(part.name, request.offsets.get(part.name, 0)):
            raise FormError("the lines of a records file are not those that were asked for")
        known[part.name] = part.offset + len(part.lines)
    batches = set(request.batches)
    names = (*known, *news.stamps)  # running files have one of these
    if not all(name.partition("/")[0] in batches for name in names):
        raise FormError("a file is of a batch that was not asked for")
    if not all(part.name in news.stamps for part in news.running):
        raise FormError("a running file is there and is not")
    if not {report.token for report in news.runners}.issubset(request.runners):
        raise FormError("a runner was not asked for")


def _as_list(value: object, what: str) -> list[Any]:
    return list_of(lambda item: item, value, what)


class _Cursor:
    """Takes one part after the other of what is behind an answer."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, size: int) -> bytes:
        taken = self._content[self._at : self._at + size]
        if len(taken) < size:
            raise FormError("it is shorter than it says")
        self._at += size
        return taken

    def end(self) -> None:
        if self._at < len(self._content):
            raise FormError("it is longer than it says")


def _parse_records(table: Mapping[str, Any], cursor: _Cursor) -> RecordsPart:
    name = _parse_name(table.get("name"), _RECORDS_NAME)
    offset = get(table, "offset", whole, 0, _MOST_BYTES)
    lines = cursor.take(get(table, "size", whole, 0, _MOST_BYTES))
    if lines and not lines.endswith(b"\n"):
        raise FormError("a line is cut off")
    outputs = [_parse_outputs(each, cursor) for each in get(table, "outputs", _as_list)]
    return RecordsPart(name, offset, lines, outputs)


def _parse_outputs(found: object, cursor: _Cursor) -> TaskOutputs:
    """One of each task, so it is a list and not an object."""
    if not isinstance(found, list) or len(found) < 3:
        raise FormError("the files of a task have not their fields")
    files = list_of(_parse_file, found[2])
    return TaskOutputs(
        whole(found[0]),
        _parse_path(found[1]),
        files,
        [cursor.take(file.size) for file in files if file.is_sent],
    )


def _parse_running(table: Mapping[str, Any]) -> RunningPart:
    content = get(table, "content", text)
    if len(content) > _MOST_CONTENT:
        raise FormError("a running file is too long")
    return RunningPart(_parse_name(table.get("name"), _RUNNING_NAME), content)


def _parse_name(value: object, form: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise FormError("the name of a file is none of ours")
    return value


def _parse_file(found: object) -> HostFile:
    """One of several for each task, so it is a list and not an object."""
    if not isinstance(found, list) or len(found) != 5:
        raise FormError("a file has not its five fields")
    path, mode, size, link, is_sent = found
    kind = stat.S_IFMT(whole(mode, what="a mode"))
    if kind not in _KINDS:
        raise FormError("a file is neither a file nor a link")
    if kind == stat.S_IFLNK and (is_sent is not False or not link):
        raise FormError("a link leads nowhere, or has a content")
    return HostFile(
        _parse_path(path),
        mode,
        whole(size, 0, _MOST_BYTES),
        _parse_words(link, is_empty=kind != stat.S_IFLNK),
        truth(is_sent),
    )


def _parse_path(value: object) -> str:
    path = _parse_words(value, is_empty=False)
    parts = path.split("/")
    if not path or "" in parts or "." in parts or ".." in parts:
        raise FormError("the path of a file leads elsewhere")
    if max(len(part.encode(errors="surrogateescape")) for part in parts) > _MOST_NAME:
        raise FormError("the name of a file is too long")
    return path


def _parse_words(value: object, *, is_empty: bool) -> str:
    """A path, in which bytes that are no UTF-8 are escaped as Python has it."""
    if not isinstance(value, str) or "\0" in value or (is_empty and value):
        raise FormError("the path of a file is none")
    try:
        encoded = value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise FormError("the path of a file is none") from None
    if len(encoded) > _MOST_PATH:
        raise FormError("the path of a file is too long")
    return value
