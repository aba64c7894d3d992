"""What changed of a task, in words."""

from __future__ import annotations

from typing import Any

import pytest

from umpteen.report.plan import render_change, render_plan


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ("prog --lr 0.1 --seed 1", "prog --lr 0.2 --seed 1", "--lr 0.1  →  --lr 0.2"),
        (["a", "b"], ["a", "b", "c"], "b  →  b c"),
        ("a  b", "a b", "'a  b'  →  'a b'"),
        (None, {"A": "1"}, "(nothing)  →  A=1"),
        ({"A": "1", "B": "2"}, {"A": "1", "B": "3"}, "A=1 B=2  →  A=1 B=3"),
    ],
)
def test_change_is_shown_without_what_is_alike(before: Any, now: Any, text: str) -> None:
    assert render_change(before, now) == text


def test_plan_of_one_task_is_said_of_one() -> None:
    assert render_plan(0, 0, {"gone": 1, "behind": 2}) == (
        "1 done before without its outputs now, 2 behind what they are after"
    )
