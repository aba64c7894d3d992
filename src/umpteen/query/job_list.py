"""How every job of this user stands, for a list of them; one that fails stops no other.

Those on this machine are read at once. All others are asked for together, and an endpoint that
does not answer within a few seconds is no longer waited for.
"""

from __future__ import annotations

import collections
import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from umpteen.errors import StoreError
from umpteen.query.job_view import JobView
from umpteen.query.registry import RegisteredJob, open_job_store
from umpteen.query.status import (
    DAMAGED,
    UNREACHABLE,
    UNREADABLE,
    JobStatus,
    build_unread,
)
from umpteen.store.address import is_remote
from umpteen.store.base import Store

__all__ = ["Pending", "read_far", "read_near"]

_LIMIT_S = 5.0  # for which an endpoint may be silent
_READY_S = 30.0  # for which this machine may need to load what asks it
_LOOK_S = 0.2
_SILENT = f"no answer within {_LIMIT_S:.0f} s"
_AT_ONCE = 8  # of one endpoint: an SSH server takes no more new connections than ten
# Whatever bucket it is, they are all behind one endpoint.
_ONE_ENDPOINT = ("s3", "gs", "sfs")
_Read = TypeVar("_Read")


class Pending(NamedTuple):
    """A job for which another machine or an executor is to be asked."""

    # Who is to be asked; the jobs of one endpoint are asked together.
    endpoint: str
    read: Callable[[], JobStatus]
    # What is shown where there is no answer.
    silent: JobStatus
    # Those that are being read.
    stores: Sequence[Store] = ()


def read_near(entries: Iterable[RegisteredJob]) -> tuple[list[JobStatus], list[Pending]]:
    """The jobs that this machine knows all of, and those for which others are to be asked."""
    read: list[JobStatus] = []
    pending: list[Pending] = []
    for entry in entries:
        look = _defer if is_remote(entry.address) else _read_folder
        found = _attempt(entry, functools.partial(look, entry))
        if isinstance(found, Pending):
            pending.append(found)
        else:
            read.append(found)
    return read, pending


def _defer(entry: RegisteredJob) -> Pending:
    stores: list[Store] = []

    def read() -> JobStatus:
        stores.append(open_job_store(entry.address, _LIMIT_S))
        return _ask(JobView.of_store(stores[0]))

    silent = build_unread(entry.name, entry.address, UNREACHABLE, _SILENT)
    return Pending(
        _find_endpoint(entry.address), functools.partial(_attempt, entry, read), silent, stores
    )


def _find_endpoint(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return scheme if scheme in _ONE_ENDPOINT else f"{scheme}://{rest.partition('/')[0]}"


def _read_folder(entry: RegisteredJob) -> JobStatus | Pending:
    """How it stands, where nobody has to be asked for batches that may be under way."""
    job = JobView.of_store(open_job_store(entry.address))
    if job.needs_nobody_else:
        return _ask(job)
    recorded = job.read_recorded_status()
    silent = msgspec.structs.replace(recorded, state="unknown", trouble=_SILENT)
    read = functools.partial(_ask, job)
    return Pending(entry.address, functools.partial(_attempt, entry, read), silent)


def _ask(job: JobView) -> JobStatus:
    with job:
        return job.read_status()


def _attempt(entry: RegisteredJob, read: Callable[[], _Read]) -> _Read | JobStatus:
    """What is read, else why it cannot be: whatever is wrong with one job, the others are there."""
    try:
        return read()
    except Exception as error:
        state = UNREADABLE
        if isinstance(error, StoreError):
            state = DAMAGED if error.damaged else UNREACHABLE if error.transient else UNREADABLE
        return build_unread(entry.name, entry.address, state, str(error) or type(error).__name__)


def read_far(pending: Sequence[Pending]) -> list[JobStatus]:
    """How they stand, in order."""
    by_endpoint: dict[str, list[int]] = collections.defaultdict(list)
    for number, each in enumerate(pending):
        by_endpoint[each.endpoint].append(number)
    asked = [_Endpoint({n: pending[n] for n in numbers}) for numbers in by_endpoint.values()]
    found: dict[int, JobStatus] = {}
    for endpoint in asked:
        found.update(endpoint.wait())
    return [found.get(number, each.silent) for number, each in enumerate(pending)]


class _Endpoint:
    """The jobs of one endpoint while it is asked, in threads that nobody has to wait for."""

    def __init__(self, jobs: Mapping[int, Pending]) -> None:
        self.jobs = jobs
        self.waiting = collections.deque(jobs)
        self.found: dict[int, JobStatus] = {}
        self.began_s = self.answered_s = time.monotonic()
        self.changed = threading.Condition()
        for _ in range(min(_AT_ONCE, len(jobs))):
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self.changed:
                if not self.waiting:
                    return
                number = self.waiting.popleft()
            status = self.jobs[number].read()
            with self.changed:
                self.found[number] = status
                if status.state != UNREACHABLE:
                    self.answered_s = time.monotonic()
                self.changed.notify_all()

    def wait(self) -> dict[int, JobStatus]:
        """What was answered, once that is all, or nothing was for too long."""
        with self.changed:
            while len(self.found) < len(self.jobs):
                left_s = self._find_start() + _LIMIT_S - time.monotonic()
                if left_s <= 0:
                    self._give_up()
                    break
                self.changed.wait(min(left_s, _LOOK_S))
            return dict(self.found)

    def _find_start(self) -> float:
        """Since when it is silent: its last answer, or when it could be asked at all."""
        stores = [store for job in self.jobs.values() for store in job.stores]
        ready_s = min((store.ready_s for store in stores), default=self.began_s)
        ready_s = min(ready_s, self.began_s + _READY_S)
        return max([self.answered_s, ready_s, *(store.heard_s for store in stores)])

    def _give_up(self) -> None:
        self.waiting.clear()
        for job in self.jobs.values():
            for store in job.stores:
                store.abandon()
