"""A host behind ssh, by the user's own OpenSSH: its keys, jump hosts and config are what counts.

All that a process asks of a host goes over one connection, to an agent whose text is sent there.
Several processes share one login, so that a second factor is asked for once: OpenSSH's own
ControlMaster, for ten minutes. UMPTEEN_SSH says how ssh is called: `ssh -F other_config`.
Standard library alone.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import os
import pkgutil
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple, Optional

from umpteen.model.forms import FormError
from umpteen.model.variables import RUNNER
from umpteen.system.host_agent import SIGN
from umpteen.system.ssh_answers import Told, parse_answer, read_line
from umpteen.system.ssh_command import (
    ANY_LOGIN,
    CONNECT_S,
    Destination,
    Login,
    ask_nothing,
    build_command,
    parse_destination,
)
from umpteen.system.ssh_failures import HostError, NonsenseError, explain_failure

__all__ = [
    "Answer",
    "Destination",
    "HostConnection",
    "HostError",
    "Login",
    "NonsenseError",
    "ask_nothing",
    "connect",
    "parse_destination",
]

_LOGIN_S = 120.0  # for a second factor
_HELLO_S = 60.0  # that a login shell takes on a busy machine
_END_S = 5.0  # from its last word to its end
_SAID_BYTES = 8000
_BANNER_BYTES = 1 << 20
_LONG_CALLS = frozenset({"walk", "list_folder", "run"})  # all of a store, or of Slurm's queue
_WATCH_S = 1.0
_SEND_S = 120.0  # for one message to be taken
_SAID_MOST = 1 << 23  # bytes on stderr: a host that says more would fill the disk here
# Nothing of the folder that it begins in comes before the standard library.
_AGENT = (
    "exec {python} -c "
    '"import sys; sys.path[:] = filter(None, sys.path); r = sys.stdin.buffer; '
    'exec(r.read(int(r.readline())))"'
)
# With the variables that a login has there; $0 is what follows.
_LOGIN = 'exec sh -c \'command -v bash >/dev/null 2>&1 && exec bash -lc "$0"; exec sh -lc "$0"\' '


class Answer(NamedTuple):
    """What the agent found: a value, or bytes."""

    found: Any
    content: bytes


class HostConnection:
    """A login, and an agent there. May be used by several threads."""

    def __init__(self, destination: Destination, login: Login = ANY_LOGIN) -> None:
        """Log in. Raises HostError."""
        self.destination = destination
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- as long as we
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, concurrent.futures.Future[Answer]] = {}
        self._long: set[int] = set()  # of these, whose answers may be long
        self._sending_s = 0.0  # since when somebody sends; 0: nobody does
        self._lost: HostError | None = None
        self.heard_s = time.monotonic()  # when the last answer came
        try:
            command = build_command(destination, login)
            self._log_in(command)
        except BaseException:
            self._said.close()
            raise
        agent = _LOGIN + shlex.quote(_AGENT.format(python=shlex.quote(login.python)))
        self._process = self._start([*command, "-T", *destination.arguments(), agent])
        text = pkgutil.get_data("umpteen.system", "host_agent.py") or b""
        with contextlib.suppress(BrokenPipeError):  # the first line, which never comes, says why
            self._send(b"%d\n" % len(text) + text)
        self.home = self._read_hello()
        threading.Thread(target=self._read_answers, name="umpteen-ssh", daemon=True).start()

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be asked through it any more."""
        return self._lost is not None

    def ask(self, call: str, body: bytes = b"", **given: Any) -> concurrent.futures.Future[Answer]:
        """Have the agent make a call of its own, by name.

        Its answer, when it comes; OSError where the call failed there, HostError where the
        connection was lost.
        """
        answer: concurrent.futures.Future[Answer] = concurrent.futures.Future()
        with self._lock:
            if self._lost:
                raise self._lost
            number = next(self._numbers)
            self._waiting[number] = answer
            if call in _LONG_CALLS:
                self._long.add(number)
            request = {"id": number, "call": call, "given": given, "size": len(body)}
            try:
                self._send(json.dumps(request).encode() + b"\n" + body)
            except OSError:
                del self._waiting[number]
                self._long.discard(number)
                raise self._note_loss() from None
            except BaseException:  # half a message: the next would be taken for its end
                self._note_loss()
                self._process.kill()
                raise
        return answer

    def run(
        self,
        words: Sequence[str],
        given: bytes,
        environment: Mapping[str, Optional[str]],  # noqa: UP045 -- Python 3.9
        limit_s: float,
    ) -> tuple[int, str, str]:
        """A command there, to its end: exit code, stdout, stderr. Raises OSError, HostError.

        environment: what it finds beside what a login has there; None: it does not find that.
        """
        asked = self.ask(
            "run", given, words=list(words), environment=dict(environment), limit_s=limit_s
        )
        try:
            found = asked.result(limit_s + _HELLO_S).found
            return int(found["code"]), str(found["out"]), str(found["said"])
        except concurrent.futures.TimeoutError:
            self.drop()
            raise _say_silent(self.destination) from None
        except (KeyError, TypeError, ValueError, OverflowError):
            raise NonsenseError(str(self.destination)) from None

    def drop(self) -> None:
        """End it, so that who asks next gets another."""
        self._process.kill()  # first, as somebody who sends may have the lock
        with self._lock:
            self._note_loss()

    def close(self) -> None:
        """Have the agent end. The login stays for a while, for whoever comes next."""
        with contextlib.suppress(OSError):
            self._pipe(self._process.stdin).close()

    # --- the login --------------------------------------------------------------------------

    def _log_in(self, command: Sequence[str]) -> None:
        """With what ssh may ask for at the terminal; once, where processes share it."""
        target = self.destination.arguments()
        if self._call([*command, "-O", "check", *target], CONNECT_S) == 0:
            self._forget_said()  # that there is one
            return
        code = self._call([*command, "-T", *target, "exit 0"], _LOGIN_S)
        if code:
            raise self._explain(code)

    def _call(self, command: Sequence[str], limit_s: float) -> int:
        self._forget_said()
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said,
                env=_environment(),
            )  # fmt: skip
        except FileNotFoundError:
            raise HostError(f"there is no {command[0]} here", "install OpenSSH") from None
        self._watch(process)
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise self._explain(124) from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """In a session of its own, as Ctrl-C is for us."""
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
            start_new_session=True, env=_environment(),
        )  # fmt: skip
        self._watch(process)
        return process

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Kill it where it says far too much on its stderr, or takes no message."""

        def watch() -> None:
            with contextlib.suppress(ValueError):  # it has ended, and the file is closed
                while process.poll() is None:
                    since_s = self._sending_s
                    is_stuck = since_s and time.monotonic() - since_s > _SEND_S
                    if is_stuck or os.fstat(self._said.fileno()).st_size > _SAID_MOST:
                        process.kill()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_WATCH_S)

        threading.Thread(target=watch, name="umpteen-ssh-watch", daemon=True).start()

    def _forget_said(self) -> None:
        self._said.seek(0)
        self._said.truncate()

    def _explain(self, code: int) -> HostError:
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - _SAID_BYTES))  # behind what a host greets with
        said = self._said.read().decode(errors="replace")
        return explain_failure(str(self.destination), code, said)

    # --- messages -----------------------------------------------------------------------------

    def _send(self, content: bytes) -> None:
        pipe = self._pipe(self._process.stdin)
        self._sending_s = time.monotonic()
        try:
            pipe.write(content)
            pipe.flush()
        finally:
            self._sending_s = 0.0

    def _pipe(self, pipe: Optional[IO[bytes]]) -> IO[bytes]:  # noqa: UP045 -- Python 3.9
        assert pipe is not None
        return pipe

    def _read_hello(self) -> str:
        """The home folder there, from the agent's first line, behind what a login shell prints."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(_HELLO_S, give_up)
        timer.daemon = True  # the program may end meanwhile
        timer.start()
        try:
            source, read = self._pipe(self._process.stdout), 0
            while line := source.readline(_BANNER_BYTES):
                read += len(line)
                if line.startswith(SIGN.encode()):
                    return _read_home(json.loads(line[len(SIGN) :]))
                if read > _BANNER_BYTES:
                    break
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):  # it has its own exit code
                    self._process.wait(_END_S)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        finally:
            timer.cancel()
        code = self._process.poll()
        self._process.kill()
        # That we have killed it is no reason.
        failure = self._explain(0 if code is None else code)
        self._end()
        # A login that other processes made may be dead, which ssh itself finds out in a while.
        raise _say_silent(self.destination) if late.is_set() else failure

    def _read_answers(self) -> None:
        source = self._pipe(self._process.stdout)
        nonsense: Optional[HostError] = None  # noqa: UP045 -- Python 3.9
        try:
            while line := read_line(source, lambda: bool(self._long)):
                told = parse_answer(line)
                content = source.read(told.size)
                if len(content) < told.size:
                    break
                self._take(told, content)
        except OSError:
            pass
        except Exception as error:  # whatever a host sends: who waits is told so
            nonsense = NonsenseError(str(self.destination), str(error))
        self._process.kill()  # first, as somebody who sends may have the lock
        with self._lock:
            self._lost = self._lost or nonsense
            lost = self._note_loss()
            waiting, self._waiting = self._waiting, {}
            self._end()
        for answer in waiting.values():
            if answer.set_running_or_notify_cancel():
                answer.set_exception(lost)

    def _take(self, told: Told, content: bytes) -> None:
        with self._lock:
            answer = self._waiting.pop(told.number, None)
            self._long.discard(told.number)
        if answer is None:
            raise FormError("an answer to what was not asked")
        self.heard_s = time.monotonic()
        if not answer.set_running_or_notify_cancel():
            return
        if told.failure:
            answer.set_exception(told.failure)
        else:
            answer.set_result(Answer(told.found, content))

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._said):
            with contextlib.suppress(OSError):  # what could not be sent any more
                self._pipe(file).close()

    def _note_loss(self) -> HostError:
        if self._lost is None:
            self._lost = HostError(
                f"the connection to {self.destination} was lost",
                "check the network, then run the same command again",
                is_transient=True,
            )
        return self._lost


def _read_home(told: Mapping[str, Any]) -> str:
    home = str(told["home"])
    if not home.startswith("/") or "\0" in home:
        raise ValueError(home)
    home.encode()  # UnicodeError is a ValueError
    return home


def _say_silent(destination: Destination) -> HostError:
    return HostError(
        f"{destination} does not answer", f"check the network, and ssh {destination}",
        is_transient=True,
    )  # fmt: skip


def _environment() -> dict[str, str]:
    """As ours, but marked as no runner's: a runner ends all that is marked as below it at its end.

    It still needs its own connection then, and the login is shared with others.
    """
    return {**os.environ, RUNNER: "ssh"}


_connections: dict[Destination, HostConnection] = {}
_connecting: dict[Destination, threading.Lock] = {}  # one each: a host may be silent for long


def connect(destination: Destination, login: Login = ANY_LOGIN) -> HostConnection:
    """The connection of this process to a host; a new one where there is none, or it was lost.

    Raises HostError.
    """
    with _connecting.setdefault(destination, threading.Lock()):
        found = _connections.get(destination)
        if found is None or found.is_lost:
            found = _connections[destination] = HostConnection(destination, login)
        return found


def _forget_connections() -> None:
    _connecting.clear()
    _connections.clear()


os.register_at_fork(after_in_child=_forget_connections)
