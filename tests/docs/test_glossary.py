from __future__ import annotations

import re

from tests.docs.pages import ROOT
from umpteen.model.states import FORMAT_VERSION, TaskState


def read(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def test_glossary_states_are_those_of_the_code() -> None:
    section = read("glossary.md").partition("## States of a task\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \|", section, re.MULTILINE)
    assert rows == [(state.value, "yes" if state.is_final else "no") for state in TaskState]


def test_architecture_diagram_has_the_transitions_of_the_code() -> None:
    drawn = set(re.findall(r"^ +(\w+) --> (\w+)", read("architecture.md"), re.MULTILINE))
    allowed = {(a.value, b.value) for a in TaskState for b in TaskState if a.may_become(b)}
    assert drawn == allowed


def test_files_page_names_the_format_version() -> None:
    assert f"format version is {FORMAT_VERSION}" in read("files.md")
