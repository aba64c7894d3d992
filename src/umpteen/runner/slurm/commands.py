"""Slurm's commands as they are called and read on a node as well as where a job is submitted."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from umpteen.model.command import join_option
from umpteen.model.variables import SLURM_CONF
from umpteen.runner.slurm.plan import find_own_name
from umpteen.system.commands import Answer, run_here

__all__ = [
    "CALLS_A_S",
    "ELEMENT_FIELDS",
    "ENDED",
    "QueuedElement",
    "SlurmCommands",
    "build_sbatch",
    "is_full",
    "is_transient",
    "parse_elements",
    "parse_job_id",
]

CALLS_A_S = 1.0  # that the submitter makes at most, averaged over _WINDOW_S
_WINDOW_S = 10.0
_LIMIT_S = 60.0
# Slurm's words for the states of what neither waits nor runs.
ENDED = frozenset(
    "COMPLETED CANCELLED FAILED TIMEOUT NODE_FAIL PREEMPTED BOOT_FAIL DEADLINE OUT_OF_MEMORY "
    "REVOKED EXPEDITING LAUNCH_FAILED RECONFIG_FAIL".split()
)
_TRANSIENT = re.compile(
    r"timed out|Unable to contact slurm controller|Connection (?:refused|reset|timed)"
    r"|Zero Bytes were transmitted|temporarily unable to accept|Resource temporarily unavailable"
    r"|Slurm backup controller in standby|Transport endpoint is not connected"
    r"|Unexpected message received|error receiving response|try again",
    re.IGNORECASE,
)
_FULL = re.compile(
    r"(?:Assoc|QOS)\w*Submit\w*Limit|temporarily unable to accept job"
    r"|submission failed: Resource temporarily unavailable"
)


class QueuedElement(NamedTuple):
    """An element of an array, as `squeue -hr -o ELEMENT_FIELDS` has it."""

    job: int
    number: int
    state: str
    name: str  # by which it is known to be ours

    @property
    def is_living(self) -> bool:
        """Whether it waits or runs."""
        return self.state not in ENDED


ELEMENT_FIELDS = "%F|%K|%T|%j|%k|"


def is_transient(said: str) -> bool:
    """Whether a command that said so may be answered later."""
    return bool(_TRANSIENT.search(said))


def is_full(said: str) -> bool:
    """Whether sbatch refused because there are too many jobs just now."""
    return bool(_FULL.search(said))


def parse_job_id(out: str) -> int | None:
    """What `sbatch --parsable` answers: `12`, or `12;cluster`; None where it is neither."""
    found = re.search(r"^(\d+)(?:;\S*)?\s*$", out, re.MULTILINE)
    return int(found[1]) if found else None


def build_sbatch(options: Mapping[str, str]) -> list[str]:
    """The command line that takes the script from stdin."""
    return ["sbatch", "--parsable", *(join_option(*each) for each in options.items())]


def parse_elements(out: str) -> list[QueuedElement] | None:
    """What squeue says of elements; None where its answer was cut short."""
    if out and not out.endswith("\n"):
        return None
    found = []
    for line in out.splitlines():
        job, _, rest = line.partition("|")
        number, _, rest = rest.partition("|")
        state, _, rest = rest.partition("|")
        name, _, comment = rest.removesuffix("|").rpartition("|")
        if job.isdecimal() and number.isdecimal() and rest.endswith("|"):
            own = find_own_name(name, comment)
            found.append(QueuedElement(int(job), int(number), state, own))
    return found


class SlurmCommands:
    """Calls them from within a job, as seldom as CALLS_A_S says."""

    def __init__(self) -> None:
        self._called: deque[float] = deque(maxlen=int(CALLS_A_S * _WINDOW_S))
        # Of our own job, which others are not to take for theirs.
        self._environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("SLURM") or key == SLURM_CONF
        }

    def run(self, command: Sequence[str], given: str = "") -> Answer:
        """What a command answers; one that does not is ended. given: on its stdin."""
        if len(self._called) == self._called.maxlen:
            time.sleep(max(0.0, self._called[0] + _WINDOW_S - time.monotonic()))
        self._called.append(time.monotonic())
        return run_here(command, given.encode(), self._environment, _LIMIT_S)
