"""Which tasks need the same of the place that runs them, so that they may share a batch. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import msgspec

from umpteen.job.spec import Task, TaskOptions
from umpteen.model.retries import plan_retry

__all__ = ["find_memory", "list_capabilities", "number_needs"]

_NONE = TaskOptions()


def number_needs(tasks: Sequence[Task]) -> Sequence[int] | None:
    """A number for each, equal for those that need the same; None where all of them do."""
    if all(task.options is None for task in tasks):
        return None  # nearly all jobs
    numbers: dict[Hashable, int] = {}
    asked = ((task.options or _NONE).asked_for for task in tasks)
    found = array("I", (numbers.setdefault(each, len(numbers)) for each in asked))
    return found if len(numbers) > 1 else None


def list_capabilities(tasks: Sequence[Task]) -> tuple[str, ...]:
    """All that one of these needs of its machine, sorted."""
    named = (task.options.needs for task in tasks if task.options is not None)
    return tuple(sorted({name for names in named for name in names}))


def find_memory(options: TaskOptions | None, tries: Sequence[Mapping[str, Any]]) -> int:
    """The bytes that the next attempt of a task needs, as its rules say after these; 0: unsaid.

    tries: records of the attempts since it came to an end, each of which another was to follow.
    """
    said = (options.memory if options else None) or 0
    if options is None or not options.retries or not tries:
        return said
    rules = msgspec.to_builtins(options.retries)
    again = plan_retry(rules, tries, options.memory)
    return max(said, (again.memory if again else None) or 0)
