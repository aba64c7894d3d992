"""The executors by their names: ours, those of installed packages, and any class by its path.

A package offers executors of its own by entry points of the group `umpteen.executors`, each a
name and a class; they are looked for when a name is none of ours.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import re
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from umpteen.errors import SettingsError, nearest_hint
from umpteen.executors.base import Executor

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "DEFAULT",
    "ExecutorRegistry",
    "find_short_name",
    "is_short_name",
    "open_executor",
    "runs_here",
    "tell_unloaded",
]

DEFAULT = "local"
GROUP = "umpteen.executors"

_LOCAL = "umpteen.executors.local:LocalExecutor"
_OURS = {
    DEFAULT: _LOCAL,
    "multiprocessing": _LOCAL,
    "dask": "umpteen.executors.dask.executor:DaskExecutor",
    "ray": "umpteen.executors.ray.executor:RayExecutor",
    "slurm": "umpteen.executors.slurm.executor:SlurmExecutor",
    "ssh": "umpteen.executors.ssh.executor:SshExecutor",
}
_LATER = ("pool", "saturn")
_SHORT_NAME = re.compile(r"[\w-]+")
_PATH_SIGN = re.compile(r"[.:]")


class ExecutorRegistry:
    """The executors that one watch or one look asks: each is opened once, all are closed with it.

    So an executor may keep what it was answered, and the connection by which it asks.
    """

    def __init__(self, *, given: str = "") -> None:
        self.given = given  # the executor that the caller names himself, as of `tell_unloaded`
        self._opened: dict[tuple[str, str], Executor] = {}

    def open(self, name: str, options: Mapping[str, Any]) -> Executor:
        """The one of that name with these options. Raises SettingsError."""
        key = find_short_name(name), json.dumps(options, sort_keys=True, default=repr)
        if key not in self._opened:
            if unloaded := tell_unloaded(key[0], self.given):
                raise SettingsError(unloaded)
            self._opened[key] = open_executor(name, options)
        return self._opened[key]

    def open_any(self, name: str) -> Executor:
        """One of that name, with whatever options: enough for `poll`, `wake` and `cancel`.

        Raises SettingsError.
        """
        short = find_short_name(name)
        known = (executor for (other, _), executor in self._opened.items() if other == short)
        return next(known, None) or self.open(name, {})

    def close(self) -> None:
        """Close all that were opened; none of them is to be used any more."""
        while self._opened:
            _, executor = self._opened.popitem()
            executor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def find_short_name(name: str) -> str:
    """Of several names for one executor, that by which it is stored; the default for no name."""
    path = _OURS.get(name or DEFAULT)
    return next((short for short, other in _OURS.items() if other == path), name)


def is_short_name(name: str) -> bool:
    """Whether it is an executor of ours or of an installed package, and no path to any code."""
    return name in _OURS or (bool(_SHORT_NAME.fullmatch(name)) and name in _find_offered())


def tell_unloaded(name: str, given: str = "") -> str:
    """Why an executor that a store names is not loaded; empty where it may be.

    given: the one that the caller names himself, in his job file or by a flag. By any other import
    path whoever writes to a store could have us load any code.
    """
    if name == given or is_short_name(name):
        return ""
    if name in _LATER:
        return f"the executor {name!r} is not supported yet by this version"
    if not _PATH_SIGN.search(name):
        return f"there is no executor {name!r} here"
    return f"the executor {name!r} is an import path, which is loaded only where you give it"


def runs_here(name: str) -> bool:
    """Whether the executor of that name runs batches on this machine, and asks nobody for it."""
    return _OURS.get(name or DEFAULT) == _LOCAL


def open_executor(name: str, options: Mapping[str, Any]) -> Executor:
    """The executor of that short name or import path. Raises SettingsError."""
    executor: Executor = _find_class(name)(options)
    return executor


def _find_class(name: str) -> type[Executor]:
    if name not in _OURS and is_short_name(name):
        return _load_offered(name)
    if name in _LATER:
        raise SettingsError(
            f"the executor {name!r} is not supported yet by this version",
            "use 'local', 'dask', 'ray', 'slurm' or 'ssh'",
        )
    path = _OURS.get(name, name)
    module, colon, attribute = path.partition(":")
    if not colon:
        module, _, attribute = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, ValueError, AttributeError, TypeError) as error:
        known = [*_OURS, *_find_offered(), *_LATER]
        raise SettingsError(f"there is no executor {name!r}", nearest_hint(name, known)) from error
    return _check_class(name, found, "name a class that is derived from umpteen's Executor")


def _load_offered(name: str) -> type[Executor]:
    """The class that an installed package offers by that name."""
    offered = _find_offered()[name]
    package = offered.dist.name if offered.dist else offered.module
    try:
        found = offered.load()
    except Exception as error:  # whatever a package of somebody else may raise
        reason = str(error) or type(error).__name__
        raise SettingsError(
            f"the executor {name!r} of the package {package!r} cannot be loaded: {reason}",
            f"update or reinstall it: pip install --upgrade {package}",
        ) from error
    return _check_class(name, found, f"that is an error in the package {package!r}")


def _check_class(name: str, found: object, hint: str) -> type[Executor]:
    if isinstance(found, type) and issubclass(found, Executor):
        return found
    raise SettingsError(f"{name!r} is no executor", hint)


@functools.cache
def _find_offered() -> dict[str, EntryPoint]:
    """What installed packages offer, by name; nothing of it is loaded."""
    found: dict[str, EntryPoint] = {}
    from importlib.metadata import entry_points  # takes longer to load than all of this

    with contextlib.suppress(OSError, ValueError):  # a package whose own files are damaged
        for offered in entry_points(group=GROUP):
            found.setdefault(offered.name, offered)
    return found
