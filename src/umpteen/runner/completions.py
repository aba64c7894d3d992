"""What came of attempts, as lanes say it: judged, and recorded.

The task's rules say what follows a failure; outputs that go to another store are waited for; what
is complete is recorded, and what that means for other tasks is noted. Standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterable, Sequence
from typing import Callable, Optional

from umpteen.model.batch import BatchView
from umpteen.model.reasons import Reason
from umpteen.model.record import RecordLine
from umpteen.model.retries import plan_retry
from umpteen.model.states import NUMBER_OF, TaskState
from umpteen.runner.active_batches import FAILURES, ActiveBatches
from umpteen.runner.cancellation import Cancellation
from umpteen.runner.lanes.protocol import (
    AttemptEnded,
    AttemptKept,
    Message,
    StoreRefused,
    TasksDeclined,
)
from umpteen.runner.recorder import Recorder
from umpteen.runner.scheduler import Resources, build_needs
from umpteen.runner.uploads import AttemptResult, Uploads
from umpteen.store.address import is_remote, output_folder
from umpteen.store.layout import spool_folder
from umpteen.store.records import build_line
from umpteen.system.plain_files import open_below
from umpteen.system.resources import OutOfMemoryWatch
from umpteen.system.stop_signals import Stops

__all__ = ["Completions", "Echo", "echo_outputs"]

# Is given the batch, the position and the record of each attempt as it ends.
Echo = Optional[Callable[[BatchView, int, bytes], None]]

# How one ends that the kernel killed: itself, or below a shell that says so.
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
_FAILED, _WAITING = NUMBER_OF[TaskState.FAILED.value], NUMBER_OF[TaskState.WAITING.value]


class Completions:
    """Takes what lanes say of attempts, and has it recorded."""

    def __init__(
        self,
        batches: ActiveBatches,
        uploads: Uploads,
        cancellation: Cancellation,
        recorder: Recorder,
        kills: OutOfMemoryWatch,
        stops: Stops,
        echo: Echo,
    ) -> None:
        self._batches, self._uploads, self._cancellation = batches, uploads, cancellation
        self._recorder = recorder
        self._kills = kills  # what the kernel killed for want of memory
        self._stops = stops
        self._echo = echo

    def take(self, messages: Iterable[Message]) -> None:
        """What lanes said."""
        results: list[AttemptResult] = []
        for message in messages:
            if isinstance(message, AttemptEnded):
                results += self._take_ended(message)
            elif isinstance(message, StoreRefused):
                self._recorder.note_trouble(message.trouble)
            elif isinstance(message, TasksDeclined):
                self._cancellation.lane_declined(message.keys)
            elif isinstance(message, AttemptKept):
                self._recorder.keep([message.record + b"\n"])
        self.record(results)

    def take_arrived(self) -> None:
        """Those whose outputs have arrived since the last call."""
        if self._uploads.is_used:
            self.record(self._uploads.take())
            self._uploads.hold_back()

    def _take_ended(self, ended: AttemptEnded) -> Sequence[AttemptResult]:
        """The result, where its outputs are in their place."""
        self._recorder.note_success()
        key = ended.key
        if self._cancellation.take_late(key):
            return ()
        if self._stops.count and ended.state == _FAILED:
            ended = _interrupt(ended)
        active = self._batches.open[key[0]]
        if self._echo:
            self._echo(active.view, key[1], ended.record)
        self._batches.scheduler.end(key)
        result = AttemptResult(key, ended.state, ended.record, ended.seconds, is_retried=False)
        if ended.state in FAILURES:
            result = self._review(result, may_be_killed=ended.exit_status in _KILLED)
        if is_remote(active.view.output(key[1])):
            return self._uploads.send(result, active)
        return (result,)

    def record(self, results: Sequence[AttemptResult]) -> None:
        """Record what is complete, and what follows from it."""
        batches = self._batches
        written: dict[int, list[bytes]] = {}
        for result in results:
            ordinal, position = result.key
            if ordinal not in batches.open:  # cancelled while a former attempt was on its way
                continue
            active = batches.open[ordinal]
            active.add_seconds(result.seconds)
            if not result.is_retried:
                batches.record_end(active, position, result.state)
            written.setdefault(ordinal, []).append(result.record)
        for ordinal, records in written.items():
            active = batches.open[ordinal]
            self._recorder.append(active.file, b"\n".join(records) + b"\n")
        batches.record_never_started()

    def _review(self, result: AttemptResult, *, may_be_killed: bool) -> AttemptResult:
        """A failure, with what only the runner knows of it, and whether it is tried again."""
        ordinal, position = result.key
        active = self._batches.open[ordinal]
        terms = active.view.terms_of(position)
        rules = terms.get("retries", ())
        if not rules and not may_be_killed:
            return result
        record: RecordLine = json.loads(result.record)
        may_be_killed &= record["state"] == TaskState.FAILED.value and not record.get("reason")
        if may_be_killed and self._kills.explain():
            record["reason"] = Reason.OUT_OF_MEMORY.value
        index = record["task"]
        needs = build_needs(terms) or Resources()
        again = plan_retry(rules, [*active.tries.get(index, ()), record], needs.memory)
        is_wanted = not self._cancellation.is_revoked(index) and not self._batches.given_up
        if again and is_wanted:
            record["retry"] = True
            self._batches.try_again(result.key, record, again)
        line = build_line(record)[:-1]
        return result._replace(record=line, is_retried=record.get("retry", False))


def _interrupt(ended: AttemptEnded) -> AttemptEnded:
    """An attempt that failed once its runner was asked to stop: another start runs the task.

    A scheduler such as Slurm sends its signal to tasks and runner at once, and the task may die of
    it before the runner can have it ended.
    """
    record: RecordLine = json.loads(ended.record)
    record["state"], record["reason"] = TaskState.WAITING.value, Reason.INTERRUPTED.value
    return ended._replace(state=_WAITING, record=build_line(record)[:-1])


def echo_outputs(spool: str, view: BatchView, position: int, line: bytes) -> None:
    """Copy what an attempt printed to our own stdout and stderr, byte for byte."""
    record = json.loads(line)
    if is_remote(view.output(position)):
        folder = spool_folder(spool, record["task"], record["attempt"])
    else:
        folder = os.path.join(output_folder(view.output(position)), record.get("outputs", ""))
    for fd, name in ((1, "stdout"), (2, "stderr")):
        if record.get(f"{name}_bytes"):
            _copy(folder, name, fd)


def _copy(folder: str, name: str, fd: int) -> None:
    """To somebody who may not be there to read: the file is kept whatever becomes of it."""
    with (
        contextlib.suppress(OSError),
        open(open_below(folder, name), "rb") as file,
        open(fd, "wb", closefd=False) as copy,
    ):
        shutil.copyfileobj(file, copy)
