"""The contract of an executor, and how one is found by its name."""

from __future__ import annotations

import abc
import importlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from umpteen.errors import SettingsError, nearest_hint

__all__ = ["ENDED", "QUEUED", "RUNNING", "UNKNOWN", "Abilities", "Executor", "open_executor"]

QUEUED, RUNNING, ENDED, UNKNOWN = "queued", "running", "ended", "unknown"

_MODULES = {"local": "umpteen.executors.local:LocalExecutor"}
_LATER = ("dask", "ray", "slurm", "ssh", "pool", "saturn")


class Abilities(NamedTuple):
    """What an executor can do. start_up_s: what one batch costs before its first task."""

    dependencies: bool
    capabilities: bool
    reconnect: bool
    batch_cap: int
    start_up_s: float


class Executor(abc.ABC):
    """Gets batches run somewhere. A handle is text that survives a restart."""

    name: str
    abilities: Abilities

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    @abc.abstractmethod
    def submit(
        self,
        address: str,
        batches: Sequence[str],
        slots: int,
        environment: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """Have the batches of the store at `address` run; the handle of each.

        environment: what the runner is to find in its own, and tasks are not.
        Raises BackendError, `transient` where the same call may succeed later.
        """

    @abc.abstractmethod
    def poll(self, handles: Sequence[str]) -> dict[str, str]:
        """QUEUED, RUNNING, ENDED or UNKNOWN for each handle, in one call to the backend."""

    @abc.abstractmethod
    def cancel(self, handles: Sequence[str]) -> None:
        """Make haste with what the cancel mark in the store says; what has ended is no error."""

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

    def read_ending(self) -> tuple[int | None, str]:
        """(exit code of what this process started, None while it lives; what it complained of)."""
        return 0, ""


def open_executor(name: str, options: Mapping[str, Any]) -> Executor:
    """The executor of that short name or import path. Raises SettingsError."""
    place = _MODULES.get(name, name)
    if name in _LATER:
        raise SettingsError(
            f"the executor {name!r} is not supported yet by this version", "use 'local'"
        )
    module, colon, attribute = place.partition(":")
    if not colon:
        module, _, attribute = place.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, ValueError, AttributeError) as error:
        raise SettingsError(
            f"there is no executor {name!r}", nearest_hint(name, [*_MODULES, *_LATER])
        ) from error
    executor: Executor = found(options)
    return executor
