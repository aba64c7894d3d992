"""Which jobs there are, and how one is found by its name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from umpteen.errors import InputError
from umpteen.query.registry import find_address, list_entries, register
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import JOB


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder and a working directory of this test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def make_job(folder: Path) -> str:
    DirectoryStore(str(folder)).create(JOB, b"{}")
    return str(folder)


def test_registry_without_jobs_is_empty() -> None:
    assert list_entries() == []


def test_registry_job_that_was_registered_is_listed_and_found(place: Path) -> None:
    address = make_job(place / "far/job")
    register("sweep", address)
    assert [(entry.name, entry.address) for entry in list_entries()] == [("sweep", address)]
    assert find_address("sweep") == address


def test_registry_job_registered_twice_is_listed_once(place: Path) -> None:
    address = make_job(place / "far/job")
    register("old", address)
    register("new", address)
    assert [entry.name for entry in list_entries()] == ["new"]


def test_registry_job_beside_is_found_without_being_registered(place: Path) -> None:
    address = make_job(place / "work/umpteen-results/job")
    assert find_address("job") == address
    assert [entry.name for entry in list_entries()] == ["job"]


def test_registry_job_beside_wins_over_one_elsewhere(place: Path) -> None:
    register("job", make_job(place / "far/job"))
    beside = make_job(place / "work/umpteen-results/job")
    assert find_address("job") == beside


@pytest.mark.parametrize("name", ["../far/job", "{place}/far/job", "file://{place}/far/job"])
def test_registry_address_is_taken_as_it_is(place: Path, name: str) -> None:
    address = make_job(place / "far/job")
    assert find_address(name.format(place=place)) == address


def test_registry_folder_of_that_name_wins_where_it_is_a_job(place: Path) -> None:
    address = make_job(place / "work/job")
    register("job", make_job(place / "far/job"))
    assert find_address("job") == address


def test_registry_several_of_a_name_are_listed_in_the_error(place: Path) -> None:
    addresses = [make_job(place / part) for part in ("a", "b")]
    for address in addresses:
        register("job", address)
    with pytest.raises(InputError, match="there are 2 jobs named 'job'") as caught:
        find_address("job")
    assert all(address in (caught.value.hint or "") for address in addresses)


def test_registry_unknown_name_is_answered_with_the_nearest(place: Path) -> None:
    register("sweep", make_job(place / "far"))
    with pytest.raises(InputError) as caught:
        find_address("swep")
    assert caught.value.hint == "did you mean 'sweep'? umpteen ls shows all"


def test_registry_name_near_to_none_is_no_list_of_all(place: Path) -> None:
    register("sweep", make_job(place / "far"))
    with pytest.raises(InputError) as caught:
        find_address("xyz")
    assert caught.value.hint == "umpteen ls shows all"


def test_registry_forgets_a_job_that_is_gone(place: Path) -> None:
    address = make_job(place / "far/job")
    register("job", address)
    shutil.rmtree(address)
    assert list_entries() == []
    assert os.listdir(place / "data/umpteen/jobs") == []


def test_registry_keeps_a_job_whose_disk_is_not_there(place: Path) -> None:
    address = make_job(place / "disk/results/job")
    register("job", address)
    (place / "disk").rename(place / "unmounted")
    assert list_entries() == []
    (place / "unmounted").rename(place / "disk")
    assert [entry.address for entry in list_entries()] == [address]


def test_registry_looking_for_a_name_asks_for_no_other_job(place: Path) -> None:
    gone = make_job(place / "far/gone")
    register("gone", gone)
    register("job", make_job(place / "far/job"))
    shutil.rmtree(gone)
    assert [entry.name for entry in list_entries("job")] == ["job"]
    assert len(os.listdir(place / "data/umpteen/jobs")) == 2  # none was found to be gone
    assert [entry.name for entry in list_entries()] == ["job"]
    assert len(os.listdir(place / "data/umpteen/jobs")) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "x"}', "\0"])
def test_registry_damaged_file_hides_no_other(place: Path, content: str) -> None:
    register("job", make_job(place / "far"))
    (place / "data/umpteen/jobs/damaged.json").write_text(content)
    assert [entry.name for entry in list_entries()] == ["job"]


def test_registry_that_cannot_be_written_is_done_without(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(place / "file"))
    register("job", make_job(place / "far"))
    assert list_entries() == []


def test_registry_name_of_a_bundle_is_its_newest_job(place: Path) -> None:
    names = ["b-20250101000000", "b-20260101000000", "b-other-20270101000000", "b-1"]
    addresses = {name: make_job(place / name) for name in names}
    for name, address in addresses.items():
        register(name, address)
    assert find_address("b") == addresses["b-20260101000000"]
    assert find_address("b-20250101000000") == addresses["b-20250101000000"]
    own = make_job(place / "far/b")
    register("b", own)
    assert find_address("b") == own
