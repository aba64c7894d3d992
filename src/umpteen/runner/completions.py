"""What came of attempts, as lanes tell it: taken apart, judged, and recorded.

A failure is looked at by the task's rules, outputs that go elsewhere are waited for, and what
is complete is written and settled. Standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from typing import Callable, Optional

from umpteen.model.batch import BatchView
from umpteen.model.states import REASON_OUT_OF_MEMORY, TaskState
from umpteen.runner.active_batches import FAILURES, ActiveBatches
from umpteen.runner.cancellation import Cancellation
from umpteen.runner.retries import plan_retry
from umpteen.runner.scheduler import Resources, build_needs
from umpteen.runner.uploads import AttemptResult, Uploads
from umpteen.store.address import is_remote, output_folder
from umpteen.store.layout import spool_folder
from umpteen.store.records import build_line
from umpteen.system.plain_files import open_below
from umpteen.system.resources import OutOfMemoryWatch

__all__ = ["Completions", "Echo", "echo_outputs"]

Echo = Optional[Callable[[BatchView, int, bytes], None]]


class Completions:
    """The attempts of one runner. kills: what the kernel killed for want of memory.

    echo: is given each result's batch, position and record, as it is told.
    """

    def __init__(
        self,
        batches: ActiveBatches,
        uploads: Uploads,
        cancellation: Cancellation,
        kills: OutOfMemoryWatch,
        echo: Echo,
    ) -> None:
        self.batches, self.uploads, self.cancellation = batches, uploads, cancellation
        self.recorder, self.kills, self.echo = batches.recorder, kills, echo

    def take(self, lines: list[bytes]) -> None:
        """What lanes told, a line each."""
        open_batches, scheduler, recorder = self.batches.open, self.batches.scheduler, self.recorder
        results = []
        for line in lines:
            head, _, rest = line.partition(b" ")
            if head == b"!":
                recorder.note_trouble(rest.decode(errors="replace"))
                continue
            if head == b"-":
                self.cancellation.take_back(rest)
                continue
            if head == b"kept":
                recorder.keep([rest.split(b" ", 2)[2] + b"\n"])
                continue
            if recorder.trouble_s is not None:
                recorder.note_success()
            position, state, record = rest.split(b" ", 2)
            key = int(head), int(position)
            if key in self.cancellation.over:
                self.cancellation.forget(key)
                continue
            active = open_batches[key[0]]
            if self.echo:
                self.echo(active.view, key[1], record)
            scheduler.end(key)
            if int(state) in FAILURES:
                record, is_retried = self._review(key, record)
            else:
                is_retried = False
            result = AttemptResult(key, int(state), record, is_retried)
            if is_remote(active.view.output(key[1])):
                results += self.uploads.send(result, active)
            else:
                results.append(result)
        self.note(results)

    def take_arrived(self) -> None:
        """Those whose outputs have arrived since the last call."""
        self.note(self.uploads.take())
        self.uploads.hold_back()

    def note(self, results: Sequence[AttemptResult]) -> None:
        """Record what is complete, and what follows from it."""
        open_batches, record_end = self.batches.open, self.batches.record_end
        written: dict[int, list[bytes]] = {}
        for key, state, record, is_retried in results:
            if key[0] not in open_batches:  # cancelled while a former attempt was on its way
                continue
            active = open_batches[key[0]]
            active.seconds += _read_seconds(record)
            if not is_retried:
                record_end(active, key[1], state)
            written.setdefault(key[0], []).append(record)
        for ordinal, records in written.items():
            active = open_batches[ordinal]
            self.recorder.append(active.file, b"\n".join(records) + b"\n")
            if not active.left:
                self.batches.end(ordinal)
        self.batches.record_never_started()

    def _review(self, key: tuple[int, int], line: bytes) -> tuple[bytes, bool]:
        """A failure's record, with what only the runner knows of it; whether it is tried again."""
        ordinal, position = key
        active = self.batches.open[ordinal]
        terms = active.view.terms_of(position)
        rules = terms.get("retries", ())
        may_be_killed = b'"signal":9,' in line or b'"exit_code":137,' in line
        if not rules and not may_be_killed:
            return line, False
        record = json.loads(line)
        may_be_killed &= record["state"] == TaskState.FAILED.value and not record.get("reason")
        if may_be_killed and self.kills.explain():
            record["reason"] = REASON_OUT_OF_MEMORY
        index = record["task"]
        needs = build_needs(terms) or Resources()
        again = plan_retry(rules, [*active.tries.get(index, ()), record], needs.memory)
        if again and index not in self.cancellation.revoked and not self.batches.given_up:
            record["retry"] = True
            self.batches.try_again(key, record, again)
        return build_line(record)[:-1], "retry" in record


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


def _read_seconds(record: bytes) -> float:
    """The duration in a record's line, without parsing all of it."""
    _, found, rest = record.partition(b'"seconds":')
    if not found:
        return 0.0
    return float(rest[: min(end for end in (rest.find(b","), rest.find(b"}")) if end >= 0)])
