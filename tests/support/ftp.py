"""A real FTP server, pyftpdlib, for whoever logs in without a name. Run as a program, it serves."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.server import find_port, is_open, start_server, stop_server
from tests.support.wait import wait_until

__all__ = ["Ftp", "FtpServer"]


@dataclass(frozen=True)
class Ftp:
    """A folder there; `path` is where it is on this machine."""

    port: int
    path: Path

    @property
    def address(self) -> str:
        """The address of a store in the folder."""
        return f"ftp://127.0.0.1:{self.port}/{self.path.name}/job"


class FtpServer:
    """The running server; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, find_port()
        self.server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        (self.folder / "served").mkdir()
        command = [sys.executable, "-W", "ignore", "-m", __name__, str(self.folder / "served")]
        self.server = start_server([*command, str(self.port)], self.folder / "log")
        wait_until(lambda: is_open(self.port), 30)
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server is not None
        stop_server(self.server)

    def make_folder(self, name: str) -> Ftp:
        """A new folder."""
        path = self.folder / "served" / name
        path.mkdir()
        return Ftp(self.port, path)


def serve(folder: str, port: int) -> None:
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import ThreadedFTPServer

    FTPHandler.authorizer = DummyAuthorizer()
    FTPHandler.authorizer.add_anonymous(folder, perm="elradfmwMT")
    ThreadedFTPServer(("127.0.0.1", port), FTPHandler).serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
