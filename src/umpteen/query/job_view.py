"""One job as everybody reads it: the command line, Python, and later the web page.

Nobody else opens a file of a job's store to look at it. What one look answers is in the modules
of this package; here they are one object with one history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self

import msgspec

from umpteen.executors.registry import ExecutorRegistry, runs_here
from umpteen.history.history import History
from umpteen.model.states import IS_FINAL, STATES
from umpteen.query.find import find_names, find_task, open_history
from umpteen.query.job_names import find_job, shorten_job
from umpteen.query.liveness import Liveness, explain_waiting, read_status
from umpteen.query.status import JobStatus, build_status
from umpteen.store.base import Store

# What only some looks need is loaded by the methods that take them: `status` is asked for again
# and again, by people and by scripts, and begins sooner without the rest.
if TYPE_CHECKING:
    from umpteen.job.spec import Task
    from umpteen.model.record import Record
    from umpteen.query.facts import TaskFacts
    from umpteen.query.failures import Failure
    from umpteen.query.files import LeftOut, TaskFiles
    from umpteen.query.live import LiveReader
    from umpteen.query.outputs import Outputs
    from umpteen.query.pull import Pulled
    from umpteen.query.table import Table
    from umpteen.query.unrun import EndedTasks
    from umpteen.query.why import Why

__all__ = ["JobView"]


class JobView:
    """A job that can be looked at; `refresh` has it look anew at what the store says.

    What a look has opened is closed with it: by leaving it as a context manager, or by `close`.
    """

    def __init__(self, history: History) -> None:
        # As of the last look.
        self.history = history
        # Each is asked by one object for as long as the job is looked at.
        self._executors = ExecutorRegistry()

    @classmethod
    def open(cls, word: str, name: str | None = None) -> JobView:
        """The job of that name or address, or that a job file or run file makes.

        name: of the job, where it is not the one that the file says. Raises InputError where there
        is no such job, StoreError where it cannot be read.
        """
        return cls(open_history(find_job(word, name)))

    @classmethod
    def of_store(cls, store: Store) -> JobView:
        """The job in a store that is open. Raises StoreError where it cannot be read."""
        history = History(store)
        history.refresh()
        return cls(history)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the executors that were asked; a later look opens others."""
        self._executors.close()

    def refresh(self) -> None:
        """Read what is new in the store."""
        self.history.refresh()

    # --- the job ------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.history.job.get("name", ""))

    @property
    def address(self) -> str:
        """Of its results."""
        return self.history.store.address

    @property
    def word(self) -> str:
        """What to type for the job from here: its name where that is enough, else its address."""
        return shorten_job(self.name, self.address)

    def read_status(self) -> JobStatus:
        """How it stands now, as the store was read last and executors say."""
        return read_status(self.history, self._executors)

    def read_recorded_status(self) -> JobStatus:
        """How it stands if nobody runs it: nobody is asked."""
        return build_status(self.history, set())

    @property
    def needs_nobody_else(self) -> bool:
        """Whether this machine alone knows how it stands: what runs of it runs here."""
        return all(runs_here(batch.executor) for batch in self.history.list_open())

    def read_gone(self) -> list[str]:
        """Names of tasks that are done but lost what they left; these count as open from now."""
        from umpteen.query.verify import read_gone

        return read_gone(self.history, self._executors)

    # --- its tasks ----------------------------------------------------------------------

    def find_task(self, wanted: str) -> tuple[int, Task]:
        """A task by its name, else by its index, with its index. Raises InputError."""
        return find_task(self.history, wanted)

    def find_names(self, names: Sequence[str], tasks: Sequence[str]) -> Iterator[str]:
        """Of the tasks given by name, pattern or index. Raises InputError where there is none."""
        return find_names(self.history, names, tasks)

    def state_of(self, index: int) -> str:
        """The state of a task as recorded: one that runs counts as waiting."""
        return STATES[self.history.states[index]]

    def has_ended(self, index: int) -> bool:
        """Whether a task came to its end, as recorded."""
        return IS_FINAL[self.history.states[index]]

    def is_running(self, index: int) -> bool:
        """Whether a task runs now."""
        return any(task.index == index for task in self.read_status().running)

    def read_facts(self) -> list[TaskFacts]:
        """What is known of each task that counts."""
        from umpteen.query.facts import read_facts

        return read_facts(self.history, self._executors)

    def read_table(self, *, are_typed: bool = True) -> Table:
        """A row for each task, with its parameters and what it measured; see `read_table`."""
        from umpteen.query.table import read_table

        return read_table(self.history, self._executors, are_typed=are_typed)

    def explain(self, task: str) -> Why:
        """Why a task is as it is. Raises InputError where there is no such task."""
        from umpteen.query.why import build_why

        index, _ = self.find_task(task)
        why = build_why(self.history, index, Liveness(self._executors).list_living(self.history))
        if not why.is_alive or why.runner:
            return why
        queue = explain_waiting(self.history, {why.batch}, self._executors)
        return msgspec.structs.replace(why, queue=queue)

    # --- what did not succeed -----------------------------------------------------------

    def read_failures(self, most: int) -> list[Failure]:
        """The newest tasks without success, the newest last; what failed before what never ran."""
        from umpteen.query.failures import choose_failures, read_failure

        chosen = choose_failures(self.history.failures.read_all(), most)
        return [read_failure(self.history, *entry) for entry in chosen]

    def read_ended(self, most: int) -> EndedTasks:
        """The newest tasks that failed, and counts of what was skipped or cancelled."""
        from umpteen.query.unrun import read_ended

        return read_ended(self.history, most)

    # --- what tasks left ----------------------------------------------------------------

    def read_attempts(self, index: int) -> list[tuple[str, Record]]:
        """(the runner's token, the record) of each attempt of a task that has ended, in order."""
        return self.history.read_records([index])[index]

    def find_outputs(
        self, task: Task, token: str = "", record: Record | None = None, *, is_newest: bool = False
    ) -> Outputs:
        """Where an attempt left what it wrote; the newest, if no record is given."""
        from umpteen.query.outputs import find_outputs

        return find_outputs(self.history, task, token, record, is_newest=is_newest)

    def list_files(self, left_out: list[LeftOut]) -> Iterator[TaskFiles]:
        """Each task with the files that it left; left_out gets what cannot be looked at."""
        from umpteen.query.files import list_task_files

        return list_task_files(self.history, left_out)

    def pull(
        self,
        destination: str,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        *,
        force: bool = False,
    ) -> Iterator[Pulled]:
        """Copy files of tasks to a folder; how far it is, after each part."""
        from umpteen.query.pull import pull

        return pull(self.history, destination, include, exclude, force=force)

    def runs_here(self, index: int) -> bool:
        """Whether a runner of this machine has a task, or had it last."""
        batch = self.history.find_batch(index)
        return batch is None or runs_here(batch.executor)

    def follow_output(self, index: int, name: str) -> LiveReader:
        """Reads `stdout` or `stderr` of a task while it runs where its files are not to be seen."""
        from umpteen.query.live import LiveReader

        return LiveReader(self.history.store, index, name)
