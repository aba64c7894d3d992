"""One host of a head: a thread that gives it its batches, and brings home what comes of them."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from umpteen.errors import EXIT_UNREACHABLE, EXIT_WRONG_USE, SettingsError, StoreError
from umpteen.executors.ssh.board import Board
from umpteen.executors.ssh.home import Fetch, Home
from umpteen.executors.ssh.hosts import Host
from umpteen.executors.ssh.job_files import send_batches, send_mark
from umpteen.executors.ssh.placement import Amounts
from umpteen.executors.ssh.progress import BatchProgress, HostRecord
from umpteen.executors.ssh.remote_agent import RemoteAgent
from umpteen.model.agent_messages import (
    ALL,
    RECORDS_ONLY,
    News,
    NewsRequest,
    Probe,
    RecordsPart,
    RunnerReport,
    StorePlace,
)
from umpteen.model.complaint import find_complaint, find_last_word
from umpteen.model.forms import FormError
from umpteen.runner.lease import list_living
from umpteen.store.identity import Identity
from umpteen.store.job_files import CancelMark, is_closed
from umpteen.store.layout import closed_key, records_folder
from umpteen.system.openssh import HostError, NonsenseError

__all__ = ["HostWorker", "Shared", "Work"]

_WAIT_S = 0.3  # for news
_ANSWER_BYTES = 4 << 20
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # before a host is tried again
_LAST_TRIES, _LAST_PAUSE_S = 5, 1.0  # to clear up on a host that was lost near the end
_DROP_S = 5.0
_SHOWN_BYTES = 1 << 18  # of what a followed task prints, at once
_MOST_DEATHS = 5  # of runners in a row on one host, without a task that ended between them
_MOST_BREAKS, _SOUND_S = 5, 10.0  # of connections in a row that were shorter than that
_HOPELESS = (EXIT_WRONG_USE, EXIT_UNREACHABLE)


class Progress(Protocol):
    """Where what hosts record goes: `Home`, or `SharedFolder`."""

    def read_offsets(self, batch: str) -> dict[str, int]: ...
    def find_batch(self, batch: str) -> BatchProgress: ...
    def add(self, part: RecordsPart, fetch: Fetch, host: str) -> list[HostRecord]: ...


class Work(NamedTuple):
    """What all hosts of a head are for."""

    store: Identity
    addresses: Sequence[str]  # of the job's folder, as hosts may see it
    word: str  # of the copies that hosts keep which do not
    slots: int  # tasks at once on a host; 0: as many as it has cores
    pull: str  # which outputs come home
    token: str  # of the head
    environment: Mapping[str, str]


class Shared:
    """What the threads of a head have in common."""

    # home: None where the results are in no folder of this machine; then hosts must see them.
    def __init__(
        self, board: Board, home: Home | None, shared: Progress, gate: threading.Semaphore
    ) -> None:
        self.board, self.shared, self.gate = board, shared, gate
        self._home = home
        self.is_stopping = threading.Event()
        self.cancel = CancelMark(0, {})  # the newest
        self.followed: frozenset[int] = frozenset()  # tasks that somebody follows
        self.safe: dict[str, int] = {}  # by records file, how much of it is on the disk here

    @property
    def home(self) -> Home:
        """Where what hosts keep is brought."""
        assert self._home is not None
        return self._home


@dataclass
class _Runner:
    token: str
    number: int  # of the list that it was given last
    sent: list[str]  # that list
    begun: set[str] = field(default_factory=set)


class _LocalError(Exception):
    """What comes home cannot be written."""


class HostWorker(threading.Thread):
    """The thread of one host."""

    def __init__(self, host: Host, work: Work, shared: Shared) -> None:
        super().__init__(name=f"umpteen-{host.name}", daemon=True)
        self._host, self._work, self._shared, self._board = host, work, shared, shared.board
        self._tries = 0  # to reach it, without success since
        self._was_reached = False
        self._tries_at_end = 0  # to reach it once all is done
        self._breaks = 0  # of connections in a row, before anything came of them

    def run(self) -> None:
        """Until nothing is left to do, or the host is out."""
        while not self._shared.is_stopping.is_set() or self._is_owing():
            session: _Session | None = None
            is_broken = False
            try:
                with self._shared.gate:
                    agent = RemoteAgent(self._host, is_quiet=True)
                    session = self._open(agent)
                self._was_reached = True
                session.serve()
                return
            except NonsenseError as error:
                self._board.host_is_out(self._host.name, error.reason)
                return
            except HostError as error:
                is_broken = session is not None
                self._board.host_is_down(self._host.name, error.reason)
            except SettingsError as error:
                self._board.host_is_out(self._host.name, str(error))
                return
            except FormError as error:
                self._board.host_is_out(self._host.name, f"it answers what cannot be: {error}")
                return
            except (OSError, StoreError, _LocalError) as error:
                self._board.host_is_down(self._host.name, _describe(error))
            except Exception as error:  # an error of ours, or no room for a thread
                sys.excepthook(*sys.exc_info())
                self._board.host_is_down(self._host.name, f"{type(error).__name__}: {error}")
            if session and is_broken and self._gives_up(session):
                return
            pause_s = _PAUSES_S[min(self._tries, len(_PAUSES_S) - 1)]
            self._tries += 1
            if not self._shared.is_stopping.wait(pause_s):
                continue
            self._tries_at_end += 1
            time.sleep(_LAST_PAUSE_S)

    def _is_owing(self) -> bool:
        """Whether all is done, and something may be left on the host as it was just lost."""
        is_done = self._board.is_over and self._was_reached
        return is_done and self._tries_at_end < _LAST_TRIES

    def _gives_up(self, session: _Session) -> bool:
        """Whether a host, which is reached, breaks off again and again before anything comes of it.

        It would keep what it has for ever: each time that it is reached it is heard of.
        """
        self._breaks += 1
        if session.has_records or time.monotonic() - session.began_s > _SOUND_S:
            self._breaks = self._tries = 0
        if self._breaks < _MOST_BREAKS:
            return False
        status = self._board.hosts[self._host.name]
        self._board.host_is_out(self._host.name, f"again and again: {status.reason}")
        return True

    def _open(self, agent: RemoteAgent) -> _Session:
        work = self._work
        probe = agent.probe()
        place = agent.find_store(work.addresses, work.store, work.word, work.environment)
        if not place.address:
            raise SettingsError(f"it does not see the results at {work.addresses[0]}")
        return _Session(agent, place, probe, work, self._shared)


class _Session:
    """One connection to a host, from when its agent answers until it is lost."""

    def __init__(
        self, agent: RemoteAgent, place: StorePlace, probe: Probe, work: Work, shared: Shared
    ) -> None:
        self._agent, self._place, self._work = agent, place, work
        self._slots = agent.host.slots or work.slots or probe.cpus
        self._has = Amounts(probe.cpus, probe.gpus, probe.memory)
        self._shared, self._board, self._name = shared, shared.board, agent.host.name
        self._progress: Progress = shared.shared if place.is_shared else shared.home
        self._offsets: dict[str, int] = {}
        self._known: set[str] = set()  # batches whose offsets were read
        self._running: dict[str, int] = {}
        self._runners: dict[str, _Runner] = {}  # by token, the newest last
        self._sent_mark = CancelMark(0, {})
        self._dropped: dict[str, int] = {}
        self._shown: dict[str, int] = {}  # by file of a followed task, how much of it is here
        self._drop_at_s = 0.0
        self._deaths = 0
        self._has_progress = False  # since the last start of a runner
        self.began_s, self.has_records = time.monotonic(), False

    def serve(self) -> None:
        """Give batches and take news, until all is done. Raises as RemoteAgent does."""
        self._adopt()
        self._board.host_is_up(self._name, self._slots, self._has)
        while not self._shared.is_stopping.is_set():
            self._apply_mark()
            self._give()
            self._take(self._agent.bring(self._build_request()))
            self._show_followed()
            self._drop()
        self._finish()

    # --- what is there already --------------------------------------------------------------------

    def _adopt(self) -> None:
        """Find what an earlier head has left there."""
        folder, own = self._place.address, self._board.list_open()
        found: set[str] = set()
        for report in self._agent.list_runners(folder, self._work.store):
            known = {*report.batches, *report.begun}
            if known.intersection(own):
                begun = set(report.begun)
                runner = _Runner(report.token, report.given, list(report.batches), begun)
                self._runners[report.token] = runner
                unopened = [batch for batch in report.batches if batch not in begun]
                self._board.adopt(self._name, report.begun, unopened)
                found |= known
            elif not self._place.is_shared:
                self._end_closed(report.token, known)
        # What the host had when it was left, and what no runner there has now.
        self._board.runner_ended(self._name, set(self._board.list_of(self._name)) - found)
        if not self._place.is_shared:
            keys = [records_folder(batch) for batch in own]
            are_there = self._agent.has(folder, keys) if keys else []
            begun_there = (
                batch for batch, is_there in zip(own, are_there, strict=True) if is_there
            )
            self._board.note_begun(self._name, begun_there)

    def _end_closed(self, runner: str, batches: set[str]) -> None:
        """Have a runner end whose batches were closed here: others do what is left of them."""
        store = self._shared.home.store
        if batches and all(is_closed(store, batch) for batch in batches):
            marks = [(closed_key(batch), b"") for batch in batches]
            self._agent.put(self._place.address, marks)
            self._agent.wake([runner])

    def _build_request(self) -> NewsRequest:
        batches = self._board.list_of(self._name)
        for batch in set(batches) - self._known:
            self._known.add(batch)
            self._offsets.update(self._progress.read_offsets(batch))
        kinds = RECORDS_ONLY if self._place.is_shared else self._work.pull
        running = {} if self._place.is_shared else self._running
        runners = list(self._runners)
        return NewsRequest(
            self._place.address, batches, self._offsets, running, runners, kinds,
            _ANSWER_BYTES, _WAIT_S,
        )  # fmt: skip

    # --- what it is to do -------------------------------------------------------------------------

    def _apply_mark(self) -> None:
        mark = self._shared.cancel
        if mark != self._sent_mark:
            if not self._place.is_shared:
                send_mark(self._agent, self._shared.home.store, self._place.address)
            self._agent.wake(list(self._runners))
            self._sent_mark = mark

    def _give(self) -> None:
        """Have the host's runner have what the board wants it to have."""
        runner = next(reversed(self._runners.values()), None)
        self._board.settle_leaving(self._name, runner.sent if runner else ())
        wanted = self._board.list_wanted(self._name)
        if runner is None:
            if wanted:
                self._start(wanted)
            return
        if wanted == [batch for batch in runner.sent if batch not in runner.begun]:
            return
        self._send([batch for batch in wanted if batch not in runner.sent])
        runner.number += 1
        report = self._agent.give(runner.token, runner.number, wanted)
        if report.number >= runner.number:
            runner.sent = wanted
            self._note_begun(runner, report)
            self._board.settle_leaving(self._name, wanted)

    def _start(self, wanted: Sequence[str]) -> None:
        self._send(wanted)
        token = self._agent.start(
            self._place.address, self._work.store, wanted, self._slots, (), self._work.environment
        )
        self._runners[token] = _Runner(token, 1, list(wanted))
        self._has_progress = False

    def _send(self, batches: Sequence[str]) -> None:
        if batches and not self._place.is_shared:
            send_batches(self._agent, self._shared.home.store, self._place.address, batches)

    # --- what comes of it -------------------------------------------------------------------------

    def _take(self, news: News) -> None:
        for part in news.records:
            try:
                outcomes = self._progress.add(part, self._fetch, self._name)
            except OSError as error:
                raise _LocalError(_describe(error)) from error
            self._offsets[part.name] = part.offset + len(part.lines)
            self._has_progress |= bool(outcomes)
            self.has_records |= bool(outcomes)
        if not self._place.is_shared:
            self._shared.home.show_running(news, list(self._running), self._name)
            self._running = news.stamps
        for batch in {part.name.partition("/")[0] for part in news.records}:
            known = self._progress.find_batch(batch)
            self._board.note_left(batch, known.left)
            if known.has_end and known.left == 0:
                self._board.end([batch])
        for report in news.runners:
            runner = self._runners.get(report.token)
            if runner is not None:
                self._note_begun(runner, report)
                if not (report.lives or news.records):  # what it recorded last is here
                    self._note_end(report)
        self._board.note_heard(self._name, is_idle=not self._runners)

    def _show_followed(self) -> None:
        """Have what followed tasks print here as it comes, where they run on this host."""
        followed = frozenset() if self._place.is_shared else self._shared.followed
        for batch in self._board.list_of(self._name) if followed else ():
            known = self._progress.find_batch(batch)
            for index in followed & set(known.view.indices) - known.finals:
                folder = known.find_folder(index)
                for name in ("stdout", "stderr"):
                    self._show_output(known, index, folder, name)

    def _show_output(self, known: BatchProgress, task: int, folder: str, name: str) -> None:
        key = f"{folder}/{name}"
        path = f"{self._place.address}/{key}"
        with contextlib.suppress(FileNotFoundError):
            start, content = self._agent.read_on(path, self._shown.get(key, 0), _SHOWN_BYTES)
            if content:
                self._shared.home.show_output(known, task, name, start, content)
                self._shown[key] = start + len(content)

    def _note_begun(self, runner: _Runner, report: RunnerReport) -> None:
        runner.begun.update(report.begun)
        self._board.note_begun_there(self._name, report.begun)

    def _note_end(self, report: RunnerReport) -> None:
        """A runner has ended: what is left of its batches is to be done."""
        del self._runners[report.token]
        self._deaths = 0 if self._has_progress else self._deaths + 1
        for batch in self._board.list_of(self._name):
            if self._progress.find_batch(batch).left == 0:
                self._board.end([batch])
        if report.code in _HOPELESS or self._deaths >= _MOST_DEATHS:
            complaint = find_complaint(report.said)
            reason = complaint.message if complaint else find_last_word(report.said)
            self._board.host_is_out(self._name, reason or f"its runner ended with {report.code}")
        else:
            self._board.runner_ended(self._name, self._board.list_of(self._name))
            if not self._has_progress:  # another runner may have been there already
                self._adopt()

    def _fetch(self, source: str, size: int, path: str) -> None:
        self._agent.fetch_file(f"{self._place.address}/{source}", size, path)

    # --- what is home -----------------------------------------------------------------------------

    def _drop(self, *, is_last: bool = False) -> None:
        """Have the host remove what is here, and on the disk."""
        now = time.monotonic()
        if self._place.is_shared or self._work.pull != ALL:
            return
        if (now < self._drop_at_s and not is_last) or not self._is_alone():
            return
        self._drop_at_s = now + _DROP_S
        for name, offset in self._offsets.items():
            safe = min(offset, self._shared.safe.get(name, 0))
            before = self._dropped.get(name, 0)
            if safe > before:
                self._agent.drop(self._place.address, name, before, safe)
                self._dropped[name] = safe

    def _is_alone(self) -> bool:
        """Whether no other head has this job: it may have begun with a task once more there."""
        return list_living(self._work.store) <= {self._work.token}

    def _finish(self) -> None:
        """Leave nothing there that is here."""
        if self._place.is_shared or self._work.pull != ALL or not self._board.is_over:
            return
        self._drop(is_last=True)
        if self._is_alone() and not self._agent.list_runners(self._place.address, self._work.store):
            self._agent.forget(self._place.address)


def _describe(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return str(error)
