"""One start of a batch: its records file is begun, and what is left of it is to be run.

Takes a batch of a store and this runner's token; gives the batch with what is to run, or says why
not. What earlier starts mean for it is worked out in `recovery`. Standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from umpteen.errors import StoreError
from umpteen.model.batch import BatchView
from umpteen.model.reasons import Reason
from umpteen.model.record import Record
from umpteen.model.states import TaskState
from umpteen.runner.active_batch import ActiveBatch, Past
from umpteen.runner.leftovers import Kept
from umpteen.runner.recovery import EARLIER_S, Recovery
from umpteen.store.address import find_output
from umpteen.store.base import Appender, Store
from umpteen.store.identity import Identity
from umpteen.store.job_files import read_batch_file, read_cancel_mark
from umpteen.store.layout import OUTPUTS, RecordsKey, attempt_folder, closed_key, records_key
from umpteen.store.records import MovedLine, StartLine, list_starts, refuse_newer
from umpteen.system.host import Machine, read_machine
from umpteen.system.locks import passing_lock

__all__ = ["Opener", "cancel_batches", "move_outputs", "read_batch"]

_CODE_BYTES = 32  # more than any exit code has


def read_batch(store: Store, batch: str) -> BatchView:
    """One batch file. Raises StoreError where there is none, or it is damaged."""
    content = read_batch_file(store, batch)
    refuse_newer(store, content["umpteen"])
    return BatchView(content)


def cancel_batches(
    identity: Identity, store: Store, batches: Sequence[str], chosen: set[int]
) -> None:
    """Record tasks as cancelled, in a start of its own of each batch; raises StoreError.

    As a runner would, but nothing is run. The caller holds the lock of submissions.
    """
    opener = Opener(identity, store, os.urandom(6).hex(), read_machine())
    opener.recovery.waits_until_s = time.monotonic() + EARLIER_S  # each has the mark since then
    for batch in batches:
        active = opener.open(batch)
        if active is None:
            continue
        active.record_cancelled(only=chosen)
        active.file.append(active.build_end())
        active.file.close()


class Opener:
    """Opens batches of one store for one runner."""

    def __init__(
        self,
        identity: Identity,
        store: Store,
        token: str,
        here: Machine,
        *,
        take_over: bool = False,
        kept: Mapping[int, Kept] | None = None,
    ) -> None:
        self.identity, self.store, self.token, self.here = identity, store, token, here
        self.recovery = Recovery(identity, store, here, take_over=take_over)
        # By task index, what dead runners of this machine could not record.
        self._kept = kept or {}
        # By batch, the records file that was begun: opening may fail later, and be tried again.
        self._begun: dict[str, tuple[RecordsKey, Appender]] = {}

    def open(self, batch: str) -> ActiveBatch | None:
        """The batch to go on with; None where it must not start, or another runner has it.

        Raises StoreError where it cannot be read, or its records file not be begun; it may be
        tried again then.
        """
        try:
            return self._open(batch)
        except OSError as error:
            path = str(error.filename or self.store.address)
            raise StoreError(f"could not write {path}: {error.strerror}", path=path) from error

    def _open(self, batch: str) -> ActiveBatch | None:
        store, recovery = self.store, self.recovery
        if store.read(closed_key(batch)) is not None:
            return None
        view = read_batch(store, batch)
        # One at a time on this machine: each sees those before it that have begun.
        with passing_lock(f"start-{self.identity.digest}-{batch}"):
            begun = self._begun.get(batch)
            keys = [key for key in list_starts(store, batch) if not begun or key < begun[0]]
            starts = recovery.read(batch, keys)
            if rival := recovery.find_rival(starts):
                pid = rival.opened.pid if rival.opened else None
                where = f"by runner {rival.key.token}, pid {pid}"
                sys.stderr.write(f"this batch is being run here already {where}\n")
                return None
            if begun is None:
                key = RecordsKey(keys[-1].start + 1 if keys else 1, self.token)
                begun = self._begun[batch] = key, store.open_records(records_key(batch, key))
                begun[1].append(self._build_start(view).to_line())
            key, file = begun
            file.flush()
        recovery.clear_running(batch, starts)
        is_fenced = any(map(recovery.may_live, starts))
        if is_fenced:
            starts = recovery.wait_for_earlier(batch, keys)
        past = recovery.find_left(view, starts)
        is_cancelled = read_cancel_mark(store).has_batch(batch)
        kept = {} if is_cancelled else self._find_kept(view, past)
        active = ActiveBatch(view, key, file, past, kept, is_fenced=is_fenced)
        if past.killer is not None:
            reason = Reason.KILLED_ITS_RUNNER.value
            active.record_unrun([past.killer], TaskState.FAILED.value, reason)
        if is_cancelled:
            active.record_cancelled()
        return active

    def _build_start(self, view: BatchView) -> StartLine:
        return StartLine(
            token=self.token,
            machine=self.here.machine,
            boot=self.here.boot,
            host=self.here.host,
            pid=os.getpid(),
            time=round(time.time(), 3),
            slots=view.slots,
            take_over=self.recovery.take_over,
            place=self.recovery.place,
        )

    # --- what dead runners kept ---------------------------------------------------------------

    def _find_kept(self, view: BatchView, past: Past) -> dict[int, Kept]:
        """By position, the successes of dead runners whose outputs are here, or in their place."""
        found: dict[int, Kept] = {}
        for position in past.todo if self._kept else ():
            index = view.indices[position]
            kept = self._kept.get(index)
            is_newer = kept is not None and kept.attempt > past.attempts.get(index, 0)
            if kept and is_newer and kept.digest == view.digest(position):
                found[position] = kept
        arrived = [p for p, kept in found.items() if not os.path.isdir(kept.folder)]
        for position in set(arrived).difference(self._list_complete(view, found, arrived)):
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

    # --- the end of a batch -------------------------------------------------------------------

    def move_fenced(self, active: ActiveBatch) -> None:
        """Bring this start's outputs to their place, once every earlier start has ended."""
        batch, recovery = active.view.batch, self.recovery
        starts = recovery.read(
            batch, [key for key in list_starts(self.store, batch) if key < active.key]
        )
        if any(map(recovery.may_live, starts)):
            return
        active.file.flush()
        won = {r.task for start in starts for r in start.records if r.succeeded}
        (own,) = recovery.read(batch, [active.key])
        for record in own.records:
            if record.outputs and record.succeeded and record.task not in won:
                move_outputs(self.store, active.view, record)
                active.file.append(MovedLine(record.task).to_line())


def move_outputs(store: Store, view: BatchView, record: Record) -> None:
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
