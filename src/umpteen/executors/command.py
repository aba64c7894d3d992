"""Runs the commands of a backend, with a limit of time; one that finds it busy is run again."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from umpteen.errors import BackendError

__all__ = ["Answer", "Commands", "refuse"]

_LIMIT_S = 60.0
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # before each further try
_SAID_LINES = 10
_TIMED_OUT = 124  # as of the program `timeout`


class Answer(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    said: str  # on stderr


class Commands:
    """Those of one backend.

    is_transient: whether what a command said means that it may be answered later. hint: what to
    do where there is no such command.
    """

    def __init__(self, is_transient: Callable[[str], bool], hint: str) -> None:
        self._is_transient, self._hint = is_transient, hint

    def run(
        self,
        command: Sequence[str],
        *,
        given: str = "",
        environment: Mapping[str, str] | None = None,
        is_patient: bool = True,
        is_undone: Callable[[], bool] = lambda: True,
    ) -> Answer:
        """Run it to its end, whatever its exit code; again where the backend is busy.

        given: on its stdin. is_patient: whether it is tried again at all. is_undone: asked after
        each try that was not answered, which may have done its work all the same; then it is not
        made again. Raises BackendError where there is no such command, and
        a transient one where the backend stays busy.
        """
        pauses = list(_PAUSES_S) if is_patient else []
        while True:
            answer = self._run_once(command, given, environment)
            if answer.code == 0 or not self._is_transient(answer.said):
                return answer
            is_last = not pauses
            time.sleep(0 if is_last else pauses.pop(0))
            if not is_undone():
                return answer
            if is_last:
                raise refuse(command, answer, transient=True)

    def _run_once(
        self, command: Sequence[str], given: str, environment: Mapping[str, str] | None
    ) -> Answer:
        try:
            done = subprocess.run(
                command,
                input=given.encode(),
                env=environment,
                capture_output=True,
                timeout=_LIMIT_S,
                check=False,
            )
        except FileNotFoundError as error:
            raise BackendError(f"there is no {command[0]} here", self._hint) from error
        except OSError as error:
            raise BackendError(f"cannot start {command[0]}: {error.strerror}") from error
        except subprocess.TimeoutExpired:
            return Answer(_TIMED_OUT, "", f"{command[0]} timed out after {_LIMIT_S:g} s")
        return Answer(
            done.returncode, done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )  # fmt: skip


def refuse(
    command: Sequence[str], answer: Answer, hint: str | None = None, *, transient: bool = False
) -> BackendError:
    """The error to raise where a command did not do it: in its own words."""
    lines = [line.strip() for line in answer.said.splitlines() if line.strip()]
    prefix = f"{command[0]}: error: "
    words = "; ".join(line.removeprefix(prefix) for line in lines[-_SAID_LINES:])
    return BackendError(
        f"{command[0]}: {words or f'exit code {answer.code}'}",
        hint,
        transient=transient,
        command=shlex.join(command),
        returned=answer.code,
        last_lines="\n".join(lines[-_SAID_LINES:]) or None,
    )
