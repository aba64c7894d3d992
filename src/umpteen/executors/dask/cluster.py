"""A cluster that umpteen made, and the process that holds it until its batches have ended.

    python3 -m umpteen.executors.dask.cluster FOLDER LOCK

So nothing on the user's side has to stay open. A job has one cluster holder at a time, whose
folder is beside the leases; its `lock` is held as long as the holder lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from umpteen.errors import BackendError, SettingsError
from umpteen.executors.base import OnProgress
from umpteen.runner.launch import build_python_command
from umpteen.runner.lease import is_held
from umpteen.store.identity import Identity
from umpteen.store.submission_lock import name_submission
from umpteen.system.background import detach
from umpteen.system.locks import leases_folder, local_lock
from umpteen.system.stop_signals import Stops
from umpteen.system.whole_files import replace_file

__all__ = [
    "ClusterSpec",
    "HolderFolder",
    "has_held_cluster_ended",
    "hold_cluster",
    "load_class",
    "main",
]

_IDLE_S = 10.0  # with nothing to do for so long after some batch, the cluster is closed
_UNUSED_S = 120.0  # and where none ever came
_LOOK_S, _POLL_S = 1.0, 0.05  # how often the holder looks for work, and others for its address
_SHORT = {
    "LocalCluster": "distributed.LocalCluster",
    "SaturnCluster": "dask_saturn.SaturnCluster",
}


class ClusterSpec(NamedTuple):
    """What cluster to make."""

    kind: str  # its class: a short name or an import path
    keywords: Mapping[str, Any]  # what that is called with


def load_class(spec: str) -> Any:
    """The class of a cluster, by a short name or an import path. Raises SettingsError."""
    module, _, name = _SHORT.get(spec, spec).replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        package = module.partition(".")[0].replace("_", "-")
        hint = f"pip install {package}" if package else "write package.module.Class"
        raise SettingsError(f"there is no cluster class {spec!r} here: {error}", hint) from error


class HolderFolder:
    """The folder by which a cluster holder and those who need its cluster find each other.

    `request.json` says what to make, `address` is the scheduler's once it is there, `complaint`
    why it is not, `log` what the cluster printed; `closed` is there when no more is taken.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def list_all(cls, job: str = "") -> list[HolderFolder]:
        """Those of a job, by the digest of its store; of all jobs if that is empty."""
        return [cls(path) for path in glob.glob(glob.escape(_prefix(job)) + "*")]

    @classmethod
    def create(cls, store: Identity, spec: ClusterSpec) -> HolderFolder:
        """A new one, with a request in it."""
        folder = cls(f"{_prefix(store.digest)}{os.urandom(4).hex()}")
        os.makedirs(folder.path, mode=0o700)
        request = {
            "lock": name_submission(store),
            "class": spec.kind,
            "keywords": dict(spec.keywords),
        }
        descriptor = os.open(f"{folder.path}/request.json", os.O_CREAT | os.O_WRONLY, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(request, file)
        return folder

    def take_request(self) -> tuple[str, ClusterSpec]:
        """(name of the job's submission lock, what to make); removed, as a key may be in it."""
        request = json.loads(self.read("request.json"))
        os.unlink(f"{self.path}/request.json")
        return request["lock"], ClusterSpec(request["class"], request["keywords"])

    def lock(self) -> int:
        """A descriptor of its lock, which is held from now on."""
        lock = os.open(f"{self.path}/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    @property
    def is_open(self) -> bool:
        """Whether its holder lives, and has its cluster or will have."""
        is_alive = is_held(os.path.basename(self.path))
        return bool(is_alive) and not os.path.exists(f"{self.path}/closed")

    def close(self) -> None:
        """Say that no more is taken."""
        self.write("closed", "")

    def read(self, name: str) -> str:
        """A file of it; empty where it is not there."""
        try:
            with open(f"{self.path}/{name}", encoding="utf-8", errors="replace") as file:
                return file.read().strip()
        except OSError:
            return ""

    def write(self, name: str, content: str) -> None:
        """Write a file of it, which is seen whole or not at all."""
        replace_file(f"{self.path}/{name}", content)


def _prefix(job: str) -> str:
    return os.path.join(leases_folder(), f"keeper-{job}-" if job else "keeper-")


# --- those who need a cluster -------------------------------------------------------------------


def has_held_cluster_ended(scheduler: str) -> bool:
    """Whether a cluster of that address was held on this machine, and is no longer."""
    held = [folder for folder in HolderFolder.list_all() if folder.read("address") == scheduler]
    return bool(held) and not any(folder.is_open for folder in held)


def hold_cluster(
    store: Identity, spec: ClusterSpec, limit_s: float, on_progress: OnProgress
) -> str:
    """The scheduler of the cluster that is held for the job in a store, made if none is.

    limit_s: how long that may take. What `on_progress` raises ends a cluster that is being made.
    The caller has the submission lock of the job. Raises BackendError.
    """
    load_class(spec.kind)
    known = (folder for folder in HolderFolder.list_all(store.digest) if folder.is_open)
    folder, process = next(known, None), None
    if folder is None:
        folder = HolderFolder.create(store, spec)
        process = _start_holder(folder)
    try:
        scheduler = _wait_for_address(folder, spec.kind, limit_s, on_progress)
    except BaseException:
        if process is not None:
            folder.close()  # the process may take a while to end
            process.terminate()
        raise
    return scheduler


def _start_holder(folder: HolderFolder) -> subprocess.Popen[bytes]:
    """Its process, which has the lock of the folder from the start."""
    lock = folder.lock()
    with open(f"{folder.path}/log", "ab") as log:
        process = detach(
            [*build_python_command("umpteen.executors.dask.cluster"), folder.path, str(lock)],
            output=log,
            errors=log,
            pass_fds=[lock],
        )
    os.close(lock)
    return process


def _wait_for_address(
    folder: HolderFolder, kind: str, limit_s: float, on_progress: OnProgress
) -> str:
    began_s = time.monotonic()
    while not (scheduler := folder.read("address")):
        waited_s = time.monotonic() - began_s
        if not folder.is_open:
            said = folder.read("complaint") or folder.read("log").rpartition("\n")[2]
            raise BackendError(
                f"the cluster {kind} did not start: {said}", f"see {folder.path}/log"
            )
        if waited_s > limit_s:
            raise BackendError(
                f"the cluster {kind} did not start within {limit_s:g} s",
                f"see {folder.path}/log; worker_timeout sets how long it is waited for",
            )
        on_progress(f"starting {kind}, {waited_s:.0f} s")
        time.sleep(_POLL_S)
    return scheduler


# --- the holder ---------------------------------------------------------------------------------


def main() -> int:
    """Hold a cluster. 0 when it was closed, 1 where it could not be made."""
    folder, lock = HolderFolder(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(lock, False)
    stops = Stops()

    def end(number: int, *_: object) -> None:
        if stops.add(number):  # once more it would end the cluster's own end
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    submission_lock, spec = folder.take_request()
    try:
        cluster = load_class(spec.kind)(**spec.keywords)
    except (Exception, KeyboardInterrupt) as error:  # whatever a cluster may raise
        folder.write("complaint", _describe(error))
        return 1
    with contextlib.suppress(KeyboardInterrupt), cluster:
        address = cluster.scheduler_address
        if address.startswith("inproc:"):
            folder.write("complaint", "its scheduler is within one process: leave that out")
            return 1
        try:
            folder.write("address", address)
            _hold_until_idle(cluster, folder, submission_lock)
        finally:  # also after a signal, or where its scheduler is gone
            folder.close()
    return 0


def _describe(error: BaseException) -> str:
    """The error at the root of it, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _hold_until_idle(cluster: Any, folder: HolderFolder, submission_lock: str) -> None:
    """Until nothing has run for a while, and nobody is submitting."""
    from distributed import Client

    connect: Any = Client
    idle_s, since_s, before = _UNUSED_S, time.monotonic(), 0
    with connect(cluster, set_as_default=False) as client:
        while True:
            time.sleep(_LOOK_S)
            is_over = time.monotonic() - since_s >= idle_s
            # Whoever submits has this lock: before, or after, and then finds no open holder.
            with local_lock(submission_lock) if is_over else contextlib.nullcontext():
                is_busy, steps = client.run_on_scheduler(_count_steps)
                if is_busy or steps != before:
                    idle_s, since_s, before = _IDLE_S, time.monotonic(), steps
                elif is_over:
                    folder.close()
                    return


def _count_steps(dask_scheduler: Any) -> tuple[bool, int]:
    """(whether something runs or waits, how many steps tasks have made so far)."""
    over = ("memory", "erred", "forgotten", "released")
    is_busy = any(task.state not in over for task in dask_scheduler.tasks.values())
    return is_busy, dask_scheduler.transition_counter


if __name__ == "__main__":
    sys.exit(main())
