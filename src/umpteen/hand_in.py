"""Handing in: a plan becomes files of the store, and batches that an executor has.

One process at a time: a lock file in the store, and a lock of this machine that the kernel
frees when its holder dies. The order of the writes is what a killed hand-in is mended by.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from umpteen.batches import NEEDS, NewBatch, Past, build_batches, build_task_lines
from umpteen.beside import Beside
from umpteen.cut import Cut
from umpteen.errors import StoreError
from umpteen.executors.base import Executor, Load, Order
from umpteen.forms import parse_ranges
from umpteen.handed_files import HandedBatch, HandIn
from umpteen.history import History
from umpteen.identity import build_id, identify
from umpteen.job import Job
from umpteen.lease import leases_folder, local_lock, name_hand_in
from umpteen.plan import Plan, build_settings
from umpteen.process import read_machine
from umpteen.records import format_ranges
from umpteen.results.base import (
    JOB,
    LOCK,
    Content,
    Store,
    batch_key,
    closed_key,
    handed_key,
    handles_key,
    options_key,
    parse_numbers,
    synced_key,
    tasks_key,
)
from umpteen.results.opening import OPTIONS_VARIABLE, is_remote
from umpteen.results.owners import refuse_strangers
from umpteen.staging import measure, pack
from umpteen.task import FORMAT_VERSION

__all__ = [
    "HandInLock",
    "describe_owner",
    "hand_in",
    "hand_in_lock",
    "measure_syncs",
    "open_job_folder",
    "put_syncs",
]

_UNSTORED = ("sources", "results_options")
_RENEW_S, _TAKE_OVER_S, _POLL_S = 10.0, 60.0, 0.2
_RENEW_AGAIN_S = 1.0
_SETTLE_S = 2.0
_AGAIN = "run the same command again"


class HandInLock:
    """The lock of a store as its holder has it; renewed in a thread of its own."""

    def __init__(self, store: Store, own: dict[str, Any]) -> None:
        self.store, self.own = store, own
        self.stopped = threading.Event()
        self.renewer = threading.Thread(target=self._renew, daemon=True)
        self.renewer.start()

    def check(self) -> None:
        """Raises StoreError where another has the lock by now: then nothing may be written."""
        if not self._is_own():
            raise StoreError(
                f"{self.store.path(LOCK)} was taken over by somebody else, who hands in now",
                _AGAIN,
                path=self.store.path(LOCK),
            )

    def release(self) -> None:
        """Let others hand in; where the store does not take that, they wait a while."""
        self.stopped.set()
        self.renewer.join()
        with contextlib.suppress(StoreError):
            if self._is_own():
                self.store.delete(LOCK)

    def _renew(self) -> None:
        wait_s = _RENEW_S
        while not self.stopped.wait(wait_s):
            try:
                if not self._is_own():
                    return
                self.store.replace(LOCK, _encode(self.own))
                wait_s = _RENEW_S
            except StoreError:  # it is stale when others have seen it unchanged for long
                wait_s = _RENEW_AGAIN_S

    def _is_own(self) -> bool:
        return bool(_decode(self.store.read(LOCK)).get("token") == self.own["token"])


@contextlib.contextmanager
def hand_in_lock(store: Store) -> Iterator[HandInLock]:
    """Be the only process that hands in to this store; waits until that is so.

    A holder on another machine that has not renewed its lock for 60 s, by our clock, is
    taken to be dead; one on this machine as soon as the kernel freed its lock. Raises StoreError
    where the store is somebody else's.
    """
    if not is_remote(store.address):
        refuse_strangers(store.address)
    with local_lock(name_hand_in(identify(store))), store.patient():
        lock = HandInLock(store, _take(store))
        try:
            yield lock
        finally:
            lock.release()


def _take(store: Store) -> dict[str, Any]:
    owner = describe_owner()
    own = {"token": os.urandom(8).hex(), **owner}
    seen, seen_s = b"", time.monotonic()
    while not _put_lock(store, own):
        held = store.read(LOCK) or b""
        if held != seen:
            seen, seen_s = held, time.monotonic()
        if owner.items() <= _decode(held).items() or time.monotonic() - seen_s > _TAKE_OVER_S:
            store.delete(LOCK)
        else:
            time.sleep(_POLL_S)
    return own


def describe_owner() -> dict[str, str]:
    """Whom the local lock is for: where all of this is equal, it tells whether a holder lives.

    Containers of one image have one machine id; and other folders of leases have other locks.
    """
    here, leases = read_machine(), os.stat(leases_folder())
    holder = f"{os.getuid()} {leases.st_dev}:{leases.st_ino}"
    return {"machine": here.machine, "host": here.host, "boot": here.boot, "holder": holder}


def _put_lock(store: Store, own: dict[str, Any]) -> bool:
    """Where two may succeed at once, the one whose lock is there a while later has it."""
    content = _encode(own)
    if not store.create(LOCK, content):
        return False
    if store.has_exclusive_create:
        return True
    time.sleep(_SETTLE_S)
    return store.read(LOCK) == content


def _encode(own: dict[str, Any]) -> bytes:
    return msgspec.json.encode({**own, "time": time.time()})


def _decode(held: bytes | None) -> dict[str, Any]:
    """What a lock says; nothing where there is none, or none of ours."""
    try:
        return msgspec.json.decode(held or b"{}", type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def open_job_folder(store: Store, job: Job) -> None:
    """Put `job.json`, if the store has none. Raises StoreError where nothing can be put."""
    if not is_remote(store.address):
        refuse_strangers(store.address)
    if store.read(JOB) is not None:
        return
    content = {
        "version": FORMAT_VERSION,
        "id": build_id(),
        "name": job.name,
        "created": round(time.time(), 3),
        "settings": {key: value for key, value in _settings(job).items() if key not in _UNSTORED},
    }
    store.create(JOB, msgspec.json.encode(content))


def _settings(job: Job) -> dict[str, Any]:
    settings: dict[str, Any] = msgspec.to_builtins(job.settings)
    return settings


def put_syncs(store: Store, job: Job, *, is_far: bool) -> Job:
    """The job, once the folders that it syncs are in the store; what is there is not sent again.

    is_far: whether its tasks may run where the folders are not. Raises InputError for what
    cannot be packed.
    """
    syncs = _measure_syncs(store, job)
    there = set(store.list(os.path.dirname(synced_key("")))) if syncs else set()
    for sync in syncs:
        key = synced_key(sync.digest)
        if os.path.basename(key) not in there:
            exclude = _list_excluded(store)
            store.create(key, pack(sync.source, sync.digest, name=sync.name, exclude=exclude))
    return _with_synced(job, syncs, is_far=is_far)


def measure_syncs(store: Store, job: Job, *, is_far: bool) -> Job:
    """The same, but nothing is put into the store."""
    return _with_synced(job, _measure_syncs(store, job), is_far=is_far)


class _Sync(NamedTuple):
    """What is synced: the digest of a folder or file here, and where it is to be on a machine.

    name: of a file there; None for a folder.
    """

    digest: str
    source: str
    destination: str | None
    name: str | None


def _measure_syncs(store: Store, job: Job) -> list[_Sync]:
    settings = job.settings
    syncs = []
    for written, wanted in settings.file_syncs:
        source = _expand(written, settings.submitted_from)
        # Where it is itself it may have been changed since, and is not to be put back.
        is_moved = wanted and _expand(wanted, settings.submitted_from) != source
        destination, name = (wanted if is_moved else None), None
        if os.path.isfile(source):
            folder, name = os.path.split(destination or source)
            name = name or os.path.basename(source)
            destination = destination and (folder or os.curdir)
        digest = measure(source, name=name, exclude=_list_excluded(store)).digest
        syncs.append(_Sync(digest, source, destination, name))
    return syncs


def _list_excluded(store: Store) -> list[str]:
    """Results are no part of a folder that is synced, although they may lie in it."""
    own = [] if is_remote(store.address) else [store.address]
    return [os.path.abspath("umpteen-results"), *own]


def _with_synced(job: Job, syncs: Sequence[_Sync], *, is_far: bool) -> Job:
    synced = [
        (
            sync.digest,
            sync.destination,
            sync.source + "/" * (sync.name is None) if is_far and not sync.destination else "",
        )
        for sync in syncs
    ]
    if not synced:
        return job
    return msgspec.structs.replace(
        job, settings=msgspec.structs.replace(job.settings, synced=synced)
    )


def _expand(path: str, folder: str) -> str:
    return os.path.abspath(os.path.join(folder, os.path.expanduser(path)))


def hand_in(
    plan: Plan,
    history: History,
    executor: Executor,
    attempts: Mapping[int, Past],
    lock: HandInLock,
    cut: Cut | None = None,
) -> list[str]:
    """Write the plan into the store and submit its batches; their numbers.

    cut: what each batch takes, where that is not for this machine. `history` was read with the
    lock held. Raises StoreError, and submits nothing, where somebody else handed in all the
    same.
    """
    store = history.store
    number = len(history.hand_ins) + 1
    lock.check()
    if store.read(handed_key(number), 0, 0) is not None:
        raise _taken(store, handed_key(number))
    for name in plan.closed:
        store.create(closed_key(name), b"")
    numbers = parse_numbers(store.list(".umpteen/batches"), ".json")
    first = numbers[-1] + 1 if numbers else 1
    again = [HandedBatch(batch.batch, _ranges(history, batch.batch)) for batch in plan.again]
    made = [NewBatch(handed, (), _list_needs(plan, handed)) for handed in again]
    with _tasks_put_beside(store, number, plan):
        for new, content in build_batches(plan, store.address, first, attempts, time.time(), cut):
            _create(store, batch_key(new.handed.batch), content)
            made.append(new)
    lock.check()
    if options := plan.job.settings.executor_options:
        store.replace(options_key(number), msgspec.json.encode(options))
    workers = cut.workers if cut else 0
    described = _describe(plan, history, executor.name, workers, [new.handed for new in made])
    _create(store, handed_key(number), msgspec.json.encode(described))
    if made:
        handles = executor.submit(_load(plan, history, described.mark, made))
        store.create(handles_key(number), msgspec.json.encode(handles))
    return [new.handed.batch for new in made]


def _load(plan: Plan, history: History, mark: str, made: Sequence[NewBatch]) -> Load:
    settings = plan.job.settings
    options = settings.results_options
    own = {new.handed.batch for new in made}
    waits = {batch for new in made for batch in new.waits} - own
    earlier = {batch: history.batches[batch].handle for batch in waits}
    earlier = {batch: handle for batch, handle in earlier.items() if handle}
    orders = [
        Order(new.handed.batch, [b for b in new.waits if b in own or b in earlier], *new.needs)
        for new in made
    ]
    environment = {OPTIONS_VARIABLE: json.dumps(options)} if options else {}
    return Load(history.identity, orders, settings.slots, mark, earlier, environment)


def _list_needs(plan: Plan, handed: HandedBatch) -> list[int]:
    indices = (index for part in parse_ranges(handed.indices) for index in part)
    terms = [term for index in indices if (term := plan.by_index(index).terms) is not None]
    return [max((getattr(term, need) or 0 for term in terms), default=0) for need in NEEDS]


@contextlib.contextmanager
def _tasks_put_beside(store: Store, number: int, plan: Plan) -> Iterator[None]:
    """Have `tasks/K.jsonl` written while the caller does other things; it is there at the end.

    A segment left by a hand-in that was killed before it was handed in counts for nothing.
    """
    if not (plan.added or plan.changes or plan.updates or plan.dropped):  # what is restored, too
        yield
        return
    store.delete(tasks_key(number))
    writing = Beside(lambda: _create(store, tasks_key(number), build_task_lines(plan)))
    try:
        yield
    finally:
        writing.join()
    writing.take()


def _create(store: Store, key: str, content: Content) -> None:
    if not store.create(key, content):
        raise _taken(store, key)


def _taken(store: Store, key: str) -> StoreError:
    path = store.path(key)
    return StoreError(f"{path} was written by somebody else at the same time", _AGAIN, path=path)


def _ranges(history: History, batch: str) -> str:
    parts = history.batches[batch].indices
    return ",".join(f"{p.start}-{p.stop - 1}" if len(p) > 1 else str(p.start) for p in parts)


def _describe(
    plan: Plan, history: History, executor: str, workers: int, handed: list[HandedBatch]
) -> HandIn:
    return HandIn(
        hand_in=len(history.hand_ins) + 1,
        time=round(time.time(), 3),
        executor=executor,
        workers=workers,
        graph=plan.graph is not None,
        leaves_behind=bool(plan.left_behind),
        mark=os.urandom(6).hex(),
        tasks=len(plan.added),
        batches=handed,
        changed=format_ranges(sorted(change.index for change in plan.changes)),
        dropped=format_ranges(plan.dropped),
        restored=format_ranges(sorted(plan.restored)),
        source=plan.job.source_digest,
        is_plain=plan.is_plain,
        place=history.place,
        settings=build_settings(plan.job),
    )
