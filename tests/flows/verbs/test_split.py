"""`umpteen split`, `summarize-batch` and `batch`: what `sc` does, one test for each of its lines.

The numbers are those of the list that umpteen was built by: from 1 what the document of `sc`
promises, then what its code does, then what it does wrong and umpteen does right.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.topics.test_bad_input import expect_refusal
from tests.flows.verbs.test_batch import CMD
from tests.support.command import Umpteen
from tests.support.processes import list_processes
from tests.support.s3 import S3
from tests.support.store import list_records
from tests.support.wait import wait_until
from umpteen.store.address import open_store

RECIPE = """\
# what runs
type: job
spec:
  name: demo
  instance_type: large
  scale: 3
  command: python x.py
  start_script: |
    pip install .
"""
DOCUMENT = """\
nprocs: 4
remote_output_path: {top}/
runs:
- cmd: {cmd} --start-dt 2023-12-31 --end-dt 2024-01-02 --enrich --first-seen
  remote_output_path: {top}/2024-01-01
- cmd: {cmd} --start-dt 2024-01-01 --end-dt 2024-01-03 --enrich --first-seen
  remote_output_path: {top}/2024-01-02
- cmd: {cmd} --start-dt 2024-01-02 --end-dt 2024-01-04 --enrich --first-seen
  remote_output_path: {top}/2024-01-03
"""
AWS = f"""#!{sys.executable}
import sys
import fsspec
s3, cp, source, target = sys.argv[1:]
with fsspec.open(source, "rb") as read, open(target, "wb") as write:
    write.write(read.read())
"""
ARCHIVE = "/tmp/data.tar.gz"


def write_recipe(umpteen: Umpteen, text: str = RECIPE) -> str:
    umpteen.write("recipe.yaml", text)
    return "recipe.yaml"


def write_batch(umpteen: Umpteen, *commands: str, name: str = "batch.json", **more: Any) -> str:
    """A batch file for `out`; its name."""
    runs = [{"cmd": command} for command in commands]
    content = {"nprocs": 2, "remote_output_path": str(umpteen.folder / "out"), "runs": runs, **more}
    content = {key: value for key, value in content.items() if value is not None}
    umpteen.write(name, json.dumps(content))
    return name


def split(umpteen: Umpteen, *arguments: str | Path, **more: Any) -> dict[str, Any]:
    """What a split says that went well; `recipe.yaml`, `batch.json` and `c` by default."""
    if not arguments or str(arguments[0]).startswith("-"):
        arguments = (write_recipe(umpteen), "batch.json", "c", *arguments)
    done = umpteen("split", *arguments, "--json", **more)
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def read_chunk(umpteen: Umpteen, number: int, folder: str = "c") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((umpteen.folder / folder / f"{number}.json").read_bytes())
    return content


def read_commands(umpteen: Umpteen, folder: str = "c") -> list[str]:
    """The commands of the runs in all chunks."""
    count = len(list_chunks(umpteen, folder))
    chunks = [read_chunk(umpteen, number, folder) for number in range(count)]
    return [run["cmd"] for chunk in chunks for run in chunk["runs"]]


def list_chunks(umpteen: Umpteen, folder: str = "c") -> list[str]:
    return sorted(path.name for path in (umpteen.folder / folder).glob("[0-9]*.json"))


def read_spec(umpteen: Umpteen, folder: str = "c") -> dict[str, Any]:
    """`spec` of the recipe that was written."""
    text = (umpteen.folder / folder / "recipe.yaml").read_text()
    spec: dict[str, Any] = yaml.safe_load(text)["spec"]
    return spec


def finish(umpteen: Umpteen, name: str, content: str | bytes) -> None:
    """Leave a `status_code` as another tool does, without records."""
    path = umpteen.folder / "out" / name / "status_code"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def run_recipe(umpteen: Umpteen, folder: str = "c", **more: str) -> None:
    """Do what a machine does: the start script, then every command, with `sc` for umpteen."""
    programs = umpteen.home / "bin"
    programs.mkdir(exist_ok=True)
    script = f'#!/bin/sh\nexec {" ".join(umpteen.command)} "$@"\n'
    for name, text in (("sc", script), ("aws", AWS)):
        if name == "sc" or not shutil.which(name):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
    spec = read_spec(umpteen, folder)
    env = umpteen.environment | {"PATH": f"{programs}:{os.environ['PATH']}"} | more
    for text in (f"set -e\n{spec['start_script']}", *spec["command"]):
        done = subprocess.run(
            ["sh", "-c", text], cwd=umpteen.home, env=env, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stderr.decode()}"


# --- the document -------------------------------------------------------------------------------


def test_line_01_yaml_of_the_document_is_split_and_run(umpteen: Umpteen, tmp_path: Path) -> None:
    top = tmp_path / "sfs"
    umpteen.write("batch.yaml", DOCUMENT.format(top=top, cmd="echo"))
    split(umpteen, write_recipe(umpteen), "batch.yaml", "c")
    assert [run["remote_output_path"] for run in read_chunk(umpteen, 0)["runs"]] == [
        f"{top}/2024-01-0{day}" for day in (1, 2, 3)
    ]
    assert umpteen("batch", "c/0.json").returncode == 0
    said = (top / "2024-01-03/stdout").read_text()
    assert said == "--start-dt 2024-01-02 --end-dt 2024-01-04 --enrich --first-seen\n"


def test_line_02_json_is_the_same_as_yaml(umpteen: Umpteen) -> None:
    text = DOCUMENT.format(top="/nfs/out", cmd=CMD)
    umpteen.write("batch.yaml", text)
    umpteen.write("batch.json", json.dumps(yaml.safe_load(text)))
    base = ("--file-syncs-base-dir-url", umpteen.folder / "base")
    split(umpteen, write_recipe(umpteen), "batch.yaml", "y", *base)
    split(umpteen, write_recipe(umpteen), "batch.json", "j", *base)
    from_yaml, from_json = read_chunk(umpteen, 0, "y"), read_chunk(umpteen, 0, "j")
    for chunk in (from_yaml, from_json):
        del chunk["umpteen"]
    for run in (*from_yaml["runs"], *from_json["runs"]):
        del run["local_results_dir"]
    assert from_yaml == from_json


def test_line_03_positional_folder_and_flag_are_the_same(umpteen: Umpteen) -> None:
    umpteen.write("code/a.py", "print(1)\n")
    recipe, batch = write_recipe(umpteen), write_batch(umpteen, "true", "true")
    umpteen("split", recipe, batch, "c", "--sync", "code")
    umpteen("split", recipe, batch, "--local-commands-directory", "d", "--sync", "code")
    assert list_chunks(umpteen, "c") == list_chunks(umpteen, "d") == ["0.json"]
    (spec, other) = (read_spec(umpteen, "c"), read_spec(umpteen, "d"))
    assert spec["start_script"].replace("/c/", "/d/") == other["start_script"]


def test_line_04_default_batch_size_is_3_nprocs(umpteen: Umpteen) -> None:
    write_batch(umpteen, *["true"] * 168, nprocs=4)
    said = split(umpteen)
    assert sorted(list_chunks(umpteen)) == sorted(f"{number}.json" for number in range(14))
    assert {len(read_chunk(umpteen, number)["runs"]) for number in range(14)} == {12}
    assert (said["runs"], said["chunks"], said["batch_size"]) == (168, 14, 12)


def test_line_05_chunk_has_what_the_document_shows(umpteen: Umpteen) -> None:
    write_batch(umpteen, "echo a", remote_output_path="file:///nfs/out/")
    split(umpteen, "--file-syncs-base-dir-url", str(umpteen.folder / "base"))
    chunk = read_chunk(umpteen, 0)
    (run,) = chunk.pop("runs")
    assert re.fullmatch("[0-9a-f]{16}", chunk.pop("umpteen")["split"])
    assert chunk == {"nprocs": 2, "remote_output_path": "file:///nfs/out/"}
    assert re.fullmatch(r"/tmp/[0-9a-f]{32}/", run.pop("local_results_dir"))
    nothing = {"status_code": None, "status": None}
    assert run == {"cmd": "echo a", "remote_output_path": "file:///nfs/out/0", **nothing}


def test_line_05_chunk_is_valid_input_again(umpteen: Umpteen) -> None:
    write_batch(umpteen, "a", "b", "c")
    split(umpteen)
    before = read_chunk(umpteen, 0)
    split(umpteen, write_recipe(umpteen), "c/0.json", "d", "--batch-size", "1")
    assert [read_chunk(umpteen, n, "d")["runs"] for n in range(3)] == [[r] for r in before["runs"]]


def test_line_06_recipe_gets_the_commands_and_the_input_stays(umpteen: Umpteen) -> None:
    write_batch(umpteen, *["true"] * 11)
    split(umpteen, "--remote-commands-directory", "/home/jovyan/commands3")
    assert read_spec(umpteen)["command"] == [
        "sc batch /home/jovyan/commands3/0.json",
        "sc batch /home/jovyan/commands3/1.json",
    ]
    assert (umpteen.folder / "recipe.yaml").read_text() == RECIPE
    kept = (umpteen.folder / "c/recipe.yaml").read_text()
    assert kept.startswith(RECIPE.partition("  command")[0])


def test_line_06_other_command_and_recipe_in_json(umpteen: Umpteen) -> None:
    umpteen.write("recipe.json", json.dumps(yaml.safe_load(RECIPE)))
    write_batch(umpteen, "true")
    split(umpteen, "recipe.json", "batch.json", "c", "--command", "umpteen batch")
    place = "/home/jovyan/workspace/c/0.json"
    assert read_spec(umpteen)["command"] == [f"umpteen batch {place}"]
    assert read_spec(umpteen)["scale"] == 3


def test_line_07_machine_gets_source_and_commands(umpteen: Umpteen, tmp_path: Path) -> None:
    machine = tmp_path / "machine"
    umpteen.write("code/print.sh", "echo from code\n")
    write_batch(umpteen, f"sh {machine}/code/print.sh", "echo b")
    split(
        umpteen,
        *("--sync", f"code:{machine}/code"),
        *("--remote-commands-directory", str(machine / "commands")),
        *("--file-syncs-base-dir-url", f"file://{tmp_path}/base"),
    )
    script = read_spec(umpteen)["start_script"].splitlines()
    assert script[1] == f"cp {tmp_path}/base{machine}/code/data.tar.gz {ARCHIVE}"
    assert script[4] == f"cp {tmp_path}/base{machine}/commands/data.tar.gz {ARCHIVE}"
    umpteen.write("c/recipe.yaml", (umpteen.folder / "c/recipe.yaml").read_text().replace(
        "pip install .", "echo set up"))  # fmt: skip
    run_recipe(umpteen)
    assert (umpteen.folder / "out/0/stdout").read_text() == "from code\n"
    assert (umpteen.folder / "out/1/status_code").read_text() == "0"
    assert not (machine / "commands/recipe.yaml").exists()


def test_line_08_never_more_than_nprocs_at_a_time(umpteen: Umpteen) -> None:
    write_batch(umpteen, *["echo + >> log; sleep 0.05; echo - >> log"] * 12, nprocs=3)
    split(umpteen, "--batch-size", "12")
    assert umpteen("batch", "c/0.json").returncode == 0
    at_once, most = 0, 0
    for line in (umpteen.folder / "log").read_text().split():
        at_once += 1 if line == "+" else -1
        most = max(most, at_once)
    assert most == 3


def test_line_09_outputs_are_under_each_run(umpteen: Umpteen, tmp_path: Path) -> None:
    runs = [
        {"cmd": "echo out; echo err >&2; exit 3", "remote_output_path": f"{tmp_path}/elsewhere"},
        {"cmd": "touch $SATURN_RUN_LOCAL_RESULTS_DIR/a"},
    ]
    write_batch(umpteen, runs=runs)
    split(umpteen)
    assert umpteen("batch", "c/0.json").returncode == 0
    left = {p.name: p.read_text() for p in (tmp_path / "elsewhere").iterdir() if p.is_file()}
    assert left == {"stdout": "out\n", "stderr": "err\n", "status_code": "3"}
    assert (umpteen.folder / "out/1/results/a").exists()


def test_line_09_outputs_on_s3_are_under_each_run(umpteen: Umpteen, s3: S3) -> None:
    env = {"UMPTEEN_RESULTS_OPTIONS": json.dumps(s3.options)}
    top = f"s3://{s3.bucket}/out"
    commands = ("echo out; echo err >&2; exit 3", "touch $SATURN_RUN_LOCAL_RESULTS_DIR/a", "true")
    write_batch(umpteen, *commands, remote_output_path=top)
    split(umpteen, env=env)
    done = umpteen("batch", "c/0.json", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")
    store = open_store(top, s3.options)
    left = {name for name, _ in store.walk("") if not name.startswith(".umpteen")}
    outputs = {f"{run}/{name}" for run in "012" for name in ("stdout", "stderr", "status_code")}
    assert left == outputs | {"1/results/a"}
    assert (store.read("0/stdout"), store.read("0/status_code")) == (b"out\n", b"3")
    store.close()
    said = split(umpteen, "--skip-completed", env=env)
    assert said["counts"] == {"unfinished": 0, "failed": 1, "completed": 2}


def test_line_10_nested_results_are_kept(umpteen: Umpteen) -> None:
    write_batch(umpteen, "mkdir -p $SATURN_RUN_LOCAL_RESULTS_DIR/a/b; "
                "echo 1 > $SATURN_RUN_LOCAL_RESULTS_DIR/a/b/c; "
                "pwd > $SATURN_RUN_LOCAL_RESULTS_DIR/d")  # fmt: skip
    split(umpteen)
    umpteen("batch", "c/0.json")
    assert (umpteen.folder / "out/0/results/a/b/c").read_text() == "1\n"
    assert (umpteen.folder / "out/0/results/d").exists()


@pytest.mark.parametrize("has_records", [True, False])
@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ([], ["true", "exit 3", "echo new", "echo b"]),
        (["--skip-completed"], ["echo new", "exit 3"]),
        (["--skip-failures"], ["echo new", "true", "echo b"]),
        (["--skip-completed", "--skip-failures"], ["echo new"]),
    ],
)
def test_line_11_everything_or_what_is_not_skipped(
    umpteen: Umpteen, flags: list[str], chosen: list[str], *, has_records: bool
) -> None:
    commands = ["true", "exit 3", "echo new", "echo b"]
    runs = [
        {"cmd": command, "remote_output_path": f"{umpteen.folder}/out/{place}"}
        for place, command in enumerate(commands)
        if place != 2
    ]
    write_batch(umpteen, runs=runs)
    umpteen("batch", "batch.json")
    if not has_records:
        shutil.rmtree(umpteen.folder / "out/.umpteen")
    write_batch(umpteen, *commands)
    said = split(umpteen, *flags)
    assert read_commands(umpteen) == chosen
    if flags:
        assert said["counts"] == {"unfinished": 1, "failed": 1, "completed": 2}
        known = {
            run["cmd"]: (run["status_code"], run["status"])
            for run in read_chunk(umpteen, 0)["runs"]
        }
        outcomes = {"true": (0, "completed"), "echo b": (0, "completed"), "exit 3": (3, "error")}
        assert known == {command: outcomes.get(command, (None, None)) for command in chosen}


def test_line_11_records_know_of_a_changed_command(umpteen: Umpteen) -> None:
    umpteen("batch", write_batch(umpteen, "true", "echo b"))
    write_batch(umpteen, "true", "echo c")
    split(umpteen, "--skip-completed")
    assert read_commands(umpteen) == ["echo c"]


def test_line_11_what_was_ended_at_its_timeout_has_failed(umpteen: Umpteen) -> None:
    command = "trap 'exit 0' TERM; sleep 9 & wait"
    job = {"tasks": [{"name": "0", "command": command, "timeout": 0.2}]}
    umpteen.write("job.json", json.dumps(job))
    umpteen("run", "job.json", "--results", "out")
    write_batch(umpteen, command, "true")
    said = split(umpteen, "--skip-failures")
    assert said["counts"] == {"unfinished": 1, "failed": 1, "completed": 0}


@pytest.mark.parametrize("where", ["batch.json", "c/0.json"])
def test_line_11_chunk_of_a_new_split_runs_what_it_schedules(umpteen: Umpteen, where: str) -> None:
    runs = [
        {"cmd": f"echo {n} >> ran; exit {4 * n}", "local_results_dir": f"{umpteen.folder}/l{n}/"}
        for n in range(2)
    ]
    write_batch(umpteen, runs=runs)
    split(umpteen)
    umpteen("batch", "c/0.json")
    umpteen.write("earlier.json", (umpteen.folder / "c/0.json").read_text())
    batch = "batch.json" if where == "batch.json" else "earlier.json"
    for count in (2, 3):
        split(umpteen, write_recipe(umpteen), batch, "c")
        umpteen("batch", "c/0.json")
        assert sorted((umpteen.folder / "ran").read_text()) == sorted("0\n1\n" * count)
    for count in (4, 5):
        split(umpteen, write_recipe(umpteen), batch, "c", "--skip-completed")
        umpteen("batch", "c/0.json")
        assert (umpteen.folder / "ran").read_text().split().count("1") == count
    assert (umpteen.folder / "ran").read_text().split().count("0") == 3
    assert len(list((umpteen.folder / "out/1/attempts").iterdir())) == 4
    assert not (umpteen.folder / "out/1/attempts/1-unrecorded").exists()


def test_line_11_outputs_that_are_gone_are_not_done(umpteen: Umpteen) -> None:
    write_batch(umpteen, "echo 0", "echo 1", "echo 2", "echo 3", "exit 4")
    umpteen("batch", "batch.json")
    shutil.rmtree(umpteen.folder / "out/1")
    (umpteen.folder / "out/2/status_code").unlink()
    (umpteen.folder / "out/3/stdout").unlink()
    said = split(umpteen, "--skip-completed")
    assert said["counts"] == {"unfinished": 3, "failed": 1, "completed": 1}
    assert sorted(read_commands(umpteen)) == ["echo 1", "echo 2", "echo 3", "exit 4"]
    done = json.loads(umpteen("summarize-batch", "batch.json", "--json").stdout)
    assert done["counts"] == {"unfinished": 3, "failed": 1, "completed": 1}


def test_line_11_what_another_tool_left_since_counts(umpteen: Umpteen) -> None:
    write_batch(umpteen, "true", "exit 3")
    umpteen("batch", "batch.json")
    finish(umpteen, "0", "1")
    finish(umpteen, "1", "0")
    said = split(umpteen, "--skip-completed")
    assert said["counts"] == {"unfinished": 0, "failed": 1, "completed": 1}
    assert read_commands(umpteen) == ["true"]


def test_line_12_status_code_0_is_success(umpteen: Umpteen) -> None:
    for name, content in {"0": "0", "1": "1", "2": "-9", "3": "0\n", "4": "127"}.items():
        finish(umpteen, name, content)
    write_batch(umpteen, *"abcdef")
    split(umpteen, "--skip-completed", "--batch-size", "9")
    runs = read_chunk(umpteen, 0)["runs"]
    assert [(run["cmd"], run["status_code"]) for run in runs] == [
        ("f", None), ("b", 1), ("c", -9), ("e", 127)]  # fmt: skip


# --- its code -----------------------------------------------------------------------------------


def test_line_13_run_without_a_path_gets_its_index(umpteen: Umpteen) -> None:
    top = str(umpteen.folder / "out")
    runs = [{"cmd": "a"}, {"cmd": "b", "remote_output_path": f"{top}/two"}, {"cmd": "c"}]
    write_batch(umpteen, runs=runs, remote_output_path=f"{top}/")
    split(umpteen, "--batch-size", "2")
    given = [run["remote_output_path"] for n in (0, 1) for run in read_chunk(umpteen, n)["runs"]]
    assert given == [f"{top}/0", f"{top}/two", f"{top}/2"]


def test_line_14_remote_commands_directory_is_in_command_and_script(umpteen: Umpteen) -> None:
    write_batch(umpteen, "true")
    split(umpteen, "--remote-commands-directory", "/opt/my commands/")
    spec = read_spec(umpteen)
    assert spec["command"] == ["sc batch '/opt/my commands/0.json'"]
    assert f"tar -xvzf {ARCHIVE} -C '/opt/my commands/'" in spec["start_script"]


def test_line_15_several_syncs_and_a_relative_place(umpteen: Umpteen) -> None:
    for name in ("one", "two", "three"):
        umpteen.write(f"{name}/a", name)
    write_batch(umpteen, "true")
    recipe = RECIPE.replace("  scale", "  working_directory: /work\n  scale")
    syncs = ("one", "two:pkg/two", "three:/opt/three/")
    write_recipe(umpteen, recipe)
    flags = [word for sync in syncs for word in ("--sync", sync)]
    said = split(umpteen, "recipe.yaml", "batch.json", "c", *flags)
    places = ["/work/one", "/work/pkg/two", "/opt/three", "/work/c"]
    assert [sync["dest"] for sync in said["syncs"]] == places
    script = read_spec(umpteen)["start_script"]
    assert re.findall(r"mkdir -p (.*)/$", script, re.MULTILINE) == places
    split(umpteen, "recipe.yaml", "batch.json", "c", *flags)
    umpteen.write("two/b", "more")
    said = split(umpteen, "recipe.yaml", "batch.json", "c", *flags)
    assert [sync["sent"] for sync in said["syncs"]] == [False, True, False, True]


def test_line_16_recipe_split_again_has_one_block(umpteen: Umpteen) -> None:
    write_batch(umpteen, "true")
    split(umpteen)
    once = (umpteen.folder / "c/recipe.yaml").read_text()
    split(umpteen, "c/recipe.yaml", "batch.json", "c")
    assert (umpteen.folder / "c/recipe.yaml").read_text() == once
    script = read_spec(umpteen)["start_script"]
    assert script.count("### BEGIN SATURN_CLIENT GENERATED CODE\n") == 1
    assert script.endswith("### END SATURN_CLIENT GENERATED CODE\npip install .\n")


def test_line_17_flags_count_before_the_files(umpteen: Umpteen) -> None:
    write_batch(umpteen, *"abcdef", nprocs=1)
    top = str(umpteen.folder / "other")
    said = split(
        umpteen,
        *("--batch-size", "2", "--max-jobs", "5", "--scale", "7", "--instance-type", "4xlarge"),
        *("--name", "again", "--remote-output-path", top),
    )
    spec = read_spec(umpteen)
    assert (spec["scale"], spec["instance_type"], spec["name"]) == (7, "4xlarge", "again")
    assert (said["runs"], said["chunks"]) == (5, 3)
    assert read_commands(umpteen) == list("abcde")
    assert read_chunk(umpteen, 2)["remote_output_path"] == top
    assert read_chunk(umpteen, 2)["runs"][0]["remote_output_path"] == f"{top}/4"


def test_line_18_old_chunks_go_and_nothing_else(umpteen: Umpteen) -> None:
    write_batch(umpteen, *["true"] * 20)
    split(umpteen, "--batch-size", "1")
    for name in ("notes.json", "1a.json", "x1.json", "1.json.bak"):
        umpteen.write(f"c/{name}", "mine")
    split(umpteen, "--batch-size", "10")
    assert {path.name for path in (umpteen.folder / "c").iterdir()} == {
        "0.json", "1.json", "recipe.yaml", "notes.json", "1a.json", "x1.json", "1.json.bak",
    }  # fmt: skip


@pytest.mark.parametrize("sync", [("--sync", "code"), ()], ids=["a folder", "the commands alone"])
def test_line_18_split_that_fails_leaves_the_old_set(
    umpteen: Umpteen, sync: tuple[str, ...]
) -> None:
    write_batch(umpteen, *"abc", nprocs=1)
    split(umpteen, "--batch-size", "1")
    before = {path: path.read_bytes() for path in (umpteen.folder / "c").iterdir()}
    write_batch(umpteen, *"defg", nprocs=1)
    umpteen.write("blocked", "a file, no folder")
    place = ("--file-syncs-base-dir-url", umpteen.folder / "blocked")
    umpteen.write("code/a", "")
    done = umpteen("split", "recipe.yaml", "batch.json", "c", *sync, *place)
    assert done.returncode == 3, done.stderr
    assert {path: path.read_bytes() for path in (umpteen.folder / "c").iterdir()} == before


# The installed command, killed when it has renamed or removed so many files of the folder.
KILLED = """
import os, signal, sys
left = int(sys.argv.pop(1))
def see(event, arguments):
    global left
    if event in ("os.rename", "os.remove") and "/c/" in str(arguments[0]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(see)
from umpteen.cli.main import main
sys.exit(main())
"""


def test_line_18_split_that_is_killed_mixes_no_chunks(umpteen: Umpteen) -> None:
    folder, saved = umpteen.folder / "c", umpteen.folder / "saved"
    old, new = "abcd", "uvwxyz"
    write_batch(umpteen, *old, nprocs=1)
    split(umpteen, "--batch-size", "1")
    shutil.copytree(folder, saved)
    write_batch(umpteen, *new, nprocs=1)
    flags = ("split", "recipe.yaml", "batch.json", "c", "--batch-size", "1")
    seen = set()

    def split_and_kill(number: int) -> int:
        shutil.rmtree(folder)
        shutil.copytree(saved, folder)
        command = [sys.executable, "-c", KILLED, str(number), *flags]
        return subprocess.run(
            command, cwd=umpteen.folder, env=umpteen.environment, check=False
        ).returncode

    for number in itertools.count():
        returned = split_and_kill(number)
        chunks = [json.loads((folder / name).read_bytes()) for name in list_chunks(umpteen)]
        found = {run["cmd"] for chunk in chunks for run in chunk["runs"]}
        assert found <= set(old) or found <= set(new), (number, found)
        whole = old if found <= set(old) else new
        assert not found or len(read_spec(umpteen)["command"]) == len(whole), (number, found)
        seen.add("".join(sorted(found)))
        if returned == 0:
            break
        assert returned == -signal.SIGKILL
    assert len(seen) == len(old) + len(new) + 1  # so it was killed before and after each

    assert split_and_kill(7) == -signal.SIGKILL
    assert list(folder.glob(".umpteen-split-*"))
    split(umpteen, "--batch-size", "1")
    assert read_commands(umpteen) == list(new)
    assert len(list(folder.iterdir())) == len(new) + 1


def test_an_archive_that_another_tool_put_there_since_is_replaced(umpteen: Umpteen) -> None:
    write_batch(umpteen, "true")
    umpteen.write("code/a", "v1")
    assert [each["sent"] for each in split(umpteen, "--sync", "code")["syncs"]] == [True, True]
    assert not split(umpteen, "--sync", "code")["syncs"][0]["sent"]
    archive = umpteen.folder / "out/.umpteen/split/home/jovyan/workspace/code/data.tar.gz"
    ours = archive.read_bytes()
    umpteen.write("theirs/a", "v2")
    with tarfile.open(archive, "w:gz") as theirs:
        theirs.add(umpteen.folder / "theirs", "")
    assert split(umpteen, "--sync", "code")["syncs"][0]["sent"]
    assert archive.read_bytes() == ours
    assert not split(umpteen, "--sync", "code")["syncs"][0]["sent"]
    archive.unlink()
    assert split(umpteen, "--sync", "code")["syncs"][0]["sent"]


def test_what_is_left_out_of_a_folder_is_named(umpteen: Umpteen) -> None:
    write_batch(umpteen, "true")
    umpteen.write("code/.gitignore", "data/\n.env\n")
    for name in ("data/a", ".env", "main.py"):
        umpteen.write(f"code/{name}", "")
    arguments = ("split", write_recipe(umpteen), "batch.json", "c", "--sync", "code")
    assert "left out .env, data/, by ignore rules" in umpteen(*arguments).stdout
    first, own = split(umpteen, "--sync", "code")["syncs"]
    assert (first["left_out"], own["left_out"]) == ([".env", "data/"], [])


def test_a_link_out_of_a_folder_is_sent_as_a_link_with_a_note(umpteen: Umpteen) -> None:
    write_batch(umpteen, "true")
    umpteen.write("code/bin/a", "")
    os.symlink("/usr/bin/python3", umpteen.folder / "code/bin/python")
    arguments = ("split", write_recipe(umpteen), "batch.json", "c", "--sync", "code")
    done = umpteen(*arguments)
    assert done.returncode == 0, done.stderr
    assert "note: code/bin/python is sent as a link to /usr/bin/python3" in done.stderr
    archive = umpteen.folder / "out/.umpteen/split/home/jovyan/workspace/code/data.tar.gz"
    with tarfile.open(archive) as tar:
        assert tar.getmember("bin/python").linkname == "/usr/bin/python3"


def test_line_18_nothing_left_to_run_is_no_command(umpteen: Umpteen) -> None:
    umpteen("batch", write_batch(umpteen, "true"))
    split(umpteen)
    split(umpteen, "--skip-completed")
    assert (list_chunks(umpteen), read_spec(umpteen)["command"]) == ([], [])


def test_line_19_nprocs_counts_where_the_batch_has_none(umpteen: Umpteen) -> None:
    write_batch(umpteen, *["true"] * 20, nprocs=None)
    split(umpteen, "--nprocs", "3")
    assert read_chunk(umpteen, 0)["nprocs"] == 3
    assert len(read_chunk(umpteen, 0)["runs"]) == 9
    write_batch(umpteen, *["true"] * 20)
    done = umpteen("split", "recipe.yaml", "batch.json", "c", "--nprocs", "3")
    assert "batch.json says nprocs 2, which counts" in done.stderr
    assert read_chunk(umpteen, 0)["nprocs"] == 2


def test_line_19_nprocs_nowhere_is_refused(umpteen: Umpteen) -> None:
    batch = write_batch(umpteen, "true", nprocs=None)
    done = umpteen("split", write_recipe(umpteen), batch, "c")
    expect_refusal(done, "batch.json", "no 'nprocs'", "--nprocs")


def test_line_20_machine_fetches_from_s3(umpteen: Umpteen, s3: S3, tmp_path: Path) -> None:
    env = {
        "AWS_ACCESS_KEY_ID": s3.key,
        "AWS_SECRET_ACCESS_KEY": s3.secret,
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    machine = tmp_path / "my machine"
    umpteen.write("code/print.sh", "echo from s3\n")
    write_batch(umpteen, f"sh '{machine}/code/print.sh'")
    flags = (
        *("--sync", f"code:{machine}/code"),
        *("--remote-commands-directory", str(machine / "commands")),
        *("--file-syncs-base-dir-url", f"s3://{s3.bucket}/syncs/"),
    )
    write_recipe(umpteen, RECIPE.replace("pip install .", "echo set up"))
    said = split(umpteen, "recipe.yaml", "batch.json", "c", *flags, env=env)
    url = f"s3://{s3.bucket}/syncs{machine}/code/data.tar.gz"
    assert said["syncs"][0]["url"] == url
    assert f"aws s3 cp '{url}' {ARCHIVE}\n" in read_spec(umpteen)["start_script"]
    run_recipe(umpteen, **env)
    assert (umpteen.folder / "out/0/stdout").read_text() == "from s3\n"
    again = split(umpteen, "recipe.yaml", "batch.json", "c", *flags, env=env)
    assert again["syncs"][0]["sent"] is False


def test_line_20_status_codes_are_found_on_s3(umpteen: Umpteen, s3: S3) -> None:
    store = open_store(f"s3://{s3.bucket}/out", s3.options)
    for key, content in {"a": b"0", "b/c": b"4", "d": b"None"}.items():
        store.replace(f"{key}/status_code", content)
    store.close()
    top = f"s3://{s3.bucket}/out/"
    runs = [{"cmd": key, "remote_output_path": top + key} for key in ("a", "b/c", "d", "e")]
    write_batch(umpteen, runs=runs, remote_output_path=top)
    options = {"UMPTEEN_RESULTS_OPTIONS": json.dumps(s3.options)}
    split(umpteen, "--skip-completed", env=options)
    assert read_commands(umpteen) == ["d", "e", "b/c"]
    place = f"aws s3 cp s3://{s3.bucket}/out/.umpteen/split/home/jovyan/workspace/c/data.tar.gz"
    assert place in read_spec(umpteen)["start_script"]


def test_a_batch_without_runs_is_a_recipe_without_commands(umpteen: Umpteen) -> None:
    write_batch(umpteen)
    umpteen.write("c/0.json", "of an earlier split")
    assert split(umpteen)["runs"] == 0
    assert read_spec(umpteen)["command"] == []
    assert list_chunks(umpteen) == []


def test_line_21_summary_is_a_table(umpteen: Umpteen) -> None:
    for name, content in {"0": "0", "1": "7", "3": "0"}.items():
        finish(umpteen, name, content)
    batch = write_batch(umpteen, "a", "b", "c", "d", remote_output_path=f"{umpteen.folder}/x")
    done = umpteen("summarize-batch", batch, "--remote-output-path", umpteen.folder / "out")
    assert done.returncode == 0, done.stderr
    rows = [re.split(" {4,}", line) for line in done.stdout.splitlines()]
    out = f"{umpteen.folder}/out"
    assert rows[0] == ["status", "status_code", "remote_output_path", "cmd"]
    assert set("".join(rows[1])) == {"-"}
    assert rows[2:] == [
        ["error", "7", f"{out}/1", "b"],
        ["completed", "0", f"{out}/0", "a"],
        ["completed", "0", f"{out}/3", "d"],
        ["", f"{out}/2", "c"],
    ]
    said = json.loads(umpteen("summarize-batch", batch, "--json").stdout)
    assert said["counts"] == {"unfinished": 4, "failed": 0, "completed": 0}


def test_line_22_rank_is_unique_among_what_runs(umpteen: Umpteen) -> None:
    take = "mkdir rank.$SATURN_RUN_LOCAL_RANK && sleep 0.05 && rmdir rank.$SATURN_RUN_LOCAL_RANK"
    write_batch(umpteen, *[f"{take} && echo $SATURN_RUN_LOCAL_RANK"] * 12, nprocs=3)
    split(umpteen, "--batch-size", "12")
    done = umpteen("batch", "c/0.json", "--strict")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"0", "1", "2"}


def test_line_23_failure_stops_no_other(umpteen: Umpteen) -> None:
    write_batch(umpteen, "exit 3", "kill -9 $$", "no-such-program", "echo last", nprocs=1)
    split(umpteen, "--batch-size", "4")
    assert umpteen("batch", "c/0.json").returncode == 0
    codes = [(umpteen.folder / f"out/{n}/status_code").read_text() for n in range(4)]
    assert codes == ["3", "-9", "127", "0"]
    assert umpteen("batch", "c/0.json", "--strict").returncode == 1


def test_line_24_outputs_are_echoed(umpteen: Umpteen) -> None:
    batch = write_batch(umpteen, "echo a; echo b >&2; echo c", "printf d; exit 1", nprocs=1)
    done = umpteen("batch", batch)
    assert (done.stdout, done.stderr) == ("a\nc\nd", "b\n")
    assert umpteen("batch", batch).stdout == "d"  # what succeeded runs no second time


@pytest.mark.parametrize("flag", ["--no-echo", "--quiet"])
def test_line_24_outputs_are_not_echoed_if_not_wanted(umpteen: Umpteen, flag: str) -> None:
    done = umpteen("batch", write_batch(umpteen, "echo a; echo b >&2"), flag)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_line_24_echo_to_a_closed_pipe_harms_no_run(umpteen: Umpteen) -> None:
    batch = write_batch(umpteen, *["echo $((1 + 1))"] * 5, nprocs=1)
    command = subprocess.list2cmdline([*umpteen.command, "batch", batch])
    subprocess.run(
        ["sh", "-c", f"{command} | true"], cwd=umpteen.folder, env=umpteen.environment, check=True
    )
    assert [(umpteen.folder / f"out/{n}/stdout").read_text() for n in range(5)] == ["2\n"] * 5


# --- what it does wrong -------------------------------------------------------------------------


def test_line_25_no_service_and_no_token_is_needed(umpteen: Umpteen) -> None:
    write_batch(umpteen, "echo a", remote_output_path=f"file://{umpteen.folder}/out/")
    assert not any(name.startswith("SATURN") for name in umpteen.environment)
    split(umpteen)
    assert umpteen("batch", "c/0.json").stdout == "a\n"
    assert umpteen("summarize-batch", "batch.json").returncode == 0


@pytest.mark.parametrize("written", ["{top}", "{top}/", "file://{top}", "out", "./out/"])
def test_line_26_any_spelling_of_a_place_is_known(umpteen: Umpteen, written: str) -> None:
    finish(umpteen, "0", "0")
    top = written.format(top=umpteen.folder / "out")
    write_batch(umpteen, "a", "b", remote_output_path=top)
    split(umpteen, "--skip-completed")
    assert read_commands(umpteen) == ["b"]


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_a_percent_sign_in_an_address_is_one(umpteen: Umpteen, scheme: str) -> None:
    top = f"{scheme}{umpteen.folder}/out"
    runs = [{"cmd": f"echo {n}", "remote_output_path": f"{top}/{n}"} for n in ("a b", "a%20b", "%")]
    write_batch(umpteen, remote_output_path=top, runs=runs)
    split(umpteen)
    assert umpteen("batch", "c/0.json", "--strict").returncode == 0
    for name in ("a b", "a%20b", "%"):
        assert (umpteen.folder / "out" / name / "stdout").read_text() == f"{name}\n"
    finish(umpteen, "a%20b", "3")
    shutil.rmtree(umpteen.folder / "out/.umpteen")
    assert split(umpteen, "--skip-completed")["counts"]["failed"] == 1
    assert read_commands(umpteen) == ["echo a%20b"]


def test_line_27_runs_deeper_or_elsewhere_are_known(umpteen: Umpteen, tmp_path: Path) -> None:
    places = ["out/x/y", "out/x/z", f"{tmp_path}/elsewhere/a", "out/q", "memory/1"]
    for place in places[:3]:
        path = umpteen.folder / place / "status_code"
        path.parent.mkdir(parents=True)
        path.write_text("0")
    runs = [{"cmd": place, "remote_output_path": place} for place in places]
    write_batch(umpteen, runs=runs)
    split(umpteen, "--skip-completed")
    assert read_commands(umpteen) == places[3:]


def test_line_28_bytes_that_are_no_text_are_kept_and_echoed(umpteen: Umpteen) -> None:
    batch = write_batch(umpteen, r"printf '\377\000\200\r\n'; printf '\376' >&2")
    done = subprocess.run(
        [*umpteen.command, "batch", batch],
        cwd=umpteen.folder,
        env=umpteen.environment,
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"\xff\0\x80\r\n", b"\xfe")
    assert (umpteen.folder / "out/0/stdout").read_bytes() == done.stdout
    assert (umpteen.folder / "out/0/status_code").read_text() == "0"


def test_line_29_result_of_equal_size_is_replaced(umpteen: Umpteen) -> None:
    for content in ("one", "two"):
        batch = write_batch(umpteen, f"echo {content} > $SATURN_RUN_LOCAL_RESULTS_DIR/a")
        split(umpteen, "recipe.yaml" if content == "two" else write_recipe(umpteen), batch, "c")
        assert umpteen("batch", "c/0.json").returncode == 0
        assert (umpteen.folder / "out/0/results/a").read_text() == f"{content}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_line_30_interrupted_run_is_unfinished(umpteen: Umpteen, number: int) -> None:
    batch = write_batch(umpteen, "true", "touch begun; sleep 600", "touch third", nprocs=1)
    running = umpteen.start("batch", batch)
    wait_until((umpteen.folder / "begun").exists)
    wait_until(lambda: list_records(umpteen.folder / "out"))
    running.send_signal(number)
    running.communicate(timeout=30)
    assert not (umpteen.folder / "out/1/status_code").exists()
    said = split(umpteen, "--skip-completed", "--skip-failures")
    assert said["counts"] == {"unfinished": 2, "failed": 0, "completed": 1}
    assert not (umpteen.folder / "third").exists()
    for pid in list_processes(umpteen):  # what a killed runner leaves, the next one ends
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("content", [b"None", b"", b"\xff\0", b"1e3", b"0" * 5000 + b"x"])
def test_line_30_status_code_that_is_no_number_is_unfinished(
    umpteen: Umpteen, content: bytes
) -> None:
    finish(umpteen, "0", content)
    finish(umpteen, "1", "0")
    write_batch(umpteen, "a", "b")
    said = split(umpteen, "--skip-completed", "--skip-failures")
    assert said["counts"] == {"unfinished": 1, "failed": 0, "completed": 1}
    assert umpteen("summarize-batch", "batch.json").returncode == 0


def test_line_31_paths_with_blanks_and_quotes(umpteen: Umpteen, hostile_path: Path) -> None:
    machine = hostile_path / "on the machine"
    umpteen.write("my code/a b.sh", "echo hostile\n")
    write_batch(umpteen, 'sh "$PWD/on the machine/code/a b.sh"')
    write_recipe(umpteen, RECIPE.replace("pip install .", "echo set up"))
    split(
        umpteen,
        *("recipe.yaml", "batch.json", "my commands"),
        *("--sync", f"my code:{machine}/code"),
        *("--remote-commands-directory", str(machine / "commands")),
        *("--file-syncs-base-dir-url", str(hostile_path / "base")),
    )
    os.symlink(machine, umpteen.home / "on the machine")
    run_recipe(umpteen, "my commands")
    assert (umpteen.folder / "out/0/stdout").read_text() == "hostile\n"


def test_line_32_git_and_caches_stay_here(umpteen: Umpteen, tmp_path: Path) -> None:
    for name in ("a.py", ".git/config", "x/__pycache__/a.pyc", ".mypy_cache/b", ".idea/c",
                 ".pytest_cache/d", "x/.ipynb_checkpoints/e", "x/b.py", "x/c.git/f"):  # fmt: skip
        umpteen.write(f"code/{name}", name)
    write_batch(umpteen, "true")
    base = tmp_path / "base"
    split(umpteen, "--sync", "code:/code", "--file-syncs-base-dir-url", str(base))
    with tarfile.open(base / "code/data.tar.gz") as tar:
        files = {member.name for member in tar if member.isfile()}
    assert files == {"a.py", "x/b.py", "x/c.git/f"}


# --- what is refused ----------------------------------------------------------------------------

HEAD = '{"nprocs": 1, "remote_output_path": "out", '
RUNS = '"runs": [{"cmd": "true"}]}'
REFUSED = {
    "recipe without spec": ("type: job\n", "{}", [], ["recipe.yaml", "no 'spec'"]),
    "recipe that is a list": ("- a\n", "{}", [], ["recipe.yaml", "no 'spec'"]),
    "recipe with a spec of words": ("spec: words\n", "{}", [], ["recipe.yaml, line 1", "mapping"]),
    "recipe without instance": (
        "spec:\n  scale: 1\n",
        HEAD + RUNS,
        [],
        ["recipe.yaml, line 1", "no 'instance_type'", "--instance-type"],
    ),
    "recipe without scale": (
        "spec:\n  instance_type: a\n  scale:\n",
        HEAD + RUNS,
        [],
        ["recipe.yaml, line 3", "no 'scale'", "--scale"],
    ),
    "malformed recipe": ("spec: {a: b: c}\n", "{}", [], ["recipe.yaml, line 1, column"]),
    "no slots": (RECIPE, '{\n"nprocs": 0, ' + RUNS, [], ["batch.json, line 2", "nprocs"]),
    "no slots as a flag": (RECIPE, "{" + RUNS, ["--nprocs", "0"], ["--nprocs"]),
    "batch size 0": (RECIPE, "{" + RUNS, ["--batch-size", "0"], ["--batch-size"]),
    "no place": (RECIPE, '{"nprocs": 1, ' + RUNS, [], ["batch.json", "remote_output_path"]),
    "no key for runs": (RECIPE, '{"nprocs": 1}', [], ["batch.json", "no 'runs'"]),
    "cut off": (RECIPE, '{"nprocs": 1,\n"runs": [{"cmd": "tr', [], ["batch.json, line 2"]),
    "unknown key of a run": (
        RECIPE,
        '{"runs": [{"cmd": "a"},\n{"cmd": "b", "comand": "c"}]}',
        [],
        ["batch.json, line 2", "unknown key 'comand'"],
    ),
    "run without cmd": (
        RECIPE,
        '{"nprocs": 1, "remote_output_path": "out", "runs": [{"cmd": "a"},\n{"cmd": " "}]}',
        [],
        ["batch.json, line 2", "run 1 has no cmd"],
    ),
    "two runs with one path": (
        RECIPE,
        HEAD + '"runs": [{"cmd": "a"},\n{"cmd": "b", "remote_output_path": "out/0/"}]}',
        [],
        ["batch.json, line 2", "runs 0 and 1 have one remote_output_path"],
    ),
    "batch of a job of ours": (
        RECIPE,
        HEAD + '"umpteen": {}, ' + RUNS,
        [],
        ["batch.json", "of a job that umpteen runs"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_split_of_bad_files_is_refused_and_writes_nothing(umpteen: Umpteen, case: str) -> None:
    recipe, batch, flags, needles = REFUSED[case]
    umpteen.write("batch.json", batch)
    write_recipe(umpteen, recipe)
    expect_refusal(umpteen("split", "recipe.yaml", "batch.json", "c", *flags), *needles)
    assert {path.name for path in umpteen.folder.iterdir()} == {"recipe.yaml", "batch.json"}


@pytest.mark.parametrize(
    ("flags", "needles"),
    [
        (["--sync", "nowhere"], ["nowhere", "no such folder"]),
        (["--sync", "batch.json"], ["batch.json", "no folder"]),
        (["--sync", "a:b:c"], ["more than one colon"]),
        (["--sync", "code", "--sync", "more:code"], ["both be at", "code"]),
        (["--file-syncs-base-dir-url", "gs://bucket/x"], ["cannot fetch from gs://"]),
        (["--file-syncs-base-dir-url", "s4://bucket/x"], ["s4://"]),
        (["--remote-output-path", "gs://bucket/x"], ["gs://", "--file-syncs-base-dir-url"]),
        (["--local-commands-directory", "d"], ["LOCAL_DIR"]),
        (["--max-job", "3"], ["did you mean '--max-jobs'"]),
        (["--command", " "], ["--command"]),
    ],
)
def test_split_with_bad_flags_is_refused_and_writes_nothing(
    umpteen: Umpteen, flags: list[str], needles: list[str]
) -> None:
    write_recipe(umpteen)
    umpteen.write("code/a", "")
    umpteen.write("more/a", "")
    done = umpteen("split", "recipe.yaml", write_batch(umpteen, "true"), "c", *flags)
    expect_refusal(done, *needles)
    kept = {"recipe.yaml", "batch.json", "code", "more"}
    assert {path.name for path in umpteen.folder.iterdir()} == kept


def test_split_of_a_chunk_into_its_own_folder_is_refused(umpteen: Umpteen) -> None:
    write_batch(umpteen, "true")
    split(umpteen)
    done = umpteen("split", "recipe.yaml", "c/0.json", "c", "--batch-size", "1")
    expect_refusal(done, "c/0.json", "would be replaced")


@pytest.mark.parametrize("rule", ["*", "0.json"])
def test_split_leaves_out_no_chunk_by_a_rule_of_its_folder(umpteen: Umpteen, rule: str) -> None:
    write_batch(umpteen, "true")
    umpteen.write("c/.gitignore", f"{rule}\n")
    done = umpteen("split", write_recipe(umpteen), "batch.json", "c")
    expect_refusal(done, "c: a .gitignore", "leaves out chunks")


def test_split_says_what_it_did(umpteen: Umpteen) -> None:
    umpteen.write("code/a", "abc")
    finish(umpteen, "0", "0")
    write_batch(umpteen, *["true"] * 8)
    recipe = write_recipe(umpteen)
    done = umpteen("split", recipe, "batch.json", "c", "--sync", "code", "--skip-completed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [
        "7 unfinished, 0 failed, 1 completed (skipped)",
        "7 runs in 2 chunks of 6 (3 * nprocs), in c",
        "  sent       code (1 file, 3 bytes) for /home/jovyan/workspace/code",
    ]


# --- what the original wrote --------------------------------------------------------------------

ORIGINAL_CHUNK = (
    '{{"runs": [{{"remote_output_path": "{top}/0", "cmd": "echo a", "local_results_dir": '
    '"{top}/l0/", "status_code": null, "status": null}}, {{"remote_output_path": "{top}/1", '
    '"cmd": "exit 2", "local_results_dir": "{top}/l1/", "status_code": 2, "status": "error"}}], '
    '"remote_output_path": "{top}", "nprocs": 2}}'
)
ORIGINAL_RECIPE = r"""spec:
  name: d
  instance_type: l
  scale: 1
  start_script: "### BEGIN SATURN_CLIENT GENERATED CODE\ncp /base/m/code/data.tar.gz
    /tmp/data.tar.gz\nmkdir -p /m/code/\ntar -xvzf /tmp/data.tar.gz -C /m/code/\n###
    END SATURN_CLIENT GENERATED CODE\necho old\n"
  command:
  - sc batch /m/commands/0.json
  - sc batch /m/commands/1.json
"""


def test_split_of_what_the_original_wrote(umpteen: Umpteen) -> None:
    umpteen.write("0.json", ORIGINAL_CHUNK.format(top=umpteen.folder / "out"))
    assert umpteen("batch", "0.json").stdout == "a\n"
    write_recipe(umpteen, ORIGINAL_RECIPE)
    split(umpteen, "recipe.yaml", "0.json", "c", "--skip-completed")
    (run,) = read_chunk(umpteen, 0)["runs"]
    assert (run["cmd"], run["status_code"], run["status"]) == ("exit 2", 2, "error")
    script = read_spec(umpteen)["start_script"]
    assert script.count("SATURN_CLIENT") == 2
    assert script.endswith("### END SATURN_CLIENT GENERATED CODE\necho old\n")
    assert "/base/m/code" not in script
