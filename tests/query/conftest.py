"""A job that has ended, as its files are: real ones, in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.store import put_batch, put_hand_in, put_start
from umpteen.history.history import History
from umpteen.store.address import open_store
from umpteen.store.base import Store

NAMES = ["prep", "train-1", "train-2", "report"]


def record(task: int, state: str, **more: Any) -> dict[str, Any]:
    """A line of a records file."""
    return {"task": task, "digest": "", "attempt": 1, "state": state, **more}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """`prep` succeeded, `train-1` failed, `train-2` succeeded, `report` was skipped after that."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("UMPTEEN_LEASES", str(tmp_path / "leases"))
    monkeypatch.chdir(tmp_path)
    store = open_store(str(tmp_path / "umpteen-results" / "job"))
    lines: list[dict[str, Any]] = [
        {"command": "prepare", "name": "prep"},
        {"command": "train 1", "name": "train-1", "parameters": {"lr": "0.1"}, "tags": ["big"]},
        {"command": "train 2", "name": "train-2", "parameters": {"lr": "0.2"}},
        {"command": "tell", "name": "report", "terms": {"after": [["train-*", "succeeded"]]}},
    ]
    put_hand_in(store, 1, lines, {"1": "0-3"}, settings={"slots": 2}, graph=True)
    put_batch(store, "1", "0-3", NAMES)
    ended = [
        record(0, "succeeded", exit_code=0, start_s=10.0, end_s=11.0, seconds=1.0),
        record(1, "failed", exit_code=3, start_s=11.0, end_s=13.0, seconds=2.0, peak_kb=2048),
        record(2, "succeeded", exit_code=0, start_s=11.0, end_s=14.0, seconds=3.0),
        record(3, "skipped", end_s=14.0, reason="after train-1, which failed"),
    ]
    put_start(store, "1", [*ended, {"event": "end", "time": 14.0, "left": 0}])
    folder = Path(store.address)
    for name in NAMES[:3]:
        (folder / name / "results").mkdir(parents=True)
        (folder / name / "stdout").write_text(f"out of {name}\n")
        (folder / name / "stderr").write_text(f"first\nlast of {name}\n\n")
        (folder / name / "results" / "a.csv").write_text("1,2\n")
    return store


@pytest.fixture
def read(store: Store) -> Callable[[], History]:
    """Reads the job anew."""

    def read_it() -> History:
        history = History(store)
        history.refresh()
        return history

    return read_it


@pytest.fixture
def history(read: Callable[[], History]) -> History:
    """The job as it is."""
    return read()
