"""Brings what tasks left in the spool of this machine to stores that are no folders.

A slot must not wait for a network, so a lane leaves a task's files in a folder of the spool,
and threads here put them where they belong while other tasks run. An upload is the outputs of
one attempt; what it vouches for is recorded when it has arrived. Standard library alone.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import shutil
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

from umpteen.errors import StoreError, UmpteenError
from umpteen.runner.trouble import Trouble
from umpteen.store.address import find_output
from umpteen.store.base import Store
from umpteen.store.layout import OUTPUTS, UNFINISHED, attempt_folder
from umpteen.system.plain_files import open_below

__all__ = ["Partial", "Upload", "Uploader"]

_MOVING = re.compile(rf"attempts/[^/]+{re.escape(UNFINISHED)}")
_THREADS, _SHOWING_MOST = 4, 2
_AT_ONCE = 8  # uploads that a thread puts together
_AGAIN_S = 1.0
_REFUSED_MOST = 3
_BACKLOG = 500  # uploads on their way before nothing more is to be started
_BACKLOG_BYTES = 2 << 30  # the same, or a part of what is free on the disk of the spool:
_BACKLOG_SHARE = 4
_PRINTED = ("stdout", "stderr")
_LARGE_BYTES, _GROWTH = 8 << 20, 8  # what is larger is put again when it has grown by an eighth
_PIECE_BYTES = 1 << 20


class Upload:
    """The outputs of one attempt of one task, to be put where they belong."""

    def __init__(
        self, index: int, folder: str, output: str, below: str, status_file: str, result: Any
    ) -> None:
        self.index = index  # of the task
        self.folder = folder  # where they are on this machine
        self.output = output  # the address of the task's folder
        self.below = below  # the part of that where they belong; empty: the folder itself
        self.status_file = status_file  # the name of the one that is put last
        self.result = result  # what the sender wants back
        # Number and runner of the attempt whose outputs are there, to be moved first.
        self.aside: tuple[int, str] | None = None
        self.is_unsure = False  # an attempt that was not recorded may have left some there
        self.size = 0  # bytes of its files
        # Why they cannot be kept, whatever the store does: they stay where they are then.
        self.problem = ""
        self.is_alone = False  # not to be put together with others, one of which was refused
        self.refused = 0  # so many times by itself, since `others` had arrived
        self.others = 0
        self.partial: Partial | None = None  # what was put of the same attempt while it ran


class Partial:
    """What an attempt has printed so far, put in its place while it runs; it stays here, too."""

    def __init__(self, index: int, folder: str, output: str, below: str) -> None:
        self.index, self.output, self.below = index, output, below  # as of an upload
        self.folder = folder  # where the attempt has its files
        # As of an upload, which then has none.
        self.aside: tuple[int, str] | None = None
        self.is_unsure = False
        self.is_sent = False  # it is on its way
        self.shown: dict[str, int] = {}  # bytes of each file that are there

    def list_grown(self) -> list[tuple[str, int]]:
        """The files of which there is more to show, and their sizes; of large ones much more."""
        grown = []
        for name in _PRINTED:
            with contextlib.suppress(OSError):
                size, shown = os.path.getsize(f"{self.folder}/{name}"), self.shown.get(name, -1)
                if size > shown + (shown // _GROWTH if shown > _LARGE_BYTES else 0):
                    grown.append((name, size))
        return grown


class Uploader:
    """Threads that put uploads."""

    def __init__(self, store: Store, patience_s: float) -> None:
        self.store = store
        self.elsewhere: dict[str, Store] = {}  # by place
        self.opening = threading.Lock()
        self.waiting: collections.deque[Upload] = collections.deque()
        self.partials: collections.deque[Partial] = collections.deque()
        self.busy: dict[int, Upload] = {}
        self.showing: set[int] = set()  # tasks of which a partial is being put
        self.arrived: collections.deque[Upload] = collections.deque()
        self.changed = threading.Condition()
        self.bell, self._ring = os.pipe()  # the first can be read when some have arrived
        os.set_blocking(self.bell, False)
        os.set_blocking(self._ring, False)
        self.trouble = Trouble(patience_s)  # that keeps uploads from arriving
        self.is_stopped = False
        self.count = 0  # that have arrived
        self.bytes_left = 0  # on this machine, of those that have not
        for _ in range(_THREADS):
            threading.Thread(target=self._work, daemon=True).start()

    def send(self, upload: Upload) -> None:
        """Take an upload; those of one task arrive in the order in which they were sent."""
        with self.changed:
            self.waiting.append(upload)
            self.bytes_left += upload.size
            self.changed.notify()

    def show(self, partial: Partial) -> None:
        """Put what is new of a running attempt, unless some of it is on its way already."""
        with self.changed:
            if not partial.is_sent:
                partial.is_sent = True
                self.partials.append(partial)
                self.changed.notify()

    def withdraw(self, partial: Partial) -> None:
        """Put no more of it but what is being put, before which no upload of its task goes."""
        with self.changed, contextlib.suppress(ValueError):
            self.partials.remove(partial)

    def take(self) -> list[Upload]:
        """Those that have arrived since the last call, and those with a problem."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.bell, 4096)
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self.arrived.popleft())
        return taken

    def count_left(self) -> int:
        """How many were sent and have not been taken."""
        with self.changed:
            return len(self.waiting) + len(self.busy) + len(self.arrived)

    def is_behind(self, folder: str) -> bool:
        """Whether so much is left on the disk of that folder that nothing should be added now."""
        if self.trouble or self.count_left() > _BACKLOG:
            return True
        if not self.bytes_left:
            return False
        free = shutil.disk_usage(folder).free
        return self.bytes_left > min(_BACKLOG_BYTES, free // _BACKLOG_SHARE)

    def list_indices(self) -> set[int]:
        """The tasks whose outputs were sent and have not been taken."""
        with self.changed:
            return {p.index for p in (*self.waiting, *self.busy.values(), *self.arrived)}

    def stop(self) -> list[Upload]:
        """Put no more; those that have not arrived, whose outputs are still in the spool.

        Stores of other places are closed, but for those that a thread is not done with.
        """
        with self.changed:
            self.is_stopped = True
            self.changed.notify_all()
            left = [*self.busy.values(), *self.waiting]
        if not self.busy:
            for store in self.elsewhere.values():
                store.close()
        return left

    # --- in the threads -----------------------------------------------------------------

    def _work(self) -> None:
        while True:
            uploads, partial = self._next()
            if partial:
                self._show(partial)
                continue
            if not uploads:
                return
            try:
                self._put(uploads)
            except StoreError as error:
                self._put_back(uploads, error)
            except UmpteenError as error:  # of an address that cannot be opened here
                if len(uploads) == 1:
                    uploads[0].problem = f"could not keep its outputs: {error}"
                    self._finish(uploads)
                else:
                    self._put_back(uploads, StoreError(str(error), error.hint))
            else:
                self._finish(uploads)

    def _next(self) -> tuple[list[Upload], Partial | None]:
        """Some that no other thread has, none of a task that another has; none at the end.

        Or what is to be shown of a task that runs, which some threads alone do.
        """
        with self.changed:
            while not self.is_stopped:
                if partial := self._next_partial():
                    return [], partial
                chosen = self._choose()
                if chosen:
                    for upload in chosen:
                        self.waiting.remove(upload)
                        self.busy[upload.index] = upload
                    return chosen, None
                self.changed.wait()
            return [], None

    def _choose(self) -> list[Upload]:
        """Some to be put together, of each task the one that was sent first; may be none."""
        indices = {*self.busy, *self.showing}
        chosen: list[Upload] = []
        if self.trouble:
            first: dict[int, Upload] = {}
            for upload in self.waiting:
                if upload.index not in indices:
                    first.setdefault(upload.index, upload)
            # Else one that is always refused would keep the others from being tried.
            return [min(first.values(), key=lambda upload: upload.refused)] if first else []
        for upload in self.waiting:
            if len(chosen) == _AT_ONCE or (chosen and upload.is_alone):
                break
            if upload.index not in indices:
                chosen.append(upload)
            indices.add(upload.index)
            if chosen and chosen[0].is_alone:
                break
        return chosen

    def _next_partial(self) -> Partial | None:
        """One of a task of which no upload is on its way."""
        if not self.partials or len(self.showing) >= _SHOWING_MOST:
            return None
        under_way = {*self.busy, *self.showing, *(upload.index for upload in self.waiting)}
        for partial in self.partials:
            if partial.index not in under_way:
                self.partials.remove(partial)
                self.showing.add(partial.index)
                return partial
        return None

    def _put(self, uploads: list[Upload]) -> None:
        """Outputs first, the exit codes when all else is there; raises StoreError."""
        files: dict[Store, list[tuple[str, str]]] = {}
        codes: dict[Store, list[tuple[str, str]]] = {}
        for upload in uploads:
            store, folder = self._find(upload.output)
            self._make_room(upload.partial or upload, store, folder)
            target = f"{folder}/{upload.below}" if upload.below else folder
            for name, path in list(_list_files(upload)):
                if name != upload.status_file:
                    files.setdefault(store, []).append((f"{target}/{name}", path))
                elif not upload.problem:
                    codes.setdefault(store, []).append((f"{target}/{name}", path))
        for kind in (files, codes):
            for store, pairs in kind.items():
                store.put_many(pairs)
        for upload in uploads:
            self._remove_shown(upload)

    def _remove_shown(self, upload: Upload) -> None:
        """Of an attempt whose outputs are not where it was shown: another comes there."""
        shown = upload.partial
        if shown and shown.shown and shown.below != upload.below:
            store, folder = self._find(upload.output)
            store.delete_many([f"{folder}/{name}" for name in _PRINTED])
            shown.shown.clear()

    def _show(self, partial: Partial) -> None:
        """What is refused is put the next time, or with all that the attempt leaves."""
        with contextlib.suppress(UmpteenError, OSError):
            store, folder = self._find(partial.output)
            self._make_room(partial, store, folder)
            target = f"{folder}/{partial.below}" if partial.below else folder
            for name, size in partial.list_grown():
                with open(open_below(partial.folder, name), "rb") as file:
                    store.replace(f"{target}/{name}", _read_pieces(file, size))
                partial.shown[name] = size
        with self.changed:
            partial.is_sent = False
            self.showing.discard(partial.index)
            self.changed.notify_all()

    def _find(self, output: str) -> tuple[Store, str]:
        """The store that an address is in, and its key there."""
        with self.opening:
            return find_output(self.store, output, self.elsewhere)

    def _make_room(self, upload: Upload | Partial, store: Store, folder: str) -> None:
        """Move or remove what is there of others, once."""
        if upload.aside:
            _set_aside(store, folder, attempt_folder(*upload.aside))
        elif upload.is_unsure:
            left = [name for name, _ in store.walk(folder) if name.split("/")[0] in OUTPUTS]
            store.delete_many([f"{folder}/{name}" for name in left])
        upload.aside, upload.is_unsure = None, False

    def _put_back(self, uploads: list[Upload], error: StoreError) -> None:
        if len(uploads) == 1 and self._is_own_fault(uploads[0], error):
            uploads[0].problem = f"could not keep its outputs: {error}"
            self._finish(uploads)
            return
        for upload in uploads:
            upload.is_alone = True
        with self.changed:
            self.trouble.begin(str(error), error.hint)
            self.waiting.extendleft(reversed(uploads))
            self._release(uploads)
            if not self.is_stopped:
                self.changed.wait(_AGAIN_S)
        self._wake()

    def _is_own_fault(self, upload: Upload, error: StoreError) -> bool:
        """Whether the store refuses this one again and again, and takes others meanwhile."""
        if error.transient:
            return False
        upload.refused += 1
        if upload.refused == 1:
            upload.others = self.count
        return upload.refused >= _REFUSED_MOST and self.count > upload.others

    def _finish(self, uploads: list[Upload]) -> None:
        for upload in uploads:
            if not upload.problem:
                shutil.rmtree(upload.folder, ignore_errors=True)
        with self.changed:
            if not uploads[0].problem:
                self.trouble.end()
                self.count += len(uploads)
            self.bytes_left -= sum(upload.size for upload in uploads)
            self._release(uploads)
            self.arrived.extend(uploads)
            self.changed.notify_all()
        self._wake()

    def _release(self, uploads: list[Upload]) -> None:
        for upload in uploads:
            del self.busy[upload.index]

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._ring, b".")


def _read_pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """So many bytes of a file that may grow meanwhile."""
    while size > 0 and (piece := file.read(min(size, _PIECE_BYTES))):
        size -= len(piece)
        yield piece


def _set_aside(store: Store, folder: str, label: str) -> None:
    """Move what is there below `attempts/`, and what a move that was cut short has left with it."""
    names = [name for name, _ in store.walk(folder)]
    unfinished = [name for name in names if _MOVING.fullmatch(name)]
    if unfinished:
        label = unfinished[0][: -len(UNFINISHED)]
    elif any(name.startswith(label + "/") for name in names):  # what is there is of a killed one
        label += f".{os.urandom(3).hex()}"
    there = {name.split("/")[0] for name in names}.intersection(OUTPUTS)
    if there and not unfinished:
        store.replace(f"{folder}/{label}{UNFINISHED}", b"")
    for name in there:
        store.move(f"{folder}/{name}", f"{folder}/{label}/{name}")
    if there or unfinished:
        store.delete(f"{folder}/{label}{UNFINISHED}")


def _list_files(upload: Upload) -> Iterator[tuple[str, str]]:
    """(name below the task's folder, path here) of all that is a file, also behind a link."""

    def note(error: OSError) -> None:
        upload.problem = f"could not keep {error.filename}: {error.strerror}"

    for parent, _, names in os.walk(upload.folder, onerror=note):
        below = os.path.relpath(parent, upload.folder)
        for name in names:
            path = os.path.join(parent, name)
            if not os.path.isfile(path):  # a pipe, or a link to nowhere
                continue
            if not os.access(path, os.R_OK):
                upload.problem = f"could not keep {name!r}: it may not be read"
                continue
            shown = name if below == "." else f"{below}/{name}"
            try:
                shown.encode()
            except UnicodeEncodeError:
                upload.problem = f"could not keep {shown!r}: its name is not UTF-8"
            else:
                yield shown, path
