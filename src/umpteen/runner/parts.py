"""The parts that a runner is made of, put together in one place. Standard library alone."""

from __future__ import annotations

import functools
import time
from typing import NamedTuple

from umpteen.runner.active_batches import ActiveBatches
from umpteen.runner.arguments import Options
from umpteen.runner.batch_list import BatchList
from umpteen.runner.batch_loader import BatchLoader
from umpteen.runner.batch_start import Opener
from umpteen.runner.cancellation import Cancellation
from umpteen.runner.complaints import Complaints
from umpteen.runner.completions import Completions, echo_outputs
from umpteen.runner.dispatcher import Dispatcher
from umpteen.runner.heartbeat import Heartbeat
from umpteen.runner.lanes.group import Lanes, fork_lanes
from umpteen.runner.lease import Lease
from umpteen.runner.leftovers import clear_dead, find_kept
from umpteen.runner.recorder import Recorder
from umpteen.runner.signals import Signals
from umpteen.runner.uploads import Uploads
from umpteen.runner.upstream import Upstream
from umpteen.runner.workload import Work, check_job
from umpteen.store.address import is_remote, open_store, read_patience
from umpteen.store.base import Store
from umpteen.store.directory import DirectoryStore
from umpteen.system.children import become_subreaper
from umpteen.system.host import read_machine
from umpteen.system.resources import Capacity

__all__ = ["RunnerParts", "build_parts"]


class RunnerParts(NamedTuple):
    """What one run of the runner works with; the first paragraph of each module says what for."""

    work: Work
    token: str  # of this runner
    lease: Lease
    signals: Signals
    complaints: Complaints
    store: Store
    folder: DirectoryStore  # that lanes write into: the store, or one of this machine
    lanes: Lanes
    recorder: Recorder
    heartbeat: Heartbeat
    batches: ActiveBatches
    uploads: Uploads
    cancellation: Cancellation
    completions: Completions
    batch_loader: BatchLoader
    dispatcher: Dispatcher


def build_parts(
    work: Work,
    token: str,
    lease: Lease,
    capacity: Capacity,
    options: Options,
    complaints: Complaints,
) -> RunnerParts:
    """All parts, with the lanes forked and the store opened. Raises StoreError.

    The order counts: signals are taken before anything that takes long, and lanes are forked
    before there are threads, and much memory.
    """
    began_s, patience_s = time.monotonic(), read_patience()
    signals = Signals()
    become_subreaper()
    clear_dead(work.store)
    kept = find_kept(work.store)
    lease.open_slots(work.batches)
    signals.take_stops()
    folder = DirectoryStore(lease.spool if is_remote(work.address) else work.address)
    lanes = fork_lanes(work, token, lease, folder, capacity)
    lease.write_processes(work.batches, list(lanes.controls))
    store = _open_store(work, is_here=options.lease_fd >= 0)
    opener = Opener(
        work.store, store, token, read_machine(), take_over=options.take_over, kept=kept
    )
    recorder = Recorder(store.address, lanes, patience_s)
    heartbeat = Heartbeat(opener, lease)
    upstream = Upstream(opener, began_s + patience_s)
    batches = ActiveBatches(opener, capacity, work.slots, lanes, recorder, heartbeat, upstream)
    batches.gives_back = bool(options.memory)
    if options.until_s:
        batches.scheduler.end_at(began_s + options.until_s - time.time(), began_s)
    uploads = Uploads(opener, lease, lanes, heartbeat, patience_s)
    cancellation = Cancellation(batches, uploads, lanes)
    echo = functools.partial(echo_outputs, lease.spool) if options.echo else None
    completions = Completions(
        batches, uploads, cancellation, recorder, lanes.kills, signals.stops, echo
    )
    own_batches = BatchList(lease, work.batches)
    batch_loader = BatchLoader(opener, own_batches, folder, lanes, patience_s)
    dispatcher = Dispatcher(
        own_batches, batch_loader, batches, completions, cancellation, uploads, lanes
    )
    return RunnerParts(
        work, token, lease, signals, complaints, store, folder, lanes, recorder, heartbeat,
        batches, uploads, cancellation, completions, batch_loader, dispatcher,
    )  # fmt: skip


def _open_store(work: Work, *, is_here: bool) -> Store:
    store = open_store(work.address)
    with store.patient():
        check_job(store, is_here=is_here)
    return store
