"""Which tasks need the same of the place that runs them, so that they may share a batch. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence

from umpteen.job.spec import Task, TaskOptions

__all__ = ["number_needs"]

_NONE = TaskOptions()


def number_needs(tasks: Sequence[Task]) -> Sequence[int] | None:
    """A number for each, equal for those that need the same; None where all of them do."""
    if all(task.options is None for task in tasks):
        return None  # nearly all jobs
    numbers: dict[Hashable, int] = {}
    asked = ((task.options or _NONE).asked_for for task in tasks)
    found = array("I", (numbers.setdefault(each, len(numbers)) for each in asked))
    return found if len(numbers) > 1 else None
