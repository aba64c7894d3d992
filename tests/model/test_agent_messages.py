"""What hosts answer is refused where it has not its form, whatever was changed in it."""

from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen.model import agent_messages
from umpteen.model.agent_messages import (
    NewsRequest,
    check_news,
    parse_news,
    parse_place,
    parse_probe,
    parse_reports,
)
from umpteen.model.forms import FormError

FILE, LINK = 0o100644, 0o120777

PROBE = {
    "host": "h1", "machine": "m", "boot": "b", "python": "3.11.2", "cpus": 4, "memory": 1 << 30,
    "gpus": 0, "load": 0.5, "disk_free": 5, "time": 1.0, "user": "me", "folder": "/var/tmp/u",
}  # fmt: skip
PLACE = {"address": "/results", "is_shared": False}
REPORTS = [
    {
        "token": "aa", "lives": True, "given": 2, "batches": ["2"], "number": 1,
        "begun": ["1"], "code": None, "said": "",
    }
]  # fmt: skip
LINES, CONTENT = b'{"task":0}\n', b"out"
NEWS = {
    "records": [
        {
            "name": "1/1-aa.jsonl", "offset": 0, "size": len(LINES),
            "outputs": [
                [0, "a", [["stdout", FILE, 3, "", True], ["results/l", LINK, 1, "x", False]]]
            ],
        }
    ],
    "running": [{"name": "1/1-aa.json", "content": "{}"}],
    "stamps": {"1/1-aa.json": 5},
    "runners": REPORTS,
}  # fmt: skip
REQUEST = NewsRequest("/copy", ["1"], {}, {}, ["aa"], "all", 1 << 22, 0.3)


def read_news(found: object) -> None:
    check_news(parse_news(found, LINES + CONTENT), REQUEST)


MESSAGES: list[tuple[Any, Callable[[Any], Any]]] = [
    (PROBE, parse_probe),
    (PLACE, parse_place),
    (REPORTS, parse_reports),
    (NEWS, read_news),
]


def list_places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a message that something else could stand in."""
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, below in items:
            yield from list_places(below, (*path, key))


def change(message: object, path: tuple[Any, ...], new: object) -> Any:
    if not path:
        return new
    changed: Any = copy.deepcopy(message)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return changed


NASTY: st.SearchStrategy[object] = st.sampled_from(
    [
        None, True, -1, 1 << 63, 10**400, 0.5, float("inf"), float("nan"), "", "\0", "..", "/etc",
        "a/../b", "a//b", "./a", "\ud800", "\udc80", "é" * 200, "x" * 10_000, "1/1-aa.jsonl", "1",
        "../1/1-aa.jsonl", "1/1-aa.jsonl\n", "２/1-aa.jsonl", [], {}, [[]], ["1"] * 3, {"a": 1},
    ]
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=9), below),
    max_leaves=8,
)


@pytest.mark.parametrize(("message", "parse"), MESSAGES)
def test_what_an_agent_says_is_taken(message: object, parse: Callable[[Any], Any]) -> None:
    parse(json.loads(json.dumps(message)))


def refuse_or_take(parse: Callable[[Any], Any], found: object) -> str:
    """Why it was refused; any other error is none that a host may cause."""
    try:
        parse(found)
    except FormError as error:
        return str(error)
    return ""


@given(st.data())
def test_one_thing_that_is_changed_is_refused_or_taken(data: st.DataObject) -> None:
    message, parse = data.draw(st.sampled_from(MESSAGES))
    path = data.draw(st.sampled_from(list(list_places(message))))
    assert len(refuse_or_take(parse, change(message, path, data.draw(NASTY | ANYTHING)))) < 200


@given(st.data())
def test_what_is_missing_is_refused_or_taken(data: st.DataObject) -> None:
    message, parse = data.draw(st.sampled_from(MESSAGES))
    path = data.draw(st.sampled_from([path for path in list_places(message) if path]))
    changed = copy.deepcopy(message)
    at = changed
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    assert len(refuse_or_take(parse, changed)) < 200


OUTPUTS = ("records", 0, "outputs", 0)
REFUSED: list[tuple[tuple[Any, ...], object]] = [
    (("records", 0, "name"), "../1/1-aa.jsonl"),
    (("records", 0, "name"), "2/1-aa.jsonl"),
    (("records", 0, "offset"), 5),
    (("records", 0, "size"), len(LINES) - 1),
    (("records", 0, "size"), 1 << 61),
    (("running", 0, "name"), "2/1-aa.json"),
    (("running", 0, "name"), "1/2-aa.json"),
    (("running", 0, "content"), "x" * (1 << 20 | 1)),
    (("stamps",), {"1/1-aa.json": 5, "2/1-aa.json": 5}),
    (("runners", 0, "token"), "bb"),
    (("runners", 0, "said"), ["deep"]),
    ((*OUTPUTS, 1), "../a"),
    ((*OUTPUTS, 1), "/a"),
    ((*OUTPUTS, 2, 0, 0), "/etc/passwd"),
    ((*OUTPUTS, 2, 0, 0), "results/../../x"),
    ((*OUTPUTS, 2, 0, 0), "results/./x"),
    ((*OUTPUTS, 2, 0, 0), "a\0b"),
    ((*OUTPUTS, 2, 0, 0), "x" * 300),
    ((*OUTPUTS, 2, 0, 0), "é" * 128),
    ((*OUTPUTS, 2, 0, 0), "d/" * 3000 + "x"),
    ((*OUTPUTS, 2, 0, 1), 0o020644),  # a device
    ((*OUTPUTS, 2, 0, 1), 0o040755),  # a folder
    ((*OUTPUTS, 2, 0, 2), 2),  # one byte is left
    ((*OUTPUTS, 2, 0, 2), 4),
    ((*OUTPUTS, 2, 0, 3), "link"),
    ((*OUTPUTS, 2, 0, 4), False),
    ((*OUTPUTS, 2, 1, 3), ""),
    ((*OUTPUTS, 2, 1, 4), True),
]


@pytest.mark.parametrize(("path", "new"), REFUSED)
def test_news_that_would_do_harm_are_refused(path: tuple[Any, ...], new: object) -> None:
    with pytest.raises(FormError):
        read_news(change(NEWS, path, new))


def test_lines_of_one_file_may_come_in_two_parts_that_follow_each_other() -> None:
    first: Any = {"name": "1/1-aa.jsonl", "offset": 7, "size": 3, "outputs": []}
    for offset, is_right in ((10, True), (7, False), (11, False)):
        found = {**NEWS, "records": [first, {**first, "offset": offset}]}
        news = parse_news(found, b"ab\ncd\n")
        request = REQUEST._replace(offsets={"1/1-aa.jsonl": 7})
        if is_right:
            check_news(news, request)
        else:
            with pytest.raises(FormError):
                check_news(news, request)


def test_more_running_files_than_can_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_messages, "_MOST_RUNNING", 3)
    for key, found in (
        ("stamps", {f"1/{number}-aa.json": 1 for number in range(4)}),
        ("running", [{"name": "1/1-aa.json", "content": ""}] * 4),
    ):
        with pytest.raises(FormError, match="too many"):
            read_news({**NEWS, key: found})


def test_what_a_runner_said_is_cut() -> None:
    (report,) = parse_reports([{**REPORTS[0], "said": "\ud800\0" + "x" * 100_000}])
    assert report.said == "x" * 4000


def test_million_files_take_no_more_memory_than_some_of_what_was_sent() -> None:
    count = 100_000
    files = [[f"results/{number}", FILE, 0, "", True] for number in range(count)]
    found = json.loads(json.dumps(change(NEWS, (*OUTPUTS, 2), files)))
    tracemalloc.start()
    try:
        news = parse_news(found, LINES)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(news.records[0].outputs[0].files) == count
    assert peak < 300 * count
