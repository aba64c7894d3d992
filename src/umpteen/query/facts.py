"""What is known of each task: one typed row a task, for expressions, tables and Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from umpteen.executors.registry import ExecutorRegistry
from umpteen.history.history import History
from umpteen.job.spec import Task
from umpteen.model.record import Record
from umpteen.model.states import STATES, TaskState
from umpteen.query.liveness import read_status

__all__ = ["TaskFacts", "read_facts"]

_NO_ATTEMPT = Record(-1, "", 0, "")


class TaskFacts(msgspec.Struct, frozen=True):
    """One task: what it is, how it stands, and how its newest attempt went.

    The properties are the fields that an expression may name (see `expression.FIELDS`); those of
    the attempt are None, 0 or empty where there is none.
    """

    task: Task
    index: int
    # One of STATES; `running` where its runner says so.
    state: str = TaskState.WAITING.value
    # Of the runner that made the newest attempt.
    token: str = ""
    # Of the newest attempt that has ended; None where none has.
    record: Record | None = None

    @property
    def is_over(self) -> bool:
        """Whether `record` tells of what is in the task's folder: no attempt began after it."""
        return self.state not in (TaskState.WAITING.value, TaskState.RUNNING.value)

    @property
    def name(self) -> str:
        """As people call it: its position where nobody named it."""
        return self.task.name or str(self.index)

    @property
    def tags(self) -> Sequence[str]:
        """The user's own words for it."""
        return self.task.tags or ()

    @property
    def parameters(self) -> Mapping[str, str]:
        """The values that its template was filled with."""
        return self.task.parameters or {}

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1."""
        return self._newest.attempt

    @property
    def exit_code(self) -> int | None:
        """Of the command."""
        return self._newest.exit_code

    @property
    def signal(self) -> int | None:
        """That ended the command."""
        return self._newest.signal

    @property
    def reason(self) -> str:
        """As recorded."""
        return self._newest.reason

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self._newest.seconds

    @property
    def cpu_s(self) -> float:
        """The time of cores that it used."""
        return self._newest.cpu_s

    @property
    def peak_mb(self) -> float:
        """The most memory that one of its processes had."""
        return round(self._newest.peak_kb / 1024, 1)

    @property
    def start_s(self) -> float:
        """When it began, in seconds since 1970."""
        return self._newest.start_s

    @property
    def end_s(self) -> float:
        """When it ended, in seconds since 1970."""
        return self._newest.end_s

    @property
    def stdout_bytes(self) -> int:
        """The size of what it printed."""
        return self._newest.stdout_bytes

    @property
    def stderr_bytes(self) -> int:
        """The size of what it printed to stderr."""
        return self._newest.stderr_bytes

    @property
    def _newest(self) -> Record:
        return self.record or _NO_ATTEMPT


def read_facts(history: History, executors: ExecutorRegistry | None = None) -> list[TaskFacts]:
    """What is known now of each task that counts, in order. executors: as of `read_status`."""
    newest = history.read_newest()
    running = {task.index for task in read_status(history, executors).running}
    facts = []
    for index, task in enumerate(history.read_tasks()):
        if index in history.dropped:
            continue
        state = "running" if index in running else STATES[history.states[index]]
        token, record = newest.get(index, ("", None))
        facts.append(TaskFacts(task, index, state, token, record))
    return facts
