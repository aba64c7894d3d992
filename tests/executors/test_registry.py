"""How executors are found by their names, and opened once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from umpteen.errors import SettingsError
from umpteen.executors import registry
from umpteen.executors.local import LocalExecutor
from umpteen.executors.registry import (
    ExecutorRegistry,
    find_short_name,
    is_short_name,
    open_executor,
    runs_here,
)

PATH = "umpteen.executors.local:LocalExecutor"

# An installed package that offers two executors: one that works, one whose module is not there.
MODULE = """
from umpteen.executors.local import LocalExecutor

class LabExecutor(LocalExecutor):
    name = "lab"
"""
METADATA = "Metadata-Version: 2.1\nName: lab-queue\nVersion: 1.0\n"
ENTRY_POINTS = """[umpteen.executors]
lab = lab_queue:LabExecutor
broken-lab = no_such_module:LabExecutor
odd-lab = lab_queue:LocalExecutor.submit
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sys.path that a small package is installed in."""
    (tmp_path / "lab_queue.py").write_text(MODULE)
    info = tmp_path / "lab_queue-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lab_queue", raising=False)
    registry._find_offered.cache_clear()
    monkeypatch.setattr(registry, "_find_offered", registry._find_offered.__wrapped__)
    return tmp_path


def test_same_name_and_options_are_opened_once() -> None:
    with ExecutorRegistry() as executors:
        first = executors.open("local", {"detach": True})
        assert executors.open("multiprocessing", {"detach": True}) is first
        assert executors.open("local", {}) is not first


def test_open_any_takes_what_is_open_with_other_options() -> None:
    with ExecutorRegistry() as executors:
        first = executors.open("local", {"detach": True})
        assert executors.open_any("local") is first
    with ExecutorRegistry() as executors:
        assert isinstance(executors.open_any("local"), LocalExecutor)


def test_close_closes_every_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[LocalExecutor] = []

    def close(executor: LocalExecutor) -> None:
        closed.append(executor)

    monkeypatch.setattr(LocalExecutor, "close", close)
    with ExecutorRegistry() as executors:
        opened = [executors.open("local", {}), executors.open("local", {"detach": True})]
    assert sorted(map(id, closed)) == sorted(map(id, opened))


def test_path_is_loaded_only_where_it_is_given() -> None:
    assert isinstance(ExecutorRegistry(given=PATH).open(PATH, {}), LocalExecutor)
    for given in ("", "umpteen.executors.local.LocalExecutor"):
        with pytest.raises(SettingsError, match="an import path, which is loaded only where you"):
            ExecutorRegistry(given=given).open(PATH, {})


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        open_executor("locla", {})
    assert caught.value.hint == "did you mean 'local'?"


def test_class_that_is_no_executor_is_refused() -> None:
    with pytest.raises(SettingsError, match="is no executor"):
        open_executor("umpteen.executors.base.SubmitRequest", {})


@pytest.mark.parametrize(
    ("name", "short", "here"),
    [
        ("", "local", True),
        ("multiprocessing", "local", True),
        ("dask", "dask", False),
        (PATH, PATH, False),
    ],
)
def test_names_of_one_executor_are_one_short_name(name: str, short: str, here: bool) -> None:
    assert (find_short_name(name), runs_here(name)) == (short, here)


@pytest.mark.usefixtures("installed")
def test_installed_package_offers_an_executor() -> None:
    assert is_short_name("lab")
    assert "lab_queue" not in sys.modules  # until it is asked for
    assert ExecutorRegistry().open("lab", {}).name == "lab"


@pytest.mark.usefixtures("installed")
def test_offered_executor_that_cannot_be_loaded_is_told_with_its_package() -> None:
    with pytest.raises(SettingsError, match="'broken-lab' of the package 'lab-queue' cannot be"):
        open_executor("broken-lab", {})
    with pytest.raises(SettingsError, match="is no executor"):
        open_executor("odd-lab", {})


@pytest.mark.usefixtures("installed")
def test_offered_name_is_among_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        open_executor("labb", {})
    assert caught.value.hint == "did you mean 'lab'?"


def test_job_runs_by_the_executor_of_an_installed_package(installed: Path, tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(installed),
        "UMPTEEN_LEASES": str(tmp_path / "leases"),
    }
    command = [sys.executable, "-m", "umpteen", "run", "--executor", "lab", "-", "--name", "job"]
    subprocess.run(
        command, input=b"echo a\n", cwd=tmp_path, env=environment, check=True, timeout=60
    )
    assert (tmp_path / "umpteen-results/job/0/stdout").read_text() == "a\n"
    shown = subprocess.run(
        [sys.executable, "-m", "umpteen", "status", "job", "--json"],
        cwd=tmp_path, env=environment, check=True, timeout=60, capture_output=True,
    )  # fmt: skip
    assert json.loads(shown.stdout)["executor"] == "lab"
