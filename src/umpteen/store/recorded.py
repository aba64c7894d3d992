"""What is recorded of some tasks, in every batch that ever had them. Standard library alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from umpteen.model.forms import FormError, get, list_of, load_json, parse_ranges, table_of, token
from umpteen.model.record import Record
from umpteen.model.states import NUMBER_OF, TaskState
from umpteen.store.base import Store
from umpteen.store.job_files import damaged
from umpteen.store.layout import HANDED, handed_key, parse_numbers
from umpteen.store.records import Start, list_starts, read_start
from umpteen.store.status_codes import has_left
from umpteen.system.host import read_machine

__all__ = ["Handed", "Past", "Submission", "list_handed", "read_past"]

_SUCCEEDED = NUMBER_OF[TaskState.SUCCEEDED.value]


class Handed(NamedTuple):
    """A batch that was handed in, and the indices of its tasks."""

    batch: str
    indices: Sequence[range]


class Submission(NamedTuple):
    """What was handed in together. segment: the mark in the names of its own files."""

    number: int
    segment: str
    batches: list[Handed]


class Past(NamedTuple):
    """One task. state: the number in STATES of what it came to in the batch that has it now.

    attempt, runner: of its newest record, 0 where there is none. left: the newest that left a
    status file.
    """

    state: int = 0
    attempt: int = 0
    runner: str = ""
    left: Record | None = None


def list_handed(store: Store) -> list[Submission]:
    """Every hand-in of a job by its number; raises StoreError."""
    numbers = parse_numbers(store.names(HANDED), ".json")
    keys = list(map(handed_key, numbers))
    contents = store.read_many([(key, 0, -1) for key in keys])
    found = []
    for number, key, content in zip(numbers, keys, contents):
        try:
            found.append(_parse_handed(number, content or b"{}"))
        except FormError as error:
            raise damaged(store.path(key), error) from error
    return found


def _parse_handed(number: int, content: bytes) -> Submission:
    handed = table_of(load_json(content))
    segment = handed.get("segment")
    batches = [
        Handed(get(each, "batch", token), parse_ranges(each.get("indices")))
        for each in list_of(table_of, handed.get("batches", []), what="'batches'")
    ]
    return Submission(number, token(segment) if segment else "", batches)


def read_past(store: Store, handed: Sequence[Handed], wanted: Collection[int]) -> dict[int, Past]:
    """Of each task that some start of a batch may have run; raises StoreError."""
    found: dict[int, Past] = {}
    here = read_machine()
    for batch, parts in handed:
        own = {index for index in wanted if any(index in part for part in parts)}
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
