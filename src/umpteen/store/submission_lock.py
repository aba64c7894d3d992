"""One process at a time submits: a lock file in the store, and a lock of this machine.

Should two submit all the same, the files that count are those of one of them alone.

The kernel frees this machine's lock when its holder dies; a holder on another machine counts as
dead when it no longer renews the lock file. Standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Callable, NamedTuple

from umpteen.errors import StoreError
from umpteen.model.forms import FormError, load_json, table_of, text
from umpteen.store.address import is_remote
from umpteen.store.base import Content, Store
from umpteen.store.identity import Identity, identify
from umpteen.store.layout import LOCK
from umpteen.store.owners import refuse_strangers
from umpteen.system.host import read_machine
from umpteen.system.locks import leases_folder, local_lock
from umpteen.system.streams import write_stderr

__all__ = [
    "LockHolder",
    "OwnFiles",
    "SubmissionLock",
    "describe_holder",
    "name_submission",
    "submission_lock",
]

_Name = Callable[[str], str]
_RENEW_S, _TAKE_OVER_S, _POLL_S = 10.0, 60.0, 0.2
_RENEW_AGAIN_S = 1.0
_SETTLE_S = 2.0
_SAY_S = 1.0
_AGAIN = "run the same command again"


class LockHolder(NamedTuple):
    """Who has the lock of a store, as its file says."""

    token: str  # new each time
    machine: str = ""
    host: str = ""
    boot: str = ""
    holder: str = ""  # user, and the folder of leases

    def shares_local_lock(self, other: LockHolder) -> bool:
        """Whether the lock of this machine tells of both whether they live.

        Containers of one image have one machine id; and other folders of leases have other locks.
        """
        return self[1:] == other[1:]


class SubmissionLock:
    """The lock of a store as its holder has it; renewed in a thread of its own."""

    def __init__(self, store: Store, own: LockHolder) -> None:
        self.store, self.own = store, own
        self.stopped = threading.Event()
        self.renewer = threading.Thread(target=self._renew, daemon=True)
        self.renewer.start()

    def check(self) -> None:
        """Raises StoreError where another has the lock by now: then nothing may be written."""
        if not self._is_own():
            raise StoreError(
                f"{self.store.path(LOCK)} was taken over by somebody else, who hands in now",
                _AGAIN,
                path=self.store.path(LOCK),
            )

    def release(self) -> None:
        """Let others hand in; where the store does not take that, they wait a while."""
        self.stopped.set()
        self.renewer.join()
        with contextlib.suppress(StoreError):
            if self._is_own():
                self.store.delete(LOCK)

    def _renew(self) -> None:
        wait_s = _RENEW_S
        while not self.stopped.wait(wait_s):
            try:
                if not self._is_own():
                    return
                self.store.replace(LOCK, _encode(self.own))
                wait_s = _RENEW_S
            except StoreError:  # it is stale when others have seen it unchanged for long
                wait_s = _RENEW_AGAIN_S

    def _is_own(self) -> bool:
        return _decode(self.store.read(LOCK)).token == self.own.token


@contextlib.contextmanager
def submission_lock(
    store: Store, on_wait: Callable[[str], None] | None = None
) -> Iterator[SubmissionLock]:
    """Be the only process that hands in to this store; waits until that is so.

    A holder on another machine that has not renewed its lock for 60 s, by our clock, is
    taken to be dead; one on this machine as soon as the kernel freed its lock. on_wait: called now
    and then with a line that says what is waited for, in place of one line on stderr; what it
    raises ends the wait. Raises StoreError where the store is somebody else's.
    """
    if not is_remote(store.address):
        refuse_strangers(store.address)
    with local_lock(name_submission(identify(store))), store.patient():
        lock = SubmissionLock(store, _take(store, on_wait))
        try:
            yield lock
        finally:
            lock.release()


def _take(store: Store, on_wait: Callable[[str], None] | None) -> LockHolder:
    own = describe_holder(os.urandom(8).hex())
    began_s = seen_s = time.monotonic()
    seen, is_said = b"", False
    while not _put_lock(store, own):
        held = store.read(LOCK) or b""
        holder, now = _decode(held), time.monotonic()
        if held != seen:
            seen, seen_s = held, now
        if own.shares_local_lock(holder) or now - seen_s > _TAKE_OVER_S:
            store.delete(LOCK)
            continue
        waits = _describe_wait(store, holder, now - began_s)
        if on_wait:
            on_wait(waits)
        elif not is_said and now - began_s > _SAY_S:
            is_said = True
            write_stderr(waits)
        time.sleep(_POLL_S)
    return own


def _describe_wait(store: Store, holder: LockHolder, waited_s: float) -> str:
    whose = f" of a submission from {holder.host}" if holder.host else ""
    return f"waiting for the lock {store.path(LOCK)}{whose}, {waited_s:.0f} s"


def describe_holder(token: str) -> LockHolder:
    """This process as the holder of a lock."""
    here, leases = read_machine(), os.stat(leases_folder())
    holder = f"{os.getuid()} {leases.st_dev}:{leases.st_ino}"
    return LockHolder(token, here.machine, here.host, here.boot, holder)


def _put_lock(store: Store, own: LockHolder) -> bool:
    """Where two may succeed at once, the one whose lock is there a while later has it."""
    content = _encode(own)
    if not store.create(LOCK, content):
        return False
    if store.has_exclusive_create:
        return True
    time.sleep(_SETTLE_S)
    return store.read(LOCK) == content


def _encode(own: LockHolder) -> bytes:
    return json.dumps({**own._asdict(), "time": time.time()}).encode()


def _decode(held: bytes | None) -> LockHolder:
    """What a lock says; nothing where there is none, or none of ours."""
    try:
        found = table_of(load_json(held or b"{}"))
        return LockHolder(*(text(found.get(name, "")) for name in LockHolder._fields))
    except FormError:
        return LockHolder("")


class OwnFiles:
    """What a hand-in puts before it is handed in: files that are of nobody else.

    Where one is there already, of a hand-in that was killed, or of another that goes on all the
    same, ours gets a name with our mark. segment: that mark where there is such a file.
    """

    def __init__(self, store: Store, mark: str) -> None:
        self.store, self.mark, self.segment = store, mark, ""
        self._marked: list[tuple[_Name, Callable[[], Content]]] = []

    def put(self, name: _Name, build: Callable[[], Content]) -> None:
        """Put a file. name: gives its key, for the mark or for none. build: gives its content."""
        if self.store.create(name(""), build()):
            return
        self.segment = self.mark
        self._marked.append((name, build))
        self.store.replace(name(self.mark), build())

    def take_back(self) -> None:
        """Remove those that have our mark, as nobody will look for them."""
        for name, _ in self._marked:
            self.store.delete(name(self.mark))

    def put_as_before(self) -> None:
        """Put them by their plain names, too, for older versions: since we handed in,
        these are ours.
        """
        for name, build in self._marked:
            self.store.replace(name(""), build())


# --- locks ----------------------------------------------------------------------------------


def name_submission(store: Identity) -> str:
    """Of the local lock of whoever hands in to a store."""
    return f"hand-in-{store.digest}"
