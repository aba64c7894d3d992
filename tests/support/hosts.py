"""Real hosts behind ssh, on this machine: each its own network, processes, name and folders.

Needs root. Programs are this machine's, and so are all files outside of the private folders.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.clock import build_clock
from tests.support.network import Network, is_allowed
from tests.support.server import is_open, start_server
from tests.support.wait import wait_until

__all__ = ["PROGRAMS", "Host", "Hosts", "Traits", "are_allowed"]

PROGRAMS = ("sshd", "ssh", "ssh-keygen", "ip", "unshare", "nsenter", "mount")

_ID = 42042  # of the user, on every host; nobody has it on this machine
_PATH = "/usr/local/bin:/usr/bin:/bin"
_PRIVATE = {"/home": "home", "/var/tmp": "var-tmp", "/tmp": "tmp"}  # folders on the host's disk
_CLIENT = """Host *
Port 22
IdentityFile {folder}/user_key
IdentitiesOnly yes
UserKnownHostsFile {folder}/known_hosts
StrictHostKeyChecking yes
ControlMaster auto
ControlPath {sockets}/%C
ControlPersist 60
"""
_CLIENT_OF_HOST = """
Host {name}
HostName {address}
User {user}
"""
_SERVER = """HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
Subsystem sftp internal-sftp
"""
_BANNER = "echo 'Welcome to {name}'\necho 'the disk is nearly full' >&2\n"


@dataclass(frozen=True)
class Traits:
    """How a host is out of the ordinary.

    user: its only user. python: what a login shell finds as python3. banner: shells print lines
    when they start. noexec_tmp: nothing is executed in /tmp and /var/tmp. disk_bytes: the size of
    the disk that has all private folders. without: programs that it has not; without bash the
    user's shell is /bin/sh. clock_s: how far its clock is ahead, for what ssh or `run` starts;
    times of files are right. sees: a folder of this machine that is there, too, at the same path;
    then its user is root, so that he may write there.
    """

    user: str = "tester"
    python: str = ""
    banner: bool = False
    noexec_tmp: bool = False
    disk_bytes: int = 0
    without: tuple[str, ...] = ()
    clock_s: int = 0
    sees: str = ""

    @property
    def user_id(self) -> int:
        """The user's number."""
        return 0 if self.sees else _ID

    @property
    def shell(self) -> str:
        """The user's shell."""
        return "/bin/sh" if "bash" in self.without else "/bin/bash"

    @property
    def environment(self) -> dict[str, str]:
        """What sshd adds to the user's environment."""
        clock = {"LD_PRELOAD": "/etc/ssh/clock.so", "CLOCK_SHIFT_S": str(self.clock_s)}
        return clock if self.clock_s else {}


class Host:
    """One of them; `boot()` it. Files of a halted one stay."""

    def __init__(self, name: str, folder: Path, traits: Traits) -> None:
        self.name, self.folder, self.traits = name, folder, traits
        self.network = Network()
        self.home = f"/home/{traits.user}"
        self._id = traits.user_id
        self._first = 0  # the first process, by its number on this machine
        self._server: subprocess.Popen[bytes] | None = None

    def install(self, key: bytes) -> None:
        """Make its network, its folders and its user, who logs in with a public key."""
        self.network.open()
        disk, etc, ssh = self.folder / "disk", self.folder / "etc", self.folder / "ssh"
        for folder in (disk, etc, ssh):
            folder.mkdir(parents=True)
        if self.traits.disk_bytes:
            size = f"size={self.traits.disk_bytes},mode=755"
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk], check=True)
        for name in _PRIVATE.values():
            (disk / name).mkdir()
            (disk / name).chmod(0o755 if name == "home" else 0o1777)
        self._write_home()
        self._write_etc(etc)
        subprocess.run(_make_key(ssh / "host_key"), check=True)
        (ssh / "authorized_keys").write_bytes(key)
        variables = " ".join(f"{k}={v}" for k, v in self.traits.environment.items())
        config = _SERVER + (f"SetEnv {variables}\n" if variables else "")
        (ssh / "sshd_config").write_text(config)
        if self.traits.clock_s:
            build_clock("cc", ssh / "clock.so")
        (self.folder / "boot.sh").write_text("\n".join(self._list_boot_steps()) + "\n")

    def _write_home(self) -> None:
        home = self.path(self.home)
        home.mkdir()
        banner = _BANNER.format(name=self.name) if self.traits.banner else ""
        profile = banner
        if self.traits.python:
            (home / "bin").mkdir()
            (home / "bin/python3").symlink_to(_find_program(self.traits.python))
            profile += "PATH=$HOME/bin:$PATH\n"
        (home / ".bashrc").write_text(banner)
        (home / ".profile").write_text(profile)
        for path in (home, *home.rglob("*")):
            os.chown(path, self._id, self._id, follow_symlinks=False)

    def _write_etc(self, etc: Path) -> None:
        """The files of /etc that are its own; "*" is a password that nothing fits."""
        user, number = self.traits.user, self._id
        lines = {
            "passwd": f"{user}:x:{number}:{number}::{self.home}:{self.traits.shell}\n",
            "group": f"{user}:x:{number}:\n",
            "shadow": f"{user}:*:19000::::::\n",
        }
        for name, line in lines.items():
            (etc / name).write_text(Path("/etc", name).read_text() + line)
        (etc / "hosts").write_text(f"127.0.0.1 localhost {self.name}\n")
        (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")

    def _list_boot_steps(self) -> Iterator[str]:
        """The first process: a script that becomes sshd."""
        # Paths from here are not looked up again: what they begin with is soon hidden by a mount.
        yield f"set -e\ncd {shlex.quote(str(self.folder))}"
        yield f"echo {self.name} >/proc/sys/kernel/hostname"
        yield "mount -c --bind boot_id /proc/sys/kernel/random/boot_id"
        yield "for file in etc/*; do [ ! -e /$file ] || mount -c --bind $file /$file; done"
        yield "mount -c --bind ssh /etc/ssh"
        yield "mount -t tmpfs -o mode=755 tmpfs /run\nmkdir /run/sshd"
        yield "mount -t tmpfs -o mode=1777 tmpfs /dev/shm"
        seen = shlex.quote(self.traits.sees)
        if self.traits.sees:
            yield f"exec 9<{seen}"
        for path, name in _PRIVATE.items():
            yield f"mount -c --bind disk/{name} {path}"
            if self.traits.noexec_tmp and path != "/home":
                yield f"mount -o remount,bind,noexec {path}"
        if self.traits.sees:
            yield f"mkdir -p {seen}\nmount -c --bind /proc/self/fd/9 {seen}\nexec 9<&-"
        for number, folder in enumerate(sorted({os.path.realpath(p) for p in _PATH.split(":")})):
            names = [name for name in self.traits.without if os.path.lexists(f"{folder}/{name}")]
            if names:  # what an overlay takes for a name that is removed
                yield f"mkdir -p /run/without/{number}"
                yield from (f"mknod /run/without/{number}/{name} c 0 0" for name in names)
                layers = f"lowerdir=/run/without/{number}:{folder}"
                yield f"mount -t overlay -o {layers} overlay {folder}"
        yield f"exec {_find_program('sshd')} -D -e -f /etc/ssh/sshd_config"

    def boot(self) -> None:
        """Start it, with its cable plugged in; ssh is answered when this returns."""
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        separate = ["unshare", "-m", "-u", "-p", "-f", "--kill-child", "--mount-proc"]
        command = [*separate, "/bin/sh", str(self.folder / "boot.sh")]
        self.network.mend()
        server = start_server(self.network.wrap(command), self.folder / "log")
        self._server = server

        def answers() -> bool:
            assert server.poll() is None, (self.folder / "log").read_text()
            return is_open(22, self.network.guest)

        wait_until(answers, 20)
        self._first = int(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text())

    def halt(self) -> None:
        """Cut its power: all its processes die, and who is connected to it is not told."""
        self.network.cut()
        self._kill()

    def close(self) -> None:
        """Remove it; only its files stay, where they are not on a small disk."""
        self._kill()
        self.network.close()
        if (self.folder / "disk").is_mount():
            subprocess.run(["umount", "--lazy", self.folder / "disk"], check=True)

    def _kill(self) -> None:
        """End it by its first process, which ends after all others, and which unshare waits for."""
        if self._server and self._server.poll() is None:
            number = self._first or self._server.pid  # of one that has not answered yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
            self._server.wait(20)
        self._server, self._first = None, 0

    def cut(self) -> None:
        """Pull its cable: nothing gets through, and nobody is told."""
        self.network.cut()

    def mend(self) -> None:
        """Plug it in again."""
        self.network.mend()

    def run(self, command: str) -> str:
        """What a command of /bin/sh prints, run there by the user in his home without ssh."""
        own = {"HOME": self.home, "USER": self.traits.user, "LOGNAME": self.traits.user}
        variables = own | {"SHELL": self.traits.shell, "PATH": _PATH} | self.traits.environment
        done = subprocess.run(
            [
                *("nsenter", "-t", str(self._first), "-m", "-u", "-n", "-p"),
                *("-S", str(self._id), "-G", str(self._id), "/usr/bin/env", "-i", "-C", self.home),
                *(f"{name}={value}" for name, value in variables.items()),
                *("/bin/sh", "-c", command),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stderr}"
        return done.stdout

    def find_processes(self) -> dict[int, str]:
        """The user's processes there, without sshd's: command lines by numbers on this machine."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if path.joinpath("ns/pid").readlink() != self._processes:
                    continue
                status = dict(_read_status(path))
                words = path.joinpath("cmdline").read_bytes().split(b"\0")
                line = b" ".join(words).decode(errors="replace").strip()
                if status["Uid"].split()[0] == str(self._id) and not line.startswith("sshd: "):
                    found[int(path.name)] = line or f"[{status['Name']}]"
        return found

    @property
    def _processes(self) -> Path:
        """What all its processes have in common."""
        return Path(f"/proc/{self._first}/ns/pid").readlink()

    def list_processes(self) -> list[str]:
        """The command lines of the user's processes there, as ps shows them, without sshd's."""
        return list(self.find_processes().values())

    def freeze(self) -> None:
        """Stop all of the user's processes, but not sshd, which also lets new ones in."""

        def stop_all() -> bool:
            running = [pid for pid in self.find_processes() if _state(pid) not in "TZX"]
            for pid in running:
                _signal(pid, signal.SIGSTOP)
            return not running

        wait_until(stop_all)

    def thaw(self) -> None:
        """Have them go on."""
        for pid in self.find_processes():
            _signal(pid, signal.SIGCONT)

    def path(self, path: str) -> Path:
        """Where what is below its /home, /tmp or /var/tmp lies on this machine, halted or not."""
        for top, name in _PRIVATE.items():
            if Path(path).is_relative_to(top):
                return self.folder / "disk" / name / Path(path).relative_to(top)
        message = f"{path} is in no private folder"
        raise ValueError(message)


class Hosts:
    """Hosts that one ssh_config leads to; a context manager. `open` as many as are needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config"
        self._closing = contextlib.ExitStack()

    @property
    def environment(self) -> dict[str, str]:
        """What has umpteen's ssh find them."""
        return {"UMPTEEN_SSH": f"ssh -F {shlex.quote(str(self.config))}"}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sockets = Path(tempfile.mkdtemp(prefix="ssh", dir="/tmp"))  # a short path
        self._closing.callback(shutil.rmtree, self._sockets, ignore_errors=True)
        subprocess.run(_make_key(self.folder / "user_key"), check=True)
        self.config.write_text(_CLIENT.format(folder=self.folder, sockets=self._sockets))
        return self

    def open(self, name: str, **traits: Any) -> Host:
        """A running host that ssh finds by its name; `Traits` has what may be said of it."""
        host = Host(name, self.folder / name, Traits(**traits))
        self._closing.callback(host.close)
        host.install((self.folder / "user_key.pub").read_bytes())
        address, user = host.network.guest, host.traits.user
        key = (host.folder / "ssh/host_key.pub").read_text()
        with (self.folder / "known_hosts").open("a") as file:
            file.write(f"{address} {key}")
        with self.config.open("a") as file:
            file.write(_CLIENT_OF_HOST.format(name=name, address=address, user=user))
        host.boot()
        return host

    def __exit__(self, *_: object) -> None:
        with self._closing:
            for socket in self._sockets.iterdir():  # of logins that are kept open
                end = ["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "exit", "any"]
                with contextlib.suppress(subprocess.TimeoutExpired):
                    subprocess.run(end, capture_output=True, timeout=5, check=False)


@functools.cache
def are_allowed() -> bool:
    """Whether we may make them."""
    command = ["unshare", "-m", "-u", "-p", "-f", "--mount-proc", "true"]
    return is_allowed() and not subprocess.run(command, capture_output=True, check=False).returncode


def _make_key(path: Path) -> list[str]:
    return ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)]


def _find_program(name: str) -> str:
    path = shutil.which(name, path=f"{_PATH}:/usr/sbin:/sbin")
    assert path is not None, name
    return path


def _read_status(process: Path) -> Iterator[tuple[str, str]]:
    """What /proc says of a process, field by field."""
    for line in process.joinpath("status").read_text().splitlines():
        name, _, value = line.partition(":")
        yield name, value.strip()


def _state(pid: int) -> str:
    """Its state by the letter of ps; X where it has ended."""
    try:
        return dict(_read_status(Path(f"/proc/{pid}")))["State"][0]
    except (OSError, KeyError):
        return "X"


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
