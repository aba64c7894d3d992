"""Values for placeholders: texts under names."""

from __future__ import annotations

from typing import Any

import pytest

from umpteen.errors import InputError
from umpteen.formats.documents import Source
from umpteen.formats.tables import is_table, join_tables
from umpteen.formats.values import Table, check_name, is_name, parse_rows, value_text


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), (1, "1"), (0.5, "0.5"), (True, "true"), (False, "false")]
)
def test_value_is_the_text_that_was_written(value: Any, text: str) -> None:
    assert value_text(value, "it") == text


@pytest.mark.parametrize(
    ("value", "problem"), [(None, "nothing"), ([], "a list"), ({}, "a mapping"), ("a\0", "NUL")]
)
def test_value_that_is_no_text_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        value_text(value, "it", "tags")
    assert caught.value.field == "tags"


@pytest.mark.parametrize("name", ["", " ", "a{", "}", "a\nb"])
def test_name_that_cannot_stand_between_braces_is_refused(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(InputError, match="cannot be the name of a value"):
        check_name(name)


def test_rows_have_the_names_of_the_first() -> None:
    assert parse_rows([{"a": 1, "b": 2}, {"b": 4, "a": 3}]) == Table(
        ("a", "b"), [("1", "2"), ("3", "4")]
    )


@pytest.mark.parametrize(
    ("row", "problem"), [({"a": 1}, "row 2 has no 'b'"), ({"a": 1, "b": 2, "c": 3}, "an extra 'c'")]
)
def test_rows_with_other_names_name_the_row_and_the_file(row: dict[str, int], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        parse_rows([{"a": 1, "b": 2}, row], Source("p.json", b""))
    assert caught.value.file == "p.json"


def test_tables_are_known_by_their_names() -> None:
    assert list(map(is_table, ["a.CSV", "a.jsonl", "a.txt", "csv"])) == [True, True, False, False]


def test_tables_are_joined_whatever_the_order_of_their_columns() -> None:
    one, other = Table(("a", "b"), [("1", "2")]), Table(("b", "a"), [("4", "3")])
    joined = join_tables([("x.csv", one), ("y.csv", other)])
    assert joined == Table(("a", "b"), [("1", "2"), ("3", "4")])


def test_tables_with_an_equal_row_name_the_first_that_has_it() -> None:
    one, other = Table(("a", "b"), [("1", "2")]), Table(("b", "a"), [("2", "1")])
    with pytest.raises(InputError, match=r"a=1, b=2 is in x.csv, too") as caught:
        join_tables([("x.csv", one), ("y.csv", other)])
    assert caught.value.file == "y.csv"
