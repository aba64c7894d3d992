"""Has a job run on a machine of the user's config: in its Slurm, with its results there."""

from __future__ import annotations

import msgspec

from umpteen.config.machines import Machine
from umpteen.errors import SettingsError
from umpteen.job.settings import Settings
from umpteen.job.spec import Job

__all__ = ["place_on"]

_EXECUTOR = "slurm"


def place_on(job: Job, machine: Machine) -> Job:
    """The job with what is configured for the machine where a flag does not say otherwise.

    Options that the job's file has for Slurm count more than those of the machine, and lines of
    set-up are added. Raises SettingsError where the machine has no path, or a flag names another
    executor.
    """
    settings = job.settings
    source = f"machine {machine.name}"
    is_said = settings.executor == _EXECUTOR
    if not is_said and _is_of_flag(settings, "executor"):
        raise SettingsError(
            f"--machine runs a job in Slurm, and --executor says {settings.executor!r}",
            "leave one of them out",
        )
    given = settings.executor_options if is_said else {}
    account = {"account": machine.account} if machine.account else {}
    host = {"host": machine.target} if machine.target else {}
    said = given.get("setup") or []
    setup = [machine.env_command] if machine.env_command else []
    setup += [said] if isinstance(said, str) else said
    slurm = {key: value or True for key, value in machine.slurm.items()}  # empty takes no value
    options = {**account, **slurm, **given, **host}
    if setup:
        options["setup"] = setup
    settings = msgspec.structs.replace(
        settings, executor=_EXECUTOR, executor_options=options,
        sources={**settings.sources, "executor": source, "executor_options": source},
    )  # fmt: skip
    if not _is_of_flag(settings, "address"):
        settings = _with_results(settings, machine, source)
    return msgspec.structs.replace(job, settings=settings)


def _with_results(settings: Settings, machine: Machine, source: str) -> Settings:
    folder = f"{machine.folder}/results/{{name}}"
    address = f"ssh://{machine.target}{folder}" if machine.target else folder
    key = {"identity_file": machine.key_path} if machine.target and machine.key_path else {}
    return msgspec.structs.replace(
        settings, address=address, results_options=key,
        sources={**settings.sources, "address": source},
    )  # fmt: skip


def _is_of_flag(settings: Settings, name: str) -> bool:
    source = settings.sources.get(name, "")
    return source.startswith("--") or source.endswith("=")
