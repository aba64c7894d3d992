"""The executors by their names."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from umpteen.errors import SettingsError, nearest_hint
from umpteen.executors.base import LOCAL, Executor

__all__ = ["find_short_name", "is_short_name", "open_executor"]


_MODULES = {
    LOCAL: "umpteen.executors.local:LocalExecutor",
    "multiprocessing": "umpteen.executors.local:LocalExecutor",
    "dask": "umpteen.executors.dask.executor:DaskExecutor",
    "ray": "umpteen.executors.ray.executor:RayExecutor",
}


_LATER = ("slurm", "ssh", "pool", "saturn")


def find_short_name(name: str) -> str:
    """Of several names for one executor, that by which it is stored."""
    place = _MODULES.get(name)
    return next((short for short, module in _MODULES.items() if module == place), name)


def is_short_name(name: str) -> bool:
    """Whether it is an executor of ours, and not a path that code is imported from."""
    return name in _MODULES


def open_executor(name: str, options: Mapping[str, Any]) -> Executor:
    """The executor of that short name or import path. Raises SettingsError."""
    place = _MODULES.get(name, name)
    if name in _LATER:
        raise SettingsError(
            f"the executor {name!r} is not supported yet by this version",
            "use 'local', 'dask' or 'ray'",
        )
    module, colon, attribute = place.partition(":")
    if not colon:
        module, _, attribute = place.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, ValueError, AttributeError, TypeError) as error:
        raise SettingsError(
            f"there is no executor {name!r}", nearest_hint(name, [*_MODULES, *_LATER])
        ) from error
    if not (isinstance(found, type) and issubclass(found, Executor)):
        raise SettingsError(
            f"{name!r} is no executor", "name a class that is derived from umpteen's Executor"
        )
    executor: Executor = found(options)
    return executor
