"""Small fixtures only. Tests run unit and contract first, so that the quick ones speak first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import Umpteen

_FIRST = ["unit", "contract"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def position(item: pytest.Item) -> int:
        folder = item.nodeid.split("/")[1]
        return _FIRST.index(folder) if folder in _FIRST else len(_FIRST)

    items.sort(key=position)


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
        path = shutil.which(program)
        if path is None and os.environ.get("CI") == "true":
            pytest.fail(f"{program} is missing: scripts/services installs it")
        if path is None:
            pytest.skip(f"needs {program}")
        return path

    return need
