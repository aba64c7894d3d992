"""Archives of synced folders: where they go, and sending those that are not there yet."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from umpteen.errors import SettingsError
from umpteen.formats.saturn_recipe import WORKING_DIRECTORY, Recipe, check_fetchable
from umpteen.formats.syncs import Sync
from umpteen.store.address import is_remote
from umpteen.store.base import Store
from umpteen.submission.archive import Packed, measure, pack
from umpteen.verbs.split.chunks import RECIPE

__all__ = ["Archive", "Archives", "Progress", "Sent", "check_archives", "place_archive"]

_ARCHIVE = "data.tar.gz"
_ENDS_BYTES = 8

# Is called now and then with a folder, and its files and bytes so far.
Progress = Callable[[str, int, int], None]


class Archive(NamedTuple):
    """A folder that is sent."""

    source: str  # here
    dest: str  # where it shall be on the machine
    key: str  # of the archive, in the store of all of them
    url: str  # the same, as a machine fetches it
    instead: Mapping[str, str | None] = MappingProxyType({})  # as `measure` has it


class Sent(NamedTuple):
    """A folder whose archive is where machines fetch it."""

    source: str
    dest: str
    url: str
    packed: Packed
    is_new: bool  # else it was there already


def place_archive(sync: Sync, recipe: Recipe, base: str) -> Archive:
    """Where a folder goes, by the rules of `sc`: without a place of its own to the same path as
    here.
    """
    dest = os.path.normpath(sync.dest or sync.src)
    if not dest.startswith(("/", "~/")):
        above = recipe.get_text("working_directory") or WORKING_DIRECTORY
        dest = os.path.normpath(os.path.join(above, dest))
    key = f"{dest.removeprefix('~').strip('/')}/{_ARCHIVE}".lstrip("/")
    return Archive(sync.src, dest, key, f"{base}/{key}")


def check_archives(archives: Sequence[Archive], base: str) -> None:
    """Raises SettingsError where they cannot be fetched, or replace one another."""
    check_fetchable(base)
    for first, second in itertools.combinations(archives, 2):
        if first.key == second.key:
            raise SettingsError(
                f"{first.source} and {second.source} would both be at {first.dest}",
                "give one of them another place: --sync SRC:DEST",
            )


class Archives:
    """Measures and sends the archives of one split."""

    def __init__(self, folder: str, base: str, on_progress: Progress) -> None:
        self.folder = folder  # of the chunks
        self.base = base  # the address of the store that archives go to
        self.on_progress = on_progress

    def measure(self, archive: Archive) -> Packed:
        """What is in it. Raises InputError for what cannot be packed."""
        return measure(
            archive.source,
            exclude=self._list_excluded(archive),
            instead=archive.instead,
            keeps_links=True,  # `tar` unpacks them there
            on_progress=functools.partial(self.on_progress, archive.source),
        )

    def send(self, store: Store, archive: Archive, packed: Packed) -> Sent:
        """Put an archive where it is fetched, unless it is there."""
        key, note_key = archive.key, f"{archive.key}.digest"
        ends, note = store.read_many([(key, -_ENDS_BYTES, -1), (note_key, 0, -1)])
        is_new = not ends or note != _write_note(packed, ends)
        if is_new:
            store.delete(note_key)  # so that one of us who is killed leaves no wrong one
            written = bytearray()
            store.replace(key, _keep_end(self._pack(archive, packed), written))
            store.replace(note_key, _write_note(packed, bytes(written)))
        return Sent(archive.source, archive.dest, archive.url, packed, is_new)

    def _pack(self, archive: Archive, packed: Packed) -> Iterator[bytes]:
        return pack(
            archive.source,
            packed.digest,
            exclude=self._list_excluded(archive),
            instead=archive.instead,
            keeps_links=True,
            on_progress=functools.partial(self.on_progress, archive.source),
        )

    def _list_excluded(self, archive: Archive) -> list[str]:
        """What is no part of a synced folder, although it may lie in it."""
        is_own = os.path.realpath(archive.source) == os.path.realpath(self.folder)
        own = [os.path.join(self.folder, RECIPE) if is_own else self.folder]
        return own if is_remote(self.base) else [*own, self.base]


def _write_note(packed: Packed, ends: bytes) -> bytes:
    """What is kept beside an archive: its digest, and its last bytes.

    The last bytes of a gzip file are a checksum and a length. So a short read tells whether another
    tool has put another archive there since.
    """
    return f"{packed.digest} {ends.hex()}".encode()


def _keep_end(parts: Iterable[bytes], ends: bytearray) -> Iterator[bytes]:
    for part in parts:
        ends[:] = (bytes(ends) + part[-_ENDS_BYTES:])[-_ENDS_BYTES:]
        yield part
