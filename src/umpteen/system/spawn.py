"""Starts programs, as fast as this system allows."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Optional

from umpteen.errors import BackendError
from umpteen.system.host import IS_PORTABLE

__all__ = ["Launch", "Spawner", "explain_shortage"]


class Launch(NamedTuple):
    """A program to start."""

    argv: Sequence[bytes]
    program: bytes  # its file
    env: Sequence[bytes]  # all that it finds, each `KEY=value`
    cwd: str | None  # None: the folder that we are in
    stdout: int
    stderr: int


class Spawner:
    """Starts processes, each in a session and group of its own.

    By the standard library's own fork and exec where that can be had, which takes half the time
    of `subprocess.Popen`; else by that.
    """

    def __init__(self) -> None:
        self._null = os.open(os.devnull, os.O_RDONLY)
        # One pipe for the error reports of all children, where Popen makes one for each.
        self._report, self._report_in = os.pipe()
        os.set_blocking(self._report, False)
        self._fork_exec = None if IS_PORTABLE else _find_fork_exec()

    def start(self, launch: Launch) -> int:
        """The new process's pid.

        Raises OSError with the child's errno where the program could not be started, and
        with `filename` set to `cwd` where that was the reason.
        """
        if self._fork_exec is None:
            return self._start_by_popen(launch)
        argv, program, env, cwd, stdout, stderr = launch
        fork_exec, tail = self._fork_exec
        try:
            pid: int = fork_exec(
                argv, (program,), False, (), cwd, env, self._null, -1, -1, stdout, -1,
                stderr, self._report, self._report_in, True, True, *tail,
            )  # fmt: skip
        except TypeError:  # of a Python that takes other arguments
            self._fork_exec = None
            return self._start_by_popen(launch)
        if failure := self.read_failure(cwd, program):
            os.waitpid(pid, 0)
            raise failure
        return pid

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
        child.returncode = 0  # ChildWatcher waits for it: keep Popen from doing so
        return child.pid


_ForkExec = tuple[Callable[..., int], tuple[Any, ...]]


def _find_fork_exec() -> Optional[_ForkExec]:  # noqa: UP045 -- Python 3.9
    """`_posixsubprocess.fork_exec`, which Popen itself calls, and its last arguments.

    It is private, and each Python has its own number of arguments: where they are not as here,
    it raises TypeError before anything is started. With vfork where Python has that. None where
    there is no such function.
    """
    try:
        from _posixsubprocess import fork_exec
    except ImportError:
        return None
    if sys.version_info < (3, 11):  # no process group, no vfork
        return fork_exec, (None, None, None, -1, None)
    if sys.version_info < (3, 14):
        return fork_exec, (-1, None, None, None, -1, None, True)
    return fork_exec, (-1, None, None, None, -1, None)


def explain_shortage(error: Exception) -> BackendError | None:
    """What to say where the system has no more of something; None where it is another error.

    Python raises a RuntimeError for threads, which only its text tells from others.
    """
    if isinstance(error, MemoryError):
        return BackendError("there is too little memory for that", "end other programs")
    is_fork = isinstance(error, OSError) and error.errno == errno.EAGAIN and not error.filename
    if is_fork or (isinstance(error, RuntimeError) and "can't start new thread" in str(error)):
        return BackendError(
            "the system lets this user start no more processes and threads",
            "end others, or raise the limit: ulimit -u shows it",
        )
    return None
