"""One attempt of a task, from its ticket to its record.

It has its outputs and starts its command; when it starts, is ended, and is tried again where the
store refuses, is the lane's to decide. Standard library alone.
"""

from __future__ import annotations

import enum
import os
import signal
import time
from typing import Any, NamedTuple

from umpteen.model.batch import BatchView
from umpteen.model.command import RUNNER_VARIABLE, build_digest, build_environment
from umpteen.model.reasons import Reason, write_reason
from umpteen.model.record import Record
from umpteen.model.states import TaskState
from umpteen.model.variables import (
    ATTEMPT,
    CUDA_DEVICES,
    PLAIN_RESULTS_DIR,
    SATURN_OUTPUT,
    SATURN_RESULTS_DIR,
    SYNCED,
    TASK_INDEX,
)
from umpteen.runner.lanes.command import Command, CommandStarter, StartError
from umpteen.runner.lanes.outputs import OutputFolders, Outputs
from umpteen.runner.lanes.protocol import Ticket
from umpteen.runner.lease import Lease, SlotEntry
from umpteen.runner.working_folder import choose_cwd, find_synced
from umpteen.system.host import boot_ticks
from umpteen.system.processes import end_group, list_marked

__all__ = ["TIMED_OUT", "TOO_MUCH_OUTPUT", "Attempt", "Ending", "Exit", "LoadedBatch", "Phase"]

# As bytes, as an environment is.
_SYNCED, _RESULTS = SYNCED.encode(), PLAIN_RESULTS_DIR.encode()
_SATURN_RESULTS, _SATURN_OUTPUT = SATURN_RESULTS_DIR.encode(), SATURN_OUTPUT.encode()
_REASON_MOST = 300  # characters
_CANNOT_START = 126  # an exit code, as a shell has it
_NEVER_S = float("inf")


class LoadedBatch(NamedTuple):
    """A batch as a lane has it: what is the same for all of its tasks is looked up once."""

    view: BatchView
    cwd: str | None  # where its commands start; None: where the runner is
    synced: bytes | None  # its first synced folder on this machine; None where it has none

    @classmethod
    def load(cls, view: BatchView) -> LoadedBatch:
        """Look it up."""
        synced = os.fsencode(find_synced(view) or "") if view.synced else None
        return cls(view, choose_cwd(view), synced)


class Phase(enum.Enum):
    """How far an attempt is."""

    GIVEN = "given"  # its command has not started
    RUNNING = "running"
    ENDED = "ended"  # its command has, or never will start; its files may not be complete


class Ending(NamedTuple):
    """Why an attempt is ended from outside: what its record says."""

    state: TaskState
    reason: str = ""


TIMED_OUT = Ending(TaskState.TIMED_OUT)
TOO_MUCH_OUTPUT = Ending(TaskState.FAILED, Reason.OUTPUT_LIMIT.value)


class Exit(NamedTuple):
    """How a command ended."""

    status: int  # as `subprocess` has it: minus the signal where one ended it
    usage: Any = None  # of `wait4`; None where nothing was started
    seconds: float = 0.0


class Attempt:
    """One attempt from its ticket to its record."""

    __slots__ = (
        "batch",
        "cwd",
        "digest",
        "ending",
        "exit",
        "index",
        "kill_at_s",
        "outputs",
        "phase",
        "pid",
        "problem",
        "slot",
        "start_s",
        "started_s",
        "ticket",
        "timeout_at_s",
        "view",
    )

    def __init__(
        self, ticket: Ticket, slot: int, batch: LoadedBatch, folders: OutputFolders
    ) -> None:
        self.ticket, self.slot, self.batch, self.view = ticket, slot, batch, batch.view
        self.index = batch.view.indices[ticket.position]
        self.outputs = Outputs(ticket, batch.view, folders)
        self.cwd = batch.cwd
        self.digest = ""
        self.phase = Phase.GIVEN
        self.pid = 0
        self.start_s = 0.0  # since 1970
        self.started_s = 0.0  # the same on the monotonic clock, as the next two are
        self.timeout_at_s = self.kill_at_s = _NEVER_S
        self.ending: Ending | None = None  # where it was ended from outside
        self.exit: Exit | None = None
        self.problem = ""  # why its command could not be started

    # --- its beginning --------------------------------------------------------------------

    def start(
        self, starter: CommandStarter, folders: OutputFolders, lease: Lease, gpus: tuple[str, ...]
    ) -> None:
        """Make its folder and start its command: it runs then, or has ended because it cannot.

        Raises OSError where the folder cannot be made; it can be called again then.
        """
        terms = self.view.terms_of(self.ticket.position)
        words = terms.get("argv") or self.view.runs[self.ticket.position]["cmd"]
        env, written_cwd = terms.get("env"), terms.get("cwd")
        if written_cwd is not None:
            self.cwd = os.path.join(self.batch.cwd or "", os.path.expanduser(written_cwd))
        self.digest = build_digest(words, env, written_cwd)
        self.outputs.limit_bytes = terms.get("output_limit")
        if cpus := terms.get("cpus"):
            env = {**starter.limit_threads(cpus), **(env or {})}
        if mask := self.ticket.devices:
            chosen = ",".join(gpu for place, gpu in enumerate(gpus) if mask >> place & 1)
            env = {CUDA_DEVICES: chosen, **(env or {})}
        stdout, stderr = self.outputs.prepare(folders, self.slot, self.cwd)
        try:
            variables = self._build_variables(folders)
            command = Command(words, variables, env or {}, self.cwd)
            self._spawn(starter, command, (stdout, stderr), lease)
        finally:
            os.close(stdout)
            os.close(stderr)
        timeout_s = terms.get("timeout_s")
        if timeout_s and self.phase is Phase.RUNNING:
            self.timeout_at_s = self.started_s + timeout_s

    def _spawn(
        self, starter: CommandStarter, command: Command, files: tuple[int, int], lease: Lease
    ) -> None:
        ordinal, position = self.ticket.key
        self.start_s, ticks = time.time(), boot_ticks()
        self.started_s = time.monotonic()
        lease.mark_slot(self.slot, ordinal, position)
        try:
            self.pid = starter.start(command, *files)
        except StartError as failure:
            lease.clear_slot(self.slot)
            self.phase, self.problem = Phase.ENDED, str(failure)
            self.exit = Exit(failure.exit_code)
            return
        self.phase = Phase.RUNNING
        lease.set_slot(SlotEntry(self.slot, ordinal, position, self.pid, ticks, self.start_s))

    def _build_variables(self, folders: OutputFolders) -> list[bytes]:
        """What the command finds in its environment of ours."""
        view, position = self.view, self.ticket.position
        variables = build_environment(
            view.job,
            view.names[position],
            self.index,
            self.ticket.attempt,
            self.slot,
            self.outputs.results,
            view.output(position),
        )
        if view.written is not None or not folders.is_of_slot(self.outputs.results, self.slot):
            variables = self._keep_words(variables)
        if self.batch.synced is not None:
            variables.append(b"%s=%s" % (_SYNCED, self.batch.synced))
        return variables

    def _keep_words(self, variables: list[bytes]) -> list[bytes]:
        """What a file from elsewhere says is handed on in its own words, a slash at the end too."""
        position, written = self.ticket.position, self.view.written
        said: dict[bytes, bytes] = {}
        if given := self.view.runs[position].get("local_results_dir"):
            said[_SATURN_RESULTS] = os.fsencode(given)
        if written is not None:
            output = written.get(str(position), self.view.output(position))
            said[_SATURN_OUTPUT] = os.fsencode(output)
            theirs = os.environb.get(_RESULTS)  # what our caller calls so
            if theirs is not None:
                said[_RESULTS] = theirs
        kept = (line for line in variables if line.split(b"=", 1)[0] not in said)
        return [*kept, *(b"%s=%s" % pair for pair in said.items())]

    # --- its end --------------------------------------------------------------------------

    def ask_to_end(self, ending: Ending, grace_s: float | None = None) -> None:
        """Send SIGTERM, and have it killed after a grace: its own where none is given."""
        if self.ending is None:
            self.ending = ending
            end_group(self.pid, signal.SIGTERM)
        grace_s = self.view.grace_s if grace_s is None else grace_s
        self.kill_at_s = min(self.kill_at_s, time.monotonic() + grace_s)
        self.timeout_at_s = _NEVER_S

    def kill(self) -> None:
        """Send SIGKILL."""
        self.kill_at_s = _NEVER_S
        end_group(self.pid, signal.SIGKILL)

    def end_strays(self, token: str) -> None:
        """End descendants that made sessions of their own (other runners excepted)."""
        marks = {TASK_INDEX: str(self.index), ATTEMPT: str(self.ticket.attempt)}
        for pid in list_marked(RUNNER_VARIABLE, token, marks):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue

    def note_exit(self, exit_: Exit) -> None:
        """Its command has ended."""
        self.phase, self.exit = Phase.ENDED, exit_

    def complete(self, folders: OutputFolders) -> Record:
        """Leave its files complete; its record. Raises OSError, and can be called again then."""
        assert self.exit is not None
        outputs, exit_code = self.outputs, self.exit.status
        outputs.collect(folders, self.slot)
        if outputs.is_over_limit():
            self.ending = self.ending or TOO_MUCH_OUTPUT
            outputs.cut()
        missing = "" if exit_code or self.ending else outputs.find_missing(self.cwd)
        if self.ending:
            state, reason = self.ending
        elif missing:
            state, reason = TaskState.FAILED, write_reason(Reason.MISSING_FILE, path=missing)
        else:
            state, reason = self._judge_exit(), self.problem
        if state is not TaskState.WAITING:
            outputs.write_status(exit_code)
        return self._build_record(state, reason, outputs.measure())

    def _judge_exit(self) -> TaskState:
        assert self.exit is not None
        return TaskState.FAILED if self.exit.status else TaskState.SUCCEEDED

    # --- its record, where it has no files ------------------------------------------------

    def fail(self, reason: str) -> Record:
        """Its record where it could not be prepared, or its files could not be completed."""
        if self.exit is None:
            self.start_s = time.time()
            self.note_exit(Exit(_CANNOT_START))
        return self._build_record(TaskState.FAILED, reason)

    def cancel(self) -> Record:
        """Its record where it is not to start any more."""
        self.start_s = time.time()
        self.digest = self.view.digest(self.ticket.position)
        self.note_exit(Exit(0))
        return self._build_record(TaskState.CANCELLED, "")._replace(exit_code=None)

    def keep(self, error: OSError) -> Record:
        """Its record where its files cannot be completed, and that is the store's fault."""
        return self._build_record(self._judge_exit(), self.problem or str(error))

    def _build_record(
        self, state: TaskState, reason: str, sizes: tuple[int, int] = (0, 0)
    ) -> Record:
        assert self.exit is not None
        exit_code, usage, seconds = self.exit
        return Record(
            task=self.index,
            digest=self.digest,
            attempt=self.ticket.attempt,
            state=state.value,
            exit_code=exit_code if exit_code >= 0 else None,
            signal=-exit_code if exit_code < 0 else None,
            start_s=round(self.start_s, 3),
            end_s=round(self.start_s + seconds, 3),
            seconds=round(seconds, 4),
            cpu_s=round(usage.ru_utime + usage.ru_stime, 4) if usage else 0.0,
            peak_kb=usage.ru_maxrss if usage else 0,
            slot=self.slot,
            stdout_bytes=sizes[0],
            stderr_bytes=sizes[1],
            outputs=self.outputs.below,
            reason=reason[:_REASON_MOST],
        )
