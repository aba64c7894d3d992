"""The processes that are connected to Ray clusters for us; Ray's errors as ours."""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
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
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from umpteen.errors import BackendError, SettingsError, UmpteenError

__all__ = ["ANSWER_S", "AUTO", "DRIVERS", "Driver", "DriverPool", "explain_error"]

AUTO = "auto"  # the cluster that this machine is of
ANSWER_S = 9.0
_REACH_S, _LOAD_S, _FIRST_S = 3.0, 60.0, 4.0
_CLIENT_S = 60.0  # a server of clients starts a process for each, which loads Ray
_AGAIN_S = 3.0  # after so long a cluster that did not answer is asked again
_VERSIONS = re.compile(r"(?:Ray|Python): (\S+)")


class Driver:
    """The process that is connected to a cluster for us: `ask` it."""

    def __init__(self, address: str, runtime_env: Mapping[str, Any], within_s: float) -> None:
        self.cluster, self.lock = address, threading.RLock()
        _reach(address)
        self.printed = tempfile.TemporaryFile()  # noqa: SIM115 -- as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "umpteen.executors.ray.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.printed,
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

    def ask(self, call: str, *, within_s: float = ANSWER_S, **told: Any) -> Any:
        """What it answers. Raises BackendError, and the process ends where it has no answer."""
        with self.lock:
            if not self.is_alive:  # another thread found that out
                raise no_answer(self.cluster, "the connection to it was lost")
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
            raise explain_error(self.cluster, answer["error"], answer["said"])
        return answer["answer"]

    def _give_up(self, reason: str = "") -> BackendError:
        """End the process; why, by default what it printed last."""
        self._end_process()
        self.printed.seek(0)
        printed = self.printed.read().decode(errors="replace").strip()
        self.printed.close()
        return no_answer(self.cluster, reason or printed.rpartition("\n")[2])

    def kill(self) -> None:
        """End it at once."""
        self._end_process()
        self.printed.close()

    def _end_process(self) -> None:
        with self.lock:
            if self.is_alive:
                self.process.kill()
            self._close_pipes()
            self.process.wait()

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what could not be sent
                if pipe:
                    pipe.close()

    def close(self) -> None:
        """Let it end, which is not waited for."""
        self._close_pipes()
        self.printed.close()
        self.process.returncode = self.process.returncode or 0  # nothing to warn of


class DriverPool:
    """The drivers of this process, one for each cluster and environment."""

    def __init__(self) -> None:
        self._drivers: dict[tuple[str, str], Driver] = {}
        self._refused: dict[tuple[str, str], tuple[BackendError, float]] = {}  # why, and when
        self._lock = threading.Lock()  # a job is looked at in threads

    def connect(self, address: str, runtime_env: Mapping[str, Any] | None = None) -> Driver:
        """The driver for a cluster. Raises BackendError."""
        environment = json.dumps(runtime_env or {}, sort_keys=True, default=str)
        key = address, environment
        with self._lock:
            known = self._drivers.get(key)
            if known is not None and known.is_alive:
                return known
            refused, refused_s = self._refused.get(key, (None, 0.0))
            if refused is not None and time.monotonic() - refused_s < _AGAIN_S:
                raise refused
            try:
                driver = _start(address, runtime_env or {})
            except BackendError as error:
                self._refused[key] = error, time.monotonic()
                raise
            self._drivers[key] = self._drivers[driver.cluster, environment] = driver
            return driver

    def close(self) -> None:
        """Let all of them end, which is not waited for."""
        with self._lock:
            for driver in set(self._drivers.values()):
                driver.close()
            self._drivers.clear()


def _start(address: str, runtime_env: Mapping[str, Any]) -> Driver:
    if address.startswith("ray://"):  # whose server fails its first client now and then
        try:
            return Driver(address, runtime_env, _FIRST_S)
        except BackendError as error:
            if not error.transient:
                raise
        return Driver(address, runtime_env, _CLIENT_S)
    return Driver(address, runtime_env, ANSWER_S)


def _reach(address: str) -> None:
    """Raises BackendError where nobody listens: Ray itself would try for long."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        if not parts.hostname or not parts.port:
            return
        try:
            socket.create_connection((parts.hostname, parts.port), timeout=_REACH_S).close()
        except OSError as error:
            raise no_answer(address, getattr(error, "strerror", "") or str(error)) from error


def no_answer(address: str, reason: str) -> BackendError:
    return BackendError(
        f"the Ray cluster at {address} does not answer: {reason}",
        "start it with `ray start --head`, or give its address; "
        "from a machine that is none of its own: ray://HOST:10001",
        transient=True,
    )


def explain_error(address: str, kind: str, said: str) -> UmpteenError:
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
    if address == AUTO and kind == "ConnectionError":
        return BackendError(
            "no Ray cluster runs on this machine",
            "start one with `ray start --head`, or give an address: executor: {ray: {address: …}}",
            transient=True,
        )
    return no_answer(address, first)


# Of the process and not of an executor: to start one takes seconds, and a notebook looks at its
# jobs again and again, each time with executors of its own.
DRIVERS = DriverPool()
atexit.register(DRIVERS.close)
