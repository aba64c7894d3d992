"""The attempts of tasks, with those that were lost as their runner died."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from umpteen.history.history import History
from umpteen.model.ranges import list_within
from umpteen.model.record import Record
from umpteen.store.job_files import RunningTask, parse_running
from umpteen.store.layout import RecordsKey, running_key
from umpteen.store.records import list_starts, read_start

__all__ = ["Attempt", "read_attempts"]


class Attempt(msgspec.Struct, frozen=True):
    """One attempt of a task."""

    record: Record
    # The token of the runner that made it.
    runner: str
    # The machine that it ran on.
    host: str
    # Whether its runner died while it ran, so that the record says only when it began.
    is_lost: bool = False


def read_attempts(
    history: History, wanted: Collection[int], living: Collection[str]
) -> dict[int, list[Attempt]]:
    """All attempts of some tasks by index, oldest first; a lost one has only its beginning.

    living: the batches that somebody runs.
    """
    found: dict[int, list[Attempt]] = {index: [] for index in wanted}
    rising = sorted(wanted)
    for batch in history.batches.values():
        if next(list_within(rising, batch.indices), None) is None:
            continue
        for key in list_starts(history.store, batch.batch):
            start = read_start(history.store, batch.batch, key, history.here)
            host = start.opened.host if start.opened else ""
            for record in start.records:
                if record.task in found:
                    found[record.task].append(Attempt(record, key.token, host))
            if start.ended or batch.batch in living:
                continue
            known = {(record.task, round(record.start_s)) for record in start.records}
            for task in _list_lost(history, batch.batch, key):
                if task.task in found and (task.task, round(task.start_s)) not in known:
                    earlier = found[task.task]
                    number = earlier[-1].record.attempt + 1 if earlier else 1
                    record = Record(
                        task.task, "", number, "running", start_s=task.start_s, slot=task.slot
                    )
                    earlier.append(Attempt(record, key.token, host, is_lost=True))
    return found


def _list_lost(history: History, batch: str, key: RecordsKey) -> Sequence[RunningTask]:
    """The tasks that ran when the runner of a start last wrote what runs."""
    return parse_running(history.store.read(running_key(batch, key)), history.count).tasks
