"""Ten random points of the sweep over a detached job with retries and dependencies."""

from __future__ import annotations

import random

import pytest

from tests.support.command import Umpteen
from tests.sweeps.leaving import run_point


@pytest.mark.parametrize("number", range(10))
def test_leaving_a_job_and_killing_around_it_loses_nothing(umpteen: Umpteen, number: int) -> None:
    seed = random.randrange(1 << 32)
    kills, faults = run_point(umpteen, random.Random(f"{seed}-{number}"))
    assert faults == [], f"seed {seed}-{number}: {kills}"
