"""Outputs that go to a store that is no folder: on their way there from the spool.

The result of an attempt waits here until its outputs have arrived, and is recorded then. The
threads that put them are in `uploader`. What running tasks print is shown in its place, where
that is wanted. Standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from typing import NamedTuple

from umpteen.model.record import RecordLine
from umpteen.model.states import NUMBER_OF, TaskState
from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.batch_start import Opener
from umpteen.runner.heartbeat import Heartbeat
from umpteen.runner.lanes.group import Lanes
from umpteen.runner.lanes.protocol import TaskKey
from umpteen.runner.lease import Lease
from umpteen.runner.leftovers import Kept
from umpteen.runner.trouble import Trouble
from umpteen.runner.uploader import Partial, Upload, Uploader
from umpteen.store.address import is_remote
from umpteen.store.layout import attempt_folder, spool_folder
from umpteen.store.records import build_line

__all__ = ["AttemptResult", "Uploads"]

_REASON_MOST = 300  # characters
_SHOW_S, _YOUNG_S = 3.0, 0.5  # how often what runs is shown, and how long it has to have run
_SUCCEEDED = NUMBER_OF[TaskState.SUCCEEDED.value]


class AttemptResult(NamedTuple):
    """What came of an attempt, to be recorded when its outputs are in their place."""

    key: TaskKey
    state: int  # its number in STATES
    record: bytes  # a line without its end
    seconds: float  # how long it took
    is_retried: bool  # another attempt follows


class Uploads:
    """The outputs of one runner's attempts that are on their way."""

    def __init__(
        self, opener: Opener, lease: Lease, lanes: Lanes, heartbeat: Heartbeat, patience_s: float
    ) -> None:
        self._store, self._token = opener.store, opener.token
        self._lease, self._lanes, self._heartbeat = lease, lanes, heartbeat
        self._patience_s = patience_s
        self._uploader: Uploader | None = None  # once something was sent
        self._partials: dict[tuple[int, int], Partial] = {}  # by index and attempt
        self._show_at_s = 0.0  # not earlier than this

    # --- what goes out ------------------------------------------------------------------

    def send(self, result: AttemptResult, active: ActiveBatch) -> list[AttemptResult]:
        """Have the outputs brought to their store; the result itself where there are none."""
        position = result.key[1]
        record: RecordLine = json.loads(result.record)
        index, attempt = record["task"], record["attempt"]
        folder = spool_folder(self._lease.spool, index, attempt)
        partial = self._partials.pop((index, attempt), None)
        if partial and self._uploader:
            self._uploader.withdraw(partial)
        if not os.path.isdir(folder):  # it never came to that
            return [result]
        if result.is_retried:
            record["outputs"] = attempt_folder(attempt, self._token)
            result = result._replace(record=build_line(record)[:-1])
        below = record.get("outputs", "")
        output = active.view.output(position)
        upload = Upload(index, folder, output, below, active.view.status_file, result)
        upload.partial = partial
        if not below and not partial:
            _note_what_is_there(upload, active)
        upload.size = _measure(record, folder)
        self._uploader = self._uploader or self._begin_uploader()
        self._uploader.send(upload)
        return []

    def send_kept(self, ordinal: int, active: ActiveBatch) -> list[AttemptResult]:
        """Send what dead runners kept here; the results whose outputs are in their place."""
        results = []
        for position, kept in active.kept.items():
            key, seconds = (ordinal, position), json.loads(kept.record).get("seconds", 0.0)
            result = AttemptResult(key, _SUCCEEDED, kept.record, seconds, is_retried=False)
            if not os.path.isdir(kept.folder):
                results.append(result)
            elif self._take_over(active.view.indices[position], kept):
                results += self.send(result, active)
            else:
                active.add_todo(position)
        return results

    def _take_over(self, index: int, kept: Kept) -> bool:
        """Have the outputs in our own spool; whether that could be done."""
        try:
            os.makedirs(self._lease.spool, exist_ok=True)
            os.rename(kept.folder, spool_folder(self._lease.spool, index, kept.attempt))
        except OSError:
            return False
        return True

    def show(self, now: float, batches: Mapping[int, ActiveBatch]) -> None:
        """Have what running tasks print be in its place, where that is wanted, when it is time."""
        followed = self._heartbeat.list_followed()
        is_live = any(active.view.live for active in batches.values())
        if now < self._show_at_s or not (followed or is_live):
            return
        self._show_at_s = now + _SHOW_S
        for slot in self._lease.list_slots():
            active = batches.get(slot.ordinal)
            if active is None or time.time() - slot.start_s < _YOUNG_S:
                continue
            is_wanted = active.view.live or active.view.indices[slot.position] in followed
            if is_wanted and is_remote(active.view.output(slot.position)):
                self._show(active, slot.position)

    def _show(self, active: ActiveBatch, position: int) -> None:
        index = active.view.indices[position]
        attempt = active.count_attempts(index) + 1
        partial = self._partials.get((index, attempt))
        if partial is None:
            folder = spool_folder(self._lease.spool, index, attempt)
            below = attempt_folder(attempt, self._token) if active.is_fenced else ""
            partial = Partial(index, folder, active.view.output(position), below)
            if not below:
                _note_what_is_there(partial, active)
            self._partials[index, attempt] = partial
        if partial.list_grown():
            self._uploader = self._uploader or self._begin_uploader()
            self._uploader.show(partial)

    def _begin_uploader(self) -> Uploader:
        uploader = Uploader(self._store, self._patience_s)
        self._lanes.watcher.add_file(uploader.bell)
        return uploader

    # --- what has arrived ---------------------------------------------------------------

    def take(self) -> list[AttemptResult]:
        """Those whose outputs have arrived since the last call, or have a problem."""
        results = []
        for upload in self._uploader.take() if self._uploader else ():
            result: AttemptResult = upload.result
            if upload.problem:
                failed = {"state": TaskState.FAILED.value, "reason": self._keep_refused(upload)}
                line = build_line({**json.loads(result.record), **failed})[:-1]
                result = result._replace(record=line, state=NUMBER_OF[failed["state"]])
            results.append(result)
            if not result.is_retried:
                self._heartbeat.forget_live(upload.index)
        return results

    def _keep_refused(self, upload: Upload) -> str:
        """Have what cannot be kept stay on this machine; the reason, which says where."""
        problem, where = upload.problem.replace(upload.folder + "/", ""), upload.folder
        with contextlib.suppress(OSError):
            where = self._lease.keep_refused(upload.folder)
        said = f"; its outputs are in {where}"
        room = max(0, _REASON_MOST - len(said))
        problem = problem if len(problem) <= room else problem[: room - 1] + "…"
        return (problem + said)[:_REASON_MOST].encode(errors="replace").decode()

    def stop(self) -> list[bytes]:
        """Put no more; the records of those that have not arrived."""
        left = self._uploader.stop() if self._uploader else []
        return [upload.result.record + b"\n" for upload in left]

    # --- how it goes --------------------------------------------------------------------

    @property
    def is_used(self) -> bool:
        """Whether anything was ever sent."""
        return self._uploader is not None

    def hold_back(self) -> None:
        """Have no more tasks started while too much is on its way."""
        if self._uploader:
            is_behind = self._uploader.is_behind(self._lease.folder)
            self._lanes.hold("uploads", is_on=is_behind)

    def count_left(self) -> int:
        """How many are on their way."""
        return self._uploader.count_left() if self._uploader else 0

    def list_indices(self) -> set[int]:
        """The tasks whose outputs are on their way."""
        return self._uploader.list_indices() if self._uploader else set()

    @property
    def trouble(self) -> Trouble | None:
        """What keeps them from arriving; None or false where nothing does."""
        return self._uploader.trouble if self._uploader else None

    def is_lost(self, now: float) -> bool:
        """Whether they have not arrived for too long."""
        return self._uploader is not None and self._uploader.trouble.is_lost(now)


def _note_what_is_there(sent: Upload | Partial, active: ActiveBatch) -> None:
    """Of others in the task's folder, for which room is to be made first."""
    sent.aside = active.take_label(sent.index)
    sent.is_unsure = sent.index in active.unsure


def _measure(record: RecordLine, folder: str) -> int:
    """Bytes of what an attempt left in a folder: only its results have to be looked at."""
    size = record.get("stdout_bytes", 0) + record.get("stderr_bytes", 0)
    for parent, _, names in os.walk(os.path.join(folder, "results")):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size
