"""The flags of `run`, and the arguments of the API that mean the same, as one typed value.

Takes words as they are typed, gives what is said; None: nothing. Knows no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from umpteen.errors import SettingsError
from umpteen.formats.syncs import parse_sync
from umpteen.formats.task_options import GivenOptions, parse_needs
from umpteen.job.settings import Setting
from umpteen.job.spec import Retry
from umpteen.model.agent_messages import PULLS

__all__ = ["PULLS", "JobFlags", "TaskFlags", "build_flags"]

_SSH = "ssh"
# What flags and arguments are called where the setting has another name.
_SPELLED = {
    "address": "results",
    "deadline_s": "deadline",
    "file_syncs": "sync",
    "grace_s": "grace",
}


class TaskFlags(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is said for all tasks, over what the files say."""

    timeout_s: float | None = None
    env: dict[str, str] = {}
    cwd: str | None = None
    retries: list[Retry] | None = None
    cpus: int | None = None
    memory: int | None = None
    gpus: int | None = None
    output_limit: int | None = None
    needs: tuple[str, ...] | None = None

    def list_options(self) -> GivenOptions:
        """Those of them that TaskOptions has, too."""
        given: GivenOptions = {}
        for key in ("retries", "cpus", "memory", "gpus", "output_limit", "needs"):
            if (value := getattr(self, key)) is not None:
                given[key] = value
        return given


class JobFlags(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of the job as a whole, by the names of Settings, and for all its tasks."""

    slots: int | None = None
    address: str | None = None
    executor: str | None = None
    executor_options: Mapping[str, Any] | None = None
    deadline_s: float | None = None
    grace_s: float | None = None
    batch_size: int | None = None
    canary: int | None = None
    max_failures: int | None = None
    fail_fast: bool | None = None
    file_syncs: list[tuple[str, str | None]] | None = None
    tasks: TaskFlags = TaskFlags()
    # Whether these are arguments of the API, `slots=`, and no flags, `--slots`.
    are_arguments: bool = False

    def list_settings(self) -> dict[str, Setting]:
        """What is said of the job, with the flag that said it."""
        return {
            key: Setting(value, self._spell(key))
            for key in self.__struct_fields__
            if key not in ("tasks", "are_arguments") and (value := getattr(self, key)) is not None
        }

    def _spell(self, key: str) -> str:
        if self.are_arguments:
            return "executor=" if key == "executor_options" else f"{_SPELLED.get(key, key)}="
        if key == "executor_options":
            key = next(iter(self.executor_options or ()))
        return "--" + _SPELLED.get(key, key).replace("_", "-")


def build_flags(  # noqa: PLR0913 -- one for each flag
    *,
    slots: int | None,
    results: str | None,
    executor: str | None,
    batch_size: int | None,
    scheduler_address: str | None,
    hosts: str | None,
    pull: str | None,
    timeout: float | None,
    deadline: float | None,
    grace: float | None,
    retries: int | None,
    cpus: int | None,
    memory: int | None,
    gpus: int | None,
    needs: Sequence[str],
    output_limit: int | None,
    max_failures: int | None,
    fail_fast: bool | None,
    canary: int | None,
    env: Sequence[str],
    cwd: str | None,
    sync: Sequence[str],
) -> JobFlags:
    """The flags of `run` by their own names; durations are seconds and sizes bytes by now.

    hosts: where the executor is ssh, which it is without another. pull: which outputs it brings.

    Raises InputError and SettingsError for the words of --sync, --env and --needs.
    """
    file_syncs = [(folder.src, folder.dest) for folder in map(parse_sync, sync)]
    return JobFlags(
        slots=slots,
        address=results,
        executor=executor or (_SSH if hosts else None),
        executor_options=_list_options(scheduler_address, hosts, pull) or None,
        deadline_s=deadline,
        grace_s=grace,
        batch_size=batch_size,
        canary=canary,
        max_failures=max_failures,
        fail_fast=fail_fast,
        file_syncs=file_syncs or None,
        tasks=TaskFlags(
            timeout_s=timeout,
            env=dict(map(_split_variable, env)),
            cwd=cwd,
            retries=_count_retries(retries),
            cpus=cpus,
            memory=memory,
            gpus=gpus,
            output_limit=output_limit,
            needs=parse_needs(needs) if needs else None,
        ),
    )


def _list_options(address: str | None, hosts: str | None, pull: str | None) -> dict[str, str]:
    """Options of the executor, those that were given."""
    given = {"scheduler_address": address, "hosts": hosts, "pull": pull}
    return {name: value for name, value in given.items() if value}


def _count_retries(times: int | None) -> list[Retry] | None:
    if times is None:
        return None
    return [Retry(["failed"], times=times)] if times else []


def _split_variable(pair: str) -> tuple[str, str]:
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise SettingsError(f"--env {pair!r} is not KEY=VALUE", "write --env OMP_NUM_THREADS=2")
    return key, value
