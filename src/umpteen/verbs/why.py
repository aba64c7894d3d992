"""`why`: why a task of a job is as it is."""

from __future__ import annotations

from umpteen.query.find import find_task, open_history
from umpteen.query.liveness import Liveness
from umpteen.query.why import Why, build_why

__all__ = ["explain"]


def explain(name: str, task: str) -> Why:
    """Why a task is as it is. Raises InputError where there is no such job or task."""
    history = open_history(name)
    index, _ = find_task(history, task)
    return build_why(history, index, Liveness().list_living(history))
