"""One point of the sweep of each engine for each thing that may die; scripts/sweep runs many."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.support.command import Umpteen
from tests.support.network import is_allowed
from tests.sweeps.engines import TARGETS, run_engine_point

TASKS = 80
SEED = random.randrange(1 << 16)
PAIRS = [
    pytest.param(engine, target, marks=pytest.mark.root if target == "cut worker" else ())
    for engine, targets in TARGETS.items()
    for target in targets
]


@pytest.mark.parametrize(("engine", "target"), PAIRS)
def test_engine_what_dies_loses_nothing(
    umpteen: Umpteen, need: Callable[[str], str], engine: str, target: str
) -> None:
    if target == "cut worker":
        need("ip")
        if not is_allowed():
            pytest.skip("needs root, for a network of its own")
    after = random.Random(f"{SEED}{engine}{target}").randrange(TASKS)
    print(f"seed {SEED}, after {after}")
    assert run_engine_point(umpteen, engine, target, after, TASKS) == []
