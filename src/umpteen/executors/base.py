"""The contract of an executor: a place that runs batches, such as this machine or a Dask cluster.

It is made for a queue that is asked by commands and for a host behind ssh as much as for an
engine with a library. So a handle stands alone: it is text that is kept in the store, and any
process may ask after it later, by an executor object that was opened anew and without options.
What a process knows of its own batches beyond that is in `own_runs`.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from umpteen.executors.own_runs import OwnRuns
from umpteen.store.identity import Identity

__all__ = [
    "NO_NEEDS",
    "Abilities",
    "BatchRequest",
    "BatchState",
    "Executor",
    "Lack",
    "OnProgress",
    "PreviewSection",
    "Site",
    "SubmitRequest",
    "TaskNeeds",
    "ignore_progress",
]

# Called now and then with a line that says what is waited for; what it raises ends the wait.
OnProgress = Callable[[str], None]


def ignore_progress(_: str) -> None:
    """Show nobody what is waited for."""


class BatchState(enum.StrEnum):
    """How far a batch is, as far as its executor can say."""

    QUEUED = "queued"
    """It waits there for its turn."""

    RUNNING = "running"
    """A runner is at it."""

    ENDED = "ended"
    """Nothing is at it any more; what came of its tasks is in the store."""

    UNKNOWN = "unknown"
    """Those who know do not answer, or cannot be asked from here."""


class Abilities(NamedTuple):
    """What an executor can do."""

    dependencies: bool  # starts a batch once those that it is after have ended
    capabilities: bool  # gives a batch only to machines that have what its tasks ask for by name
    reconnect: bool  # can be asked after a batch by a process that did not submit it
    is_engine: bool  # runs batches on workers of its own, several at once
    batches_most: int  # of one submission; 0: no limit
    start_up_s: float  # what one batch costs before its first task
    asks_by_batch: bool = False  # asks for each batch what one of its tasks needs the most of
    previews: bool = False  # says what it would be asked for, by `preview`


class BatchRequest(NamedTuple):
    """One batch to be run."""

    batch: str  # its number in the store
    after: Sequence[str] = ()  # the batches that must have ended before it starts
    # The most that one of its tasks needs; 0 where none says.
    gpus: int = 0
    cpus: int = 0
    memory: int = 0  # bytes
    options: Mapping[str, str] = {}  # what its tasks say to Slurm
    capabilities: Sequence[str] = ()  # all that one of its tasks needs of its machine, by name


class SubmitRequest(NamedTuple):
    """What an executor is given in one go."""

    store: Identity  # where the batches are
    orders: Sequence[BatchRequest]
    slots: int  # tasks at once in a batch; 0: one, in one slot of a worker
    mark: str  # a word that no other submission has
    earlier: Mapping[str, str] = {}  # handles of former batches that some of these are after
    environment: Mapping[str, str] = {}  # what the runner finds in its own, and tasks do not

    @property
    def address(self) -> str:
        """Of the store."""
        return self.store.address

    @property
    def batches(self) -> list[str]:
        """The numbers of its batches."""
        return [order.batch for order in self.orders]


class Site(NamedTuple):
    """How the machines that batches run on know what a user names."""

    results: str  # the address of the store
    is_here: bool = True  # whether their folders may be those of this machine


class TaskNeeds(NamedTuple):
    """What one task needs of the machine that it runs on; 0 where it does not say."""

    cpus: int = 0
    gpus: int = 0
    memory: int = 0  # bytes
    options: Mapping[str, str] = {}  # what it says to Slurm
    capabilities: Sequence[str] = ()  # what its machine must have, by name


NO_NEEDS = TaskNeeds()


class Lack(NamedTuple):
    """What a task needs and an executor has not anywhere."""

    number: int  # which of the tasks that were asked about
    wanted: int  # how much; 0 where it is a capability
    what: str  # "cpus", "gpus" or "MB of memory", or the name of the capability
    limit: str  # who has how much: "this machine has 2", "a worker of dask has at most 2"
    hint: str  # what the user can do

    @property
    def needed(self) -> str:
        """`4 cpus`, or the name of a capability, as messages have it."""
        return f"{self.wanted} {self.what}" if self.wanted else repr(self.what)


class PreviewSection(NamedTuple):
    """A thing that a submission would ask for, or that limits it, as a dry run shows it."""

    title: str  # a word or two
    text: str  # for people, one line
    facts: Mapping[str, str | int | float | None]  # the same for programs; None: not known
    script: str = ""  # what would be handed over, whole


class Executor(abc.ABC):
    """Gets batches run somewhere, and is asked after them by their handles.

    A handle stands alone: it names the place, the submission and the batch, so that it survives
    a restart, another shell and other options. `poll`, `wake` and `cancel` need nothing else.
    """

    name: str
    abilities: Abilities

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Raises SettingsError for an option that it does not know; connects to nothing."""
        self.options = options
        self.own_runs = OwnRuns()

    def check(self) -> None:  # noqa: B027 -- some need no options
        """Raises SettingsError where the options do not say where batches are to run."""

    def complete(self, address: str) -> Mapping[str, Any]:
        """The options, with what the address of the results says of where batches are to run."""
        del address
        return self.options

    def find_site(self, address: str) -> Site:
        """What batches are told. address: of the store. Raises BackendError."""
        return Site(address)

    @abc.abstractmethod
    def submit(
        self, request: SubmitRequest, on_progress: OnProgress = ignore_progress
    ) -> dict[str, str]:
        """Have the batches of a store run; the handle of each, by its number.

        From then on `own_runs` is of these. Raises BackendError, `transient` where the same call
        may succeed later.
        """

    @abc.abstractmethod
    def poll(self, handles: Sequence[str]) -> dict[str, BatchState]:
        """How far the batch of each handle is, by as few calls to the backend as it takes.

        Never raises: what cannot be asked is UNKNOWN.
        """

    @abc.abstractmethod
    def wake(self, handles: Sequence[str]) -> None:
        """Have runners look for the cancel mark in the store now, which else takes them seconds.

        A batch that has ended is no error.
        """

    def cancel(self, handles: Sequence[str]) -> None:
        """Have no batch of these start any more, and wake the runners of those that have."""
        self.wake(handles)

    def preview(self, request: SubmitRequest) -> list[PreviewSection]:
        """What `submit` would ask for, where `abilities.previews` says so; does nothing.

        Raises BackendError where there is nobody to ask.
        """
        del request
        return []

    def count_workers(self, slots: int, needs: TaskNeeds = NO_NEEDS) -> int:
        """How many batches of so many slots (0: one slot of a worker), with tasks that need so
        much, may run at once; 0: unknown.

        Raises BackendError where there is nobody to ask, before anything is submitted.
        """
        del slots, needs
        return 0

    def lacks(self, tasks: Sequence[TaskNeeds], slots: int) -> Lack | None:
        """What one of these tasks needs, in a batch of so many slots, and can get nowhere here.

        None where all can run, or where that is not known. Raises BackendError where there is
        nobody to ask.
        """
        del tasks, slots
        return None

    def hint_capabilities(self, names: Sequence[str]) -> str:
        """What to do for tasks that need these, where `abilities.capabilities` is not so."""
        del names
        return "leave 'needs' out, or use an executor that knows what machines have: ssh"

    def why_waiting(self, handles: Sequence[str]) -> str:
        """Why nothing of this runs, in words; empty where that is not known, or something does.

        Raises BackendError where that has lasted longer than the options allow.
        """
        del handles
        return ""

    def close(self) -> None:
        """Free what this object holds. What was submitted goes on, except what is attached."""
        self.own_runs.close()
