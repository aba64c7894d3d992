from __future__ import annotations

import pytest

from umpteen.model.complaint import Complaint, build_complaint, find_complaint, find_last_word


def test_complaint_is_found_behind_what_else_was_printed() -> None:
    line = build_complaint('no room: "disk"\nis full', "make room")
    said = f"a warning of a library\n{line}\n"
    assert find_complaint(said) == Complaint('no room: "disk"\nis full', "make room")
    assert find_last_word(said) == 'no room: "disk"\nis full'


@pytest.mark.parametrize(
    "said",
    ["", "Killed", '{"error": "cut of', '{"error": "no hint"}', '{"other": 1}', "error: text"],
)
def test_complaint_is_none_where_the_runner_named_none(said: str) -> None:
    assert find_complaint(said) is None


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("", ""),
        ("Traceback ...\nValueError: wrong\n", "ValueError: wrong"),
        ("error: no room\n\nhint: make room", "no room"),
    ],
)
def test_last_word_is_found_where_no_complaint_was_written(said: str, word: str) -> None:
    assert find_last_word(said) == word
