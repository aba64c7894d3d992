"""Processes on this machine: start one, hear of its end, end it with all it started.

Everything that differs between Linux and other Unixes is here, probed at run time;
`UMPTEEN_PORTABLE=1` forces the portable way. Knows nothing of tasks or stores.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Callable, NamedTuple

from umpteen.errors import EXIT_INTERRUPTED, RUNNER_CRASHED, BackendError

__all__ = [
    "ChildWatcher",
    "Launch",
    "Machine",
    "ProcessEntry",
    "Spawner",
    "become_subreaper",
    "boot_ticks",
    "build_python_command",
    "build_runner_command",
    "end_group",
    "explain_shortage",
    "is_marked_otherwise",
    "is_plain",
    "is_running",
    "is_stopped",
    "list_below",
    "list_children",
    "list_marked",
    "list_processes",
    "read_machine",
    "read_pid_namespace",
    "read_process",
    "reap_strangers",
    "resolve_program",
    "sync_filesystem",
    "usable_cores",
]

IS_PORTABLE = bool(os.environ.get("UMPTEEN_PORTABLE")) or not os.path.exists("/proc/self/stat")
_PR_SET_CHILD_SUBREAPER = 36
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", 0)
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

# What a POSIX shell, dash or bash does itself, so that running a program of that name
# would not be the same.
_SHELL_WORDS = frozenset(
    ". : [ alias bg bind break builtin caller case cd chdir command compgen complete compopt"
    " continue coproc declare dirs disown do done echo elif else enable esac eval exec exit"
    " export false fc fg fi for function getopts hash help history if in jobs kill let local"
    " logout mapfile newgrp popd printf pushd pwd read readarray readonly return select set"
    " shift shopt source suspend test then time times trap true type typeset ulimit umask"
    " unalias unset until wait while".split()
)
_PLAIN_COMMAND = re.compile(r"[A-Za-z0-9_@%+:,./\-][A-Za-z0-9_@%+=:,./\- \t]*")


class Machine(NamedTuple):
    """Which machine this is, and which boot of it; both empty where that cannot be known."""

    machine: str
    boot: str
    host: str


def read_machine() -> Machine:
    """This machine: its id, the id of this boot, and its host name."""
    host = os.uname().nodename
    machine = _read_text("/etc/machine-id") or host
    boot = _read_text("/proc/sys/kernel/random/boot_id") or _boot_time()
    return Machine(machine, boot, host)


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def _boot_time() -> str:
    try:
        return subprocess.run(
            ["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:
        return ""


def usable_cores() -> int:
    """The cores that this process may use: affinity and cgroup quotas respected."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    quota = _cgroup_cores()
    return max(1, min(cores, int(quota))) if quota else max(1, cores)


def _cgroup_cores() -> float | None:
    """The CPU quota of the cgroups this process is in, in cores (cgroup v2, then v1)."""
    lowest: float | None = None
    for line in _read_text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quota = _lowest_quota("/sys/fs/cgroup", path, _quota_v2)
        elif "cpu" in controllers.split(","):
            quota = _lowest_quota("/sys/fs/cgroup/cpu", path, _quota_v1)
        else:
            continue
        if quota and (lowest is None or quota < lowest):
            lowest = quota
    return lowest


def _lowest_quota(root: str, path: str, read: Callable[[str], float | None]) -> float | None:
    quotas = []
    while True:
        quota = read(root + path)
        if quota:
            quotas.append(quota)
        if path in ("", "/"):
            return min(quotas, default=None)
        path = os.path.dirname(path)


def _quota_v2(folder: str) -> float | None:
    parts = _read_text(folder + "/cpu.max").split()
    return int(parts[0]) / int(parts[1]) if len(parts) == 2 and parts[0] != "max" else None


def _quota_v1(folder: str) -> float | None:
    quota = _read_text(folder + "/cpu.cfs_quota_us")
    period = _read_text(folder + "/cpu.cfs_period_us")
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def build_runner_command() -> list[str]:
    """The command that starts a runner with this Python and this copy of the package.

    Without `site` it starts in half the time; without PYTHONPATH nothing is passed on to
    commands that they would not have had otherwise.
    """
    return build_python_command("umpteen.runner", "-S", "-E")


def build_python_command(module: str, *flags: str) -> list[str]:
    """The command that calls `main` of a module of this copy of the package with this Python.

    The standard library comes first: before the folder that we are in, which may have a
    `random.py`, and before what is installed beside us.
    """
    place = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # By hand as well, as Python 3.9 does not know -P, without which 3.13 imports before we do.
    safe = ["-P"] if sys.version_info >= (3, 11) else []
    program = (
        "import sys\n"
        "sys.path[:] = [*filter(None, sys.path)]\n"
        f"{place!r} in sys.path or sys.path.append({place!r})\n"
        "try:\n"
        f"    from {module} import main\n"
        "    sys.exit(main())\n"
        "except KeyboardInterrupt:\n"
        f"    sys.exit({EXIT_INTERRUPTED})\n"
        "except Exception:\n"
        "    sys.excepthook(*sys.exc_info())\n"
        f"    sys.exit({RUNNER_CRASHED})\n"
    )
    return [sys.executable, *flags, *safe, "-c", program]


def explain_shortage(error: Exception) -> BackendError | None:
    """What to say where the system lets this user start no more; None where it is another error.

    Python raises a RuntimeError for threads, which only its text tells from others.
    """
    is_fork = isinstance(error, OSError) and error.errno == errno.EAGAIN and not error.filename
    if is_fork or (isinstance(error, RuntimeError) and "can't start new thread" in str(error)):
        return BackendError(
            "the system lets this user start no more processes and threads",
            "end others, or raise the limit: ulimit -u shows it",
        )
    return None


def boot_ticks() -> int:
    """Now, in the clock ticks since boot that /proc gives as the start time of a process."""
    return int(time.clock_gettime(_BOOT_CLOCK) * _TICKS_A_SECOND) if _BOOT_CLOCK else 0


# --- starting -------------------------------------------------------------------------


def is_plain(command: str) -> bool:
    """Whether a command holds no shell syntax at all, so that blanks alone part its words."""
    return _PLAIN_COMMAND.fullmatch(command) is not None


def resolve_program(word: str, path: str, cwd: str | None) -> str | None:
    """The program that `sh` would start for the first word of a plain command.

    None where the shell would do something else: a builtin, an assignment, nothing found.
    """
    if "=" in word or word in _SHELL_WORDS:
        return None
    if "/" in word:
        full = word if word.startswith("/") or cwd is None else os.path.join(cwd, word)
        return word if _is_program(full) else None
    for folder in path.split(":"):
        if folder.startswith("/") and _is_program(f"{folder}/{word}"):
            return f"{folder}/{word}"
    return None


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


class Launch(NamedTuple):
    """A program to start: its words, its file, its whole environment as `KEY=value`, the folder
    it starts in (None: ours), and the open files for its stdout and stderr.
    """

    argv: Sequence[bytes]
    program: bytes
    env: Sequence[bytes]
    cwd: str | None
    stdout: int
    stderr: int


class Spawner:
    """Starts processes, each in a session and group of its own.

    Uses the standard library's own fork and exec (vfork where Python has it): half the
    cost of `subprocess.Popen`, which is the fallback. Error reports of the child come back
    through one pipe that is kept open.
    """

    def __init__(self) -> None:
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._report, self._report_in = os.pipe()
        os.set_blocking(self._report, False)
        self._start: Callable[..., int] = self._start_directly
        self._tail: tuple[Any, ...] = ()
        try:
            from _posixsubprocess import fork_exec
        except ImportError:
            self._start = self._start_by_popen
            return
        self._fork_exec: Any = fork_exec
        # Python 3.11 to 3.13 take 23 arguments, 3.14 takes 22, 3.9 and 3.10 take 21.
        self._tails: list[tuple[Any, ...]] = [
            (-1, None, None, None, -1, None, True),
            (-1, None, None, None, -1, None),
            (None, None, None, -1, None),
        ]
        self._tail = self._tails[0]
        if IS_PORTABLE:
            self._start = self._start_by_popen

    def start(self, launch: Launch) -> int:
        """The new process's pid.

        Raises OSError with the child's errno where the program could not be started, and
        with `filename` set to `cwd` where that was the reason.
        """
        return self._start(launch)

    def _start_directly(self, launch: Launch) -> int:
        argv, program, env, cwd, stdout, stderr = launch
        try:
            pid: int = self._fork_exec(
                argv, (program,), False, (), cwd, env, self._null, -1, -1, stdout, -1,
                stderr, self._report, self._report_in, True, True, *self._tail,
            )  # fmt: skip
        except TypeError:
            return self._start_otherwise(launch)
        if failure := self.read_failure(cwd, program):
            os.waitpid(pid, 0)
            raise failure
        return pid

    def _start_otherwise(self, launch: Launch) -> int:
        position = self._tails.index(self._tail) + 1
        if position < len(self._tails):
            self._tail = self._tails[position]
        else:
            self._start = self._start_by_popen
        return self._start(launch)

    def read_failure(self, cwd: str | None, program: bytes) -> OSError | None:
        """What a child said before it could become the program; None if nothing.

        Without vfork that may come after the start: ask again for an exit code of 255.
        """
        try:
            report = os.read(self._report, 512)
        except BlockingIOError:
            return None
        _, number, place = report.split(b":", 2)
        code = int(number, 16)
        name = cwd if place.startswith(b"noexec") else os.fsdecode(program)
        return OSError(code, os.strerror(code), name or "")

    def _start_by_popen(self, launch: Launch) -> int:
        pairs = (entry.split(b"=", 1) for entry in launch.env)
        child = subprocess.Popen(
            list(launch.argv),
            executable=launch.program,
            env=dict(pairs),
            cwd=launch.cwd,
            stdin=self._null,
            stdout=launch.stdout,
            stderr=launch.stderr,
            start_new_session=True,
        )
        child.returncode = 0  # it is ours to wait for: keep Popen from doing so
        return child.pid


# --- hearing of ends --------------------------------------------------------------------


class ChildWatcher:
    """Waits for files to become readable and for children to end, in one call.

    On Linux by pidfd in epoll; elsewhere, and on kernels before 5.3, by SIGCHLD. Every child
    that ended is to be reaped by `reap`.
    """

    def __init__(self) -> None:
        self._by_pidfd = not IS_PORTABLE and _has_pidfd()
        self._pidfds: dict[int, int] = {}
        self._pids: set[int] = set()
        self._reaped: dict[int, tuple[int, Any]] = {}
        # Any signal ends a wait: Python alone would go on waiting after its handler.
        self._wake, wake_in = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_in, False)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        if self._by_pidfd:
            self._epoll = select.epoll()
        else:
            self._poll = select.poll()
            signal.signal(signal.SIGCHLD, lambda *_: None)
        self.add_file(self._wake)

    def add_file(self, fd: int) -> None:
        """Tell when `fd` can be read, or its other end is closed."""
        if self._by_pidfd:
            self._epoll.register(fd, select.EPOLLIN)
        else:
            self._poll.register(fd, select.POLLIN)

    def remove_file(self, fd: int) -> None:
        """No longer tell of `fd`."""
        if self._by_pidfd:
            self._epoll.unregister(fd)
        else:
            self._poll.unregister(fd)

    def add_child(self, pid: int) -> None:
        """Tell when the child `pid` has ended."""
        self._pids.add(pid)
        if self._by_pidfd:
            pidfd = os.pidfd_open(pid)
            self._pidfds[pidfd] = pid
            self._epoll.register(pidfd, select.EPOLLIN)

    def wait(self, timeout_s: float | None) -> tuple[list[int], list[int]]:
        """(children that ended, files to read); both empty after `timeout_s`."""
        if not self._by_pidfd:
            return self._wait_for_signal(timeout_s)
        ended, files = [], []
        for fd, _ in self._epoll.poll(-1 if timeout_s is None else timeout_s):
            pid = self._pidfds.pop(fd, None)
            if pid is None:
                files.append(fd)
                continue
            # Unregister before closing: the child's copy of the descriptor, held until
            # its exec, would otherwise keep the event alive.
            self._epoll.unregister(fd)
            os.close(fd)
            self._pids.discard(pid)
            ended.append(pid)
        self._drain(files)
        return ended, files

    def _drain(self, files: list[int]) -> None:
        if self._wake in files:
            files.remove(self._wake)
            os.read(self._wake, 4096)

    def _wait_for_signal(self, timeout_s: float | None) -> tuple[list[int], list[int]]:
        ended = self._list_ended()
        if ended:
            timeout_s = 0
        milliseconds = None if timeout_s is None else int(timeout_s * 1000) + 1
        files = [fd for fd, _ in self._poll.poll(milliseconds)]
        self._drain(files)
        return ended + self._list_ended(), files

    def reap(self, pid: int) -> tuple[int, Any]:
        """(wait status, resource usage) of a child that `wait` told of; its pid is free then."""
        if pid in self._reaped:
            return self._reaped.pop(pid)
        _, status, usage = os.wait4(pid, 0)
        return status, usage

    def _list_ended(self) -> list[int]:
        """Ended children. macOS cannot look without reaping, so it is done at once."""
        for pid in self._pids:
            found, status, usage = os.wait4(pid, os.WNOHANG)
            if found:
                self._reaped[pid] = (status, usage)
        ended = [pid for pid in self._reaped if pid in self._pids]
        self._pids.difference_update(ended)
        return ended


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


# --- ending -----------------------------------------------------------------------------


def end_group(pid: int, number: int) -> bool:
    """Send a signal to the group of `pid`; False where there is none any more."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


class ProcessEntry(NamedTuple):
    """One process of this machine; `start_ticks` is its start in clock ticks since boot."""

    pid: int
    parent: int
    session: int
    start_ticks: int


def list_processes() -> list[ProcessEntry]:
    """Every process that can be seen; zombies are left out."""
    if IS_PORTABLE:
        return _list_by_ps()
    entries = []
    for name in os.listdir("/proc"):
        if name.isdigit() and (entry := read_process(int(name))):
            entries.append(entry)
    return entries


def read_process(pid: int) -> ProcessEntry | None:
    """One process; None where it has ended, or cannot be looked at."""
    fields = _read_stat(pid)
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return ProcessEntry(pid, int(fields[1]), int(fields[3]), int(fields[19]))


def _read_stat(pid: int) -> list[bytes]:
    """What the kernel says of a process, from its state on; nothing where it cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The program's name stands in brackets and may hold anything, brackets too.
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def is_running(pid: int, start_ticks: int) -> bool:
    """Whether the process that began then, by its `ProcessEntry`, still runs."""
    if not os.path.exists("/proc/self/stat"):
        try:
            os.kill(pid, 0)
        except OSError as error:
            return error.errno == errno.EPERM
        return True
    found = read_process(pid)
    return found is not None and found.start_ticks == start_ticks


def read_pid_namespace() -> str:
    """Within what pids of this process mean what they say; empty where that is not to be known."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def is_stopped(pid: int) -> bool:
    """Whether a signal stopped the process, which goes on when another tells it to."""
    return _read_stat(pid)[:1] in ([b"T"], [b"t"])


def _list_by_ps() -> list[ProcessEntry]:
    columns = "pid=,ppid=,sess=,stat="
    with subprocess.Popen(["ps", "-A", "-o", columns], stdout=subprocess.PIPE, text=True) as lister:
        shown = lister.communicate()[0]
    rows = (line.split() for line in shown.splitlines())
    return [
        ProcessEntry(int(row[0]), int(row[1]), int(row[2], 16 if "x" in row[2] else 10), 0)
        for row in rows
        if len(row) == 4 and not row[3].startswith("Z") and int(row[0]) != lister.pid
    ]


def list_marked(variable: str, value: str, also: Mapping[str, str] | None = None) -> list[int]:
    """Processes of ours whose environment, as it was at their start, says `variable=value`.

    `also`: further variables that must be there too. Without /proc: none.
    """
    wanted = [f"{key}={text}".encode() for key, text in {variable: value, **(also or {})}.items()]
    if IS_PORTABLE and not os.path.exists("/proc/self/environ"):
        return []
    marked = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        entries = _read_environment(int(name))
        if all(entry in entries for entry in wanted) and read_process(int(name)):
            marked.append(int(name))
    return marked


def _read_environment(pid: int) -> list[bytes]:
    """`NAME=value` of each variable as at the start of a process; nothing where it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def list_below(roots: Collection[int], variable: str, value: str) -> list[ProcessEntry]:
    """Descendants of processes, whatever their environment and session.

    But for those whose environment says another value of the variable, and what is below them.
    """
    children: dict[int, list[ProcessEntry]] = {}
    for entry in list_processes():
        children.setdefault(entry.parent, []).append(entry)
    found: list[ProcessEntry] = []
    waiting = [entry for root in roots for entry in children.get(root, ())]
    while waiting:
        entry = waiting.pop()
        if not is_marked_otherwise(entry.pid, variable, value):
            found.append(entry)
            waiting += children.get(entry.pid, ())
    return found


def is_marked_otherwise(pid: int, variable: str, value: str) -> bool:
    """Whether the environment of a process says another value of the variable."""
    prefix = f"{variable}=".encode()
    marks = [entry for entry in _read_environment(pid) if entry.startswith(prefix)]
    return bool(marks) and marks[0] != f"{variable}={value}".encode()


def list_children() -> set[int]:
    """Our children, orphans that came to us among them; none where the kernel does not tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return set(map(int, file.read().split()))
    except OSError:
        return set()


def become_subreaper() -> bool:
    """Let orphans below this process become its children; False where that is not to be had."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def reap_strangers(known: set[int]) -> int:
    """Reap children that ended and are not in `known`; how many there were.

    Looks with WNOWAIT first, so that no exit status that somebody waits for is taken.
    """
    reaped = 0
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while True:
        try:
            seen = os.waitid(os.P_ALL, 0, options)
        except (ChildProcessError, AttributeError):
            return reaped
        if seen is None or seen.si_pid in known:
            return reaped
        os.waitpid(seen.si_pid, os.WNOHANG)
        reaped += 1


def sync_filesystem(fd: int) -> None:
    """Write out all that the file system of `fd` holds in memory; all of them without syncfs."""
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) == 0:
            return
        number = ctypes.get_errno()
        if number in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise OSError(number, os.strerror(number))
    except AttributeError:
        pass
    os.sync()
