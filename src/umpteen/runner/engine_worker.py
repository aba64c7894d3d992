"""On a worker of an engine: has a batch run by a runner, a child process of its own.

Dask and Ray carry this file as text, with the runner as a zip file, so that a worker needs
nothing of umpteen. It imports the standard library of Python 3.9 alone and nothing of this
package, so it says again what `runner.launch` and `system.locks` say; a test holds them to one
another. `executors.zipapp` puts two lines below it that set DIGEST and RUNNER, in base64.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from typing import Any, TypedDict

__all__ = ["Answer", "Order", "run_batch", "wake"]

ORPHAN_GRACE_S = 3
_MOST_DEATHS = 5  # of runners in a row
_BUSY_S = 5.0  # how long another batch of this worker is waited for before others may have ours
_WIDER_S, _WIDER_TRIES = 1.0, 30  # for how long a worker with more cores is looked for
_SAID_BYTES = 8000  # the last that a runner wrote; a path may be long
# Nothing of the folder that a worker is in comes before the standard library.
_PROGRAM = """import sys
sys.path[:] = [*filter(None, sys.path), {!r}]
from umpteen.runner.main import main
sys.exit(main())"""
_SAFE = ["-P"] if sys.version_info >= (3, 11) else []  # which older ones do not know
_OLDEST = (3, 9)

DIGEST, RUNNER = "", ""
_running: dict[int, str] = {}  # pids of runners, and the marks of their submissions


class Order(TypedDict):
    """What is to be run, as the executor has written it."""

    address: str  # of the store
    store: str  # the word that the store is known by
    batch: str  # its number there
    mark: str  # of the submission
    slots: int
    cpus: int  # what its tasks may use together; 0: all of the machine
    is_beside_others: bool  # whether it takes them of its worker's, as Dask does not count them
    environment: dict[str, str]  # what the runner finds in its own


class Answer(TypedDict):
    """How that ended."""

    code: int  # exit code of the last runner
    said: str  # what that wrote to stderr
    host: str


class _Cores:
    """Those of one worker of Dask, which batches take in the order in which they come."""

    def __init__(self, count: int) -> None:
        self.count, self.taken = count, 0
        self.queue: list[object] = []
        self.changed = threading.Condition()

    def take(self, count: int, within_s: float) -> bool:
        """Whether so many were free within that time."""
        me = object()
        with self.changed:
            self.queue.append(me)
            is_free = self.changed.wait_for(
                lambda: self.queue[0] is me and self.taken + count <= self.count, within_s
            )
            self.queue.remove(me)
            self.taken += count if is_free else 0
            self.changed.notify_all()
        return is_free

    def give_back(self, count: int) -> None:
        """They are free again."""
        with self.changed:
            self.taken -= count
            self.changed.notify_all()


_cores: dict[str, _Cores] = {}  # by address of the worker: some share a process


def run_batch(order: str) -> str:
    """Run the batch that an Order, in JSON, names; the Answer, in JSON.

    Raises Dask's Reschedule where this worker has not the cores for it.
    """
    asked: Order = json.loads(order)
    if sys.version_info < _OLDEST:
        version = ".".join(map(str, sys.version_info[:2]))
        hint = "start workers with Python 3.9 or newer"
        return _answer(3, _complain(f"it has Python {version}", hint))
    return _run_shared(asked) if asked["is_beside_others"] else _run(asked)


def _run_shared(asked: Order) -> str:
    """On a worker of Dask, beside as many other batches as its cores are enough for."""
    import distributed

    worker = distributed.get_worker()
    cores = _cores.setdefault(worker.address, _Cores(worker.state.nthreads))
    wanted = asked["cpus"]
    if wanted > cores.count and _find_wider(worker, wanted):
        raise distributed.Reschedule
    count = min(wanted or cores.count, cores.count)
    if not cores.take(count, _BUSY_S):
        raise distributed.Reschedule  # another worker may be free by now
    try:
        asked["cpus"] = min(wanted, cores.count)
        return _run(asked)
    finally:
        cores.give_back(count)


def _find_wider(worker: Any, cores: int) -> bool:
    """Whether another worker has as many cores, or joins with as many within half a minute.

    Without one the runner is to say of each task that needs them that they are not there.
    """
    import distributed

    for _ in range(_WIDER_TRIES):
        time.sleep(_WIDER_S)
        told = distributed.utils.sync(worker.loop, worker.scheduler.identity)
        if any(other["nthreads"] >= cores for other in told["workers"].values()):
            return True
    return False


def wake(marks: list[str]) -> None:
    """Have the runners of these submissions look for the cancel mark now."""
    for pid, mark in list(_running.items()):
        if mark in marks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)


def _run(asked: Order) -> str:
    above = name = name_folder()
    try:
        folder = _unpack(above)
        name = tempfile.gettempdir()
        code, said = _try_runners(asked, folder)
    except OSError as error:
        name = error.filename or name
        return _answer(3, _complain(f"cannot write {name}: {error.strerror}"))
    except _NoStartError as error:
        python = sys.executable or "which it does not know"
        return _answer(3, _complain(f"cannot start Python, {python}: {error}"))
    # Wrong use would be ours and not the user's: the job was submitted.
    return _answer(3 if code == 2 else code, said)


class _NoStartError(Exception):
    """The runner could not be started."""


def _try_runners(asked: Order, folder: str) -> tuple[int, str]:
    """A runner that is killed is followed by another, which does the rest."""
    code, said = 0, ""
    for _ in range(_MOST_DEATHS):
        code, said = _run_once(asked, folder)
        if 0 <= code < 70:
            break
    return code, said


def build_command(asked: Order, folder: str, token: str) -> list[str]:
    """The command line of the runner that was unpacked into a folder."""
    return [
        sys.executable, "-S", "-E", *_SAFE, "-c", _PROGRAM.format(folder),
        asked["address"], asked["batch"],
        f"--token={token}", f"--slots={asked['slots']}", f"--cpus={asked['cpus']}",
        f"--store={asked['store']}", "--take-over",
        "--watch-fd=0", f"--orphan-grace={ORPHAN_GRACE_S}",
    ]  # fmt: skip


def _run_once(asked: Order, folder: str) -> tuple[int, str]:
    token = os.urandom(6).hex()
    environment = {
        **os.environ,
        **asked["environment"],
        "UMPTEEN_RUNNER": token,
        "UMPTEEN_WORKER_THREADS": ",".join(_list_limits(asked)),
    }
    with tempfile.TemporaryFile() as complaints:
        # Its end of the pipe closes when this process dies, however that comes about.
        try:
            runner = subprocess.Popen(
                build_command(asked, folder, token),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise _NoStartError(error.strerror) from error
        _running[runner.pid] = asked["mark"]
        try:
            code = runner.wait()
        finally:
            del _running[runner.pid]
            if runner.stdin:
                runner.stdin.close()
        complaints.seek(max(0, os.fstat(complaints.fileno()).st_size - _SAID_BYTES))
        return code, complaints.read().decode(errors="replace").strip()


def name_folder() -> str:
    """Where leases are, and the runner is put: as `system.locks` has it."""
    above, own = os.environ.get("UMPTEEN_LEASES") or "/var/tmp", f"umpteen-{os.getuid()}"
    return above if os.path.basename(above.rstrip("/")) == own else os.path.join(above, own)


def _unpack(above: str) -> str:
    """The runner's folder on this machine, below `above`, made by the first that needs it."""
    os.makedirs(above, mode=0o700, exist_ok=True)
    found = os.lstat(above)
    if found.st_uid != os.getuid():
        raise PermissionError(13, "it is not yours: set UMPTEEN_LEASES", above)
    folder = f"{above}/runner-{DIGEST}"
    if not _is_whole(folder):
        new = tempfile.mkdtemp(dir=above, prefix=f"runner-{DIGEST}.")
        try:
            with zipfile.ZipFile(io.BytesIO(base64.b64decode(RUNNER))) as archive:
                archive.extractall(new)
            os.rename(new, folder)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            if not _is_whole(folder):  # else somebody else was faster
                raise
    return folder


def _is_whole(folder: str) -> bool:
    return os.path.exists(f"{folder}/umpteen/runner/main.py")


def _list_limits(asked: Order) -> list[str]:
    """Variables by which the engine, and nobody else, limits the threads of what a worker runs."""
    with contextlib.suppress(Exception):  # as versions of engines differ
        if "distributed" in sys.modules:
            import dask
            import distributed

            set_by_nanny = dask.config.get("distributed.nanny.pre-spawn-environ")
            has_nanny = distributed.get_worker().nanny is not None
            told = set_by_nanny.items() if has_nanny else ()
        else:
            told = [("OMP_NUM_THREADS", asked["cpus"])]  # those of its batch, where tasks say them
        return [
            n for n, value in told if n.endswith("_THREADS") and os.environ.get(n) == str(value)
        ]
    return []


def _name_worker() -> str:
    """The host and, as the engine knows it, the address of this worker."""
    host = socket.gethostname()
    with contextlib.suppress(Exception):
        if "distributed" in sys.modules:
            import distributed

            return f"{host} ({distributed.get_worker().address})"
        return f"{host} ({sys.modules['ray'].util.get_node_ip_address()})"
    return host


def _complain(message: str, hint: str = "") -> str:
    """An error, as runners say theirs (`model/complaint.py`)."""
    return json.dumps({"error": message, "hint": hint})


def _answer(code: int, said: str) -> str:
    """An Answer, in JSON; an error of the runner names this worker."""
    lines = [_name_in(line) if code else line for line in said.splitlines()]
    answer: Answer = {"code": code, "said": "\n".join(lines), "host": socket.gethostname()}
    return json.dumps(answer)


def _name_in(line: str) -> str:
    """A line of a runner; where it is an error, that of this worker."""
    if not line.startswith('{"error"'):
        return line
    with contextlib.suppress(ValueError, KeyError):
        found = json.loads(line)
        return _complain(f"worker {_name_worker()}: {found['error']}", found["hint"])
    return line
