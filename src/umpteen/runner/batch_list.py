"""The batches of a runner whose list changes while it runs.

Whoever gives it batches writes the whole list of those that it may still open into the runner's
lease, under a rising number. The runner answers there with that number and what is unopened: what
it has opened by then it keeps, and names. Standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from umpteen.model.forms import FormError, get, list_of, load_json, table_of, token, whole
from umpteen.runner.lease import Lease, LeaseFolder
from umpteen.system.whole_files import read_file, replace_file

__all__ = [
    "BatchList",
    "GivenBatches",
    "TakenBatches",
    "find_batch",
    "give_batches",
    "read_given",
    "read_taken",
]

_GIVEN, _TAKEN = "given.json", "taken.json"


class GivenBatches(NamedTuple):
    """A list of batches that are not opened."""

    number: int  # of this list: each is one higher than the one before
    batches: Sequence[str]


class TakenBatches(NamedTuple):
    """What a runner answers to that."""

    number: int
    batches: Sequence[str]  # that are unopened
    begun: Sequence[str]  # those that it has opened, and others that it had to leave alone


def give_batches(lease: LeaseFolder, given: GivenBatches) -> None:
    """Have a runner find these when it looks next; raises OSError."""
    _write(f"{lease.path}/{_GIVEN}", given)


def read_given(lease: LeaseFolder) -> GivenBatches:
    """The newest list that a runner was given; number 0 where nobody gives it any."""
    return GivenBatches(*_read(f"{lease.path}/{_GIVEN}", ("batches",)))


def read_taken(lease: LeaseFolder) -> TakenBatches:
    """What a runner has answered last; number 0 where it has answered nothing."""
    return TakenBatches(*_read(f"{lease.path}/{_TAKEN}", ("batches", "begun")))


def find_batch(lease: Lease, batches: Sequence[str], ordinal: int) -> str:
    """The batch at a place of the list. batches: those that the runner had at its beginning."""
    if ordinal < len(batches):
        return batches[ordinal]
    return LeaseFolder("", lease.folder).read_runner().batches[ordinal]


class BatchList:
    """The list of one runner, as the runner has it."""

    def __init__(self, lease: Lease, batches: Sequence[str]) -> None:
        self.names = list(batches)  # by ordinal; also of those that were taken away
        self._lease = lease
        self._folder = LeaseFolder(os.path.basename(lease.folder), lease.folder)
        self._seen = read_given(self._folder)

    @property
    def may_grow(self) -> bool:
        """Whether there is somebody who gives us batches."""
        return self._seen.number > 0

    def read_given(self) -> Sequence[str] | None:
        """The batches that it may still open, where there is a list that was not read before."""
        given = read_given(self._folder)
        if given.number <= self._seen.number:
            return None
        self._seen = given
        return given.batches

    def number_new(self, batches: Iterable[str], lanes: Sequence[int]) -> None:
        """Give those that are new a place behind the others. lanes: the pids of the lanes.

        Raises StoreError where that cannot be written, as lanes must know it.
        """
        known = set(self.names)
        added = [batch for batch in batches if batch not in known]
        if added:
            self.names += added
            self._lease.write_processes(self.names, lanes)

    def write_taken(self, unopened: Sequence[str], begun: Iterable[str]) -> None:
        """Say what is unopened and what is not, where anybody gives us batches."""
        if self.may_grow:
            with contextlib.suppress(OSError):
                taken = TakenBatches(self._seen.number, unopened, list(begun))
                _write(f"{self._lease.folder}/{_TAKEN}", taken)


def _write(path: str, value: NamedTuple) -> None:
    replace_file(path, json.dumps(value._asdict()))


def _read(path: str, lists: Sequence[str]) -> list[Any]:
    """A number, and lists of batches; 0 and none where there is no such file."""
    if os.path.exists(path):  # as of few runners
        with contextlib.suppress(OSError, FormError):
            found = table_of(load_json(read_file(path)))
            return [get(found, "number", whole), *(get(found, n, _list_tokens) for n in lists)]
    return [0, *(() for _ in lists)]


def _list_tokens(value: object, what: str) -> list[str]:
    return list_of(token, value, what)
