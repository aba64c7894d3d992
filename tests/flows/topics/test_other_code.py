"""Code that changed in a synced folder since tasks were done with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import Umpteen

SYNCED = "file_syncs: [{src: code}]\nslots: 1\n"
TASKS = "tasks: [command: sh code/x.sh, command: sh code/x.sh]\n"


def write_code(umpteen: Umpteen, version: int) -> None:
    umpteen.write("code/x.sh", f"echo v{version}\n")


@pytest.fixture
def job(umpteen: Umpteen) -> list[str]:
    """The command that runs two tasks with the code; they ran with an earlier version of it."""
    umpteen.write("fs.yaml", SYNCED)
    umpteen.write("t.yaml", TASKS)
    write_code(umpteen, 1)
    command = ["run", "fs.yaml", "t.yaml", "--name", "job"]
    assert umpteen(*command).returncode == 0
    write_code(umpteen, 2)
    return command


def read_stdout(umpteen: Umpteen) -> list[str]:
    return [(umpteen.store() / name / "stdout").read_text() for name in "01"]


def list_digests(umpteen: Umpteen) -> list[str]:
    return [path.name.partition(".")[0] for path in (umpteen.store() / ".umpteen/synced").iterdir()]


def test_what_was_done_with_other_code_is_told_and_left_alone(
    umpteen: Umpteen, job: list[str]
) -> None:
    done = umpteen(*job)
    assert done.returncode == 0
    assert "2 done before, 2 of these with other code\n" in done.stderr
    assert "--rerun code" in done.stderr
    assert read_stdout(umpteen) == ["v1\n", "v1\n"]


def test_rerun_code_runs_it_again_and_nothing_twice(umpteen: Umpteen, job: list[str]) -> None:
    done = umpteen(*job, "--rerun", "code")
    assert "2 done before with other code\n" in done.stderr
    assert read_stdout(umpteen) == ["v2\n", "v2\n"]
    again = umpteen(*job, "--rerun", "code")
    assert "  2 done before\n" in again.stderr
    assert "other code" not in again.stderr


def test_what_runs_anyway_is_no_longer_done_with_other_code(
    umpteen: Umpteen, job: list[str]
) -> None:
    umpteen.write("t.yaml", TASKS.replace("x.sh]", "x.sh one]"))
    done = umpteen(*job)
    assert "1 done before, 1 of these with other code, 1 changed\n" in done.stderr
    assert read_stdout(umpteen) == ["v1\n", "v2\n"]


def test_dry_run_says_it_and_puts_nothing(umpteen: Umpteen, job: list[str]) -> None:
    before = list_digests(umpteen)
    assert "2 of these with other code" in umpteen(*job, "--dry-run").stdout
    assert json.loads(umpteen(*job, "--dry-run", "--json").stdout)["other_code"] == 2
    plan = json.loads(umpteen(*job, "--dry-run", "--json", "--rerun", "code").stdout)
    assert (plan["run"], plan["other_code"]) == ({"code": 2}, 0)
    assert list_digests(umpteen) == before


@pytest.mark.parametrize("rerun", ["default", "code"])
def test_why_names_the_digests(umpteen: Umpteen, job: list[str], rerun: str) -> None:
    (first,) = list_digests(umpteen)
    umpteen(*job, "--rerun", rerun)
    (second,) = set(list_digests(umpteen)) - {first}
    own, since = (first, [second]) if rerun == "default" else (second, [])
    why = json.loads(umpteen("why", "job", "0", "--json").stdout)
    assert (why["code"], why["code_since"]) == ([own], since)
    said = umpteen("why", "job", "0").stdout
    assert f"  code      {own}" in said
    assert (second in said) == (own == second or bool(since))


def test_code_that_is_as_it_was_is_no_other(umpteen: Umpteen, job: list[str]) -> None:
    write_code(umpteen, 1)
    (umpteen.folder / "code/x.sh").touch()
    assert "other code" not in umpteen(*job, "--rerun", "code").stderr


def test_sync_flag_is_the_same(umpteen: Umpteen, tmp_path: Path) -> None:
    write_code(umpteen, 1)
    command = ["run", "sh code/x.sh", "--name", "job", "--sync", f"code:{tmp_path}/moved"]
    umpteen(*command)
    write_code(umpteen, 2)
    assert "1 of these with other code" in umpteen(*command).stderr
