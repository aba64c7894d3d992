"""Finds a job's history, and tasks in it, by what people call them."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

from umpteen.errors import ErrorCode, InputError
from umpteen.history.history import History
from umpteen.job.spec import Task
from umpteen.query.registry import find_address, hinting_at_options, open_job_store, register

__all__ = ["find_names", "find_task", "open_history"]


def open_history(name: str) -> History:
    """What the store of a job knows, the job given by its name or its address.

    Raises InputError where there is no such job.
    """
    address = find_address(name)
    history = History(open_job_store(address))
    with hinting_at_options(address):
        history.refresh()
    register(history.job.get("name", name), address)
    return history


def find_task(history: History, wanted: str) -> tuple[int, Task]:
    """A task by its name, else by its index. Raises InputError where there is none such."""
    tasks = history.read_tasks()
    for index, task in enumerate(tasks):
        if task.name == wanted:
            return index, task
    if wanted.isdecimal() and int(wanted) < len(tasks):
        return int(wanted), tasks[int(wanted)]
    raise InputError(
        f"no task {wanted!r} in {history.job.get('name')!r}",
        _hint_task(wanted, [t for i, t in enumerate(tasks) if i not in history.dropped]),
        code=ErrorCode.NO_TASK,
    )


def _hint_task(wanted: str, tasks: Sequence[Task]) -> str:
    if not tasks:
        return "it has no tasks"
    import difflib

    names = [task.name for task in tasks[:20000]]
    near = difflib.get_close_matches(wanted, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"its tasks are {names[0]} to {names[-1]}"


def find_names(history: History, names: Sequence[str], tasks: Sequence[str]) -> Iterator[str]:
    """Of the tasks given by name, pattern or index. Raises InputError for one that is not there."""
    known = set(names)
    for given in tasks:
        if given in known:
            yield given
        elif found := fnmatch.filter(names, given):
            yield from found
        else:
            name = find_task(history, given)[1].name
            if name not in known:
                raise InputError(f"{name!r} is not in the job any more")
            yield name
