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
import re
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple, Optional

from umpteen.model.variables import RUNNER, SSH
from umpteen.system.host_agent import PART_BYTES, SIGN
from umpteen.system.ssh_failures import HostError, explain_failure

__all__ = [
    "Answer",
    "Destination",
    "HostConnection",
    "HostError",
    "Login",
    "ask_nothing",
    "connect",
    "parse_destination",
]

_CONNECT_S, _SILENT_S, _ALIVES = 15, 45, 3  # where the user's config says nothing
_LOGIN_S = 120.0  # for a second factor
_HELLO_S = 60.0  # that a login shell takes on a busy machine
_PERSIST_S = 600
_END_S = 5.0  # from its last word to its end
_SAID_BYTES = 8000
_BANNER_BYTES = 1 << 20
_BODY_BYTES = 2 * PART_BYTES
# What a shell would read in a ProxyCommand of the user's config, and what no program can be given.
_NEVER = r"\s\x00-\x1f\x7f\ud800-\udfff\"'`$;&<>|(){}"
_DESTINATION = re.compile(
    rf"(?:(?P<user>[^@/{_NEVER}]+)@)?"
    rf"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^@:/\[\]\\{_NEVER}]+)(?::(?P<port>[0-9]{{1,5}}))?"
)
_AGENT = (
    "exec bash -lc 'exec python3 -c "
    '"import sys; r = sys.stdin.buffer; exec(r.read(int(r.readline())))"\''
)


class Destination(NamedTuple):
    """Where ssh is to go, as the user wrote it; what is empty the config says."""

    host: str
    user: str = ""
    port: str = ""

    def __str__(self) -> str:
        return (f"{self.user}@" if self.user else "") + self.name

    @property
    def name(self) -> str:
        """Without who logs in."""
        return self.host + (f":{self.port}" if self.port else "")

    def arguments(self) -> list[str]:
        """For the command line of ssh, at its end."""
        port = ["-p", self.port] if self.port else []
        user = ["-l", self.user] if self.user else []
        return [*port, *user, "--", self.host.strip("[]")]


def parse_destination(text: str) -> Destination | None:
    """`[user@]host[:port]`; None where it is none, as with what ssh would take for an option."""
    found = _DESTINATION.fullmatch(text)
    if not found or found["host"].startswith("-") or (found["user"] or "").startswith("-"):
        return None
    return Destination(found["host"], found["user"] or "", found["port"] or "")


class Login(NamedTuple):
    """What the results' options say of a login; what is empty the user's config says."""

    identity_file: str = ""  # path of a private key
    connect_s: float = 0
    silent_s: float = 0  # without an answer, and the connection is lost


_ANY_LOGIN = Login()


class Answer(NamedTuple):
    """What the agent found: a value, or bytes."""

    found: Any
    content: bytes


class HostConnection:
    """A login, and an agent there. May be used by several threads."""

    def __init__(self, destination: Destination, login: Login = _ANY_LOGIN) -> None:
        """Log in. Raises HostError."""
        self.destination = destination
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- as long as we
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, concurrent.futures.Future[Answer]] = {}
        self._lost: HostError | None = None
        self.heard_s = time.monotonic()  # when the last answer came
        command = build_command(destination, login)
        self._log_in(command)
        self._process = self._start([*command, "-T", *destination.arguments(), _AGENT])
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
            request = {"id": number, "call": call, "given": given, "size": len(body)}
            try:
                self._send(json.dumps(request).encode() + b"\n" + body)
            except OSError:
                del self._waiting[number]
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
            raise HostError(f"{self.destination} answers what cannot be") from None

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
        if self._call([*command, "-O", "check", *target], _CONNECT_S) == 0:
            self._forget_said()  # that there is one
            return
        code = self._call([*command, "-T", *target, "exit 0"], _LOGIN_S)
        if code:
            with self._said:
                raise self._explain(code)

    def _call(self, command: Sequence[str], limit_s: float) -> int:
        self._forget_said()
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said,
                timeout=limit_s, check=False, env=_environment(),
            ).returncode  # fmt: skip
        except FileNotFoundError:
            raise HostError(f"there is no {command[0]} here", "install OpenSSH") from None
        except subprocess.TimeoutExpired:
            raise self._explain(124) from None

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """In a session of its own, as Ctrl-C is for us."""
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
            start_new_session=True, env=_environment(),
        )  # fmt: skip

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
        pipe.write(content)
        pipe.flush()

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
        except (ValueError, KeyError, TypeError):
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
        try:
            while line := source.readline(_BODY_BYTES * 64):
                told = json.loads(line)
                size = int(told["size"])
                if not 0 <= size <= _BODY_BYTES:
                    break
                content = source.read(size)
                if len(content) < size:
                    break
                self._take(told, content)
        except Exception:  # whatever a host sends: who waits is told that nothing more comes
            pass
        self._process.kill()  # first, as somebody who sends may have the lock
        with self._lock:
            lost = self._note_loss()
            waiting, self._waiting = self._waiting, {}
            self._end()
        for answer in waiting.values():
            if answer.set_running_or_notify_cancel():
                answer.set_exception(lost)

    def _take(self, told: Mapping[str, Any], content: bytes) -> None:
        self.heard_s = time.monotonic()
        number = int(told["id"])
        failure = OSError(int(told["errno"]), str(told.get("reason"))) if "errno" in told else None
        with self._lock:
            answer = self._waiting.pop(number, None)
        if answer is None or not answer.set_running_or_notify_cancel():
            return
        if failure:
            answer.set_exception(failure)
        else:
            answer.set_result(Answer(told.get("found"), content))

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


def build_command(destination: Destination, login: Login = _ANY_LOGIN) -> list[str]:
    """How ssh is called: as the user's config has it, and where it is silent, as we need it.

    Raises HostError where ssh is not there, or does not take the config.
    """
    command = shlex.split(os.environ.get(SSH) or "ssh")
    if _asks_nothing:
        command += ["-o", "BatchMode=yes"]
    if login.identity_file:
        command += ["-i", os.path.expanduser(login.identity_file)]
    said = _read_config([*command, "-G", *destination.arguments()], str(destination))
    if login.connect_s or said.get("connecttimeout", "none") in ("none", "0"):
        command += ["-o", f"ConnectTimeout={_in_seconds(login.connect_s or _CONNECT_S)}"]
    if login.silent_s or said.get("serveraliveinterval", "0") == "0":
        alive_s = (login.silent_s or _SILENT_S) / _ALIVES
        command += ["-o", f"ServerAliveInterval={_in_seconds(alive_s)}"]
        command += ["-o", f"ServerAliveCountMax={_ALIVES}"]
    if said.get("controlpath", "none") == "none" and (folder := _find_sockets()):
        command += ["-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/%C"]
        command += ["-o", f"ControlPersist={_PERSIST_S}"]
    elif said.get("controlmaster", "false") != "false" and said.get("controlpersist") == "no":
        command += ["-o", f"ControlPersist={_PERSIST_S}"]  # else it ends with the login itself
    return command


_asks_nothing = False


def ask_nothing() -> None:
    """From now on log in only where that needs no word at the terminal."""
    global _asks_nothing
    _asks_nothing = True


def _environment() -> dict[str, str]:
    """As ours, but marked as no runner's: a runner ends all that is marked as below it at its end.

    It still needs its own connection then, and the login is shared with others.
    """
    return {**os.environ, RUNNER: "ssh"}


def _in_seconds(seconds: float) -> int:
    return max(1, round(seconds))


def _read_config(command: Sequence[str], host: str) -> dict[str, str]:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CONNECT_S, check=False
        )
    except FileNotFoundError:
        raise HostError(f"there is no {command[0]} here", "install OpenSSH") from None
    except subprocess.TimeoutExpired:
        return {}
    if done.returncode:
        raise explain_failure(host, done.returncode, done.stderr.decode(errors="replace"))
    lines = done.stdout.decode(errors="replace").splitlines()
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


def _find_sockets() -> str:
    """A folder of this user's alone for the sockets of logins; empty where none can be made."""
    # Not below TMPDIR, which may be long: the path of a socket has at most about a hundred bytes.
    folder = f"/tmp/umpteen-ssh-{os.getuid()}"
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        found = os.lstat(folder)
    except OSError:
        return ""
    is_ours = found.st_uid == os.getuid() and (found.st_mode & 0o170777) == 0o040700
    return folder if is_ours else ""


_connections: dict[Destination, HostConnection] = {}
_connecting: dict[Destination, threading.Lock] = {}  # one each: a host may be silent for long


def connect(destination: Destination, login: Login = _ANY_LOGIN) -> HostConnection:
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
