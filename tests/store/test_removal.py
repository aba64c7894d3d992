"""Removing a job by names that somebody else has written."""

from __future__ import annotations

from pathlib import Path

import pytest

from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import JOB
from umpteen.store.removal import Measured, measure_job, remove_job


@pytest.mark.parametrize(
    "name", ["../outside", "a/../../outside", "ABSOLUTE", ".", "", "link", "link/a"]
)
def test_removal_stays_below_the_store(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    for folder in (outside, outside / "a"):
        (folder / "results").mkdir(parents=True)
        (folder / "stdout").write_text("mine")
    store = DirectoryStore(str(tmp_path / "store"))
    store.create(JOB, b'{"name":"job"}')
    (tmp_path / "store/link").symlink_to(outside)
    names = [name.replace("ABSOLUTE", str(outside))]
    assert measure_job(store, names) == Measured(0, 14)
    assert remove_job(store, names).tasks == 0
    for folder in (outside, outside / "a"):
        assert (folder / "stdout").read_text() == "mine"
        assert (folder / "results").is_dir()
