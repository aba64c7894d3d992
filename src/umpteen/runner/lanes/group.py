"""A runner's lanes together: forked, given tickets and orders, listened to, and seen to end.

Knows neither which task a ticket is for nor what came of it: tickets go in as bytes, and what
lanes tell comes out as lines. Standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time

from umpteen.model.command import RUNNER_VARIABLE
from umpteen.runner.batch_start import read_batch
from umpteen.runner.lanes.lane import LaneSetup, run_lane
from umpteen.runner.lanes.protocol import GO_ON, KILL, LEAVE, ONE_MORE, ORDER, PAUSE
from umpteen.runner.lease import Lease
from umpteen.runner.workload import Work
from umpteen.store.directory import DirectoryStore
from umpteen.system.children import ChildWatcher, reap_strangers
from umpteen.system.processes import (
    is_marked_otherwise,
    list_below,
    list_children,
    list_marked,
    read_process,
)
from umpteen.system.resources import Capacity, OutOfMemoryWatch, is_memory_short, usable_cores

__all__ = ["Lanes"]


class Lanes:
    """The lanes of one runner.

    controls: by pid of those that live, the end of the pipe that orders go into. done: the
    descriptor to read from when `read_messages` has something. is_fed: whether no more tickets are
    given. stopping: whether what runs was to be ended. has_left: whether what runs is to come to
    its own end, and nothing after it. crashed: whether one of them was killed. held_for: why
    nothing is to be started just now. kills: what the kernel killed for want of memory.
    """

    watcher: ChildWatcher  # there once they are watched

    def __init__(
        self, work: Work, token: str, lease: Lease, folder: DirectoryStore, capacity: Capacity
    ) -> None:
        self.work, self.token, self.lease = work, token, lease
        self.folder, self.capacity = folder, capacity
        self.controls: dict[int, int] = {}
        self.tickets = self.done = -1
        self.rest = b""
        self.is_fed = self.stopping = self.has_left = self.crashed = False
        self.strays: set[int] = set()
        self.held_for: set[str] = set()
        self.kills = OutOfMemoryWatch()

    # --- from their beginning to their end ----------------------------------------------

    def fork(self) -> None:
        """Begin them: one for each core at most. Before there are threads, and much memory."""
        slots = self.work.slots
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
                for fd in (self.tickets, self.done, order, *self.controls.values()):
                    os.close(fd)
                setup = LaneSetup(
                    slots=range(number, slots, count),
                    store=self.folder,
                    place=self.work.store.place,
                    spool=self.lease.spool,
                    token=self.token,
                    lease=self.lease,
                    tickets=tickets,
                    done=done,
                    control=control,
                    gpus=self.capacity.gpus,
                    read_batch=lambda place: read_batch(self.folder, self.work.batches[place]),
                )
                _be_lane(setup)
            os.close(control)
            self.controls[pid] = order
        os.close(tickets)
        os.close(done)

    def watch(self) -> None:
        """Have `watcher` tell of what they tell and of their ends."""
        self.watcher = ChildWatcher()
        self.watcher.add_file(self.done)
        for pid in self.controls:
            self.watcher.add_child(pid)

    def lane_ended(self, pid: int) -> None:
        """One has ended; the others are ended too where it was killed."""
        os.close(self.controls.pop(pid))
        status, _ = self.watcher.reap(pid)
        if status:
            self.crashed = True
            self.stop(KILL)

    def end_strays(self) -> None:
        """End what tasks left running in sessions of their own, until nothing is found."""
        for _ in range(20):
            below = list_below([os.getpid()], RUNNER_VARIABLE, self.token)
            strays = {*list_marked(RUNNER_VARIABLE, self.token), *(entry.pid for entry in below)}
            strays.discard(os.getpid())
            if not strays:
                return
            for pid in strays:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
            reap_strangers(set())

    def note_strays(self) -> None:
        """Have the lease say which orphans came to us: nothing else leads to some of them."""
        strays = list_children() - self.controls.keys()
        if strays == self.strays:
            return
        self.strays = strays
        found = [read_process(pid) for pid in sorted(strays)]
        self.lease.write_strays(
            (entry.pid, entry.start_ticks)
            for entry in found
            if entry and not is_marked_otherwise(entry.pid, RUNNER_VARIABLE, self.token)
        )

    # --- what they are given, and what they tell ----------------------------------------

    def give(self, tickets: bytes) -> bool:
        """Put whole tickets, no more than a pipe takes at once, into the pipe; False: not now."""
        try:
            os.write(self.tickets, tickets)
        except BlockingIOError:
            return False
        except BrokenPipeError:  # no lane is left
            self.close_tickets()
            return False
        return True

    def close_tickets(self) -> None:
        """Give no more tickets: each lane ends when it has brought its own to an end."""
        if not self.is_fed:
            os.close(self.tickets)
        self.is_fed = True

    def read_messages(self) -> tuple[list[bytes], bool]:
        """(the lines that they told since, False once every lane has closed its end)."""
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
        return lines, is_open

    # --- orders -------------------------------------------------------------------------

    def order(self, order: bytes, key: tuple[int, int] = (0, 0)) -> None:
        """Tell every lane; `key` is the task that the order is about."""
        for control in self.controls.values():
            with contextlib.suppress(BrokenPipeError):
                os.write(control, ORDER.pack(order, *key))

    def stop(self, order: bytes) -> None:
        """Start nothing more, and have what runs ended: kindly, or at once."""
        self.close_tickets()
        self.stopping = True
        self.order(order)
        for pid in self.controls:  # one that a signal has stopped could not obey
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def leave(self) -> None:
        """Start nothing more, and let what runs come to its end."""
        if not self.has_left:
            self.has_left = True
            self.close_tickets()
            self.order(LEAVE)

    def hold(self, why: str, *, is_on: bool) -> None:
        """Have nothing more started while there is a reason for that."""
        before = bool(self.held_for)
        self.held_for.add(why) if is_on else self.held_for.discard(why)
        if bool(self.held_for) != before:
            self.order(PAUSE if is_on else GO_ON)

    def guard_memory(self) -> None:
        """While memory is short a task starts only where none runs."""
        self.kills.look()
        is_short = is_memory_short(self.capacity)
        self.hold("memory", is_on=is_short)
        if self.held_for == {"memory"} and not self.lease.list_slots():
            control = next(iter(self.controls.values()), -1)
            with contextlib.suppress(BrokenPipeError, OSError):
                os.write(control, ORDER.pack(ONE_MORE, 0, 0))


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


def _raise_file_limit(slots: int) -> None:
    """Make room for a descriptor a slot; commands inherit it, so only where it is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = slots + 200
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
