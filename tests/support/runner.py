"""A runner's parts around a real store, where the test itself is its lane."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from umpteen.model.batch import BatchFile, RunEntry, encode_batch
from umpteen.model.record import Record
from umpteen.model.states import NUMBER_OF
from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.active_batches import ActiveBatches
from umpteen.runner.batch_list import BatchList
from umpteen.runner.batch_loader import BatchLoader
from umpteen.runner.batch_start import Opener
from umpteen.runner.cancellation import Cancellation
from umpteen.runner.completions import Completions
from umpteen.runner.dispatcher import Dispatcher
from umpteen.runner.heartbeat import Heartbeat
from umpteen.runner.lanes.group import Lanes
from umpteen.runner.lanes.protocol import (
    TICKET_BYTES,
    AttemptEnded,
    Order,
    TaskKey,
    Ticket,
    decode_orders,
)
from umpteen.runner.lease import Lease
from umpteen.runner.recorder import Recorder
from umpteen.runner.uploads import Uploads
from umpteen.runner.upstream import Upstream
from umpteen.store.base import Store
from umpteen.store.directory import DirectoryStore
from umpteen.store.identity import identify
from umpteen.store.layout import batch_key, records_key
from umpteen.store.records import Start, list_starts, read_start
from umpteen.system.host import read_machine
from umpteen.system.resources import Capacity
from umpteen.system.stop_signals import Stops

__all__ = ["RunnerBench", "end_batch", "open_batch", "put_runs", "read_end", "read_last_start"]

_NOBODY = 1 << 30  # more than any pid


def put_runs(store: Store, batch: str, names: str, first: int = 0, **own: Any) -> None:
    """A batch whose tasks have these letters as names, and the indices from `first` on."""
    runs: list[RunEntry] = [{"cmd": "true", "remote_output_path": store.path(n)} for n in names]
    content: Any = {
        "version": 1,
        "job": "job",
        "batch": batch,
        "indices": f"{first}-{first + len(names) - 1}",
        "names": list(names),
        **own,
    }
    file: BatchFile = {
        "nprocs": 2, "remote_output_path": store.address, "runs": runs, "umpteen": content,
    }  # fmt: skip
    store.replace(batch_key(batch), encode_batch(file))


def read_last_start(store: Store, batch: str) -> Start:
    """The newest start of a batch, as any reader finds it."""
    return read_start(store, batch, list_starts(store, batch)[-1], read_machine())


def read_end(store: Store, batch: str) -> dict[str, Any]:
    """The last line of the newest start of a batch, which says that it is over."""
    content = store.read(records_key(batch, list_starts(store, batch)[-1])) or b""
    last: dict[str, Any] = json.loads(content.splitlines()[-1])
    assert last["event"] == "end"
    return last


def open_batch(store: Store, batch: str, token: str) -> ActiveBatch:
    """A start of a batch by another runner."""
    active = Opener(identify(store), store, token, read_machine()).open(batch)
    assert active is not None
    return active


def end_batch(active: ActiveBatch, *states: str) -> None:
    """Have its tasks come to these states, in their order, and the start be over."""
    for position, state in enumerate(states):
        active.record_unrun([position], state, "")
    active.file.append(active.build_end())
    active.file.flush()
    active.file.close()


class RunnerBench:
    """All parts of a runner but its loop. Tickets and orders are read here, not by processes."""

    def __init__(
        self, store: Store, batches: Sequence[str], *, lanes: int = 1, slots: int = 2
    ) -> None:
        here, identity = read_machine(), identify(store)
        capacity = Capacity(cpus=4, memory=1 << 30, gpus=())
        self.store, self.token = store, os.urandom(6).hex()
        self.lease = Lease.create(self.token, identity, slots)
        self.lease.open_slots(batches)
        self._tickets, give = os.pipe()
        hear, self.done = os.pipe()
        pipes = [os.pipe() for _ in range(lanes)]
        self._orders = [orders for orders, _ in pipes]
        for fd in (self._tickets, *self._orders):
            os.set_blocking(fd, False)
        controls = {_NOBODY + number: fd for number, (_, fd) in enumerate(pipes)}
        self.lanes = Lanes(self.token, self.lease, capacity, give, hear, controls)
        self.opener = Opener(identity, store, self.token, here)
        self.recorder = Recorder(store.address, self.lanes, 60.0)
        self.heartbeat = Heartbeat(self.opener, self.lease)
        self.upstream = Upstream(self.opener, 0.0)
        self.batches = ActiveBatches(
            self.opener, capacity, slots, self.lanes, self.recorder, self.heartbeat, self.upstream
        )
        self.uploads = Uploads(self.opener, self.lease, self.lanes, self.heartbeat, 60.0)
        self.cancellation = Cancellation(self.batches, self.uploads, self.lanes)
        self.echoed: list[bytes] = []
        self.stops = Stops()
        self.completions = Completions(
            self.batches, self.uploads, self.cancellation, self.recorder, self.lanes.kills,
            self.stops, lambda _, __, record: self.echoed.append(record),
        )  # fmt: skip
        folder = DirectoryStore(self.lease.spool)
        self.own_batches = BatchList(self.lease, batches)
        self.loader = BatchLoader(self.opener, self.own_batches, folder, self.lanes, 60.0)
        self.dispatcher = Dispatcher(
            self.own_batches, self.loader, self.batches, self.completions, self.cancellation,
            self.uploads, self.lanes,
        )  # fmt: skip

    def activate(self, ordinal: int, batch: str) -> ActiveBatch:
        """Have a batch open, with its tasks in the queue."""
        active = self.opener.open(batch)
        assert active is not None
        self.batches.activate(ordinal, active)
        self.batches.enqueue(ordinal, active)
        return active

    def take(self) -> TaskKey:
        """Give out the next task of the queue."""
        assignment = self.batches.scheduler.take(time.monotonic())
        assert assignment is not None
        return assignment.ordinal, assignment.position

    def read_tickets(self) -> list[Ticket]:
        """The tickets that a lane could take now."""
        try:
            content = os.read(self._tickets, 1 << 16)
        except BlockingIOError:
            return []
        parts = range(0, len(content), TICKET_BYTES)
        return [Ticket.decode(content[start : start + TICKET_BYTES]) for start in parts]

    def read_orders(self) -> list[list[Order]]:
        """The orders that came since, to each lane."""
        return [self._read_orders(fd) for fd in self._orders]

    def _read_orders(self, fd: int) -> list[Order]:
        try:
            return decode_orders(os.read(fd, 1 << 16))
        except BlockingIOError:
            return []

    def end(self, key: TaskKey, state: str = "succeeded", **more: Any) -> AttemptEnded:
        """What a lane says of an attempt that has ended."""
        active = self.batches.open[key[0]]
        index = active.view.indices[key[1]]
        exit_status = more.pop("exit_status", 0)
        record = Record(index, "d", active.count_attempts(index) + 1, state, seconds=0.5, **more)
        line = record.to_line().encode()
        return AttemptEnded(key, NUMBER_OF[state], 0.5, exit_status, line)

    def close(self) -> None:
        """Give the lease up, and all that is open."""
        signal.set_wakeup_fd(-1)  # a watcher of children has set it
        self.lanes.close_tickets()
        self.uploads.stop()
        self.recorder.sync(wait=True)
        for active in self.batches.open.values():
            active.file.close()
        fds = (self._tickets, self.done, self.lanes.done, *self._orders)
        for fd in (*fds, *self.lanes.controls.values()):
            os.close(fd)
        try:
            self.store.close()
        finally:
            self.lease.remove()
