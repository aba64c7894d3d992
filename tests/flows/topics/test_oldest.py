"""The oldest libraries that are promised, in an environment that scripts/services makes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.support.command import Umpteen
from tests.support.dask import DaskCluster
from tests.support.ray import RayCluster
from tests.support.s3 import S3
from tests.support.sftp import Sftp
from umpteen.store.address import OPTIONS_VARIABLE

OLDEST = ROOT / ".tools" / "oldest"
PROMISED = {"distributed": "2023.9.2", "ray": "2.9.0"}


@pytest.fixture
def oldest() -> Path:
    """The Python of that environment."""
    if not (OLDEST / "stamp").exists() and os.environ.get("CI") == "true":
        pytest.fail("the oldest libraries are missing: scripts/services installs them")
    if not (OLDEST / "stamp").exists():
        pytest.skip("needs the oldest libraries")
    return OLDEST / "bin" / "python"


@pytest.fixture
def old_dask(oldest: Path, umpteen: Umpteen) -> Iterator[DaskCluster]:
    """A cluster of the oldest Dask, with one worker."""
    cluster = DaskCluster(umpteen.home / "dask", umpteen.environment)
    cluster.python = cluster.scheduler_python = str(oldest)
    try:
        cluster.start()
        cluster.add_worker()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def old_ray(oldest: Path, umpteen: Umpteen) -> Iterator[RayCluster]:
    """A cluster of the oldest Ray."""
    cluster = RayCluster(umpteen.environment, oldest)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def run_old(oldest: Path, umpteen: Umpteen) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_old("run", …)`: umpteen there."""

    def run_old(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(oldest.with_name("umpteen")), *arguments],
            cwd=umpteen.folder, env=umpteen.environment | env, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip

    return run_old


RunOld = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(("package", "version"), PROMISED.items())
def test_oldest_is_what_the_extras_say(package: str, version: str) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f">={version.removesuffix('.0')}" in text
    for page in ("dask", "ray"):
        shown = (ROOT / "docs" / f"{page}.md").read_text()
        if page in package or (package == "distributed" and page == "dask"):
            assert version in shown


def test_oldest_dask_runs_a_job(old_dask: DaskCluster, run_old: RunOld, umpteen: Umpteen) -> None:
    flags = ("--executor", "dask", "--scheduler-address", old_dask.address)
    done = run_old("run", "echo {n}", "n=1..20", "--name", "job", *flags)
    assert done.returncode == 0, done.stderr
    assert (umpteen.store() / "n=7" / "stdout").read_text() == "7\n"
    assert "20 done before" in run_old("run", "echo {n}", "n=1..20", "--name", "job", *flags).stderr


def test_oldest_dask_and_the_newest_do_not_talk(old_dask: DaskCluster, umpteen: Umpteen) -> None:
    flags = ("--executor", "dask", "--scheduler-address", old_dask.address)
    done = umpteen("run", "true", *flags)
    assert done.returncode == 3
    assert f"has Dask {PROMISED['distributed']}, which this Dask" in done.stderr
    assert f"hint: pip install distributed=={PROMISED['distributed']}" in done.stderr


def test_oldest_ray_runs_a_job(old_ray: RayCluster, run_old: RunOld, umpteen: Umpteen) -> None:
    flags = ("--executor", "ray", "--scheduler-address", old_ray.address)
    done = run_old("run", "echo {n}", "n=1..20", "--name", "job", *flags)
    assert done.returncode == 0, done.stderr
    assert (umpteen.store() / "n=7" / "stdout").read_text() == "7\n"


def test_oldest_ray_and_the_newest_do_not_talk(old_ray: RayCluster, umpteen: Umpteen) -> None:
    flags = ("--executor", "ray", "--scheduler-address", old_ray.client_address)
    done = umpteen("run", "true", *flags)
    assert done.returncode == 3
    assert f"has Ray {PROMISED['ray']} " in done.stderr


@pytest.mark.parametrize("kind", ["s3", "sftp"])
def test_oldest_libraries_of_stores_run_a_job(
    kind: str, run_old: RunOld, request: pytest.FixtureRequest
) -> None:
    far: S3 | Sftp = request.getfixturevalue(kind)
    env = {OPTIONS_VARIABLE: json.dumps(far.options)}
    for said in ("20 tasks", "20 done before"):
        done = run_old("run", "echo {n}", "n=1..20", "--results", far.address, **env)
        assert done.returncode == 0, done.stderr
        assert said in done.stderr
    assert run_old("logs", far.address, "n=7", **env).stdout == "7\n"
