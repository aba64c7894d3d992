"""The head of one submission: a process of this machine that has hosts run its batches.

It gives batches to hosts, brings home what comes of them, and ends when all is home. Should it
die, hosts go on with what they have; the next head of the job finds their runners by their leases.
What it is told comes as JSON on its stdin, as some of it is nobody else's business.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

from umpteen.errors import EXIT_UNREACHABLE, StoreError, UmpteenError
from umpteen.executors.ssh.board import Board, Order
from umpteen.executors.ssh.home import Home
from umpteen.executors.ssh.hosts import parse_options
from umpteen.executors.ssh.placement import Amounts
from umpteen.executors.ssh.progress import BatchProgress, SharedFolder
from umpteen.executors.ssh.worker import HostWorker, Shared, Work
from umpteen.model.complaint import build_complaint
from umpteen.model.variables import RUNNER
from umpteen.runner.lease import Lease
from umpteen.store.address import is_remote, open_store
from umpteen.store.base import Store
from umpteen.store.directory import DirectoryStore
from umpteen.store.identity import Identity, describe_place, is_another, tell_loss
from umpteen.store.job_files import read_cancel_mark
from umpteen.store.layout import FOLLOW, closed_key, given_key, hosts_key
from umpteen.system.host import read_machine
from umpteen.system.locks import local_lock
from umpteen.system.openssh import ask_nothing
from umpteen.system.whole_files import replace_file

__all__ = ["HOSTS_FILE", "HeadRequest", "main", "read_word"]

HOSTS_FILE = "hosts.json"  # in its lease: how each host is
_TICK_S = 0.2
_DIGITS = 10  # that the index of a task may have
_LOOK_S, _SYNC_S, _SHOW_S = 1.0, 5.0, 1.0
_CLOSED_FAR_S = 30.0  # between two looks for closed batches in a store that is no folder
_CANCELLED_PATIENCE_S = 15.0  # for hosts that are not reached, where the job was cancelled
_CONNECTING_MOST = 10
_END_S = 10.0  # for the threads of hosts to clear up


class _OrderEntry(TypedDict):
    name: str
    tasks: int
    after: list[str]
    needs: list[str]
    amounts: list[int]  # Amounts


class HeadRequest(TypedDict):
    """What a head is told."""

    store: list[str]  # an Identity
    addresses: list[str]  # of the job's folder, as hosts may see it
    orders: list[_OrderEntry]
    slots: int
    options: dict[str, Any]  # of the executor
    environment: dict[str, str]
    results_options: dict[str, Any]


def main() -> int:
    """The exit code: 0 where all is done or was left to others, 3 where no host is of use."""
    told: HeadRequest = json.load(sys.stdin)
    lease = Lease.adopt(os.environ[RUNNER], int(sys.argv[1]))
    woken = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: woken.set())
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # hosts go on, and so do we
    lease.write_processes((), ())
    ask_nothing()
    try:
        code = Head(told, lease, woken).run()
    except UmpteenError as error:
        sys.stderr.write(build_complaint(str(error), error.hint or "") + "\n")
        code = error.exit_code
    if code == 0:
        lease.remove()
    sys.stderr.flush()
    os._exit(code)  # a thread may be waiting for a host that does not answer


class Head:
    """The loop over all hosts."""

    def __init__(self, told: HeadRequest, lease: Lease, woken: threading.Event) -> None:
        self._lease, self._woken = lease, woken
        self._store = open_store(told["store"][0], told["results_options"] or None)
        self._identity = Identity(*told["store"])
        options = parse_options(told["options"])
        orders = [_read_order(entry) for entry in told["orders"]]
        self._board = Board(orders, options.hosts, options.patience_s)
        token = os.path.basename(lease.folder)
        home = Home(self._store, token) if isinstance(self._store, DirectoryStore) else None
        self._home = home
        gate = threading.Semaphore(_CONNECTING_MOST)
        self._shared = Shared(self._board, home, SharedFolder(self._store), gate)
        self._given = GivenFile(self._store, self._identity, orders)
        self._board.recall(self._given.read())
        word = "" if is_remote(self._store.address) else read_word(self._store, self._identity)
        work = Work(
            self._identity, told["addresses"], word, told["slots"], options.pull, token,
            told["environment"],
        )  # fmt: skip
        self._workers = [HostWorker(host, work, self._shared) for host in options.hosts]
        self._look_at_s = self._show_at_s = self._closed_at_s = 0.0
        self._sync_at_s = time.monotonic() + _SYNC_S
        self._cancelled_s = 0.0  # when that was seen
        self._shown = ""

    def run(self) -> int:
        """Until all is done, or nothing can be done."""
        self._look()
        for worker in self._workers:
            worker.start()
        while not self._board.is_over:
            self._woken.wait(_TICK_S)
            now = time.monotonic()
            if self._woken.is_set() or now >= self._look_at_s:
                self._woken.clear()
                self._look_at_s = now + _LOOK_S
                self._look()
            self._shared.followed = frozenset(self._list_followed())
            self._board.schedule()
            self._given.write(self._board.list_given())
            if now >= self._sync_at_s:
                self._sync()
                self._sync_at_s = time.monotonic() + _SYNC_S
            self._show(now)
            if reason := self._find_end():
                return self._give_up(reason)
        self._sync()
        self._end_workers()
        return 0

    def _look(self) -> None:
        """Look at the store for what others want. Raises StoreError where it is lost."""
        if lost := tell_loss(self._identity.address, self._identity.place):
            raise StoreError(lost, path=self._identity.address)
        with contextlib.suppress(StoreError):
            mark = self._shared.cancel = read_cancel_mark(self._store)
            cancelled = [name for name in self._board.list_open() if mark.has_batch(name)]
            if cancelled:
                self._cancelled_s = self._cancelled_s or time.monotonic()
                self._board.give_up(cancelled)
            self._end_closed()
        for name in self._board.list_awaited():
            with contextlib.suppress(StoreError):
                if BatchProgress(self._store, name).left == 0:
                    self._board.note_done_elsewhere(name)
        if self._cancelled_s and time.monotonic() - self._cancelled_s > _CANCELLED_PATIENCE_S:
            self._board.forget_unreached()

    def _end_closed(self) -> None:
        """End the batches that were closed: each is a request where the store is far."""
        now = time.monotonic()
        if now < self._closed_at_s:
            return
        self._closed_at_s = now + (_LOOK_S if self._home else _CLOSED_FAR_S)
        names = self._board.list_open()
        found = self._store.read_many([(closed_key(name), 0, 0) for name in names])
        self._board.end(n for n, mark in zip(names, found, strict=True) if mark is not None)

    def _list_followed(self) -> Iterator[int]:
        """The tasks of which somebody reads what they print."""
        with contextlib.suppress(StoreError):
            names = self._store.names(FOLLOW) if self._home else []
            yield from (int(name) for name in names if name.isdecimal() and len(name) <= _DIGITS)

    def _sync(self) -> None:
        if self._home:
            with contextlib.suppress(OSError):
                self._shared.safe = self._home.sync()

    def _find_end(self) -> str:
        """Why nothing more can be done; empty where something can."""
        statuses = self._board.hosts.values()
        if all(status.state == "out" for status in statuses):
            return "; ".join(f"{status.host.name}: {status.reason}" for status in statuses)
        if self._board.is_hopeless():
            out = [f"{each.host.name}: {each.reason}" for each in statuses if each.state == "out"]
            return "; ".join(["no other host has what is needed", *out])
        return ""

    def _give_up(self, reason: str) -> int:
        self._sync()
        self._end_workers()
        names = " ".join(status.host.name for status in self._board.hosts.values())
        hint = f"umpteen hosts {names}"
        sys.stderr.write(build_complaint(f"no host can run this: {reason}", hint) + "\n")
        return EXIT_UNREACHABLE

    def _end_workers(self) -> None:
        self._shared.is_stopping.set()
        limit_s = time.monotonic() + _END_S
        for worker in self._workers:
            worker.join(max(0.0, limit_s - time.monotonic()))
        if self._home:
            self._home.finish()

    def _show(self, now: float) -> None:
        """Say in the lease how each host is."""
        if now < self._show_at_s:
            return
        self._show_at_s = now + _SHOW_S
        shown = json.dumps(
            [
                {"host": name, "state": status.state, "reason": status.reason}
                for name, status in self._board.hosts.items()
            ]
        )
        if shown != self._shown:
            self._shown = shown
            with contextlib.suppress(OSError):
                replace_file(f"{self._lease.folder}/{HOSTS_FILE}", shown)


class GivenFile:
    """Which host was given which batches, for the next head of the job.

    Each of several heads writes what it knows of its own batches.
    """

    def __init__(self, store: Store, identity: Identity, orders: Iterable[Order]) -> None:
        self._store = store
        self._own = {order.name for order in orders}
        self._lock = f"place-hosts-{identity.digest}"
        self._written: Mapping[str, list[str]] = {}

    def read(self) -> dict[str, list[str]]:
        """By host. What cannot be read is not known."""
        with contextlib.suppress(StoreError, ValueError, AttributeError, TypeError):
            told = json.loads(self._store.read(given_key()) or b"{}")
            return {str(host): [str(name) for name in names] for host, names in told.items()}
        return {}

    def write(self, given: Mapping[str, list[str]]) -> None:
        """Say it, where it has changed."""
        if given == self._written:
            return
        with contextlib.suppress(StoreError), local_lock(self._lock):
            others = {
                host: [name for name in names if name not in self._own]
                for host, names in self.read().items()
            }
            hosts = {*others, *given}
            both = {host: others.get(host, []) + given.get(host, []) for host in hosts}
            told = {host: names for host, names in both.items() if names}
            self._store.replace(given_key(), json.dumps(told).encode())
            self._written = given


def _read_order(entry: _OrderEntry) -> Order:
    needs, amounts = frozenset(entry["needs"]), Amounts(*entry["amounts"])
    return Order(entry["name"], entry["tasks"], entry["after"], needs, amounts)


def read_word(store: Store, identity: Identity) -> str:
    """The word by which hosts know their copies of this job; a copy of the job has its own."""
    own = describe_place(read_machine(), identity.place)
    told: Mapping[str, Any] = {}
    with contextlib.suppress(ValueError):
        told = json.loads(store.read(hosts_key()) or b"{}")
    word, place = told.get("word"), told.get("place")
    if isinstance(word, str) and word.isalnum() and not is_another(str(place), own):
        return word
    word = os.urandom(4).hex()
    store.replace(hosts_key(), json.dumps({"word": word, "place": own}).encode())
    return word
