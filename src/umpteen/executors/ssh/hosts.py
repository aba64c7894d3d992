"""What the options of the executor `ssh` say: which hosts, and what each has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from umpteen.errors import SettingsError, nearest_hint
from umpteen.model.agent_messages import ALL, PULLS
from umpteen.model.names import is_capability
from umpteen.model.states import SLOTS_MOST
from umpteen.system.openssh import Destination, parse_destination
from umpteen.units import parse_duration_s

__all__ = ["Host", "SshOptions", "parse_hosts", "parse_options"]

_OPTIONS = ("hosts", "python", "folder", "patience", "pull", "capabilities")
_HOST_OPTIONS = ("host", "slots", "capabilities", "python", "folder")
_PATIENCE_S = 600.0
_HOSTS_HINT = "write --hosts a,user@b:2222, or executor: {ssh: {hosts: [a, b]}}"


class Host(NamedTuple):
    """One host, as the user names it."""

    destination: Destination
    slots: int = 0  # tasks at once; 0: as many as the job says, else as it has cores
    capabilities: frozenset[str] = frozenset()
    python: str = "python3"
    folder: str = ""  # in which ours is; empty: /var/tmp
    identity_file: str = ""  # path of a private key; empty: as the user's config says

    @property
    def name(self) -> str:
        """By which it is known."""
        return str(self.destination)


class SshOptions(NamedTuple):
    """All of the executor's options."""

    hosts: Sequence[Host]
    # Seconds without a word from a host, until what it has not finished runs elsewhere.
    patience_s: float = _PATIENCE_S
    pull: str = ALL  # which outputs are brought here, where a host does not see the results


def parse_options(options: Mapping[str, Any]) -> SshOptions:
    """Raises SettingsError."""
    _refuse_unknown(options, _OPTIONS)
    pull = options.get("pull", ALL)
    if pull not in PULLS:
        raise SettingsError(f"the option 'pull' of 'ssh' is {pull!r}", "write none, logs or all")
    given = options.get("patience")
    patience_s = _PATIENCE_S if given is None else parse_duration_s(given)
    return SshOptions(list(parse_hosts(options)), patience_s, pull)


def parse_hosts(options: Mapping[str, Any]) -> Iterable[Host]:
    """The hosts that options name, each with what is said of all. Raises SettingsError."""
    written = options.get("hosts") or []
    if isinstance(written, (str, Mapping)):
        written = written.split(",") if isinstance(written, str) else [written]
    if not isinstance(written, Sequence):
        raise SettingsError("the option 'hosts' of 'ssh' must be a list", _HOSTS_HINT)
    shared = {name: options[name] for name in ("python", "folder") if name in options}
    common = _parse_names(options.get("capabilities"))
    found: dict[Destination, Host] = {}
    for entry in written:
        host = _parse_host({**shared, **_as_table(entry)}, common)
        if host.destination in found:
            raise SettingsError(f"the host {host.name!r} is named twice")
        found[host.destination] = host
    return found.values()


def _as_table(entry: object) -> Mapping[str, Any]:
    if isinstance(entry, str):
        return {"host": entry.strip()}
    if isinstance(entry, Mapping):
        return entry
    raise SettingsError(f"a host of 'ssh' is {entry!r}", _HOSTS_HINT)


def _parse_host(told: Mapping[str, Any], common: frozenset[str]) -> Host:
    _refuse_unknown(told, _HOST_OPTIONS)
    name = told.get("host")
    destination = parse_destination(name) if isinstance(name, str) else None
    if destination is None:
        raise SettingsError(f"{name!r} is no host", "write HOST or USER@HOST:PORT")
    slots = told.get("slots", 0)
    if not isinstance(slots, int) or isinstance(slots, bool) or not 0 <= slots <= SLOTS_MOST:
        raise SettingsError(f"the slots of the host {name!r} are {slots!r}", "write a number")
    return Host(
        destination,
        slots,
        common | _parse_names(told.get("capabilities")),
        _parse_path(told, "python") or "python3",
        _parse_path(told, "folder"),
    )


def _parse_names(written: object) -> frozenset[str]:
    names = written.split(",") if isinstance(written, str) else written or []
    if not isinstance(names, Sequence):
        raise SettingsError("'capabilities' must be a list of names")
    found = frozenset(name.strip() if isinstance(name, str) else repr(name) for name in names)
    for name in found:
        if not is_capability(name):
            raise SettingsError(f"{name!r} is no name of a capability", "write such as gpu")
    return found


def _parse_path(told: Mapping[str, Any], name: str) -> str:
    path = told.get(name, "")
    if not isinstance(path, str) or any(character in path for character in "\0\n"):
        raise SettingsError(f"the option {name!r} of 'ssh' is {path!r}", "write a path")
    return path


def _refuse_unknown(told: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in told:
        if name not in known:
            hint = nearest_hint(str(name), known)
            raise SettingsError(f"the executor 'ssh' has no option {name!r}", hint)
