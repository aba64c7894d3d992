"""The runner's loop: gives tasks out, records what came of them, and looks at the store.

Here it is decided when the runner stops, and how; what is left then is closed in `closing`.
"""

from __future__ import annotations

import enum
import os
import signal
import time

from umpteen.runner.closing import close_runner
from umpteen.runner.heartbeat import Marks
from umpteen.runner.lanes.protocol import OrderKind
from umpteen.runner.parts import RunnerParts
from umpteen.store.identity import tell_loss
from umpteen.system.children import reap_strangers

__all__ = ["Runner"]

_BATCHING_S = 0.05  # records are written together that arrive within this time
_LOOK_S = 3.0  # how often later starts are looked for
_SYNC_S = 5.0  # how often the disk is waited for
_MEMORY_S = 0.5  # how often it is looked whether memory is short, and what orphans there are
_YOUNG_S = 2.0  # for so long watchers are waiting to see what runs first
_WAIT_S, _SHORT_WAIT_S = 1.0, 0.1  # for something to happen
_NEVER_S = float("inf")


class Urgency(enum.Enum):
    """Whether stores are waited for at the end."""

    NORMAL = "normal"
    URGENT = "urgent"  # it was asked to stop a second time


class Runner:
    """One run of the runner: the loop over its parts, and what it was ordered to do."""

    def __init__(self, parts: RunnerParts, watch_fd: int, orphan_grace_s: float) -> None:
        self._parts = parts
        self._watch_fd = watch_fd  # where orders of whoever watches us come from; -1: nobody does
        self._orphan_grace_s = orphan_grace_s  # for what runs when nobody watches us any more
        self._order: OrderKind | None = None  # that came and was not applied yet
        self._urgency = Urgency.NORMAL
        self._is_cancelled = False  # the whole job was
        self._is_shown = False  # others can see what runs
        self._lost = ""  # why the address no longer leads to the store
        # All on the monotonic clock.
        self._began_s = self._memory_at_s = time.monotonic()
        self._look_at_s, self._sync_at_s = self._began_s + _LOOK_S, self._began_s + _SYNC_S
        self._kill_at_s = _NEVER_S

    def run(self, *, is_alone: bool, is_strict: bool) -> int:
        """Run all batches to their end; the exit code."""
        self._work()
        return close_runner(
            self._parts,
            lost=self._lost,
            is_cancelled=self._is_cancelled,
            is_urgent=self._urgency is Urgency.URGENT,
            is_alone=is_alone,
            is_strict=is_strict,
        )

    def _work(self) -> None:
        """Until every lane has ended: hand out tickets, record what they say, apply orders."""
        parts, lanes = self._parts, self._parts.lanes
        scheduler = parts.batches.scheduler
        if self._watch_fd >= 0:
            lanes.watcher.add_file(self._watch_fd)
        while lanes.controls or self._is_uploading():
            if not lanes.is_fed:
                parts.dispatcher.push()
            ended, files = lanes.watcher.wait(self._until_next_s())
            if lanes.done in files:
                if scheduler.under_way > scheduler.slots:  # else a slot may be idle
                    time.sleep(_BATCHING_S)
                if not self._take_messages():
                    lanes.watcher.remove_file(lanes.done)
            if self._watch_fd in files:
                self._read_order()
            parts.completions.take_arrived()
            for pid in ended:
                lanes.lane_ended(pid)
            self._apply_orders()
            parts.recorder.write_pending()
            self._keep_up(time.monotonic())
            reap_strangers(set(lanes.controls))
        self._take_messages()

    def _until_next_s(self) -> float:
        """Short while there are tickets to give, and until watchers see what runs first."""
        now = time.monotonic()
        is_young = now < self._began_s + _YOUNG_S and not self._is_shown
        wait_s = _WAIT_S if self._parts.lanes.is_fed and not is_young else _SHORT_WAIT_S
        until_due_s = self._parts.batches.scheduler.until_due_s(now)
        return min(wait_s, until_due_s, max(0.0, self._kill_at_s - now))

    def _take_messages(self) -> bool:
        """Record all that the lanes said since; False once every lane has closed its end."""
        messages, is_open = self._parts.lanes.read_messages()
        if messages and not self._has_lost_its_store():  # what came since is not in it
            self._parts.completions.take(messages)
        return is_open

    def _has_lost_its_store(self) -> bool:
        """Whether its address leads elsewhere by now: then all is ended."""
        work = self._parts.work
        if not self._lost and (lost := tell_loss(work.address, work.store.place)):
            self._lost = lost
            self._parts.lanes.stop(OrderKind.END_KINDLY)
        return bool(self._lost)

    def _is_uploading(self) -> bool:
        uploads = self._parts.uploads
        if self._urgency is Urgency.URGENT or not uploads.count_left():
            return False
        return not (self._parts.lanes.has_left and uploads.is_lost(time.monotonic()))

    # --- what is ordered ----------------------------------------------------------------

    def _read_order(self) -> None:
        """Read what whoever watches us orders; that nobody does is an order to end kindly."""
        letter = os.read(self._watch_fd, 1)
        order = OrderKind(letter) if letter else OrderKind.END_KINDLY
        if not letter or order is OrderKind.GO_ON:  # without being watched
            self._parts.lanes.watcher.remove_file(self._watch_fd)
        if not letter:
            self._parts.batches.mark_orphaned()
            self._kill_at_s = time.monotonic() + self._orphan_grace_s
        if order is not OrderKind.GO_ON:
            self._order = order

    def _read_signals(self) -> None:
        signals, is_stopping = self._parts.signals, self._parts.lanes.is_stopping
        number = signals.pop_stop()
        if number is None or (is_stopping and number != signal.SIGINT):
            return
        is_repeated = is_stopping or signals.stops.count > 1
        self._order = OrderKind.KILL if is_repeated else OrderKind.END_KINDLY

    def _apply_orders(self) -> None:
        """Stop where that was ordered, at the deadline, or when the store has refused too long."""
        parts, lanes = self._parts, self._parts.lanes
        now = time.monotonic()
        if parts.uploads.is_lost(now):
            lanes.leave()
        self._read_signals()
        if self._order:
            if lanes.is_stopping:  # asked a second time: no waiting for stores
                self._urgency = Urgency.URGENT
            lanes.stop(self._order)
            self._order = None
        elif now >= self._kill_at_s:
            self._kill_at_s = _NEVER_S
            lanes.stop(OrderKind.KILL)
        elif lanes.is_stopping:
            return
        elif now >= parts.batches.deadline_s:
            lanes.stop(OrderKind.DEADLINE)
        elif parts.recorder.trouble.is_lost(now):
            lanes.stop(OrderKind.END_KINDLY)
        elif parts.batch_loader.trouble.is_lost(now):
            lanes.leave()

    def _apply_marks(self, marks: Marks) -> None:
        """Do what others left for us to see in the store."""
        parts, lanes = self._parts, self._parts.lanes
        for active in parts.batches.open.values():
            if active.file.fd >= 0 and not os.fstat(active.file.fd).st_nlink:
                parts.recorder.give_up(f"{parts.recorder.address} was removed")
                lanes.stop(OrderKind.END_KINDLY)
                return
            if marks.cancel.has_batch(active.view.batch):
                self._is_cancelled = True
                lanes.stop(OrderKind.CANCEL_ALL)
                return
        if marks.must_yield:
            lanes.stop(OrderKind.END_KINDLY)
        else:
            parts.cancellation.cancel(marks.cancel)

    # --- what is done again and again ---------------------------------------------------

    def _keep_up(self, now: float) -> None:
        """What is done every few seconds."""
        if self._has_lost_its_store():
            return
        parts, heartbeat, batches = self._parts, self._parts.heartbeat, self._parts.batches
        is_asked = parts.signals.pop_look()
        if is_asked or now >= self._look_at_s:
            self._look_at_s = now + _LOOK_S
            parts.dispatcher.take_given()
            heartbeat.look(batches.open)
            batches.reread_upstream()
        if marks := heartbeat.take_marks():
            self._apply_marks(marks)
        heartbeat.send_live(now, batches.open)
        parts.uploads.show(now, batches.open)
        if now >= self._sync_at_s:
            self._sync_at_s = now + _SYNC_S
            parts.recorder.sync()
        if now >= self._memory_at_s:
            self._memory_at_s = now + _MEMORY_S
            parts.lanes.guard_memory()
            parts.lanes.write_strays()
        self._is_shown |= heartbeat.show_running(now, batches.open, self._describe_trouble())

    def _describe_trouble(self) -> str:
        """What keeps the runner from going on; empty where nothing does."""
        parts = self._parts
        for trouble in (parts.recorder.trouble, parts.uploads.trouble):
            if trouble:
                return f"the results cannot be written: {trouble.text}"
        if parts.batch_loader.trouble:
            return parts.batch_loader.trouble.text
        is_short = parts.lanes.is_memory_short
        return "memory is short: nothing is started while other tasks run" if is_short else ""
