"""What a record says of why an attempt ended: each reason is known again by what was written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen.model.reasons import FoundReason, Reason, read_reason, write_after, write_reason
from umpteen.model.states import TaskState

WORDS = st.text(min_size=1, max_size=20)
PLAIN = [reason for reason in Reason if "{" not in reason.value]
WITH_PARTS = [reason for reason in Reason if "{" in reason.value and reason is not Reason.AFTER]


@pytest.mark.parametrize("reason", PLAIN)
def test_reason_without_parts_is_its_own_text(reason: Reason) -> None:
    assert write_reason(reason) == reason.value
    assert read_reason(reason.value) == FoundReason(reason, {})


@pytest.mark.parametrize("reason", WITH_PARTS)
def test_reason_is_known_again_by_its_text(reason: Reason) -> None:
    parts = {name: f"a-{name}" for name in re.findall(r"{(\w+)}", reason.value)}
    text = write_reason(reason, **parts)
    assert read_reason(text) == FoundReason(reason, parts)
    assert all(part in text for part in parts.values())


@given(WORDS)
def test_missing_file_may_have_any_name(path: str) -> None:
    found = read_reason(write_reason(Reason.MISSING_FILE, path=path))
    assert found == FoundReason(Reason.MISSING_FILE, {"path": path})


@given(WORDS, st.sampled_from([state.value for state in TaskState if state.is_final]))
def test_task_after_another_may_have_any_name(task: str, state: str) -> None:
    text = write_after(task, state)
    found = read_reason(text)
    assert found is not None
    assert (found.reason, found.parts["task"], found.text) == (Reason.AFTER, task, text)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("after a, which skipped", "after a, which was skipped"),
        ("after a, which timed_out", "after a, which timed out"),
        ("after a, which b, which failed", "after a, which b, which failed"),
    ],
)
def test_reason_of_an_earlier_version_is_read_as_if_written_now(written: str, read: str) -> None:
    found = read_reason(written)
    assert found is not None
    assert found.text == read


@pytest.mark.parametrize("text", ["", "interrupted by a user", "of a later version", "after a"])
def test_other_text_is_no_reason(text: str) -> None:
    assert read_reason(text) is None
