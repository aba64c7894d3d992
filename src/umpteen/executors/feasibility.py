"""Refuses what an executor can never run, before anything is submitted."""

from __future__ import annotations

from collections.abc import Iterable

from umpteen.errors import InputError, SettingsError
from umpteen.executors.base import Executor, TaskNeeds
from umpteen.job.spec import Task, TaskOptions
from umpteen.model.states import SLOTS_MOST

__all__ = ["read_needs", "refuse_impossible", "refuse_too_many_slots"]


def refuse_impossible(executor: Executor, tasks: Iterable[tuple[int, Task]], slots: int) -> None:
    """Raises InputError for a task that needs what the executor has nowhere.

    tasks: with their indices. slots: of a batch. Raises BackendError where there is nobody to ask.
    """
    needing = sorted(
        (index, task.name, options)
        for index, task in tasks
        if (options := task.options) and (options.cpus or options.gpus or options.memory)
    )
    lack = executor.lacks([read_needs(options) for _, _, options in needing], slots)
    if lack is not None:
        index, name, _ = needing[lack.number]
        raise InputError(
            f"task {(name or str(index))!r} needs {lack.wanted} {lack.what}; {lack.limit}",
            lack.hint,
        )


def read_needs(options: TaskOptions) -> TaskNeeds:
    """What a task with these options needs of a machine."""
    return TaskNeeds(options.cpus or 0, options.gpus, options.memory or 0, options.slurm or {})


def refuse_too_many_slots(slots: int) -> None:
    """Raises SettingsError for more tasks at once than one runner starts."""
    if slots > SLOTS_MOST:
        raise SettingsError(
            f"{slots:,} slots are more than one runner has: {SLOTS_MOST:,}",
            "slots are tasks at once; those beyond wait for their turn",
        )
