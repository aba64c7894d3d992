"""What Slurm's commands answer, read without a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from umpteen.executors.base import BatchState
from umpteen.runner.slurm.commands import ENDED
from umpteen.runner.slurm.plan import find_own_name

__all__ = [
    "NAME_FIELDS",
    "QUEUE_FIELDS",
    "Config",
    "NodeKind",
    "QueueLine",
    "find_reason",
    "parse_accounts",
    "parse_config",
    "parse_jobs",
    "parse_nodes",
    "parse_queue",
    "parse_submit_limit",
    "read_state",
    "say_reason",
]

# Names and comments are the last, as they may hold what stands between the others.
NAME_FIELDS = "ArrayJobID:|,Name:|,Comment:|"
QUEUE_FIELDS = "ArrayJobID:|,ArrayTaskID:|,State:|,exit_code:|,NodeList:|,Reason:|,Name:|,Comment:|"
_QUEUED = (
    "PENDING CONFIGURING REQUEUED REQUEUE_HOLD REQUEUE_FED SPECIAL_EXIT RESV_DEL_HOLD POWER_UP_NODE"
)
_RUNNING = "RUNNING COMPLETING SUSPENDED STOPPED SIGNALING STAGE_OUT RESIZING UPDATE_DB"
_STATES = {
    **dict.fromkeys(_QUEUED.split(), BatchState.QUEUED),
    **dict.fromkeys(_RUNNING.split(), BatchState.RUNNING),
    **dict.fromkeys(ENDED, BatchState.ENDED),
}
_REASONS = {
    "Resources": "no node is free that has what it asks for",
    "Priority": "jobs of higher priority are before it",
    "Dependency": "what it is after has not ended",
    "DependencyNeverSatisfied": "what it depends on did not end as it asks for, so it never starts",
    "BeginTime": "its time to begin has not come",
    "JobHeldUser": "it is held; scontrol release lets it go",
    "JobHeldAdmin": "an administrator holds it",
    "JobArrayTaskLimit": "as many elements of its array run as may",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is inactive",
    "PartitionTimeLimit": "it asks for more time than its partition gives",
    "PartitionNodeLimit": "it asks for more nodes than its partition gives",
    "PartitionConfig": "it asks for more than its partition gives",
    "BadConstraints": "no node ever has what it asks for",
    "ReqNodeNotAvail": "a node that it needs is down, drained or reserved",
    "NodeDown": "a node that it needs is down",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions":
    "nodes that it needs are down, drained or reserved",
    "Reservation": "its reservation has not begun",
    "Licenses": "licenses that it asks for are in use",
    "InvalidAccount": "its account is not valid",
    "InvalidQOS": "its QOS is not valid",
    "AccountNotAllowed": "its account may not use this partition",
    "launch failed requeued held": "it could not be started on a node, and is held",
}  # fmt: skip
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Config(NamedTuple):
    """What a cluster says of itself."""

    cluster: str  # its name
    array_size: int  # how many elements an array may have
    job_count: int = 10_000  # how many jobs may be in it; each element is one


class QueueLine(NamedTuple):
    """An element of an array, or several that are alike as they wait."""

    job: int
    indices: Sequence[int]
    state: str  # Slurm's word
    exit_code: int = 0  # as a shell says it: of a signal 128 and its number
    node: str = ""
    reason: str = ""
    name: str = ""  # by which it is known to be ours
    slurm_name: str = ""  # what Slurm calls it


class NodeKind(NamedTuple):
    """Nodes that are alike."""

    number: int  # how many of them
    cpus: int
    memory: int  # bytes
    gpus: int


def parse_config(out: str) -> Config:
    """What `scontrol show config` answers."""
    told = dict(re.findall(r"^(\w+)\s*= (\S+)", out, re.MULTILINE))
    size = told.get("MaxArraySize", "")
    # The largest index is one less than it, and the first is 0.
    count = told.get("MaxJobCount", "")
    return Config(
        told.get("ClusterName", ""),
        int(size) if size.isdecimal() else 1001,
        int(count) if count.isdecimal() else 10_000,
    )


def parse_submit_limit(out: str) -> int | None:
    """How many jobs a user may have, as `scontrol show assoc_mgr` says; None: not known."""
    found = [int(number) for number in re.findall(r"\bMaxSubmitJobs=(\d+)", out)]
    return min(found, default=None)


def parse_queue(out: str) -> Iterator[QueueLine]:
    """The lines of `squeue -O QUEUE_FIELDS`; what is no array, or was cut short, is left out."""
    for line in out.splitlines():
        fields = line.split("|", 6)
        if len(fields) < 7 or not fields[0].isdecimal() or not fields[1][:1].isdecimal():
            continue
        if not re.search(r"\|[^|]*\|\s*$", fields[6]):
            continue
        job, indices, state, status, node, reason, names = fields
        yield QueueLine(
            int(job), _parse_indices(indices), state, _read_status(status), node, reason,
            *_parse_names(names),
        )  # fmt: skip


def parse_jobs(out: str, name: str) -> list[int]:
    """Of the lines of `squeue -O NAME_FIELDS` the jobs that are known by this name."""
    lines = (line.partition("|") for line in out.splitlines())
    return [int(job) for job, _, names in lines if name == _parse_names(names)[0]]


def _parse_names(text: str) -> tuple[str, str]:
    """By which a job is known to be ours, and what Slurm calls it. text: `NAME|COMMENT|`."""
    name, _, comment = text.rstrip().removesuffix("|").rpartition("|")
    return find_own_name(name, comment), name


def _parse_indices(text: str) -> list[int]:
    """`0-3,7%2` are five indices, of which two may run at once."""
    found: list[int] = []
    for part in text.partition("%")[0].split(","):
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?(?::(\d+))?", part)
        if ends:
            found += range(int(ends[1]), int(ends[2] or ends[1]) + 1, int(ends[3] or 1))
    return found


def _read_status(text: str) -> int:
    """The exit code in what a process's parent is told of its end."""
    status = int(text) if text.isdecimal() else 0
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8


def parse_accounts(out: str) -> Iterator[QueueLine]:
    """The lines of `sacct -nPX -o JobID,State,ExitCode,NodeList,JobName,Comment`."""
    for line in out.splitlines():
        found = re.fullmatch(r"(\d+)_(\d+)\|(\w+)[^|]*\|(\d+):(\d+)\|([^|]*)\|(.*)", line)
        if found:
            job, index, state, code, number, node, names = found.groups()
            ended = 128 + int(number) if int(number) else int(code)
            yield QueueLine(
                int(job), [int(index)], state, ended, node, "", *_parse_names(f"{names}|")
            )


def parse_nodes(out: str, partition: str = "") -> list[NodeKind]:
    """The lines of `sinfo -he -o %D|%c|%m|%G|%P|%a`; of a partition, or of the default one."""
    found: list[NodeKind] = []
    wanted = partition.split(",") if partition else []
    for line in out.splitlines():
        fields = line.split("|")
        if len(fields) != 6 or not all(field.rstrip("+").isdecimal() for field in fields[:3]):
            continue
        name = fields[4]
        if (name.rstrip("*") in wanted) if wanted else name.endswith("*"):
            count, cpus, memory = (int(field.rstrip("+")) for field in fields[:3])
            found.append(NodeKind(count, cpus, memory << 20, _count_gpus(fields[3])))
    return found


def _count_gpus(gres: str) -> int:
    """Of `gpu:a100:4(S:0-1),shard:8` four."""
    named = re.findall(r"(?:^|,)gpu(?::[^:,(]+)?:(\d+)", gres)
    return sum(map(int, named))


def read_state(word: str) -> BatchState:
    """How far a batch is, by Slurm's word for the state of its element."""
    return _STATES.get(word.partition(" ")[0].rstrip("+"), BatchState.UNKNOWN)


def find_reason(lines: Iterable[QueueLine]) -> str:
    """Why most of the elements that wait do so, in Slurm's word; empty where one runs."""
    counts: dict[str, int] = {}
    for line in lines:
        state = read_state(line.state)
        if state == BatchState.RUNNING:
            return ""
        if state == BatchState.QUEUED and line.reason != "None":  # as of what was just submitted
            # Elements behind others say no more than that these are before them.
            weight = len(line.indices) if line.reason != "Priority" else 0
            counts[line.reason] = counts.get(line.reason, 0) + weight
    return max(counts, key=lambda reason: counts[reason], default="")


def say_reason(reason: str, known: Mapping[str, str] = _REASONS) -> str:
    """A reason in words, with Slurm's own behind it."""
    word = reason.partition(",")[0].strip("()")
    if said := known.get(reason) or known.get(word):
        return f"{said} ({reason.strip('()')})"
    for sign, whose in (("QOS", "its QOS"), ("Assoc", "its account or user")):
        if word.startswith(sign):
            rest = _CAMEL.sub(" ", word.removeprefix(sign)).lower()
            return f"a limit of {whose} is reached: {rest} ({reason})"
    return _CAMEL.sub(" ", reason).lower() + f" ({reason})"
