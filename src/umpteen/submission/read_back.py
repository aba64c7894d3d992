"""A job as it was submitted before, read from its store: its tasks, and settings to go on with."""

from __future__ import annotations

import contextlib
import os

import msgspec

from umpteen.errors import InputError, SettingsError
from umpteen.executors.registry import DEFAULT, find_short_name, runs_here, tell_unloaded
from umpteen.history.history import History
from umpteen.history.settings import list_left_out, read_settings
from umpteen.job.settings import DEFAULTS, ExecutorChoice, Settings
from umpteen.job.spec import Job
from umpteen.model.command import write_verb
from umpteen.model.states import SLOTS_MOST
from umpteen.query.registry import find_options, give_options
from umpteen.query.trust import find_stranger
from umpteen.store.base import Store
from umpteen.store.layout import REMOVING
from umpteen.submission.settings import open_store_of
from umpteen.system.resources import usable_cores

__all__ = [
    "read_back_job",
    "read_back_settings",
    "read_history",
    "refuse_left_out",
    "refuse_removed",
]


def read_history(job: Job) -> History:
    """What the job's store has of it. Raises InputError where that holds another job."""
    settings = job.settings
    if settings.results_options:  # whatever is looked at beside the store
        give_options(settings.address, settings.results_options)
    history = History(open_store_of(settings))
    history.refresh()
    if history.job and history.job["name"] != job.name:
        raise InputError(
            f"{history.store.address} holds the job {history.job['name']!r}",
            f"use --name {history.job['name']}, or other --results",
        )
    return history


def read_back_job(history: History, settings: Settings, source_digest: str = "") -> Job:
    """The job as the store has it: every task in its newest form."""
    tasks = [
        task for index, task in enumerate(history.read_tasks()) if index not in history.dropped
    ]
    return Job(history.job["name"], tasks, settings, source_digest)


def read_back_settings(
    history: History, *, detach: bool, executor: ExecutorChoice | None = None
) -> Settings:
    """The settings of the last submission; without a deadline, which was that time's.

    executor: where it is to run from now on, if not as before. Raises SettingsError where it has
    to be given.
    """
    given = read_settings(history)
    before = given.get("executor", DEFAULT)
    if executor and executor.is_fallback and not tell_unloaded(find_short_name(before)):
        executor = None
    if executor is None:
        _refuse_strange(history, before)
        _refuse_unloaded(before)
    name, options = (
        (find_short_name(executor.name), dict(executor.options)) if executor else (before, {})
    )
    if name != before or options:
        given.update(executor=name, executor_options=options)
    if runs_here(before) and not runs_here(name):
        given["slots"] = 0  # those were this machine's
    sources = dict.fromkeys(DEFAULTS, "the run before")
    if executor:
        sources.update(executor="the command line", executor_options="the command line")
    given.update(address=history.store.address, deadline_s=None, sources=sources)
    given["results_options"] = find_options(history.store.address)
    if runs_here(given.get("executor", DEFAULT)):
        # A batch file's job may not say, and an older version took any number.
        given["slots"] = min(given.get("slots") or usable_cores(), SLOTS_MOST)
        options = given.get("executor_options") or {}
        kept = {key: options[key] for key in options if key == "capabilities"}
        given["executor_options"] = {**kept, "detach": True} if detach else kept
        given["submitted_from"] = _find_folder(history.store, given.get("submitted_from") or "")
    return msgspec.convert({**DEFAULTS, **given}, Settings)


def _find_folder(store: Store, before: str) -> str:
    """Where relative paths begin: the folder that the job was submitted from before.

    Where that is gone and the job lies below the user's folder, all of it was moved here.
    """
    if not before or os.path.isdir(before):
        return before
    with contextlib.suppress(OSError):  # the folder that the user is in was removed
        here = os.getcwd()
        if os.path.realpath(store.address).startswith(f"{here}/"):
            return here
    return before


def refuse_left_out(history: History, settings: Settings) -> None:
    """Raises SettingsError where the job needs an option that its store does not keep, as it is
    secret.
    """
    if left_out := list_left_out(history, settings.executor_options):
        raise SettingsError(
            f"the job was submitted with {' and '.join(left_out)}, which the store does not keep",
            "umpteen collect FILE, with the job's file, has it again",
        )


def _refuse_strange(history: History, executor: str) -> None:
    """Raises SettingsError where the executor is named by what somebody else may have written."""
    if not runs_here(executor) and (found := find_stranger(history)):
        raise SettingsError(
            f"{found} may be somebody else's, and names the executor {executor!r}",
            "umpteen collect FILE, with the job's file, says where it is to run",
        )


def _refuse_unloaded(executor: str) -> None:
    """Raises SettingsError where the executor is one that may not be taken from a store."""
    if unloaded := tell_unloaded(find_short_name(executor)):
        hint = f"give the job's file in place of its name, or --executor {executor}"
        raise SettingsError(unloaded, hint)


def refuse_removed(history: History) -> None:
    """Raises InputError where the job is being removed."""
    if history.job.get(REMOVING):
        hint = f"{write_verb('rm', history.store.address)} goes on with that"
        raise InputError(f"{history.job['name']!r} is being removed", hint)
