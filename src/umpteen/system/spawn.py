"""Starts programs, as fast as this system allows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from umpteen.system.host import IS_PORTABLE

__all__ = ["Launch", "Spawner"]


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
