"""Folders that are synced: what of them is put into the store, and what tasks are told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from umpteen.errors import InputError
from umpteen.formats import read_job
from umpteen.job.spec import Job
from umpteen.store.directory import DirectoryStore
from umpteen.submission.sync import measure_syncs, put_syncs


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """An empty one, beside a folder `code` with a file."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/a.py").write_text("1")
    return DirectoryStore(str(tmp_path / "code/results"))  # as results may lie in it


def make_job(tmp_path: Path, *syncs: tuple[str, str | None]) -> Job:
    job = read_job(["echo"], name="job")
    settings = msgspec.structs.replace(
        job.settings, file_syncs=list(syncs), submitted_from=str(tmp_path)
    )
    return msgspec.structs.replace(job, settings=settings)


def list_archives(store: DirectoryStore) -> list[str]:
    return sorted(path.name for path in Path(store.path(".umpteen/synced")).glob("*"))


def test_job_without_folders_is_as_it_was(store: DirectoryStore, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert put_syncs(store, job, is_far=True) is job
    assert list_archives(store) == []


def test_folder_is_put_once_for_each_content(store: DirectoryStore, tmp_path: Path) -> None:
    job = make_job(tmp_path, ("code", None))
    ((digest, _, _),) = put_syncs(store, job, is_far=False).settings.synced
    assert list_archives(store) == [f"{digest}.tar.gz"]
    put_before = Path(store.path(f".umpteen/synced/{digest}.tar.gz")).stat()
    again = put_syncs(store, job, is_far=False)  # the archive itself lies in the folder by now
    assert again.settings.synced[0][0] == digest
    assert Path(store.path(f".umpteen/synced/{digest}.tar.gz")).stat().st_mtime_ns == (
        put_before.st_mtime_ns
    )
    (tmp_path / "code/a.py").write_text("2")
    put_syncs(store, job, is_far=False)
    assert len(list_archives(store)) == 2


def test_measuring_puts_nothing(store: DirectoryStore, tmp_path: Path) -> None:
    job = make_job(tmp_path, ("code", None))
    measured = measure_syncs(store, job, is_far=True)
    assert list_archives(store) == []
    assert measured == put_syncs(store, job, is_far=True)


@pytest.mark.parametrize(
    ("wanted", "is_far", "destination", "link"),
    [
        (None, False, None, ""),
        (None, True, None, "{here}/code/"),  # so that the same path leads to it there
        ("/there", True, "/there", ""),
        ("./code", True, None, "{here}/code/"),  # where it is itself
        ("code", False, None, ""),
    ],
)
def test_tasks_are_told_where_a_folder_is(
    store: DirectoryStore,
    tmp_path: Path,
    wanted: str | None,
    *,
    is_far: bool,
    destination: str | None,
    link: str,
) -> None:
    job = put_syncs(store, make_job(tmp_path, ("code", wanted)), is_far=is_far)
    ((_, found, linked),) = job.settings.synced
    assert (found, linked) == (destination, link.format(here=tmp_path))


def test_file_is_told_by_its_folder(store: DirectoryStore, tmp_path: Path) -> None:
    job = put_syncs(store, make_job(tmp_path, ("code/a.py", "/there/b.py")), is_far=True)
    ((_, destination, link),) = job.settings.synced
    assert (destination, link) == ("/there", "")
    job = put_syncs(store, make_job(tmp_path, ("code/a.py", None)), is_far=True)
    assert job.settings.synced[0][1:] == (None, f"{tmp_path}/code/a.py")


def test_folder_that_is_not_there_is_refused(store: DirectoryStore, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        put_syncs(store, make_job(tmp_path, ("nowhere", None)), is_far=False)
