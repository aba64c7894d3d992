"""One process at a time hands in: a lock file in the store, and a lock of this machine.

And what it puts is its own, whoever else should hand in all the same.

The kernel frees the lock of this machine when its holder dies; of one elsewhere it is seen that it
does not renew the file. Standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

from umpteen.errors import StoreError
from umpteen.model.forms import FormError, load_json
from umpteen.store.address import is_remote
from umpteen.store.base import Content, Store
from umpteen.store.identity import Identity, identify
from umpteen.store.layout import LOCK
from umpteen.store.owners import refuse_strangers
from umpteen.system.host import read_machine
from umpteen.system.locks import leases_folder, local_lock

__all__ = [
    "OwnFiles",
    "SubmissionLock",
    "describe_owner",
    "name_submission",
    "submission_lock",
]

_Name = Callable[[str], str]
_RENEW_S, _TAKE_OVER_S, _POLL_S = 10.0, 60.0, 0.2
_RENEW_AGAIN_S = 1.0
_SETTLE_S = 2.0
_AGAIN = "run the same command again"


class SubmissionLock:
    """The lock of a store as its holder has it; renewed in a thread of its own."""

    def __init__(self, store: Store, own: dict[str, Any]) -> None:
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
        return bool(_decode(self.store.read(LOCK)).get("token") == self.own["token"])


@contextlib.contextmanager
def submission_lock(store: Store) -> Iterator[SubmissionLock]:
    """Be the only process that hands in to this store; waits until that is so.

    A holder on another machine that has not renewed its lock for 60 s, by our clock, is
    taken to be dead; one on this machine as soon as the kernel freed its lock. Raises StoreError
    where the store is somebody else's.
    """
    if not is_remote(store.address):
        refuse_strangers(store.address)
    with local_lock(name_submission(identify(store))), store.patient():
        lock = SubmissionLock(store, _take(store))
        try:
            yield lock
        finally:
            lock.release()


def _take(store: Store) -> dict[str, Any]:
    owner = describe_owner()
    own = {"token": os.urandom(8).hex(), **owner}
    seen, seen_s = b"", time.monotonic()
    while not _put_lock(store, own):
        held = store.read(LOCK) or b""
        if held != seen:
            seen, seen_s = held, time.monotonic()
        if owner.items() <= _decode(held).items() or time.monotonic() - seen_s > _TAKE_OVER_S:
            store.delete(LOCK)
        else:
            time.sleep(_POLL_S)
    return own


def describe_owner() -> dict[str, str]:
    """Whom the local lock is for: where all of this is equal, it tells whether a holder lives.

    Containers of one image have one machine id; and other folders of leases have other locks.
    """
    here, leases = read_machine(), os.stat(leases_folder())
    holder = f"{os.getuid()} {leases.st_dev}:{leases.st_ino}"
    return {"machine": here.machine, "host": here.host, "boot": here.boot, "holder": holder}


def _put_lock(store: Store, own: dict[str, Any]) -> bool:
    """Where two may succeed at once, the one whose lock is there a while later has it."""
    content = _encode(own)
    if not store.create(LOCK, content):
        return False
    if store.has_exclusive_create:
        return True
    time.sleep(_SETTLE_S)
    return store.read(LOCK) == content


def _encode(own: dict[str, Any]) -> bytes:
    return json.dumps({**own, "time": time.time()}).encode()


def _decode(held: bytes | None) -> dict[str, Any]:
    """What a lock says; nothing where there is none, or none of ours."""
    try:
        found = load_json(held or b"{}")
    except FormError:
        return {}
    return found if isinstance(found, dict) else {}


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
