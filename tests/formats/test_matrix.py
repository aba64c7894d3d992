"""Values: ranges, lists, products, rows and tables."""

from __future__ import annotations

from typing import Any

import pytest

from umpteen.errors import InputError
from umpteen.formats.documents import Source
from umpteen.formats.matrix import build_product, parse_matrix, parse_words
from umpteen.formats.tables import read_table
from umpteen.formats.values import Table


def no_table(name: str) -> Table:
    raise AssertionError(name)


def values_of(text: str) -> list[str]:
    return [row[0] for row in parse_words([f"x={text}"]).rows]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1,0.01", ["0.1", "0.01"]),
        ("007, 0.10 ,no", ["007", "0.10", "no"]),
        ("1..5", ["1", "2", "3", "4", "5"]),
        ("5..1", ["5", "4", "3", "2", "1"]),
        ("0..10..5", ["0", "5", "10"]),
        ("5..1..2", ["5", "3", "1"]),
        ("5..1..-2", ["5", "3", "1"]),
        ("-1..1", ["-1", "0", "1"]),
        ("08..10", ["08", "09", "10"]),
        ("8..010", ["008", "009", "010"]),
        ("3..3", ["3"]),
        ("1..2,7,a..b", ["1", "2", "7", "a..b"]),
        ("../data,..", ["../data", ".."]),
        ("a,,b", ["a", "", "b"]),
    ],
)
def test_values_are_the_text_that_was_written(text: str, values: list[str]) -> None:
    assert values_of(text) == values


@pytest.mark.parametrize(
    "text", ["", " ", "1..", "..5", "1..5..0", "1..5..-1", "1.5..2.5", "1...5"]
)
def test_values_bad_range_or_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        values_of(text)
    assert "'x'" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(("text", "value"), [("1,1", "1"), ("1..3,2", "2"), ("a,,b,", "")])
def test_values_given_twice_are_refused(text: str, value: str) -> None:
    with pytest.raises(InputError, match=f"'x' has the value '{value}' twice"):
        values_of(text)


def test_values_in_brackets_are_refused() -> None:
    with pytest.raises(InputError, match="is no list") as caught:
        values_of("[1, 2,3]")
    assert caught.value.hint == "write x=1,2,3"
    assert values_of("[1],[2]") == ["[1]", "[2]"]
    assert values_of("[1]") == ["[1]"]


def test_values_endless_range_is_refused() -> None:
    with pytest.raises(InputError, match="999,999,999,999 tasks"):
        values_of("1..999999999999")


def test_product_too_large_is_refused() -> None:
    with pytest.raises(InputError, match=r"1,000,000,000,000 tasks"):
        parse_words(["a=1..1000000", "b=1..1000000"])


def test_words_make_a_product_in_the_order_written() -> None:
    table = parse_words(["lr=0.1,0.01", "seed=1..2"])
    assert table.names == ("lr", "seed")
    assert table.rows == [("0.1", "1"), ("0.1", "2"), ("0.01", "1"), ("0.01", "2")]


@pytest.mark.parametrize("words", [["a"], ["=3"], ["1x=3"], ["x=1", "x=2"]])
def test_words_that_are_no_values_are_refused(words: list[str]) -> None:
    with pytest.raises(InputError):
        parse_words(words)


def test_matrix_mapping_is_a_product() -> None:
    table = parse_matrix({"lr": ["0.1", 1, True], "seed": "1..2"}, no_table)
    assert table.names == ("lr", "seed")
    assert [row[0] for row in table.rows] == ["0.1", "0.1", "1", "1", "true", "true"]


def test_matrix_list_items_are_taken_literally() -> None:
    assert parse_matrix({"x": ["1..2", "a,b"]}, no_table).rows == [("1..2",), ("a,b",)]


def test_matrix_value_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="'x' has the value '1' twice"):
        parse_matrix({"x": [1, "2", "1"]}, no_table)


def test_matrix_rows_stay_rows() -> None:
    table = parse_matrix([{"a": "1", "b": "2"}, {"b": "4", "a": "3"}], no_table)
    assert table == Table(("a", "b"), [("1", "2"), ("3", "4")])


def test_matrix_from_a_table_combines_with_values() -> None:
    def read(name: str) -> Table:
        return read_table(Source(name, b"a,b\n1,2\n3,4\n"))

    table = parse_matrix({"from": "p.csv", "seed": "1..2"}, read)
    assert table.names == ("a", "b", "seed")
    assert table.rows[1] == ("1", "2", "2")


def test_matrix_value_called_from_is_a_value() -> None:
    assert parse_matrix({"from": "1..2", "to": "3"}, no_table).names == ("from", "to")


@pytest.mark.parametrize(
    "given",
    [
        3,
        "x",
        [],
        {},
        ["a"],
        {"x": []},
        {"x": {"a": "b"}},
        {"x": None},
        {"x": [["a"]]},
        {"x": ["a\0"]},
        {"x{": "1"},
        {"": "1"},
        {"from": "p.xls"},
        [{}],
        [{"a": "1"}, {"b": "1"}],
        [{"a": "1"}, {"a": "1", "b": "1"}],
    ],
)
def test_matrix_of_a_wrong_shape_is_refused(given: Any) -> None:
    with pytest.raises(InputError):
        parse_matrix(given, no_table)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("p.csv", b'a,b\n1,x y\n\n02,"p,q"\n'),
        ("p.csv", b"a;b\r\n1;x y\r\n02;p,q\r\n"),
        ("p.csv", b'a, b\n1, x y\n02, "p,q"\n'),
        ("p.tsv", b"a\tb\n1\tx y\n02\tp,q\n"),
        ("p.json", b'[{"a": 1, "b": "x y"}, {"a": "02", "b": "p,q"}]'),
        ("p.jsonl", b'{"a": 1, "b": "x y"}\n{"a": "02", "b": "p,q"}\n'),
        ("stdin", b'{"a": 1, "b": "x y"}\n{"a": "02", "b": "p,q"}\n'),
    ],
)
def test_table_of_each_kind_is_read(name: str, data: bytes) -> None:
    assert read_table(Source(name, data)) == Table(("a", "b"), [("1", "x y"), ("02", "p,q")])


def test_table_json_numbers_keep_their_text() -> None:
    assert read_table(Source("p.json", b'[{"a": 0.10, "b": 1e3}]')).rows == [("0.10", "1e3")]


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("p.csv", b"", "p.csv: the table is empty"),
        ("p.csv", b"0.1,2\n3,4\n", "p.csv, line 1: the table has no header"),
        ("p.csv", b"a,\n3,4\n", "p.csv, line 1: column 2 has no name"),
        ("p.csv", b"a,a\n3,4\n", "p.csv, line 1: two columns have the name 'a'"),
        ("p.csv", b"a,b\n", "p.csv: the table has no rows"),
        ("p.csv", b"a,b\n1,2\n\n1\n", "p.csv, line 4: 1 cells where the header has 2"),
        ("p.csv", b'a,b\n1,"2\n', "p.csv, line 2: not valid CSV"),
        ("p.csv", b"a,b\n1,\xff\n", "p.csv, line 2, column 3: is not UTF-8 text"),
        ("p.json", b'[{"a": 1}, {"b": 2}]', "p.json: row 2 has no 'a'"),
        ("p.json", b"[1]", "p.json: the table is no list of objects"),
        ("p.json", b"[", "p.json, line 1, column 2: not valid JSON"),
        ("p.jsonl", b'{"a": 1}\n{"a"}\n', "p.jsonl, line 2, column 5: not valid JSON"),
    ],
)
def test_table_that_is_wrong_names_the_line(name: str, data: bytes, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        read_table(Source(name, data))
    assert caught.value.message.startswith(problem)


def test_product_of_tables_with_the_same_name_is_refused() -> None:
    table = Table(("a",), [("1",)])
    with pytest.raises(InputError, match="'a' is given twice"):
        build_product([table, table])
