"""A lane: one of the runner's processes, which starts tasks in its slots and sees them end.

Takes tickets (which task of which batch) from a pipe that all lanes share, leaves each task's
files in its folder, and tells the runner what happened through another pipe. Several lanes
rather than one, because a process is idle while the kernel starts a program for it. It
decides nothing about the job: which task is next, and what is recorded, is the runner's.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import glob
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

from umpteen.model.batch import BatchView
from umpteen.model.command import RUNNER_VARIABLE, build_digest, build_environment
from umpteen.model.record import Record
from umpteen.model.states import (
    NUMBER_OF,
    REASON_DEADLINE,
    REASON_INTERRUPTED,
    REASON_OUTPUT_LIMIT,
    TaskState,
)
from umpteen.runner.lanes.command import is_plain, resolve_program
from umpteen.runner.lanes.protocol import (
    AGAIN,
    CANCEL_ALL,
    CANCEL_ONE,
    DEADLINE,
    END_KINDLY,
    FENCED,
    GO_ON,
    KILL,
    LEAVE,
    ONE_MORE,
    ORDER,
    PAUSE,
    TICKET,
)
from umpteen.runner.lease import Lease, SlotEntry
from umpteen.runner.working_folder import choose_cwd, find_synced
from umpteen.store.address import OPTIONS_VARIABLE, is_remote, output_folder
from umpteen.store.base import Store
from umpteen.store.identity import tell_loss
from umpteen.store.layout import OUTPUTS, UNFINISHED, attempt_folder, scratch_folder, spool_folder
from umpteen.store.owners import check_folder, own_ids
from umpteen.store.records import list_starts, read_start
from umpteen.system.children import ChildWatcher
from umpteen.system.host import boot_ticks, read_machine
from umpteen.system.plain_files import NEW_FILE, NotPlainError
from umpteen.system.processes import (
    ProcessEntry,
    end_group,
    explain_shortage,
    is_running,
    list_below,
    list_marked,
)
from umpteen.system.spawn import Launch, Spawner

__all__ = ["LaneSetup", "is_left", "run_lane"]
_ENDINGS = {
    END_KINDLY: (TaskState.WAITING.value, REASON_INTERRUPTED),
    DEADLINE: (TaskState.TIMED_OUT.value, REASON_DEADLINE),
    CANCEL_ALL: (TaskState.CANCELLED.value, ""),
}
_TIMED_OUT = (TaskState.TIMED_OUT.value, "")
_TOO_MUCH_OUTPUT = (TaskState.FAILED.value, REASON_OUTPUT_LIMIT)

# What is wrong with the store as a whole, and may pass; anything else is the task's own.
_STORE_TROUBLE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.ESTALE}
)
_WORD_MOST = 32 * os.sysconf("SC_PAGESIZE")  # bytes that Linux takes as one word or variable
_RETRY_S = 1.0
_ANSWERS_AT_ONCE = 150  # below PIPE_BUF together
_ORPHAN_GRACE_S = 2.0
_SIZES_S = 0.25  # how often the outputs of tasks with a limit are looked at
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_RESULTS = b"RESULTS_DIR"
# Of an engine's worker: names of variables by which the engine limits threads, with commas between.
_THREADS_VARIABLE = "UMPTEEN_WORKER_THREADS"
_MOST_KNOWN = 10_000


class LaneSetup(NamedTuple):
    """What a lane is given: its slots, its ends of the pipes, and how batches are read.

    store: a folder of this machine, where it is not the job's own. place: of the job's own, as
    `find_place` has it. spool: a folder for outputs
    that go elsewhere than to a folder.
    """

    slots: Sequence[int]
    store: Store
    place: str
    spool: str
    token: str
    lease: Lease
    tickets: int
    done: int
    control: int
    gpus: Sequence[str]
    read_batch: Callable[[int], BatchView]


class _Running:
    """One attempt from its ticket to its record."""

    __slots__ = (
        "attempt",
        "batch",
        "cwd",
        "devices",
        "digest",
        "ending",
        "flags",
        "folder",
        "index",
        "is_prepared",
        "is_spooled",
        "kill_at_s",
        "limit",
        "made_results",
        "name",
        "ordinal",
        "output",
        "outputs",
        "pid",
        "position",
        "reaped",
        "results",
        "slot",
        "start_s",
        "started_s",
        "timeout_at_s",
    )  # fmt: skip

    def __init__(self, slot: int, ticket: tuple[int, ...], batch: BatchView, spool: str) -> None:
        self.slot, self.batch = slot, batch
        self.ordinal, self.position, self.attempt, self.flags, self.devices = ticket
        self.is_prepared = False
        self.limit: int | None = None
        self.cwd: str | None = None
        self.index = batch.indices[self.position]
        self.name = batch.names[self.position]
        self.output = batch.output(self.position)
        self.is_spooled = is_remote(self.output)
        self.folder = (
            spool_folder(spool, self.index, self.attempt)
            if self.is_spooled
            else output_folder(self.output)
        )
        self.outputs = self.digest = self.results = ""
        self.made_results = False
        self.pid = 0
        self.start_s = self.started_s = 0.0
        self.timeout_at_s = self.kill_at_s = float("inf")
        self.ending: tuple[str, str] | None = None
        self.reaped: tuple[int, Any, float] | None = None


def run_lane(setup: LaneSetup) -> None:
    """Work until there are no more tickets and nothing runs, or until told to stop."""
    # Not ignored: an ignored signal would be ignored by every command as well.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    gc.disable()  # nothing here makes cycles, and each collection would look at whole batches
    _Lane(setup).run()


class _Lane:
    def __init__(self, setup: LaneSetup) -> None:
        self.setup = setup
        self.watcher = ChildWatcher()
        self.spawner = Spawner()
        self.free = list(reversed(setup.slots))
        self.running: dict[int, _Running] = {}
        self.timed: set[_Running] = set()  # those that are to be ended at some time
        self.limited: set[_Running] = set()  # those whose outputs may only be so large
        self.look_at_s = float("inf")
        self.revoked: set[tuple[int, int]] = set()
        self.concluding: set[tuple[int, int]] = set()  # ended, and the store refused their files
        self.one_more = False
        self.retries: list[Callable[[], None]] = []
        self.retry_at_s = float("inf")
        self.batches: dict[int, BatchView] = {}
        self.cwds: dict[int, str | None] = {}  # of those batches: where their commands start
        self.earlier: dict[int, dict[int, tuple[int, str]]] = {}
        self.killed: dict[int, str] = {}
        self.below: Sequence[ProcessEntry] = ()
        self.programs: dict[tuple[str, str, str | None], str | None] = {}
        self.closed = self.paused = self.listening = self.stopping = self.is_orphan = False
        self.path = os.environ.get("PATH", os.defpath)
        ours = {line.split(b"=")[0] for line in build_environment("", "", 0, 0, 0, "", "")}
        ours.add(OPTIONS_VARIABLE.encode())  # may have secrets
        ours.add(_THREADS_VARIABLE.encode())
        self.limits = list(filter(None, os.environ.get(_THREADS_VARIABLE, "").split(",")))
        self.inherited = [b"%s=%s" % pair for pair in os.environb.items() if pair[0] not in ours]
        self.their_results = os.environb.get(_RESULTS)  # what our caller calls so
        # Who owns the store, too: an engine's worker may be another user than who handed in.
        self.own = own_ids() | _list_owner(setup.store.address)
        self.known = {setup.store.address}  # folders that tasks' folders may be made in
        self.scratch = setup.store.path(scratch_folder(setup.token))
        self.slot_results: dict[int, str] = {}  # of the slots that were used
        self.watcher.add_file(setup.control)
        os.set_blocking(setup.tickets, False)

    # --- the loop ---------------------------------------------------------------------

    def run(self) -> None:
        while True:
            self._take_tickets()
            if self.closed and not self.running and not self.retries:
                self._end_below()
                return
            ended, files = self.watcher.wait(self._until_next_s())
            for pid in ended:
                self._see_end(self.running[pid])
            if self.setup.control in files:
                self._obey(os.read(self.setup.control, ORDER.size * 64))
            self._keep_times()

    def _until_next_s(self) -> float | None:
        if not self.timed and not self.retries and not self.limited:
            return None
        times = [min(task.timeout_at_s, task.kill_at_s) for task in self.timed]
        soonest = min([*times, self.retry_at_s, self.look_at_s])
        return None if soonest == float("inf") else max(0.0, soonest - time.monotonic())

    def _take_tickets(self) -> None:
        while self.free and not self.closed and (self.one_more or not self.paused):
            try:
                ticket = os.read(self.setup.tickets, TICKET.size)
            except BlockingIOError:
                if not self.listening:
                    self.watcher.add_file(self.setup.tickets)
                    self.listening = True
                return
            if not ticket:
                self.closed = True
                break
            self.one_more = False
            values = TICKET.unpack(ticket)
            batch = self._batch(values[0])
            self._begin(_Running(self.free.pop(), values, batch, self.setup.spool))
        if self.listening:
            self.watcher.remove_file(self.setup.tickets)
            self.listening = False

    def _obey(self, orders: bytes) -> None:
        if not orders:  # the runner is gone
            self.is_orphan = True
            self.below = list_below(self.running, RUNNER_VARIABLE, self.setup.token)
            self.watcher.remove_file(self.setup.control)
            self._end_all(END_KINDLY, _ORPHAN_GRACE_S)
        spared = []
        for order, ordinal, position in ORDER.iter_unpack(orders):
            if order in (PAUSE, GO_ON):
                self.paused, self.one_more = order == PAUSE, False
            elif order == ONE_MORE:
                self.one_more = True
            elif order == LEAVE:
                self.closed = True
            elif order == CANCEL_ONE:
                if not self._cancel(ordinal, position):
                    spared.append(b"%d:%d" % (ordinal, position))
            elif order == KILL:
                self._end_all(END_KINDLY, 0.0)
            else:
                self._end_all(order, None)
        for start in range(0, len(spared), _ANSWERS_AT_ONCE):
            self._write_done(b"- " + b",".join(spared[start : start + _ANSWERS_AT_ONCE]) + b"\n")

    def _cancel(self, ordinal: int, position: int) -> bool:
        """End one task if it runs here; if not it shall never start here, which is False."""
        self.revoked.add((ordinal, position))
        for task in self.running.values():
            if (task.ordinal, task.position) == (ordinal, position):
                self._end(task, _ENDINGS[CANCEL_ALL], None)
                return True
        return (ordinal, position) in self.concluding

    def _end_all(self, order: bytes, grace_s: float | None) -> None:
        self.closed = self.stopping = True
        for task in self.running.values():
            self._end(task, _ENDINGS[order], grace_s)
        self._retry()

    def _keep_times(self) -> None:
        if not self.timed and not self.retries and not self.limited:
            return
        now = time.monotonic()
        if now >= self.look_at_s:
            self._look_at_sizes(now)
        if now >= self.retry_at_s:
            self._retry()
        for task in list(self.timed):
            if now >= task.kill_at_s:
                task.kill_at_s = float("inf")
                end_group(task.pid, signal.SIGKILL)
            elif now >= task.timeout_at_s:
                self._end(task, _TIMED_OUT, None)

    def _end(self, task: _Running, ending: tuple[str, str], grace_s: float | None) -> None:
        """Ask the task to end, and have it killed after its grace."""
        now = time.monotonic()
        if task.ending is None:
            task.ending = ending
            end_group(task.pid, signal.SIGTERM)
        grace_s = task.batch.grace_s if grace_s is None else grace_s
        task.kill_at_s = min(task.kill_at_s, now + grace_s)
        task.timeout_at_s = float("inf")
        self.timed.add(task)

    def _look_at_sizes(self, now: float) -> None:
        for task in self.limited:
            if task.ending is None and _is_over_limit(task):
                self._end(task, _TOO_MUCH_OUTPUT, None)
        self.look_at_s = now + _SIZES_S if self.limited else float("inf")

    # --- one task ---------------------------------------------------------------------

    def _begin(self, task: _Running) -> None:
        if self.stopping:
            self.free.append(task.slot)  # held back by the store and never started
            return
        if self.revoked and (task.ordinal, task.position) in self.revoked:
            self._report_cancelled(task)
            return
        try:
            self._start(task)
        except OSError as error:
            if error.errno in _STORE_TROUBLE:
                self._hold(lambda: self._begin(task), error)
            else:
                self._fail_to_start(task, f"could not prepare {error.filename}: {error.strerror}")

    def _batch(self, ordinal: int) -> BatchView:
        batch = self.batches.get(ordinal)
        if batch is None:
            batch = self.batches[ordinal] = self.setup.read_batch(ordinal)
            self.cwds[ordinal] = choose_cwd(batch)
            while len(self.batches) > 4:
                del self.batches[next(iter(self.batches))]
        return batch

    def _start(self, task: _Running) -> None:
        """Make the task's folder and files, and start its command; raises OSError."""
        batch = task.batch
        extra = batch.terms_of(task.position)
        command: str | list[str] = batch.runs[task.position]["cmd"]
        env: dict[str, str] | None = None
        cwd, timeout_s, written_cwd = self.cwds[task.ordinal], None, None
        if extra:
            command = extra.get("argv") or command
            env, timeout_s, written_cwd = (
                extra.get("env"), extra.get("timeout_s"), extra.get("cwd")
            )  # fmt: skip
            if written_cwd is not None:
                cwd = os.path.join(cwd or "", os.path.expanduser(written_cwd))
            task.limit = extra.get("output_limit")
        task.cwd = cwd
        task.digest = build_digest(command, env, written_cwd)
        if self.limits and (cpus := extra.get("cpus")):
            env = {**dict.fromkeys(self.limits, str(cpus)), **(env or {})}
        if task.devices:
            gpus = [gpu for place, gpu in enumerate(self.setup.gpus) if task.devices >> place & 1]
            env = {"CUDA_VISIBLE_DEVICES": ",".join(gpus), **(env or {})}
        self._make_folder(task)
        stdout = _open_fresh(task.folder + "/stdout")
        stderr = _open_fresh(task.folder + "/stderr")
        try:
            self._choose_results(task)
            self._spawn(task, command, env, cwd, (stdout, stderr))
        finally:
            os.close(stdout)
            os.close(stderr)
        if task.pid and timeout_s:
            task.timeout_at_s = task.started_s + timeout_s
            self.timed.add(task)
        if task.pid and task.limit is not None:
            self.limited.add(task)
            self.look_at_s = min(self.look_at_s, task.started_s + _SIZES_S)

    def _make_folder(self, task: _Running) -> None:
        if task.is_prepared:
            return
        top = self.setup.store.address
        if not task.folder.startswith(top + "/"):
            top = os.path.dirname(
                task.folder
            )  # of a run's own place, which is the user's to choose
        if task.flags & FENCED:
            task.outputs = attempt_folder(task.attempt, self.setup.token)
            if not task.is_spooled:
                task.folder = f"{task.folder}/{task.outputs}"
        above = task.folder.rpartition("/")[0]
        if above not in self.known:
            self._make_above(top, above)
        try:
            os.mkdir(task.folder)
        except FileExistsError:
            check_folder(task.folder, self.own)
            self._set_aside(task)
        except FileNotFoundError:
            self.known.discard(above)
            raise
        task.is_prepared = True

    def _make_above(self, top: str, folder: str) -> None:
        """Make the folder of tasks' folders, or find that it is ours,
        and the way to it below `top`.
        """
        if top == self.setup.store.address and tell_loss(top, self.setup.place):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), top)  # none is made anew
        os.makedirs(top, exist_ok=True)
        parts = folder[len(top) + 1 :].split("/") if folder != top else []
        for count in range(1, len(parts) + 1):
            path = "/".join([top, *parts[:count]])
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
            check_folder(path, self.own)
        if len(self.known) >= _MOST_KNOWN:
            self.known.clear()
        self.known.add(folder)

    def _set_aside(self, task: _Running) -> None:
        """Move what an earlier attempt left in the task's folder below `attempts/`.

        Through a folder that has another name until all is in it: whoever comes after a kill in
        between moves the rest there, so that an attempt is never in two.
        """
        left = [name for name in OUTPUTS if os.path.lexists(f"{task.folder}/{name}")]
        unfinished = self._find_unfinished(task.folder)
        if not left and not unfinished:
            return
        making = unfinished or self._begin_aside(task)
        for name in left:
            if not os.path.lexists(f"{making}/{name}"):
                os.rename(f"{task.folder}/{name}", f"{making}/{name}")
        os.rename(making, making[: -len(UNFINISHED)])
        if unfinished:
            self._set_aside(task)

    def _find_unfinished(self, folder: str) -> str:
        """The folder of an attempt that was being set aside; empty where there is none."""
        attempts = f"{folder}/attempts"
        try:
            check_folder(attempts, self.own)
            names = os.listdir(attempts)
        except FileNotFoundError:
            return ""
        return next((f"{attempts}/{name}" for name in names if name.endswith(UNFINISHED)), "")

    def _begin_aside(self, task: _Running) -> str:
        """Make the folder for what is left in the task's."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{task.folder}/attempts")
        target = f"{task.folder}/{attempt_folder(*self._label_left(task))}"
        unique, number = target, 1
        while os.path.lexists(unique):
            number += 1
            unique = f"{target}.{number}"
        os.mkdir(unique + UNFINISHED)
        return unique + UNFINISHED

    def _label_left(self, task: _Running) -> tuple[int, str]:
        """The attempt and runner that left what is in the task's folder.

        An attempt that was recorded and is not set aside yet, else one that was killed.
        """
        if task.flags & AGAIN:
            return task.attempt - 1, self.setup.token
        recorded = self._recorded(task.ordinal).get(task.index)
        if recorded is None and str(task.position) in task.batch.before:
            attempt, token = task.batch.before[str(task.position)][:2]
            recorded = (attempt, token) if attempt else None
        if recorded and not os.path.exists(f"{task.folder}/{attempt_folder(*recorded)}"):
            return recorded
        return task.attempt, self.killed.get(task.ordinal, "unrecorded")

    def _recorded(self, ordinal: int) -> dict[int, tuple[int, str]]:
        """The newest attempt of each task in earlier starts of a batch, and whose it was."""
        if ordinal not in self.earlier:
            found: dict[int, tuple[int, str]] = {}
            batch = self._batch(ordinal).batch
            for key in list_starts(self.setup.store, batch):
                if key.token == self.setup.token:
                    break
                start = read_start(self.setup.store, batch, key, read_machine())
                found.update((record.task, (record.attempt, key.token)) for record in start.records)
                self.killed[ordinal] = key.token
            self.earlier[ordinal] = found
        return self.earlier[ordinal]

    def _choose_results(self, task: _Running) -> None:
        given = task.batch.runs[task.position].get("local_results_dir")
        if given:
            task.results = os.path.abspath(os.path.join(task.cwd or "", given))
            task.made_results = task.batch.is_made_up(given) and not os.path.isdir(task.results)
            os.makedirs(task.results, exist_ok=True)
        else:
            if task.slot not in self.slot_results:
                self.slot_results[task.slot] = self._new_results(task.slot)
            task.results = self.slot_results[task.slot]

    def _new_results(self, slot: int) -> str:
        """An empty folder; that it is as old as can be tells at a glance that it still is."""
        folder = f"{self.scratch}/{slot}"
        with contextlib.suppress(FileExistsError):
            try:
                os.mkdir(folder)
            except FileNotFoundError:
                self._make_above(self.setup.store.address, self.scratch)
                os.mkdir(folder)
        os.utime(folder, (0, 0))
        return folder

    def _spawn(
        self,
        task: _Running,
        command: str | list[str],
        env: dict[str, str] | None,
        cwd: str | None,
        outputs: tuple[int, int],
    ) -> None:
        launch = Launch((), b"", self._build_environment(task, env), cwd, *outputs)
        path = (env or {}).get("PATH", self.path)
        task.start_s, ticks = time.time(), boot_ticks()
        task.started_s = time.monotonic()
        self.setup.lease.mark_slot(task.slot, task.ordinal, task.position)
        try:
            task.pid = self._spawn_directly_or_by_shell(command, path, launch)
        except (OSError, ValueError) as error:
            self.setup.lease.clear_slot(task.slot)
            self._explain_start(task, command, error, launch)
            return
        self.running[task.pid] = task
        self.setup.lease.set_slot(
            SlotEntry(task.slot, task.ordinal, task.position, task.pid, ticks, task.start_s)
        )
        self.watcher.add_child(task.pid)

    def _build_environment(self, task: _Running, env: dict[str, str] | None) -> list[bytes]:
        variables = build_environment(
            task.batch.job,
            task.name,
            task.index,
            task.attempt,
            task.slot,
            task.results,
            task.output,
        )
        if task.batch.written is not None or task.results != self.slot_results.get(task.slot):
            variables = self._keep_words(task, variables)
        if task.batch.synced:
            folder = os.fsencode(find_synced(task.batch) or "")
            variables.append(b"UMPTEEN_SYNCED=" + folder)
        if not env:
            return self.inherited + variables
        declared = _encode_environment(env)
        names = {line.split(b"=", 1)[0] for line in declared}
        kept = (e for e in self.inherited + variables if e.split(b"=", 1)[0] not in names)
        return [*kept, *declared]

    def _keep_words(self, task: _Running, variables: list[bytes]) -> list[bytes]:
        """What a file from elsewhere says is handed on in its own words, a slash at the end too."""
        run, written = task.batch.runs[task.position], task.batch.written
        said: dict[bytes, bytes] = {}
        if given := run.get("local_results_dir"):
            said[b"SATURN_RUN_LOCAL_RESULTS_DIR"] = os.fsencode(given)
        if written is not None:
            output = written.get(str(task.position), task.output)
            said[b"SATURN_RUN_REMOTE_OUTPUT_PATH"] = os.fsencode(output)
        if written is not None and self.their_results is not None:
            said[_RESULTS] = self.their_results
        kept = (line for line in variables if line.split(b"=", 1)[0] not in said)
        return [*kept, *(b"%s=%s" % pair for pair in said.items())]

    def _spawn_directly_or_by_shell(
        self, command: str | list[str], path: str, launch: Launch
    ) -> int:
        """Start the command; `launch` is all but its words and its program."""
        start = self.spawner.start
        if not isinstance(command, str):
            found = os.fsencode(_find_program(command[0], path, launch.cwd))
            return start(Launch([os.fsencode(word) for word in command], found, *launch[2:]))
        text = command.encode("utf-8", "surrogateescape")
        program = self._program(command, path, launch.cwd) if is_plain(command) else None
        if program:
            try:
                return start(Launch(text.split(), os.fsencode(program), *launch[2:]))
            except OSError as error:
                # A script without `#!`, or a program gone since: the shell knows what to do.
                is_for_shell = error.errno in (errno.ENOEXEC, errno.ENOENT)
                if not is_for_shell or error.filename == launch.cwd:
                    raise
        # A command that begins like a flag is none of the shell's.
        flags = [b"-c", b"--"] if text[:1] in (b"-", b"+") else [b"-c"]
        return start(Launch([b"sh", *flags, text], b"/bin/sh", *launch[2:]))

    def _program(self, command: str, path: str, cwd: str | None) -> str | None:
        key = (command.split(None, 1)[0], path, cwd)
        if key not in self.programs:
            self.programs[key] = resolve_program(*key)
        return self.programs[key]

    def _explain_start(
        self,
        task: _Running,
        command: str | list[str],
        error: OSError | ValueError,
        launch: Launch,
    ) -> None:
        cwd = launch.cwd
        if isinstance(error, ValueError):
            reason, exit_code = "the command holds a NUL character", 126
        elif cwd is not None and error.filename == cwd:
            reason, exit_code = f"cannot run in {cwd}: {error.strerror}", 126
        elif error.errno == errno.E2BIG:
            reason, exit_code = f"cannot start: {_say_too_long(command, launch)}", 126
        else:
            word = command if isinstance(command, str) else command[0]
            short = explain_shortage(OSError(error.errno, ""))
            reason = f"cannot start {word[:200]}: {short or error.strerror}"
            exit_code = 127 if error.errno == errno.ENOENT else 126
        os.write(launch.stderr, f"umpteen: {reason}\n".encode("utf-8", "surrogateescape"))
        task.reaped = (exit_code, None, 0.0)
        self._conclude(task, reason)

    def _fail_to_start(self, task: _Running, reason: str) -> None:
        """Record what cannot even be prepared; there is no folder to leave files in."""
        task.start_s = time.time()
        task.reaped = (126, None, 0.0)
        self._report(task, self._build_record(task, TaskState.FAILED.value, reason, (0, 0)))

    def _see_end(self, task: _Running) -> None:
        seconds = time.monotonic() - task.started_s
        end_group(
            task.pid, signal.SIGKILL
        )  # what it left behind in its group, before the pid is free
        status, usage = self.watcher.reap(task.pid)
        del self.running[task.pid]
        self.timed.discard(task)
        self.limited.discard(task)
        task.reaped = (os.waitstatus_to_exitcode(status), usage, seconds)
        reason = ""
        if task.reaped[0] == 255 and (failure := self.spawner.read_failure(None, b"")):
            reason = f"cannot start: {failure.strerror}"
        if task.ending:
            self._end_strays(task)
        if not self.is_orphan:  # else the next start is to see what ran when its runner died
            self.setup.lease.end_slot(task.slot, task.ordinal, task.position)
        self._conclude(task, reason)

    def _end_strays(self, task: _Running) -> None:
        """End descendants that made sessions of their own (other runners excepted)."""
        marks = {"UMPTEEN_TASK_INDEX": str(task.index), "UMPTEEN_ATTEMPT": str(task.attempt)}
        for pid in list_marked(RUNNER_VARIABLE, self.setup.token, marks):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue

    def _end_below(self) -> None:
        """End what was below tasks when the runner died: nothing may lead to it any more."""
        for entry in self.below:
            if is_running(entry.pid, entry.start_ticks):
                with contextlib.suppress(OSError):
                    os.kill(entry.pid, signal.SIGKILL)

    def _conclude(self, task: _Running, reason: str = "") -> None:
        """Leave the task's files complete, then report it; again later if the store refuses."""
        try:
            record = self._leave_files(task, reason)
        except OSError as error:
            if error.errno not in _STORE_TROUBLE:
                # The command removed its own folder, say: its outcome is its own affair.
                reason = f"could not keep its files: {_explain(error)}"
                record = self._build_record(task, TaskState.FAILED.value, reason, (0, 0))
            elif self.stopping:
                self._report_kept(task, reason, error)
                return
            else:
                self.concluding.add((task.ordinal, task.position))
                self._hold(lambda: self._conclude(task, reason), error)
                return
        self.concluding.discard((task.ordinal, task.position))
        self._report(task, record)

    def _leave_files(self, task: _Running, reason: str) -> Record:
        assert task.reaped is not None
        exit_code = task.reaped[0]
        _refuse_link(task.folder)
        self._keep_results(task)
        if task.batch.written is not None and not task.is_spooled:
            os.makedirs(f"{task.folder}/results", exist_ok=True)  # as programs expect of `sc`
        if task.limit is not None and _is_over_limit(task):
            task.ending = task.ending or _TOO_MUCH_OUTPUT
            for name in ("stdout", "stderr"):
                _cut(f"{task.folder}/{name}", task.limit)
        missing = "" if exit_code or task.ending else _find_missing(task)
        if task.ending:
            state, reason = task.ending
        elif missing:
            state, reason = TaskState.FAILED.value, f"did not leave {missing}"
        else:
            state = (TaskState.FAILED if exit_code else TaskState.SUCCEEDED).value
        if state != TaskState.WAITING.value:
            _write_whole(f"{task.folder}/{task.batch.status_file}", b"%d" % exit_code)
        sizes = _size(task.folder + "/stdout"), _size(task.folder + "/stderr")
        return self._build_record(task, state, reason, sizes)

    def _keep_results(self, task: _Running) -> None:
        target = task.folder + "/results"
        if task.results != self.slot_results.get(task.slot):
            if task.results and os.path.isdir(task.results) and os.listdir(task.results):
                _copy_folder(task.results, target)
            if task.made_results:
                shutil.rmtree(task.results, ignore_errors=True)
            return
        try:
            if os.stat(task.results).st_mtime_ns == 0 or not os.listdir(task.results):
                return
            _move_folder(task.results, target)
        except FileNotFoundError:
            pass  # the command removed its own results folder
        except NotADirectoryError:
            os.unlink(task.results)  # or put a file in its place
        self._new_results(task.slot)

    def _build_record(
        self, task: _Running, state: str, reason: str, sizes: tuple[int, int]
    ) -> Record:
        assert task.reaped is not None
        exit_code, usage, seconds = task.reaped
        return Record(
            task=task.index,
            digest=task.digest,
            attempt=task.attempt,
            state=state,
            exit_code=exit_code if exit_code >= 0 else None,
            signal=-exit_code if exit_code < 0 else None,
            start_s=round(task.start_s, 3),
            end_s=round(task.start_s + seconds, 3),
            seconds=round(seconds, 4),
            cpu_s=round(usage.ru_utime + usage.ru_stime, 4) if usage else 0.0,
            peak_kb=usage.ru_maxrss if usage else 0,
            slot=task.slot,
            stdout_bytes=sizes[0],
            stderr_bytes=sizes[1],
            outputs=task.outputs,
            reason=reason[:300],
        )

    def _report(self, task: _Running, record: Record) -> None:
        self._tell(b"%d %d %d " % (task.ordinal, task.position, NUMBER_OF[record.state]), record)
        self.free.append(task.slot)

    def _report_cancelled(self, task: _Running) -> None:
        """A task that was given out, and called back before it started."""
        task.start_s, task.reaped = time.time(), (0, None, 0.0)
        task.digest = task.batch.digest(task.position)
        record = self._build_record(task, TaskState.CANCELLED.value, "", (0, 0))
        self._report(task, record._replace(exit_code=None))

    def _report_kept(self, task: _Running, reason: str, error: OSError) -> None:
        """The outcome of a task whose files could not be completed: told, never recorded."""
        state = (TaskState.FAILED if task.reaped and task.reaped[0] else TaskState.SUCCEEDED).value
        record = self._build_record(task, state, reason or str(error), (0, 0))
        self._tell(b"kept %d %d " % (task.ordinal, task.position), record)
        self.free.append(task.slot)

    def _tell(self, head: bytes, record: Record) -> None:
        self._write_done(head + record.to_line().encode() + b"\n")

    def _write_done(self, line: bytes) -> None:
        try:
            os.write(self.setup.done, line)  # below PIPE_BUF, so never mixed with another lane's
        except BrokenPipeError:
            self.stopping = True  # the runner is gone, and with it whoever could record this

    # --- a store that refuses -----------------------------------------------------------

    def _hold(self, again: Callable[[], None], error: OSError) -> None:
        place = error.filename or self.setup.store.address
        self._write_done(f"! {error.strerror}: {place}"[:1000].encode() + b"\n")
        self.retries.append(again)
        self.retry_at_s = time.monotonic() + _RETRY_S

    def _retry(self) -> None:
        again, self.retries = self.retries, []
        self.retry_at_s = float("inf")
        for attempt in again:
            attempt()


def _encode_environment(variables: Mapping[str, str]) -> list[bytes]:
    return [f"{key}={value}".encode("utf-8", "surrogateescape") for key, value in variables.items()]


def _find_program(word: str, path: str, cwd: str | None) -> str:
    """The file that a list's first word names, as execvp would find it."""
    if "/" in word:
        return word
    for folder in path.split(":"):
        candidate = os.path.join(folder or ".", word)
        if os.access(os.path.join(cwd or "", candidate), os.X_OK) and not os.path.isdir(candidate):
            return candidate
    raise FileNotFoundError(errno.ENOENT, "no such program", word)


def _find_missing(task: _Running) -> str:
    """The first file that the task should have left and has not; empty where all are there."""
    for path in task.batch.terms_of(task.position).get("expect", ()):
        is_result = path.startswith("results/")
        folder = task.folder if is_result else task.cwd or os.getcwd()
        if not is_left(folder, path):
            return str(path)
    return ""


def is_left(folder: str, path: str) -> bool:
    """Whether there is a file, or one like a pattern, in a folder."""
    if os.path.lexists(os.path.join(folder, path)):
        return True
    return any(sign in path for sign in "*?[") and _has_match(folder, path)


def _has_match(folder: str, pattern: str) -> bool:
    # Not root_dir, which Python 3.9 does not have.
    found = glob.iglob(os.path.join(glob.escape(folder), pattern), recursive=True)
    return next(found, None) is not None


def _say_too_long(command: str | list[str], launch: Launch) -> str:
    """What of a command and its environment is longer than the system takes."""
    for entry in launch.env:
        if len(entry) >= _WORD_MOST:
            name = os.fsdecode(entry.partition(b"=")[0])
            return f"the variable {name} is longer than {_WORD_MOST >> 10} KiB"
    words = [command] if isinstance(command, str) else command
    if any(len(os.fsencode(word)) >= _WORD_MOST for word in words):
        return f"the command is longer than {_WORD_MOST >> 10} KiB: put it into a file"
    return "the command and its environment are longer together than this system takes"


def _is_over_limit(task: _Running) -> bool:
    written = _size(task.folder + "/stdout") + _size(task.folder + "/stderr")
    return task.limit is not None and written > task.limit


def _cut(path: str, size: int) -> None:
    if _size(path) > size:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)


def _refuse_link(folder: str) -> None:
    """Raises NotPlainError where somebody put a link in its place while the command ran."""
    if os.path.islink(folder):
        raise NotPlainError(errno.ELOOP, "it is a link, and is not followed", folder)


def _move_folder(source: str, target: str) -> None:
    """Put what is in one folder into another, beside what the command left there by itself."""
    if os.path.islink(target) or os.path.isfile(target):
        os.unlink(target)
    try:
        os.rename(source, target)
    except OSError as error:
        # Of a task with an address of its own; or something is there, maybe half of this.
        if error.errno not in (errno.EXDEV, errno.ENOTEMPTY, errno.EEXIST):
            raise
        _copy_folder(source, target)
        shutil.rmtree(source)


def _copy_folder(source: str, target: str) -> None:
    """Its files, links and folders; all that can be copied is, before the first error is raised.

    Others may be at work in it: what they remove meanwhile is no loss. It may hold the target,
    or be it.
    """
    os.makedirs(target, exist_ok=True)
    there = os.stat(target)
    failed: list[tuple[str, OSError]] = []
    if not os.path.samestat(os.stat(source), there):
        _copy_below(source, target, there, failed)
    failed = [each for each in failed if os.path.lexists(each[0])]
    for _, error in failed:
        if error.errno in _NO_ROOM:
            raise error
    if failed:
        raise shutil.Error([(path, target, error.strerror) for path, error in failed])


def _copy_below(
    source: str, target: str, skipped: os.stat_result, failed: list[tuple[str, OSError]]
) -> None:
    try:
        with os.scandir(source) as found:
            entries = list(found)
        os.makedirs(target, exist_ok=True)
    except OSError as error:
        failed.append((source, error))
        return
    for entry in entries:
        goal = f"{target}/{entry.name}"
        try:
            if entry.is_symlink():
                _copy_link(entry.path, goal)
            elif entry.is_file():
                if os.path.islink(goal):
                    os.unlink(goal)
                shutil.copy2(entry.path, goal)
            elif entry.is_dir() and not os.path.samestat(entry.stat(), skipped):
                _copy_below(entry.path, goal, skipped, failed)
        except OSError as error:
            failed.append((entry.path, error))
    with contextlib.suppress(OSError):  # last, as a folder may not allow writing
        shutil.copystat(source, target)


def _copy_link(source: str, goal: str) -> None:
    if os.path.lexists(goal):
        os.unlink(goal)
    os.symlink(os.readlink(source), goal)


def _explain(error: OSError) -> str:
    """Of those of a whole folder the first."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        source, _, reason = error.args[0][0]
        return f"{reason}: {source}"
    return f"{error.strerror}: {error.filename}"


def _open_fresh(path: str) -> int:
    """A new file, in place of what is there."""
    try:
        return os.open(path, NEW_FILE, 0o666)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, NEW_FILE, 0o666)


def _write_whole(path: str, content: bytes) -> None:
    fd = _open_fresh(path)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _list_owner(folder: str) -> set[int]:
    try:
        return {os.stat(folder).st_uid}
    except OSError:
        return set()
