"""Files that are named like modules of the standard library: they are nobody's but the user's."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.topics.test_cluster_holder import build_options
from tests.support.command import SOURCE, Umpteen
from tests.support.wait import wait_until

PORTABLE = {"UMPTEEN_PORTABLE": "1"}
IN_PYTHON = """
import umpteen
job = umpteen.run("echo {x}", values={"x": [1, 2]}, name="job")
assert job.status().counts["succeeded"] == 2
"""
FROM = """import sys
sys.path[:] = [path for path in sys.path if path != {source!r}] + [{packages!r}]
from umpteen.cli.main import main
main()
"""


def shadow_all(folder: Path) -> None:
    """A file for each module of the standard library, that fails and leaves its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in filter(importlib.util.find_spec, sys.stdlib_module_names):
        told = f"open({str(folder / 'imported')!r}, 'a').write({name + chr(10)!r})"
        (folder / f"{name}.py").write_text(f"{told}\nraise RuntimeError('not {name}')\n")


@pytest.fixture
def shadowed(umpteen: Umpteen) -> Umpteen:
    """The command in a folder where all modules of the standard library have a namesake."""
    shadow_all(umpteen.folder)
    return umpteen


def check_none_imported(umpteen: Umpteen) -> None:
    assert not (umpteen.folder / "imported").exists(), (umpteen.folder / "imported").read_text()


@pytest.mark.parametrize("environment", [{}, PORTABLE])
def test_shadows_do_not_reach_a_run(shadowed: Umpteen, environment: dict[str, str]) -> None:
    done = shadowed("run", "echo {x}", "x=1,2", "--name", "job", env=environment)
    assert done.returncode == 0, done.stderr
    check_none_imported(shadowed)


def test_shadows_do_not_reach_a_detached_run(shadowed: Umpteen) -> None:
    done = shadowed("run", "echo {x}", "x=1,2", "--name", "job", "--detach")
    assert done.returncode == 0, done.stderr
    assert shadowed("collect", "job").returncode == 0
    assert shadowed("status", "job").returncode == 0
    check_none_imported(shadowed)


def test_shadows_do_not_reach_a_batch(shadowed: Umpteen) -> None:
    runs = [{"cmd": "echo 1", "remote_output_path": "out/0"}]
    shadowed.write("b.json", json.dumps({"remote_output_path": "out", "runs": runs}))
    done = shadowed("batch", "b.json", "--strict")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    check_none_imported(shadowed)


def test_shadows_do_not_reach_what_python_starts(shadowed: Umpteen, tmp_path: Path) -> None:
    script = tmp_path / "elsewhere.py"
    script.write_text(IN_PYTHON)
    done = subprocess.run(
        [sys.executable, script], cwd=shadowed.folder, env=shadowed.environment,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check_none_imported(shadowed)


def test_shadows_do_not_reach_python_m_umpteen(shadowed: Umpteen) -> None:
    told = "import runpy, __future__, sys; print(*sys.modules)"  # before anybody asks us
    loaded = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True
    )
    for name in loaded.stdout.split():
        (shadowed.folder / f"{name}.py").unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "umpteen", "run", "echo {x}", "x=1", "--name", "job"],
        cwd=shadowed.folder, env=shadowed.environment,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 succeeded" in done.stderr
    check_none_imported(shadowed)


def test_shadows_do_not_reach_a_cluster_holder_or_its_workers(shadowed: Umpteen) -> None:
    pytest.importorskip("distributed")
    options = build_options(1)
    job = {"tasks": ["echo 1", "echo 2"], "executor": {"dask": options}, "slots": 1}
    shadowed.write("job.json", json.dumps(job))
    done = shadowed("run", "job.json", timeout_s=120)
    assert done.returncode == 0, done.stderr
    check_none_imported(shadowed)
    wait_until(lambda: list(shadowed.leases.glob("keeper-*/closed")), 40)


def test_shadows_in_our_own_packages_do_not_reach_the_runner(
    umpteen: Umpteen, tmp_path: Path
) -> None:
    packages = tmp_path / "packages"
    shadow_all(packages)
    shutil.copytree(SOURCE / "umpteen", packages / "umpteen")
    program = FROM.format(source=str(SOURCE), packages=str(packages))
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "echo {x}", "x=1,2", "--name", "job"],
        cwd=umpteen.folder, env=umpteen.environment,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (packages / "imported").exists()
