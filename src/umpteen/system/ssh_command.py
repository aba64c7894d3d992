"""How ssh is called: as the user's config has it, and where that is silent, as we need it.

UMPTEEN_SSH says what is called: `ssh -F other_config`. Standard library alone.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from umpteen.model.variables import SSH
from umpteen.system.ssh_failures import HostError, explain_failure

__all__ = [
    "ANY_LOGIN",
    "CONNECT_S",
    "Destination",
    "Login",
    "ask_nothing",
    "build_command",
    "parse_destination",
]

CONNECT_S, _SILENT_S, _ALIVES = 15, 45, 3  # where the user's config says nothing
_PERSIST_S = 600
# What a shell would read in a ProxyCommand of the user's config, and what no program can be given.
_NEVER = r"\s\x00-\x1f\x7f\ud800-\udfff\"'`$;&<>|(){}"
_DESTINATION = re.compile(
    rf"(?:(?P<user>[^@/{_NEVER}]+)@)?"
    rf"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^@:/\[\]\\{_NEVER}]+)(?::(?P<port>[0-9]{{1,5}}))?"
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
    python: str = "python3"  # there: on the PATH, or its path
    is_quiet: bool = False  # nothing is asked at the terminal


ANY_LOGIN = Login()


def build_command(destination: Destination, login: Login = ANY_LOGIN) -> list[str]:
    """How ssh is called: as the user's config has it, and where it is silent, as we need it.

    Raises HostError where ssh is not there, or does not take the config.
    """
    command = shlex.split(os.environ.get(SSH) or "ssh")
    if login.identity_file:
        command += ["-i", os.path.expanduser(login.identity_file)]
    # Before BatchMode, with which Debian's ssh says what nobody has written.
    said = _read_config([*command, "-G", *destination.arguments()], str(destination))
    if _asks_nothing or login.is_quiet:
        command += ["-o", "BatchMode=yes"]
    if login.connect_s or said.get("connecttimeout", "none") in ("none", "0"):
        command += ["-o", f"ConnectTimeout={_in_seconds(login.connect_s or CONNECT_S)}"]
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


def _in_seconds(seconds: float) -> int:
    return max(1, round(seconds))


def _read_config(command: Sequence[str], host: str) -> dict[str, str]:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CONNECT_S, check=False
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
