"""A point of the sweep for each part of a Slurm cluster that may die; `scripts/sweep slurm`."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.support.command import Umpteen
from tests.support.slurm import PROGRAMS
from tests.sweeps.slurm import TARGETS, run_slurm_point

TASKS = 80
SEED = random.randrange(1 << 16)


@pytest.mark.parametrize("target", [each for each in TARGETS if each != "time limit"])
def test_slurm_what_dies_loses_nothing(
    umpteen: Umpteen, need: Callable[[str], str], target: str
) -> None:
    for program in PROGRAMS:
        need(program)
    after = random.Random(f"{SEED}{target}").randrange(TASKS)
    print(f"seed {SEED}, after {after}")
    assert run_slurm_point(umpteen, target, after, TASKS) == []
