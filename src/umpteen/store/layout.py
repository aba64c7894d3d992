"""The name of every file of a job."""

from __future__ import annotations

import re
from typing import NamedTuple

from umpteen.model.names import OWN_FOLDER

__all__ = [
    "BATCHES",
    "CANCEL",
    "CLOSED",
    "FOLLOW",
    "HANDED",
    "JOB",
    "JSON",
    "LOCK",
    "OPTIONS_SUFFIX",
    "OUTPUTS",
    "OWN_FOLDER",
    "PROBE",
    "RECORDS",
    "REMOVING",
    "RUNNING",
    "SPLIT",
    "STATUS_BYTES",
    "TASKS",
    "UNFINISHED",
    "LiveKey",
    "RecordsKey",
    "attempt_folder",
    "batch_key",
    "closed_key",
    "follow_key",
    "given_key",
    "handed_key",
    "handles_key",
    "hosts_key",
    "live_folder",
    "log_key",
    "logs_folder",
    "options_key",
    "parse_live_key",
    "parse_numbers",
    "parse_records_key",
    "parse_running_key",
    "records_folder",
    "records_key",
    "rest_key",
    "runner_key",
    "running_folder",
    "running_key",
    "scratch_folder",
    "script_key",
    "spool_folder",
    "submitted_key",
    "submitter_key",
    "synced_key",
    "tasks_key",
]


JOB = ".umpteen/job.json"
CANCEL = ".umpteen/cancel"
LOCK = ".umpteen/lock"
FOLLOW = ".umpteen/follow"
HANDED, TASKS = ".umpteen/handed", ".umpteen/tasks"
BATCHES, RECORDS, RUNNING = ".umpteen/batches", ".umpteen/records", ".umpteen/running"
SPLIT = ".umpteen/split"  # what was sent for a cluster's machines, where no other place is said
PROBE = ".umpteen/probe"  # always the same, so that one at most is left where nobody may remove it

OUTPUTS = ("stdout", "stderr", "status_code", "status", "results")  # of an attempt, in its folder
STATUS_BYTES = 32  # more than a status file has
UNFINISHED = ".new"  # behind the name of an attempt's folder into which not all was moved yet

CLOSED = "closed"  # in the records folder of a batch
REMOVING = "removing"  # in `job.json`: which part of the job is being removed
JSON = ".json"  # behind the number of a submission or a batch
OPTIONS_SUFFIX = ".options.json"  # of what its owner alone may read, as is job.json

_RECORDS_NAME = re.compile(r"([0-9]{1,10})-([0-9a-f]{1,64})\.jsonl")
_LIVE_NAME = re.compile(r"([0-9]{1,10})\.([0-9]{1,10})\.([0-9]{1,10})-([0-9a-f]{1,64})")
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")


class RecordsKey(NamedTuple):
    """Start `start` of a batch by the runner `token`; these order as starts do."""

    start: int
    token: str


class LiveKey(NamedTuple):
    """A running attempt of a task; these order as attempts begin, also where none was recorded.

    batch: its number, 0 for one from elsewhere.
    """

    batch: int
    start: int
    attempt: int
    token: str


def tasks_key(hand_in: int, mark: str = "") -> str:
    """The tasks that a submission added, changed or dropped.

    mark: of its own name, where a file of another submission is there.
    """
    return f"{TASKS}/{_number(hand_in, mark)}.jsonl"


def _number(hand_in: int, mark: str) -> str:
    return f"{hand_in}.{mark}" if mark else str(hand_in)


def handed_key(hand_in: int) -> str:
    """What was submitted together, and to which executor."""
    return f"{HANDED}/{hand_in}.json"


def options_key(hand_in: int, mark: str = "") -> str:
    """The options of the executor that a submission went to; the mark as for its tasks."""
    return f"{HANDED}/{_number(hand_in, mark)}{OPTIONS_SUFFIX}"


def handles_key(hand_in: int) -> str:
    """What the executor answered to a submission."""
    return f"{HANDED}/{hand_in}.handles.json"


def batch_key(batch: str) -> str:
    """What one runner is given."""
    return f"{BATCHES}/{batch}.json"


def records_folder(batch: str) -> str:
    """The records of every start of a batch."""
    return f"{RECORDS}/{batch}"


def records_key(batch: str, key: RecordsKey) -> str:
    """What happened in one start of a batch."""
    return f"{RECORDS}/{batch}/{key.start}-{key.token}.jsonl"


def parse_records_key(name: str) -> RecordsKey | None:
    """The start that a file of a records folder is of; None for other files."""
    match = _RECORDS_NAME.fullmatch(name)
    return RecordsKey(int(match[1]), match[2]) if match else None


def closed_key(batch: str) -> str:
    """The mark that no start of this batch may begin any more."""
    return f"{RECORDS}/{batch}/{CLOSED}"


def running_folder(batch: str) -> str:
    """What is happening in the starts of a batch."""
    return f"{RUNNING}/{batch}"


def running_key(batch: str, key: RecordsKey) -> str:
    """What is happening in one start of a batch."""
    return f"{RUNNING}/{batch}/{key.start}-{key.token}.json"


def parse_running_key(name: str) -> RecordsKey | None:
    """The start that a file of a running folder is of; None for other files."""
    return parse_records_key(f"{name}l") if name.endswith(".json") else None


def scratch_folder(token: str) -> str:
    """The results folders of a runner's slots."""
    return f".umpteen/scratch/{token}"


def spool_folder(spool: str, index: int, attempt: int) -> str:
    """Where a runner leaves one attempt's outputs, to be brought to where they belong."""
    return f"{spool}/{index}-{attempt}"


def follow_key(index: int) -> str:
    """The mark that somebody follows what a task prints."""
    return f"{FOLLOW}/{index}"


def live_folder(index: int, key: LiveKey | None = None) -> str:
    """What a running attempt has printed so far, in pieces; of all attempts without one."""
    top = f".umpteen/live/{index}"
    return f"{top}/{key.batch}.{key.start}.{key.attempt}-{key.token}" if key else top


def parse_live_key(name: str) -> LiveKey | None:
    """The attempt that a folder is of; None for other names."""
    match = _LIVE_NAME.fullmatch(name)
    return LiveKey(int(match[1]), int(match[2]), int(match[3]), match[4]) if match else None


def runner_key(digest: str) -> str:
    """The runner as one zip file, for machines that have only `python3`."""
    return f".umpteen/runner/{digest}.zip"


def logs_folder(mark: str) -> str:
    """What Slurm was given for a submission, and what its runners said. mark: of that."""
    return f".umpteen/slurm/{mark}"


def script_key(mark: str, number: int) -> str:
    """The script of one array."""
    return f"{logs_folder(mark)}/{number}.sh"


def rest_key(mark: str) -> str:
    """What a job in the queue is still to submit of a submission."""
    return f"{logs_folder(mark)}/rest.json"


def submitted_key(mark: str) -> str:
    """How much of that it has submitted."""
    return f"{logs_folder(mark)}/submitted.json"


def submitter_key(mark: str) -> str:
    """The script of that job."""
    return f"{logs_folder(mark)}/submitter.sh"


def log_key(mark: str, batch: str) -> str:
    """What the runner of a batch said."""
    return f"{logs_folder(mark)}/{batch}.log"


def hosts_key() -> str:
    """The word by which hosts behind ssh know their copies of the job."""
    return ".umpteen/hosts.json"


def given_key() -> str:
    """Which of these hosts was given which batches."""
    return ".umpteen/given.json"


def synced_key(digest: str) -> str:
    """The archive of a folder that was synced."""
    return f".umpteen/synced/{digest}.tar.gz"


def attempt_folder(attempt: int, token: str) -> str:
    """Below a task's folder: what one attempt left that is not the one to be seen there."""
    return f"attempts/{attempt}-{token}"


def parse_numbers(names: list[str], suffix: str) -> list[int]:
    """The sorted numbers K of files that are called `K` + suffix."""
    stems = (name[: -len(suffix)] for name in names if name.endswith(suffix))
    return sorted(int(stem) for stem in stems if _NUMBER.fullmatch(stem))
