"""What others see of a runner, and what they want of it.

Others are people and other runners, who share only the store and the lease with this one. So it
puts running files and live outputs into the store for them, and looks there for marks that they
have put. Where the store is no folder, a thread of its own does both. Standard library alone.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import Callable, NamedTuple

from umpteen.errors import StoreError
from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.batch_start import Opener
from umpteen.runner.lease import Lease
from umpteen.runner.live_output import LiveOutputs
from umpteen.store.address import is_remote
from umpteen.store.job_files import CancelMark, read_cancel_mark
from umpteen.store.layout import LiveKey, running_folder, running_key, spool_folder
from umpteen.store.records import build_line
from umpteen.system.background import BackgroundQueue
from umpteen.system.plain_files import remove_empty

__all__ = ["Heartbeat", "Marks"]

_LIVE_S = 1.5  # how often what a followed task prints is put
_RUNNING_S, _RUNNING_FAR_S, _RUNNING_AT_LEAST_S = 1.0, 5.0, 15.0

Open = Mapping[int, ActiveBatch]  # by the batch's place in the runner's list


class Marks(NamedTuple):
    """What others left for a runner to see; must_yield: one of its batches is not its any more."""

    cancel: CancelMark
    must_yield: bool


class Heartbeat:
    """Those that look at one runner and its store."""

    def __init__(self, opener: Opener, lease: Lease) -> None:
        self.opener, self.store, self.lease = opener, opener.store, lease
        is_far = is_remote(self.store.address)
        self.background = BackgroundQueue() if is_far else None
        self.live = LiveOutputs(self.store) if is_far else None
        self.live_at_s = 0.0
        # By batch, its running file as last put, and when that was.
        self.shown: dict[int, tuple[bytes, float]] = {}
        self.running_s = _RUNNING_FAR_S if is_far else _RUNNING_S
        self.marks: Marks | None = None
        self.is_looking = False
        self.shown_trouble = ""

    # --- what they want -------------------------------------------------------------------

    def look(self, batches: Open) -> None:
        """Look for later starts, `closed`, and the cancel mark; `take_marks` has them then."""
        if self.background is None:
            self._read_marks(batches)
        elif not self.is_looking:
            self.is_looking = True
            self.background.do(functools.partial(self._read_marks, batches))

    def _read_marks(self, batches: Open) -> None:
        try:
            ours = [(active.view.batch, active.key) for active in list(batches.values())]
            mark, recovery = read_cancel_mark(self.store), self.opener.recovery
            self.marks = Marks(mark, any(recovery.must_yield(*each) for each in ours))
            if self.live:
                self.live.look()
        finally:
            self.is_looking = False

    def take_marks(self) -> Marks | None:
        """What was found since the last call."""
        marks, self.marks = self.marks, None
        return marks

    # --- what they see --------------------------------------------------------------------

    def show_running(self, now: float, batches: Open, trouble: str) -> bool:
        """Replace the running files that changed; whether there was anything to show.

        trouble: what keeps the runner from going on; empty where nothing does.
        """
        if trouble != self.shown_trouble:
            self.shown_trouble = trouble
            self.lease.write_trouble(trouble)
        due = [number for number in batches if now - self._shown_at(number) >= self.running_s]
        slots = self.lease.list_slots() if due else []
        if not slots and not any(ordinal in self.shown for ordinal in due):
            return False
        for ordinal in due:
            active = batches[ordinal]
            running = [
                [active.view.indices[slot.position], slot.slot, round(slot.start_s, 3), slot.pid]
                for slot in slots
                if slot.ordinal == ordinal
            ]
            shown = build_line({"running": running, "trouble": trouble})
            before = self.shown.get(ordinal)
            if before and before[0] == shown and now - before[1] < _RUNNING_AT_LEAST_S:
                continue
            self.shown[ordinal] = shown, now
            key = running_key(active.view.batch, active.key)
            self._do_in_background(functools.partial(self.store.replace, key, shown))
        return True

    def _shown_at(self, ordinal: int) -> float:
        return self.shown[ordinal][1] if ordinal in self.shown else 0.0

    def remove_running(self, ordinal: int, active: ActiveBatch) -> None:
        """Remove the running file of a batch that has ended."""
        self.shown.pop(ordinal, None)
        running = running_key(active.view.batch, active.key)
        self._do_in_background(lambda: self.store.delete(running))
        if self.background is None:
            remove_empty(self.store.address, running_folder(active.view.batch))

    def send_live(self, now: float, batches: Open) -> None:
        """Put what is new of the tasks that somebody follows, when it is time."""
        live = self.live
        if live is None or not live.wanted or now < self.live_at_s:
            return
        self.live_at_s = now + _LIVE_S
        running = []
        for slot in self.lease.list_slots():
            active = batches.get(slot.ordinal)
            if active is not None:
                index = active.view.indices[slot.position]
                attempt = active.count_attempts(index) + 1
                batch = active.view.batch
                number = int(batch) if batch.isdigit() else 0
                key = LiveKey(number, active.key.start, attempt, self.opener.token)
                running.append((index, key, spool_folder(self.lease.spool, index, attempt)))
        self._do_in_background(lambda: live.send(running))

    def list_followed(self) -> set[int]:
        """Indices of the tasks that somebody follows, as last seen."""
        return self.live.wanted if self.live else set()

    def forget_live(self, index: int) -> None:
        """Put no more of a task, and remove what was: its outputs are in their place."""
        if self.live and index in self.live.wanted:
            self._do_in_background(functools.partial(self.live.forget, index))

    def finish(self) -> None:
        """Have what was begun in the thread end, for a few seconds."""
        if self.background:
            self.background.finish()

    def _do_in_background(self, call: Callable[[], None]) -> None:
        """What is no loss where the store refuses it, and is not waited for where it is far."""
        if self.background:
            self.background.do(call)
        else:
            with contextlib.suppress(StoreError):
                call()
