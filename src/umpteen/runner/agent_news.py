"""On a host behind ssh: what runners have recorded, and the files of their tasks.

Calls of the agent, see `runner/agent.py`. Standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Callable

from umpteen.model.agent_messages import (
    ALL,
    LOGS,
    RECORDS_ONLY,
    HostFile,
    NewsRequest,
    RunnerReport,
    TaskOutputs,
)
from umpteen.model.record import Record, parse_record
from umpteen.runner.batch_start import read_batch
from umpteen.store.address import find_output, open_store
from umpteen.store.base import Store
from umpteen.store.layout import RECORDS, RUNNING
from umpteen.store.records import parse_lines
from umpteen.system.locks import leases_folder
from umpteen.system.plain_files import (
    Found,
    open_below,
    remove_below,
    remove_empty,
    walk_below,
)

__all__ = ["bring", "drop", "forget"]

_POLL_S = 0.1
_SMALL_BYTES = 1 << 20  # a file of more is asked for by itself
_LINES_BYTES = 1 << 18  # of records in one part
_LINE_MOST = 3 << 20  # of one line: the last one of a start says the states of all its tasks
_MOST_BATCHES = 8
_LOGS = ("stdout", "stderr", "status_code", "status")
_STATUS = ("status_code", "status")

# By address and batch: by the index of a task, the address of its folder.
_outputs: OrderedDict[tuple[str, str], dict[int, str]] = OrderedDict()


def bring(
    report: Callable[[str], RunnerReport], **asked: Any
) -> tuple[Mapping[str, object], bytes]:
    """What is new, as soon as anything is: News, and the contents of its files behind it."""
    request = NewsRequest(**asked)
    limit_s = time.monotonic() + request.wait_s
    before = [report(token) for token in request.runners]
    while True:
        # Runners first: what they recorded before their end is read after it.
        runners = [report(token) for token in request.runners]
        answer = _Answer(request)
        running, stamps = _list_running(request)
        is_new = bool(answer.records or running) or stamps != request.running or runners != before
        if is_new or time.monotonic() >= limit_s:
            found = {
                "records": answer.records,
                "running": running,
                "stamps": stamps,
                "runners": [each._asdict() for each in runners],
            }
            return found, b"".join(answer.contents)
        before = runners
        time.sleep(_POLL_S)


class _Answer:
    """New records, with the files that they vouch for: as many as one message takes."""

    def __init__(self, request: NewsRequest) -> None:
        self.records: list[Mapping[str, object]] = []
        self.contents: list[bytes] = []
        self._request, self._left = request, request.limit
        for name, offset in _list_grown(request):
            if self._left <= 0:
                break
            self._add(name, offset)

    def _add(self, name: str, offset: int) -> None:
        with open(f"{self._request.folder}/{RECORDS}/{name}", "rb") as file:
            file.seek(offset)
            content = part = file.read(_LINES_BYTES)
            while part and b"\n" not in part and len(content) < _LINE_MOST:  # one long line
                content += (part := file.read(_LINES_BYTES))
        content = content[: content.rfind(b"\n") + 1]
        outputs: list[TaskOutputs] = []
        contents: list[bytes] = []
        size = 0
        while size < len(content) and self._left > 0:
            end = content.index(b"\n", size) + 1
            if self._request.kinds != RECORDS_ONLY:
                outputs += self._read_outputs(name, content[size:end], contents)
            self._left -= end - size
            size = end
        if size:
            self.contents += [content[:size], *contents]
            self.records.append({"name": name, "offset": offset, "size": size, "outputs": outputs})

    def _read_outputs(self, name: str, line: bytes, contents: list[bytes]) -> Iterator[TaskOutputs]:
        """The files that a line vouches for; the contents of small ones are added."""
        record = _parse_final(line)
        store = open_store(self._request.folder)
        folder = _find_outputs(store, name.partition("/")[0], record) if record else None
        if record is None or folder is None:
            return
        files = []
        listed = walk_below(self._request.folder, folder, is_patient=True)
        if not listed and record.outputs:  # it was moved to its place since
            folder = folder[: -len(record.outputs) - 1]
            listed = walk_below(self._request.folder, folder, is_patient=True)
        for found in listed:
            if not _is_wanted(found, self._request.kinds):
                continue
            sent = self._read_small(f"{folder}/{found.path}", found)
            size = found.size if sent is None else len(sent)
            files.append(HostFile(found.path, found.mode, size, found.link, sent is not None))
            contents += [sent] if sent is not None else []
            self._left -= len(sent or b"") + len(found.path)
        if files:
            yield TaskOutputs(record.task, folder, files)

    def _read_small(self, path: str, found: Found) -> bytes | None:
        """The content of a small file; None of another, or a link."""
        # What is too much for this answer is asked for by itself, as a task may leave any number.
        most = min(_SMALL_BYTES, max(0, self._left))
        if stat.S_ISLNK(found.mode) or found.size > most:
            return None
        with contextlib.suppress(OSError):
            with os.fdopen(open_below(self._request.folder, path), "rb") as file:
                content = file.read(most + 1)
            return content if len(content) <= most else None
        return None


def _is_wanted(found: Found, kinds: str) -> bool:
    if not (stat.S_ISREG(found.mode) or stat.S_ISLNK(found.mode)):
        return False
    return kinds == ALL or _is_log(found.path, kinds)


def _is_log(path: str, kinds: str) -> bool:
    return path.rpartition("/")[2] in (_LOGS if kinds == LOGS else _STATUS) and (
        "/" not in path or path.startswith("attempts/")
    )


def _parse_final(line: bytes) -> Record | None:
    """The record that a line is, where the task comes to its end with it and may have files."""
    for parsed in parse_lines(line):
        record = parse_record(parsed)
        if record and record.is_final:
            return record
    return None


def _find_outputs(store: Store, batch: str, record: Record) -> str | None:
    """The folder of a task's files, below that of its job; None where it is elsewhere."""
    key = (store.address, batch)
    if key not in _outputs:
        _outputs[key] = read_batch(store, batch).map_outputs()
        while len(_outputs) > _MOST_BATCHES:
            _outputs.popitem(last=False)
    if record.task not in _outputs[key]:
        return None
    found, folder = find_output(store, _outputs[key][record.task])
    if found is not store:
        return None
    return f"{folder}/{record.outputs}" if record.outputs else folder


def _list_grown(request: NewsRequest) -> Iterator[tuple[str, int]]:
    """The records files that have more than is known, each with how much that is."""
    for batch in request.batches:
        with (
            contextlib.suppress(FileNotFoundError),
            os.scandir(f"{request.folder}/{RECORDS}/{batch}") as entries,
        ):
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = f"{batch}/{entry.name}"
                known = request.offsets.get(name, 0)
                if entry.name.endswith(".jsonl") and entry.stat().st_size > known:
                    yield name, known


def _list_running(request: NewsRequest) -> tuple[list[Mapping[str, object]], dict[str, int]]:
    """The running files that changed, and the time stamps of all that are there."""
    changed: list[Mapping[str, object]] = []
    stamps: dict[str, int] = {}
    for batch in request.batches:
        with (
            contextlib.suppress(FileNotFoundError),
            os.scandir(f"{request.folder}/{RUNNING}/{batch}") as entries,
        ):
            for entry in entries:
                if not entry.name.endswith(".json"):
                    continue
                name = f"{batch}/{entry.name}"
                with contextlib.suppress(OSError):
                    stamps[name] = entry.stat().st_mtime_ns
                    if request.running.get(name) != stamps[name]:
                        with open(entry.path, encoding="utf-8") as file:
                            changed.append({"name": name, "content": file.read(_SMALL_BYTES)})
    return changed, stamps


# --- what is home ---------------------------------------------------------------------------------


def drop(body: bytes, folder: str, name: str, first: int, last: int) -> None:
    """Remove what the records between two offsets of a file vouch for: it is home."""
    del body
    store = open_store(folder)
    with open(f"{folder}/{RECORDS}/{name}", "rb") as file:
        file.seek(first)
        content = file.read(last - first)
    batch = name.partition("/")[0]
    for line in content.splitlines(keepends=True):
        record = _parse_final(line)
        if record and (outputs := _find_outputs(store, batch, record)):
            with contextlib.suppress(OSError):  # what is not ours to remove
                remove_below(folder, outputs)
            while "/" in outputs:  # of a task whose name has parts
                outputs = outputs.rpartition("/")[0]
                remove_empty(folder, outputs)


def forget(body: bytes, folder: str) -> None:
    """Remove the copy of a job, which is home."""
    del body
    own = f"{leases_folder()}/jobs"
    if os.path.dirname(folder) == own:
        remove_below(own, os.path.basename(folder))
