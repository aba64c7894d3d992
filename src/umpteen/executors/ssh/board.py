"""Who has which batch: what the threads of one head, one for each host, know together.

A batch is with no host, or given to one (which may not have opened it), or open there, or done.
Each host's thread asks what its host is to have, says what its runner answered, and how many tasks
of each batch are left. Nothing here waits or asks anybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from umpteen.executors.ssh.hosts import Host
from umpteen.executors.ssh.placement import (
    NOTHING,
    Amounts,
    HostLoad,
    Placed,
    choose_move,
    place_batches,
)

__all__ = ["Board", "HostStatus", "Order"]

_GATHER_S = 3.0  # for all hosts to be reached, before batches are given to those that are


@dataclass
class Order:
    """One batch that this head has run."""

    name: str
    tasks: int
    after: Sequence[str] = ()
    needs: frozenset[str] = frozenset()
    amounts: Amounts = NOTHING


@dataclass
class _Batch:
    order: Order
    left: int  # tasks
    host: str = ""  # that has it
    is_open: bool = False  # its runner has opened it
    taker: str = ""  # the host that its runner is asked to leave it to
    begun_on: set[str] = field(default_factory=set)  # hosts that have had it open
    is_done: bool = False


@dataclass
class HostStatus:
    """How one host is, for the head and for people."""

    host: Host
    slots: int = 0
    has: Amounts = NOTHING
    state: str = "new"  # "up", "down": not reached, "out": it gets nothing more
    reason: str = ""  # why it is down or out
    heard_s: float = field(default_factory=time.monotonic)  # when it last answered, or we began
    is_idle: bool = True  # no runner of ours lives there, as last seen


class Board:
    """What is with whom. May be used by several threads."""

    def __init__(self, orders: Iterable[Order], hosts: Sequence[Host], patience_s: float) -> None:
        self._lock = threading.RLock()
        self._began_s, self._patience_s = time.monotonic(), patience_s
        self._batches = {order.name: _Batch(order, order.tasks) for order in orders}
        self.hosts = {host.name: HostStatus(host) for host in hosts}
        self._done_elsewhere: set[str] = set()

    # --- what is left -----------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether every batch is done."""
        with self._lock:
            return all(batch.is_done for batch in self._batches.values())

    def list_open(self) -> list[str]:
        """The batches that are not done."""
        with self._lock:
            return [name for name, batch in self._batches.items() if not batch.is_done]

    def list_of(self, host: str) -> list[str]:
        """The batches that a host has, or began with, and that are not done."""
        with self._lock:
            return [
                name
                for name, batch in self._batches.items()
                if (host == batch.host or host in batch.begun_on) and not batch.is_done
            ]

    def list_awaited(self) -> set[str]:
        """The batches of others that some of ours are after, and that are not known to be done."""
        with self._lock:
            names = {name for batch in self._batches.values() for name in batch.order.after}
            return names.difference(self._batches, self._done_elsewhere)

    def note_done_elsewhere(self, name: str) -> None:
        """A batch of others is done."""
        with self._lock:
            self._done_elsewhere.add(name)

    def note_left(self, name: str, left: int) -> None:
        """So many tasks of a batch have not come to an end."""
        with self._lock:
            batch = self._batches.get(name)
            if batch is None or batch.is_done:
                return
            batch.left = left
            if left <= 0:
                self._end(batch)

    def end(self, names: Iterable[str]) -> None:
        """Nothing is to be done for these any more."""
        with self._lock:
            for name in names:
                if name in self._batches:
                    self._end(self._batches[name])

    def _end(self, batch: _Batch) -> None:
        batch.is_done, batch.host, batch.is_open, batch.taker = True, "", False, ""

    def give_up(self, names: Iterable[str]) -> None:
        """Have those of these that no host has be given to none: the job was cancelled."""
        with self._lock:
            for batch in map(self._batches.get, names):
                if batch is not None and not batch.host and not batch.is_done:
                    self._end(batch)

    def forget_unreached(self) -> None:
        """End what is with hosts that are not reached: nobody waits for them any more."""
        with self._lock:
            for batch in self._batches.values():
                if batch.host and self.hosts[batch.host].state != "up" and not batch.is_done:
                    self._end(batch)

    # --- hosts ------------------------------------------------------------------------------------

    def host_is_up(self, name: str, slots: int, has: Amounts) -> None:
        """A host is reached, and can run so many tasks at once."""
        with self._lock:
            status = self.hosts[name]
            status.state, status.slots, status.has, status.reason = "up", slots, has, ""
            status.heard_s = time.monotonic()

    def host_is_down(self, name: str, reason: str) -> None:
        """A host is not reached. What it has it keeps for a while: its runner goes on."""
        with self._lock:
            status = self.hosts[name]
            if status.state != "out":
                status.state, status.reason = "down", reason

    def host_is_out(self, name: str, reason: str) -> None:
        """A host gets nothing more: what it has goes to others."""
        with self._lock:
            status = self.hosts[name]
            status.state, status.reason = "out", reason
            for batch in self._batches.values():
                if batch.host == name:
                    self._release(batch)

    def note_heard(self, name: str, *, is_idle: bool) -> None:
        """A host has answered. is_idle: no runner of ours lives there."""
        with self._lock:
            self.hosts[name].heard_s = time.monotonic()
            self.hosts[name].is_idle = is_idle

    def note_begun(self, name: str, batches: Iterable[str]) -> None:
        """A host has records of these batches."""
        with self._lock:
            for batch in map(self._batches.get, batches):
                if batch is not None:
                    batch.begun_on.add(name)

    # --- who has what -----------------------------------------------------------------------------

    def list_wanted(self, host: str) -> list[str]:
        """The batches that a host is to have unopened, in their order."""
        with self._lock:
            return [
                name
                for name, batch in self._batches.items()
                if batch.host == host and not (batch.is_open or batch.taker or batch.is_done)
            ]

    def note_begun_there(self, host: str, begun: Iterable[str]) -> None:
        """A host's runner has opened these."""
        with self._lock:
            for batch in map(self._batches.get, begun):
                if batch is not None and batch.host == host and not batch.is_done:
                    batch.is_open, batch.taker = True, ""
                    batch.begun_on.add(host)

    def settle_leaving(self, host: str, kept: Collection[str] = ()) -> None:
        """What a host is to leave, and its runner has not, goes to another. kept: what that has."""
        with self._lock:
            for name, batch in self._batches.items():
                if batch.host == host and batch.taker and name not in kept:
                    taker = batch.taker
                    self._release(batch)
                    if self.hosts[taker].state == "up":  # where it was best when that was decided
                        batch.host = taker

    def adopt(self, host: str, begun: Iterable[str], unopened: Iterable[str]) -> None:
        """A host's runner was found, with batches that an earlier head has given it."""
        with self._lock:
            for names, is_open in ((begun, True), (unopened, False)):
                for batch in map(self._batches.get, names):
                    if batch is None or batch.is_done:
                        continue
                    if is_open:
                        batch.begun_on.add(host)
                    if batch.host in ("", host):  # else another has it by now
                        batch.host, batch.is_open, batch.taker = host, is_open, ""

    def runner_ended(self, host: str, batches: Iterable[str]) -> None:
        """A host's runner, which had these, has ended: what is left of them is to be done."""
        with self._lock:
            for batch in map(self._batches.get, batches):
                if batch is not None and batch.host == host:
                    self._release(batch)

    def _release(self, batch: _Batch) -> None:
        batch.host, batch.is_open, batch.taker = "", False, ""

    def list_given(self) -> dict[str, list[str]]:
        """The batches that each host may have, or have begun with."""
        with self._lock:
            given: dict[str, list[str]] = {}
            for name, batch in self._batches.items():
                for host in {batch.host, *batch.begun_on} - {""} if not batch.is_done else ():
                    given.setdefault(host, []).append(name)
            return given

    def recall(self, given: Mapping[str, Iterable[str]]) -> None:
        """What hosts were given by an earlier head: each keeps it until it is known better."""
        with self._lock:
            for host in self.hosts:
                for batch in map(self._batches.get, given.get(host, ())):
                    if batch is not None:
                        batch.host, batch.is_open = host, True
                        batch.begun_on.add(host)

    def is_hopeless(self) -> bool:
        """Whether all that is left needs what no host has that may still get something."""
        with self._lock:
            loads = [
                HostLoad(1, status.host.capabilities, status.has)
                for status in self.hosts.values()
                if status.state == "up"
            ]
            left = [batch for batch in self._batches.values() if not batch.is_done]
            if any(status.state in ("new", "down") for status in self.hosts.values()):
                return False
            return bool(left) and not any(
                batch.host or any(load.fits(self._place(batch)) for load in loads) for batch in left
            )

    # --- who is to have what ----------------------------------------------------------------------

    def schedule(self) -> None:
        """Give batches to hosts, and take some from those that have too many."""
        with self._lock:
            self._expire()
            if not self._is_gathered():
                return
            loads = self._list_loads()
            ready = [self._place(batch) for batch in self._batches.values() if self._may_go(batch)]
            given = place_batches(ready, loads)
            for host, placed in given.items():
                for each in placed:
                    self._batches[each.batch].host = host
            is_settled = not any(batch.taker for batch in self._batches.values())
            if is_settled and not given and (move := choose_move(self._list_loads())):
                for name in move.batches:
                    self._batches[name].taker = move.taker

    def _is_gathered(self) -> bool:
        """Whether every host has been tried, or has had its time."""
        is_late = time.monotonic() - self._began_s > _GATHER_S
        return is_late or all(status.state != "new" for status in self.hosts.values())

    def _expire(self) -> None:
        """Release what a host has that nobody has heard of for too long."""
        now = time.monotonic()
        if not any(status.state == "up" for status in self.hosts.values()):
            return  # it may be our own network
        for name, status in self.hosts.items():
            if status.state != "up" and now - status.heard_s > self._patience_s:
                for batch in self._batches.values():
                    if batch.host == name:
                        self._release(batch)
                    batch.begun_on.discard(name)

    def _may_go(self, batch: _Batch) -> bool:
        """Whether a batch is with nobody, and what it is after is done."""
        if batch.is_done or batch.host:
            return False
        return all(map(self._is_done, batch.order.after))

    def _is_done(self, name: str) -> bool:
        """Whether a batch is done, of ours or of others."""
        own = self._batches.get(name)
        return own.is_done if own else name in self._done_elsewhere

    def _place(self, batch: _Batch) -> Placed:
        order = batch.order
        return Placed(order.name, batch.left, order.needs, order.amounts, batch.begun_on)

    def _list_loads(self) -> Mapping[str, HostLoad]:
        """Of the hosts that may be given something."""
        loads = {}
        for name, status in self.hosts.items():
            if status.state != "up":
                continue
            own = [batch for batch in self._batches.values() if batch.host == name]
            loads[name] = HostLoad(
                status.slots,
                status.host.capabilities,
                status.has,
                [self._place(b) for b in own if not (b.is_open or b.taker)],
                sum(b.left for b in self._batches.values() if _is_busy_with(b, name)),
            )
        return loads


def _is_busy_with(batch: _Batch, host: str) -> bool:
    """Whether a host has a batch open, or will have it."""
    return (batch.host == host and batch.is_open) or batch.taker == host
