"""Writes what happened into the records files of a runner's batches.

What a store refuses is kept and written before anything else, and stays on this machine at the
end. Knows lines and files, not what they say. Standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable

from umpteen.errors import StoreError
from umpteen.runner.lanes.group import Lanes
from umpteen.runner.lease import KEPT
from umpteen.runner.trouble import Trouble
from umpteen.store.base import Appender
from umpteen.store.records import SyncedLine
from umpteen.system.host import sync_filesystem

__all__ = ["Recorder", "Syncer", "is_unsynced"]


class Recorder:
    """The records files of one runner. What cannot be written holds its lanes."""

    def __init__(self, address: str, lanes: Lanes, patience_s: float) -> None:
        self.address = address  # of the store
        self.trouble = Trouble(patience_s)  # with the store: with our files, or in a lane
        self._lanes = lanes
        self._files: list[Appender] = []  # all that are not closed
        self._in_use: list[Appender] = []  # those of batches that are open
        self._kept: list[bytes] = []  # lines that stay on this machine
        self._said: Trouble | None = None  # that keeps outputs on this machine
        self._syncer = Syncer()

    def begin(self, file: Appender) -> None:
        """A batch was opened, and this is its file."""
        self._files.append(file)
        self._in_use.append(file)

    def end(self, file: Appender) -> None:
        """A batch was ended; its file is closed when the disk has all of it."""
        self._in_use.remove(file)

    def append(self, file: Appender, lines: bytes) -> None:
        """Write whole lines, now or when the store takes them again."""
        try:
            file.append(lines)
        except OSError as error:
            self._note_refusal(error)

    def write_pending(self) -> None:
        """Write what the store did not take before; its trouble is over if it does now."""
        stuck = [file for file in self._files if file.pending and file.fd >= 0]
        if not stuck:
            return
        for file in stuck:
            try:
                file.append(b"")
            except OSError as error:
                self._note_refusal(error)
                return
        self.note_success()
        self._lanes.hold("store", is_on=False)

    def _note_refusal(self, error: OSError) -> None:
        self._lanes.hold("store", is_on=True)
        self.note_trouble(f"{error.strerror}: {error.filename or self.address}")

    def note_trouble(self, text: str) -> None:
        """The store refuses."""
        self.trouble.begin(text)

    def note_success(self) -> None:
        """The store takes what it is given."""
        self.trouble.end()

    def give_up(self, text: str) -> None:
        """The store refuses, and that will not pass."""
        self.trouble.begin(text, is_final=True)

    def sync(self, *, wait: bool = False) -> None:
        """Have the disk take what is recorded, and record how far it has."""
        self._note_synced(self._syncer.take(wait=wait))
        self._files = [file for file in self._files if self._is_needed(file)]
        marks = [(file, file.size) for file in self._files if is_unsynced(file)]
        if not marks:
            return
        self._syncer.begin(marks)
        if wait:
            self._note_synced(self._syncer.take(wait=True))

    def _note_synced(self, marks: Iterable[tuple[Appender, int]]) -> None:
        for file, size in marks:
            if file.fd >= 0 and not file.pending and size > file.synced:
                self.append(file, SyncedLine(size).to_line())
                file.synced = file.size

    def _is_needed(self, file: Appender) -> bool:
        is_in_use = any(each is file for each in self._in_use)
        if is_in_use or file.pending or is_unsynced(file):
            return True
        file.close()
        return False

    def keep(self, lines: Iterable[bytes], why: Trouble | None = None) -> None:
        """Have records stay on this machine, of outputs that stay there; why, where it is known."""
        self._kept += lines
        if why:
            self._said = why

    def leave_kept(self, folder: str) -> str:
        """Write what the store did not take into a folder here; a sentence of it, "" for none."""
        self._kept += [file.pending for file in self._files if file.pending]
        if not self._kept:
            return ""
        path = os.path.join(folder, KEPT)
        with contextlib.suppress(OSError), open(path, "ab") as kept:
            kept.write(b"".join(self._kept))
            kept.flush()
            sync_filesystem(kept.fileno())  # what is beside it, too
        text = self._describe()[0]
        said = "the results store cannot be written" + (f": {text}" if text else "")
        count = sum(_is_outcome(line) for lines in self._kept for line in lines.splitlines())
        if not count:
            return said
        return f"{said}; {count} outcome{'s are' if count > 1 else ' is'} kept in {path}"

    def find_hint(self) -> str | None:
        """What to do about what keeps records on this machine."""
        return self._describe()[1]

    def _describe(self) -> tuple[str, str | None]:
        """What is wrong, and what to do: of outputs that stay here, else of the records."""
        trouble = self._said or self.trouble
        if not trouble.text and (error := self._syncer.error):
            return str(error), error.hint
        return trouble.text, trouble.hint


def _is_outcome(line: bytes) -> bool:
    return b'"task":' in line and "task" in json.loads(line)


class Syncer:
    """Waits for the disk in a thread of its own, so that nobody else has to."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.marks: list[tuple[Appender, int]] = []
        self.error: StoreError | None = None  # of the newest, where that failed

    def begin(self, marks: list[tuple[Appender, int]]) -> None:
        """Start to sync all that was written so far, if nothing is being synced."""
        if self.thread is None:
            self.marks, self.error = marks, None
            self.thread = threading.Thread(target=self._sync, daemon=True)
            self.thread.start()

    def _sync(self) -> None:
        try:
            for file, _ in self.marks:
                file.flush()
            if self.marks[0][0].fd >= 0:
                sync_filesystem(self.marks[0][0].fd)
        except StoreError as error:
            self.error = error
        except OSError as error:
            self.error = StoreError(f"{error.strerror}: {error.filename or 'the disk'}")

    def take(self, *, wait: bool) -> list[tuple[Appender, int]]:
        """How far each file is on the disk by now; empty while that is not known."""
        if self.thread is None or (self.thread.is_alive() and not wait):
            return []
        self.thread.join()
        self.thread = None
        marks, self.marks = self.marks, []
        return [] if self.error else marks


def is_unsynced(file: Appender) -> bool:
    """Whether it has what a power loss, or our own end, would take away."""
    return bool(file.pending) if file.fd < 0 else file.size > file.synced
