from __future__ import annotations

import pytest

from umpteen.model.record import Record
from umpteen.submission.plan import Scope, list_open_tries


@pytest.mark.parametrize("rerun", ["default", "all", "code"])
def test_scope_is_whole_where_no_task_is_left_out(rerun: str) -> None:
    assert Scope(rerun).is_whole
    assert not Scope(rerun, only=lambda index, _: index == 3).is_whole


@pytest.mark.parametrize("rerun", ["failed", "changed", "behind", "none", "retry"])
def test_scope_of_some_tasks_is_not_whole(rerun: str) -> None:
    assert not Scope(rerun).is_whole


@pytest.mark.parametrize(
    ("rerun", "takes_behind"), [("default", True), ("rest", True), ("left", False), ("none", False)]
)
def test_scope_takes_what_is_behind_as_its_choice_says(rerun: str, *, takes_behind: bool) -> None:
    assert Scope(rerun).takes_behind is takes_behind


def try_once(state: str, *, attempt: int, retry: bool) -> tuple[str, Record]:
    return "token", Record(0, "", attempt, state, retry=retry)


def test_tries_count_since_the_task_last_came_to_an_end() -> None:
    before = [
        try_once("failed", attempt=1, retry=True),
        try_once("failed", attempt=2, retry=False),
        try_once("failed", attempt=3, retry=True),
        try_once("timed_out", attempt=4, retry=True),
    ]
    assert [each["attempt"] for each in list_open_tries(before)] == [3, 4]
    assert list_open_tries(before[:2]) == []
    assert list_open_tries([]) == []
