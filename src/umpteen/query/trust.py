"""Whether the executor that a store names may be asked: only where this user wrote that."""

from __future__ import annotations

from umpteen.executors.registry import find_short_name, runs_here, tell_unloaded
from umpteen.history.history import BatchHistory, History
from umpteen.query.registry import was_handed_in
from umpteen.store.address import is_remote

__all__ = ["find_stranger"]


def tell_unasked(history: History, batch: BatchHistory, given: str = "") -> str:
    """Why the executor that has a batch is not asked after it; empty where it may be.

    given: as of `tell_unloaded`. Whoever writes to a store could else have us speak to anybody.
    """
    name = find_short_name(batch.executor)
    if runs_here(name):
        return ""
    if unloaded := tell_unloaded(name, given):
        return unloaded
    if found := find_stranger(history, batch.hand_in):
        return (
            f"{found} may be somebody else's, so that what it names ({name}) is not asked; "
            "umpteen collect FILE, with the job's file, does so"
        )
    return ""


def find_stranger(history: History, hand_in: int | None = None) -> str:
    """Which file of a hand-in (of any, where none is given) somebody else may have written; empty
    for none.

    In a folder the owner of each file tells. Elsewhere a job is this user's who submitted it from
    this machine.
    """
    if is_remote(history.store.address):
        return "" if was_handed_in(history.store.address) else history.store.address
    if hand_in is not None:
        return history.files.strange.get(hand_in, "")
    return next(iter(history.files.strange.values()), "")
