"""Where and how a job is to run: its settings, made complete before it is submitted.

Opens the executor and the store that they name; writes nothing.
"""

from __future__ import annotations

import re

import msgspec

from umpteen.errors import SettingsError
from umpteen.executors.base import Executor
from umpteen.executors.feasibility import refuse_impossible, refuse_too_many_slots
from umpteen.executors.registry import (
    ExecutorRegistry,
    find_short_name,
    open_executor,
    runs_here,
)
from umpteen.job.settings import Settings
from umpteen.job.spec import Job
from umpteen.query.liveness import Liveness
from umpteen.store.address import check_job_address, is_root, open_store
from umpteen.store.base import Store
from umpteen.system.resources import usable_cores

__all__ = ["detach", "open_executor_of", "open_liveness", "open_store_of", "resolve_settings"]

_PLACEHOLDER = re.compile(r"\{[A-Za-z_]\w*\}")


def open_executor_of(settings: Settings) -> Executor:
    """The executor that the settings name."""
    return open_executor(settings.executor, settings.executor_options)


def open_liveness(settings: Settings) -> Liveness:
    """What tells which batches live. Of executors that are import paths it asks only the one in the
    settings.

    That one the caller gave himself: `read_back_settings` takes none from a store.
    """
    return Liveness(ExecutorRegistry(given=settings.executor))


def open_store_of(settings: Settings) -> Store:
    """The results store that the settings name."""
    return open_store(settings.address, settings.results_options or None)


def resolve_settings(job: Job, folder: str) -> Job:
    """The job with its address made absolute and its slots counted, submitted from `folder`.

    Raises SettingsError and InputError for what can run nowhere or not there.
    """
    settings = job.settings
    _refuse_undecodable(folder, settings.address)
    executor = open_executor_of(settings)
    executor.check()  # refused before all else
    if not executor.abilities.is_engine:
        refuse_impossible(executor, enumerate(job.tasks), settings.slots)
    refuse_too_many_slots(settings.slots)
    address = _resolve_address(job)
    slots, source = _choose_slots(settings, is_engine=executor.abilities.is_engine)
    resolved = msgspec.structs.replace(
        settings, address=address, slots=slots, sources={**settings.sources, "slots": source},
        submitted_from=folder, executor=find_short_name(settings.executor),
        executor_options=dict(executor.complete(address)),
    )  # fmt: skip
    return msgspec.structs.replace(job, settings=resolved)


def _refuse_undecodable(*paths: str) -> None:
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            message = f"the folder's name {path!r} is not UTF-8"
            raise SettingsError(message, "use another folder") from None


def _resolve_address(job: Job) -> str:
    """The absolute address of the results, `{name}` filled in. Raises SettingsError."""
    settings = job.settings
    unknown = _PLACEHOLDER.search(settings.address.replace("{name}", ""))
    if unknown and not job.is_part:
        message = f"the address of the results has {unknown[0]}, which nothing stands for"
        raise SettingsError(message, "{name} is the job's name; nothing else is filled in")
    named = settings.address.replace("{name}", job.name)
    address = open_store(named, settings.results_options or None).address
    check_job_address(address)
    if is_root(address):
        hint = "write a folder below it: --results /data/{name}"
        raise SettingsError("results cannot lie in the root folder itself", hint)
    return address


def _choose_slots(settings: Settings, *, is_engine: bool) -> tuple[int, str]:
    """How many tasks at once, and who said so."""
    if settings.slots:
        return settings.slots, settings.sources["slots"]
    if is_engine:
        return 0, "default: one for each slot of a worker"
    return usable_cores(), "default: the cores this process may use"


def detach(job: Job) -> Job:
    """The job with settings by which it goes on without this process."""
    settings = job.settings
    if not runs_here(settings.executor):  # the others go on by themselves
        return job
    options = {**settings.executor_options, "detach": True}
    settings = msgspec.structs.replace(settings, executor_options=options)
    return msgspec.structs.replace(job, settings=settings)
