"""The runner's loop: starts tasks, hears of their ends, looks at the store, and closes."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time

from umpteen.errors import EXIT_SOME_FAILED, EXIT_SUCCEEDED, RUNNER_CRASHED, StoreError
from umpteen.runner.active_batches import ActiveBatches
from umpteen.runner.arguments import Options
from umpteen.runner.batch_loader import BatchLoader
from umpteen.runner.batch_start import Opener
from umpteen.runner.cancellation import Cancellation
from umpteen.runner.complaints import STORE_HINT, Complaints
from umpteen.runner.completions import Completions, echo_outputs
from umpteen.runner.dispatcher import Dispatcher
from umpteen.runner.heartbeat import Heartbeat, Marks
from umpteen.runner.lanes.group import Lanes
from umpteen.runner.lanes.protocol import CANCEL_ALL, DEADLINE, END_KINDLY, GO_ON, KILL
from umpteen.runner.lease import Kept, Lease, find_kept
from umpteen.runner.leftovers import clear_dead, remove_scratch
from umpteen.runner.recorder import Recorder
from umpteen.runner.uploads import Uploads
from umpteen.runner.upstream import Upstream
from umpteen.runner.workload import Work, check_job
from umpteen.store.address import is_remote, open_store, read_patience
from umpteen.store.base import Store
from umpteen.store.directory import DirectoryStore
from umpteen.store.identity import LOST_HINT, tell_loss
from umpteen.system.children import become_subreaper, reap_strangers
from umpteen.system.host import read_machine
from umpteen.system.resources import Capacity
from umpteen.system.stop_signals import STOP_SIGNALS, Stops

__all__ = ["Runner"]


_BATCHING_S = 0.05  # records are written together that arrive within this time


_LOOK_S = 3.0  # how often later starts are looked for


_SYNC_S = 5.0


_YOUNG_S = 2.0


_MEMORY_S = 0.5  # how often it is looked whether memory is short, and what orphans there are


class Runner:
    """One run of the runner: the parts that it is made of, and the loop that calls them."""

    recorder: Recorder
    heartbeat: Heartbeat
    batches: ActiveBatches
    uploads: Uploads
    completions: Completions
    cancellation: Cancellation
    batch_loader: BatchLoader
    dispatcher: Dispatcher

    def __init__(
        self, work: Work, token: str, lease: Lease, capacity: Capacity, complaints: Complaints
    ) -> None:
        self.work, self.token, self.lease, self.complaints = work, token, lease, complaints
        # Lanes work in folders alone.
        self.folder = DirectoryStore(lease.spool if is_remote(work.address) else work.address)
        self.lanes = Lanes(work, token, lease, self.folder, capacity)
        self.patience_s = read_patience()
        self.lost = ""  # why the address no longer leads to the store
        self.asked = b""  # what signals and the watching process order
        self.stops = Stops()
        self.is_urgent = self.is_cancelled = self.is_shown = False
        self.kill_at_s = self.orphan_grace_s = float("inf")
        self.began_s = self.memory_at_s = time.monotonic()
        self.look_at_s, self.sync_at_s = self.began_s + _LOOK_S, self.began_s + _SYNC_S

    # --- the steps ------------------------------------------------------------------

    def run(self, options: Options) -> int:
        """Runs all batches to their end, and returns the exit code."""
        self.orphan_grace_s = options.orphan_grace_s
        become_subreaper()
        signal.signal(signal.SIGUSR1, self._on_look_signal)  # as early as may be: it would kill
        clear_dead(self.work.store)
        kept = find_kept(self.work.store)
        self.lease.open_slots(self.work.batches)
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._on_signal)
        self.lanes.fork()
        self.lease.write_processes(self.work.batches, list(self.lanes.controls))
        self._begin(self._open_store(is_here=options.lease_fd >= 0), options, kept)
        self._work(options.watch_fd)
        return self._finish(options)

    def _on_signal(self, number: int, *_: object) -> None:
        is_ending = self.lanes.stopping
        if not self.stops.add(number) or (is_ending and number != signal.SIGINT):
            return
        self.asked = KILL if is_ending or self.stops.count > 1 else END_KINDLY

    def _on_look_signal(self, *_: object) -> None:
        self.look_at_s = 0.0

    def _open_store(self, *, is_here: bool) -> Store:
        store = open_store(self.work.address)
        with store.patient():
            check_job(store, is_here=is_here)
        return store

    def _begin(self, store: Store, options: Options, kept: dict[int, Kept]) -> None:
        """Make what the work is shared among; here is told who knows whom."""
        lease, lanes = self.lease, self.lanes
        here = read_machine()
        opener = Opener(self.work.store, store, self.token, here, options.take_over, {}, kept)
        self.recorder = Recorder(store.address, lanes, self.patience_s)
        self.heartbeat = Heartbeat(opener, lease)
        upstream = Upstream(opener, self.began_s + self.patience_s)
        self.batches = ActiveBatches(opener, lanes, self.recorder, self.heartbeat, upstream)
        self.uploads = Uploads(opener, lease, lanes, self.heartbeat)
        self.cancellation = Cancellation(self.batches, self.uploads, lanes)
        echo = functools.partial(echo_outputs, lease.spool) if options.echo else None
        self.completions = Completions(
            self.batches, self.uploads, self.cancellation, lanes.kills, echo
        )
        self.batch_loader = BatchLoader(opener, lanes, self.patience_s)
        self.dispatcher = Dispatcher(
            self.batch_loader,
            self.batches,
            self.completions,
            self.cancellation,
            self.uploads,
            lanes,
        )

    def _work(self, watch_fd: int) -> None:
        """Until every lane has ended: hand out tickets, record what they tell, obey."""
        lanes, scheduler = self.lanes, self.batches.scheduler
        lanes.watch()
        if watch_fd >= 0:
            lanes.watcher.add_file(watch_fd)
        while lanes.controls or self._is_uploading():
            if not lanes.is_fed:
                self.dispatcher.push()
            ended, files = lanes.watcher.wait(self._patience_now_s())
            if lanes.done in files:
                if scheduler.under_way > scheduler.slots:  # else a slot may be idle
                    time.sleep(_BATCHING_S)
                if not self._take_done():
                    lanes.watcher.remove_file(lanes.done)
            if watch_fd in files:
                self._read_order(watch_fd)
            if self.uploads.uploader:
                self.completions.take_arrived()
            for pid in ended:
                lanes.lane_ended(pid)
            self._apply_orders()
            self.recorder.write_pending()
            self._keep_up(time.monotonic())
            reap_strangers(set(lanes.controls))
        self._take_done()

    def _patience_now_s(self) -> float:
        """Short while there are tickets to give, and until watchers see what runs first."""
        now = time.monotonic()
        is_young = now < self.began_s + _YOUNG_S and not self.is_shown
        patience_s = 1.0 if self.lanes.is_fed and not is_young else 0.1
        until_due_s = self.batches.scheduler.until_due_s(now)
        return min(patience_s, until_due_s, max(0.0, self.kill_at_s - now))

    def _take_done(self) -> bool:
        """Record all that the lanes told since; False once every lane has closed its end."""
        lines, is_open = self.lanes.read_messages()
        if lines and not self._has_lost_its_store():  # what came since is not in it
            self.completions.take(lines)
        return is_open

    def _has_lost_its_store(self) -> bool:
        """Whether its address leads elsewhere by now: then all is ended."""
        if not self.lost and (lost := tell_loss(self.work.address, self.work.store.place)):
            self.lost = lost
            self.lanes.stop(END_KINDLY)
        return bool(self.lost)

    # --- what is ordered ----------------------------------------------------------------

    def _read_order(self, watch_fd: int) -> None:
        """What the watching process orders; that it is gone is an order to end kindly."""
        order = os.read(watch_fd, 1)
        if order == GO_ON:  # without it
            self.lanes.watcher.remove_file(watch_fd)
            return
        self.asked = order or END_KINDLY
        if not order:
            self.batches.mark_orphaned()
            self.kill_at_s = time.monotonic() + self.orphan_grace_s
            self.lanes.watcher.remove_file(watch_fd)

    def _apply_orders(self) -> None:
        """Stop where that was ordered, at the deadline, or when the store has refused too long."""
        now = time.monotonic()
        if self._are_outputs_lost(now):
            self.lanes.leave()
        if self.asked:
            self.is_urgent |= self.lanes.stopping  # asked a second time: no waiting for stores
            self.lanes.stop(self.asked)
            self.asked = b""
        elif now >= self.kill_at_s:
            self.kill_at_s = float("inf")
            self.lanes.stop(KILL)
        elif self.lanes.stopping:
            return
        elif now >= self.batches.deadline_s:
            self.lanes.stop(DEADLINE)
        elif self.recorder.is_lost(now):
            self.lanes.stop(END_KINDLY)
        elif self.batch_loader.is_lost(now):
            self.lanes.leave()

    def _apply_marks(self, marks: Marks) -> None:
        for active in self.batches.open.values():
            if active.file.fd >= 0 and not os.fstat(active.file.fd).st_nlink:
                self.recorder.give_up(f"{self.recorder.address} was removed")
                self.lanes.stop(END_KINDLY)
                return
            if marks.cancel.has_batch(active.view.batch):
                self.is_cancelled = True
                self.lanes.stop(CANCEL_ALL)
                return
        if marks.must_yield:
            self.lanes.stop(END_KINDLY)
        else:
            self.cancellation.cancel(marks.cancel)

    # --- what is done again and again ---------------------------------------------------

    def _keep_up(self, now: float) -> None:
        """What is done every few seconds."""
        if self._has_lost_its_store():
            return
        batches, heartbeat = self.batches, self.heartbeat
        if now >= self.look_at_s:
            self.look_at_s = now + _LOOK_S
            heartbeat.look(batches.open)
            batches.reread_upstream()
        if marks := heartbeat.take_marks():
            self._apply_marks(marks)
        heartbeat.send_live(now, batches.open)
        self.uploads.show(now, batches.open)
        if now >= self.sync_at_s:
            self.sync_at_s = now + _SYNC_S
            self.recorder.sync()
        if now >= self.memory_at_s:
            self.memory_at_s = now + _MEMORY_S
            self.lanes.guard_memory()
            self.lanes.note_strays()
        self.is_shown |= heartbeat.show_running(now, batches.open, self._describe_trouble())

    def _describe_trouble(self) -> str:
        if self.recorder.trouble_s is not None:
            return f"the results cannot be written: {self.recorder.trouble}"
        if self.uploads.trouble_s is not None:
            return f"the results cannot be written: {self.uploads.trouble}"
        if self.batch_loader.refused:
            return str(self.batch_loader.refused)
        is_short = "memory" in self.lanes.held_for
        return "memory is short: nothing is started while other tasks run" if is_short else ""

    def _is_uploading(self) -> bool:
        if self.is_urgent or not self.uploads.count_left():
            return False
        return not (self.lanes.has_left and self._are_outputs_lost(time.monotonic()))

    def _are_outputs_lost(self, now: float) -> bool:
        """Whether outputs have not arrived for too long."""
        since = self.uploads.trouble_s
        return since is not None and now - since > self.patience_s

    # --- the end --------------------------------------------------------------------

    def _finish(self, options: Options) -> int:
        self.lanes.end_strays()
        found = self.batch_loader.finish_opening()
        if found and found.batch:
            self.batches.add(found.ordinal, found.batch)
        if self.lanes.crashed:
            self._keep_unsent()
            with contextlib.suppress(OSError):
                self.recorder.sync(wait=True)
            self._leave_kept()
            print("error: a part of the runner was killed; run the job again", file=sys.stderr)
            return RUNNER_CRASHED
        if self.is_cancelled or self.batches.given_up:
            with contextlib.suppress(OSError, StoreError):
                self.batches.cancel_rest(self.batch_loader.open_rest())
        self._keep_unsent()
        left = self._say_left()
        for ordinal in list(self.batches.open):
            self.batches.end(ordinal)
        self._wait_for_stores()
        if self.lost:  # whoever finds the store clears the rest
            self.complaints.add(self.lost, LOST_HINT)
            return StoreError.exit_code
        self._remove_scratch()
        if self._leave_kept():
            return StoreError.exit_code
        if not self.batch_loader.unopened and not self.dispatcher.passed_over:
            self.lease.remove()  # else we are to be taken for dead, and not waited for
        return self._conclude(options, left)

    def _keep_unsent(self) -> None:
        """Have what did not arrive kept on this machine."""
        if self.uploads.uploader:
            self.completions.take_arrived()
            left = self.uploads.stop()
            self.recorder.keep(left, self.uploads.trouble, self.uploads.hint)

    def _wait_for_stores(self) -> None:
        is_hopeless = self.is_urgent or self._are_outputs_lost(time.monotonic())
        with (
            contextlib.suppress(OSError),
            contextlib.nullcontext() if is_hopeless else self.heartbeat.store.patient(),
        ):
            self.recorder.sync(wait=True)
        self.heartbeat.finish()

    def _remove_scratch(self) -> None:
        with contextlib.suppress(OSError):
            remove_scratch(self.folder.address, self.token)

    def _leave_kept(self) -> bool:
        """Leave outcomes that the store did not take on this machine, and say where."""
        said = self.recorder.leave_kept(self.lease.folder)
        if said:
            self.complaints.add(said, self.recorder.hint or STORE_HINT)
        return bool(said)

    def _say_left(self) -> str:
        """What a signal has kept from its end; empty where nothing was."""
        if not self.stops.count or self.is_cancelled or self.batches.given_up:
            return ""
        tasks = sum(active.left for active in self.batches.open.values())
        batches = len(self.batch_loader.unopened)
        said = [f"{tasks:,} of its tasks"] * bool(tasks) + [f"{batches:,} batches"] * bool(batches)
        return " and ".join(said)

    def _conclude(self, options: Options, left: str) -> int:
        """Say what has kept us from all that was to be done; the exit code."""
        if refused := self.batch_loader.refused:
            self.complaints.add(str(refused), refused.hint or STORE_HINT)
            return StoreError.exit_code
        if self.recorder.trouble_s:
            said = f"the results store cannot be written: {self.recorder.trouble}"
            self.complaints.add(said, STORE_HINT)
            return StoreError.exit_code
        if left and options.is_alone:
            print(f"interrupted: {left} left; the same command goes on", file=sys.stderr)
            return 128 + self.stops.number
        return EXIT_SOME_FAILED if options.strict and self.batches.did_fail else EXIT_SUCCEEDED
