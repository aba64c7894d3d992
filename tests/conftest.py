"""Small fixtures only. Tests of the packages run first, then contracts: the quick ones first."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support.command import Umpteen
from tests.support.dask import DaskCluster
from tests.support.fake_slurm import FakeSlurm
from tests.support.ftp import Ftp, FtpServer
from tests.support.hosts import PROGRAMS as HOST_PROGRAMS
from tests.support.hosts import Hosts, are_allowed
from tests.support.memory import register_memory
from tests.support.proxy import FaultProxy
from tests.support.ray import RayCluster
from tests.support.s3 import PROGRAMS, S3, S3Server
from tests.support.sfs import Sfs, SfsServer
from tests.support.sftp import Sftp, SftpServer, Ssh
from tests.support.slurm import PROGRAMS as SLURM_PROGRAMS
from tests.support.slurm import SlurmCluster

settings.register_profile("any machine", deadline=None)  # a busy one is slow, not wrong
settings.load_profile("any machine")
_LAST = ["contract", "docs", "flows"]  # after those of the packages, which take seconds

register_memory()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def position(item: pytest.Item) -> int:
        folder = item.nodeid.split("/")[1]
        return _LAST.index(folder) if folder in _LAST else -1

    items.sort(key=position)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A signal that is ignored here, as SIGHUP under nohup, is ignored by what tests start, too."""
    callspec = getattr(item, "callspec", None)
    number = callspec.params.get("number") if callspec else None
    if isinstance(number, signal.Signals) and signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, as under nohup")


@pytest.fixture
def umpteen(tmp_path: Path) -> Umpteen:
    """The installed command, in a folder and with a home of this test's own."""
    folder, home = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    return Umpteen(folder, home)


@pytest.fixture
def hostile_path(tmp_path: Path) -> Path:
    """A folder whose name breaks whatever does not quote."""
    path = tmp_path / 'it\'s a "bad"\nname; $HOME `id` * \\ ünï 名'
    path.mkdir()
    return path


@pytest.fixture
def need() -> Callable[[str], str]:
    """`need("tmux")` is its path; without it the test is skipped, and fails where CI=true."""

    def need(program: str) -> str:
        path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if path is None and os.environ.get("CI") == "true":
            pytest.fail(f"{program} is missing: scripts/services installs it")
        if path is None:
            pytest.skip(f"needs {program}")
        return path

    return need


@pytest.fixture(scope="session")
def dask_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A Dask cluster for all tests of a run: two workers, one of a thread and one of two."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("UMPTEEN_", "DASK_"))}
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"), environment)
    try:
        cluster.start()
        cluster.add_worker()
        cluster.add_worker(threads=2)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    """A Ray cluster for all tests of a file, as an idle one takes much of a small machine: one
    machine that has three CPUs.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("UMPTEEN_", "RAY_"))}
    cluster = RayCluster(environment)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """A Slurm cluster for all tests of a file; ask for `slurm`, which is skipped without one."""
    cluster = SlurmCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def slurm(
    need: Callable[[str], str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlurmCluster]:
    """A real Slurm that commands lead to: two nodes, each with four CPUs, and no jobs."""
    for program in SLURM_PROGRAMS:
        need(program)
    cluster: SlurmCluster = request.getfixturevalue("slurm_cluster")
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield cluster
    cluster.end_jobs()


@pytest.fixture
def make_fake_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., FakeSlurm]]:
    """`make_fake_slurm(submit_jobs=50)` is a Slurm of ours that commands lead to."""
    made: list[FakeSlurm] = []

    def make(**settings: Any) -> FakeSlurm:
        made.append(FakeSlurm(tmp_path / "slurm", **settings))
        for name, value in made[-1].environment.items():
            monkeypatch.setenv(name, value)
        made[-1].start()
        return made[-1]

    yield make
    for cluster in made:
        cluster.stop()


@pytest.fixture
def slurm_fake(make_fake_slurm: Callable[..., FakeSlurm]) -> FakeSlurm:
    """One of which one call in twenty fails."""
    return make_fake_slurm(failing=0.05)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, for all tests of a run; ask for `s3`, which is skipped without one."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(need: Callable[[str], str], request: pytest.FixtureRequest) -> S3:
    """An empty bucket on a real S3 server."""
    for program in PROGRAMS:
        need(program)
    server: S3Server = request.getfixturevalue("s3_server")
    return server.make_bucket()


@pytest.fixture
def s3_proxy(s3: S3) -> Iterator[FaultProxy]:
    """A proxy before the S3 server, without a fault yet."""
    with FaultProxy(s3.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def sftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    """A real SSH server, for all tests of a run; ask for `sftp`, which is skipped without one."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert program is not None
    with SftpServer(tmp_path_factory.mktemp("sftp"), program) as server:
        yield server


@pytest.fixture
def sftp(need: Callable[[str], str], request: pytest.FixtureRequest, tmp_path: Path) -> Sftp:
    """An empty folder on a real SFTP server."""
    need("sshd")
    need("ssh-keygen")
    server: SftpServer = request.getfixturevalue("sftp_server")
    return Sftp(server.port, server.user, tmp_path, server.folder)


@pytest.fixture
def ssh(sftp: Sftp, monkeypatch: pytest.MonkeyPatch) -> Ssh:
    """An empty folder on a real SSH server, which the host alias `there` leads to."""
    ssh = Ssh(sftp)
    for name, value in ssh.environment.items():
        monkeypatch.setenv(name, value)
    return ssh


@pytest.fixture
def front(
    ssh: Ssh, slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ssh]:
    """The machine with Slurm's commands; those of this one find no cluster."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert program is not None
    for name in slurm.environment:
        monkeypatch.delenv(name)
    (tmp_path / "keys").mkdir()
    variables = " ".join(f"{name}={value}" for name, value in slurm.environment.items())
    with SftpServer(tmp_path / "keys", program, f"SetEnv {variables}\n") as server:
        there = Ssh(dataclasses.replace(ssh.sftp, port=server.port, keys=server.folder))
        monkeypatch.setenv("UMPTEEN_SSH", there.environment["UMPTEEN_SSH"])
        yield there


@pytest.fixture
def hosts(
    need: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hosts]:
    """`hosts.open("h1")` is a new host behind ssh, with processes and folders of its own."""
    for program in HOST_PROGRAMS:
        need(program)
    if not are_allowed() and os.environ.get("CI") == "true":
        pytest.fail("hosts behind ssh need root and namespaces")
    if not are_allowed():
        pytest.skip("needs root and namespaces, for hosts behind ssh")
    with Hosts(tmp_path / "hosts") as hosts:
        for name, value in hosts.environment.items():
            monkeypatch.setenv(name, value)
        yield hosts


@pytest.fixture(scope="session")
def sfs_server() -> Iterator[SfsServer]:
    """A server that Saturn Cloud's client takes for its own, for all tests of a run.

    One for all, since that client reads where it is when it is loaded, and then no more.
    """
    with SfsServer() as server:
        yield server


@pytest.fixture
def sfs(sfs_server: SfsServer, monkeypatch: pytest.MonkeyPatch) -> Sfs:
    """An empty place on Saturn Cloud."""
    place = sfs_server.make_place()
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    return place


@pytest.fixture(scope="session")
def ftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FtpServer]:
    """A real FTP server, for all tests of a run."""
    with FtpServer(tmp_path_factory.mktemp("ftp")) as server:
        yield server


@pytest.fixture
def ftp(ftp_server: FtpServer) -> Ftp:
    """An empty folder on a real FTP server."""
    return ftp_server.make_folder(f"f{uuid.uuid4().hex[:12]}")
