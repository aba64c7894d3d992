"""Durations, sizes and memory, and what is said of those that are none."""

from __future__ import annotations

from typing import Any

import pytest

from umpteen.errors import InputError, SettingsError
from umpteen.units import (
    DURATION_HINT,
    parse_duration_s,
    parse_memory,
    parse_size,
    read_duration_s,
    refuse_value,
    say_no_duration,
    show_value,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        (1.5, 1.5),
        ("15m", 900),
        ("5:00", 300),
        ("1-12", 129_600),
        ("0", None),
        ("x", None),
    ],
)
def test_duration_is_seconds_or_none(text: str | float, seconds: float | None) -> None:
    assert read_duration_s(text) == seconds


def test_duration_of_a_setting_that_is_none_is_refused_in_the_same_words() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_duration_s("x")
    assert (caught.value.message, caught.value.hint) == (say_no_duration("x"), DURATION_HINT)


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("1.5K", 1536), ("2TiB", 2 << 40), ("K", None)]
)
def test_size_is_bytes_or_none(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["much", "512"])
def test_memory_that_is_none_names_the_key_that_said_it(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_memory(text, "retries")
    assert caught.value.field == "retries"


def test_memory_without_a_unit_is_told_of_one() -> None:
    with pytest.raises(InputError) as caught:
        parse_memory("512")
    assert caught.value.hint == "write a unit: 512M or 512G"


def test_value_is_refused_with_the_words_for_it() -> None:
    assert refuse_value("cpus", "a number", "x").message == "'cpus' must be a number, not 'x'"
    assert refuse_value("a", "b", [], subject="it").message == "it must be b, not an empty list"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        ("", "nothing"),
        ("1.5", "1.5"),
        ("a", "'a'"),
        ({"a": 1}, "a mapping"),
        ({}, "an empty mapping"),
        ("x" * 50, repr("x" * 37 + "...")),
    ],
)
def test_value_is_shown_as_the_file_has_it(value: Any, shown: str) -> None:
    assert show_value(value) == shown
