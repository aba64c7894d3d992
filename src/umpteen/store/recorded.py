"""What is recorded of some tasks, in every batch that ever had them. Standard library alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from umpteen.model.ranges import list_within
from umpteen.model.record import Record
from umpteen.model.states import NUMBER_OF, TaskState
from umpteen.store.base import Store
from umpteen.store.job_files import SubmittedBatch
from umpteen.store.records import Start, list_starts, read_start
from umpteen.store.status_codes import has_left
from umpteen.system.host import read_machine

__all__ = ["Past", "read_past"]

_SUCCEEDED = NUMBER_OF[TaskState.SUCCEEDED.value]


class Past(NamedTuple):
    """What is recorded of one task."""

    state: int = 0  # its number in STATES, of what it came to in the batch that has it now
    attempt: int = 0  # of its newest record; 0: there is none
    runner: str = ""  # the token of the runner that wrote that
    left: Record | None = None  # the newest record of an attempt that left a status file


def read_past(
    store: Store, handed: Sequence[SubmittedBatch], wanted: Collection[int]
) -> dict[int, Past]:
    """Of each task that some start of a batch may have run; raises StoreError."""
    found: dict[int, Past] = {}
    here = read_machine()
    rising = sorted(wanted)
    for batch, parts in handed:
        own = set(list_within(rising, parts))
        keys = list_starts(store, batch) if own else ()
        for index in own if keys else own & found.keys():
            found[index] = found.get(index, Past())._replace(state=0)
        for key in keys:
            _add(found, own, read_start(store, batch, key, here))
    return found


def _add(found: dict[int, Past], own: Collection[int], start: Start) -> None:
    for record in start.records:
        if record.task not in own:
            continue
        past = found[record.task]
        # As `History` has it: in one batch a success stays.
        number = NUMBER_OF[record.state] if record.is_final else 0
        found[record.task] = Past(
            state=past.state if past.state == _SUCCEEDED else number,
            attempt=max(past.attempt, record.attempt),
            runner=start.key.token,
            left=record if has_left(record) else past.left,
        )
