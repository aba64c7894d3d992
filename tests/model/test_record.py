"""What the record of an attempt says."""

from __future__ import annotations

import pytest

from umpteen.model.record import Record


@pytest.mark.parametrize(
    ("state", "before_s", "found_s"),
    [("failed", 50.0, 8.0), ("succeeded", 5.0, 8.0), ("waiting", 50.0, 50.0),
     ("waiting", 5.0, 8.0)],
)  # fmt: skip
def test_attempt_that_was_ended_hides_nothing_that_is_known_of_its_task(
    state: str, before_s: float, found_s: float
) -> None:
    assert Record(0, "d", 2, state, seconds=8.0).find_seconds(before_s) == found_s
