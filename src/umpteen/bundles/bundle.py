"""What is in a bundle: jobs by name, each a program with what it needs. Plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

__all__ = ["Argument", "Bundle", "BundleJob"]

# What a program is given for one of its flags, as the program's own parser has understood it.
Argument = str | int | float | bool | None | list[str | int | float | bool | None]


class BundleJob(msgspec.Struct, frozen=True):
    """One script for Slurm."""

    name: str
    # The program, or the whole command: a piece of shell.
    script: str
    # By flag, without dashes.
    arguments: Mapping[str, Argument] = {}
    # As they are written: a job's name, `afterany:NAME`, `afternotok:NAME`, `singleton`.
    dependencies: Sequence[str] = ()
    # Lines of shell that run before the program.
    pre_commands: Sequence[str] = ()
    # Options of sbatch by their long names; empty text for those that take no value.
    slurm: Mapping[str, str] = {}


class Bundle(msgspec.Struct, frozen=True):
    """The jobs of one file, in the order in which they were added."""

    name: str
    # Of its making: it tells bundles of one name apart, and is in the names of their scripts.
    timestamp: str
    path: str
    jobs: Mapping[str, BundleJob]
