from __future__ import annotations

import functools
import re

import pytest

from tests.docs.pages import ROOT
from umpteen.model.states import FORMAT_VERSION, TaskState


def read(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def list_words() -> list[str]:
    """What the glossary explains, without what stands behind a word in brackets."""
    table = read("glossary.md").partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?)(?: \(\w+\))? \|", table, re.MULTILINE)
    return [row for row in rows if row not in ("word", "---")]


@functools.cache
def read_code() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("word", list_words())
def test_glossary_word_is_used_in_the_code(word: str) -> None:
    joined = re.escape(word).replace("\\ ", r"[ _\n]?\s*")
    assert re.search(rf"(?<![a-z]){joined}", read_code(), re.IGNORECASE)


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
