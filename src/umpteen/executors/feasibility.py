"""Whether tasks can run where they are to run: asked before anything is submitted."""

from __future__ import annotations

from collections.abc import Iterable

from umpteen.errors import InputError, SettingsError
from umpteen.executors.base import Executor
from umpteen.job.spec import Task, TaskOptions
from umpteen.model.states import SLOTS_MOST
from umpteen.system.resources import in_mb, list_lacks, read_capacity

__all__ = ["count_cpus", "refuse_impossible", "refuse_too_many_slots", "refuse_too_wide"]


def refuse_impossible(tasks: Iterable[Task]) -> None:
    """Raises InputError for a task that needs what this machine does not have."""
    needing = [task for task in tasks if task.options is not None]
    if not needing:
        return
    here = read_capacity()
    for position, task in enumerate(needing):
        options = task.options or TaskOptions()
        lacks = list_lacks(options.cpus or 0, options.gpus, options.memory or 0, here)
        for wanted, most, what in map(in_mb, lacks):
            raise InputError(
                f"task {(task.name or str(position))!r} needs {wanted} {what}; "
                f"this machine has {most}",
                _hint_lack(what, most),
            )


def _hint_lack(what: str, most: int) -> str:
    """What to do where a task needs more than the `most` that there is."""
    if what == "gpus":
        return "UMPTEEN_GPUS says how many there are"
    if what == "cpus":
        return f"write fewer, or --cpus {most} for all tasks; slots are tasks at once, not cores"
    return f"write less, or --memory {most}M for all tasks"


def refuse_too_wide(tasks: Iterable[tuple[int, Task]], slots: int, executor: Executor) -> None:
    """Raises InputError where a task (given with its index) needs more cores than a worker has.

    The engine is asked only where a task says that it needs several.
    """
    if not executor.abilities.is_engine:
        return
    widest = max(tasks, key=lambda each: (count_cpus(each[1]), -each[0]), default=None)
    if widest is None or count_cpus(widest[1]) == 1:
        return
    index, task = widest
    cpus, most = count_cpus(task), executor.count_cores(slots)
    if 0 < most < cpus:
        raise InputError(
            f"task {(task.name or str(index))!r} needs {cpus} cpus; "
            f"a worker of {executor.name} has at most {most}",
            f"{executor.hint_cores(slots, cpus)}, or write --cpus {most} for all tasks",
        )


def count_cpus(task: Task) -> int:
    """How many cores a task needs."""
    return (task.options.cpus or 1) if task.options is not None else 1


def refuse_too_many_slots(slots: int) -> None:
    """Raises SettingsError for more tasks at once than one runner starts."""
    if slots > SLOTS_MOST:
        raise SettingsError(
            f"{slots:,} slots are more than one runner has: {SLOTS_MOST:,}",
            "slots are tasks at once; those beyond wait for their turn",
        )
