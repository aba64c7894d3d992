"""What a host answers is believed only where it has its form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from umpteen.model.agent_messages import (
    HostCopy,
    HostItem,
    HostRunner,
    parse_copies,
    parse_host_runners,
    parse_items,
)
from umpteen.model.forms import FormError

RUNNER = HostRunner("ab12", "/jobs/a", "sweep", 17.5)
COPY = HostCopy("a-b", "sweep", 100, 17.5, has_runner=True, is_home=False)
ITEM = HostItem("copy", "a-b", "sweep", 100, "why")

Parse = Callable[[object], list[Any]]
FORMS = [(parse_host_runners, RUNNER), (parse_copies, COPY), (parse_items, ITEM)]


@pytest.mark.parametrize(("parse", "value"), FORMS)
def test_answer_is_read_as_it_was_written(parse: Parse, value: Any) -> None:
    assert parse([value._asdict()]) == [value]
    assert parse([]) == []


@pytest.mark.parametrize(("parse", "value"), FORMS)
def test_answer_without_a_field_is_refused(parse: Parse, value: Any) -> None:
    for name in value._fields:
        told = value._asdict()
        del told[name]
        with pytest.raises(FormError):
            parse([told])


@pytest.mark.parametrize(
    ("parse", "value", "wrong"),
    [
        (parse_host_runners, RUNNER, {"token": "../x"}),
        (parse_host_runners, RUNNER, {"time": float("nan")}),
        (parse_host_runners, RUNNER, {"time": "17"}),
        (parse_copies, COPY, {"size": -1}),
        (parse_copies, COPY, {"size": 1 << 70}),
        (parse_copies, COPY, {"has_runner": 1}),
        (parse_copies, COPY, {"time": None}),
        (parse_items, ITEM, {"size": 1.5}),
    ],
)
def test_answer_with_a_wrong_value_is_refused(parse: Parse, value: Any, wrong: Any) -> None:
    with pytest.raises(FormError):
        parse([value._asdict() | wrong])


@pytest.mark.parametrize(("parse", "value"), FORMS)
@pytest.mark.parametrize("answer", [None, {}, "text", [None], [[]], ["text"]])
def test_answer_of_another_kind_is_refused(parse: Parse, value: Any, answer: object) -> None:
    del value
    with pytest.raises(FormError):
        parse(answer)


def test_words_that_are_only_shown_may_be_any() -> None:
    (found,) = parse_copies([COPY._replace(name="a\udcff\0b")._asdict()])
    assert found.name == "a?b"
