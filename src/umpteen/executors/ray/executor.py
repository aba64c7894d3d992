"""Batches on a Ray cluster: one of Ray's tasks is one batch, run by a child of a worker.

Ray's tasks end with the process that handed them in, so an actor on the cluster has them: one
for each hand-in, named by its mark, that ends when its batches have. We speak to it through a
process of our own, see `ray_driver`. Only text crosses: orders in JSON, and the carrier.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from umpteen.errors import BackendError, SettingsError, UmpteenError
from umpteen.executors.base import ENDED, QUEUED, UNKNOWN, BatchRequest, SubmitRequest
from umpteen.executors.engine import EngineExecutor, Handle, build_order, parse_handle, rank_answer
from umpteen.executors.zipapp import build_carrier

__all__ = ["RayExecutor"]

_AUTO = "auto"
_REACH_S, _LOAD_S, _ANSWER_S, _FIRST_S = 3.0, 60.0, 9.0, 4.0
_OWNER_S, _ENVIRONMENT_S = 60.0, 600.0  # for a worker to start, and where it is to be furnished
_START_S = 5.0  # within which a worker starts, where there is room
_LOOK_S = 0.3  # how often `read_ending` asks
_AGAIN_S = 3.0  # after how long a cluster that did not answer is asked again
_OWN_RESOURCES = ("CPU", "GPU", "memory", "object_store_memory")
_VERSIONS = re.compile(r"(?:Ray|Python): (\S+)")


# --- builders -----------------------------------------------------------------------------


def build_needs(options: Mapping[str, Any], slots: int, order: BatchRequest) -> dict[str, Any]:
    """What a batch takes of a machine, in Ray's words."""
    needs: dict[str, Any] = {
        "num_cpus": max(options.get("num_cpus", max(1, slots)), order.cpus),
        "num_gpus": order.gpus,
        "memory": order.memory,
        "resources": dict(options.get("resources") or {}),
    }
    return {name: amount for name, amount in needs.items() if amount or name == "num_cpus"}


def build_environment(options: Mapping[str, Any]) -> dict[str, Any]:
    """The runtime_env of the options, as Ray wants it: its variables are text."""
    built = dict(options.get("runtime_env") or {})
    variables = built.get("env_vars")
    if isinstance(variables, Mapping):
        built["env_vars"] = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in variables.items()
        }
    return built


def _build_hand_in(load: SubmitRequest, options: Mapping[str, Any], workers: int) -> str:
    """What the actor is told. workers: how many batches may run at once, 0 where nobody knows."""
    orders = []
    for order in load.orders:
        needs = build_needs(options, load.slots, order)
        cpus = int(needs["num_cpus"]) if order.cpus else 0
        orders.append(
            {
                "batch": order.batch,
                "after": list(order.after),
                "needs": needs,
                "order": build_order(load, order, cpus=cpus),
            }
        )
    earlier = {batch: parse_handle(text)[1:] for batch, text in load.earlier.items()}
    told = {"carrier": build_carrier(), "orders": orders, "earlier": earlier, "workers": workers}
    return json.dumps(told)


# --- the thin caller ------------------------------------------------------------------------


class RayExecutor(EngineExecutor):
    """Hands batches to the Ray cluster at `address`, else at RAY_ADDRESS, else that of this
    machine.

    `num_cpus` and `resources` are what a batch takes beside what its tasks say; `runtime_env` is
    Ray's; `worker_timeout` how long machines that have room are waited for.
    """

    name = "ray"
    option_names = ("address", "scheduler_address", "runtime_env", "num_cpus", "resources")

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.check_mappings("runtime_env", "resources")
        resources = dict(self.options.get("resources") or {})
        self.check_amounts({"num_cpus": self.options.get("num_cpus", 1), **resources})
        self.watched: list[Handle] = []
        self.ending: tuple[int | None, str] = (0, "")  # as `read_ending` told it last
        self.asked_s, self.workers = 0.0, 0

    def check(self) -> None:
        """Raises SettingsError where Ray is missing, or options are not what they should be."""
        if importlib.util.find_spec("ray") is None:
            raise SettingsError(
                "the executor 'ray' needs a package that is not here: ray",
                "pip install 'umpteen[ray]'",
            )
        for name in self.options.get("resources") or {}:
            if name in _OWN_RESOURCES or name.startswith("bundle"):
                raise SettingsError(
                    f"{name!r} is none of the custom resources of 'ray'",
                    "write num_cpus: 4 beside it, or cpus, gpus and memory of the tasks",
                )
        if "working_dir" in (self.options.get("runtime_env") or {}):
            raise SettingsError(
                "commands do not run in the working_dir of a runtime_env of 'ray'",
                "--sync FOLDER brings a folder along, and cwd says where tasks run",
            )
        if self._find_address() == "local":
            raise SettingsError(
                "umpteen makes no Ray cluster itself",
                "start one with `ray start --head`, and leave the address out",
            )

    def _find_address(self) -> str:
        given = self.options.get("scheduler_address") or self.options.get("address")
        return str(given or os.environ.get("RAY_ADDRESS") or _AUTO)

    def _connect(self) -> _Driver:
        return _connect(self._find_address(), build_environment(self.options))

    def submit(self, load: SubmitRequest) -> dict[str, str]:
        """An actor for all of them, that stays with the cluster without us."""
        limit_s = _ENVIRONMENT_S if self.options.get("runtime_env") else _OWNER_S
        driver = self._connect()
        text = _build_hand_in(load, self.options, self.workers)
        driver.ask(
            "submit", mark=load.mark, text=text, limit_s=limit_s, within_s=limit_s + _ANSWER_S
        )
        self.watched = [Handle(driver.cluster, load.mark, batch) for batch in load.batches]
        self.ending, self.waits_since_s = (None, ""), None
        return {handle.batch: str(handle) for handle in self.watched}

    def poll(self, handles: Sequence[str]) -> dict[str, str]:
        """What the actors say; UNKNOWN where their cluster does not answer."""
        parsed = {text: parse_handle(text) for text in handles}
        found = _look(parsed.values())
        return {text: _read_state(found, handle) for text, handle in parsed.items()}

    def hasten(self, handles: Sequence[str]) -> None:
        """Have the runners of these look at the mark now."""
        _tell_owners("hasten", handles)

    def cancel(self, handles: Sequence[str]) -> None:
        """Let no more of these begin, and have runners look at the mark now."""
        _tell_owners("cancel", handles)

    def count_workers(self, slots: int, cpus: int = 1) -> int:
        """How often what a batch takes is there, machine by machine."""
        nodes = self._connect().ask("list_nodes")
        needs = build_needs(self.options, slots, BatchRequest("", cpus=cpus))
        self.workers = count_room(nodes, needs)
        return self.workers

    def count_cores(self, slots: int) -> int:
        """CPUs of the machine that has the most; not known where others are to be waited for."""
        del slots
        if "worker_timeout" in self.options:
            return 0
        nodes = self._connect().ask("list_nodes")
        return int(max((node.get("CPU", 0) for node in nodes), default=0))

    def hint_cores(self, slots: int, cpus: int) -> str:
        """What to do for such a batch to have so many cores."""
        del slots
        return f"start machines with {cpus} CPUs (worker_timeout: 10m waits for them so long)"

    def explain(self, handles: Sequence[str]) -> str:
        """What batches wait for that are with the cluster."""
        parsed = list(map(parse_handle, handles))
        found = _look(parsed)
        states = {_read_state(found, handle) for handle in parsed} - {ENDED}
        if not states <= {QUEUED}:
            self.waits_since_s = None
            return "the Ray cluster does not answer" if states == {UNKNOWN} else ""
        wants = next((said["wants"] for said in found.values() if said and said["wants"]), None)
        if wants is None:
            return ""
        try:
            nodes = _connect(parsed[0].place).ask("list_nodes")
        except BackendError:
            return ""
        reason, is_lasting = tell_room(nodes, wants), not count_room(nodes, wants)
        waited_s = self.limit_wait(reason, handles, "machines")
        return f"waiting for room: {reason}" if is_lasting or waited_s > _START_S else ""

    def read_ending(self) -> tuple[int | None, str]:
        """The worst answer of what this process submitted; None while some of it lives.

        Actors that are gone, or do not answer, have nothing to say: the store tells what is left.
        """
        if not self.watched or time.monotonic() - self.asked_s < _LOOK_S:
            return self.ending
        self.asked_s = time.monotonic()
        found = _look(self.watched).values()
        answers = [said for said in found if said]
        if all(said["is_over"] for said in answers):
            told = map(_read_ending, answers)
            self.ending = max(told, key=rank_answer, default=(0, ""))
            self.watched = self.watched if {} in found else []  # it may answer again
        else:
            self.ending = None, ""
        return self.ending


class _Driver:
    """A process that is connected to a cluster: `ask` it."""

    def __init__(self, address: str, runtime_env: Mapping[str, Any], within_s: float) -> None:
        self.cluster, self.lock = address, threading.RLock()
        _reach(address)
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 -- as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "umpteen.executors.ray.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            # Only text crosses, so that bytes of another 3.11 do no harm.
            env={"RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor", **os.environ},
            start_new_session=True,  # a Ctrl-C is for us
        )
        try:
            self.ask("greet", within_s=_LOAD_S)
            self.cluster = self.ask(
                "connect", address=address, runtime_env=dict(runtime_env), within_s=within_s
            )
        except UmpteenError:
            self.kill()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether it may be asked."""
        return self.process.poll() is None

    def ask(self, call: str, *, within_s: float = _ANSWER_S, **told: Any) -> Any:
        """What it answers. Raises BackendError, and the process ends where it has no answer."""
        with self.lock:
            if not self.is_alive:  # another thread found that out
                raise _no_answer(self.cluster, "the connection to it was lost")
            return self._ask(call, within_s, told)

    def _ask(self, call: str, within_s: float, told: Mapping[str, Any]) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        try:
            self.process.stdin.write(json.dumps({"call": call, **told}).encode() + b"\n")
            self.process.stdin.flush()
            heard, _, _ = select.select([self.process.stdout], [], [], within_s)
            if not heard:
                version = importlib.metadata.version("ray")
                raise self._give_up(
                    f"nothing within {within_s:g} s (is it Ray {version}, as here?)"
                )
            line = self.process.stdout.readline()
        except OSError:
            line = b""
        if not line:  # it has died
            raise self._give_up()
        answer = json.loads(line)
        if "error" in answer:
            raise _explain(self.cluster, answer["error"], answer["said"])
        return answer["answer"]

    def _give_up(self, reason: str = "") -> BackendError:
        """End the process; why, by default what it printed last."""
        self.kill()
        self.said.seek(0)
        printed = self.said.read().decode(errors="replace").strip()
        return _no_answer(self.cluster, reason or printed.rpartition("\n")[2])

    def kill(self) -> None:
        """End it at once."""
        with self.lock:
            if self.is_alive:
                self.process.kill()
            for pipe in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(OSError):  # what could not be sent
                    if pipe:
                        pipe.close()
            self.process.wait()

    def close(self) -> None:
        """Let it end, which is not waited for."""
        assert self.process.stdin
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.returncode = self.process.returncode or 0  # nothing to warn of


def _connect(address: str, runtime_env: Mapping[str, Any] | None = None) -> _Driver:
    """The driver of this process for a cluster. Raises BackendError."""
    key = (address, json.dumps(runtime_env or {}, sort_keys=True, default=str))
    with _connecting:
        known = _drivers.get(key)
        if known is not None and known.is_alive:
            return known
        failed, failed_s = _failed.get(key, (None, 0.0))
        if failed is not None and time.monotonic() - failed_s < _AGAIN_S:
            raise failed
        try:
            driver = _start(address, runtime_env or {})
        except BackendError as error:
            _failed[key] = error, time.monotonic()
            raise
        _drivers[key] = _drivers[driver.cluster, key[1]] = driver
        atexit.register(driver.close)
        return driver


def _start(address: str, runtime_env: Mapping[str, Any]) -> _Driver:
    if address.startswith("ray://"):  # whose server fails its first client now and then
        try:
            return _Driver(address, runtime_env, _FIRST_S)
        except BackendError as error:
            if not error.transient:
                raise
    return _Driver(address, runtime_env, _ANSWER_S)


def _reach(address: str) -> None:
    """Raises BackendError where nobody listens: Ray itself would try for long."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        if not parts.hostname or not parts.port:
            return
        try:
            socket.create_connection((parts.hostname, parts.port), timeout=_REACH_S).close()
        except OSError as error:
            raise _no_answer(address, getattr(error, "strerror", "") or str(error)) from error


def _tell_owners(call: str, handles: Sequence[str]) -> None:
    """Have each cluster that answers tell the owners of these batches."""
    by_cluster: dict[str, dict[str, list[str]]] = {}
    for handle in map(parse_handle, handles):
        batches = by_cluster.setdefault(handle.place, {})
        batches.setdefault(handle.mark, []).append(handle.batch)
    for cluster, batches in by_cluster.items():
        with contextlib.suppress(BackendError):
            _connect(cluster).ask("tell_owners", order=call, batches=batches)


def _look(handles: Any) -> dict[tuple[str, str], Any]:
    """By cluster and mark, what the actor says: None where it is gone, empty where the cluster
    does not answer.
    """
    found: dict[tuple[str, str], Any] = {(handle.place, handle.mark): {} for handle in handles}
    for cluster in {cluster for cluster, _ in found}:
        marks = [mark for other, mark in found if other == cluster]
        with contextlib.suppress(BackendError):
            driver = _connect(cluster)
            said = driver.ask("look", marks=marks)
            found.update(((cluster, mark), said[mark]) for mark in marks)
            if (
                {} in said.values()
            ):  # it may know a cluster that is gone: Ray would wait for a minute
                driver.kill()
    return found


# --- parsers ----------------------------------------------------------------------------------


def count_room(nodes: Sequence[Mapping[str, float]], needs: Mapping[str, Any]) -> int:
    """How many batches fit at once into machines that have that much."""
    wanted = _name_resources(needs)
    if not wanted:
        return 0
    return sum(
        min(int(node.get(name, 0) / amount) for name, amount in wanted.items()) for node in nodes
    )


def tell_room(nodes: Sequence[Mapping[str, float]], needs: Mapping[str, Any]) -> str:
    """Why a batch that needs this waits, in words."""
    if not nodes:
        return "the Ray cluster has no machines yet"
    if count_room(nodes, needs) or not _name_resources(needs):
        return "the machines of the Ray cluster have no room yet"
    shown = ", ".join(f"{name}: {amount:g}" for name, amount in _name_resources(needs).items())
    return f"no machine of the Ray cluster has {shown}"


def _name_resources(needs: Mapping[str, Any]) -> dict[str, float]:
    """What a batch takes, as machines name what they have."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    named = {names[name]: needs[name] for name in names if needs.get(name)}
    return {**named, **{name: n for name, n in needs.get("resources", {}).items() if n}}


def _read_ending(said: Mapping[str, Any]) -> tuple[int, str]:
    code, complaint = said["ending"]
    return code, complaint


def _read_state(found: Mapping[tuple[str, str], Any], handle: Handle) -> str:
    said = found[handle.place, handle.mark]
    if said is None:
        return ENDED
    state: str = said["states"].get(handle.batch, ENDED) if said else UNKNOWN
    return state


def _no_answer(address: str, reason: str) -> BackendError:
    return BackendError(
        f"the Ray cluster at {address} does not answer: {reason}",
        "start it with `ray start --head`, or give its address; "
        "from a machine that is none of its own: ray://HOST:10001",
        transient=True,
    )


def _explain(address: str, kind: str, said: str) -> UmpteenError:
    """What Ray raised, as an error of ours."""
    first = (said.strip() or kind).splitlines()[0]
    versions = _VERSIONS.findall(said)
    if "ersion mismatch" in said and len(versions) == 4:
        return BackendError(
            f"the Ray cluster at {address} has Ray {versions[0]} and Python {versions[1]}, "
            f"here are Ray {versions[2]} and Python {versions[3]}",
            f"install the same here: pip install ray=={versions[0]}",
        )
    if "ersion" in first and ("mismatch" in said or "differ" in said):
        hint = "install the versions of the cluster here"
        return BackendError(f"the Ray cluster at {address}: {first}", hint)
    if kind == "WrongEnvironmentError":
        return SettingsError(
            f"the option 'runtime_env' of 'ray' is not as Ray wants it: {first}",
            "write it as ray.init takes it: {env_vars: {COLOUR: green}, pip: [numpy]}",
        )
    if kind == "RuntimeEnvSetupError":
        return BackendError(
            f"the Ray cluster at {address} cannot set up runtime_env: {first}",
            "see the option runtime_env, and Ray's logs",
        )
    if address == _AUTO and kind == "ConnectionError":
        return BackendError(
            "no Ray cluster runs on this machine",
            "start one with `ray start --head`, or give an address: executor: {ray: {address: …}}",
            transient=True,
        )
    return _no_answer(address, first)


_drivers: dict[tuple[str, str], _Driver] = {}
_connecting = threading.Lock()
_failed: dict[tuple[str, str], tuple[BackendError, float]] = {}
