"""The tasks of a job, from the files of its submissions and of its batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from umpteen.history.files import (
    BatchNames,
    Submission,
    SubmittedFiles,
    TaskLine,
    parse_batch_names,
    parse_task_lines,
)
from umpteen.job.spec import Task
from umpteen.model.forms import FormError
from umpteen.store.job_files import damaged
from umpteen.store.layout import batch_key, tasks_key

__all__ = ["BatchNamesCache", "read_forms", "read_tasks"]

_KEPT_BATCH_FILES = 4


def read_tasks(files: SubmittedFiles, submissions: Sequence[Submission]) -> list[Task]:
    """Every task by index in its newest form, each with its name."""
    tasks: list[Task] = []
    for lines in _read_lines(files, submissions):
        for line in lines:
            if line.index is None:
                tasks.append(_as_task(line, len(tasks)))
            elif not line.dropped:
                tasks[line.index] = _as_task(line, line.index)
    return tasks


def read_forms(files: SubmittedFiles, submissions: Sequence[Submission], index: int) -> list[Task]:
    """Every form that a task ever had, oldest first."""
    forms: list[Task] = []
    count = 0
    for lines in _read_lines(files, submissions):
        for line in lines:
            place = count if line.index is None else line.index
            count += line.index is None
            if place == index and not line.dropped:
                forms.append(_as_task(line, index))
    return forms


def _read_lines(
    files: SubmittedFiles, submissions: Sequence[Submission]
) -> Iterator[list[TaskLine]]:
    """What each submission added and changed: as much as it says."""
    count = 0
    for submission in submissions:
        key = tasks_key(submission.hand_in, submission.segment)
        with files.reading(key):
            lines = parse_task_lines(files.read(submission.hand_in, key) or b"")
            added = sum(line.index is None for line in lines)
            count += added
            if added != submission.tasks:
                raise FormError(f"it adds {added} tasks, and {submission.tasks} were handed in")
            if any(line.index is not None and line.index >= count for line in lines):
                raise FormError("it changes a task that there is not")
        yield lines


def _as_task(line: TaskLine, index: int) -> Task:
    return Task(
        command=line.command,
        name=line.name or str(index),
        env=line.env,
        cwd=line.cwd,
        timeout_s=line.timeout_s,
        parameters=line.parameters,
        tags=line.tags,
        output=line.output,
        results_dir=line.results_dir,
        automatic=line.automatic or not line.name,
        options=line.options,
    )


class BatchNamesCache:
    """The names of tasks and the places of their outputs, from batch files: the last few read."""

    def __init__(self, files: SubmittedFiles) -> None:
        self.files = files
        self._known: dict[str, BatchNames] = {}

    def describe_task(self, batch: str, index: int, below: int) -> tuple[str, str]:
        """(name, address of the outputs) of a task. below: more than the index of each task."""
        file = self._read(batch, below)
        position = 0
        for part in file.indices:
            if index in part:
                position += index - part.start
                output = file.outputs[position]
                if file.top and output.startswith(f"{file.top}/"):
                    output = self.files.store.address + output[len(file.top) :]
                return file.names[position], output
            position += len(part)
        raise damaged(self.files.store.path(batch_key(batch)), f"it has no task {index}")

    def _read(self, batch: str, below: int) -> BatchNames:
        if batch not in self._known:
            while len(self._known) >= _KEPT_BATCH_FILES:
                del self._known[next(iter(self._known))]
            key = batch_key(batch)
            with self.files.reading(key):
                content = self.files.store.read(key) or b""
                self._known[batch] = parse_batch_names(content, below)
        return self._known[batch]
