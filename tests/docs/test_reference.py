from __future__ import annotations

import subprocess
import sys

import click
import pytest

from tests.docs.pages import ROOT
from umpteen.cli.group import VERBS, program
from umpteen.formats.native import JOB_KEYS, TASK_KEYS

SCRIPT = ROOT / "scripts" / "reference"


def read(page: str) -> str:
    return (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")


def test_reference_is_up_to_date() -> None:
    command = [sys.executable, str(SCRIPT), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("verb", VERBS)
def test_reference_has_every_flag_of_a_verb(verb: str) -> None:
    command = program.get_command(click.Context(program), verb)
    assert command is not None
    section = read("cli.md").partition(f"## umpteen {verb}\n")[2].partition("\n## ")[0]
    flags = [flag for parameter in command.params for flag in parameter.opts if flag[:1] == "-"]
    assert [flag for flag in flags if flag not in section] == []


def test_reference_has_every_key_of_a_job_file() -> None:
    page = read("job-file.md")
    assert [key for key in (*JOB_KEYS, *TASK_KEYS) if f"| `{key}` |" not in page] == []
