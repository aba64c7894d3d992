"""What a store says of a job: its submissions, its batches, and the state of each task.

Folds together what `files` and `start_reader` read: O(batches) files, and of those only what is new
since the last look. Knows nothing of executors, so not what lives.
"""

from __future__ import annotations

import collections
from array import array
from collections.abc import Iterable, Sequence

from umpteen.errors import StoreError
from umpteen.history.attempts import Failures, read_newest, read_records
from umpteen.history.batches import BatchHistory
from umpteen.history.files import Submission, SubmittedFiles
from umpteen.history.start_reader import ClosingLine, NewLines, StartReader
from umpteen.history.tasks import BatchNamesCache, read_forms, read_tasks
from umpteen.job.spec import Task
from umpteen.model.forms import parse_ranges
from umpteen.model.record import Record
from umpteen.model.states import IS_FINAL, NUMBER_OF, STATES
from umpteen.store.base import Store
from umpteen.store.identity import (
    LOST_HINT,
    Identity,
    describe_place,
    find_place,
    is_another,
    parse_id,
    tell_loss,
)
from umpteen.store.job_files import (
    JobFile,
    RunningTask,
    damaged,
    list_submission_numbers,
    read_cancel_mark,
    read_running,
)
from umpteen.store.layout import REMOVING, handed_key, handles_key
from umpteen.store.records import find_end
from umpteen.system.host import Machine, read_machine

__all__ = ["SKIPPED", "SUCCEEDED", "BatchHistory", "History"]

SUCCEEDED, SKIPPED = NUMBER_OF["succeeded"], NUMBER_OF["skipped"]
_SAMPLES = 1000


class History:
    """A job as its store has it; `refresh` reads what is new."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.files = SubmittedFiles(store)
        self.here: Machine = read_machine()
        self.place = self._folder = ""
        self.job: JobFile = {}
        self.hand_ins: list[Submission] = []
        self.batches: dict[str, BatchHistory] = {}
        self.cancelled_upto = 0  # the number of the last batch that was cancelled
        # By task index, the number of its state in STATES; `waiting` too while it runs.
        self.states = bytearray()
        self.dropped: set[int] = set()
        # Tasks that changed while a batch had them as they were: its outcome does not count.
        self.stale: set[int] = set()
        self.batch_of: array[int] = array("i")  # by task index, the number of its newest batch
        self.gone: set[int] = set()  # done, as recorded, but without what was left
        self._made_by = array("i")  # by number of a batch
        self._by_number: list[BatchHistory] = []
        self._restored_by: dict[int, int] = {}  # by task index, the number of a submission
        self.troubles: dict[str, str] = {}  # what keeps batches from going on, as last read
        self.seconds = 0.0  # that all attempts took together
        # Durations of tasks that ended lately, in seconds.
        self.samples: collections.deque[float] = collections.deque(maxlen=_SAMPLES)
        self.last_end_s = 0.0  # seconds since 1970
        self._without_handles: set[int] = set()  # submissions that no executor has answered yet
        self._batch_names = BatchNamesCache(self.files)
        self.failures = Failures(store, self.here, self._is_newest)

    # --- reading ------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read submissions, starts and records that came since the last call.

        Raises StoreError where the store cannot be read.
        """
        if not self.job:
            self.job = self.files.read_job() or {}
            self._folder = find_place(self.store.address)
            self.place = describe_place(self.here, self._folder)
        elif lost := tell_loss(self.store.address, self._folder):
            raise StoreError(lost, LOST_HINT, path=self.store.address, damaged=True)
        if self.job.get(REMOVING) == "rest":  # little of it may be left
            return
        self._read_hand_ins()
        self._read_cancel_mark()
        self._read_batches(self.list_open())

    def _read_cancel_mark(self) -> None:
        self.cancelled_upto = read_cancel_mark(self.store).upto

    def _read_hand_ins(self) -> None:
        known = len(self.hand_ins)
        for number in list_submission_numbers(self.store):
            if number <= known:
                continue
            expected = len(self.hand_ins) + 1
            if number != expected:
                path = self.store.path(handed_key(expected))
                raise damaged(path, "it is missing, and a later one is there")
            self._add_hand_in(self.files.read_submission(number, self.count))
        for number in sorted(self._without_handles):
            self._read_handle(number)

    def _add_hand_in(self, hand_in: Submission) -> None:
        self.hand_ins.append(hand_in)
        self.states += bytes(hand_in.tasks)
        self.batch_of.extend([-1] * hand_in.tasks)
        self.dropped.update(i for part in parse_ranges(hand_in.dropped) for i in part)
        for part in parse_ranges(hand_in.restored):
            self.dropped.difference_update(part)
            self._restored_by.update(dict.fromkeys(part, hand_in.hand_in))
        for part in parse_ranges(hand_in.changed):
            self.dropped.difference_update(part)
            self.states[part.start : part.stop] = bytes(len(part))
            self.stale.update(index for index in part if self.batch_of[index] >= 0)
        for handed in hand_in.batches:
            batch = self.batches.get(handed.batch)
            if batch is None:
                batch = self.batches[handed.batch] = BatchHistory(
                    handed.batch, len(self.batches), handed.indices
                )
                self._made_by.append(hand_in.hand_in)
                self._by_number.append(batch)
                self._take_in(batch)
            batch.hand_in, batch.executor = hand_in.hand_in, hand_in.executor
            batch.settings, batch.handle = hand_in.settings, ""
            batch.is_copied = is_another(hand_in.place, self.place)
        if hand_in.executor:
            self._without_handles.add(hand_in.hand_in)

    def _take_in(self, batch: BatchHistory) -> None:
        """Its tasks wait for it from now on, whatever became of them before."""
        for part in batch.indices:
            self.states[part.start : part.stop] = bytes(len(part))
            self.batch_of[part.start : part.stop] = array("i", [batch.number]) * len(part)
            self.gone.difference_update(part)
            self.stale.difference_update(part)

    def overrule(self, index: int, state: int) -> None:
        """Set the state of a task by what it left, in place of what is recorded. state: 0 where
        that is gone.
        """
        self.states[index] = state
        if not state:
            self.batch_of[index] = -1  # free to be submitted
            self.gone.add(index)

    def _read_handle(self, number: int) -> None:
        handles = self.files.read_handles(number)
        if handles is None:
            return
        for name, handle in handles.items():
            batch = self.batches.get(name)
            if batch is None:
                raise damaged(self.store.path(handles_key(number)), f"there is no batch {name}")
            if batch.hand_in == number and not batch.is_copied:
                batch.handle = handle
        self._without_handles.discard(number)

    def _read_batches(self, batches: Sequence[BatchHistory]) -> None:
        """What is new in their starts."""
        reader = StartReader(self.store, self.here, self.place)
        for news in reader.read_new(batches, self.count):
            if isinstance(news, ClosingLine):
                self._apply_closing(news)
            else:
                self._apply_lines(news)

    def _apply_closing(self, news: ClosingLine) -> None:
        batch, start, end = news
        failed = False
        for state, ranges in end.states.items():
            number = NUMBER_OF.get(state)
            if number is None:
                continue
            failed |= IS_FINAL[number] and number != SUCCEEDED
            for part in ranges:
                self._set_range(batch, part, number)
        if failed:
            self.failures.add_start(batch.batch, start.key)
        self.seconds += end.seconds
        self.last_end_s = max(self.last_end_s, end.time)

    def _set_range(self, batch: BatchHistory, part: range, number: int) -> None:
        before = self.states[part.start : part.stop]
        if not self.stale and before.count(0) == len(part) and self._all_of(batch, part):
            self.states[part.start : part.stop] = bytes([number]) * len(part)
            return
        for index in part:
            self._set(batch, index, number)

    def _all_of(self, batch: BatchHistory, part: range) -> bool:
        owners = self.batch_of[part.start : part.stop]
        return owners.count(batch.number) == len(part)

    def _set(self, batch: BatchHistory, index: int, number: int) -> None:
        """A state as a batch records it: a success stays, and only the newest batch counts."""
        if self.batch_of[index] != batch.number or self.states[index] == SUCCEEDED:
            return
        if index not in self.stale:
            self.states[index] = number
        elif IS_FINAL[number]:  # free to be submitted in its new form
            self.stale.discard(index)
            self.batch_of[index] = -1

    def _apply_lines(self, news: NewLines) -> None:
        batch, count = news.batch, self.count
        has_failures = has_end = False
        for line in news.lines:
            if line.task < 0:
                has_end |= line.event == "end"
                continue
            if line.task >= count or not line.state:  # as of another job
                continue
            number = 0 if line.retry else NUMBER_OF[line.state]
            self._set(batch, line.task, number)
            self.seconds += line.seconds
            self.last_end_s = max(self.last_end_s, line.end_s)
            self.samples.append(line.seconds)
            has_failures |= number != SUCCEEDED and IS_FINAL[number]
        if has_failures:
            self.failures.add_lines(batch.batch, news.content)
        if has_end and (end := find_end(news.content)):
            news.start.close(end)

    # --- asking -------------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """What the store is known by on this machine."""
        address = self.store.address
        return Identity(address, parse_id(self.job.get("id")), find_place(address))

    @property
    def count(self) -> int:
        """How many tasks were ever added."""
        return len(self.states)

    def find_batch(self, index: int) -> BatchHistory | None:
        """A task's newest batch; None where it has none."""
        number = self.batch_of[index]
        return self._by_number[number] if number >= 0 else None

    def numbers_of(self, batches: Iterable[str]) -> set[int]:
        """The numbers of batches given by their names, as `batch_of` has them."""
        return {self.batches[name].number for name in batches}

    def made_by(self, index: int) -> int:
        """The number of the submission that made a task's newest batch; 0 where it has none."""
        number = self.batch_of[index]
        return self._made_by[number] if number >= 0 else 0

    def came_by(self, index: int) -> int:
        """The same, or a later submission that brought the task back into the job as it was."""
        return max(self.made_by(index), self._restored_by.get(index, 0))

    @property
    def is_of_several(self) -> bool:
        """Whether not all tasks were run by one submission."""
        is_one = not self._made_by or self._made_by[0] == self._made_by[-1]
        return not is_one or bool(self._restored_by)

    @property
    def has_graph(self) -> bool:
        """Whether tasks were after others."""
        return any(hand_in.graph for hand_in in self.hand_ins)

    def counts(self) -> dict[str, int]:
        """Tasks by state, those that were dropped left out; what runs counts as waiting."""
        counts = {state: self.states.count(number) for number, state in enumerate(STATES)}
        for index in self.dropped:
            counts[STATES[self.states[index]]] -= 1
        return counts

    def list_open(self) -> list[BatchHistory]:
        """The batches that may still come to something by themselves."""
        return [
            batch for batch in self.batches.values() if not batch.has_ended and not batch.is_closed
        ]

    def is_begun_here(self, batch: BatchHistory) -> bool:
        """Whether its newest start is one of this machine, and said nothing of its end."""
        return batch.lease.startswith(f"{self.here.machine}/{self.here.boot}/")

    def list_running(self, batch: BatchHistory) -> list[RunningTask]:
        """The tasks of a batch that run, as its newest start wrote last."""
        self.troubles.pop(batch.batch, None)
        if not batch.starts:  # as far as we have read
            return []
        running = read_running(self.store, batch.batch, batch.starts[-1].key, self.count)
        self.troubles[batch.batch] = running.trouble
        return running.tasks

    def unfinished(self, batch: BatchHistory) -> list[int]:
        """The tasks of a batch that it has not brought to an end, if it is their newest."""
        return [
            index
            for part in batch.indices
            for index in part
            if not IS_FINAL[self.states[index]]
            and self.batch_of[index] == batch.number
            and index not in self.dropped
        ]

    def read_tasks(self) -> list[Task]:
        """Every task by index in its newest form, each with its name."""
        return read_tasks(self.files, self.hand_ins)

    def read_forms(self, index: int) -> list[Task]:
        """Every form that a task ever had, oldest first."""
        return read_forms(self.files, self.hand_ins, index)

    def describe_task(self, batch: str, index: int) -> tuple[str, str]:
        """(name, address of the outputs) of a task, from the file of one batch it is in."""
        return self._batch_names.describe_task(batch, index, self.count)

    def read_records(self, indices: Iterable[int]) -> dict[int, list[tuple[str, Record]]]:
        """All records of some tasks, oldest first, each with the token of its runner."""
        return read_records(self.store, self.here, self.batches.values(), indices)

    def read_newest(self) -> dict[int, tuple[str, Record]]:
        """(runner's token, record) of the newest attempt of every task that has one."""
        return read_newest(self.store, self.here, self.batches.values())

    def _is_newest(self, batch: str, record: Record) -> bool:
        """Whether this is how the task stands: no later batch has it, and it did not succeed."""
        number = self.batches[batch].number
        return (
            record.task < self.count
            and self.batch_of[record.task] == number
            and self.states[record.task] == NUMBER_OF[record.state]
            and record.task not in self.dropped
        )
