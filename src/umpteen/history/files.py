"""What submissions left in a store: tasks, batches, handles and options.

msgspec decodes what is large, and what types do not say is checked after that. A file that has not
the form of docs/files.md raises FormError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import msgspec

from umpteen.errors import StoreError
from umpteen.job.spec import Task
from umpteen.model.forms import (
    MOST_TASKS,
    MOST_TIME_S,
    FormError,
    number,
    parse_ranges,
    refuse_nul,
    text,
    token,
    truth,
    whole,
)
from umpteen.model.names import find_malformed_name, is_capability
from umpteen.store.base import Store
from umpteen.store.job_files import JobFile, damaged, parse_job
from umpteen.store.layout import JOB, OWN_FOLDER, handed_key, handles_key, options_key, tasks_key
from umpteen.store.records import refuse_newer

__all__ = [
    "BatchNames",
    "HandedBatch",
    "Submission",
    "SubmittedFiles",
    "TaskLine",
    "check_count",
    "check_settings",
    "parse_batch_names",
    "parse_handles",
    "parse_submission",
    "parse_table",
    "parse_task_lines",
]

_BELIEVED = 1_000_000  # tasks, which take 5 MB
_LEAST_LINE = len(b'{"command":""}\n')  # bytes of a task in its file

_Index = Annotated[int, msgspec.Meta(ge=0, lt=MOST_TASKS)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_TASKS)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=MOST_TIME_S)]


class HandedBatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """One batch of a submission, and the indices of its tasks as ranges."""

    batch: str
    indices: str


class Submission(msgspec.Struct, frozen=True, omit_defaults=True):
    """One `handed/K.json`: what was submitted together. Ranges are of task indices."""

    hand_in: _Count  # its number, K
    time: _Seconds
    executor: str
    mark: str
    tasks: _Count  # how many were added
    batches: list[HandedBatch]
    changed: str = ""  # ranges
    dropped: str = ""  # ranges
    restored: str = ""  # ranges: no longer dropped, and as they were before
    source: str = ""  # the job's source_digest
    is_plain: bool = False  # whether the k-th task of that source is index k, by its own name
    workers: _Count = 0  # how many batches an engine was taken to run at once
    graph: bool = False  # whether tasks of the job were after others
    leaves_behind: bool = False  # whether some tasks after others were left as they were
    place: str = ""  # where the store was, as `describe_place` writes it
    segment: str = ""  # in the names of its own files, where files of others were in the way
    left_out: list[str] = []  # options of the executor that are not in the store: names
    settings: dict[str, Any] = {}


class TaskLine(Task, frozen=True, omit_defaults=True):
    """One line of `tasks/K.jsonl`: a task that was added, or `index` changed or dropped."""

    index: _Index | None = None
    dropped: bool = False


class BatchNames(msgspec.Struct):
    """Of a batch's tasks, in the order of its ranges: names, and addresses of outputs.

    top: the address of the store, as those who run the batch know it.
    """

    indices: list[range]
    names: list[str]
    outputs: list[str]
    top: str


# --- submissions -------------------------------------------------------------------------


def parse_submission(content: bytes, number_of_it: int, before: int) -> Submission:
    """number_of_it: as its file is called. before: how many tasks there were."""
    found: Submission = _decode(_HAND_INS.decode, content)
    if found.hand_in != number_of_it:
        raise FormError(f"it is hand-in {found.hand_in}")
    count = before + found.tasks
    text(found.executor, what="'executor'")
    text(found.place, what="'place'")
    if found.mark:
        token(found.mark, what="'mark'")
    if found.segment:
        token(found.segment, what="'segment'")
    for ranges in (found.changed, found.dropped, found.restored):
        parse_ranges(ranges, count)
    for handed in found.batches:
        token(handed.batch, what="'batch'")
        parse_ranges(handed.indices, count)
    check_settings(found.settings)
    return found


def check_count(store: Store, hand_in: Submission, before: int) -> None:
    """Raises FormError where it says that there are more tasks than its file has room for.

    Looked at only where so many would take much memory. before: how many tasks there were.
    """
    if hand_in.tasks and before + hand_in.tasks > _BELIEVED:
        last = hand_in.tasks * _LEAST_LINE - 1
        if not store.read(tasks_key(hand_in.hand_in, hand_in.segment), last, 1):
            raise FormError(f"it says that {hand_in.tasks} tasks were added, and there are fewer")


def check_settings(settings: Mapping[str, object]) -> None:
    """Raises FormError where settings of a job or a submission have not the form of Settings."""
    for name, value in settings.items():
        check = _SETTINGS.get(name)
        if check is not None and (value is not None or name != "deadline_s"):
            check(value, what=repr(name))


def _folders(value: object, what: str) -> None:
    """Folders that are synced, each with where it is to be."""
    for entry in value if isinstance(value, list) else [None]:
        if not isinstance(entry, list) or len(entry) < 2:
            raise FormError(f"{what} are no folders")
        for item in entry:
            text(item or "", what=what)


def _table(value: object, what: str) -> None:
    if not isinstance(value, dict):
        raise FormError(f"{what} is no object")


_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("address", "executor", "status_file", "submitted_from", "cwd"), text),
    **dict.fromkeys(("slots", "batch_size", "canary", "max_failures"), whole),
    **dict.fromkeys(("deadline_s", "grace_s"), number),
    **dict.fromkeys(("file_syncs", "synced"), _folders),
    **dict.fromkeys(("results_options", "executor_options", "sources"), _table),
    **dict.fromkeys(("fail_fast", "live"), truth),
}


def parse_handles(content: bytes) -> dict[str, str]:
    """What an executor answered, by batch."""
    found: dict[str, str] = _decode(_HANDLES.decode, content)
    for batch, handle in found.items():
        token(batch, what="a batch")
        text(handle, what="a handle")
    return found


def parse_table(content: bytes) -> dict[str, object]:
    """An object of JSON, as options are."""
    found: dict[str, object] = _decode(_TABLES.decode, content)
    return found


class SubmittedFiles:
    """Reads the files that submissions left in a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.strange: dict[int, str] = {}  # by submission, a file that others may have written

    @contextlib.contextmanager
    def reading(self, key: str) -> Iterator[None]:
        """A file that has not the form it must have is damaged: StoreError
        in place of FormError.
        """
        try:
            yield
        except FormError as error:
            raise damaged(self.store.path(key), error) from error

    def read(self, number: int, key: str) -> bytes | None:
        """A file of a submission; notes where somebody else may have written it."""
        content, is_own = self.store.read_own(key)
        if content is not None and not is_own:
            self.strange.setdefault(number, self.store.path(key))
        return content

    def read_job(self) -> JobFile | None:
        """What `job.json` says; of a job that only its owner may read, its name alone.

        None where there is no job.
        """
        try:
            content = self.read(0, JOB)
        except StoreError:
            if not self.store.names(OWN_FOLDER):
                raise
            # Settings are for its owner alone; how the job stands is for those he lets look on.
            return {"name": self.store.address.rpartition("/")[2]}
        if content is None:
            return None
        with self.reading(JOB):
            job = parse_job(content)
            refuse_newer(self.store, job)
            check_settings(job.get("settings", {}))
        return job

    def read_submission(self, number: int, before: int) -> Submission:
        """One `handed/K.json`. before: how many tasks there were."""
        with self.reading(handed_key(number)):
            content = self.read(number, handed_key(number)) or b""
            submission = parse_submission(content, number, before)
            check_count(self.store, submission, before)
        return submission

    def read_handles(self, number: int) -> dict[str, str] | None:
        """What the executor answered to a submission, by batch; None where nothing yet."""
        content = self.read(number, handles_key(number))
        if content is None:
            return None
        with self.reading(handles_key(number)):
            return parse_handles(content)

    def read_options(self, submission: Submission) -> dict[str, object]:
        """The options of the executor that a submission went to."""
        for mark in [submission.segment, ""] if submission.segment else [""]:
            key = options_key(submission.hand_in, mark)
            try:
                content = self.read(submission.hand_in, key)
            except StoreError as error:
                if isinstance(error.__cause__, PermissionError):
                    return {}  # for its owner alone; the environment may have what others need
                raise
            if content:
                with self.reading(key):
                    return parse_table(content)
        return {}


# --- tasks and batches ----------------------------------------------------------------------


def parse_task_lines(content: bytes) -> list[TaskLine]:
    """Each line with a name that can be one, and texts that can be given to a system."""
    lines: list[TaskLine] = _decode(_TASK_LINES.decode_lines, content)
    if problem := find_malformed_name([line.name for line in lines if line.name]):
        raise FormError(problem.message)
    if rb"\u0000" in content:
        refuse_nul(msgspec.to_builtins(lines))
    for line in lines:
        if line.timeout_s is not None:
            number(line.timeout_s, what="'timeout_s'")
        if line.options is not None:
            whole(line.options.cpus or 0, what="'cpus'")
            whole(line.options.memory or 0, what="'memory'")
            whole(line.options.gpus, what="'gpus'")
            if not all(map(is_capability, line.options.needs)):
                raise FormError("'needs' has what is no name of a capability")
    return lines


def parse_batch_names(content: bytes, below: int) -> BatchNames:
    """below: more than the index of each task."""
    file: _BatchFile = _decode(_BATCHES.decode, content)
    indices, names = parse_ranges(file.umpteen.indices, below), file.umpteen.names
    outputs = [run.remote_output_path for run in file.runs]
    if not len(names) == len(outputs) == sum(map(len, indices)):
        raise FormError("it has not as many names as runs, or as indices")
    if problem := find_malformed_name(names):
        raise FormError(problem.message)
    if any("\0" in output for output in outputs):
        raise FormError("the place of outputs has the character NUL")
    return BatchNames(indices, names, outputs, file.remote_output_path)


class _OwnPart(msgspec.Struct):
    names: list[str]
    indices: str


class _RunPart(msgspec.Struct):
    remote_output_path: str


class _BatchFile(msgspec.Struct):
    """The part of a batch file that names tasks and places."""

    umpteen: _OwnPart
    runs: list[_RunPart]
    remote_output_path: str = ""


# --- decoding -------------------------------------------------------------------------------


def _decode(decode: Callable[[bytes], Any], content: bytes) -> Any:
    try:
        return decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FormError(_tell(error)) from error


def _tell(error: Exception) -> str:
    return "it nests too deep" if isinstance(error, RecursionError) else str(error)


_HAND_INS = msgspec.json.Decoder(Submission)
_HANDLES = msgspec.json.Decoder(dict[str, str])
_TABLES = msgspec.json.Decoder(dict[str, Any])
_TASK_LINES = msgspec.json.Decoder(TaskLine)
_BATCHES = msgspec.json.Decoder(_BatchFile)
