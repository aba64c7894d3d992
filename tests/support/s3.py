"""A real S3 server: Ceph's gateway with one monitor, one manager and one store in memory.

Everything it has is in one folder and on ports of its own. What is put there is gone with it.
"""

from __future__ import annotations

import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.server import find_port, is_open, start_server, stop_server
from tests.support.wait import wait_until

__all__ = ["PROGRAMS", "S3", "S3Server"]

PROGRAMS = ("radosgw", "radosgw-admin", "ceph", "ceph-mon", "ceph-mgr", "ceph-osd")
_CONFIG = """[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_port},v1:127.0.0.1:{old_mon_port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = {folder}/keyring
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/$name.log
crash dir = {folder}/run
mon data = {folder}/mon
osd data = {folder}/osd
mgr data = {folder}/mgr
mon allow pool size one = true
paxos propose interval = 0.05
mon cluster log file = {folder}/cluster.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 2147483648
mgr initial modules =
rgw run sync thread = false
rgw crypt require ssl = false
rgw enable ops log = false
rgw enable usage log = false
"""
_CAPABILITIES = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "mgr.x": {"mon": "allow *", "osd": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *", "mgr": "allow profile osd"},
    "client.rgw": {"mon": "allow rw", "osd": "allow rwx"},
}


@dataclass(frozen=True)
class S3:
    """An empty bucket, and who may use it."""

    port: int
    key: str
    secret: str
    bucket: str

    @property
    def endpoint(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        """The address of a store in the bucket."""
        return f"s3://{self.bucket}/results/job"

    @property
    def options(self) -> dict[str, Any]:
        """What a store is opened with."""
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret}

    def through(self, port: int) -> dict[str, Any]:
        """The options where the server is reached through another port."""
        return {**self.options, "endpoint_url": f"http://127.0.0.1:{port}"}


class S3Server:
    """The running server; a context manager."""

    key = secret = "umpteen"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = find_port()
        self.servers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in reversed(self.servers):
            stop_server(server)

    def make_bucket(self, max_bytes: int = 0) -> S3:
        """A new bucket; max_bytes: the quota of a user of its own, who has no other."""
        key = secret = self.key
        if max_bytes:
            key = secret = f"u{uuid.uuid4().hex[:12]}"
            user = f"--uid={key}"
            names = ["--display-name=quota", f"--access-key={key}", f"--secret={secret}"]
            self._ceph("radosgw-admin", "user", "create", user, *names)
            scope = ["--quota-scope=user", user]
            self._ceph("radosgw-admin", "quota", "set", *scope, f"--max-size={max_bytes}")
            self._ceph("radosgw-admin", "quota", "enable", *scope)
        return self._make_bucket(key, secret)

    def _make_bucket(self, key: str, secret: str) -> S3:
        from botocore.session import Session

        bucket = f"b-{uuid.uuid4().hex[:12]}"
        made = S3(self.port, key, secret, bucket)
        client = Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=made.endpoint,
            aws_access_key_id=made.key,
            aws_secret_access_key=made.secret,
        )
        client.create_bucket(Bucket=bucket)
        client.close()
        return made

    def _start(self) -> None:
        for name in ("mon", "osd", "mgr", "run"):
            (self.folder / name).mkdir(parents=True)
        fsid, mon_port, old_mon_port = str(uuid.uuid4()), find_port(), find_port()
        self.config.write_text(
            _CONFIG.format(
                fsid=fsid, mon_port=mon_port, old_mon_port=old_mon_port, folder=self.folder
            )
        )
        for name, capabilities in _CAPABILITIES.items():
            words = [word for kind, cap in capabilities.items() for word in ("--cap", kind, cap)]
            new = [] if (self.folder / "keyring").exists() else ["--create-keyring"]
            self._do(
                "ceph-authtool", f"{self.folder}/keyring", *new, "--gen-key", "-n", name, *words
            )
        monitor = f"[v2:127.0.0.1:{mon_port},v1:127.0.0.1:{old_mon_port}]"
        monmap = f"{self.folder}/monmap"
        self._do("monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitor, monmap)
        self._ceph("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap)
        self._serve("ceph-mon", "-i", "a", "-f")
        wait_until(lambda: self._is_well("ceph", "-s"), 60)
        self._serve("ceph-mgr", "-i", "x", "-f")
        osd = str(uuid.uuid4())
        self._ceph("ceph", "osd", "new", osd)
        self._ceph("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._serve("ceph-osd", "-i", "0", "-f")
        wait_until(lambda: b"1 up" in self._ceph("ceph", "osd", "stat").stdout, 60)
        frontend = f"beast endpoint=127.0.0.1:{self.port} tcp_nodelay=1"
        self._serve("radosgw", "-n", "client.rgw", "-f", f"--rgw-frontends={frontend}")
        wait_until(lambda: is_open(self.port), 60)
        user = [
            "--uid=t",
            "--display-name=t",
            f"--access-key={self.key}",
            f"--secret={self.secret}",
        ]
        self._ceph("radosgw-admin", "user", "create", *user)

    @property
    def config(self) -> Path:
        """What all of its programs read."""
        return self.folder / "ceph.conf"

    def _do(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, capture_output=True, timeout=30, check=check)

    def _ceph(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return self._do(program, "-c", str(self.config), *arguments)

    def _is_well(self, program: str, *arguments: str) -> bool:
        done = self._do(program, "-c", str(self.config), *arguments, check=False)
        return done.returncode == 0

    def _serve(self, program: str, *arguments: str) -> None:
        command = [program, "-c", str(self.config), *arguments]
        self.servers.append(start_server(command, self.folder / f"{program}.out"))
