"""How far batches are that hosts have, by the lines of their records files."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from umpteen.model.agent_messages import RecordsPart
from umpteen.model.forms import FormError
from umpteen.model.record import Record, parse_record
from umpteen.runner.batch_start import read_batch
from umpteen.store.address import find_output, is_remote
from umpteen.store.base import Store
from umpteen.store.layout import OUTPUTS, attempt_folder, records_folder
from umpteen.store.records import build_line, find_end, parse_lines
from umpteen.system.plain_files import remove_empty

__all__ = ["ELSEWHERE", "BatchProgress", "HostRecord", "SharedFolder", "split_name"]


# The end of a start in the copy of another host: what it left is done there.
ELSEWHERE = build_line({"event": "end", "elsewhere": True, "left": 1, "states": {}})


class HostRecord(NamedTuple):
    """A line that came home."""

    batch: str
    token: str  # of the runner
    record: Record


class BatchProgress:
    """A batch of the job: where its tasks' files are, and what came of them as far as is known."""

    def __init__(self, store: Store, batch: str) -> None:
        self.batch, self.view, self._store = batch, read_batch(store, batch), store
        self._outputs = self.view.map_outputs()
        self.lock = threading.RLock()  # of whoever adds to it
        self.has_end = False  # a runner has said that nothing of it is left
        self.finals: set[int] = set()  # indices
        self._won_by: dict[int, str] = {}  # by index, the runner whose success counts
        self._origins: dict[int, str] = {}  # by index, where what is in its folder would be else
        self._fenced: dict[tuple[str, int], Record] = {}  # whose files are below `attempts/`
        for name in store.names(records_folder(batch)):
            token = name.removesuffix(".jsonl").partition("-")[2]
            content = store.read(f"{records_folder(batch)}/{name}") or b""
            outcomes = [HostRecord(batch, token, record) for record in _list_records(content)]
            self.note_lines(content, outcomes)

    def find_folder(self, task: int) -> str:
        """The folder of a task below that of the job. Raises FormError where it has none there."""
        store, folder = find_output(self._store, self._outputs[task])
        if store is not self._store:
            raise FormError("the files of a task are not in the job's folder")
        return folder

    def read_lines(self, lines: bytes, token: str) -> tuple[bytes, list[HostRecord]]:
        """The lines that are written, which are as long, and what they say.

        A line of a task that has succeeded elsewhere is made empty: the first success stays.
        """
        kept, outcomes = [], []
        for line in _split_lines(lines):
            record = next(iter(_list_records(line)), None)
            if record is not None and record.task not in self._outputs:
                raise FormError(f"task {record.task} is not of batch {self.batch}")
            if record is not None and self._won_by.get(record.task, token) != token:
                kept.append(b" " * (len(line) - 1) + b"\n")
                continue
            kept.append(line)
            if record is not None:
                outcomes.append(HostRecord(self.batch, token, record))
        return b"".join(kept), outcomes

    def find_origin(self, task: int) -> str:
        """The folder below `attempts/` for what is in a task's own folder: by the attempt that it
        is of, where that is one of this batch.
        """
        return self._origins.get(task) or attempt_folder(1, f"before{self.batch}")

    @property
    def left(self) -> int:
        """How many of its tasks have not come to an end."""
        return len(self.view.indices) - len(self.finals)

    def note_lines(self, lines: bytes, outcomes: Iterable[HostRecord]) -> None:
        """Learn of lines that are here, and what they say."""
        end = find_end(lines)
        self.has_end |= end is not None and end.left == 0
        for outcome in outcomes:
            self._note(outcome)

    def _note(self, outcome: HostRecord) -> None:
        record = outcome.record
        if record.is_final:
            self.finals.add(record.task)
        if record.succeeded:
            self._won_by.setdefault(record.task, outcome.token)
        if record.outputs:
            self._fenced[outcome.token, record.task] = record
        elif record.is_final:
            self._origins[record.task] = attempt_folder(record.attempt, outcome.token)

    def move_fenced(self, lines: bytes, token: str) -> None:
        """Move files to their place where these lines say that the host has done so.

        Before these lines are written: what a killed head has begun to move is moved then. Files
        that the host had moved before they were brought are in their place.
        """
        for line in parse_lines(lines):
            task = line.get("moved")
            record = self._fenced.get((token, task)) if isinstance(task, int) else None
            if record is not None and self._won_by.get(record.task) == token:
                self._move(self.find_folder(record.task), record)

    def _move(self, folder: str, record: Record) -> None:
        source = f"{folder}/{record.outputs}"
        aside = f"{folder}/{attempt_folder(record.attempt, 'earlier')}"
        there = self._store.names(source)
        for name in filter(there.__contains__, OUTPUTS):
            self._store.move(f"{folder}/{name}", f"{aside}/{name}")
            self._store.move(f"{source}/{name}", f"{folder}/{name}")
        remove_empty(self._store.address, source)


def _split_lines(lines: bytes) -> list[bytes]:
    """As readers of records files split them: at nothing else that could end a line."""
    return [line + b"\n" for line in lines.split(b"\n")[:-1]]


def _list_records(content: bytes) -> Iterator[Record]:
    for line in parse_lines(content):
        if record := parse_record(line):
            yield record


def split_name(name: str) -> tuple[str, str]:
    """The batch and the runner's token of a file BATCH/START-TOKEN.jsonl, or .json."""
    batch, _, start = name.partition("/")
    return batch, start.partition(".")[0].partition("-")[2]


class SharedFolder:
    """Results that hosts see themselves: what they record there is only noted.

    Where they are in no folder, hosts do not say what is new, and it is looked at anew each time.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._is_far = store, is_remote(store.address)
        self._batches: dict[str, BatchProgress] = {}

    def read_offsets(self, batch: str) -> dict[str, int]:
        """Nothing is known before: what is there already is noted once more."""
        del batch
        return {}

    def find_batch(self, batch: str) -> BatchProgress:
        """How far a batch is. Raises StoreError."""
        if batch not in self._batches or self._is_far:
            self._batches[batch] = BatchProgress(self._store, batch)
        return self._batches[batch]

    def add(self, part: RecordsPart, fetch: object = None, host: str = "") -> list[HostRecord]:
        """Learn of new lines; what they say. Raises FormError."""
        del fetch, host
        batch, token = split_name(part.name)
        known = self.find_batch(batch)
        with known.lock:
            _, outcomes = known.read_lines(part.lines, token)
            known.note_lines(part.lines, outcomes)
        return outcomes
