"""A cluster that umpteen made, kept by a process of its own until its batches have ended.

    python3 -m umpteen.executors.dask.cluster FOLDER LOCK

A job has one keeper at a time, whose folder lies beside the leases: `request.json` says what to
make, `address` is the scheduler's once it is there, `complaint` why not, `log` what the cluster
printed, `closed` is there when no more is taken. The lock in it is held all the keeper's life.
No shell, laptop or client need stay.
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
from collections.abc import Callable, Mapping
from typing import Any

from umpteen.errors import BackendError, SettingsError
from umpteen.runner.launch import build_python_command
from umpteen.runner.lease import is_held
from umpteen.store.identity import Identity
from umpteen.store.submission_lock import name_submission
from umpteen.system.background import detach
from umpteen.system.locks import leases_folder, local_lock
from umpteen.system.stop_signals import Stops
from umpteen.system.whole_files import replace_file

__all__ = ["is_kept_dead", "keep_cluster", "load_class", "main"]

_IDLE_S = 10.0  # with nothing to do for so long after some batch, the cluster is closed
_UNUSED_S = 120.0  # and where none ever came
_LOOK_S, _GLANCE_S = 1.0, 0.05
_SHORT = {
    "LocalCluster": "distributed.LocalCluster",
    "SaturnCluster": "dask_saturn.SaturnCluster",
}


def load_class(spec: str) -> Any:
    """The class of a cluster, by a short name or an import path. Raises SettingsError."""
    module, _, name = _SHORT.get(spec, spec).replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        package = module.partition(".")[0].replace("_", "-")
        hint = f"pip install {package}" if package else "write package.module.Class"
        raise SettingsError(f"there is no cluster class {spec!r} here: {error}", hint) from error


def is_kept_dead(scheduler: str) -> bool:
    """Whether a cluster of that address was kept on this machine, and is no longer."""
    kept = [folder for folder in _list_folders("") if _read(folder, "address") == scheduler]
    return bool(kept) and not any(map(_is_open, kept))


def keep_cluster(
    store: Identity,
    spec: str,
    keywords: Mapping[str, Any],
    limit_s: float,
    tell: Callable[[str], None],
) -> str:
    """The scheduler of the cluster that is kept for the job in a store, made if none is.

    spec, keywords: its class, and what that is called with. limit_s: how long it may take. tell:
    called with what to show meanwhile; what it raises ends a cluster that is being made. The
    caller has the hand-in lock of the job. Raises BackendError.
    """
    load_class(spec)
    folder, process = next(filter(_is_open, _list_folders(store.digest)), ""), None
    if not folder:
        folder, process = _start(store, spec, keywords)
    try:
        scheduler = _wait_for(folder, spec, limit_s, tell)
    except BaseException:
        if process is not None:
            _write(folder, "closed", "")  # it may take a while to end
            process.terminate()
        raise
    return scheduler


def _wait_for(folder: str, spec: str, limit_s: float, tell: Callable[[str], None]) -> str:
    began_s = time.monotonic()
    while not (scheduler := _read(folder, "address")):
        waited_s = time.monotonic() - began_s
        if not _is_open(folder):
            said = _read(folder, "complaint") or _read(folder, "log").rpartition("\n")[2]
            raise BackendError(f"the cluster {spec} did not start: {said}", f"see {folder}/log")
        if waited_s > limit_s:
            raise BackendError(
                f"the cluster {spec} did not start within {limit_s:g} s",
                f"see {folder}/log; worker_timeout sets how long it is waited for",
            )
        tell(f"starting {spec}, {waited_s:.0f} s")
        time.sleep(_GLANCE_S)
    return scheduler


def _start(
    store: Identity, spec: str, keywords: Mapping[str, Any]
) -> tuple[str, subprocess.Popen[bytes]]:
    """The folder of a new keeper, whose lock it has from the start, and its process."""
    folder = f"{_prefix(store.digest)}{os.urandom(4).hex()}"
    os.makedirs(folder, mode=0o700)
    with open(os.open(f"{folder}/request.json", os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        json.dump({"lock": name_submission(store), "class": spec, "keywords": dict(keywords)}, file)
    lock = os.open(f"{folder}/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with open(f"{folder}/log", "ab") as log:
        process = detach(
            [*build_python_command("umpteen.executors.dask.cluster"), folder, str(lock)],
            output=log,
            errors=log,
            pass_fds=[lock],
        )
    os.close(lock)
    return folder, process


def _prefix(job: str) -> str:
    return os.path.join(leases_folder(), f"keeper-{job}-" if job else "keeper-")


def _list_folders(job: str) -> list[str]:
    """Of all keepers of a job, by the digest of its store; of all jobs if that is empty."""
    return glob.glob(glob.escape(_prefix(job)) + "*")


def _is_open(folder: str) -> bool:
    """Whether its keeper lives, and has its cluster or will have."""
    return bool(is_held(os.path.basename(folder))) and not os.path.exists(f"{folder}/closed")


def _read(folder: str, name: str) -> str:
    try:
        with open(f"{folder}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


# --- the process ------------------------------------------------------------------------


def main() -> int:
    """Keep a cluster. 0 when it was closed, 1 where it could not be made."""
    folder, lock = sys.argv[1], int(sys.argv[2])
    os.set_inheritable(lock, False)
    stops = Stops()

    def leave(number: int, *_: object) -> None:
        if stops.add(number):  # once more it would end the cluster's own end
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    request = json.loads(_read(folder, "request.json"))
    os.unlink(f"{folder}/request.json")  # which may have a key in it
    try:
        cluster = load_class(request["class"])(**request["keywords"])
    except (Exception, KeyboardInterrupt) as error:  # whatever a cluster may raise
        _write(folder, "complaint", _tell(error))
        return 1
    with contextlib.suppress(KeyboardInterrupt), cluster:
        address = cluster.scheduler_address
        if address.startswith("inproc:"):
            _write(folder, "complaint", "its scheduler is within one process: leave that out")
            return 1
        try:
            _write(folder, "address", address)
            _keep(cluster, folder, request["lock"])
        finally:  # also where it is told to end, or its scheduler is gone
            _write(folder, "closed", "")
    return 0


def _tell(error: BaseException) -> str:
    """What was wrong at the bottom of it, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _write(folder: str, name: str, content: str) -> None:
    replace_file(f"{folder}/{name}", content)


def _keep(cluster: Any, folder: str, lock: str) -> None:
    """Until nothing has been under way for a while, and nothing is being handed in."""
    from distributed import Client

    connect: Any = Client
    idle_s, since_s, before = _UNUSED_S, time.monotonic(), 0
    with connect(cluster, set_as_default=False) as client:
        while True:
            time.sleep(_LOOK_S)
            is_over = time.monotonic() - since_s >= idle_s
            # Whoever hands in does so before, or finds no open keeper.
            with local_lock(lock) if is_over else contextlib.nullcontext():
                is_busy, steps = client.run_on_scheduler(_look_at)
                if is_busy or steps != before:
                    idle_s, since_s, before = _IDLE_S, time.monotonic(), steps
                elif is_over:
                    _write(folder, "closed", "")
                    return


def _look_at(dask_scheduler: Any) -> tuple[bool, int]:
    """(whether something is under way, how many steps tasks have made so far)."""
    over = ("memory", "erred", "forgotten", "released")
    is_busy = any(task.state not in over for task in dask_scheduler.tasks.values())
    return is_busy, dask_scheduler.transition_counter


if __name__ == "__main__":
    sys.exit(main())
