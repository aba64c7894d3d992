"""Ten points of the sweep over jobs on hosts behind ssh; `scripts/sweep hosts` runs many."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.command import Umpteen
from tests.support.hosts import PROGRAMS
from tests.sweeps.hosts import TARGETS, run_hosts_point

pytestmark = pytest.mark.root

POINTS = [[(target, 20)] for target in TARGETS] + [[("cable", 10), ("head", 30)]]


@pytest.mark.parametrize("strikes", POINTS, ids=str)
def test_nothing_is_lost_or_left_whatever_is_struck(
    umpteen: Umpteen, need: Callable[[str], str], strikes: list[tuple[str, int]]
) -> None:
    for program in PROGRAMS:
        need(program)
    assert run_hosts_point(umpteen, strikes, 60, 6.0) == []
