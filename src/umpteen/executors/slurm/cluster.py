"""Asks the Slurm cluster that the commands of this machine, or of a host behind ssh, lead to.

All handles are asked after by one squeue, whose answer is kept for a while that grows with the
time since something was submitted: a tenth of that, so that a long job costs few questions.
"""

from __future__ import annotations

import getpass
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from umpteen.errors import BackendError
from umpteen.executors.command import Answer, Commands, refuse
from umpteen.executors.slurm.answers import (
    NAME_FIELDS,
    QUEUE_FIELDS,
    Config,
    NodeKind,
    QueueLine,
    is_transient,
    parse_accounts,
    parse_config,
    parse_job_id,
    parse_names,
    parse_nodes,
    parse_queue,
    parse_submit_limit,
)
from umpteen.executors.slurm.script import build_elements, build_sbatch
from umpteen.model.variables import SLURM_CONF
from umpteen.system.openssh import Destination, parse_destination

__all__ = ["Cluster", "Handle", "QueueAnswer", "find_cluster", "parse_handle"]

_LEAST_S, _MOST_S, _SHARE = 0.2, 30.0, 0.1  # for how long an answer of squeue is kept
_ALL_INDICES = {"SLURM_BITSTR_LEN": "0"}  # else a long list of indices is cut
_HINT = "umpteen uses Slurm's own commands: run it on a machine that has them"
# What would have sbatch wait for the end of the job, or submit it elsewhere.
_LEFT_OUT = dict.fromkeys(("SBATCH_WAIT", "SBATCH_CLUSTERS", "SLURM_CLUSTERS"))


class Handle(NamedTuple):
    """Where a batch is."""

    cluster: str  # its name, and behind an @ the host where its commands are
    job: int
    element: int  # its index in the array
    mark: str  # of the submission

    def __str__(self) -> str:
        return f"{self.cluster}/{self.job}/{self.element}/{self.mark}"


def parse_handle(text: str) -> Handle | None:
    """What `str` made of a handle; None of what is none."""
    parts = text.rsplit("/", 3)
    if len(parts) != 4 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return None
    host = parts[0].partition("@")[2]
    if host and parse_destination(host) is None:
        return None
    return Handle(parts[0], int(parts[1]), int(parts[2]), parts[3])


class QueueAnswer:
    """What squeue says of some jobs: each element that it knows, by job and index."""

    def __init__(self, lines: Sequence[QueueLine]) -> None:
        self._found = {(line.job, index): line for line in lines for index in line.indices}

    def find(self, handle: Handle) -> QueueLine | None:
        """The line of an element; None where none is there that has the handle's mark."""
        line = self._found.get((handle.job, handle.element))
        return line if line and f"-{handle.mark}-" in line.names else None


class Cluster:
    """The cluster that commands lead to, with what it answered. host: as of `Commands`."""

    def __init__(self, host: Destination | None = None) -> None:
        self.host = host
        self._commands = Commands(is_transient, _HINT, host)
        self._lock = threading.RLock()  # a job is looked at in threads
        self._config: Config | None = None
        self._queue: QueueAnswer | None = None
        self._asked: frozenset[int] = frozenset()
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
        user = self.host.user if self.host and self.host.user else getpass.getuser()
        command = ["scontrol", "show", "assoc_mgr", f"users={user}", "flags=assoc"]
        try:
            return parse_submit_limit(self._run(command, is_patient=False).out)
        except BackendError:
            return None

    def list_nodes(self, partition: str) -> list[NodeKind]:
        """The nodes of a partition, or of the default one. Raises BackendError."""
        answer = self._run(["sinfo", "-he", "-o", "%D|%c|%m|%G|%P|%a"])
        return parse_nodes(answer.out, partition)

    def read_queue(self, jobs: frozenset[int]) -> QueueAnswer | None:
        """What squeue says of these jobs, or has just said; None where it does not answer."""
        with self._lock:
            now = time.monotonic()
            kept_s = min(max(_LEAST_S, _SHARE * (now - self._since_s)), _MOST_S)
            if not jobs <= self._asked or now - self._asked_s >= kept_s:
                self._asked |= jobs  # of all that are asked after in turn, else each would ask
                self._queue = self._ask_queue(self._asked)
                self._asked_s = time.monotonic()
            return self._queue

    def _ask_queue(self, jobs: frozenset[int]) -> QueueAnswer | None:
        numbers = ",".join(map(str, sorted(jobs)))
        command = ["squeue", "-h", "--states=all", f"--jobs={numbers}", "-O", QUEUE_FIELDS]
        try:
            answer = self._commands.run(command, environment=_ALL_INDICES, is_patient=False)
        except BackendError:
            return None
        if answer.code and "Invalid job id" not in answer.said:  # as it says of a single old one
            return None
        return QueueAnswer(list(parse_queue(answer.out)))

    def list_forgotten(self, jobs: Sequence[int]) -> QueueAnswer:
        """What the accounting knows of jobs that the queue has no more; nothing without one."""
        numbers = ",".join(map(str, jobs))
        fields = "JobID,State,ExitCode,NodeList,JobName,Comment"
        try:
            answer = self._run(["sacct", "-nPX", "-j", numbers, "-o", fields], is_patient=False)
        except BackendError:
            return QueueAnswer([])
        return QueueAnswer(list(parse_accounts(answer.out)))

    def submit(
        self, options: Mapping[str, str], script: str, environment: Mapping[str, str], ours: str
    ) -> int:
        """The number of the job that a script became. Raises BackendError, in sbatch's words.

        A call that was not answered may have submitted it: it is looked for by its name.
        ours: the name by which it is known to be that job, and that no other has.
        """
        command = build_sbatch(options)
        variables = {**_LEFT_OUT, **environment}
        found: list[int] = []

        def is_missing() -> bool:
            named = ["squeue", "-h", f"--name={options['job-name']}", "-O", NAME_FIELDS]
            found.extend(parse_names(self._run(named).out, ours))
            return not found

        answer = self._commands.run(
            command, given=script, environment=variables, is_undone=is_missing
        )
        job = found[0] if found else parse_job_id(answer.out)
        if job is None:
            raise refuse(command, answer, "what the options say is for sbatch: see docs/slurm.md")
        with self._lock:
            self._since_s, self._asked = time.monotonic(), frozenset()
        return job

    def cancel(self, elements: Mapping[int, Sequence[int]], *more: str) -> None:
        """Call scancel for elements of arrays, by job. more: its options."""
        if elements:
            named = [build_elements(job, indices) for job, indices in elements.items()]
            self._commands.run(["scancel", "--quiet", *more, *named])
            with self._lock:
                self._asked = frozenset()

    def _run(self, command: Sequence[str], *, is_patient: bool = True) -> Answer:
        answer = self._commands.run(command, is_patient=is_patient)
        if answer.code:
            raise refuse(command, answer, _HINT)
        return answer


_clusters: dict[tuple[Destination | None, str], Cluster] = {}


def find_cluster(host: Destination | None = None) -> Cluster:
    """That of this process: a job is looked at again and again, by executors of its own each."""
    config = os.environ.get(SLURM_CONF, "")
    return _clusters.setdefault((host, config), Cluster(host))
