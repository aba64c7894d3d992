"""Asks the Slurm cluster that the commands of this machine, or of a host behind ssh, lead to.

All handles are asked after by one squeue, whose answer is kept for a while that grows with the
time since something was submitted: a tenth of that, so that a long job costs few questions. It asks
by names, as an array may have been submitted by another job in the queue, and in parts.
"""

from __future__ import annotations

import getpass
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

from umpteen.errors import BackendError
from umpteen.executors.base import BatchState
from umpteen.executors.command import Commands, refuse
from umpteen.executors.slurm.answers import (
    NAME_FIELDS,
    QUEUE_FIELDS,
    Config,
    NodeKind,
    QueueLine,
    parse_accounts,
    parse_config,
    parse_jobs,
    parse_nodes,
    parse_queue,
    parse_submit_limit,
    read_state,
)
from umpteen.executors.slurm.script import build_elements
from umpteen.model.variables import SLURM_CONF
from umpteen.runner.slurm.commands import build_sbatch, is_full, is_transient, parse_job_id
from umpteen.runner.slurm.plan import SUBMITTER, find_mark, name_submitter
from umpteen.system.commands import Answer
from umpteen.system.openssh import Destination, parse_destination

__all__ = ["Cluster", "Handle", "QueueAnswer", "find_cluster", "find_jobs", "parse_handle"]

_LEAST_S, _MOST_S, _SHARE = 0.2, 30.0, 0.1  # for how long an answer of squeue is kept
_ALL_INDICES = {"SLURM_BITSTR_LEN": "0"}  # else a long list of indices is cut
_REFUSED_HINT = "what the options say is for sbatch: see docs/slurm.md"
_NAMES_MOST = 50_000  # characters of names on a command line, which takes 128 KiB at most
_HINT = "umpteen uses Slurm's own commands: run it on a machine that has them"
# What would have sbatch wait for the end of the job, or submit it elsewhere.
_LEFT_OUT = dict.fromkeys(("SBATCH_WAIT", "SBATCH_CLUSTERS", "SLURM_CLUSTERS"))


class Handle(NamedTuple):
    """Where a batch is."""

    cluster: str  # its name, and behind an @ the host where its commands are
    prefix: str  # of the name by which its array is known to be ours: NAME-MARK
    number: int  # of the array
    element: int  # its index in the array
    called: str = ""  # what Slurm calls its array, where that is another

    def __str__(self) -> str:
        called = f"={quote(self.called, safe='')}" if self.called else ""
        return f"{self.cluster}/{self.prefix}{called}/{self.number}/{self.element}"

    @property
    def name(self) -> str:
        """By which its array is known to be ours."""
        return f"{self.prefix}-{self.number}"

    @property
    def slurm_name(self) -> str:
        """What Slurm calls its array."""
        return self.called or self.name

    @property
    def mark(self) -> str:
        """The word of the submission."""
        return self.prefix.rpartition("-")[2]

    @property
    def submitter(self) -> str:
        """Slurm's name for the job that submits it, where there was no room for it at once."""
        return name_submitter(self.mark)


def parse_handle(text: str) -> Handle | None:
    """What `str` made of a handle; None of what is none."""
    parts = text.rsplit("/", 3)
    if len(parts) != 4 or not (parts[2].isdecimal() and parts[3].isdecimal()):
        return None
    host = parts[0].partition("@")[2]
    if host and parse_destination(host) is None:
        return None
    prefix, _, called = parts[1].partition("=")
    return Handle(parts[0], prefix, int(parts[2]), int(parts[3]), unquote(called))


class QueueAnswer:
    """What squeue says of some jobs: each element that it knows, by name and index."""

    def __init__(self, lines: Sequence[QueueLine]) -> None:
        self._found = {(line.name, index): line for line in lines for index in line.indices}
        living = (line for line in lines if read_state(line.state) != BatchState.ENDED)
        ending = f"-{SUBMITTER}"
        self._submitters: dict[str, list[int]] = {}  # one may have submitted the next already
        for line in living:
            if line.name.endswith(ending):
                self._submitters.setdefault(line.name, []).append(line.job)

    def find(self, handle: Handle) -> QueueLine | None:
        """The line of an element; None where none is there that has the handle's mark."""
        return self._found.get((handle.name, handle.element))

    def find_state(self, handle: Handle) -> BatchState:
        """How far an element is: it waits where it is still to be submitted by a job there."""
        line = self.find(handle)
        if line is None and handle.submitter in self._submitters:
            return BatchState.QUEUED
        return read_state(line.state) if line else BatchState.ENDED

    def list_submitters(self, handles: Iterable[Handle]) -> list[int]:
        """The jobs that wait or run, and have still to submit something of these submissions."""
        names = {handle.submitter for handle in handles} & self._submitters.keys()
        return sorted(job for name in names for job in self._submitters[name])


class Cluster:
    """The cluster that commands lead to, with what it answered. host: as of `Commands`."""

    def __init__(self, host: Destination | None = None) -> None:
        self.host = host
        self._commands = Commands(is_transient, _HINT, host)
        self._lock = threading.RLock()  # a job is looked at in threads
        self._config: Config | None = None
        self._queue: QueueAnswer | None = None
        self._asked: frozenset[str] = frozenset()
        self._jobs: dict[str, set[int]] = {}  # what was ever seen of a name
        self._missing: set[str] = set()  # names that are not there, as was said twice
        self._asked_s, self._since_s = 0.0, time.monotonic()

    def read_config(self, *, is_patient: bool = True) -> Config:
        """Its name and its limits. Raises BackendError."""
        with self._lock:
            if self._config is None:
                command = ["scontrol", "show", "config"]
                answer = self._run(command, is_patient=is_patient)
                self._config = parse_config(answer.out)
            return self._config

    def read_name(self, *, is_patient: bool = True) -> str:
        """As handles have it. Raises BackendError."""
        name = self.read_config(is_patient=is_patient).cluster
        return f"{name}@{self.host}" if self.host else name

    def read_submit_limit(self) -> int | None:
        """How many jobs this user may have in the queue; None where that is not known."""
        try:
            user = self.host.user if self.host and self.host.user else getpass.getuser()
        except (KeyError, OSError):  # one without a name
            return None
        command = ["scontrol", "show", "assoc_mgr", f"users={user}", "flags=assoc"]
        try:
            return parse_submit_limit(self._run(command, is_patient=False).out)
        except BackendError:
            return None

    def list_nodes(self, partition: str) -> list[NodeKind]:
        """The nodes of a partition, or of the default one. Raises BackendError."""
        answer = self._run(["sinfo", "-he", "-o", "%D|%c|%m|%G|%P|%a"])
        return parse_nodes(answer.out, partition)

    def read_queue(self, handles: Iterable[Handle]) -> QueueAnswer | None:
        """What squeue says of these, or has just said; None where it does not answer."""
        names = frozenset(name for each in handles for name in (each.slurm_name, each.submitter))
        with self._lock:
            now = time.monotonic()
            kept_s = min(max(_LEAST_S, _SHARE * (now - self._since_s)), _MOST_S)
            if not names <= self._asked or now - self._asked_s >= kept_s:
                self._asked |= names  # of all that are asked after in turn, else each would ask
                self._queue = self._ask_queue(self._asked)
                self._asked_s = time.monotonic()
            return self._queue

    def _ask_queue(self, names: frozenset[str]) -> QueueAnswer | None:
        """What squeue says; that it knows nothing of a name is believed when it says so twice."""
        found: list[QueueLine] = []
        for part in _cut(sorted(names)):
            lines = self._ask_once(part)
            if lines is not None and self._list_unsaid(part, lines):
                lines = self._ask_once(part)
            if lines is None:
                return None
            self._missing |= self._list_unsaid(part, lines)
            found += lines
        for line in found:
            self._jobs.setdefault(line.name, set()).add(line.job)
        return QueueAnswer(found)

    def _ask_once(self, names: Sequence[str]) -> list[QueueLine] | None:
        command = ["squeue", "-h", "--states=all", f"--name={','.join(names)}", "-O", QUEUE_FIELDS]
        try:
            answer = self._commands.run(command, environment=_ALL_INDICES, is_patient=False)
        except BackendError:
            return None
        if answer.code or (answer.out and not answer.out.endswith("\n")):
            return None
        return list(parse_queue(answer.out))

    def _list_unsaid(self, names: Sequence[str], lines: Sequence[QueueLine]) -> set[str]:
        """Names of arrays that should be there as far as is known, and are not."""
        said = {line.slurm_name for line in lines}
        return {
            name
            for name in names
            if not name.endswith(f"-{SUBMITTER}")
            and name not in said | self._missing
            and name_submitter(find_mark(name)) not in said
        }

    def list_forgotten(self, handles: Iterable[Handle]) -> QueueAnswer:
        """What the accounting knows of jobs that the queue has no more; nothing without one."""
        jobs = {job for handle in handles for job in self._jobs.get(handle.name, ())}
        if not jobs:
            return QueueAnswer([])
        numbers = ",".join(map(str, sorted(jobs)))
        fields = "JobID,State,ExitCode,NodeList,JobName,Comment"
        try:
            answer = self._run(["sacct", "-nPX", "-j", numbers, "-o", fields], is_patient=False)
        except BackendError:
            return QueueAnswer([])
        return QueueAnswer(list(parse_accounts(answer.out)))

    def submit(
        self, options: Mapping[str, str], script: str, environment: Mapping[str, str], name: str
    ) -> int | None:
        """The number of the job that a script became; None where Slurm takes no more just now.

        A call that was not answered may have submitted it: it is looked for by its name. Raises
        BackendError, in sbatch's words. name: by which it is known to be that job.
        """
        command = build_sbatch(options)
        found: list[int] = []

        def is_missing() -> bool:
            named = ["squeue", "-h", f"--name={options['job-name']}", "-O", NAME_FIELDS]
            for _ in range(2):  # an empty answer is believed when it comes twice
                found.extend(parse_jobs(self._run(named).out, name))
                if found:
                    break
            return not found

        answer = self._commands.run(
            command, given=script, environment={**_LEFT_OUT, **environment}, is_undone=is_missing,
            gives_up_on=is_full,
        )  # fmt: skip
        job = found[0] if found else parse_job_id(answer.out)
        if job is None and is_full(answer.said):
            return None if not answer.is_lost or is_missing() else found[0]
        if job is None:
            raise refuse(command, answer, _REFUSED_HINT)
        with self._lock:
            self._since_s, self._asked = time.monotonic(), frozenset()
            self._jobs.setdefault(name, set()).add(job)
        return job

    def list_jobs(self, handle: Handle) -> list[int]:
        """The numbers of the jobs that were seen of its array: none before it was submitted."""
        with self._lock:
            return sorted(self._jobs.get(handle.name, ()))

    def cancel(self, elements: Mapping[int, Sequence[int]], *more: str) -> None:
        """Call scancel for elements of arrays, by job; for a whole job where none is named.

        more: its options.
        """
        if elements:
            named = [
                build_elements(job, indices) if indices else str(job)
                for job, indices in elements.items()
            ]
            self._commands.run(["scancel", "--quiet", *more, *named])
            with self._lock:
                self._asked = frozenset()

    def _run(self, command: Sequence[str], *, is_patient: bool = True) -> Answer:
        answer = self._commands.run(command, is_patient=is_patient)
        if answer.code:
            raise refuse(command, answer, _HINT)
        return answer


def _cut(names: Sequence[str]) -> Iterator[list[str]]:
    """The names in parts that each fit on a command line."""
    part: list[str] = []
    for name in names:
        if part and len(",".join(part)) + len(name) > _NAMES_MOST:
            yield part
            part = []
        part.append(name)
    if part:
        yield part


_clusters: dict[tuple[Destination | None, str], Cluster] = {}


def find_cluster(host: Destination | None = None) -> Cluster:
    """That of this process: a job is looked at again and again, by executors of its own each."""
    config = os.environ.get(SLURM_CONF, "")
    return _clusters.setdefault((host, config), Cluster(host))


def find_jobs(text: str) -> list[int]:
    """The numbers of the jobs that this process knows of the array of a handle."""
    handle = parse_handle(text)
    if handle is None:
        return []
    return find_cluster(parse_destination(handle.cluster.partition("@")[2])).list_jobs(handle)
