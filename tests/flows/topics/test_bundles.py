"""What milex-scheduler promises of bundles, a test for each line of what must work."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.milex import write_app
from umpteen.bundles.bundle_file import parse_jobs
from umpteen.bundles.script import build_script
from umpteen.config.machines import Machine

Schedule = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def apps(umpteen: Umpteen, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the programs `app` and `other`, on PATH."""
    folder = umpteen.folder / "bin"
    for name in ("app", "other"):
        write_app(folder, name)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.fixture
def schedule(umpteen: Umpteen) -> Schedule:
    """`schedule("app", "--time=1")` is what it says with --json."""

    def run(*arguments: str) -> dict[str, Any]:
        done = umpteen("schedule", "--json", *arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    return run


def read(told: dict[str, Any]) -> dict[str, Any]:
    """The jobs in the file that it names."""
    found: dict[str, Any] = json.loads(Path(told["path"]).read_text())
    return found


def list_files(umpteen: Umpteen) -> list[str]:
    folder = umpteen.home / "data" / "umpteen" / "bundles" / "jobs"
    return sorted(path.name for path in folder.glob("*.json")) if folder.exists() else []


def test_line_01_one_line_writes_one_bundle(umpteen: Umpteen, schedule: Schedule) -> None:
    told = schedule(
        "app", "--lr=0.5", "--time=00-01:00", "--cpus_per_task=1", "--gres=gpu:1", "--mem=16G"
    )
    assert list_files(umpteen) == [Path(told["path"]).name]
    job = read(told)["app"]
    assert (job["name"], job["script"], job["script_args"]["lr"]) == ("app", "app", 0.5)
    assert job["slurm"] == {
        "array": None, "tasks": None, "cpus_per_task": "1", "gres": "gpu:1", "mem": "16G",
        "time": "00-01:00",
    }  # fmt: skip


def test_line_02_arguments_of_the_app_mix_freely_with_ours(schedule: Schedule) -> None:
    told = schedule(
        "--time", "1", "app", "--lr", "0.5", "--mem=1G", "--numbers", "1", "2", "--partition",
        "main", "--flag", "--hold", "--words", "a", "--name", "b",
    )  # fmt: skip
    job = read(told)["app"]
    arguments = {key: job["script_args"][key] for key in ("lr", "numbers", "flag", "words")}
    assert arguments == {"lr": 0.5, "numbers": [1, 2], "flag": True, "words": ["a"]}
    given = {key: value for key, value in job["slurm"].items() if value is not None}
    assert given == {"time": "1", "mem": "1G", "partition": "main", "hold": True}
    assert told["bundle"] == "b"


def test_line_02_flags_of_the_app_that_begin_like_ours_are_the_apps(schedule: Schedule) -> None:
    job = read(schedule("app", "--c", "3", "--debug"))["app"]
    assert (job["script_args"]["c"], job["script_args"]["debug"]) == (3, True)


def test_line_02_flag_that_both_know_is_the_apps_behind_it_and_slurms_before(
    schedule: Schedule,
) -> None:
    job = read(schedule("--output=log", "app", "--output", "here", "--partition=main"))["app"]
    assert job["script_args"]["output"] == "here"
    assert (job["slurm"]["output"], job["slurm"]["partition"]) == ("log", "main")
    job = read(schedule("other", "--lr", "0.5", "--output=here"))["other"]
    assert (job["script_args"]["output"], job["slurm"].get("output")) == ("here", None)


def test_line_02_flag_that_the_app_only_skips_is_slurms(schedule: Schedule, apps: Path) -> None:
    parser = apps / "app-cli"
    parser.write_text(parser.read_text().replace("parse_args()", "parse_known_args()[0]"))
    job = read(schedule("app", "--partition", "main", "--output=here"))["app"]
    assert (job["slurm"]["partition"], job["script_args"]["output"]) == ("main", "here")


def test_line_02_flags_behind_two_dashes_are_the_apps(schedule: Schedule) -> None:
    job = read(schedule("app", "--time=5", "--", "--time", "noon"))["app"]
    assert (job["script_args"]["time"], job["slurm"]["time"]) == ("noon", "5")


def test_line_02_flag_before_the_app_that_is_not_ours_is_refused(umpteen: Umpteen) -> None:
    done = umpteen("schedule", "--lr", "0.5", "app")
    assert done.returncode == 2
    assert "there is no flag --lr\n\nhint: flags of the program stand behind it" in done.stderr


@pytest.mark.parametrize("flag", ["--bundle", "--name"])
def test_line_05_bundle_has_the_name_that_either_flag_says(schedule: Schedule, flag: str) -> None:
    assert schedule("app", f"{flag}=my-bundle")["bundle"] == "my-bundle"


def test_line_06_append_adds_to_the_newest_else_there_is_another_bundle(
    umpteen: Umpteen, schedule: Schedule
) -> None:
    first = schedule("app", "--name=b")
    second = schedule("other", "--name=b")
    third = schedule("app", "--append", "--name=b")
    assert first["timestamp"] < second["timestamp"] == third["timestamp"]
    assert (list(read(first)), list(read(second))) == (["app"], ["other", "app"])
    assert len(list_files(umpteen)) == 2


def test_line_08_job_may_be_added_before_the_one_it_depends_on(schedule: Schedule) -> None:
    schedule("app", "--name=b", "--job-name", "last", "--dependencies", "first", "afterany:second")
    told = schedule("app", "--name=b", "--append", "--job_name=first")
    assert read(told)["last"]["dependencies"] == ["first", "afterany:second"]


def test_line_11_three_bundles_in_one_second_are_three_files(
    umpteen: Umpteen, schedule: Schedule
) -> None:
    told = [schedule("app", "--name=b")["timestamp"] for _ in range(3)]
    assert told == sorted(set(told))
    assert list_files(umpteen) == [f"b_{timestamp}.json" for timestamp in told]


def test_line_15_app_without_a_parser_is_refused_and_told_how(umpteen: Umpteen) -> None:
    done = umpteen("schedule", "ls", "-l", "--time=1")
    assert done.returncode == 2
    assert "there is no program 'ls-cli' on PATH" in done.stderr
    assert "umpteen schedule -- ls -l" in done.stderr
    assert list_files(umpteen) == []


def test_any_command_is_scheduled_behind_two_dashes(schedule: Schedule) -> None:
    told = schedule("--time=1", "--", "python3", "-c", "print('a b')", "--mem=1")
    job = read(told)["python3"]
    assert job["script"] == """python3 -c 'print('"'"'a b'"'"')' --mem=1"""
    assert (job["script_args"], job["slurm"]["mem"]) == ({}, None)


def test_line_16_parser_that_refuses_is_shown_and_nothing_is_written(umpteen: Umpteen) -> None:
    done = umpteen("schedule", "app", "--lr=x", "--time=1")
    assert done.returncode == 1
    assert "app-cli --lr=x ended with 2: " in done.stderr
    assert "invalid float value: 'x'" in done.stderr
    assert list_files(umpteen) == []


def test_line_16_parser_that_prints_no_object_is_refused(umpteen: Umpteen, apps: Path) -> None:
    (apps / "app-cli").write_text("#!/bin/sh\necho 3\n")
    done = umpteen("schedule", "app", "--time=1")
    assert (done.returncode, list_files(umpteen)) == (2, [])
    assert "app-cli prints no JSON object" in done.stderr


def test_line_17_initialized_bundle_takes_jobs(umpteen: Umpteen, schedule: Schedule) -> None:
    assert umpteen("initialize", "b").returncode == 0
    told = schedule("app", "--name=b", "--append")
    assert list(read(told)) == ["app"]
    assert len(list_files(umpteen)) == 1


def test_line_18_append_to_no_bundle_makes_it_and_says_so(umpteen: Umpteen) -> None:
    done = umpteen("schedule", "app", "--name=b", "--append")
    assert (done.returncode, done.stderr) == (0, "there was no bundle 'b': made it\n")
    assert len(list_files(umpteen)) == 1


def test_line_19_jobs_of_one_name_are_numbered(schedule: Schedule) -> None:
    told = [schedule("app", "--name=b", "--append") for _ in range(3)]
    assert [each["job"] for each in told] == ["app", "app_001", "app_002"]
    assert read(told[2])["app_002"]["name"] == "app_002"


def test_line_21_values_arrive_unchanged_in_the_app(umpteen: Umpteen, schedule: Schedule) -> None:
    text, words = 'it\'s a "b"; $HOME `id` * \\', ["$x y", "'q'"]
    told = schedule("app", "--text", text, "--mode", "two words", "--words", *words)
    job = parse_jobs(read(told), told["path"])["app"]
    script = build_script(job, Machine("local", path=str(umpteen.folder)), told["timestamp"])
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "argv": ["--lr=0.1", "--mode=two words", f"--text={text}", "--words", *words],
        "milex": str(umpteen.folder),
    }


def test_line_25_lines_that_run_before_are_kept_in_order(schedule: Schedule) -> None:
    told = schedule("--pre-command", "module load a", "echo b", "--time=1", "app")
    assert read(told)["app"]["pre-commands"] == ["module load a", "echo b"]


def test_line_33_bundle_is_not_confused_with_one_whose_name_begins_alike(
    schedule: Schedule,
) -> None:
    mine = schedule("app", "--name=my")
    for name in ("my-other", "my_other", "my_20990101000000"):
        schedule("app", f"--name={name}")
    told = schedule("other", "--name=my", "--append")
    assert (told["path"], told["jobs"]) == (mine["path"], ["app", "other"])


def test_bundles_lie_below_the_path_of_the_local_machine(
    umpteen: Umpteen, schedule: Schedule
) -> None:
    work = umpteen.folder / "work"
    (umpteen.home / ".milexconfig").write_text(json.dumps({"local": {"path": str(work)}}))
    told = schedule("app")
    assert Path(told["path"]).parent == work / "jobs"


def test_programs_of_milex_are_answered_with_ours(umpteen: Umpteen) -> None:
    done = umpteen("milex-schedule", "app")
    assert done.returncode == 2
    assert "hint: umpteen schedule puts a program into a bundle" in done.stderr
