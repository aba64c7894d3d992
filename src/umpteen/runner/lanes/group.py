"""A runner's lanes together: forked, given tickets and orders, listened to, until each has ended.

Knows neither which task a ticket is for nor what came of it. Standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time

from umpteen.model.command import RUNNER_VARIABLE
from umpteen.runner.batch_list import find_batch
from umpteen.runner.batch_start import read_batch
from umpteen.runner.lanes.lane import LaneSetup, run_lane
from umpteen.runner.lanes.protocol import Message, Order, OrderKind, TaskKey, decode_message
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

__all__ = ["Lanes", "fork_lanes"]

_STRAYS_LOOKS, _STRAYS_S = 20, 0.05  # how often it is looked for what tasks left, and how soon


def fork_lanes(
    work: Work, token: str, lease: Lease, folder: DirectoryStore, capacity: Capacity
) -> Lanes:
    """Fork them: one for each core at most. Before there are threads, and much memory.

    folder: the store that lanes write into: a folder of this machine.
    """
    _raise_file_limit(work.slots)
    tickets, give_tickets = os.pipe()
    hear, done = os.pipe()
    controls: dict[int, int] = {}
    count = min(work.slots, usable_cores())
    for number in range(count):
        control, orders = os.pipe()
        pid = os.fork()
        if pid == 0:
            for fd in (give_tickets, hear, orders, *controls.values()):
                os.close(fd)
            setup = LaneSetup(
                slots=range(number, work.slots, count),
                store=folder,
                place=work.store.place,
                token=token,
                lease=lease,
                tickets=tickets,
                done=done,
                control=control,
                gpus=capacity.gpus,
                read_batch=lambda ordinal: read_batch(
                    folder, find_batch(lease, work.batches, ordinal)
                ),
            )
            _be_lane(setup)
        os.close(control)
        controls[pid] = orders
    os.close(tickets)
    os.close(done)
    lanes = Lanes(token, lease, capacity, give_tickets, hear, controls)
    for pid in controls:
        lanes.watcher.add_child(pid)
    return lanes


class Lanes:
    """The lanes of one runner.

    tickets, done: our ends of the pipes that all share. controls: by pid of those that live, where
    orders go into.
    """

    def __init__(
        self,
        token: str,
        lease: Lease,
        capacity: Capacity,
        tickets: int,
        done: int,
        controls: dict[int, int],
    ) -> None:
        self.controls = controls
        self.done = done  # `read_messages` has something where it can be read
        self.is_fed = False  # no more tickets are given
        self.is_stopping = False  # what runs was to be ended
        self.has_left = False  # what runs is to come to its own end, and nothing after it
        self.has_crashed = False  # one of them was killed
        self.held_for: set[str] = set()  # why nothing is to be started just now
        self.kills = OutOfMemoryWatch()  # what the kernel killed for want of memory
        self._token, self._lease, self._capacity, self._tickets = token, lease, capacity, tickets
        self._strays: set[int] = set()  # orphans of tasks, as last written into the lease
        self._rest = b""  # of messages: the beginning of the next line
        os.set_blocking(tickets, False)
        os.set_blocking(done, False)
        self.watcher = ChildWatcher()
        self.watcher.add_file(done)

    # --- their end --------------------------------------------------------------------------

    def lane_ended(self, pid: int) -> None:
        """One has ended; the others are ended too where it was killed."""
        os.close(self.controls.pop(pid))
        status, _ = self.watcher.reap(pid)
        if status:
            self.has_crashed = True
            self.stop(OrderKind.KILL)

    def end_strays(self) -> None:
        """End what tasks left running in sessions of their own, until nothing is found."""
        for _ in range(_STRAYS_LOOKS):
            below = list_below([os.getpid()], RUNNER_VARIABLE, self._token)
            strays = {*list_marked(RUNNER_VARIABLE, self._token), *(entry.pid for entry in below)}
            strays.discard(os.getpid())
            if not strays:
                return
            for pid in strays:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_STRAYS_S)
            reap_strangers(set())

    def write_strays(self) -> None:
        """Have the lease say which orphans came to us: nothing else leads to some of them."""
        strays = list_children() - self.controls.keys()
        if strays == self._strays:
            return
        self._strays = strays
        found = [read_process(pid) for pid in sorted(strays)]
        self._lease.write_strays(
            (entry.pid, entry.start_ticks)
            for entry in found
            if entry and not is_marked_otherwise(entry.pid, RUNNER_VARIABLE, self._token)
        )

    # --- tickets and messages -----------------------------------------------------------------

    def give(self, tickets: bytes) -> bool:
        """Put whole tickets, no more than a pipe takes at once, into the pipe; False: not now."""
        try:
            os.write(self._tickets, tickets)
        except BlockingIOError:
            return False
        except BrokenPipeError:  # no lane is left
            self.close_tickets()
            return False
        return True

    def close_tickets(self) -> None:
        """Give no more tickets: each lane ends when it has brought its own to an end."""
        if not self.is_fed:
            os.close(self._tickets)
        self.is_fed = True

    def read_messages(self) -> tuple[list[Message], bool]:
        """(what they said since, False once every lane has closed its end)."""
        content = self._rest
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
        self._rest = lines.pop()
        return [decode_message(line) for line in lines], is_open

    # --- orders -------------------------------------------------------------------------

    def order(self, kind: OrderKind, key: TaskKey = (0, 0)) -> None:
        """Order every lane; `key` is the task that the order is about."""
        content = Order(kind, key).encode()
        for control in self.controls.values():
            with contextlib.suppress(BrokenPipeError):
                os.write(control, content)

    def stop(self, kind: OrderKind) -> None:
        """Start nothing more, and have what runs ended: kindly, or at once."""
        self.close_tickets()
        self.is_stopping = True
        self.order(kind)
        for pid in self.controls:  # one that a signal has stopped could not read its orders
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def leave(self) -> None:
        """Start nothing more, and let what runs come to its end."""
        if not self.has_left:
            self.has_left = True
            self.close_tickets()
            self.order(OrderKind.LEAVE)

    def hold(self, why: str, *, is_on: bool) -> None:
        """Have nothing more started while there is a reason for that."""
        before = bool(self.held_for)
        self.held_for.add(why) if is_on else self.held_for.discard(why)
        if bool(self.held_for) != before:
            self.order(OrderKind.PAUSE if is_on else OrderKind.GO_ON)

    def guard_memory(self) -> None:
        """While memory is short a task starts only where none runs."""
        self.kills.look()
        self.hold("memory", is_on=is_memory_short(self._capacity))
        if self.held_for == {"memory"} and not self._lease.list_slots():
            control = next(iter(self.controls.values()), -1)
            with contextlib.suppress(BrokenPipeError, OSError):
                os.write(control, Order(OrderKind.ONE_MORE).encode())

    @property
    def is_memory_short(self) -> bool:
        """Whether nothing is started because other tasks need the memory."""
        return "memory" in self.held_for


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
