"""The script of a job on a machine: the same job, machine and time give the same text. Pure."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator

from umpteen._version import __version__
from umpteen.bundles.bundle import Argument, BundleJob
from umpteen.config.machines import Machine
from umpteen.config.setup import build_export
from umpteen.job.slurm_options import build_directive, lay_over

__all__ = ["build_digest", "build_script", "build_script_path", "merge_options"]


def build_script_path(job: BundleJob, machine: Machine, timestamp: str) -> str:
    """Where it lies on the machine; the time is that of the bundle."""
    return os.path.join(machine.folder, "slurm", f"{job.name}_{timestamp}.sh")


def build_script(job: BundleJob, machine: Machine, timestamp: str) -> str:
    """Its text. What it depends on is not in it: sbatch is told when it is submitted."""
    options = merge_options(job, machine)
    lines = [
        "#!/bin/bash",
        f"# Written by umpteen {__version__}: {job.name} of the bundle of {timestamp}.",
        *(build_directive(*option) for option in options.items()),
        *_list_commands(job, machine),
    ]
    return "\n".join(lines) + "\n"


def build_digest(job: BundleJob, machine: Machine) -> str:
    """Of what the script runs: it changes with that, and not with what is asked of Slurm."""
    text = "\n".join(_list_commands(job, machine))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _list_commands(job: BundleJob, machine: Machine) -> Iterator[str]:
    yield build_export(machine.folder)
    if machine.env_command:
        yield machine.env_command
    yield from job.pre_commands
    yield " \\\n    ".join([job.script, *_list_arguments(job)])


def merge_options(job: BundleJob, machine: Machine) -> dict[str, str]:
    """Options of sbatch: what the job says counts more than what the machine says."""
    options = {"account": machine.account} if machine.account else {}
    logs = os.path.join(machine.folder, "slurm").replace("%", "%%")
    options |= {"output": f"{logs}/%x-%j.out", "job-name": job.name, **machine.slurm}
    return lay_over(options, job.slurm)


def _list_arguments(job: BundleJob) -> Iterator[str]:
    """Words of shell, of which each reaches the program as it is in the bundle."""
    for key, value in job.arguments.items():
        flag = f"--{key}"
        if value is None or value is False:
            continue
        if value is True:
            yield shlex.quote(flag)
        elif not isinstance(value, list):
            yield shlex.quote(f"{flag}={value}")
        elif all(map(_is_number, value)):
            yield " ".join([shlex.quote(flag), *map(str, value)])
        else:
            yield shlex.quote(flag)
            yield from (shlex.quote(str(item)) for item in value)


def _is_number(value: Argument) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
