"""One start of a batch: what earlier starts did, whether they live, and what is left to do.

Takes a batch of a store and this runner's token; gives an open records file and the tasks to
run, or says why not. The rules are those of docs/failures.md; standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from umpteen.errors import StoreError
from umpteen.model.batch import BatchView
from umpteen.model.forms import MOST_TASKS
from umpteen.model.record import Record
from umpteen.model.states import (
    FORMAT_VERSION,
    NUMBER_OF,
    REASON_INTERRUPTED,
    REASON_KILLED_ITS_RUNNER,
    TaskState,
)
from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.lease import Kept, is_alive, read_last_slots
from umpteen.store.address import find_output
from umpteen.store.base import Appender, Store
from umpteen.store.identity import Identity, describe_place, is_another
from umpteen.store.job_files import parse_running, read_batch_file, read_cancel_mark
from umpteen.store.layout import (
    OUTPUTS,
    RecordsKey,
    attempt_folder,
    closed_key,
    records_key,
    running_key,
)
from umpteen.store.records import Start, build_line, list_starts, read_start, refuse_newer
from umpteen.system.host import Machine
from umpteen.system.locks import passing_lock

__all__ = ["Opener", "read_batch"]

_EARLIER_S = 15.0  # how long an earlier start elsewhere is waited for
_CODE_BYTES = 32  # more than any exit code has


def read_batch(store: Store, batch: str) -> BatchView:
    """One batch file. Raises StoreError where there is none, or it is damaged."""
    content = read_batch_file(store, batch)
    refuse_newer(store, content["umpteen"])
    return BatchView(content)


class Opener(NamedTuple):
    """Opens batches of one store for one runner.

    begun: those whose records file is there. kept: by task index, what dead runners of this
    machine could not record.
    """

    identity: Identity
    store: Store
    token: str
    here: Machine
    take_over: bool
    begun: dict[str, tuple[RecordsKey, Appender]]
    kept: Mapping[int, Kept] = {}

    def open(self, batch: str) -> ActiveBatch | None:
        """The batch to go on with; None where it must not start, or somebody is at it.

        Raises StoreError where it cannot be read, or its records file not be begun; it may be
        tried again then.
        """
        try:
            return self._open(batch)
        except OSError as error:
            path = str(error.filename or self.store.address)
            raise StoreError(f"could not write {path}: {error.strerror}", path=path) from error

    def _open(self, batch: str) -> ActiveBatch | None:
        store = self.store
        if store.read(closed_key(batch)) is not None:
            return None
        view = read_batch(store, batch)
        # One at a time on this machine: each sees those before it that have begun.
        with passing_lock(f"start-{self.identity.digest}-{batch}"):
            begun = self.begun.get(batch)
            keys = [key for key in list_starts(store, batch) if not begun or key < begun[0]]
            starts = [read_start(store, batch, key, self.here) for key in keys]
            if self._is_run_here(starts):
                return None
            if begun is None:
                key = RecordsKey(keys[-1].start + 1 if keys else 1, self.token)
                begun = self.begun[batch] = key, store.open_records(records_key(batch, key))
                begun[1].append(build_line(self._build_start(view)))
            key, file = begun
            file.flush()
        self._clear_running(batch, starts)
        active = ActiveBatch(view, key, file)
        if any(self.may_live(start) for start in starts):
            active.fenced = True
            starts = self._wait_for_earlier(batch, keys)
        self._choose(active, starts)
        if read_cancel_mark(store).has_batch(batch):
            self.record_cancelled(active)
        elif self.kept:
            active.kept = self._find_kept(active)
            active.todo = [position for position in active.todo if position not in active.kept]
        return active

    def _find_kept(self, active: ActiveBatch) -> dict[int, Kept]:
        """By position, the successes of dead runners whose outputs are here, or in their place."""
        found: dict[int, Kept] = {}
        for position in active.todo:
            index = active.view.indices[position]
            kept = self.kept.get(index)
            is_newer = kept is not None and kept.attempt > active.attempts.get(index, 0)
            if kept and is_newer and kept.digest == active.view.digest(position):
                found[position] = kept
        arrived = [p for p, kept in found.items() if not os.path.isdir(kept.folder)]
        for position in set(arrived).difference(self._list_complete(active.view, found, arrived)):
            del found[position]
        return found

    def _list_complete(
        self, view: BatchView, kept: Mapping[int, Kept], positions: Sequence[int]
    ) -> Iterator[int]:
        """Those of which the exit code, which is put last, is there.

        What the disk of this machine had before it started anew may be gone since.
        """
        opened: dict[str, Store] = {}
        asked: dict[Store, list[tuple[int, str]]] = {}
        for position in positions:
            if not self.store.is_lasting and kept[position].boot != self.here.boot:
                continue
            store, folder = find_output(self.store, view.output(position), opened)
            parts = (folder, kept[position].below, view.status_file)
            asked.setdefault(store, []).append((position, "/".join(filter(None, parts))))
        for store, places in asked.items():
            codes = store.read_many([(key, 0, _CODE_BYTES) for _, key in places])
            yield from (place[0] for place, code in zip(places, codes) if code == b"0")
        for store in opened.values():
            store.close()

    def record_cancelled(
        self, active: ActiveBatch, reason: str = "", only: Container[int] | None = None
    ) -> None:
        """Record what this start has not run, or `only` these task indices of it, as cancelled."""
        indices = active.view.indices
        chosen = {
            position
            for position in [*active.alone, *active.todo]
            if not active.is_done(position) and (only is None or indices[position] in only)
        }
        lines = []
        for position in sorted(chosen):
            record = self.build_record(active, position, TaskState.CANCELLED.value, reason)
            lines.append(record.to_line() + "\n")
            active.states[position] = NUMBER_OF[record.state]
        active.file.append("".join(lines).encode())
        active.alone = [position for position in active.alone if position not in chosen]
        active.todo = [position for position in active.todo if position not in chosen]
        active.left = 0 if only is None else active.left - len(chosen)

    def must_yield(self, active: ActiveBatch) -> bool:
        """Whether a later start has taken this batch over, or it was closed."""
        batch = active.view.batch
        if self.store.read(closed_key(batch)) is not None:
            return True
        for key in list_starts(self.store, batch):
            if key > active.key:
                start = read_start(self.store, batch, key, self.here).opened
                is_here = start.get("machine") == self.here.machine
                if start and (not is_here or start.get("take_over")):
                    return True
        return False

    def move_fenced(self, active: ActiveBatch) -> None:
        """Bring this start's outputs to their place, once every earlier start has ended."""
        batch = active.view.batch
        earlier = [key for key in list_starts(self.store, batch) if key < active.key]
        starts = [read_start(self.store, batch, key, self.here) for key in earlier]
        if any(self.may_live(start) for start in starts):
            return
        active.file.flush()
        won = {r.task for start in starts for r in start.records if r.succeeded}
        own = read_start(self.store, batch, active.key, self.here)
        for record in own.records:
            if record.outputs and record.succeeded and record.task not in won:
                _move_outputs(self.store, active.view, record)
                active.file.append(build_line({"event": "moved", "moved": record.task}))

    def _build_start(self, view: BatchView) -> dict[str, Any]:
        return {
            "event": "start",
            "version": FORMAT_VERSION,
            "token": self.token,
            "machine": self.here.machine,
            "boot": self.here.boot,
            "host": self.here.host,
            "pid": os.getpid(),
            "time": round(time.time(), 3),
            "slots": view.slots,
            "take_over": self.take_over,
            "place": self._describe_place(),
        }

    def _describe_place(self) -> str:
        return describe_place(self.here, self.identity.place)

    def _is_copied(self, start: Start) -> bool:
        """Whether it was of the store that this one is a copy of: nothing of that is ours."""
        return is_another(start.opened.get("place", ""), self._describe_place())

    def _is_run_here(self, starts: Sequence[Start]) -> bool:
        """Whether an earlier start lives on this machine, and is not to be taken over."""
        for start in starts:
            if self._lives(start) and not self.take_over:
                token, pid = start.key.token, start.opened.get("pid")
                where = f"by runner {token}, pid {pid}"
                sys.stderr.write(f"this batch is being run here already {where}\n")
                return True
        return False

    def _lives(self, start: Start) -> bool | None:
        """By its lease: True, False, or None where this machine cannot know."""
        if start.ended:
            return False
        if not start.opened:  # killed before its first line; where it was, its lease is
            return is_alive(start.key.token)
        if start.opened.get("machine") != self.here.machine:
            return None
        if start.opened.get("boot") != self.here.boot or self._is_copied(start):
            return False
        return is_alive(start.key.token)

    def may_live(self, start: Start) -> bool:
        """Whether more may come from a start: all but those that are known to be over."""
        return self._lives(start) is not False

    def _wait_for_earlier(self, batch: str, keys: Sequence[RecordsKey]) -> list[Start]:
        """The earlier starts, once they have ended or have had their time to."""
        limit = time.monotonic() + _EARLIER_S
        while True:
            starts = [read_start(self.store, batch, key, self.here) for key in keys]
            if time.monotonic() >= limit or not any(self.may_live(start) for start in starts):
                return starts
            time.sleep(0.5)

    def _clear_running(self, batch: str, starts: Sequence[Start]) -> None:
        """Remove what dead starts said last of what they run."""
        for start in starts:
            if not start.ended and self._lives(start) is False:
                with contextlib.suppress(StoreError):
                    self.store.delete(running_key(batch, start.key))

    def _choose(self, active: ActiveBatch, starts: Sequence[Start]) -> None:
        """What is left to do after what earlier starts recorded."""
        view = active.view
        if any(not start.ended or start.ended.get("left") for start in starts):
            active.unsure.update(view.indices)
        for position, (attempt, token, *tries) in view.before.items():
            index = view.indices[int(position)]
            if not attempt:
                active.unsure.add(index)
                continue
            active.attempts[index] = attempt
            active.labels[index] = (attempt, token)
            if tries and tries[0]:
                active.tries[index] = tries[0]
        done = set()
        for token, record in ((s.key.token, record) for s in starts for record in s.records):
            active.labels[record.task] = (record.attempt, token)
            made = active.attempts.get(record.task, 0)
            active.attempts[record.task] = max(made, record.attempt)
            if record.is_final:
                done.add(record.task)
                active.finals[record.task] = NUMBER_OF[record.state]
            elif record.retry:
                active.tries.setdefault(record.task, []).append(record.to_dict())
        todo = [p for p, index in enumerate(view.indices) if index not in done]
        suspects, killer = self._list_suspects(view, starts)
        active.alone = [p for p in todo if p in suspects and p != killer]
        active.todo = [p for p in todo if p not in suspects and p != killer]
        active.left = len(active.alone) + len(active.todo)
        if killer in todo:
            self._record_killer(active, killer)

    def _list_suspects(self, view: BatchView, starts: Sequence[Start]) -> tuple[set[int], int]:
        """(tasks that ran at the last two deaths, the one that killed three or -1)."""
        died = [self._list_at_death(view, start) for start in starts]
        deaths = [positions for positions in died if positions is not None]
        if len(deaths) < 2:
            return set(), -1
        suspects = deaths[-1] & deaths[-2]
        if len(deaths) >= 3 and len(deaths[-1]) == 1 and suspects & deaths[-3]:
            return set(), next(iter(deaths[-1]))
        return suspects, -1

    def _list_at_death(self, view: BatchView, start: Start) -> set[int] | None:
        """What ran when a runner died, or the worker of its engine; None where neither did."""
        is_here = start.opened.get("machine") == self.here.machine
        if start.ended:
            if not start.ended.get("orphan"):
                return None
            indices = {r.task for r in start.records if r.reason == REASON_INTERRUPTED}
        elif is_here:
            is_same_boot = start.opened.get("boot") == self.here.boot and not self._is_copied(start)
            return self._read_death(view, start) if is_same_boot else None
        elif start.opened.get("take_over"):
            content = self.store.read(running_key(view.batch, start.key))
            indices = {task.task for task in parse_running(content, MOST_TASKS).tasks}
        else:
            return None
        return {position for position, index in enumerate(view.indices) if index in indices}

    def _read_death(self, view: BatchView, start: Start) -> set[int]:
        """What ran when a runner of this machine died, or had ended before that could record it."""
        token, recorded = start.key.token, {record.task for record in start.records}
        ended = read_last_slots(token, view.batch, ended=True)
        lost = {position for position in ended if view.indices[position] not in recorded}
        return lost | read_last_slots(token, view.batch)

    def _record_killer(self, active: ActiveBatch, position: int) -> None:
        state, reason = TaskState.FAILED.value, REASON_KILLED_ITS_RUNNER
        record = self.build_record(active, position, state, reason)
        active.states[position] = NUMBER_OF[record.state]
        active.file.append(record.to_line().encode() + b"\n")

    def build_record(self, active: ActiveBatch, position: int, state: str, reason: str) -> Record:
        """For a task that comes to its end without being run."""
        index = active.view.indices[position]
        now = round(time.time(), 3)
        return Record(
            task=index,
            digest=active.view.digest(position),
            attempt=active.attempts.get(index, 0) + 1,
            state=state,
            start_s=now,
            end_s=now,
            reason=reason,
        )


def _move_outputs(store: Store, view: BatchView, record: Record) -> None:
    """From below `attempts/` to the task's own folder; what is there goes the other way."""
    position = view.indices.index(record.task)
    store, base = find_output(store, view.output(position))
    source = f"{base}/{record.outputs}"
    aside = f"{base}/{attempt_folder(record.attempt, 'earlier')}"
    for name in OUTPUTS:
        store.move(f"{base}/{name}", f"{aside}/{name}")
        store.move(f"{source}/{name}", f"{base}/{name}")
    with contextlib.suppress(OSError):
        os.rmdir(store.path(source))
