"""Bundles of a folder are found by exact name and time, and no job is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
from pathlib import Path

import pytest

from umpteen.bundles.bundle import BundleJob
from umpteen.bundles.folder import BundleFolder
from umpteen.config.machines import Config, Machine
from umpteen.errors import InputError, StoreError

JOB = BundleJob("app", "app")


@pytest.fixture
def folder(tmp_path: Path) -> BundleFolder:
    return open_folder(tmp_path)


def open_folder(path: Path) -> BundleFolder:
    return BundleFolder(Config({"local": Machine("local", path=str(path))}))


def put(folder: BundleFolder, name: str, content: object) -> None:
    os.makedirs(folder.path, exist_ok=True)
    Path(folder.path, name).write_text(json.dumps(content))


def test_newest_bundle_of_exactly_that_name_is_read(folder: BundleFolder) -> None:
    put(folder, "my_20260101000000.json", {})
    put(folder, "my_20260102000000.json", {"a": {"script": "a"}})
    put(folder, "my-other_20260103000000.json", {})
    put(folder, "my_other_20260103000000.json", {})
    put(folder, "my_20260104.json", {})
    bundle = folder.read("my")
    assert (bundle.timestamp, list(bundle.jobs)) == ("20260102000000", ["a"])
    assert folder.read("my", "20260101000000").jobs == {}


def test_bundle_that_is_not_there_is_answered_with_what_is(folder: BundleFolder) -> None:
    put(folder, "sweep_20260101000000.json", {})
    with pytest.raises(InputError, match="no bundle 'swep'") as caught:
        folder.read("swep")
    assert caught.value.hint == "did you mean 'sweep'?"
    with pytest.raises(InputError, match="no bundle 'sweep' of 20260102000000") as caught:
        folder.read("sweep", "20260102000000")
    assert caught.value.hint == "there are 20260101000000"


def test_new_bundle_is_the_newest_whatever_the_clock_says(folder: BundleFolder) -> None:
    put(folder, "b_20990101000000.json", {})
    put(folder, "other_20990101000001.json", {})
    assert folder.create("b").timestamp == "20990101000002"
    assert folder.read("b").timestamp == "20990101000002"


def test_name_that_cannot_be_a_file_is_refused(folder: BundleFolder) -> None:
    with pytest.raises(InputError, match="cannot be a job's name"):
        folder.create("a/b")
    assert os.listdir(folder.path) == [".lock"]


def test_bundle_that_cannot_be_written_whole_is_not_there(folder: BundleFolder) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # as on a full disk
    try:
        with pytest.raises(StoreError, match="File too large"):
            folder.create("b", JOB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(folder.path) == [".lock"]


def test_append_leaves_what_was_written_by_hand(folder: BundleFolder) -> None:
    mine = {"script": "a b", "script_args": {"x": "'y z'"}, "dependencies": ["app"]}
    put(folder, "b_20260101000000.json", {"mine": mine})
    added = folder.append("b", JOB)
    found = json.loads(Path(added.bundle.path).read_text())
    assert (found["mine"], list(found), added.is_new) == (mine, ["mine", "app"], False)


def test_append_to_a_link_changes_what_it_leads_to_and_keeps_its_mode(
    folder: BundleFolder, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text("{}")
    kept.chmod(0o600)
    os.makedirs(folder.path)
    Path(folder.path, "b_20260101000000.json").symlink_to(kept)
    folder.append("b", JOB)
    assert list(json.loads(kept.read_text())) == ["app"]
    assert kept.stat().st_mode & 0o777 == 0o600


def test_append_to_a_file_that_is_wrong_leaves_it(folder: BundleFolder) -> None:
    put(folder, "b_20260101000000.json", {"mine": 3})
    before = Path(folder.path, "b_20260101000000.json").read_text()
    with pytest.raises(InputError, match="'mine' must be an object"):
        folder.append("b", JOB)
    assert Path(folder.path, "b_20260101000000.json").read_text() == before


def append_some(path: Path, number: int) -> None:
    for turn in range(10):
        open_folder(path).append("b", BundleJob(f"job-{number}-{turn}", "app"))


def test_appends_of_several_processes_at_once_are_all_there(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=append_some, args=(tmp_path, n)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    names = [f"job-{number}-{turn}" for number in range(4) for turn in range(10)]
    assert sorted(open_folder(tmp_path).read("b").jobs) == sorted(names)


def test_folder_that_cannot_be_made_or_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = open_folder(tmp_path / "file")
    with pytest.raises(StoreError, match=r"cannot write .*file/jobs: Not a directory"):
        folder.create("b")
    with pytest.raises(StoreError, match=r"cannot read .*file/jobs: Not a directory"):
        folder.read("b")
