"""The contract of an executor, and how one is found by its name."""

from __future__ import annotations

import abc
import importlib
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
    def submit(self, address: str, batches: Sequence[str], slots: int) -> dict[str, str]:
        """Have the batches of the store at `address` run; the handle of each.

        Raises BackendError, `transient` where the same call may succeed later.
        """

    @abc.abstractmethod
    def poll(self, handles: Sequence[str]) -> dict[str, str]:
        """QUEUED, RUNNING, ENDED or UNKNOWN for each handle, in one call to the backend."""

    @abc.abstractmethod
    def cancel(self, handles: Sequence[str]) -> None:
        """End what the handles stand for; what is not there any more is no error."""


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
