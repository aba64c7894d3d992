"""Outputs that go elsewhere than to a folder: from the spool to where they belong.

What a lane told of an attempt is a result; it waits here until the attempt's outputs have
arrived, and is recorded then. `uploader` does the carrying. What running tasks print is
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

    is_retried: whether another attempt follows.
    """

    key: tuple[int, int]
    state: int
    record: bytes
    is_retried: bool


class Uploads:
    """The outputs of one runner's attempts that are on their way.

    uploader: there once something was sent.
    """

    def __init__(self, opener: Opener, lease: Lease, lanes: Lanes, heartbeat: Heartbeat) -> None:
        self.opener, self.lease, self.lanes, self.heartbeat = opener, lease, lanes, heartbeat
        self.uploader: Uploader | None = None
        self.partial: dict[tuple[int, int], Partial] = {}  # by index and attempt
        self._show_at_s = 0.0

    # --- what goes out ------------------------------------------------------------------

    def send(self, result: AttemptResult, active: ActiveBatch) -> list[AttemptResult]:
        """Have the outputs brought to their store; the result itself where there are none."""
        (_, position), _, line, is_retried = result
        record = json.loads(line)
        index, attempt = record["task"], record["attempt"]
        folder = spool_folder(self.lease.spool, index, attempt)
        partial = self.partial.pop((index, attempt), None)
        if partial and self.uploader:
            self.uploader.withdraw(partial)
        if not os.path.isdir(folder):  # it never came to that
            return [result]
        if is_retried:
            record["outputs"] = attempt_folder(attempt, self.opener.token)
            result = result._replace(record=build_line(record)[:-1])
        below = record.get("outputs", "")
        output = active.view.output(position)
        upload = Upload(index, folder, output, below, active.view.status_file, result)
        upload.partial = partial
        if not below and not partial:
            _tell_what_is_there(upload, active)
        upload.size = _measure(record, folder)
        self.uploader = self.uploader or self._begin_uploader()
        self.uploader.send(upload)
        return []

    def send_kept(self, ordinal: int, active: ActiveBatch) -> list[AttemptResult]:
        """Send what dead runners kept here; the results whose outputs are in their place."""
        results = []
        for position, kept in active.kept.items():
            result = AttemptResult((ordinal, position), _SUCCEEDED, kept.record, is_retried=False)
            if not os.path.isdir(kept.folder):
                results.append(result)
            elif self._take_over(active.view.indices[position], kept):
                results += self.send(result, active)
            else:
                active.todo.append(position)
        return results

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
        followed = self.heartbeat.list_followed()
        is_live = any(active.view.live for active in batches.values())
        if now < self._show_at_s or not (followed or is_live):
            return
        self._show_at_s = now + _SHOW_S
        for slot in self.lease.list_slots():
            active = batches.get(slot.ordinal)
            if active is None or time.time() - slot.start_s < _YOUNG_S:
                continue
            is_wanted = active.view.live or active.view.indices[slot.position] in followed
            if is_wanted and is_remote(active.view.output(slot.position)):
                self._show(active, slot.position)

    def _show(self, active: ActiveBatch, position: int) -> None:
        index = active.view.indices[position]
        attempt = active.attempts.get(index, 0) + 1
        partial = self.partial.get((index, attempt))
        if partial is None:
            folder = spool_folder(self.lease.spool, index, attempt)
            below = attempt_folder(attempt, self.opener.token) if active.fenced else ""
            partial = Partial(index, folder, active.view.output(position), below)
            if not below:
                _tell_what_is_there(partial, active)
            self.partial[index, attempt] = partial
        if partial.list_grown():
            self.uploader = self.uploader or self._begin_uploader()
            self.uploader.show(partial)

    def _begin_uploader(self) -> Uploader:
        uploader = Uploader(self.opener.store)
        self.lanes.watcher.add_file(uploader.bell)
        return uploader

    # --- what has arrived ---------------------------------------------------------------

    def take(self) -> list[AttemptResult]:
        """Those whose outputs have arrived since the last call, or have a problem."""
        results = []
        for upload in self.uploader.take() if self.uploader else ():
            result: AttemptResult = upload.result
            if upload.problem:
                failed = {"state": TaskState.FAILED.value, "reason": self._keep_refused(upload)}
                line = build_line({**json.loads(result.record), **failed})[:-1]
                result = result._replace(record=line, state=NUMBER_OF[failed["state"]])
            results.append(result)
            if not result.is_retried:
                self.heartbeat.forget_live(upload.index)
        return results

    def _keep_refused(self, upload: Upload) -> str:
        """Have what cannot be kept stay on this machine; the reason, which says where."""
        problem, where = upload.problem.replace(upload.folder + "/", ""), upload.folder
        with contextlib.suppress(OSError):
            where = self.lease.keep_refused(upload.folder)
        said = f"; its outputs are in {where}"
        room = max(0, _REASON_MOST - len(said))
        problem = problem if len(problem) <= room else problem[: room - 1] + "…"
        return (problem + said)[:_REASON_MOST].encode(errors="replace").decode()

    def stop(self) -> list[bytes]:
        """Put no more; the records of those that have not arrived."""
        left = self.uploader.stop() if self.uploader else []
        return [upload.result.record + b"\n" for upload in left]

    # --- how it goes --------------------------------------------------------------------

    def hold_back(self) -> None:
        """Have no more tasks started while too much is on its way."""
        if self.uploader:
            is_behind = self.uploader.is_behind(self.lease.folder)
            self.lanes.hold("uploader", is_on=is_behind)

    def count_left(self) -> int:
        """How many are on their way."""
        return self.uploader.count_left() if self.uploader else 0

    def list_indices(self) -> set[int]:
        """The tasks whose outputs are on their way."""
        return self.uploader.list_indices() if self.uploader else set()

    @property
    def trouble(self) -> str:
        """What keeps them from arriving; empty where nothing does."""
        return self.uploader.trouble if self.uploader else ""

    @property
    def hint(self) -> str | None:
        """What to do about that."""
        return self.uploader.hint if self.uploader else None

    @property
    def trouble_s(self) -> float | None:
        """Since when, on the monotonic clock; None where nothing does."""
        return self.uploader.trouble_s if self.uploader else None


def _tell_what_is_there(sent: Upload | Partial, active: ActiveBatch) -> None:
    """Of others in the task's folder, for which room is to be made first."""
    sent.aside = active.labels.pop(sent.index, None)
    sent.is_unsure = sent.index in active.unsure


def _measure(record: dict[str, Any], folder: str) -> int:
    """Bytes of what an attempt left in a folder: only its results have to be looked at."""
    size: int = record.get("stdout_bytes", 0) + record.get("stderr_bytes", 0)
    for parent, _, names in os.walk(os.path.join(folder, "results")):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size
