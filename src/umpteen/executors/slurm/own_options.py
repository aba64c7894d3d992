"""What a user says of Slurm that is not for sbatch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from umpteen.errors import SettingsError
from umpteen.system.openssh import Destination, parse_destination

__all__ = ["OWN_OPTIONS", "OwnOptions", "parse_own"]

OWN_OPTIONS = ("host", "setup")


class OwnOptions(NamedTuple):
    """What is not for sbatch."""

    host: Destination | None = None  # where its commands are called; None: here
    setup: tuple[str, ...] = ()  # lines for bash


def parse_own(given: Mapping[str, Any]) -> OwnOptions:
    """Raises SettingsError."""
    said, setup = given.get("host"), given.get("setup") or []
    host = parse_destination(said) if isinstance(said, str) else None
    if said is not None and host is None:
        raise SettingsError(
            f"'host' of the executor 'slurm' is no host: {said!r}", "write host or user@host:port"
        )
    lines = [setup] if isinstance(setup, str) else setup
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise SettingsError(
            "'setup' of the executor 'slurm' must be a line for bash, or a list of them"
        )
    if any("\0" in line for line in lines):
        raise SettingsError("'setup' of the executor 'slurm' has a NUL in it")
    return OwnOptions(host, tuple(lines))
