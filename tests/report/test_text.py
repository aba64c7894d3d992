"""Columns of a terminal: wide characters take two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from umpteen.report.text import align, cut, fit, measure, render_size, render_table


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("", 0), ("é", 1), ("日本", 4), ("a日", 3), ("e\u0301", 1)]
)
def test_measure_counts_columns_of_a_terminal(text: str, columns: int) -> None:
    assert measure(text) == columns


def test_table_with_wide_characters_is_aligned() -> None:
    lines = render_table(["name", "n"], [["日本語", "1"], ["abc", "22"]], right="lr")
    assert lines == ["name     n", "日本語   1", "abc     22"]
    assert len({cell_len(line) for line in lines}) == 1


def test_table_with_a_rule_has_it_under_the_head() -> None:
    lines = render_table(["a", "bcd"], [["日本", "x"]], gap=4, is_ruled=True)
    assert lines == ["a       bcd", "----    ---", "日本    x"]


def test_table_cells_are_clean() -> None:
    assert render_table(["a"], [["x\x1b[31my\nz"]]) == ["a", "xy z"]


def test_rows_with_wide_characters_are_aligned_and_cut() -> None:
    widths = [4, 6]
    assert align(["日本", "語"], widths) == " 日本  語"
    assert align(["a", "日本語日本"], widths) == " a     日本…"


@given(st.text(alphabet="aé日本\u0301", max_size=12), st.integers(1, 12))
def test_cut_is_never_wider_than_its_columns(text: str, width: int) -> None:
    shown = cut(text, width)
    assert measure(shown) <= width
    assert shown == text or shown.endswith("…")


def test_fit_narrows_the_third_column_first_and_leaves_the_last() -> None:
    assert fit([6, 10, 40, 20], 70) == [6, 10, 27, 20]
    assert fit([6, 40, 40, 20], 70) == [6, 25, 12, 20]
    assert fit([6, 40, 40, 60], 70) is None


@pytest.mark.parametrize(
    ("size", "text"), [(812, "812 bytes"), (1200, "1.2 KB"), (25_000_000, "25 MB")]
)
def test_size_is_in_the_unit_a_person_would_choose(size: int, text: str) -> None:
    assert render_size(size) == text
