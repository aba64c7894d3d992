"""A cluster that umpteen made, kept by a process of its own until its batches have ended.

    python3 -m umpteen.keeper FOLDER

One keeper for a job, whose folder lies beside the leases: `request.json` says what to make,
`address` is the scheduler's once it is there, `complaint` why not, `log` what the cluster
printed. The lock in it is held all the keeper's life. No shell, laptop or client need stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from umpteen.errors import BackendError, SettingsError
from umpteen.lease import is_held, leases_folder

__all__ = ["find_keeper", "is_kept_dead", "load_class", "main", "start_keeper"]

_IDLE_S = 10.0  # with nothing to do for so long after some batch, the cluster is closed
_UNUSED_S = 120.0  # and where none ever came
_LOOK_S = 1.0
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


def find_keeper(job: str) -> str:
    """The scheduler of the cluster that is kept for the job at that address; empty: none is."""
    folder = _folder(job)
    return _read(folder, "address") if is_held(os.path.basename(folder)) else ""


def is_kept_dead(scheduler: str) -> bool:
    """Whether a cluster of that address was kept on this machine, and is no longer."""
    above = leases_folder()
    kept = [
        name
        for name in os.listdir(above)
        if name.startswith("keeper-") and _read(f"{above}/{name}", "address") == scheduler
    ]
    return bool(kept) and not any(map(is_held, kept))


def start_keeper(job: str, spec: str, keywords: Mapping[str, Any], limit_s: float) -> str:
    """Make a cluster for the job at that address; its scheduler. Raises BackendError."""
    load_class(spec)
    folder = _folder(job)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, mode=0o700)
    with open(os.open(f"{folder}/request.json", os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        json.dump({"class": spec, "keywords": dict(keywords)}, file)
    with open(f"{folder}/log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "umpteen.keeper", folder],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    began_s = time.monotonic()
    while not (scheduler := _read(folder, "address")):
        if process.poll() is not None:
            said = _read(folder, "complaint") or _read(folder, "log").rpartition("\n")[2]
            raise BackendError(f"the cluster {spec} did not start: {said}", f"see {folder}/log")
        if time.monotonic() - began_s > limit_s:
            process.terminate()
            raise BackendError(
                f"the cluster {spec} did not start within {limit_s:g} s", f"see {folder}/log"
            )
        time.sleep(0.05)
    process.returncode = 0  # it outlives us, which is nothing to warn of
    return scheduler


def _folder(job: str) -> str:
    digest = hashlib.blake2b(job.encode(), digest_size=8).hexdigest()
    return os.path.join(leases_folder(), f"keeper-{digest}")


def _read(folder: str, name: str) -> str:
    try:
        with open(f"{folder}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


# --- the process ------------------------------------------------------------------------


def main() -> int:
    """Keep a cluster. 0 when it was closed, 1 where it could not be made."""
    folder = sys.argv[1]
    lock = os.open(f"{folder}/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    request = json.loads(_read(folder, "request.json"))
    try:
        cluster = load_class(request["class"])(**request["keywords"])
    except Exception as error:  # whatever a cluster of somebody else may raise
        _write(folder, "complaint", _tell(error))
        return 1
    with contextlib.suppress(KeyboardInterrupt), cluster:
        _write(folder, "address", cluster.scheduler_address)
        _keep(cluster)
    os.unlink(f"{folder}/address")
    return 0


def _tell(error: BaseException) -> str:
    """What was wrong at the bottom of it, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _leave(*_: object) -> None:
    raise KeyboardInterrupt


def _write(folder: str, name: str, content: str) -> None:
    with open(f"{folder}/{name}.new", "w", encoding="utf-8") as file:
        file.write(content)
    os.replace(f"{folder}/{name}.new", f"{folder}/{name}")


def _keep(cluster: Any) -> None:
    """Until nothing has been under way for a while."""
    from distributed import Client

    connect: Any = Client
    idle_s, since_s, before = _UNUSED_S, time.monotonic(), 0
    with connect(cluster, set_as_default=False) as client:
        while time.monotonic() - since_s < idle_s:
            time.sleep(_LOOK_S)
            is_busy, steps = client.run_on_scheduler(_look_at)
            if is_busy or steps != before:
                idle_s, since_s, before = _IDLE_S, time.monotonic(), steps


def _look_at(dask_scheduler: Any) -> tuple[bool, int]:
    """(whether something is under way, how many steps tasks have made so far)."""
    over = ("memory", "erred", "forgotten", "released")
    is_busy = any(task.state not in over for task in dask_scheduler.tasks.values())
    return is_busy, dask_scheduler.transition_counter


if __name__ == "__main__":
    sys.exit(main())
