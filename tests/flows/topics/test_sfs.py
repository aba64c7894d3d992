"""Saturn Cloud's own storage, `sfs://`, by its own client: all that `sc` and umpteen do there."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import tarfile
from typing import Any

import pytest
import yaml

from tests.flows.verbs.test_split import (
    ARCHIVE,
    list_chunks,
    read_chunk,
    read_commands,
    split,
)
from tests.support.command import Umpteen
from tests.support.sfs import Sfs

TOP = "um/backfill"
COMMANDS = (
    "echo one; mkdir $SATURN_RUN_LOCAL_RESULTS_DIR/d; echo r > $SATURN_RUN_LOCAL_RESULTS_DIR/d/r",
    "echo two >&2; exit 3",
    "echo $SATURN_RUN_REMOTE_OUTPUT_PATH",
)


def write_files(umpteen: Umpteen, sfs: Sfs) -> str:
    """A recipe and a batch of three runs, two with places of their own; where the runs' are."""
    top = f"sfs://{sfs.owner}/{TOP}"
    runs: list[dict[str, Any]] = [{"cmd": command} for command in COMMANDS]
    runs[0]["remote_output_path"] = f"{top}/2024-01-01"
    runs[1]["remote_output_path"] = f"{top}/2024/02"
    batch = {"nprocs": 2, "remote_output_path": f"{top}/", "runs": runs}
    umpteen.write("batch.json", json.dumps(batch))
    spec = {"name": "demo", "instance_type": "large", "scale": 1, "start_script": "true\n"}
    umpteen.write("recipe.yaml", yaml.safe_dump({"type": "job", "spec": spec}))
    return top


def test_a_batch_is_split_run_summarized_and_split_again(umpteen: Umpteen, sfs: Sfs) -> None:
    top = write_files(umpteen, sfs)
    umpteen.write("code/a.py", "x = 1")
    done = split(
        umpteen,
        "--sync",
        "code",
        "--sync",
        f"{umpteen.write('more/b', '').parent}:m",
        env=sfs.environment,
    )
    place = f"sfs://{sfs.owner}/demo/home/jovyan/workspace"
    urls = [f"{place}/{name}/data.tar.gz" for name in ("code", "m", "c")]
    assert [sent["url"] for sent in done["syncs"]] == urls
    assert len(read_commands(umpteen)) == 3

    done_batch = umpteen("batch", "c/0.json", env=sfs.environment)
    assert (done_batch.returncode, done_batch.stderr) == (0, "two\n")
    assert sorted(done_batch.stdout.splitlines()) == ["one", f"{top}/2"]
    files = sfs.list()
    assert files[f"{TOP}/2024-01-01/results/d/r"] == b"r\n"
    assert files[f"{TOP}/2024/02/stderr"] == b"two\n"
    codes = {name: files[f"{TOP}/{name}/status_code"] for name in ("2024-01-01", "2024/02", "2")}
    assert codes == {"2024-01-01": b"0", "2024/02": b"3", "2": b"0"}

    said = umpteen("summarize-batch", "batch.json", "--json", env=sfs.environment)
    assert [run["status_code"] for run in json.loads(said.stdout)["runs"]] == [3, 0, 0]
    again = split(umpteen, "--sync", "code", "--skip-completed", env=sfs.environment)
    assert again["counts"] == {"unfinished": 0, "failed": 1, "completed": 2}
    assert read_commands(umpteen) == [COMMANDS[1]]
    assert [sent["sent"] for sent in again["syncs"]] == [False, True]


def test_what_the_start_script_says_fetches_what_was_synced(umpteen: Umpteen, sfs: Sfs) -> None:
    write_files(umpteen, sfs)
    umpteen.write("code/a.py", "x = 1")
    split(umpteen, "--sync", "code", env=sfs.environment)
    spec = yaml.safe_load((umpteen.folder / "c/recipe.yaml").read_text())["spec"]
    fetch = shlex.split(spec["start_script"].splitlines()[1])
    assert fetch[:2] == ["saturnfs", "cp"]
    client = [sys.executable, "-c", "from saturnfs.cli.main import entrypoint; entrypoint()"]
    archive = umpteen.folder / "data.tar.gz"
    assert fetch[3] == ARCHIVE
    command = [*client, "cp", fetch[2], str(archive)]
    subprocess.run(command, env=umpteen.environment | sfs.environment, check=True)
    with tarfile.open(archive) as opened:
        assert opened.extractfile("a.py").read() == b"x = 1"  # type: ignore[union-attr]


def test_results_of_another_tool_are_known_by_status_code(umpteen: Umpteen, sfs: Sfs) -> None:
    write_files(umpteen, sfs)
    sfs.put(f"{TOP}/2024-01-01/status_code", b"0")
    sfs.put(f"{TOP}/2/status_code", b"-9")
    done = split(umpteen, "--skip-completed", "--skip-failures", env=sfs.environment)
    assert done["counts"] == {"unfinished": 1, "failed": 1, "completed": 1}
    assert read_commands(umpteen) == [COMMANDS[1]]
    assert list_chunks(umpteen) == ["0.json"]
    assert read_chunk(umpteen, 0)["nprocs"] == 2


def test_verbs_do_there_what_they_do_in_a_folder(umpteen: Umpteen, sfs: Sfs) -> None:
    top = write_files(umpteen, sfs)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return umpteen(*words, env=sfs.environment)

    assert run("run", "batch.json").returncode == 1
    assert "2 done" in run("status", top).stdout
    assert run("logs", top, "2024-01-01").stdout == "one\n"
    assert "failed (exit 3)" in run("why", top, "2024/02").stdout
    assert "d/r" in run("results", top).stdout
    assert run("results", top, "here").returncode == 0
    assert (umpteen.folder / "here/2024-01-01/results/d/r").read_text() == "r\n"
    again = run("run", "batch.json")
    assert "2 done before, 1 failed before" in again.stdout + again.stderr
    assert run("retry", top).returncode == 1
    assert run("rm", top, "--yes").returncode == 0
    assert sfs.list() == {}


@pytest.mark.parametrize("verb", ["run batch.json", "batch batch.json", "status {top}",
                                  "summarize-batch batch.json",
                                  "split recipe.yaml batch.json c"])  # fmt: skip
def test_without_its_variables_one_error_names_them(umpteen: Umpteen, sfs: Sfs, verb: str) -> None:
    top = write_files(umpteen, sfs)
    words = verb.format(top=top).split()
    done = umpteen(*words, env={"SATURN_BASE_URL": "", "SATURN_TOKEN": ""})
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "SATURN_BASE_URL and SATURN_TOKEN" in line
    assert not (umpteen.folder / "c").exists()


@pytest.mark.parametrize(
    ("variables", "said"),
    [({"SATURN_TOKEN": "wrong"}, "answered 401"), ({"SATURN_BASE_URL": "{mute}"}, "in time")],
)
def test_a_server_that_says_no_or_nothing_ends_the_command(
    umpteen: Umpteen, sfs: Sfs, variables: dict[str, str], said: str
) -> None:
    top = write_files(umpteen, sfs)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        given = {name: value.format(mute=address) for name, value in variables.items()}
        limits = {"UMPTEEN_RESULTS_OPTIONS": '{"connect_timeout": 1, "read_timeout": 1}'}
        done = umpteen("status", top, env=sfs.environment | given | limits)
    assert done.returncode == 3
    assert said in done.stderr


# A program of its own, as what the client builds at its first use is built once.
FIRST_USE = """
import sys
from umpteen.store.address import open_store
sys.setswitchinterval(1e-6)
print(open_store(sys.argv[1], {}).read_many([(f"{n}/a", 0, -1) for n in range(32)]))
"""


def test_a_first_use_by_many_threads_at_once_reads_all(sfs: Sfs) -> None:
    for number in range(32):
        sfs.put(f"top/{number}/a", b"%d" % number)
    command = [sys.executable, "-W", "ignore", "-c", FIRST_USE, f"sfs://{sfs.owner}/top"]
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == f"{[b'%d' % n for n in range(32)]}\n", done.stderr
