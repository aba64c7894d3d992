"""What stands in a ```console block is run, in order, in one folder for each page.

A `$ ` line is a command for sh. It must end with 0, or with what stands under `$ echo $?`.
Every line shown below it must appear in its output, times and counts of slots aside. A block
of another language whose fence names a file is written there first.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, read_blocks
from tests.support.command import Umpteen
from tests.support.milex import write_app
from tests.support.sftp import Ssh

PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "quickstart.md",
    ROOT / "docs" / "job-files.md",
    ROOT / "docs" / "batches.md",
    ROOT / "docs" / "leaving.md",
    ROOT / "docs" / "python.md",
    ROOT / "docs" / "recipes.md",
]
_TIME = re.compile(r"(under )?\d[\d.]*(e-\d+)? (s|min|h)\b( ago)?|just now")
_PLACE = re.compile(r"at \d\d:\d\d on [^\s,]+")
_RUNNER = re.compile(r"runner [0-9a-f]{12} on [^\s,]+")
_SLOTS = re.compile(r"\d+ at a time")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_examples_of_a_page_run_as_shown(page: Path, umpteen: Umpteen) -> None:
    shutil.copytree(ROOT / "examples", umpteen.folder / "examples")
    _run_page(page, umpteen)


@pytest.mark.usefixtures("slurm")
def test_page_for_those_who_loop_around_sbatch(umpteen: Umpteen) -> None:
    _run_page(ROOT / "docs" / "from-sbatch.md", umpteen)


@pytest.mark.usefixtures("slurm")
def test_page_for_those_who_come_from_milex(
    umpteen: Umpteen, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("my-app", "prep", "train"):
        write_app(umpteen.home / "bin", name)
    umpteen.write("report.py", "print('a report')\n")
    monkeypatch.setenv("VISUAL", "true")
    common = f"env_command = 'PATH={umpteen.home}/bin:$PATH'\npath = '{umpteen.folder}"
    umpteen.write(
        "config.toml", f"[machines.local]\n{common}/here'\n[machines.big]\n{common}/there'\n"
    )
    (umpteen.home / ".config").mkdir()
    (umpteen.home / ".config/umpteen").symlink_to(umpteen.folder)
    umpteen.write("here/jobs/sweep_20261127093000.json", '{"old": {"script": "echo old"}}')
    _run_page(ROOT / "docs" / "bundles.md", umpteen)
    jobs = sorted(umpteen.folder.glob("*/results/sweep-*"))  # the older one was not sent there
    for results, count in zip(jobs, (1, 3, 3), strict=True):
        assert umpteen("collect", results, "--quiet").returncode == 0
        counts = json.loads(umpteen("status", results, "--json").stdout)["counts"]
        assert counts["succeeded"] == count
    assert umpteen("logs", jobs[-1], "python").stdout == "a report\n"
    assert len(umpteen("config", "show").stdout.splitlines()) == 5


def test_page_for_laptops(umpteen: Umpteen, front: Ssh) -> None:
    folder = umpteen.folder / "there"
    config = front.sftp.keys / "config"
    config.write_text(config.read_text().replace("Host there", "Host lab"))
    (umpteen.folder / "code").mkdir()
    (umpteen.home / ".config").mkdir()
    (umpteen.home / ".config/umpteen").symlink_to(umpteen.folder)
    _run_page(ROOT / "docs" / "laptop.md", umpteen, {"/scratch/me": str(folder)})


def _run_page(page: Path, umpteen: Umpteen, places: Mapping[str, str] | None = None) -> None:
    """places: what stands in files on the page, and what stands for it here."""
    _put_command(umpteen)
    for block in read_blocks(page):
        if "." in block.label:
            text = block.text
            for there, here in (places or {}).items():
                text = text.replace(there, here)
            (umpteen.folder / block.label).write_text(text, encoding="utf-8")
        if block.language == "console":
            for command, code, shown in _read_steps(block.text):
                _run(umpteen, command, code, shown)


def _put_command(umpteen: Umpteen) -> None:
    folder = umpteen.home / "bin"
    folder.mkdir(exist_ok=True)
    for name, command in (("umpteen", umpteen.command), ("python", [sys.executable])):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
        script.chmod(0o755)


def _read_steps(text: str) -> Iterator[tuple[str, int, list[str]]]:
    """(command, exit code, lines shown) of each `$ ` line but `$ echo $?`."""
    steps: list[tuple[str, int, list[str]]] = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        if command == "echo $?":
            steps[-1] = (steps[-1][0], int(shown[0]), steps[-1][2])
        else:
            steps.append((command, 0, shown))
    return iter(steps)


def _run(umpteen: Umpteen, command: str, code: int, shown: list[str]) -> None:
    path = f"{umpteen.home / 'bin'}:{umpteen.environment['PATH']}"
    ran = subprocess.run(
        ["sh", "-c", command],
        cwd=umpteen.folder,
        env=umpteen.environment | {"PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == code, f"$ {command}\n{ran.stdout}"
    printed = [_level(line) for line in ran.stdout.splitlines()]
    missing = [line for line in shown if line != "…" and _level(line) not in printed]
    assert missing == [], f"$ {command}\n{ran.stdout}"


def _level(line: str) -> str:
    """The line without what differs from run to run."""
    line = _PLACE.sub("THEN AND THERE", _TIME.sub("TIME", line))
    line = _RUNNER.sub("RUNNER", line)
    return " ".join(_SLOTS.sub("N at a time", line).split())
