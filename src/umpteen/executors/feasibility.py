"""Refuses what an executor can never run, before anything is submitted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from umpteen.errors import InputError, SettingsError
from umpteen.executors.base import Executor, TaskNeeds
from umpteen.job.spec import Task, TaskOptions
from umpteen.model.states import SLOTS_MOST

__all__ = ["read_needs", "refuse_impossible", "refuse_lacking", "refuse_too_many_slots"]


def refuse_impossible(executor: Executor, tasks: Iterable[tuple[int, Task]], slots: int) -> None:
    """Raises InputError for a task that needs more than the executor has anywhere.

    tasks: with their indices. slots: of a batch. Raises BackendError where there is nobody to ask.
    """
    needing = sorted(
        (index, task.name, options)
        for index, task in tasks
        if (options := task.options) and (options.cpus or options.gpus or options.memory)
    )
    needs = [read_needs(options)._replace(capabilities=()) for _, _, options in needing]
    _refuse_lack(executor, needing, needs, slots)


def refuse_lacking(executor: Executor, tasks: Iterable[tuple[int, Task]], slots: int) -> None:
    """Raises InputError for a task with capabilities that no machine of the executor has, or that
    it knows nothing of.

    tasks: that are to run, as others may need anything. Else as `refuse_impossible`.
    """
    needing = sorted(
        (index, task.name, options)
        for index, task in tasks
        if (options := task.options) and options.needs
    )
    if not needing:
        return
    if not executor.abilities.capabilities:
        index, name, options = needing[0]
        raise InputError(
            f"task {(name or str(index))!r} needs {' and '.join(map(repr, options.needs))}; "
            f"the executor {executor.name!r} does not know what machines have",
            executor.hint_capabilities(options.needs),
        )
    _refuse_lack(executor, needing, [read_needs(options) for _, _, options in needing], slots)


def _refuse_lack(
    executor: Executor,
    needing: Sequence[tuple[int, str, TaskOptions]],
    needs: Sequence[TaskNeeds],
    slots: int,
) -> None:
    """needing: index, name and options of each task, of which `needs` is what it needs."""
    if (lack := executor.lacks(needs, slots)) is not None:
        index, name, _ = needing[lack.number]
        raise InputError(
            f"task {(name or str(index))!r} needs {lack.needed}; {lack.limit}", lack.hint
        )


def read_needs(options: TaskOptions) -> TaskNeeds:
    """What a task with these options needs of a machine."""
    return TaskNeeds(
        options.cpus or 0, options.gpus, options.memory or 0, options.slurm or {}, options.needs
    )


def refuse_too_many_slots(slots: int) -> None:
    """Raises SettingsError for more tasks at once than one runner starts."""
    if slots > SLOTS_MOST:
        raise SettingsError(
            f"{slots:,} slots are more than one runner has: {SLOTS_MOST:,}",
            "slots are tasks at once; those beyond wait for their turn",
        )
