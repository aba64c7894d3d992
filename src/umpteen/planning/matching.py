"""Finds each task of a job among the tasks that were submitted before.

A task with a name is found by its name, one without by its content. Pure: knows no store.
"""

from __future__ import annotations

import collections
from array import array
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from umpteen.job.spec import Task

__all__ = ["Change", "MatchedTasks", "match_tasks"]


class Change(msgspec.Struct, frozen=True):
    """A task that is not what it was: its form before and now."""

    index: int
    before: Task
    now: Task


class MatchedTasks(NamedTuple):
    """The tasks of a job with their names, and the index of each in its store."""

    tasks: list[Task]
    indices: Sequence[int]
    # Tasks that are new, in the order of their indices.
    added: list[Task]
    # Those that would do something else than before, and have to run again.
    changes: list[Change]
    # Those that would do the same, with another timeout or other tags.
    updates: list[Change]
    # Indices of tasks that were dropped and are back as they were.
    restored: list[int]
    # Whether each task has its position for an index, and each automatic name is that number.
    is_plain: bool


def match_tasks(
    given: list[Task], recorded: Sequence[Task] | None, dropped: Collection[int]
) -> MatchedTasks:
    """Give each task of a job its name and its index.

    recorded: the tasks as submitted, by index; None where they are sure to be the same. dropped:
    the indices of those that the job does not have any more.
    """
    if recorded is None:
        return MatchedTasks(given, range(len(given)), [], [], [], [], is_plain=True)
    if not recorded:
        return MatchedTasks(given, range(len(given)), given, [], [], [], is_plain=True)
    tasks = _name_all(given, recorded, dropped)
    index_of = {task.name: index for index, task in enumerate(recorded)}
    indices = array("I")
    added: list[Task] = []
    changes: list[Change] = []
    updates: list[Change] = []
    restored: list[int] = []
    for task in tasks:
        index = index_of.get(task.name)
        if index is None:
            indices.append(len(recorded) + len(added))
            added.append(task)
            continue
        indices.append(index)
        before = recorded[index]
        if _identity(before) != _identity(task):
            changes.append(Change(index, before, task))
            continue
        if index in dropped:
            restored.append(index)
        if before != task or index in dropped:
            updates.append(Change(index, before, task))
    is_plain = not any(task.automatic and task.name != str(i) for i, task in enumerate(tasks))
    is_plain = is_plain and all(position == index for position, index in enumerate(indices))
    return MatchedTasks(tasks, indices, added, changes, updates, restored, is_plain)


def _identity(task: Task) -> Any:
    """What has to be the same for a success to stand: the command, the declared environment and the
    directory.
    """
    if isinstance(task.command, str) and not task.env and task.cwd is None:
        return task.command
    env = tuple(sorted((task.env or {}).items()))
    command = task.command if isinstance(task.command, str) else tuple(task.command)
    return (command, env, task.cwd)


def _name_all(
    given: Sequence[Task], recorded: Sequence[Task], dropped: Collection[int]
) -> list[Task]:
    names = _choose_names(given, recorded, dropped)
    return [
        task if task.name == name else msgspec.structs.replace(task, name=name, automatic=True)
        for task, name in zip(given, names, strict=True)
    ]


def _choose_names(
    tasks: Sequence[Task], recorded: Sequence[Task], dropped: Collection[int]
) -> list[str]:
    """Names for unnamed tasks: those they had before, else their position's, else the next free.

    The k-th unnamed task of a content keeps the k-th name recorded for it, so that a line
    inserted in a file reruns one task and not all after it.
    """
    kept: dict[Any, collections.deque[str]] = collections.defaultdict(collections.deque)
    for index, task in enumerate(recorded):
        if task.automatic and index not in dropped:
            kept[_identity(task)].append(task.name)
    names = [
        task.name or (kept[identity].popleft() if kept.get(identity := _identity(task)) else "")
        for task in tasks
    ]
    taken = set(names)
    everything = taken | {task.name for task in recorded}
    free = (str(n) for n in range(len(recorded), len(recorded) + len(tasks) * 2 + 1))
    for position, name in enumerate(names):
        if name:
            continue
        own = str(position)
        if own in taken:
            own = next(name for name in free if name not in everything)
        names[position] = own
        taken.add(own)
        everything.add(own)
    return names
