"""`hosts`: what hosts behind ssh have, what of umpteen is there, and what of that nobody needs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from umpteen.config.machines import Config, Machine
from umpteen.config.reading import read_config
from umpteen.errors import ErrorCode, InputError, SettingsError, UmpteenError
from umpteen.executors.registry import find_short_name
from umpteen.executors.ssh.hosts import Host, parse_hosts
from umpteen.executors.ssh.remote_agent import RemoteAgent
from umpteen.formats import read_executor
from umpteen.history.history import History
from umpteen.history.settings import read_settings
from umpteen.model.agent_messages import HostCopy, HostItem, HostRunner, Probe
from umpteen.query.find import open_history
from umpteen.query.job_names import is_job_file
from umpteen.query.registry import find_addresses
from umpteen.query.trust import find_stranger
from umpteen.system.openssh import Destination, HostError, parse_destination

__all__ = ["Answered", "HostFacts", "clean_hosts", "find_hosts", "inspect_hosts"]

OnProgress = Callable[[str], None]

_CONNECTING_MOST = 32
_TELL_S = 0.5
_MOST_NAMED = 3
_CLOCK_S = 5.0
_DISK_BYTES = 1_000_000_000
_OLD_S = 30 * 86400.0
_FILES = (".json", ".yaml", ".yml")
_HINT = "write umpteen hosts a user@b:2222, or name a job that has run there"

_Found = TypeVar("_Found")


class Answered(NamedTuple, Generic[_Found]):
    """A host, and what it answered; else why it did not."""

    host: Host
    found: _Found | None
    reason: str = ""
    hint: str = ""


class HostFacts(NamedTuple):
    """What is known of a host that answers."""

    probe: Probe
    runners: Sequence[HostRunner]
    copies: Sequence[HostCopy]
    trip_s: float  # from a small question to its answer
    ahead_s: float  # of its clock to ours, at least; below 0 where it is behind

    @property
    def is_clock_wrong(self) -> bool:
        """Whether times that it writes are not to be compared with ours."""
        return abs(self.ahead_s) > _CLOCK_S

    @property
    def is_disk_low(self) -> bool:
        """Whether there is hardly any room for outputs."""
        return self.probe.disk_free < _DISK_BYTES

    def find_time(self, told_s: float) -> float:
        """A time by its clock as ours has it."""
        return told_s - self.ahead_s


# --- which hosts ----------------------------------------------------------------------------------


def find_hosts(words: Sequence[str]) -> list[Host]:
    """The hosts that words mean, each once: machines of the config, jobs and their files, hosts.

    No words: all machines of the config that have a host. Raises SettingsError where there is
    none, InputError where a file or a job cannot be read.
    """
    config = read_config()
    if words:
        found = [host for word in words for host in _read_word(word, config)]
    else:
        found = [_of_machine(m) for m in config.machines.values() if not m.is_local]
    if not found:
        raise SettingsError("no machine of umpteen config has a host", _HINT)
    once: dict[Destination, Host] = {}
    for host in found:
        once.setdefault(host.destination, host)
    return list(once.values())


def _read_word(word: str, config: Config) -> Iterable[Host]:
    if word in config.machines:
        return [_of_machine(config.find(word))]
    if is_job_file(word):
        chosen = read_executor(word)
        return _of_executor(word, chosen.name, chosen.options) if chosen else _refuse(word, "local")
    if "/" in word or find_addresses(word):
        return _of_job(word, open_history(word))
    if word.endswith(_FILES):
        raise InputError(f"there is no file {word}", _HINT)
    return parse_hosts({"hosts": word})


def _of_job(word: str, history: History) -> Iterable[Host]:
    settings = read_settings(history)
    if stranger := find_stranger(history):  # who could have any program run on a host of ours
        raise UmpteenError(
            f"{stranger} may be somebody else's, so that the hosts that it names are not asked",
            "umpteen hosts FILE, with the job's file, does so",
            code=ErrorCode.STORE_NOT_TRUSTED,
        )
    return _of_executor(word, settings["executor"], settings.get("executor_options") or {})


def _of_machine(machine: Machine) -> Host:
    destination = parse_destination(machine.target)
    if destination is None:
        raise SettingsError(f"the machine {machine.name!r} is this one: it has no host", _HINT)
    return Host(destination, identity_file=machine.key_path)


def _of_executor(word: str, executor: str, options: Mapping[str, Any]) -> Iterable[Host]:
    if find_short_name(executor) != "ssh":
        return _refuse(word, executor)
    return parse_hosts(options)


def _refuse(word: str, executor: str) -> Iterable[Host]:
    raise SettingsError(f"{word} runs with {executor!r}, and not on hosts behind ssh", _HINT)


# --- all at once ----------------------------------------------------------------------------------


def inspect_hosts(hosts: Sequence[Host], on_progress: OnProgress) -> list[Answered[HostFacts]]:
    """What is known of each, in their order; nothing is changed there but that the runner is."""
    return _ask_all(hosts, _inspect, on_progress)


def _inspect(agent: RemoteAgent) -> HostFacts:
    asked_s = time.time()
    probe = agent.probe()
    answered_s = time.time()
    # Between these two it is right; how long the answer took is no difference of clocks.
    ahead_s = max(0.0, probe.time - answered_s) or min(0.0, probe.time - asked_s)
    trip_s = agent.measure_trip()
    runners, copies = agent.list_all_runners(), agent.list_copies()
    return HostFacts(probe, runners, copies, trip_s, ahead_s)


def clean_hosts(
    hosts: Sequence[Host], on_progress: OnProgress, *, is_all: bool, is_dry: bool
) -> list[Answered[list[HostItem]]]:
    """Remove on each what old jobs left there; what that was, in the order of the hosts.

    is_all: all that no runner uses. is_dry: only say what would be removed.
    """
    return _ask_all(
        hosts, lambda agent: agent.clean_up(_OLD_S, is_all=is_all, is_dry=is_dry), on_progress
    )


def _ask_all(
    hosts: Sequence[Host], ask: Callable[[RemoteAgent], _Found], on_progress: OnProgress
) -> list[Answered[_Found]]:
    """All at the same time, each in a thread; one that is silent delays no other."""
    gate = threading.Semaphore(_CONNECTING_MOST)
    done: queue.SimpleQueue[Answered[_Found] | BaseException] = queue.SimpleQueue()
    is_quiet = len(hosts) > 1  # questions of several would come at the same time

    def answer(host: Host) -> None:
        try:
            done.put(_ask(host, ask, gate, is_quiet=is_quiet))
        except BaseException as error:
            done.put(error)

    for host in hosts:
        threading.Thread(target=answer, args=(host,), name=host.name, daemon=True).start()
    found: dict[Host, Answered[_Found]] = {}
    while len(found) < len(hosts):
        try:
            answered = done.get(timeout=_TELL_S)
        except queue.Empty:
            on_progress(_tell([host.name for host in hosts if host not in found], len(hosts)))
            continue
        if isinstance(answered, BaseException):
            raise answered
        found[answered.host] = answered
    return [found[host] for host in hosts]


def _ask(
    host: Host, ask: Callable[[RemoteAgent], _Found], gate: threading.Semaphore, *, is_quiet: bool
) -> Answered[_Found]:
    try:
        with gate:
            agent = RemoteAgent(host, is_quiet=is_quiet)
        try:
            return Answered(host, ask(agent))
        finally:
            agent.close()
    except HostError as error:
        return Answered(host, None, _shorten(error.reason, host.name), error.hint or "")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return Answered(host, None, f"{where}{error.strerror or error}")


def _shorten(reason: str, name: str) -> str:
    """Why a host is not reached, where its name stands beside."""
    return reason.removeprefix(f"cannot reach {name}: ").removeprefix(f"{name} ")


def _tell(waiting: Sequence[str], total: int) -> str:
    named = ", ".join(waiting[:_MOST_NAMED]) + (", …" if len(waiting) > _MOST_NAMED else "")
    return f"waiting for {len(waiting):,} of {total:,} hosts: {named}"
