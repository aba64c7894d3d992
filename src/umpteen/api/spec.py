"""A job as a Python program writes it: the keys are those of a job file."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from umpteen.api.errors import hinted
from umpteen.errors import InputError, nearest_hint

__all__ = ["Job", "Task", "Work"]

_Class = TypeVar("_Class")


def _with_known_keywords(kind: type[_Class]) -> type[_Class]:
    """The dataclass, which answers an unknown keyword with the nearest: raises InputError."""
    build: Callable[..., None] = kind.__init__
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]

    @functools.wraps(build)
    @hinted()
    def check(self: object, *arguments: Any, **keywords: Any) -> None:
        for name in keywords:
            if name not in known:
                raise InputError(f"a {kind.__name__} has no {name!r}", nearest_hint(name, known))
        build(self, *arguments, **keywords)

    kind.__init__ = check  # type: ignore[method-assign]
    return kind


@_with_known_keywords
@dataclasses.dataclass
class Task:
    """One command, or with a matrix one for each row; the keys are those of a job file.

    timeout: a duration such as `90` (seconds), `"15m"`. memory, output_limit: a size such as
    `"4G"`. Raises InputError for a keyword that is none of them.
    """

    command: str | Iterable[Any]
    name: str | None = None
    matrix: Any = None
    after: Any = None
    retries: Any = None
    timeout: str | float | None = None
    cpus: int | None = None
    memory: str | int | None = None
    gpus: int | None = None
    needs: str | Iterable[str] | None = None
    env: Mapping[str, Any] | None = None
    cwd: str | os.PathLike[str] | None = None
    tags: str | Iterable[str] | None = None
    expect: str | Iterable[str] | None = None
    output_limit: str | int | None = None
    priority: int | None = None
    shell: bool | None = None
    slurm: Mapping[str, Any] | None = None


@_with_known_keywords
@dataclasses.dataclass
class Job:
    """A name, tasks, and settings; the keys are those of a job file.

    defaults: keys of a task that hold for all of them, where a task has none of its own.
    Raises InputError for a keyword that is none of them.
    """

    name: str
    tasks: Iterable[Task | str]
    slots: int | None = None
    results: str | os.PathLike[str] | None = None
    executor: str | Mapping[str, Any] | None = None
    batch_size: int | None = None
    deadline: str | float | None = None
    grace: str | float | None = None
    canary: int | None = None
    max_failures: int | None = None
    fail_fast: bool | None = None
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# What a job can be given as.
Work = Job | Task | Iterable[Task | str] | str | os.PathLike[str]
