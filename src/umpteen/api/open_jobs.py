"""A job that was submitted: how it stands, its tasks, and what can be done with it."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, overload

from umpteen.api.convert import parse_count, parse_size, parse_timeout
from umpteen.api.errors import hinted
from umpteen.errors import EXIT_INTERRUPTED
from umpteen.executors.registry import tell_unloaded
from umpteen.history.history import History
from umpteen.job.settings import ExecutorChoice, Settings
from umpteen.model.record import Record
from umpteen.query.expression import compile_where
from umpteen.query.facts import TaskFacts
from umpteen.query.failures import describe_end
from umpteen.query.find import open_history
from umpteen.query.job_view import JobView
from umpteen.query.outputs import Outputs
from umpteen.query.status import JobStatus
from umpteen.report.signals import stop_signals
from umpteen.report.watch import watch_to_end
from umpteen.report.why import render_why
from umpteen.verbs.cancel import cancel
from umpteen.verbs.collect import collect
from umpteen.verbs.handle import JobHandle
from umpteen.verbs.remove import plan_removal, remove
from umpteen.verbs.retry import Rerun, retry
from umpteen.verbs.watch import watch

__all__ = ["OpenJob", "TaskResult", "find_given", "watch_job"]


def watch_job(handle: JobHandle, *, progress: bool) -> OpenJob:
    """Wait until the job has ended. progress: whether that is shown."""
    began_s = time.monotonic()
    with stop_signals() as stop:
        code = watch_to_end(
            handle, stop, began_s, quiet=False, as_json=False, is_silent=not progress
        )
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    return OpenJob(handle.history.store.address, find_given(handle.settings))


def find_given(settings: Settings) -> ExecutorChoice | None:
    """The executor of a job that this program runs, where a store alone does not give it."""
    return ExecutorChoice(settings.executor) if tell_unloaded(settings.executor) else None


class TaskResult:
    """One task of a job, and what its newest attempt left."""

    def __init__(self, view: JobView, facts: TaskFacts) -> None:
        self._view, self._facts = view, facts
        self.name: str = facts.name
        self.index: int = facts.index
        self.state: str = facts.state
        self.parameters: dict[str, str] = dict(facts.parameters)
        self.record: Record | None = facts.record

    def __repr__(self) -> str:
        return f"TaskResult({self.name!r}, {self.state!r})"

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.state == "succeeded"

    @property
    def exit_code(self) -> int | None:
        """Of the command; None where it has not ended, or ended by a signal."""
        return self.record.exit_code if self.record else None

    @property
    def reason(self) -> str:
        """How it ended, as the command line says it: `exit 2`, `timed out after 1 s`.

        Empty where it has not ended, or has succeeded.
        """
        return "" if self.record is None or self.ok else describe_end(self.record)

    @property
    def path(self) -> str:
        """The folder of its outputs, or their address where they are in no folder."""
        return self._outputs.address

    @property
    def _outputs(self) -> Outputs:
        facts = self._facts
        return self._view.find_outputs(
            facts.task, facts.token, self.record, is_newest=facts.is_over
        )

    @property
    def results(self) -> str:
        """The folder of what it wrote to its results directory; it may not be there."""
        return self.path + "/results"

    @property
    def stdout(self) -> str:
        """What it printed; empty where there is nothing."""
        return self._outputs.read_text("stdout") or ""

    @property
    def stderr(self) -> str:
        """What it printed to stderr; empty where there is nothing."""
        return self._outputs.read_text("stderr") or ""


Which = str | int | TaskResult  # a task by its name, its position, or itself


class OpenJob:
    """A job that was submitted: how it stands, its tasks, and what can be done with it.

    Iterating gives a TaskResult for each task, in order, as it stands then. A task is also
    found by its name, its position or a slice, as in a mapping and in a list; `in` asks for a
    name.
    """

    def __init__(self, address: str, executor: ExecutorChoice | None = None) -> None:
        self.address = address
        self._executor = executor  # by which it goes on, where this program says so
        self._view = JobView(open_history(address))
        weakref.finalize(self, self._view.close)  # nobody says when he has looked at it last
        self.name = self._view.name

    def __repr__(self) -> str:
        status = self.status()
        return f"OpenJob({self.name!r}, {status.state!r}, {status.total} tasks)"

    @hinted()
    def status(self, *, verify: bool = False) -> JobStatus:
        """How it stands now. verify: whether what is done has to have what it left, too."""
        if verify:
            with JobView(open_history(self.address)) as view:
                view.read_gone()
                return view.read_status()
        self._view.refresh()
        return self._view.read_status()

    @property
    def history(self) -> History:
        """All that is known of it, as it was read last."""
        return self._view.history

    @property
    def ok(self) -> bool:
        """Whether every task has succeeded."""
        return self.status().state == "succeeded"

    def __iter__(self) -> Iterator[TaskResult]:
        self._view.refresh()
        return iter([TaskResult(self._view, facts) for facts in self._view.read_facts()])

    def __len__(self) -> int:
        return self.status().total

    def __contains__(self, name: object) -> bool:
        return any(task.name == name for task in self)

    @overload
    def __getitem__(self, key: str | int) -> TaskResult: ...
    @overload
    def __getitem__(self, key: slice) -> list[TaskResult]: ...
    def __getitem__(self, key: str | int | slice) -> TaskResult | list[TaskResult]:
        """Raises KeyError for a name, and IndexError for a position, that is not there."""
        tasks = list(self)
        if not isinstance(key, str):
            return tasks[key]
        for task in tasks:
            if task.name == key:
                return task
        raise KeyError(key)

    @property
    def failed(self) -> list[TaskResult]:
        """The tasks that came to an end without success."""
        return [task for task in self if task.state not in ("succeeded", "waiting", "running")]

    @hinted()
    def to_rows(self) -> list[dict[str, Any]]:
        """A row a task, as `umpteen export` has it: `pandas.DataFrame(job.to_rows())`."""
        self._view.refresh()
        return list(self._view.read_table().rows)

    @hinted()
    def why(self, task: Which) -> str:
        """What became of a task, in sentences, as `umpteen why` has it."""
        with JobView(open_history(self.address)) as view:
            return "\n".join(render_why(view.explain(self._name(task))))

    @hinted()
    def wait(self, *, progress: bool = False) -> OpenJob:
        """Wait until it has ended; what nobody runs any more is submitted again."""
        return watch_job(collect(self.address, executor=self._executor), progress=progress)

    @hinted()
    def cancel(self, *tasks: Which) -> None:
        """End it, or some of its tasks by name or pattern, and wait until that is recorded."""
        for _ in watch(cancel(self.address, self._names(tasks), self._executor).handle):
            pass

    @hinted()
    def retry(
        self,
        *tasks: Which,
        where: str | None = None,
        timeout: str | float | None = None,
        memory: str | int | None = None,
        slots: int | None = None,
        progress: bool = True,
    ) -> OpenJob:
        """Run again what did not succeed, or the tasks named, or those for which `where` holds; and
        what is behind them.

        timeout, memory: of these tasks, from now on. slots: how many at once, where not as
        before.
        """
        chosen = None if where is None else compile_where(str(where))
        timeout_s = parse_timeout(timeout)
        bytes_of_memory = parse_size(memory)
        count = parse_count("slots", slots, 1)
        wanted = Rerun(self._names(tasks), chosen, count, timeout_s, bytes_of_memory)
        handle = retry(self.address, wanted, executor=self._executor)
        return watch_job(handle, progress=progress)

    @hinted()
    def remove(self) -> None:
        """Remove it with all its outputs, without asking. Raises InputError while it runs."""
        remove(plan_removal(self.address))

    def _names(self, tasks: Iterable[Which]) -> list[str]:
        return [self._name(task) for task in tasks]

    def _name(self, task: Which) -> str:
        if isinstance(task, str):
            return task
        return task.name if isinstance(task, TaskResult) else self[task].name
