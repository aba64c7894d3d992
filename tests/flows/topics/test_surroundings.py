"""Where a job is typed: no folder, no home, no room for processes, too much to hand over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import SOURCE, Umpteen
from tests.support.store import list_records

TOGETHER = "the command and its environment are longer together than this system takes"
GONE = "error: the folder you are in no longer exists\n\nhint: change to one that does: cd\n"
# As another user, whose processes alone count, with the Python that it may run.
AS_ANOTHER = """
import os, resource, sys
os.setgroups([]); os.setgid(54321); os.setuid(54321)
resource.setrlimit(resource.RLIMIT_NPROC, (int(sys.argv.pop(1)),) * 2)
sys.argv[0] = "umpteen"
from umpteen.cli.main import main
main()
"""


def in_removed_folder(umpteen: Umpteen, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    return subprocess.run(
        ["sh", "-c", script, "sh", *umpteen.command, *arguments],
        cwd=umpteen.folder, env=umpteen.environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_surroundings_removed_folder_is_needed_by_few(umpteen: Umpteen) -> None:
    umpteen("run", "echo {x}; exit {x}", "x=0,1", "--name", "job")
    for line in (
        "ls", "ls --json", "status job", "status job --json", "logs job 0", "why job 0",
        "export job", "results job", "collect job", "retry job", "cancel job", "rm job --yes",
        "--help", "completion bash",
    ):  # fmt: skip
        done = in_removed_folder(umpteen, *line.split())
        assert "error:" not in done.stderr, f"{line}: {done.stderr}"
        code = 1 if line.split()[0] in ("status", "collect", "retry") else 0
        assert done.returncode == code, f"{line}: {done.stderr}"


def test_surroundings_removed_folder_is_named_where_it_is_needed(
    umpteen: Umpteen, tmp_path: Path
) -> None:
    umpteen("run", "echo 1", "--name", "job")
    away = str(tmp_path / "away")
    for words in (
        ["run", "echo 1", "--results", away], ["run", "echo 1", "--results", away, "--dry-run"],
        ["run", "echo 1", "--cwd", "/", "--results", away, "--detach"],
        ["status", "./job"], ["results", "job", "here"], ["export", "job", "--output", "a.csv"],
    ):  # fmt: skip
        done = in_removed_folder(umpteen, *words)
        assert (done.returncode, done.stderr) == (2, GONE), words
    assert not os.path.exists(away)


@pytest.mark.parametrize(
    "home", [{"HOME": "/nonexistent"}, {"HOME": "/dev/null"}, {"HOME": "relative"}, {"HOME": ""}]
)
def test_surroundings_without_a_home_a_job_is_found_by_what_is_printed(
    umpteen: Umpteen, tmp_path: Path, home: dict[str, str]
) -> None:
    environment = {**home, "XDG_DATA_HOME": ""}
    away = str(tmp_path / "away")
    done = umpteen("run", "exit 3", "--name", "job", "--results", away, env=environment)
    assert done.returncode == 1, done.stderr
    (again,) = [line.split()[1:4] for line in done.stderr.splitlines() if "  again " in line]
    retried = umpteen(*again[1:], env=environment)
    assert (retried.returncode, "1 failed" in retried.stderr) == (1, True), retried.stderr
    assert umpteen("ls", env=environment).returncode == 0
    assert os.listdir(umpteen.folder) == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
def test_surroundings_few_processes_are_said_in_a_sentence(umpteen: Umpteen) -> None:
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    folder = Path("/var/tmp") / f"umpteen-test-{os.getpid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    environment = umpteen.environment | {
        "UMPTEEN_LEASES": str(folder / "leases"), "PYTHONPATH": f"{SOURCE}:{packages}",
        "HOME": str(folder), "XDG_DATA_HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    python = "/usr/bin/python3"
    probe = [python, "-c", "import os; os.setuid(54321); import umpteen, msgspec, click"]
    if subprocess.run(probe, env=environment, capture_output=True, check=False).returncode:
        pytest.skip("needs a Python that others may run")
    said = set()
    try:
        for limit in range(1, 7):
            done = subprocess.run(
                [python, "-c", AS_ANOTHER, str(limit), "run", "echo {x}", "x=1", "--name",
                 f"job{limit}"], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            assert "unexpected" not in done.stderr
            assert "Traceback" not in done.stderr
            if done.returncode:
                lines = done.stderr.splitlines()
                found = [line for line in lines if line.startswith(("error", " failed"))]
                said.update(found or [done.stderr])
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)
    assert said
    assert all("this user start no more processes and threads" in line for line in said), said


def test_surroundings_what_is_too_long_to_hand_over_is_named(umpteen: Umpteen) -> None:
    long = "x" * 140_000
    tasks: list[dict[str, object]] = [
        {"name": "variable", "command": "echo hi", "env": {"SMALL": "1", "BIG": long}},
        {"name": "shell", "command": f"echo {long}; true"},
        {"name": "plain", "command": f"echo {long}"},
        {"name": "list", "command": ["/bin/echo", long]},
        {"name": "all", "command": "echo hi", "env": {f"V{n}": long[1:-20000] for n in range(40)}},
    ]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    assert umpteen("run", "job.json").returncode == 1
    said = {r["task"]: (r["exit_code"], r["reason"]) for r in list_records(umpteen.store())}
    command = "cannot start: the command is longer than 128 KiB: put it into a file"
    assert said == {
        0: (126, "cannot start: the variable BIG is longer than 128 KiB"),
        1: (126, command),
        2: (126, command),
        3: (126, command),
        4: (126, f"cannot start: {TOGETHER}"),
    }  # fmt: skip
