"""`rm`: remove a job with what it wrote, nothing else."""

from __future__ import annotations

from typing import NamedTuple

from umpteen.errors import InputError
from umpteen.history.history import History
from umpteen.model.command import write_verb
from umpteen.query.find import open_history
from umpteen.query.liveness import read_status
from umpteen.query.registry import forget
from umpteen.query.status import JobStatus
from umpteen.runner.leftovers import clear_dead
from umpteen.store.address import place_of
from umpteen.store.removal import Measured, Removed, measure_job, remove_job, remove_rest
from umpteen.store.submission_lock import submission_lock

__all__ = ["Removal", "plan_removal", "remove"]


class Removal(NamedTuple):
    """What `remove` would remove: the outputs in some folders, and the job."""

    name: str
    given: str  # what the job was called by who asked
    history: History
    folders: list[str]  # below the job's address
    outside: int  # how many tasks have their outputs elsewhere, where they stay

    def measure(self) -> Measured:
        """How many tasks have outputs that would be removed, and the bytes of all of it."""
        return measure_job(self.history.store, self.folders)


def plan_removal(name: str) -> Removal:
    """Raises InputError where there is no such job, or somebody runs it, or may."""
    history = open_history(name)
    refuse_running(read_status(history), name)
    places = [place_of(history.store, task.name, task.output) for task in history.read_tasks()]
    folders = list_below(history.store.address, places)
    outside = len(places) - len(folders)
    return Removal(history.job.get("name", name), name, history, folders, outside)


def list_below(address: str, places: list[str]) -> list[str]:
    """Of these addresses those below another one, as the folders that they are there."""
    above = f"{address}/"
    return [place.removeprefix(above) for place in places if place.startswith(above)]


def refuse_running(status: JobStatus, given: str) -> None:
    """Raises InputError where somebody runs the job, or may. given: what it was called by."""
    if status.state in ("running", "unknown"):
        is_known = status.state == "running"
        state = "is running" if is_known else "may be running on another machine"
        hint = f"{write_verb('cancel', given)} ends it first"
        raise InputError(f"{status.name!r} {state}", hint)


def remove(removal: Removal) -> Removed:
    """Remove the job. Raises InputError where somebody runs it by now, and StoreError."""
    history = removal.history
    with submission_lock(history.store) as lock:
        history.refresh()
        refuse_running(read_status(history), removal.given)
        clear_dead(history.identity)
        lock.check()
        removed = remove_job(history.store, removal.folders)
    remove_rest(history.store, removal.folders)
    forget(history.store.address)
    return removed
