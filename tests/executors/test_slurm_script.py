"""The script that runs a batch on a node, by a real bash."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen._version import __version__
from umpteen.executors.slurm.arrays import ArrayJob, ArrayNeeds
from umpteen.executors.slurm.script import (
    UNSEEN,
    ScriptPlaces,
    build_elements,
    build_job_name,
    build_sbatch_options,
    build_script,
    build_submitter,
    build_submitter_options,
)
from umpteen.runner.slurm.commands import build_sbatch

MEGABYTE = 1 << 20
# Stands for python3: says what it was called with.
PROGRAM = f"""#!{sys.executable} -S
import os, sys
words = [*sys.argv[1:], os.environ["UMPTEEN_RUNNER"]]
sys.stdout.buffer.write(b"\\0".join(map(os.fsencode, words)))
"""


def make_options(array: ArrayJob, slots: int = 1, **given: str) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in given.items()}
    return build_sbatch_options(array, named, slots, "job-ab-0", [])


def run_script(folder: Path, address: str, batches: tuple[str, ...], index: int) -> list[str]:
    """What the runner is called with on the node."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "python3").write_text(PROGRAM)
    (programs / "python3").chmod(0o755)
    logs = Path(address) / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    runner = Path(address) / "runner.zip"
    runner.touch()
    array = ArrayJob(batches, ArrayNeeds())
    places = ScriptPlaces(address, "ab12", str(runner), "logs")
    script = build_script(array, make_options(array), places, 1)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": str(index)}
    done = subprocess.run(
        ["bash"], input=script.encode(), env=environment, capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    log = (logs / f"{batches[index]}.log").read_bytes()
    (logs / f"{batches[index]}.log").unlink()
    return os.fsdecode(log).split("\0")


@given(
    name=st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
    )
)
def test_script_quotes_whatever_the_results_folder_is_called(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp("script")
    address = str(folder / f"x{name}")
    words = run_script(folder, address, ("5", "9"), 1)
    assert words[4:7] == [f"{address}/runner.zip", address, "9"]


def test_script_runs_the_batch_of_its_element(tmp_path: Path, hostile_path: Path) -> None:
    words = run_script(tmp_path, str(hostile_path), ("7", "8", "9"), 2)
    assert words[:4] == ["-S", "-E", "-c", words[3]]
    assert words[6] == "9"
    token = words[-1]
    assert re.fullmatch("[0-9a-f]{12}", token)
    assert words[7:-1] == [
        f"--token={token}", "--store=ab12", "--slots=1", "--cpus=1", "--take-over",
    ]  # fmt: skip


def test_script_that_sees_no_results_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    array = ArrayJob(("1",), ArrayNeeds())
    places = ScriptPlaces(str(tmp_path), "ab12", f"{tmp_path}/none.zip", "logs")
    script = build_script(array, make_options(array), places, 1)
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "0"}
    done = subprocess.run(["bash"], input=script.encode(), env=environment, check=False)
    assert done.returncode == UNSEEN
    (tmp_path / "none.zip").touch()  # and no folder for logs
    done = subprocess.run(
        ["bash"], input=script.encode(), env=environment, stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == UNSEEN


def test_script_says_in_its_head_what_it_is() -> None:
    array = ArrayJob(("1", "2"), ArrayNeeds())
    options = make_options(array, partition="main", comment="a 'b'; $(id)")
    head, _, _ = build_script(array, options, ScriptPlaces("/r", "ab", "/z", "l"), 1).partition(
        "\n\n"
    )
    assert f"umpteen {__version__}: 2 batches" in head
    assert "#SBATCH --partition=main\n" in head
    assert all(line.startswith("#") for line in head.splitlines())
    assert set(build_sbatch(options)[2:]) >= {"--comment=a 'b'; $(id)", "--array=0-1"}


def test_tasks_needs_become_requests_for_all_slots() -> None:
    array = ArrayJob(("1",), ArrayNeeds(cpus=2, memory=3 * MEGABYTE + 1, gpus=1))
    options = make_options(array, slots=4, mem_per_cpu="1G")
    wanted = {"cpus-per-task": "8", "mem": "13M", "gres": "gpu:4", "array": "0", "requeue": ""}
    assert wanted.items() <= options.items()
    assert "mem-per-cpu" not in options


@pytest.mark.parametrize(
    ("given", "needed", "told"),
    [({"mem": "2G"}, 0, 2 << 30), ({"mem": "300"}, 0, 300 << 20), ({"mem": "0"}, 0, None),
     ({}, 0, None), ({}, 3 * MEGABYTE, 12 << 20), ({"mem_per_cpu": "1G"}, 0, None)],
)  # fmt: skip
def test_runner_is_told_what_memory_its_element_has(
    given: dict[str, str], needed: int, told: int | None
) -> None:
    array = ArrayJob(("1",), ArrayNeeds(memory=needed))
    options = make_options(array, slots=4, **given)
    script = build_script(array, options, ScriptPlaces("/r", "ab", "/z", "l"), 4)
    found = re.search(r"--memory=(\d+) ", script)
    assert (int(found[1]) if found else None) == told


@pytest.mark.parametrize(("limit_s", "told"), [(0, False), (20, False), (3600, True)])
def test_runner_is_told_when_slurm_warns_it(tmp_path: Path, limit_s: int, told: bool) -> None:
    (tmp_path / "runner.zip").touch()
    (tmp_path / "logs").mkdir()
    (tmp_path / "python3").write_text(PROGRAM)
    (tmp_path / "python3").chmod(0o755)
    array = ArrayJob(("1",), ArrayNeeds())
    places = ScriptPlaces(str(tmp_path), "ab12", f"{tmp_path}/runner.zip", "logs")
    script = build_script(array, make_options(array), places, 1, limit_s=limit_s)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "0"}
    before_s = int(time.time())
    subprocess.run(["bash"], input=script.encode(), env=environment, check=True)
    words = (tmp_path / "logs/1.log").read_text().split("\0")
    until = [int(word.partition("=")[2]) for word in words if word.startswith("--until=")]
    assert len(until) == told
    assert all(before_s + 3570 <= each <= time.time() + 3570 for each in until)


@pytest.mark.parametrize(
    ("signal", "left_s"), [("B:TERM@600", 3000), ("TERM", 3540), ("B:TERM@30", 3570)]
)
def test_time_is_reckoned_from_the_scripts_start_to_its_signal(signal: str, left_s: int) -> None:
    array = ArrayJob(("1",), ArrayNeeds())
    places = ScriptPlaces("/r", "ab12", "/z", "logs")
    options = make_options(array, signal=signal)
    script = build_script(array, options, places, 1, ["conda activate x"], 3600)
    assert f"until=$(($(date +%s) + {left_s}))" in script
    assert script.index("until=") < script.index("conda activate x") < script.index('"$until"')


def test_what_the_user_says_of_gpus_cpus_and_signals_stands() -> None:
    array = ArrayJob(("1",), ArrayNeeds(cpus=2, gpus=1))
    options = make_options(array, gres="gpu:a100:2", cpus_per_task="6", signal="B:TERM@120")
    assert (options["gres"], options["cpus-per-task"]) == ("gpu:a100:2", "6")
    assert options["signal"] == "B:TERM@120"


def test_what_a_task_says_is_laid_over_what_holds_for_all() -> None:
    own = (("mem-per-cpu", "2G"), ("time", "5:00"), ("gres", "gpu:a100:1"))
    array = ArrayJob(("1",), ArrayNeeds(memory=MEGABYTE, gpus=3, options=own))
    options = make_options(array, mem="1G", time="90:00", partition="main")
    assert dict([*own, ("partition", "main")]).items() <= options.items()
    assert "mem" not in options


def test_name_that_a_task_gives_is_slurms_and_ours_is_in_the_comment() -> None:
    array = ArrayJob(("1",), ArrayNeeds(options=(("job-name", "train"),)))
    options = make_options(array, job_name="other", comment="why not")
    assert (options["job-name"], options["comment"]) == ("train", "why not job-ab-0")
    assert make_options(array)["comment"] == "job-ab-0"


def test_tasks_of_a_bundle_say_how_many_nodes_and_elements_at_once() -> None:
    own = (("nodes", "2"), ("ntasks-per-node", "3"), ("array", "%2"))
    options = make_options(ArrayJob(("1", "2"), ArrayNeeds(options=own)))
    assert (options["nodes"], options["ntasks-per-node"]) == ("2", "3")
    assert "ntasks" not in options
    assert options["array"] == "0-1%2"


def test_dependencies_come_behind_the_users_own() -> None:
    array = ArrayJob(("1",), ArrayNeeds())
    options = build_sbatch_options(array, {"dependency": "afterok:5"}, 1, "j", ["12_3", "13"])
    assert options["dependency"] == "afterok:5,afterany:12_3:13"


def test_job_that_submits_others_goes_where_they_do_and_needs_little() -> None:
    given = {"partition": "main", "account": "lab", "gres": "gpu:4", "mem": "4G", "time": "2:00:00"}
    options = build_submitter_options(given, "umpteen-ab12-submitter", 15)
    assert (options["partition"], options["account"], options["time"]) == ("main", "lab", "15")
    assert (options["cpus-per-task"], options["mem"]) == ("1", "100M")
    assert "gres" not in options
    script = build_submitter(options, ScriptPlaces("/a b", "ab", "/z", "l"), "ab12")
    assert "#SBATCH --dependency=singleton\n" in script
    assert "results='/a b'\n" in script


def test_name_of_an_array_has_its_mark() -> None:
    assert build_job_name("we ird|$(id)", "ab12", 3) == "we_ird___id_-ab12-3"


def test_elements_are_named_as_scancel_takes_them() -> None:
    assert build_elements(12, [4, 0, 1, 2]) == "12_[0-2,4]"
