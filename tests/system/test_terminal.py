"""What a terminal is shown: nothing that it would obey, and nothing that is not seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen.system.terminal import clean


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lr=0.1,seed=3", "lr=0.1,seed=3"),
        ("größer 数 🎉 שלום", "größer 数 🎉 שלום"),
        ("\x1b[31mred\x1b[0m\x07", "red"),
        ("a\x1b]0;owned\x07b", "ab"),
        ("a\x1b]52;c;b3duZWQ=\x1b\\b", "ab"),
        ("a\x1b]0;without an end", "a"),
        ("a\x9b31mb\x9d0;owned\x9cc", "abc"),
        ("a\x1bPq#0\x1b\\b\x1b(0c\x1bMd", "abcd"),
        ("a\x1b[?1049h\x1b[2Jb", "ab"),
        ("two\nlines\r\nand\ta tab\u2028end", "two lines  and a tab end"),
        ("progress 1%\x08\x082%", "progress 1%2%"),
        ("a\0b\x7fc\x84d", "a?b?c?d"),
        ("gpj.\u202eexe", "gpj.?exe"),
        ("a\u2066b\u2069c\u200fd\u061ce\ufefff", "a?b?c?d?e?f"),
        ("\udc80", "?"),
        ("\x1b", "?"),
    ],
)
def test_screen_shows_text_and_nothing_else(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text(st.characters(codec=None), max_size=50))
def test_screen_of_any_text_is_one_line_that_stays_what_it_is(text: str) -> None:
    shown = clean(text)
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in shown)
    assert len(shown.splitlines()) <= 1
    assert clean(shown) == shown
