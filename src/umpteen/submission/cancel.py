"""Cancelling, as the store sees it: the mark, and records of what nobody runs.

Knows neither executors nor which runners live; the rules are those of docs/leaving.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from umpteen.errors import InputError
from umpteen.history.history import History
from umpteen.model.states import IS_FINAL
from umpteen.runner.batch_start import cancel_batches
from umpteen.runner.leftovers import clear_dead
from umpteen.store.job_files import read_cancel_mark, write_cancel_mark

__all__ = [
    "is_cancelled",
    "is_open",
    "put_cancel_mark",
    "record_cancelled",
    "record_marked",
    "refuse_adopted",
]


def is_open(history: History, index: int) -> bool:
    """Whether a task was submitted, and has not come to an end."""
    return history.batch_of[index] >= 0 and not IS_FINAL[history.states[index]]


def is_cancelled(history: History) -> bool:
    """Whether the mark stands at the newest batch: then nothing more is to be submitted."""
    return 0 < _newest(history) <= read_cancel_mark(history.store).upto


def _newest(history: History) -> int:
    return max((int(batch) for batch in history.batches if batch.isdigit()), default=0)


def record_marked(history: History, living: set[str]) -> bool:
    """Record tasks as cancelled that the mark names one by one, in batches that nobody runs;
    whether there were any.

    To be done before these batches are closed, as their tasks go into other batches then. The
    caller holds the submission lock.
    """
    names = list(history.batches)
    lost: dict[int, str] = {}
    for index, upto in read_cancel_mark(history.store).tasks.items():
        if index < history.count and is_open(history, index):
            batch = names[history.batch_of[index]]
            if batch not in living and batch.isdigit() and int(batch) <= upto:
                lost[index] = batch
    record_cancelled(history, set(lost.values()), set(lost))
    return bool(lost)


def refuse_adopted(history: History, chosen: Sequence[int]) -> None:
    """Raises InputError for tasks of a batch file from elsewhere, which no mark can name."""
    names = list(history.batches)
    if any(not names[history.batch_of[index]].isdigit() for index in chosen):
        raise InputError(
            f"{history.job.get('name')!r} was started by `umpteen batch`",
            "press Ctrl-C where it runs, or end it with kill",
        )


def put_cancel_mark(history: History, chosen: Sequence[int] | None) -> None:
    """Raise the mark to the newest batch, for all tasks or those chosen.

    The caller holds the submission lock.
    """
    newest = _newest(history)
    mark = read_cancel_mark(history.store)
    if chosen is None:
        mark = mark._replace(upto=max(mark.upto, newest))
    else:
        mark = mark._replace(tasks={**mark.tasks, **dict.fromkeys(chosen, newest)})
    write_cancel_mark(history.store, mark)


def record_cancelled(history: History, batches: set[str], chosen: set[int]) -> None:
    """Record tasks as cancelled as a runner would, in a new start of each batch that nobody runs.

    The caller holds the submission lock. Raises StoreError.
    """
    clear_dead(history.identity)
    cancel_batches(history.identity, history.store, sorted(batches), chosen)
