"""The table of environment variables, against the code that reads and sets them."""

from __future__ import annotations

import re
from pathlib import Path

import umpteen
from umpteen.model.command import build_environment
from umpteen.model.variables import RUNNER, SYNCED, TASK_VARIABLES, TOOL_VARIABLES

SOURCES = sorted(Path(umpteen.__file__).parent.rglob("*.py"))
OURS = re.compile(r"(?<![A-Z_])(?:UMPTEEN|SATURN_RUN)_[A-Z_]+[A-Z]")
LOOKED_UP = re.compile(r"""environb?(?:\.get\(|\[)b?["']([A-Z_]+)["']""")


def find(pattern: re.Pattern[str]) -> set[str]:
    return {name for path in SOURCES for name in pattern.findall(path.read_text("utf-8"))}


def test_variables_of_ours_in_the_code_are_in_the_table() -> None:
    declared = {*TASK_VARIABLES, *TOOL_VARIABLES}
    assert find(OURS) <= declared
    assert find(OURS) >= {name for name in declared if OURS.fullmatch(name)}


def test_variables_that_are_read_by_their_names_are_in_the_table() -> None:
    assert find(LOOKED_UP) <= set(TOOL_VARIABLES)


def test_variables_of_a_task_are_in_the_table() -> None:
    entries = build_environment("", "", 0, 0, 0, "", "")
    given = {entry.split(b"=", 1)[0].decode() for entry in entries}
    assert given | {RUNNER, SYNCED, "CUDA_VISIBLE_DEVICES"} == set(TASK_VARIABLES)
