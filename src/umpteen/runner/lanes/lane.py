"""A lane: one of the runner's processes, which starts tasks in its slots and waits for their ends.

Takes tickets (which task of which batch) from a pipe that all lanes share, leaves each task's
files in its folder, and says what happened through another pipe. Several lanes rather than one,
because a process is idle while the kernel starts a program for it. It decides nothing about the
job: which task is next, and what is recorded, is the runner's. Standard library alone.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import time
from collections.abc import Sequence
from typing import Callable, NamedTuple

from umpteen.model.batch import BatchView
from umpteen.model.command import RUNNER_VARIABLE
from umpteen.model.reasons import Reason, write_reason
from umpteen.model.record import Record
from umpteen.model.states import TaskState
from umpteen.runner.lanes.attempt import (
    TIMED_OUT,
    TOO_MUCH_OUTPUT,
    Attempt,
    Ending,
    Exit,
    LoadedBatch,
    Phase,
)
from umpteen.runner.lanes.command import CommandStarter
from umpteen.runner.lanes.outputs import OutputFolders, explain_unkept
from umpteen.runner.lanes.protocol import (
    ORDERS_BYTES,
    TICKET_BYTES,
    Order,
    OrderKind,
    TaskKey,
    Ticket,
    decode_orders,
    encode_declined,
    encode_ended,
    encode_kept,
    encode_refused,
)
from umpteen.runner.lease import Lease
from umpteen.store.base import Store
from umpteen.system.children import ChildWatcher
from umpteen.system.processes import ProcessEntry, end_group, is_running, list_below

__all__ = ["LaneSetup", "run_lane"]

_ENDINGS = {
    OrderKind.END_KINDLY: Ending(TaskState.WAITING, Reason.INTERRUPTED.value),
    OrderKind.KILL: Ending(TaskState.WAITING, Reason.INTERRUPTED.value),
    OrderKind.DEADLINE: Ending(TaskState.TIMED_OUT, Reason.DEADLINE.value),
    OrderKind.CANCEL_ALL: Ending(TaskState.CANCELLED),
    OrderKind.CANCEL_ONE: Ending(TaskState.CANCELLED),
}
# What is wrong with the store as a whole, and may pass; anything else is the task's own.
_STORE_TROUBLE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.ESTALE}
)
_RETRY_S = 1.0  # until what the store refused is tried again
_ORPHAN_GRACE_S = 2.0  # for tasks whose runner is gone
_SIZES_S = 0.25  # how often the outputs of tasks with a limit are looked at
_MOST_BATCHES = 4  # that are remembered
_NO_START = 255  # the exit code of a process that did not become the program
_NEVER_S = float("inf")


class LaneSetup(NamedTuple):
    """What a lane is given."""

    slots: Sequence[int]  # their numbers
    store: Store  # a folder of this machine, where it is not the job's own
    place: str  # of the job's own store, as `find_place` has it
    token: str  # the runner's
    lease: Lease
    tickets: int  # the end of the pipe that tickets come from
    done: int  # the end of the pipe that messages go into
    control: int  # the end of the pipe that orders come from
    gpus: tuple[str, ...]
    read_batch: Callable[[int], BatchView]  # by its place in the runner's list


def run_lane(setup: LaneSetup) -> None:
    """Work until there are no more tickets and nothing runs, or until ordered to stop."""
    # Not ignored: an ignored signal would be ignored by every command as well.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    gc.disable()  # nothing here makes cycles, and each collection would look at whole batches
    _Lane(setup).run()


class _Lane:
    """The loop of one lane: tickets and orders in, attempts begun and ended, messages out."""

    def __init__(self, setup: LaneSetup) -> None:
        self.setup = setup
        self.watcher = ChildWatcher()
        self.starter = CommandStarter()
        self.folders = OutputFolders(setup.store, setup.place, setup.token, setup.lease.spool)
        self.free = list(reversed(setup.slots))
        self.running: dict[int, Attempt] = {}  # by pid
        self.timed: set[Attempt] = set()  # those that are to be ended at some time
        self.limited: set[Attempt] = set()  # those whose outputs may only be so large
        self.look_at_s = _NEVER_S  # at the outputs of these
        self.refused: list[Attempt] = []  # by the store, at their beginning or at their end
        self.retry_at_s = _NEVER_S
        self.revoked: set[TaskKey] = set()  # tasks that are never to start here
        self.batches: dict[int, LoadedBatch] = {}
        self.strays: Sequence[ProcessEntry] = ()  # below tasks when the runner died
        self.is_closed = False  # no more tickets are taken
        self.is_paused = self.may_start_one = False
        self.is_stopping = False  # all that runs was ended
        self.is_orphan = False  # the runner is gone
        self.is_listening = False  # the watcher reports that there are tickets
        self.watcher.add_file(setup.control)
        os.set_blocking(setup.tickets, False)

    # --- the loop ---------------------------------------------------------------------

    def run(self) -> None:
        while True:
            self._take_tickets()
            if self.is_closed and not self.running and not self.refused:
                self._kill_strays()
                return
            ended, files = self.watcher.wait(self._until_next_s())
            for pid in ended:
                self._on_exit(self.running[pid])
            if self.setup.control in files:
                self._read_orders()
            self._keep_times()

    def _until_next_s(self) -> float | None:
        if not self.timed and not self.refused and not self.limited:
            return None
        times = [min(attempt.timeout_at_s, attempt.kill_at_s) for attempt in self.timed]
        soonest = min([*times, self.retry_at_s, self.look_at_s])
        return None if soonest == _NEVER_S else max(0.0, soonest - time.monotonic())

    def _take_tickets(self) -> None:
        while self.free and not self.is_closed and (self.may_start_one or not self.is_paused):
            try:
                content = os.read(self.setup.tickets, TICKET_BYTES)
            except BlockingIOError:
                if not self.is_listening:
                    self.watcher.add_file(self.setup.tickets)
                    self.is_listening = True
                return
            if not content:
                self.is_closed = True
                break
            self.may_start_one = False
            ticket = Ticket.decode(content)
            batch = self._find_batch(ticket.ordinal)
            self._begin(Attempt(ticket, self.free.pop(), batch, self.folders))
        if self.is_listening:
            self.watcher.remove_file(self.setup.tickets)
            self.is_listening = False

    def _find_batch(self, ordinal: int) -> LoadedBatch:
        batch = self.batches.get(ordinal)
        if batch is None:
            batch = LoadedBatch.load(self.setup.read_batch(ordinal))
            self.batches[ordinal] = batch
            while len(self.batches) > _MOST_BATCHES:
                del self.batches[next(iter(self.batches))]
        return batch

    def _keep_times(self) -> None:
        if not self.timed and not self.refused and not self.limited:
            return
        now = time.monotonic()
        if now >= self.look_at_s:
            self._check_sizes(now)
        if now >= self.retry_at_s:
            self._retry()
        for attempt in list(self.timed):
            if now >= attempt.kill_at_s:
                attempt.kill()
            elif now >= attempt.timeout_at_s:
                self._end(attempt, TIMED_OUT)

    def _check_sizes(self, now: float) -> None:
        for attempt in self.limited:
            if attempt.ending is None and attempt.outputs.is_over_limit():
                self._end(attempt, TOO_MUCH_OUTPUT)
        self.look_at_s = now + _SIZES_S if self.limited else _NEVER_S

    # --- orders -----------------------------------------------------------------------

    def _read_orders(self) -> None:
        content = os.read(self.setup.control, ORDERS_BYTES)
        if not content:
            self._on_runner_gone()
            return
        declined = [order.key for order in decode_orders(content) if not self._apply_order(order)]
        for line in encode_declined(declined):
            self._send(line)

    def _apply_order(self, order: Order) -> bool:
        """Do as ordered; False where a task is not run here that was to be cancelled."""
        kind = order.kind
        if kind in (OrderKind.PAUSE, OrderKind.GO_ON):
            self.is_paused, self.may_start_one = kind is OrderKind.PAUSE, False
        elif kind is OrderKind.ONE_MORE:
            self.may_start_one = True
        elif kind is OrderKind.LEAVE:
            self.is_closed = True
        elif kind is OrderKind.CANCEL_ONE:
            return self._cancel(order.key)
        else:
            self._end_all(_ENDINGS[kind], 0.0 if kind is OrderKind.KILL else None)
        return True

    def _on_runner_gone(self) -> None:
        self.is_orphan = True
        self.strays = list_below(self.running, RUNNER_VARIABLE, self.setup.token)
        self.watcher.remove_file(self.setup.control)
        self._end_all(_ENDINGS[OrderKind.END_KINDLY], _ORPHAN_GRACE_S)

    def _cancel(self, key: TaskKey) -> bool:
        """End one task if it runs here; if not it shall never start here, which is False."""
        self.revoked.add(key)
        for attempt in self.running.values():
            if attempt.ticket.key == key:
                self._end(attempt, _ENDINGS[OrderKind.CANCEL_ONE])
                return True
        return any(each.ticket.key == key and each.phase is Phase.ENDED for each in self.refused)

    def _end_all(self, ending: Ending, grace_s: float | None) -> None:
        self.is_closed = self.is_stopping = True
        for attempt in self.running.values():
            self._end(attempt, ending, grace_s)
        self._retry()

    def _end(self, attempt: Attempt, ending: Ending, grace_s: float | None = None) -> None:
        attempt.ask_to_end(ending, grace_s)
        self.timed.add(attempt)

    # --- attempts -----------------------------------------------------------------------

    def _begin(self, attempt: Attempt) -> None:
        if self.is_stopping:
            self.free.append(attempt.slot)  # refused by the store, and never started
            return
        if self.revoked and attempt.ticket.key in self.revoked:
            self._report(attempt, attempt.cancel())
            return
        try:
            attempt.start(self.starter, self.folders, self.setup.lease, self.setup.gpus)
        except OSError as error:
            if error.errno in _STORE_TROUBLE:
                self._put_off(attempt, error)
            else:
                reason = write_reason(Reason.NOT_PREPARED, path=error.filename, why=error.strerror)
                self._report(attempt, attempt.fail(reason))
            return
        if attempt.phase is Phase.RUNNING:
            self._watch(attempt)
        else:
            self._complete(attempt)

    def _watch(self, attempt: Attempt) -> None:
        self.running[attempt.pid] = attempt
        self.watcher.add_child(attempt.pid)
        if attempt.timeout_at_s != _NEVER_S:
            self.timed.add(attempt)
        if attempt.outputs.limit_bytes is not None:
            self.limited.add(attempt)
            self.look_at_s = min(self.look_at_s, attempt.started_s + _SIZES_S)

    def _on_exit(self, attempt: Attempt) -> None:
        seconds = time.monotonic() - attempt.started_s
        # What it left behind in its group, before the pid is free.
        end_group(attempt.pid, signal.SIGKILL)
        status, usage = self.watcher.reap(attempt.pid)
        del self.running[attempt.pid]
        self.timed.discard(attempt)
        self.limited.discard(attempt)
        exit_code = os.waitstatus_to_exitcode(status)
        attempt.note_exit(Exit(exit_code, usage, seconds))
        if exit_code == _NO_START:
            attempt.problem = self.starter.read_late_failure()
        if attempt.ending:
            attempt.end_strays(self.setup.token)
        if not self.is_orphan:  # else the next start is to see what ran when its runner died
            self.setup.lease.end_slot(attempt.slot, *attempt.ticket.key)
        self._complete(attempt)

    def _complete(self, attempt: Attempt) -> None:
        """Have its files complete, then report it; again later if the store refuses."""
        try:
            record = attempt.complete(self.folders)
        except OSError as error:
            if error.errno not in _STORE_TROUBLE:
                # The command removed its own folder, say: its outcome is its own affair.
                reason = write_reason(Reason.FILES_NOT_KEPT, why=explain_unkept(error))
                record = attempt.fail(reason)
            elif self.is_stopping:
                self._send(encode_kept(attempt.keep(error)))
                self.free.append(attempt.slot)
                return
            else:
                self._put_off(attempt, error)
                return
        self._report(attempt, record)

    def _report(self, attempt: Attempt, record: Record) -> None:
        assert attempt.exit is not None
        self._send(encode_ended(attempt.ticket.key, attempt.exit.status, record))
        self.free.append(attempt.slot)

    def _send(self, line: bytes) -> None:
        try:
            os.write(self.setup.done, line)  # below PIPE_BUF, so never mixed with another lane's
        except BrokenPipeError:
            self.is_stopping = True  # the runner is gone, and with it whoever could record this

    # --- a store that refuses -----------------------------------------------------------

    def _put_off(self, attempt: Attempt, error: OSError) -> None:
        """Try again later what the store has refused."""
        place = error.filename or self.setup.store.address
        self._send(encode_refused(f"{error.strerror}: {place}"))
        self.refused.append(attempt)
        self.retry_at_s = time.monotonic() + _RETRY_S

    def _retry(self) -> None:
        refused, self.refused = self.refused, []
        self.retry_at_s = _NEVER_S
        for attempt in refused:
            if attempt.phase is Phase.GIVEN:
                self._begin(attempt)
            else:
                self._complete(attempt)

    # --- the end --------------------------------------------------------------------------

    def _kill_strays(self) -> None:
        """End what was below tasks when the runner died: nothing may lead to it any more."""
        for entry in self.strays:
            if is_running(entry.pid, entry.start_ticks):
                with contextlib.suppress(OSError):
                    os.kill(entry.pid, signal.SIGKILL)
