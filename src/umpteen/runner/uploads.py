"""Outputs that go elsewhere than to a folder: from the spool to where they belong.

What a lane told of an attempt is an outcome; it waits here until the attempt's outputs have
arrived, and is recorded then. `delivery` does the carrying. What running tasks print is
shown in its place, where that is wanted. Standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from umpteen.model.states import NUMBER_OF, TaskState
from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.batch_start import Opener
from umpteen.runner.heartbeat import Heartbeat
from umpteen.runner.lanes.group import Lanes
from umpteen.runner.lease import Kept, Lease
from umpteen.runner.uploader import Partial, Upload, Uploader
from umpteen.store.address import is_remote
from umpteen.store.layout import attempt_folder, spool_folder
from umpteen.store.records import build_line

__all__ = ["AttemptResult", "Uploads"]

_REASON_MOST = 300  # characters
_SHOW_S, _YOUNG_S = 3.0, 0.5  # how often what runs is shown, and how long it has to have run
_SUCCEEDED = NUMBER_OF[TaskState.SUCCEEDED.value]


class AttemptResult(NamedTuple):
    """What a lane told of a task: its key, the number of its state, its record.

    comes_back: whether another attempt follows.
    """

    key: tuple[int, int]
    state: int
    record: bytes
    comes_back: bool


class Uploads:
    """The outputs of one runner's attempts that are on their way.

    delivery: there once something was sent.
    """

    def __init__(self, opener: Opener, lease: Lease, lanes: Lanes, others: Heartbeat) -> None:
        self.opener, self.lease, self.lanes, self.others = opener, lease, lanes, others
        self.delivery: Uploader | None = None
        self.partial: dict[tuple[int, int], Partial] = {}  # by index and attempt
        self._show_at_s = 0.0

    # --- what goes out ------------------------------------------------------------------

    def send(self, outcome: AttemptResult, opened: ActiveBatch) -> list[AttemptResult]:
        """Have the outputs brought to their store; the outcome itself where there are none."""
        (_, position), _, line, comes_back = outcome
        record = json.loads(line)
        index, attempt = record["task"], record["attempt"]
        folder = spool_folder(self.lease.spool, index, attempt)
        partial = self.partial.pop((index, attempt), None)
        if partial and self.delivery:
            self.delivery.withdraw(partial)
        if not os.path.isdir(folder):  # it never came to that
            return [outcome]
        if comes_back:
            record["outputs"] = attempt_folder(attempt, self.opener.token)
            outcome = outcome._replace(record=build_line(record)[:-1])
        below = record.get("outputs", "")
        output = opened.view.output(position)
        parcel = Upload(index, folder, output, below, opened.view.status_file, outcome)
        parcel.partial = partial
        if not below and not partial:
            _tell_what_is_there(parcel, opened)
        parcel.size = _measure(record, folder)
        self.delivery = self.delivery or self._begin_delivery()
        self.delivery.send(parcel)
        return []

    def send_kept(self, ordinal: int, opened: ActiveBatch) -> list[AttemptResult]:
        """Send what dead runners kept here; the outcomes whose outputs are in their place."""
        outcomes = []
        for position, kept in opened.kept.items():
            outcome = AttemptResult((ordinal, position), _SUCCEEDED, kept.record, comes_back=False)
            if not os.path.isdir(kept.folder):
                outcomes.append(outcome)
            elif self._take_over(opened.view.indices[position], kept):
                outcomes += self.send(outcome, opened)
            else:
                opened.todo.append(position)
        return outcomes

    def _take_over(self, index: int, kept: Kept) -> bool:
        """Have the outputs in our own spool; whether that could be done."""
        try:
            os.makedirs(self.lease.spool, exist_ok=True)
            os.rename(kept.folder, spool_folder(self.lease.spool, index, kept.attempt))
        except OSError:
            return False
        return True

    def show(self, now: float, batches: Mapping[int, ActiveBatch]) -> None:
        """Have what running tasks print be in its place, where that is wanted, when it is time."""
        followed = self.others.list_followed()
        is_live = any(opened.view.live for opened in batches.values())
        if now < self._show_at_s or not (followed or is_live):
            return
        self._show_at_s = now + _SHOW_S
        for slot in self.lease.list_slots():
            opened = batches.get(slot.ordinal)
            if opened is None or time.time() - slot.start_s < _YOUNG_S:
                continue
            is_wanted = opened.view.live or opened.view.indices[slot.position] in followed
            if is_wanted and is_remote(opened.view.output(slot.position)):
                self._show(opened, slot.position)

    def _show(self, opened: ActiveBatch, position: int) -> None:
        index = opened.view.indices[position]
        attempt = opened.attempts.get(index, 0) + 1
        partial = self.partial.get((index, attempt))
        if partial is None:
            folder = spool_folder(self.lease.spool, index, attempt)
            below = attempt_folder(attempt, self.opener.token) if opened.fenced else ""
            partial = Partial(index, folder, opened.view.output(position), below)
            if not below:
                _tell_what_is_there(partial, opened)
            self.partial[index, attempt] = partial
        if partial.list_grown():
            self.delivery = self.delivery or self._begin_delivery()
            self.delivery.show(partial)

    def _begin_delivery(self) -> Uploader:
        delivery = Uploader(self.opener.store)
        self.lanes.watcher.add_file(delivery.bell)
        return delivery

    # --- what has arrived ---------------------------------------------------------------

    def take(self) -> list[AttemptResult]:
        """Those whose outputs have arrived since the last call, or have a problem."""
        outcomes = []
        for parcel in self.delivery.take() if self.delivery else ():
            outcome: AttemptResult = parcel.outcome
            if parcel.problem:
                failed = {"state": TaskState.FAILED.value, "reason": self._set_apart(parcel)}
                line = build_line({**json.loads(outcome.record), **failed})[:-1]
                outcome = outcome._replace(record=line, state=NUMBER_OF[failed["state"]])
            outcomes.append(outcome)
            if not outcome.comes_back:
                self.others.forget_live(parcel.index)
        return outcomes

    def _set_apart(self, parcel: Upload) -> str:
        """Have what cannot be kept stay on this machine; the reason, which says where."""
        problem, where = parcel.problem.replace(parcel.folder + "/", ""), parcel.folder
        with contextlib.suppress(OSError):
            where = self.lease.set_apart(parcel.folder)
        said = f"; its outputs are in {where}"
        room = max(0, _REASON_MOST - len(said))
        problem = problem if len(problem) <= room else problem[: room - 1] + "…"
        return (problem + said)[:_REASON_MOST].encode(errors="replace").decode()

    def stop(self) -> list[bytes]:
        """Put no more; the records of those that have not arrived."""
        left = self.delivery.stop() if self.delivery else []
        return [parcel.outcome.record + b"\n" for parcel in left]

    # --- how it goes --------------------------------------------------------------------

    def hold_back(self) -> None:
        """Have no more tasks started while too much is on its way."""
        if self.delivery:
            is_behind = self.delivery.is_behind(self.lease.folder)
            self.lanes.hold("delivery", is_on=is_behind)

    def count_left(self) -> int:
        """How many are on their way."""
        return self.delivery.count_left() if self.delivery else 0

    def list_indices(self) -> set[int]:
        """The tasks whose outputs are on their way."""
        return self.delivery.list_indices() if self.delivery else set()

    @property
    def trouble(self) -> str:
        """What keeps them from arriving; empty where nothing does."""
        return self.delivery.trouble if self.delivery else ""

    @property
    def hint(self) -> str | None:
        """What to do about that."""
        return self.delivery.hint if self.delivery else None

    @property
    def trouble_s(self) -> float | None:
        """Since when, on the monotonic clock; None where nothing does."""
        return self.delivery.trouble_s if self.delivery else None


def _tell_what_is_there(sent: Upload | Partial, opened: ActiveBatch) -> None:
    """Of others in the task's folder, for which room is to be made first."""
    sent.aside = opened.labels.pop(sent.index, None)
    sent.is_unsure = sent.index in opened.unsure


def _measure(record: dict[str, Any], folder: str) -> int:
    """Bytes of what an attempt left in a folder: only its results have to be looked at."""
    size: int = record.get("stdout_bytes", 0) + record.get("stderr_bytes", 0)
    for parent, _, names in os.walk(os.path.join(folder, "results")):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size
