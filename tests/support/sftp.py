"""A real SSH server for SFTP, on a port of its own, with keys of its own."""

from __future__ import annotations

import getpass
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.server import find_port, is_open, start_server, stop_server
from tests.support.wait import wait_until

__all__ = ["Sftp", "SftpServer", "Ssh"]

_CONFIG = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
Subsystem sftp internal-sftp
"""
_CLIENT = """Host there
HostName 127.0.0.1
Port {server.port}
User {server.user}
IdentityFile {server.folder}/user_key
IdentitiesOnly yes
UserKnownHostsFile {server.folder}/known_hosts
"""


@dataclass(frozen=True)
class Sftp:
    """An empty folder on the server, and who may use it."""

    port: int
    user: str
    folder: Path
    keys: Path

    @property
    def address(self) -> str:
        """The address of a store in the folder."""
        return f"sftp://{self.user}@127.0.0.1:{self.port}{self.folder}/job"

    @property
    def options(self) -> dict[str, Any]:
        """What a store is opened with."""
        return {
            "client_keys": [str(self.keys / "user_key")],
            "known_hosts": str(self.keys / "known_hosts"),
        }


@dataclass(frozen=True)
class Ssh:
    """An empty folder on the same server, for OpenSSH with a config of the tests' own."""

    sftp: Sftp
    host: str = "there"  # an alias

    @property
    def address(self) -> str:
        """The address of a store in the folder."""
        return f"ssh://{self.host}{self.sftp.folder}/job"

    @property
    def environment(self) -> dict[str, str]:
        """What has ssh use that config."""
        return {"UMPTEEN_SSH": f"ssh -F {self.sftp.keys}/config"}

    @property
    def options(self) -> dict[str, Any]:
        """What a store is opened with: nothing, as the config says all."""
        return {}


class SftpServer:
    """The running server; a context manager. settings: further lines of its sshd_config."""

    def __init__(self, folder: Path, program: str, settings: str = "") -> None:
        self.folder, self.program, self.settings = folder, program, settings
        self.port = find_port()
        self.user = getpass.getuser()

    def __enter__(self) -> Self:
        for name in ("host_key", "user_key"):
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(key, check=True)
        public = (self.folder / "user_key.pub").read_bytes()
        (self.folder / "authorized_keys").write_bytes(public)
        host_key = (self.folder / "host_key.pub").read_text()
        for port in (self.port, "*"):  # also through a proxy on another port
            with (self.folder / "known_hosts").open("a") as file:
                file.write(f"[127.0.0.1]:{port} {host_key}")
        (self.folder / "config").write_text(_CLIENT.format(server=self))
        config = self.folder / "sshd_config"
        config.write_text(_CONFIG.format(port=self.port, folder=self.folder) + self.settings)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        command = [self.program, "-D", "-e", "-f", str(config)]
        self.server = start_server(command, self.folder / "sshd.out")
        wait_until(lambda: is_open(self.port), 20)
        return self

    def __exit__(self, *_: object) -> None:
        stop_server(self.server)
