"""Which names tasks may have, and the automatic ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen.model.names import automatic_name, find_bad_name, is_capability


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "empty"),
        ("/a", "begins with '/'"),
        ("a//b", "a part of it is empty"),
        ("a/", "a part of it is empty"),
        ("..", "leave the results directory"),
        ("a/../b", "leave the results directory"),
        ("./a", "leave the results directory"),
        ("a\nb", "control character"),
        ("a\0b", "control character"),
        ("a\x7fb", "control character"),
        ("x" * 300, "300 bytes are too long"),
        ("é" * 128, "256 bytes are too long"),
        ("/".join(["x" * 200] * 6), "too long"),
        (".umpteen", "umpteen's own files"),
        (".umpteen/a", "umpteen's own files"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_find_bad_name_wrong_by_itself_says_why(name: str, problem: str) -> None:
    bad = find_bad_name(["fine", name])
    assert bad is not None
    assert bad.position == 1
    assert problem in bad.message
    assert bad.hint


@pytest.mark.parametrize(
    "name", ["a", "a/b", "lr=0.1,seed=3", "a b", "...", ".a", "ä", "a/.umpteen", "x" * 255]
)
def test_find_bad_name_usual_names_are_fine(name: str) -> None:
    assert find_bad_name([name, "other"]) is None


def test_find_bad_name_no_names_is_fine() -> None:
    assert find_bad_name([]) is None


def test_find_bad_name_duplicate_is_found_at_its_second_place() -> None:
    bad = find_bad_name(["a", "b", "a"])
    assert bad is not None
    assert (bad.position, "two tasks" in bad.message) == (2, True)


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b/c", "x", "a"]])
def test_find_bad_name_below_another_is_found(names: list[str]) -> None:
    bad = find_bad_name(names)
    assert bad is not None
    assert "folder of task 'a'" in bad.message


def test_find_bad_name_sibling_folders_are_fine() -> None:
    assert find_bad_name(["a/b", "a/c", "a.b"]) is None


def test_find_bad_name_letter_case_counts_only_where_asked() -> None:
    assert find_bad_name(["Run", "run"]) is None
    bad = find_bad_name(["Run", "run"], case_sensitive=False)
    assert bad is not None
    assert "letter case" in bad.message


def test_find_bad_name_far_away_is_found() -> None:
    names = [f"task-{index}" for index in range(50_000)]
    names[45_678] = ".."
    bad = find_bad_name(names)
    assert bad is not None
    assert bad.position == 45_678


def test_automatic_name_joins_values_in_order() -> None:
    assert automatic_name({"lr": "0.1", "seed": "3"}) == "lr=0.1,seed=3"


def test_automatic_name_encodes_what_a_folder_cannot_hold() -> None:
    assert automatic_name({"in": "a/b", "p": "5%", "t": "\t"}) == "in=a%2Fb,p=5%25,t=%09"


def test_automatic_name_too_long_is_cut_and_told_apart() -> None:
    first, second = (automatic_name({"x": "v" * 250 + end}) for end in "ab")
    assert first != second
    assert first[:180] == second[:180]
    assert len(first) == 193


@given(st.dictionaries(st.text(min_size=1), st.text(), min_size=1))
def test_automatic_name_of_any_values_is_a_good_name(parameters: dict[str, str]) -> None:
    name = automatic_name(parameters)
    assert find_bad_name([name]) is None
    assert len(name.encode()) <= 200


@given(st.lists(st.text()))
def test_find_bad_name_agrees_for_one_and_for_many(names: list[str]) -> None:
    alone = [position for position, name in enumerate(names) if find_bad_name([name])]
    bad = find_bad_name(names)
    if alone:
        assert bad is not None
        assert bad.position == alone[0]


@pytest.mark.parametrize("name", ["a", "3", "openfoam-11", "g++", "python3.12", "A_b", "a" * 100])
def test_capability_may_have_this_name(name: str) -> None:
    assert is_capability(name)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a\n", "a/b", "ä", "a" * 101])
def test_capability_may_not_have_this_name(name: str) -> None:
    assert not is_capability(name)
