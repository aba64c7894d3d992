"""Whose folder it is, where the file system has its own mind about that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from umpteen.errors import StoreError
from umpteen.store import owners


@pytest.fixture
def as_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that we make are not shown as ours, as those of root on many shared disks."""
    monkeypatch.setattr(owners, "own_ids", lambda: {4242})


@pytest.mark.usefixtures("as_somebody_else")
def test_a_folder_is_ours_where_what_we_make_has_its_owner(tmp_path: Path) -> None:
    (tmp_path / ".umpteen").mkdir()
    owners.refuse_strangers(str(tmp_path))
    assert os.listdir(tmp_path) == [".umpteen"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.usefixtures("as_somebody_else")
def test_a_folder_in_which_we_may_write_is_not_ours_by_that(tmp_path: Path) -> None:
    os.chown(tmp_path, 4243, -1)
    with pytest.raises(StoreError, match="belongs to uid 4243"):
        owners.refuse_strangers(str(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(("mode", "is_refused"), [(0o777, True), (0o1777, True), (0o775, False)])
def test_a_link_of_another_above_the_store_counts_where_anybody_may_put_one(
    tmp_path: Path, mode: int, *, is_refused: bool
) -> None:
    (tmp_path / "disk").mkdir()
    above = tmp_path / "above"
    above.mkdir()
    above.chmod(mode)
    (above / "link").symlink_to(tmp_path / "disk")
    os.chown(above / "link", 4243, -1, follow_symlinks=False)
    address = str(above / "link/job")
    if not is_refused:
        owners.refuse_strangers(address)
        return
    with pytest.raises(StoreError, match="is a link of uid 4243") as caught:
        owners.refuse_strangers(address)
    assert caught.value.hint == f"give the folder itself: {tmp_path}/disk"
