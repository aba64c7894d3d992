"""The contract of an executor, and how one is found by its name."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from umpteen.store.identity import Identity

__all__ = [
    "ENDED",
    "LOCAL",
    "QUEUED",
    "RUNNING",
    "UNKNOWN",
    "Abilities",
    "BatchRequest",
    "Executor",
    "SubmitRequest",
    "Tell",
]

QUEUED, RUNNING, ENDED, UNKNOWN = "queued", "running", "ended", "unknown"

LOCAL = "local"


Tell = Callable[[str], None]


class Abilities(NamedTuple):
    """What an executor can do.

    is_engine: whether it runs batches on workers of its own, several at once. batches_most: of
    one hand-in, 0 for no limit. start_up_s: what one batch costs before its first task.
    """

    dependencies: bool
    capabilities: bool
    reconnect: bool
    is_engine: bool
    batches_most: int
    start_up_s: float


class BatchRequest(NamedTuple):
    """One batch to be run, once those that it is `after` have ended.

    gpus, cpus and memory (bytes): the most that one of its tasks needs, 0 where none says.
    """

    batch: str
    after: Sequence[str] = ()
    gpus: int = 0
    cpus: int = 0
    memory: int = 0


class SubmitRequest(NamedTuple):
    """What an executor is given in one go.

    store: that the batches are in. slots: tasks at once in a batch, 0 for one that a worker's slot
    runs. mark: a word that no other hand-in has. earlier: the handles of batches, handed in before,
    that some of these are after. environment: what the runner is to find in its own, and tasks are
    not.
    """

    store: Identity
    orders: Sequence[BatchRequest]
    slots: int
    mark: str
    earlier: Mapping[str, str] = {}
    environment: Mapping[str, str] = {}

    @property
    def address(self) -> str:
        """Of the store."""
        return self.store.address

    @property
    def batches(self) -> list[str]:
        """The numbers of its batches."""
        return [order.batch for order in self.orders]


def _keep_silent(_: str) -> None:
    return None


class Executor(abc.ABC):
    """Gets batches run somewhere. A handle is text that survives a restart.

    tell: called now and then, with what to show, while `submit` waits for something; what it
    raises ends that.
    """

    name: str
    abilities: Abilities

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.tell: Tell = _keep_silent

    def check(self) -> None:  # noqa: B027 -- some need no options
        """Raises SettingsError where the options do not say where batches are to run."""

    @abc.abstractmethod
    def submit(self, load: SubmitRequest) -> dict[str, str]:
        """Have the batches of a store run; the handle of each.

        Raises BackendError, `transient` where the same call may succeed later.
        """

    @abc.abstractmethod
    def poll(self, handles: Sequence[str]) -> dict[str, str]:
        """QUEUED, RUNNING, ENDED or UNKNOWN for each handle, in one call to the backend."""

    @abc.abstractmethod
    def hasten(self, handles: Sequence[str]) -> None:
        """Have runners do now what the cancel mark in the store says, which they see in seconds.

        What has ended is no error.
        """

    def cancel(self, handles: Sequence[str]) -> None:
        """Have nothing begin of batches that are cancelled as a whole,
        and hasten those that have.
        """
        self.hasten(handles)

    def count_workers(self, slots: int, cpus: int = 1) -> int:
        """How many batches of so many slots (0: one slot of a worker), with tasks that need so
        many cores, may run at once; 0: unknown.

        Raises BackendError where there is nobody to ask, before anything is handed in.
        """
        del slots, cpus
        return 0

    def count_cores(self, slots: int) -> int:
        """The most cores that a task may have in a batch of so many slots; 0: unknown.

        Raises BackendError where there is nobody to ask.
        """
        del slots
        return 0

    def hint_cores(self, slots: int, cpus: int) -> str:
        """What to do for such a batch to have so many cores."""
        del slots
        return f"have workers with {cpus} cores"

    def explain(self, handles: Sequence[str]) -> str:
        """Why nothing of this runs, in words; empty where that is not known, or something does.

        Raises BackendError where that has lasted longer than the options allow.
        """
        del handles
        return ""

    # What follows is for executors whose runner is a child of this process.

    @property
    def is_attached(self) -> bool:
        """Whether what was submitted ends when this process does."""
        return False

    def wait(self, timeout_s: float) -> None:
        """Wait until there may be news, or `timeout_s` seconds."""
        time.sleep(timeout_s)

    def order_end(self, *, at_once: bool) -> None:  # noqa: B027 -- nothing to do for most
        """Have what is attached end its tasks: kindly, or at once."""

    def let_go(self) -> None:  # noqa: B027 -- nothing to do for most
        """Have what is attached go on when this process ends."""

    def read_ending(self) -> tuple[int | None, str]:
        """How what this process submitted ended.

        (exit code of its runners, the worst of them, None while some live; what that one
        complained of).
        """
        return 0, ""
