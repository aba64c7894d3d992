"""On the machine: runs batches, and records what happened to each of their tasks.

    python3 -m umpteen.runner ADDRESS BATCHES      BATCHES such as 1-3,7

Takes batch files of a store (or one from elsewhere, see `adopt.py`), forks lanes that execute
the commands, gives them tickets, and alone writes the records. Knows nothing of executors and
of how a job was planned. Standard library alone.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from umpteen.beside import Aside, Beside, Syncer, is_unsynced
from umpteen.delivery import Delivery, Parcel
from umpteen.errors import EXIT_SOME_FAILED, EXIT_SUCCEEDED, StoreError, UmpteenError
from umpteen.lane import (
    AGAIN,
    CANCEL_ALL,
    CANCEL_ONE,
    DEADLINE,
    END_KINDLY,
    FENCED,
    GO_ON,
    KILL,
    LEAVE,
    ONE_MORE,
    ORDER,
    PAUSE,
    TICKET,
    BatchView,
    LaneSetup,
    run_lane,
)
from umpteen.lease import KEPT, Kept, Lease, end_leftovers, leases_folder, list_living, take_kept
from umpteen.live import LiveOutputs
from umpteen.machine import OutOfMemoryWatch, is_memory_short, read_capacity
from umpteen.process import (
    ChildWatcher,
    Machine,
    become_subreaper,
    build_runner_command,
    list_marked,
    list_processes,
    read_machine,
    reap_strangers,
    usable_cores,
)
from umpteen.records import build_line, list_starts, read_start
from umpteen.results.base import (
    Appender,
    LiveKey,
    Store,
    attempt_folder,
    batch_key,
    running_key,
    scratch_folder,
    spool_folder,
    synced_key,
)
from umpteen.results.directory import DirectoryStore
from umpteen.results.opening import is_remote, open_store, read_patience
from umpteen.retries import Again, plan_retry
from umpteen.starts import CancelMark, OpenBatch, Opener, read_batch, read_cancel_mark
from umpteen.task import (
    NUMBER_OF,
    REASON_OUT_OF_MEMORY,
    RUNNER_VARIABLE,
    TaskState,
)
from umpteen.tickets import Needs, Queue, Tasks, Unrun, build_needs
from umpteen.unpack import place, unpack_once
from umpteen.work import Options, Work, check_job, find_work

__all__ = ["main"]

_AGAIN_S = 1.0  # until a batch that the store refused is tried again
_BATCHING_S = 0.05  # records are written together that arrive within this time
_LIVE_S = 1.5  # how often what a followed task prints is put
_LOOK_S = 3.0  # how often later starts are looked for
_SYNC_S = 5.0
_YOUNG_S = 2.0
_RUNNING_S, _RUNNING_FAR_S, _RUNNING_AT_LEAST_S = 1.0, 5.0, 15.0
_MEMORY_S = 0.5  # how often it is looked whether memory is short
_OPEN_MOST = 8  # batches whose tasks all wait for others, before no more are opened
_TICKETS_AT_ONCE = 4096 // TICKET.size  # written as one, so that none is ever torn
_EXIT_CRASHED = 70
_DROP_S = 5.0
_REASON_MOST = 300  # characters


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the batches named on the command line; the exit code.

    0 when every outcome is recorded, whatever the outcomes are; with `--strict` 1 where a
    task did not succeed; 2 wrong use; 3 the store could not be read or written.
    """
    token = os.environ.get(RUNNER_VARIABLE, "")
    try:
        options = Options(sys.argv[1:] if arguments is None else arguments)
        if options.token != token or not token:
            _start_over_with_token(options.token or os.urandom(6).hex())
        return _run(options, token)
    except UmpteenError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code


def _start_over_with_token(token: str) -> None:
    """Begin again as the same process, with the token in the environment that /proc shows."""
    os.environ[RUNNER_VARIABLE] = token
    rest = [word for word in sys.argv[1:] if not word.startswith("--token")]
    command = [*build_runner_command(), f"--token={token}", *rest]
    os.execv(command[0], command)


def _run(options: Options, token: str) -> int:
    work = find_work(options)
    if options.lease_fd >= 0:
        lease = Lease.adopt(token, options.lease_fd)
    else:
        lease = Lease.create(token, work.address, work.slots)
    return _Runner(work, token, lease).run(options)


class _Runner:
    store: Store
    opener: Opener

    def __init__(self, work: Work, token: str, lease: Lease) -> None:
        self.address, self.batches, slots = work
        self.token, self.lease = token, lease
        self.here: Machine = read_machine()
        self.spool = os.path.join(lease.folder, "spool")
        # Lanes work in folders alone.
        self.folder = DirectoryStore(self.spool if is_remote(self.address) else self.address)
        self.delivery: Delivery | None = None
        self.aside: Aside | None = None
        self.live: LiveOutputs | None = None
        self.live_at_s = 0.0
        self.running_s = _RUNNING_FAR_S if is_remote(self.address) else _RUNNING_S
        self.open: dict[int, OpenBatch] = {}
        self.unsynced: list[Appender] = []
        self.lanes: dict[int, int] = {}  # pid to the end of its control pipe
        self.stopping = self.crashed = self.is_cancelled = self.is_orphan = False
        self.kill_at_s = self.orphan_grace_s = float("inf")
        self.is_urgent = self.has_left = self.is_looking = False
        self.marks: _Marks | None = None
        self.did_fail = self.has_graph = self.has_rules = self.does_echo = False
        self.failures = 0
        self.given_up = ""  # why nothing more is to be started
        self.capacity = read_capacity()
        self.queue = Queue(self.capacity, slots, self._name_task)
        self.unopened = list(enumerate(self.batches))[::-1]
        self.opening: Beside[_Opened] | None = None
        self.open_at_s = 0.0
        self.refused_s: float | None = None  # since when the next batch cannot be opened
        self.refused: StoreError | None = None
        self.names: dict[int, str] = {}  # of those that may have to be told of, by index
        self.unread: set[str] = set()  # batches of others, whose names we may still read
        self.passed_over: set[str] = set()  # of our batches, those that somebody else has
        self.foreign: set[str] = set()
        self.revoked: set[int] = set()
        self.kept_before: dict[int, Kept] = {}  # by task index
        self.unpacked: set[tuple[str, str | None]] = set()
        self.recalling: dict[tuple[int, int], int] = {}  # lanes that may have it, or come to it
        self.recalled: set[tuple[int, int]] = set()  # recorded, and a ticket is still about
        self.kills = OutOfMemoryWatch()
        self.paused_for: set[str] = set()
        self.trouble_s: float | None = None
        self.trouble = self.told_trouble = ""
        self.kept: list[bytes] = []
        self.deadline_s = float("inf")
        self.asked = self.rest = self.chunk = b""
        self.syncer = Syncer()
        self.tickets = self.done = -1
        self.is_fed = self.is_shown = False
        self.began_s = time.monotonic()
        self.look_at_s, self.sync_at_s = self.began_s + _LOOK_S, self.began_s + _SYNC_S
        self.memory_at_s = self.began_s
        self.patience_s = read_patience()

    # --- the steps ------------------------------------------------------------------

    def run(self, options: Options) -> int:
        self.does_echo, self.orphan_grace_s = options.echo, options.orphan_grace_s
        become_subreaper()
        self._clear_dead()
        signal.signal(signal.SIGUSR1, self._be_told_to_look)
        self.lease.open_slots(self.batches)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._be_asked)
        self._fork_lanes()
        try:
            self.store = open_store(self.address)
            with self.store.patient():
                check_job(self.store)
        except UmpteenError:
            self.lease.remove()
            raise
        self.opener = Opener(self.store, self.token, self.here, options.take_over, {})
        if is_remote(self.address):
            self.aside = Aside()
            self.live = LiveOutputs(self.store)
        self._work(options.watch_fd)
        return self._finish(strict=options.strict)

    def _clear_dead(self) -> None:
        """End what dead runners of this job left here, and remove what nobody needs of it."""
        for dead in end_leftovers(self.address):
            shutil.rmtree(self.folder.path(scratch_folder(dead)), ignore_errors=True)
            folder = os.path.join(leases_folder(), dead)
            if not os.path.exists(os.path.join(folder, KEPT)):
                shutil.rmtree(os.path.join(folder, "spool"), ignore_errors=True)
        self.kept_before = take_kept(self.address, self.token)

    def _be_asked(self, *_: object) -> None:
        self.asked = KILL if self.stopping else END_KINDLY

    def _be_told_to_look(self, *_: object) -> None:
        self.look_at_s = 0.0

    def _fork_lanes(self) -> None:
        slots = self.queue.slots
        count = min(slots, usable_cores())
        _raise_file_limit(slots)
        tickets, self.tickets = os.pipe()
        self.done, done = os.pipe()
        os.set_blocking(self.tickets, False)
        os.set_blocking(self.done, False)
        for number in range(count):
            control, order = os.pipe()
            pid = os.fork()
            if pid == 0:
                for fd in (self.tickets, self.done, order, *self.lanes.values()):
                    os.close(fd)
                setup = LaneSetup(
                    slots=range(number, slots, count),
                    store=self.folder,
                    spool=self.spool,
                    token=self.token,
                    lease=self.lease,
                    tickets=tickets,
                    done=done,
                    control=control,
                    gpus=self.capacity.gpus,
                    read_batch=lambda ordinal: read_batch(self.folder, self.batches[ordinal]),
                )
                _be_lane(setup)
            os.close(control)
            self.lanes[pid] = order
        os.close(tickets)
        os.close(done)

    def _work(self, watch_fd: int) -> None:
        """Until every lane has ended: hand out tickets, record what they tell, obey."""
        self.watcher = ChildWatcher()
        for fd in (self.done, watch_fd):
            if fd >= 0:
                self.watcher.add_file(fd)
        for pid in self.lanes:
            self.watcher.add_child(pid)
        while self.lanes or self._is_delivering():
            if not self.is_fed:
                self._push_tickets()
            ended, files = self.watcher.wait(self._patience_now_s())
            if self.done in files:
                if self.queue.under_way > self.queue.slots:  # else a slot may be idle
                    time.sleep(_BATCHING_S)
                if not self._take_done():
                    self.watcher.remove_file(self.done)
            if watch_fd in files:
                self._hear(watch_fd)
            if self.delivery:
                self._take_arrived(self.delivery)
            for pid in ended:
                self._see_lane_end(pid)
            self._obey()
            self._write_pending()
            self._keep_up(time.monotonic())
            reap_strangers(set(self.lanes))
        self._take_done()

    def _patience_now_s(self) -> float:
        """Short while there are tickets to give, and until watchers see what runs first."""
        now = time.monotonic()
        is_young = now < self.began_s + _YOUNG_S and not self.is_shown
        patience_s = 1.0 if self.is_fed and not is_young else 0.1
        return min(patience_s, self.queue.until_due_s(now), max(0.0, self.kill_at_s - now))

    def _hear(self, watch_fd: int) -> None:
        """What the watching process orders; that it is gone is an order to end kindly."""
        order = os.read(watch_fd, 1)
        self.asked = order or END_KINDLY
        if not order:
            self.is_orphan = True
            self.kill_at_s = time.monotonic() + self.orphan_grace_s
            self.watcher.remove_file(watch_fd)

    def _obey(self) -> None:
        """Stop where that was ordered, at the deadline, or when the store has refused too long."""
        now = time.monotonic()
        if self._is_lost(now):
            self._leave()
        if self.asked:
            self.is_urgent |= self.stopping  # asked a second time: no waiting for stores
            self._stop(self.asked)
            self.asked = b""
        elif now >= self.kill_at_s:
            self.kill_at_s = float("inf")
            self._stop(KILL)
        elif self.stopping:
            return
        elif now >= self.deadline_s:
            self._stop(DEADLINE)
        elif self.trouble_s is not None and now - self.trouble_s > self.patience_s:
            self._stop(END_KINDLY)
        elif self.refused_s is not None and now - self.refused_s > self.patience_s:
            self._leave()

    def _keep_up(self, now: float) -> None:
        """What is done every few seconds."""
        if now >= self.look_at_s:
            self.look_at_s = now + _LOOK_S
            self._look()
            self._look_at_foreign()
        if self.marks:
            marks, self.marks = self.marks, None
            self._obey_marks(marks)
        if self.live and self.live.wanted and now >= self.live_at_s:
            self.live_at_s = now + _LIVE_S
            self._send_live(self.live)
        if now >= self.sync_at_s:
            self.sync_at_s = now + _SYNC_S
            self._sync()
        if now >= self.memory_at_s:
            self.memory_at_s = now + _MEMORY_S
            self._guard_memory()
        self.is_shown |= self._show_running(now)

    def _finish(self, *, strict: bool) -> int:
        self._end_strays()
        if self.opening:
            self._drop_opening(self.opening)
        if self.crashed:
            self._keep_undelivered()
            with contextlib.suppress(OSError):
                self._sync(wait=True)
            self._keep_pending()
            print("error: a part of the runner was killed; run the job again", file=sys.stderr)
            return _EXIT_CRASHED
        if self.is_cancelled or self.given_up:
            with contextlib.suppress(OSError, StoreError):
                self._cancel_rest()
        self._keep_undelivered()
        for ordinal in list(self.open):
            self._end_batch(ordinal)
        is_hopeless = self.is_urgent or self._is_lost(time.monotonic())
        with (
            contextlib.suppress(OSError),
            contextlib.nullcontext() if is_hopeless else self.store.patient(),
        ):
            self._sync(wait=True)
        if self.aside:
            self.aside.finish()
        scratch = self.folder.path(scratch_folder(self.token))
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(scratch))
        if self._keep_pending():
            return StoreError.exit_code
        if not self.unopened:  # else the lease says that we are dead, and others need not wait
            self.lease.remove()
        if self.refused:
            self._complain(str(self.refused), self.refused.hint)
            return StoreError.exit_code
        if self.trouble_s:
            self._complain(f"the results store cannot be written: {self.trouble}")
            return StoreError.exit_code
        return EXIT_SOME_FAILED if strict and self.did_fail else EXIT_SUCCEEDED

    def _drop_opening(self, opening: Beside[_Opened]) -> None:
        """See to it that a batch which was just being opened ends like the others."""
        ordinal, _ = self.unopened.pop()
        with contextlib.suppress(StoreError):
            found = opening.take() if opening.is_over(_DROP_S) else None
            if found and found.batch:
                self.open[ordinal] = found.batch
                self.unsynced.append(found.batch.file)

    def _cancel_rest(self) -> None:
        """Record as cancelled what this runner will not start."""
        for opened in self.open.values():
            self.opener.record_cancelled(opened, self.given_up)
        while self.unopened:
            ordinal, batch = self.unopened.pop()
            if (left := self.opener.open(batch)) is not None:
                self.opener.record_cancelled(left, self.given_up)
                self.open[ordinal] = left
                self.unsynced.append(left.file)

    def _keep_pending(self) -> bool:
        """Leave outcomes that the store did not take on this machine, and say where; False for none."""
        self.kept += [file.pending for file in self.unsynced if file.pending]
        if not self.kept:
            return False
        path = os.path.join(self.lease.folder, KEPT)
        with contextlib.suppress(OSError), open(path, "ab") as file:
            file.write(b"".join(self.kept))
        self._complain(
            f"the results store cannot be written: {self.trouble}; "
            f"{sum(lines.count(10) for lines in self.kept)} outcomes are kept in {path}"
        )
        return True

    def _complain(self, message: str, hint: str | None = None) -> None:
        hint = hint or "make room or give access, then run it again"
        print(f"error: {message}\n\nhint: {hint}", file=sys.stderr)

    # --- tickets --------------------------------------------------------------------

    def _next_ticket(self) -> bytes | None:
        """The next ticket, None where there is none now."""
        while not self.given_up:
            self._settle_unrun()
            taken = self.queue.take(time.monotonic())
            if taken is not None:
                return self._build_ticket(*taken)
            if not self._open_next():
                return None
        return None

    def _open_next(self) -> bool:
        """Open another batch, if there is one and it is of use now; whether one was."""
        if not self.unopened or self.queue.is_ready:
            return False
        if self.queue.under_way and len(self.open) >= _OPEN_MOST:
            return False
        if time.monotonic() < self.open_at_s:
            return False
        try:
            found = self._read_next(self.unopened[-1][1]) if self.aside is None else self._await()
        except StoreError as error:
            self._bear(error)
            return False
        if found is None:
            return False
        self.refused_s = self.refused = None
        self._hold("batch", is_on=False)
        ordinal, batch = self.unopened.pop()
        if found.batch is None:
            self.passed_over.add(batch)
            if self.has_graph:
                self._learn_of({batch})
            return True
        self._take_on(ordinal, found.batch, found.cancel)
        return True

    def _await(self) -> _Opened | None:
        """The next batch, read in a thread of its own; None until that is over."""
        if self.opening is None:
            self.opening = Beside(functools.partial(self._read_next, self.unopened[-1][1]))
        if not self.opening.is_over(0.0 if self.queue.under_way else _BATCHING_S):
            return None
        opening, self.opening = self.opening, None
        return opening.take()

    def _read_next(self, batch: str) -> _Opened:
        """All that opening a batch asks of the store; raises StoreError, and can be called again."""
        if self.aside:
            self.store.fetch(batch_key(batch), self.folder.path(batch_key(batch)))
        opened = self.opener.open(batch)
        if opened is not None:
            self._unpack(opened.view)
        return _Opened(opened, read_cancel_mark(self.store))

    def _bear(self, error: StoreError) -> None:
        """Have nothing more started until the next batch can be opened, which is tried again."""
        now = time.monotonic()
        self.open_at_s = now + _AGAIN_S
        self.refused, self.refused_s = error, self.refused_s or now
        if error.damaged:
            self.refused_s = now - self.patience_s - 1  # and that will not pass
        self._hold("batch", is_on=True)

    def _take_on(self, ordinal: int, opened: OpenBatch, mark: CancelMark) -> None:
        """Have the tasks of a batch that was opened run."""
        self.open[ordinal] = opened
        self.unsynced.append(opened.file)
        view = opened.view
        if view.deadline_s:
            self.deadline_s = min(self.deadline_s, time.monotonic() + view.deadline_s - time.time())
        self.failures += sum(state in _FAILURES for state in opened.finals.values())
        self.did_fail |= any(state != _SUCCEEDED for state in opened.finals.values())
        self.has_graph |= view.has_graph
        self.has_rules |= any("retries" in extra for extra in (view.common, *view.extras.values()))
        self.queue.is_tight |= bool(view.max_failures) or view.has_priorities
        if view.has_graph:
            for index, state in opened.finals.items():
                if state != _SUCCEEDED:
                    self.names[index] = self._name_task(index)
                self.queue.learn(index, state)
            own = set(self.batches) - self.passed_over
            self._learn_of(set(view.waits) - own)
        self._adopt_kept(ordinal, opened)
        self.queue.open(ordinal, self._list_tasks(opened))
        self._cancel_tasks(mark)
        if not opened.left and ordinal in self.open:
            self._end_batch(ordinal)

    def _adopt_kept(self, ordinal: int, opened: OpenBatch) -> None:
        """Bring to the store what succeeded before and could not be put there."""
        for position in opened.todo[:] if self.kept_before else ():
            index = opened.view.indices[position]
            kept = self.kept_before.get(index)
            if kept is None or kept.attempt <= opened.attempts.get(index, 0):
                continue
            if kept.digest != opened.view.digest(position):
                continue
            with contextlib.suppress(OSError):
                os.makedirs(self.spool, exist_ok=True)
                os.rename(kept.folder, spool_folder(self.spool, index, kept.attempt))
                opened.todo.remove(position)
                key = ordinal, position
                self._note(self._deliver(_Outcome(key, _SUCCEEDED, kept.record, comes_back=False)))

    def _unpack(self, view: BatchView) -> None:
        """Have on this machine what the batch's tasks run with; raises StoreError."""
        for digest, destination in view.synced:
            if (digest, destination) in self.unpacked:
                continue
            key = synced_key(digest)

            def fetch(path: str, key: str = key) -> None:
                if not self.store.fetch(key, path):
                    raise StoreError(
                        f"{self.store.path(key)} is gone", "run the job again", damaged=True
                    )

            try:
                content = unpack_once(digest, fetch)
            except StoreError as error:
                if (
                    error.damaged
                ):  # and so of no use to anybody: whoever hands in next sends it anew
                    with contextlib.suppress(StoreError):
                        self.store.delete(key)
                raise
            if destination:
                place(content, view.place(digest, destination))
            self.unpacked.add((digest, destination))

    def _list_tasks(self, opened: OpenBatch) -> Tasks:
        view = opened.view
        if not (opened.alone or view.extras or view.common):
            return Tasks(opened.todo, {}, view.after, view.barriers)
        alone = set(opened.alone)
        needs = {
            position: found
            for position in (*opened.alone, *opened.todo)
            if (found := self._find_needs(opened, position, alone=position in alone))
        }
        return Tasks([*opened.alone, *opened.todo], needs, view.after, view.barriers)

    def _find_needs(self, opened: OpenBatch, position: int, *, alone: bool) -> Needs | None:
        """As the task says, or as its rules say after attempts of an earlier start."""
        terms = opened.view.terms_of(position)
        needs = build_needs(terms, alone=alone) or Needs()
        tries = opened.tries.get(opened.view.indices[position], ())
        if again := plan_retry(terms.get("retries", ()), tries, needs.memory):
            needs = self._adapt(needs, again)
        return needs if any(needs) else None

    def _adapt(self, needs: Needs, again: Again) -> Needs:
        """What the next attempt needs; as much memory as there is has to do."""
        memory = min(again.memory or 0, self.capacity.memory)
        return needs._replace(memory=memory, alone=needs.alone or again.alone)

    def _build_ticket(self, ordinal: int, position: int, devices: int) -> bytes:
        opened = self.open[ordinal]
        index = opened.view.indices[position]
        attempt = opened.attempts.get(index, 0) + 1
        flags = FENCED * opened.fenced
        if opened.own_attempts and index in opened.own_attempts:
            flags |= AGAIN
        return TICKET.pack(ordinal, position, attempt, flags, devices)

    def _name_task(self, index: int) -> str:
        if index in self.names:
            return self.names[index]
        for opened in self.open.values():
            position = opened.find_position(index)
            if position is not None:
                return opened.view.names[position]
        while self.unread:
            with contextlib.suppress(StoreError):
                view = read_batch(self.store, self.unread.pop())
                self.names.update(zip(view.indices, view.names))
        return self.names.get(index, f"task {index}")

    def _is_exhausted(self) -> bool:
        """Whether no ticket will follow, not even when what is under way has ended."""
        if self.unopened or not self.queue.is_empty:
            return self._is_stuck()
        return not self.queue.under_way or not self.has_rules

    def _is_stuck(self) -> bool:
        """Whether what is left waits for tasks that nobody will bring to an end."""
        queue = self.queue
        if self.unopened or queue.is_ready or queue.due or queue.unrun or queue.under_way:
            return False
        # Others may wait for what is on its way.
        return not self.foreign and not (self.delivery and self.delivery.count_left())

    def _push_tickets(self) -> None:
        """Fill the pipe as far as it goes; close it when all tickets are in it."""
        while not self.is_fed:
            ready = itertools.islice(iter(self._next_ticket, None), _TICKETS_AT_ONCE)
            self.chunk = self.chunk or b"".join(ready)
            if self.is_fed:  # given up, or stopped by a store that refuses, meanwhile
                return
            if not self.chunk:
                if self._is_exhausted():
                    self._close_tickets()
                return
            try:
                os.write(self.tickets, self.chunk)
            except BlockingIOError:
                return
            except BrokenPipeError:  # no lane is left
                self._close_tickets()
                return
            self.chunk = b""

    def _close_tickets(self) -> None:
        if not self.is_fed:
            os.close(self.tickets)
        self.is_fed = True

    # --- what lanes tell --------------------------------------------------------------

    def _take_done(self) -> bool:
        """Record all that the lanes told since; False once every lane has closed its end."""
        content = self.rest
        is_open = True
        while True:
            try:
                more = os.read(self.done, 1 << 20)
            except BlockingIOError:
                break
            if not more:
                is_open = False
                break
            content += more
        lines = content.split(b"\n")
        self.rest = lines.pop()
        self._record(lines)
        return is_open

    def _record(self, lines: list[bytes]) -> None:
        outcomes = []
        for line in lines:
            head, _, rest = line.partition(b" ")
            if head == b"!":
                self.trouble = rest.decode(errors="replace")
                self.trouble_s = self.trouble_s or time.monotonic()
                continue
            if head == b"-":
                self._take_back(rest)
                continue
            if head == b"kept":
                self.kept.append(rest.split(b" ", 2)[2] + b"\n")
                continue
            self.trouble_s = None
            position, state, record = rest.split(b" ", 2)
            key = int(head), int(position)
            if key in self.recalled:
                self.recalled.discard(key)
                continue
            if self.does_echo:
                self._echo(key, record)
            self.queue.end(key)
            if int(state) in _FAILURES:
                record, comes_back = self._review(key, record)
            else:
                comes_back = False
            outcome = _Outcome(key, int(state), record, comes_back)
            if is_remote(self.open[key[0]].view.output(key[1])):
                outcomes += self._deliver(outcome)
            else:
                outcomes.append(outcome)
        self._note(outcomes)

    def _note(self, outcomes: Sequence[_Outcome]) -> None:
        """Record what is complete, and what follows from it."""
        written: dict[int, list[bytes]] = {}
        for key, state, record, comes_back in outcomes:
            if key[0] not in self.open:  # cancelled while a former attempt was on its way
                continue
            opened = self.open[key[0]]
            opened.seconds += _read_seconds(record)
            if not comes_back:
                self._settle(opened, key[1], state)
            written.setdefault(key[0], []).append(record)
        for ordinal, records in written.items():
            self._append(self.open[ordinal].file, b"\n".join(records) + b"\n")
            if not self.open[ordinal].left:
                self._end_batch(ordinal)
        self._settle_unrun()

    def _echo(self, key: tuple[int, int], line: bytes) -> None:
        """Copy what an attempt printed to our own stdout and stderr, byte for byte."""
        record, view = json.loads(line), self.open[key[0]].view
        if is_remote(view.output(key[1])):
            folder = spool_folder(self.spool, record["task"], record["attempt"])
        else:
            folder = os.path.join(view.folder(key[1]), record.get("outputs", ""))
        for fd, name in ((1, "stdout"), (2, "stderr")):
            if record.get(f"{name}_bytes"):
                _copy(os.path.join(folder, name), fd)

    # --- outputs that go elsewhere ------------------------------------------------------

    def _deliver(self, outcome: _Outcome) -> list[_Outcome]:
        """Have the outputs brought to their store; the outcome itself where there are none."""
        (ordinal, position), _, line, comes_back = outcome
        opened = self.open[ordinal]
        record = json.loads(line)
        index, attempt = record["task"], record["attempt"]
        folder = spool_folder(self.spool, index, attempt)
        if not os.path.isdir(folder):  # it never came to that
            return [outcome]
        if comes_back:
            record["outputs"] = attempt_folder(attempt, self.token)
            outcome = outcome._replace(record=build_line(record)[:-1])
        below = record.get("outputs", "")
        output = opened.view.output(position)
        parcel = Parcel(index, folder, output, below, opened.view.status_file, outcome)
        if not below:
            parcel.aside = opened.labels.pop(index, None)
            parcel.is_unsure = index in opened.unsure
        parcel.size = _measure(record, folder)
        self.delivery = self.delivery or self._begin_delivery()
        self.delivery.send(parcel)
        return []

    def _begin_delivery(self) -> Delivery:
        delivery = Delivery(self.store)
        self.watcher.add_file(delivery.bell)
        return delivery

    def _take_arrived(self, delivery: Delivery) -> None:
        outcomes = []
        for parcel in delivery.take():
            outcome: _Outcome = parcel.outcome
            if parcel.problem:
                failed = {"state": TaskState.FAILED.value, "reason": self._set_apart(parcel)}
                line = build_line({**json.loads(outcome.record), **failed})[:-1]
                outcome = outcome._replace(record=line, state=NUMBER_OF[failed["state"]])
            outcomes.append(outcome)
            if self.live and parcel.index in self.live.wanted and not outcome.comes_back:
                self._do_beside(functools.partial(self.live.forget, parcel.index))
        self._note(outcomes)
        self._hold("delivery", is_on=delivery.is_behind(self.lease.folder))

    def _set_apart(self, parcel: Parcel) -> str:
        """Have what cannot be kept stay on this machine; the reason, which says where."""
        problem, where = parcel.problem.replace(parcel.folder + "/", ""), parcel.folder
        with contextlib.suppress(OSError):
            where = self.lease.set_apart(parcel.folder)
        said = f"; its outputs are in {where}"
        room = max(0, _REASON_MOST - len(said))
        problem = problem if len(problem) <= room else problem[: room - 1] + "…"
        return (problem + said)[:_REASON_MOST].encode(errors="replace").decode()

    def _is_delivering(self) -> bool:
        if self.delivery is None or self.is_urgent or not self.delivery.count_left():
            return False
        return not (self.has_left and self._is_lost(time.monotonic()))

    def _is_lost(self, now: float) -> bool:
        """Whether outputs have not arrived for too long."""
        since = self.delivery.trouble_s if self.delivery else None
        return since is not None and now - since > self.patience_s

    def _keep_undelivered(self) -> None:
        """Have what did not arrive kept on this machine."""
        if self.delivery:
            self._take_arrived(self.delivery)
            left = self.delivery.stop()
            self.trouble = self.delivery.trouble or self.trouble
            self.kept += [parcel.outcome.record + b"\n" for parcel in left]

    def _settle(self, opened: OpenBatch, position: int, state: int) -> None:
        """Note what a task came to, and what follows from that for others."""
        opened.states[position] = state
        if state == _WAITING:  # this runner ended it, and another start goes on
            return
        opened.left -= 1
        if self.has_graph:
            index = opened.view.indices[position]
            if state != _SUCCEEDED:
                self.names[index] = opened.view.names[position]
            self.queue.learn(index, state)
        if state == _SUCCEEDED:
            return
        self.did_fail = True
        self.failures += state in _FAILURES
        limit = opened.view.max_failures
        if limit and self.failures >= limit and not self.given_up:
            self.given_up = f"not started after {self.failures} failed"
            self._close_tickets()
            if opened.view.fail_fast:
                self._order(CANCEL_ALL)

    def _review(self, key: tuple[int, int], line: bytes) -> tuple[bytes, bool]:
        """A failure's record, with what only the runner knows of it; whether it is tried again."""
        ordinal, position = key
        opened = self.open[ordinal]
        rules = opened.view.terms_of(position).get("retries", ())
        may_be_killed = b'"signal":9,' in line or b'"exit_code":137,' in line
        if not rules and not may_be_killed:
            return line, False
        record = json.loads(line)
        may_be_killed &= record["state"] == TaskState.FAILED.value and not record.get("reason")
        if may_be_killed and self.kills.explain():
            record["reason"] = REASON_OUT_OF_MEMORY
        index = record["task"]
        needs = build_needs(opened.view.terms_of(position)) or Needs()
        tries = opened.tries.setdefault(index, [])
        again = plan_retry(rules, [*tries, record], needs.memory)
        if again and index not in self.revoked and not self.given_up:
            record["retry"] = True
            tries.append(record)
            opened.attempts[index] = record["attempt"]
            opened.own_attempts.add(index)
            if not self.is_fed:
                needs = self._adapt(needs, again)
                at_s = time.monotonic() + again.wait_s
                self.queue.come_back(key, at_s, needs if any(needs) else None)
        return build_line(record)[:-1], "retry" in record

    def _settle_unrun(self) -> None:
        """Record the tasks that will never start, and those that follow from them."""
        while self.queue.unrun:
            unrun, self.queue.unrun = self.queue.unrun, []
            for ordinal, position, state, reason in unrun:
                opened = self.open[ordinal]
                record = self.opener.build_record(opened, position, state, reason)
                self._append(opened.file, record.to_line().encode() + b"\n")
                self._settle(opened, position, NUMBER_OF[state])
        for ordinal in [ordinal for ordinal, opened in self.open.items() if not opened.left]:
            self._end_batch(ordinal)

    def _append(self, file: Appender, lines: bytes) -> None:
        try:
            file.append(lines)
        except OSError as error:
            self._suffer(error)

    def _give_up(self, trouble: str) -> None:
        """End kindly because of what will not pass."""
        self.trouble, self.trouble_s = trouble, time.monotonic() - self.patience_s
        self._stop(END_KINDLY)

    def _suffer(self, error: OSError) -> None:
        self._hold("store", is_on=True)
        self.trouble_s = self.trouble_s or time.monotonic()
        self.trouble = f"{error.strerror}: {error.filename or self.store.address}"

    def _write_pending(self) -> None:
        stuck = [file for file in self.unsynced if file.pending and file.fd >= 0]
        if not stuck:
            return
        for file in stuck:
            try:
                file.append(b"")
            except OSError as error:
                self._suffer(error)
                return
        self.trouble_s = None
        self._hold("store", is_on=False)

    def _end_batch(self, ordinal: int) -> None:
        opened = self.open.pop(ordinal)
        self.did_fail |= _CANCELLED in opened.states
        if opened.fenced:
            with contextlib.suppress(OSError, StoreError):
                self.opener.move_fenced(opened)
        opened.is_orphan = self.is_orphan
        self._append(opened.file, build_line(opened.build_end()))
        running = running_key(opened.view.batch, opened.key)
        self._do_beside(lambda: self.store.delete(running))
        if self.aside is None:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(self.store.path(running)))

    # --- lanes ------------------------------------------------------------------------

    def _stop(self, order: bytes) -> None:
        """Start nothing more, and have what runs ended: kindly, or at once."""
        self._close_tickets()
        self.stopping = True
        self._order(order)

    def _leave(self) -> None:
        """Start nothing more, and let what runs come to its end."""
        if not self.has_left:
            self.has_left = True
            self._close_tickets()
            self._order(LEAVE)

    def _order(self, order: bytes, key: tuple[int, int] = (0, 0)) -> None:
        for control in self.lanes.values():
            with contextlib.suppress(BrokenPipeError):
                os.write(control, ORDER.pack(order, *key))

    def _hold(self, why: str, *, is_on: bool) -> None:
        """Have nothing more started while there is a reason for that."""
        before = bool(self.paused_for)
        self.paused_for.add(why) if is_on else self.paused_for.discard(why)
        if bool(self.paused_for) != before:
            self._order(PAUSE if is_on else GO_ON)

    def _guard_memory(self) -> None:
        """While memory is short a task starts only where none runs."""
        self.kills.look()
        is_short = is_memory_short(self.capacity)
        self._hold("memory", is_on=is_short)
        if self.paused_for == {"memory"} and not self.lease.list_slots():
            control = next(iter(self.lanes.values()), -1)
            with contextlib.suppress(BrokenPipeError, OSError):
                os.write(control, ORDER.pack(ONE_MORE, 0, 0))

    def _see_lane_end(self, pid: int) -> None:
        os.close(self.lanes.pop(pid))
        status, _ = self.watcher.reap(pid)
        if status:
            self.crashed = True
            self._stop(KILL)

    def _end_strays(self) -> None:
        """End what tasks left running in sessions of their own, until nothing is found."""
        for _ in range(20):
            strays = set(list_marked(RUNNER_VARIABLE, self.token)) | self._list_below()
            strays.discard(os.getpid())
            if not strays:
                return
            for pid in strays:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
            reap_strangers(set())

    def _list_below(self) -> set[int]:
        """Our children and theirs, but for other runners and what is below them."""
        children: dict[int, list[int]] = {}
        for entry in list_processes():
            children.setdefault(entry.parent, []).append(entry.pid)
        found: set[int] = set()
        waiting = list(children.get(os.getpid(), ()))
        while waiting:
            pid = waiting.pop()
            if not _is_other_runner(pid, self.token):
                found.add(pid)
                waiting += children.get(pid, ())
        return found

    # --- what others see --------------------------------------------------------------

    def _look(self) -> None:
        """Look for later starts, `closed`, and the cancel mark."""
        if self.aside is None:
            self._read_marks()
        elif not self.is_looking:
            self.is_looking = True
            self.aside.do(self._read_marks)

    def _read_marks(self) -> None:
        try:
            batches = list(self.open.values())
            mark = read_cancel_mark(self.store)
            self.marks = _Marks(mark, any(map(self.opener.must_yield, batches)))
            if self.live:
                self.live.look()
        finally:
            self.is_looking = False

    def _obey_marks(self, marks: _Marks) -> None:
        for opened in self.open.values():
            if opened.file.fd >= 0 and not os.fstat(opened.file.fd).st_nlink:
                self._give_up(f"{self.store.address} was removed")
                return
            if marks.cancel.has_batch(opened.view.batch):
                self.is_cancelled = True
                self._stop(CANCEL_ALL)
                return
        if marks.must_yield:
            self._stop(END_KINDLY)
        else:
            self._cancel_tasks(marks.cancel)

    def _cancel_tasks(self, mark: CancelMark) -> None:
        """Those that the mark names one by one."""
        on_way = self.delivery.list_indices() if self.delivery else set()
        for ordinal, opened in self.open.items():
            batch = opened.view.batch
            if mark.tasks == opened.marked or not batch.isdigit():
                continue
            opened.marked = mark.tasks
            keys = set()
            for index, upto in mark.tasks.items():
                is_over = index in self.revoked or index in opened.finals
                if not is_over and int(batch) <= upto:
                    position = opened.find_position(index)
                    if position is not None:
                        self.revoked.add(index)
                        keys.add((ordinal, position))
            waiting = self.queue.drop(keys)
            self.queue.unrun += [Unrun(*key, TaskState.CANCELLED.value, "") for key in waiting]
            for key in keys - waiting:
                if not opened.is_done(key[1]) and opened.view.indices[key[1]] not in on_way:
                    self.recalling[key] = len(self.lanes)
                    self._order(CANCEL_ONE, key)
        self._settle_unrun()

    def _take_back(self, told: bytes) -> None:
        """What a lane will never start; recorded once that is so of every lane."""
        on_way = self.delivery.list_indices() if self.delivery else set()
        for pair in told.split(b","):
            ordinal, position = map(int, pair.split(b":"))
            key = ordinal, position
            self.recalling[key] -= 1
            opened = self.open.get(ordinal)
            if self.recalling[key] or opened is None or opened.is_done(position):
                continue
            if opened.view.indices[position] in on_way:
                continue
            self.recalled.add(key)
            self.queue.end(key)
            self.queue.unrun.append(Unrun(*key, TaskState.CANCELLED.value, ""))

    # --- batches that others run --------------------------------------------------------

    def _learn_of(self, batches: set[str]) -> None:
        """What came of tasks that ours wait for, in batches that are not ours."""
        self.unread |= batches - self.foreign
        self.foreign |= batches
        for batch in batches:
            try:
                starts = [
                    read_start(self.store, batch, key, self.here)
                    for key in list_starts(self.store, batch)
                ]
            except StoreError:  # looked for again
                continue
            for record in (record for start in starts for record in start.records):
                if record.is_final:
                    self.queue.learn(record.task, NUMBER_OF[record.state])
            is_expected = not starts and self._is_others_turn()
            if not is_expected and not any(self.opener.may_live(start) for start in starts):
                self.foreign.discard(batch)  # nothing more will come from there

    def _is_others_turn(self) -> bool:
        """Whether a runner may be there that has not come to all of its batches."""
        is_early = time.monotonic() < self.began_s + self.patience_s
        return is_early or bool(list_living(self.store.address) - {self.token})

    def _look_at_foreign(self) -> None:
        if self.foreign:
            self._learn_of(set(self.foreign))

    def _show_running(self, now: float) -> bool:
        """Replace the running files that changed; whether there was anything to show."""
        if (trouble := self._describe_trouble()) != self.told_trouble:
            self.told_trouble = trouble
            self.lease.tell_trouble(trouble)
        due = [o for o in self.open.values() if now - o.shown_at_s >= self.running_s]
        slots = self.lease.list_slots() if due else []
        if not slots and not any(opened.shown for opened in due):
            return False
        for ordinal, opened in self.open.items():
            if opened not in due:
                continue
            running = [
                [opened.view.indices[slot.position], slot.slot, round(slot.start_s, 3), slot.pid]
                for slot in slots
                if slot.ordinal == ordinal
            ]
            shown = build_line({"running": running, "trouble": self.told_trouble})
            if shown == opened.shown and now - opened.shown_at_s < _RUNNING_AT_LEAST_S:
                continue
            opened.shown, opened.shown_at_s = shown, now
            key = running_key(opened.view.batch, opened.key)
            self._do_beside(functools.partial(self.store.replace, key, shown))
        return True

    def _send_live(self, live: LiveOutputs) -> None:
        running = []
        for slot in self.lease.list_slots():
            opened = self.open.get(slot.ordinal)
            if opened is not None:
                index = opened.view.indices[slot.position]
                attempt = opened.attempts.get(index, 0) + 1
                batch = opened.view.batch
                number = int(batch) if batch.isdigit() else 0
                key = LiveKey(number, opened.key.start, attempt, self.token)
                running.append((index, key, spool_folder(self.spool, index, attempt)))
        self._do_beside(lambda: live.send(running))

    def _do_beside(self, call: Callable[[], None]) -> None:
        """What is no loss where the store refuses it, and is not waited for where it is far."""
        if self.aside:
            self.aside.do(call)
        else:
            with contextlib.suppress(StoreError):
                call()

    def _describe_trouble(self) -> str:
        if self.trouble_s is not None:
            return f"the results cannot be written: {self.trouble}"
        if self.delivery and self.delivery.trouble_s is not None:
            return f"the results cannot be written: {self.delivery.trouble}"
        if self.refused:
            return str(self.refused)
        is_short = "memory" in self.paused_for
        return "memory is short: nothing is started while other tasks run" if is_short else ""

    def _sync(self, *, wait: bool = False) -> None:
        """Have the disk take what is recorded, and record how far it has."""
        for file, size in self.syncer.take(wait=wait):
            if file.fd >= 0 and not file.pending and size > file.synced:
                self._append(file, build_line({"event": "synced", "upto": size}))
                file.synced = file.size
        self.unsynced = [file for file in self.unsynced if self._is_needed(file)]
        marks = [(file, file.size) for file in self.unsynced if is_unsynced(file)]
        if not marks:
            return
        self.syncer.begin(marks)
        if wait:
            for file, size in self.syncer.take(wait=True):
                if file.fd >= 0:
                    self._append(file, build_line({"event": "synced", "upto": size}))

    def _is_needed(self, file: Appender) -> bool:
        is_open = any(opened.file is file for opened in self.open.values())
        if is_open or file.pending or is_unsynced(file):
            return True
        file.close()
        return False


class _Outcome(NamedTuple):
    """What a lane told of a task: its key, the number of its state, its record."""

    key: tuple[int, int]
    state: int
    record: bytes
    comes_back: bool


class _Opened(NamedTuple):
    """What came of opening a batch: None where somebody else has it; and the cancel mark."""

    batch: OpenBatch | None
    cancel: CancelMark


class _Marks(NamedTuple):
    """What others left for a runner to see."""

    cancel: CancelMark
    must_yield: bool


_WAITING = NUMBER_OF[TaskState.WAITING.value]
_SUCCEEDED = NUMBER_OF[TaskState.SUCCEEDED.value]
_CANCELLED = NUMBER_OF[TaskState.CANCELLED.value]
_FAILURES = frozenset({NUMBER_OF[TaskState.FAILED.value], NUMBER_OF[TaskState.TIMED_OUT.value]})


def _be_lane(setup: LaneSetup) -> None:
    """What a forked process does, and never returns from."""
    code = 1
    try:
        run_lane(setup)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _copy(path: str, fd: int) -> None:
    """To somebody who may not be there to read: the file is kept whatever becomes of it."""
    with (
        contextlib.suppress(OSError),
        open(path, "rb") as file,
        open(fd, "wb", closefd=False) as copy,
    ):
        shutil.copyfileobj(file, copy)


def _measure(record: dict[str, Any], folder: str) -> int:
    """Bytes of what an attempt left in a folder: only its results have to be looked at."""
    size: int = record.get("stdout_bytes", 0) + record.get("stderr_bytes", 0)
    for parent, _, names in os.walk(os.path.join(folder, "results")):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size


def _read_seconds(record: bytes) -> float:
    """The duration in a record's line, without parsing all of it."""
    _, found, rest = record.partition(b'"seconds":')
    if not found:
        return 0.0
    return float(rest[: min(end for end in (rest.find(b","), rest.find(b"}")) if end >= 0)])


def _is_other_runner(pid: int, token: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return False
    marks = [entry for entry in entries if entry.startswith(RUNNER_VARIABLE.encode() + b"=")]
    return bool(marks) and marks[0] != f"{RUNNER_VARIABLE}={token}".encode()


def _raise_file_limit(slots: int) -> None:
    """Make room for a descriptor a slot; commands inherit it, so only where it is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = slots + 200
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))


if __name__ == "__main__":
    sys.exit(main())
