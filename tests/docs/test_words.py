"""Classes and modules have the field's standard names: what was called otherwise stays away."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import umpteen

TOP = Path(umpteen.__file__).parent

# The name to take in place of each that is not to come again.
CLASSES = {
    "Load": "SubmitRequest",
    "Tell": "on_progress",
    "Place": "Backend, SourcePosition",
    "Terms": "TaskOptions",
    "Draft": "ParsedFile",
    "Frame": "CommonOptions",
    "Cut": "BatchSizes",
    "Outcome": "AttemptResult, SortedRuns",
    "Folds": "FoldedCounts",
    "Parcel": "Upload",
    "Outgoing": "Uploads",
    "Delivery": "Uploader",
    "Feed": "Dispatcher",
    "Intake": "BatchLoader",
    "Attempts": "Completions",
    "Recalls": "Cancellation",
    "Others": "Heartbeat",
    "ForeignBatches": "Upstream",
    "Queue": "Scheduler",
    "Needs": "Resources",
    "Taken": "Assignment",
    "Unrun": "NeverStarted",
    "OpenBatch": "ActiveBatch",
    "OpenBatches": "ActiveBatches",
    "Beside": "BackgroundCall",
    "Aside": "BackgroundQueue",
    "HandIn": "JobHandle",
    "Keeper": "cluster holder",
}
MODULES = {
    "adopt", "aside", "beside", "carrier", "common", "cut", "cutting", "delivery", "dispatch",
    "draft", "feed", "foreign", "hand_in", "helpers", "intake", "keeper", "lookup", "manager",
    "machine", "open_batches", "others", "outcomes", "outgoing", "place", "pulling", "recalls",
    "recipe", "sc", "sentences", "starts", "terms", "tickets", "unpack", "utils", "where", "work",
}  # fmt: skip


def list_modules() -> list[Path]:
    return sorted(path.relative_to(TOP) for path in TOP.rglob("*.py"))


def list_classes(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((TOP / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            yield node.name.lstrip("_")


@pytest.mark.parametrize("path", list_modules(), ids=str)
def test_words_of_classes_are_those_of_the_glossary(path: Path) -> None:
    left = {name: CLASSES[name] for name in list_classes(path) if name in CLASSES}
    assert not left


def test_words_of_modules_are_those_of_the_glossary() -> None:
    parts = {part for path in list_modules() for part in path.with_suffix("").parts}
    assert not parts & MODULES
