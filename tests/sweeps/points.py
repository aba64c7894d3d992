"""The points of a sweep, one after another, each in folders of its own."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.command import Umpteen

__all__ = ["read_options", "run_points"]


def run_points(points: int, seed: int, run: Callable[[int, Umpteen], tuple[str, list[str]]]) -> int:
    """Run each point with folders of its own, and print it with its faults; 1 if it had any.

    run: of a point's number; what was done there, and what is wrong.
    """
    print(f"seed {seed}, {points} points", flush=True)
    bad = 0
    with tempfile.TemporaryDirectory(prefix="umpteen-sweep-") as root:
        for number in range(points):
            umpteen = Umpteen(Path(root, f"{number}", "work"), Path(root, f"{number}", "home"))
            umpteen.folder.mkdir(parents=True)
            umpteen.home.mkdir()
            what, faults = run(number, umpteen)
            bad += bool(faults)
            print(f"{number:>4}  {what:<60} {'; '.join(faults[:5]) or 'sound'}", flush=True)
    print(f"{points - bad} of {points} points sound, seed {seed}")
    return 1 if bad else 0


def read_options(text: str | None, points: int, tasks: int = 0) -> argparse.Namespace:
    """How many points (and tasks, where that is a choice), and the seed."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--points", type=int, default=points)
    if tasks:
        parser.add_argument("--tasks", type=int, default=tasks)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    return parser.parse_args()
