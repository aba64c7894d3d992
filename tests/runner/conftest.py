"""The oldest Python that the runner promises to work with, and parts of a runner to try."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.runner import RunnerBench
from umpteen.store.address import open_store
from umpteen.store.base import Store
from umpteen.store.directory import DirectoryStore

OLDEST = (3, 9)
# Debian has no other Python of that age than PyPy.
_NAMES = ("python3.9", "pypy3", "pypy3.9")


@pytest.fixture(scope="session")
def oldest_python() -> str:
    """A Python 3.9; without it the test is skipped, and fails where CI=true."""
    for name in _NAMES:
        path = shutil.which(name)
        if path and _read_version(path) == OLDEST:
            return path
    if os.environ.get("CI") == "true":
        pytest.fail("there is no Python 3.9: scripts/services installs it")
    pytest.skip("needs Python 3.9")


def _read_version(python: str) -> tuple[int, ...]:
    """Empty where it does not start, as a version manager's name for one that is not there."""
    program = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else ()


@pytest.fixture
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of leases of this test's own."""
    folder = tmp_path / "leases"
    folder.mkdir()
    monkeypatch.setenv("UMPTEEN_LEASES", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path, leases: Path) -> DirectoryStore:
    """A store in a folder, with no batch yet."""
    assert leases.is_dir()
    return DirectoryStore(str(tmp_path / "job"))


@pytest.fixture
def far_store(leases: Path) -> Store:
    """A store that is no folder, with no batch yet."""
    assert leases.is_dir()
    return open_store(f"memory://{uuid.uuid4().hex}/job", {})


class MakeBench(Protocol):
    """Makes the parts of a runner for some batches of a store."""

    def __call__(self, store: Store, *batches: str, lanes: int = 1, slots: int = 2) -> RunnerBench:
        """All of them, with the test as its lanes."""
        ...


@pytest.fixture
def make_bench() -> Iterator[MakeBench]:
    """The parts of runners, given up at the end of the test."""
    made: list[RunnerBench] = []

    def make(store: Store, *batches: str, lanes: int = 1, slots: int = 2) -> RunnerBench:
        made.append(RunnerBench(store, batches, lanes=lanes, slots=slots))
        return made[-1]

    yield make
    for bench in made:
        bench.close()
