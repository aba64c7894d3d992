"""A detached runner outlives the command that started it, but not its test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.dask import DaskCluster
from tests.support.processes import list_processes


@pytest.fixture
def umpteen(tmp_path: Path) -> Iterator[Umpteen]:
    """The installed command, in a folder and with a home of this test's own."""
    folder, home = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    umpteen = Umpteen(folder, home)
    yield umpteen
    for pid in list_processes(umpteen) if umpteen.leases.exists() else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    """A Dask cluster of this test's own, not started yet."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("UMPTEEN_", "DASK_"))}
    cluster = DaskCluster(tmp_path / "dask", environment)
    yield cluster
    cluster.stop()


@pytest.fixture
def own_pages(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`own_pages(3)` is a disk of its own with room for three pages."""
    made: list[Path] = []

    def make(pages: int) -> Path:
        disk = tmp_path / f"disk{len(made)}"
        disk.mkdir()
        size = pages * os.sysconf("SC_PAGE_SIZE")
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("needs root, for a disk of its own")
        made.append(disk)
        return disk

    yield make
    for disk in made:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def own_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root, for a disk of its own")
    yield disk
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(["umount", "--lazy", disk], check=True)
