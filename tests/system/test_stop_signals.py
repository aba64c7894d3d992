"""How often a person meant to stop, whoever repeats the signals."""

from __future__ import annotations

import time
from signal import SIGHUP, SIGINT, SIGTERM

import pytest

from umpteen.system.stop_signals import Stops


@pytest.mark.parametrize(
    ("heard", "counts"),
    [
        ([(0.0, SIGINT), (0.0003, SIGINT)], [1, 1]),
        ([(0.0, SIGINT), (0.9, SIGINT)], [1, 1]),
        ([(0.0, SIGINT), (1.1, SIGINT)], [1, 2]),
        ([(0.0, SIGINT), (1.1, SIGINT), (9.0, SIGINT)], [1, 2, 2]),
        # Who presses again and again is impatient.
        ([(0.0, SIGINT), (0.5, SIGINT), (1.0, SIGINT), (1.5, SIGINT)], [1, 1, 1, 2]),
        ([(0.0, SIGTERM), (5.0, SIGTERM), (60.0, SIGHUP)], [1, 1, 1]),
        ([(0.0, SIGTERM), (0.2, SIGINT), (5.0, SIGINT)], [1, 1, 2]),
        ([(0.0, SIGINT), (5.0, SIGTERM)], [1, 1]),
    ],
)
def test_stops_count_what_was_meant(
    monkeypatch: pytest.MonkeyPatch, heard: list[tuple[float, int]], counts: list[int]
) -> None:
    asked, found = Stops(), []
    for at_s, number in heard:
        monkeypatch.setattr(time, "monotonic", lambda at_s=at_s: 1000 + at_s)
        before = asked.count
        assert asked.add(number, None) == (asked.count > before)
        found.append(asked.count)
    assert (found, asked.number) == (counts, heard[0][1])
