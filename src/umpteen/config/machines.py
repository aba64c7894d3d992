"""What is known of each machine, and which file says it. Plain values: nothing is read here."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from umpteen.errors import SettingsError, nearest_hint

__all__ = ["DEFAULT", "FIELDS", "LOCAL", "Config", "Machine"]

LOCAL = "local"
DEFAULT = "default"  # the source of what no file says

# The texts of a machine, in the order in which they are shown: all but the last are one line.
FIELDS = ("path", "host", "user", "key_path", "account", "env_command")


class Machine(msgspec.Struct, frozen=True):
    """A place where work is done: this machine, or one behind ssh. What is empty nobody said."""

    name: str
    # The folder on that machine below which all of its work is.
    path: str = ""
    # An alias of ~/.ssh/config, a host, or `user@host`; empty: this machine.
    host: str = ""
    user: str = ""
    key_path: str = ""
    # Slurm's account.
    account: str = ""
    # The line of shell that makes programs available, as `source ~/venv/bin/activate`.
    env_command: str = ""
    # Options of sbatch by their long names; empty text for those that take no value.
    slurm: Mapping[str, str] = {}
    # The file that says each of the others, or `default`; of an option: `slurm.partition`.
    sources: Mapping[str, str] = {}

    @property
    def is_local(self) -> bool:
        """Whether it is this machine."""
        return not self.host

    @property
    def target(self) -> str:
        """Where ssh is to connect to; empty for this machine."""
        is_whole = not self.host or not self.user or "@" in self.host
        return self.host if is_whole else f"{self.user}@{self.host}"

    @property
    def folder(self) -> str:
        """Its `path`. Raises SettingsError where nobody says it."""
        if not self.path:
            hint = f"umpteen config: add path to [machines.{self.name}]"
            raise SettingsError(f"the machine {self.name!r} has no 'path'", hint)
        return self.path


class Config(msgspec.Struct, frozen=True):
    """All machines by name; `local` is always one of them."""

    machines: Mapping[str, Machine]

    @property
    def local(self) -> Machine:
        """This machine."""
        return self.machines[LOCAL]

    def find(self, name: str) -> Machine:
        """The machine of that name. Raises SettingsError where there is none."""
        if name not in self.machines:
            hint = f"{nearest_hint(name, self.machines)}; umpteen config adds machines"
            raise SettingsError(f"there is no machine {name!r}", hint)
        return self.machines[name]
