"""Runs the commands of a backend, with a limit of time; one that finds it busy is run again.

Here, or on a host behind ssh.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence

from umpteen.errors import BackendError
from umpteen.system.commands import TIMED_OUT, Answer, run_here, say_late
from umpteen.system.openssh import Destination, HostError, connect

__all__ = ["Commands", "Variables", "refuse"]

_LIMIT_S = 60.0
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # before each further try
_SAID_LINES = 10
_LOST = 255  # as of the program `ssh`
_PREFIX = re.compile(r"^[\w-]+: error: ")  # of Slurm's commands

# Variables that a command finds in its environment, or (None) does not.
Variables = Mapping[str, str | None]


class Commands:
    """Those of one backend.

    is_transient: whether what a command said means that it may be answered later. hint: what to
    do where there is no such command. host: where they are run; None: here.
    """

    def __init__(
        self, is_transient: Callable[[str], bool], hint: str, host: Destination | None = None
    ) -> None:
        self._is_transient, self._hint, self._host = is_transient, hint, host

    def run(
        self,
        command: Sequence[str],
        *,
        given: str = "",
        environment: Variables | None = None,
        is_patient: bool = True,
        is_undone: Callable[[], bool] = lambda: True,
        gives_up_on: Callable[[str], bool] = lambda _: False,
    ) -> Answer:
        """Run it to its end, whatever its exit code; again where the backend is busy.

        given: on its stdin. environment: what it finds beside what there is. is_patient: whether
        it is tried again and again, or once. is_undone: asked after each try that was not answered,
        which may have done its work all the same; then it is not made again. gives_up_on: what it
        says where it is of no use to try again within seconds.
        Raises BackendError where there is no such command, a transient one where the backend
        stays busy.
        """
        pauses = list(_PAUSES_S if is_patient else _PAUSES_S[:1])
        while True:
            answer = self._run_once(command, given.encode(), environment or {})
            if answer.code == 0 or gives_up_on(answer.said):
                return answer
            if not (answer.is_lost or self._is_transient(answer.said)):
                return answer
            is_last = not pauses
            time.sleep(0 if is_last else pauses.pop(0))
            if not is_undone():
                return answer
            if is_last:
                raise refuse(command, answer, transient=True)

    def _run_once(self, command: Sequence[str], given: bytes, variables: Variables) -> Answer:
        where = f"on {self._host}" if self._host else "here"
        try:
            if self._host:
                return _run_there(self._host, command, given, variables)
            both = {**os.environ, **variables}
            environment = {name: value for name, value in both.items() if value is not None}
            return run_here(command, given, environment, _LIMIT_S)
        except FileNotFoundError as error:
            raise BackendError(f"there is no {command[0]} {where}", self._hint) from error
        except OSError as error:
            reason = f"cannot start {command[0]} {where}: {error.strerror}"
            raise BackendError(reason) from error


def _run_there(
    host: Destination, command: Sequence[str], given: bytes, variables: Variables
) -> Answer:
    try:
        answer = Answer(*connect(host).run(command, given, variables, _LIMIT_S))
    except HostError as error:
        if error.is_transient:
            return Answer(_LOST, "", error.reason, is_lost=True)
        raise BackendError(error.reason, error.hint) from error
    return say_late(command, answer.said, _LIMIT_S) if answer.code == TIMED_OUT else answer


def refuse(
    command: Sequence[str], answer: Answer, hint: str | None = None, *, transient: bool = False
) -> BackendError:
    """The error to raise where a command did not do it: in its own words."""
    lines = [line.strip() for line in answer.said.splitlines() if line.strip()]
    words = "; ".join(_PREFIX.sub("", line) for line in lines[-_SAID_LINES:])
    return BackendError(
        f"{command[0]}: {words or f'exit code {answer.code}'}",
        hint,
        transient=transient,
        command=shlex.join(command),
        returned=answer.code,
        last_lines="\n".join(lines[-_SAID_LINES:]) or None,
    )
