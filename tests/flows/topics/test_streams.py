"""Standard streams that are closed, full, or have lost their reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.flows.verbs.test_batch import write_batch
from tests.support.command import Umpteen
from tests.support.processes import list_processes
from tests.support.wait import wait_until

BROKEN = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full 2>&1"]
PRINTING = [
    "status job", "status job --json", "export job", "ls", "ls --json", "logs job 0", "why job 0",
    "results job --json", "--help", "--version", "run 'echo {x}' x=1,2 --dry-run",
    "completion bash", "summarize-batch batch.json",
]  # fmt: skip


def in_shell(umpteen: Umpteen, line: str) -> subprocess.CompletedProcess[str]:
    """`line` follows the command's name, with redirections."""
    return subprocess.run(
        ["sh", "-c", f"exec '{umpteen.command[0]}' {line}"],
        cwd=umpteen.folder, env=umpteen.environment,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def without_reader(umpteen: Umpteen, *arguments: str) -> subprocess.CompletedProcess[str]:
    """With a pipe as stdout that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [*umpteen.command, *arguments], cwd=umpteen.folder, env=umpteen.environment,
            stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.PIPE,
            text=True, check=False, timeout=60,
        )  # fmt: skip
    finally:
        os.close(writing)


def check_job(umpteen: Umpteen, done: subprocess.CompletedProcess[str], code: int = 0) -> None:
    assert done.returncode == code, done.stderr
    assert "unexpected" not in done.stderr
    assert "Traceback" not in done.stderr
    assert umpteen("collect", "job").returncode == code
    outputs = [(umpteen.store() / f"x={x}/stdout").read_text() for x in (1, 2, 3)]
    assert outputs == ["1\n", "2\n", "3\n"]


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("flags", ["", "--json", "--quiet", "--detach", "--detach --json"])
def test_streams_broken_do_not_stop_a_job(umpteen: Umpteen, broken: str, flags: str) -> None:
    done = in_shell(umpteen, f"run 'echo {{x}}' x=1..3 --name job {flags} {broken}")
    check_job(umpteen, done)


@pytest.mark.parametrize("broken", BROKEN)
def test_streams_broken_do_not_change_the_exit_code(umpteen: Umpteen, broken: str) -> None:
    done = in_shell(umpteen, f"run 'echo {{x}}; false' x=1..3 --name job {broken}")
    check_job(umpteen, done, 1)


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("flags", ["", "--strict"])
def test_streams_broken_do_not_stop_a_batch(umpteen: Umpteen, broken: str, flags: str) -> None:
    batch = write_batch(umpteen, "echo a; echo b >&2", "exit 3")
    done = in_shell(umpteen, f"batch {batch} {flags} {broken}")
    assert done.returncode == (1 if flags else 0), done.stderr
    assert (umpteen.folder / "out/0/stdout").read_text() == "a\n"
    assert (umpteen.folder / "out/0/stderr").read_text() == "b\n"
    assert (umpteen.folder / "out/1/status_code").read_text().strip() == "3"


@pytest.fixture
def with_job(umpteen: Umpteen) -> Umpteen:
    umpteen("run", "echo {x}; echo 1 > $RESULTS_DIR/a", "x=1..3", "--name", "job")
    umpteen("batch", write_batch(umpteen, "true"))
    return umpteen


def test_streams_closed_or_full_or_without_reader_are_told_apart(with_job: Umpteen) -> None:
    found = {
        verb: [in_shell(with_job, f"{verb} {to}") for to in (">&-", "2>&-", ">/dev/full")]
        for verb in PRINTING
    }
    codes = {tuple(each.returncode for each in done) for done in found.values()}
    assert codes == {(0, 0, 3)}, found
    for done in found.values():
        assert done[2].stderr == "error: stdout cannot be written: No space left on device\n"


def test_streams_without_reader_end_what_only_prints(with_job: Umpteen) -> None:
    for verb in PRINTING:
        words = verb.replace("'echo {x}'", "echo_{x}").split()
        done = without_reader(with_job, *words)
        assert (done.returncode, done.stderr) == (141, ""), verb


def test_streams_without_reader_let_a_job_go_on(umpteen: Umpteen) -> None:
    wait = "until [ -e go ]; do sleep 0.02; done; echo {x}"
    done = without_reader(umpteen, "run", wait, "x=1..3", "--name", "job", "--json")
    assert done.returncode == 141
    assert "job goes on without this terminal\n  watch     umpteen collect job\n" in done.stderr
    assert json.loads(umpteen("status", "job", "--json").stdout)["state"] == "running"
    umpteen.write("go", "")
    assert umpteen("collect", "job").returncode == 0
    wait_until(lambda: not list_processes(umpteen))


def test_streams_without_reader_stop_watching_in_collect(umpteen: Umpteen) -> None:
    umpteen("run", "until [ -e go ]; do sleep 0.02; done", "--name", "job", "--detach")
    assert without_reader(umpteen, "collect", "job", "--json").returncode == 141
    umpteen.write("go", "")
    assert umpteen("collect", "job").returncode == 0
    assert without_reader(umpteen, "collect", "job", "--json").stderr == ""


def test_streams_get_no_other_files_numbers(umpteen: Umpteen) -> None:
    """What a command of a job prints to 0 to 2 is nobody's file."""
    list_files = "ls -l /proc/self/fd | sed -n 's/.* \\([012]\\) -> /\\1 /p'"
    done = in_shell(umpteen, f'run "{list_files}" --name job <&- >&- 2>&-')
    assert done.returncode == 0
    shown = (umpteen.store() / "0/stdout").read_text().splitlines()
    assert shown[0] == "0 /dev/null"
    assert shown[2].endswith("/stderr"), shown


IN_PYTHON = """
import os, sys, umpteen
for broken in (None, open("/dev/full", "w"), open(os.devnull, "w")):
    sys.stdin = None
    sys.stderr = broken
    if broken is not None and broken.name == os.devnull:
        broken.close()
    job = umpteen.run("echo {x}", values={"x": [1, 2]}, name="job", rerun="all")
    print(job.status().counts["succeeded"], flush=True)
os._exit(0)
"""


def test_streams_of_a_python_program_may_be_anything(umpteen: Umpteen) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_PYTHON], cwd=umpteen.folder, env=umpteen.environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("2\n2\n2\n", 0), done.stderr
