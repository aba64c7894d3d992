"""What a store is known by, however its address is spelled. Standard library alone.

A store has a random word in its `job.json`; a folder has a device and an inode, too, as long as
this machine is up. Through a link, a bind mount or after `mv` it is the same store, and a copy,
which has the same word, is another.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from umpteen.store.address import is_remote
from umpteen.store.base import Store
from umpteen.store.layout import JOB, OWN_FOLDER
from umpteen.system.host import Machine

__all__ = [
    "LOST_HINT",
    "Identity",
    "build_id",
    "describe_place",
    "find_place",
    "identify",
    "is_another",
    "parse_id",
    "read_id",
    "tell_loss",
]

LOST_HINT = "what was recorded is in it: umpteen collect goes on with the folder where it is now"

_ID = re.compile("[0-9a-f]{16}")


class Identity(NamedTuple):
    """One store as this machine knows it."""

    address: str  # as it is spelled now
    id: str = ""  # the word in its `job.json`; empty for a job of an older version
    # Device and inode of its own folder; empty where it is no folder of this machine, or where such
    # numbers do not last.
    place: str = ""

    def fits(self, told: Mapping[str, Any]) -> bool:
        """Whether what a lease says of its store is of this one;
        older ones know its address alone.
        """
        if told.get("address") == self.address:
            return True
        if self.id and told.get("id") and told["id"] != self.id:
            return False
        if self.place and told.get("place"):
            return bool(told["place"] == self.place)
        return bool(self.id) and told.get("id") == self.id

    @property
    def digest(self) -> str:
        """16 hex digits for names of what there is one of for each store, on this machine."""
        known_by = self.place or self.id or self.address
        return hashlib.blake2b(known_by.encode(), digest_size=8).hexdigest()


def build_id() -> str:
    """The word of a new store."""
    return os.urandom(8).hex()


def identify(store: Store) -> Identity:
    """What a store is known by now. Raises StoreError where it cannot be read."""
    return Identity(store.address, read_id(store.read(JOB)), find_place(store.address))


def read_id(content: bytes | None) -> str:
    """The word that a `job.json` has; empty where it has none."""
    try:
        return parse_id(json.loads(content or b"{}")["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def parse_id(found: object) -> str:
    """The word itself; empty for what has not its form."""
    return found if isinstance(found, str) and _ID.fullmatch(found) else ""


def find_place(address: str) -> str:
    """Device and inode of a store's own folder; empty where there is none that has lasting ones."""
    if is_remote(address):
        return ""
    try:
        found = os.stat(f"{address}/{OWN_FOLDER}")
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}" if _has_lasting_inodes(found.st_dev) else ""


def tell_loss(address: str, place: str) -> str:
    """Why an address no longer leads to the folder that was at `place`; empty where it does.

    What cannot be looked at just now may be there again.
    """
    try:
        found = os.stat(f"{address}/{OWN_FOLDER}") if place else None
    except (FileNotFoundError, NotADirectoryError):
        return f"{address} was moved or removed"
    except OSError:
        return ""
    if found is None or f"{found.st_dev}:{found.st_ino}" == place:
        return ""
    is_job = os.path.exists(f"{address}/{JOB}")
    return f"{address} was {'replaced by another folder' if is_job else 'moved or removed'}"


def describe_place(here: Machine, place: str) -> str:
    """A place with the machine and boot for which it holds; empty where there is none."""
    return f"{here.machine}/{here.boot}/{here.host}/{place}" if place else ""


def is_another(told: str, own: str) -> bool:
    """Whether a file of a store was written when it was elsewhere on this machine: it is a copy.

    told, own: as `describe_place` has it. What another machine or boot tells cannot be compared.
    """
    return bool(told and own) and told != own and told.rpartition("/")[0] == own.rpartition("/")[0]


@functools.lru_cache(maxsize=64)
def _has_lasting_inodes(device: int) -> bool:
    """Whether a file keeps its number; file systems in user space may make up another."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.partition(" - ") for line in file]
    except OSError:
        return True
    kinds = [kind for mount, _, kind in lines if mount.split()[2] == number]
    return not any(kind.startswith("fuse") for kind in kinds)
