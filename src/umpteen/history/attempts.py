"""The attempts of a job's tasks: those without success as they come in, and all of some tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from umpteen.history.batches import BatchHistory
from umpteen.model.ranges import list_within
from umpteen.model.record import Record, parse_record
from umpteen.store.base import Store
from umpteen.store.layout import RecordsKey, records_key
from umpteen.store.records import (
    list_starts,
    parse_lines,
    read_start,
    trusted_size,
)
from umpteen.system.host import Machine

__all__ = ["Failures", "read_newest", "read_records"]

_STARTS_AT_ONCE = 64
_Entry = tuple[str, Record]  # the batch, and a record of one of its tasks


class Failures:
    """The records of tasks that came to an end without success.

    A start that has ended is read for them only when they are asked for.
    """

    def __init__(
        self, store: Store, here: Machine, is_newest: Callable[[str, Record], bool]
    ) -> None:
        self.store, self.here = store, here
        self.is_newest = is_newest  # whether a record of a batch is how its task stands now
        self._all: list[_Entry] = []
        self._recent: list[_Entry] = []  # since `take_recent` was called last
        # Starts that have failures, and were not read for all and for the recent ones.
        self._unread: list[tuple[str, RecordsKey]] = []
        self._unread_recent: list[tuple[str, RecordsKey]] = []

    def add_lines(self, batch: str, content: bytes) -> None:
        """Note those in some lines of a records file."""
        found = [(batch, record) for record in _list_failures(content)]
        self._all += found
        self._recent += found

    def add_start(self, batch: str, key: RecordsKey) -> None:
        """Note that a start has some, of which nothing was read yet."""
        self._unread.append((batch, key))
        self._unread_recent.append((batch, key))

    def take_recent(self) -> Iterator[_Entry]:
        """Those that came since the last call, oldest first.

        What has to be read for that is read when the first is asked for.
        """
        recent, self._recent = self._recent, []
        unread, self._unread_recent = self._unread_recent, []
        return self._list_recent(recent, unread)

    def _list_recent(
        self, recent: list[_Entry], unread: list[tuple[str, RecordsKey]]
    ) -> Iterator[_Entry]:
        if unread:
            recent += self._read(unread)
            recent.sort(key=lambda entry: entry[1].end_s)
        yield from (entry for entry in recent if self.is_newest(*entry))

    def read_all(self) -> list[_Entry]:
        """Those of every task that is not succeeded now; the newest last."""
        unread, self._unread = self._unread, []
        self._all += self._read(unread)
        merged = sorted(self._all, key=lambda entry: entry[1].end_s)
        newest = {record.task: (batch, record) for batch, record in merged}
        return [entry for entry in newest.values() if self.is_newest(*entry)]

    def _read(self, starts: list[tuple[str, RecordsKey]]) -> list[_Entry]:
        found: list[_Entry] = []
        for first in range(0, len(starts), _STARTS_AT_ONCE):
            some = starts[first : first + _STARTS_AT_ONCE]
            asked = [(records_key(batch, key), 0, -1) for batch, key in some]
            for (batch, _), read in zip(some, self.store.read_many(asked), strict=True):
                content = read or b""
                content = content[: trusted_size(content, self.here)]
                found += [(batch, record) for record in _list_failures(content)]
        return found


def _list_failures(content: bytes) -> Iterator[Record]:
    """The final records in a records file that are of no success."""
    for line in content.splitlines():
        if b'"succeeded"' in line:  # as nearly all have it, and no other line: parsing takes longer
            continue
        for parsed in parse_lines(line + b"\n"):
            record = parse_record(parsed)
            if record and record.is_final and not record.succeeded:
                yield record


def read_records(
    store: Store, here: Machine, batches: Iterable[BatchHistory], indices: Iterable[int]
) -> dict[int, list[tuple[str, Record]]]:
    """All records of some tasks, oldest first, each with the token of its runner."""
    wanted = sorted(set(indices))
    found: dict[int, list[tuple[str, Record]]] = {index: [] for index in wanted}
    for batch in batches:
        if next(list_within(wanted, batch.indices), None) is None:
            continue
        for token, record in _list_records(store, here, batch):
            if record.task in found:
                found[record.task].append((token, record))
    return found


def read_newest(
    store: Store, here: Machine, batches: Iterable[BatchHistory]
) -> dict[int, tuple[str, Record]]:
    """(runner's token, record) of the newest attempt of every task that has one."""
    found: dict[int, tuple[str, Record]] = {}
    for batch in batches:
        found.update(
            (record.task, (token, record)) for token, record in _list_records(store, here, batch)
        )
    return found


def _list_records(store: Store, here: Machine, batch: BatchHistory) -> Iterator[tuple[str, Record]]:
    for key in list_starts(store, batch.batch):
        for record in read_start(store, batch.batch, key, here).records:
            yield key.token, record
