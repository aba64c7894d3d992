"""The oldest Python that the runner promises to work with."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

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
