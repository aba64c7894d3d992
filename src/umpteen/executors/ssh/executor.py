"""Batches on hosts behind ssh, by the user's own OpenSSH; only python3 and sshd are there.

A head, a process of this machine, gives them to the hosts and brings home what comes of them. It
goes on when we end; a handle names the hosts, and the head as a handle of this machine does.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from umpteen.errors import BackendError, SettingsError
from umpteen.executors.base import (
    NO_NEEDS,
    Abilities,
    BatchState,
    Executor,
    Lack,
    OnProgress,
    Site,
    SubmitRequest,
    TaskNeeds,
    ignore_progress,
)
from umpteen.executors.own_process import (
    parse_handle,
    poll_handle,
    poll_handles,
    start_process,
    wake_handles,
)
from umpteen.executors.ssh.head import HOSTS_FILE, HeadRequest, read_word
from umpteen.executors.ssh.hosts import Host, parse_hosts, parse_options
from umpteen.executors.ssh.job_files import send_mark
from umpteen.executors.ssh.remote_agent import RemoteAgent
from umpteen.model.agent_messages import Probe
from umpteen.model.variables import RESULTS_OPTIONS
from umpteen.runner.launch import build_python_command
from umpteen.runner.lease import Lease, find_folder
from umpteen.store.address import open_store
from umpteen.store.directory import DirectoryStore
from umpteen.store.identity import Identity, identify
from umpteen.store.job_files import read_batch_file
from umpteen.system.openssh import HostError
from umpteen.system.resources import in_mb

__all__ = ["SshExecutor"]

_BEHIND_SSH = "ssh://"
_CONNECTING_MOST = 16
_MOST_SHOWN = 3  # hosts in one sentence


class SshExecutor(Executor):
    """Runs batches on the hosts that its options name."""

    name = "ssh"
    abilities = Abilities(
        dependencies=True, capabilities=True, reconnect=True, is_engine=True,
        batches_most=2000, start_up_s=0.3,
    )  # fmt: skip

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.own = parse_options(options)
        self._probes: dict[str, Probe] | None = None

    def check(self) -> None:
        """There must be hosts."""
        if not self.own.hosts:
            raise SettingsError(
                "the executor 'ssh' needs hosts",
                "write --hosts a,user@b:2222, or executor: {ssh: {hosts: [a, b]}}",
            )

    def find_site(self, address: str) -> Site:
        """Of results behind ssh hosts see the folder, if it is shared."""
        return Site(_find_folder(address))

    def submit(
        self, request: SubmitRequest, on_progress: OnProgress = ignore_progress
    ) -> dict[str, str]:
        """Log in everywhere, with what ssh may ask for at the terminal; then start the head."""
        self.check()
        self._reach_all(on_progress)
        head = self.own_runs = start_process(
            request.store, 1, _build_command, {}, has_stdin=True, what="the head"
        )
        head.hand_over(json.dumps(self._build_request(request)).encode())
        names = ",".join(host.name for host in self.own.hosts)
        return dict.fromkeys(request.batches, f"{names} {head.handle}")

    def _reach_all(self, on_progress: OnProgress) -> list[tuple[Host, RemoteAgent]]:
        """The agents of hosts that are reached. Raises BackendError where none is."""
        failures: list[tuple[Host, HostError]] = []
        agents: list[tuple[Host, RemoteAgent]] = []
        hosts = self.own.hosts
        with concurrent.futures.ThreadPoolExecutor(min(_CONNECTING_MOST, len(hosts))) as pool:
            reached = {pool.submit(RemoteAgent, host): host for host in hosts}
            for number, done in enumerate(concurrent.futures.as_completed(reached), 1):
                on_progress(f"logging in to hosts: {number} of {len(hosts)}")
                try:
                    agents.append((reached[done], done.result()))
                except (HostError, OSError) as error:
                    failures.append((reached[done], _as_host_error(error)))
        if len(failures) == len(hosts):
            _, first = failures[0]
            others = f", and {len(failures) - 1} other hosts" if len(failures) > 1 else ""
            raise BackendError(
                f"{first.reason}{others}", first.hint,
                transient=all(error.is_transient for _, error in failures),
            )  # fmt: skip
        return agents

    def _build_request(self, request: SubmitRequest) -> HeadRequest:
        results_options = json.loads(request.environment.get(RESULTS_OPTIONS, "{}"))
        store = open_store(request.address, results_options or None)
        return {
            "store": list(request.store),
            "addresses": [_find_folder(request.address)],
            "orders": [
                {
                    "name": order.batch,
                    "tasks": len(read_batch_file(store, order.batch)["runs"]),
                    "after": list(order.after),
                    "needs": list(order.capabilities),
                    "amounts": [order.cpus, order.gpus, order.memory],
                }
                for order in request.orders
            ],
            "slots": request.slots,
            "options": dict(self.options),
            "environment": dict(request.environment),
            "results_options": results_options,
        }

    def poll(self, handles: Sequence[str]) -> dict[str, BatchState]:
        """By the leases of this machine, which say whether heads live."""
        heads = {handle: _find_head(handle) for handle in handles}
        polled = poll_handles(heads.values(), self.own_runs)
        return {handle: polled[head] for handle, head in heads.items()}

    def wake(self, handles: Sequence[str]) -> None:
        """Have heads look at the mark now, and bring it to the hosts."""
        wake_handles(list(map(_find_head, handles)))

    def cancel(self, handles: Sequence[str]) -> None:
        """The same; where a head is dead, hosts are told by us, as far as they are reached."""
        self.wake(handles)
        for handle in set(handles):
            head = _find_head(handle)
            if poll_handle(head) == BatchState.ENDED:
                told = find_folder(parse_handle(head)[2]).read_info()
                if address := told.get("address"):
                    hosts = {str(host.destination): host for host in self.own.hosts}
                    named = parse_hosts({"hosts": handle.rpartition(" ")[0]})
                    _tell_hosts([hosts.get(host.name, host) for host in named], address)

    def count_workers(self, slots: int, needs: TaskNeeds = NO_NEEDS) -> int:
        """One for each host: a batch has all slots of its host."""
        del slots, needs
        return len(self.own.hosts)

    def lacks(self, tasks: Sequence[TaskNeeds], slots: int) -> Lack | None:
        """By what hosts are said to have, and what they have."""
        del slots
        sizes = any(needs.cpus or needs.gpus or needs.memory for needs in tasks)
        probes = self._probe_all() if sizes else {}
        for number, needs in enumerate(tasks):
            hosts = [h for h in self.own.hosts if h.capabilities.issuperset(needs.capabilities)]
            if not hosts:
                return self._find_missing(number, needs)
            if lack := _find_lack(number, needs, [probes.get(host.name) for host in hosts]):
                return lack
        return None

    def _find_missing(self, number: int, needs: TaskNeeds) -> Lack:
        """The capability that no host has, or that none has beside the others."""
        known = frozenset().union(*(host.capabilities for host in self.own.hosts))
        name = next((name for name in needs.capabilities if name not in known), None)
        what = name or needs.capabilities[-1]
        limit = "no host is said to have it" if name else "no host has all that it needs"
        hint = f"hosts: [{{host: {self.own.hosts[0].name}, capabilities: [{what}]}}] says so"
        return Lack(number, 0, what, limit, hint)

    def _probe_all(self) -> dict[str, Probe]:
        """What each host has that is reached."""
        if self._probes is None:
            self._probes = {}
            for host, agent in self._reach_all(ignore_progress):
                with contextlib.suppress(HostError, OSError):
                    self._probes[host.name] = agent.probe()
        return self._probes

    def why_waiting(self, handles: Sequence[str]) -> str:
        """Which hosts are not reached, and why."""
        reasons = []
        for token in {parse_handle(_find_head(handle))[2] for handle in handles}:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                path = f"{find_folder(token).path}/{HOSTS_FILE}"
                with open(path, encoding="utf-8") as file:
                    told = json.load(file)
                reasons += [f"{h['host']}: {h['reason']}" for h in told if h["reason"]]
        if not reasons:
            return ""
        more = f", and {len(reasons) - _MOST_SHOWN} more" if len(reasons) > _MOST_SHOWN else ""
        return f"waiting for hosts: {'; '.join(reasons[:_MOST_SHOWN])}{more}"


def _build_command(lease: Lease) -> list[str]:
    return [*build_python_command("umpteen.executors.ssh.head"), str(lease.lock)]


def _tell_hosts(hosts: Sequence[Host], address: str) -> None:
    """Have the runners of a job on some hosts look at the cancel mark."""
    store = open_store(address)
    if not isinstance(store, DirectoryStore):
        return  # they see it themselves
    identity = identify(store)
    word = read_word(store, identity)
    with concurrent.futures.ThreadPoolExecutor(min(_CONNECTING_MOST, len(hosts))) as pool:
        list(pool.map(lambda host: _tell_host(host, store, identity, word), hosts))


def _tell_host(host: Host, store: DirectoryStore, identity: Identity, word: str) -> None:
    with contextlib.suppress(HostError, OSError):
        agent = RemoteAgent(host)
        place = agent.find_store([_find_folder(identity.address)], identity, word, {})
        runners = agent.list_runners(place.address, identity)
        if runners and not place.is_shared:
            send_mark(agent, store, place.address)
        agent.wake([runner.token for runner in runners])


def _find_lack(number: int, needs: TaskNeeds, probes: Sequence[Probe | None]) -> Lack | None:
    """What none of some hosts has enough of; nothing where one of them was not reached."""
    if any(probe is None for probe in probes):
        return None
    for what, unit in (("cpus", ""), ("gpus", ""), ("memory", "M")):
        has = max(getattr(probe, what) for probe in probes)
        wanted, most, shown = in_mb((getattr(needs, what), has, what))
        if wanted > most:
            hint = f"name a host with more, or write --{what} {most}{unit}"
            return Lack(number, wanted, shown, f"a host has at most {most}", hint)
    return None


def _find_folder(address: str) -> str:
    """The results as hosts know them."""
    if not address.startswith(_BEHIND_SSH):
        return address
    return "/" + address.removeprefix(_BEHIND_SSH).partition("/")[2]


def _find_head(handle: str) -> str:
    """The part of a handle that names the head."""
    return handle.rpartition(" ")[2]


def _as_host_error(error: HostError | OSError) -> HostError:
    if isinstance(error, HostError):
        return error
    return HostError(str(error.strerror or error), is_transient=True)
