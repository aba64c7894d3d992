from __future__ import annotations

import json
from pathlib import Path

import pytest

from umpteen.errors import BackendError
from umpteen.formats import read_job
from umpteen.job.spec import Job
from umpteen.store.address import open_store
from umpteen.submission.job_folder import create_job, job_created
from umpteen.submission.read_back import read_history
from umpteen.submission.settings import resolve_settings


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    for name in ("HOME", "XDG_DATA_HOME", "UMPTEEN_LEASES"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    return resolve_settings(read_job(["echo"], name="study"), str(tmp_path))


def test_job_is_created_once(job: Job) -> None:
    store = open_store(job.settings.address)
    create_job(store, job)
    first = store.read(".umpteen/job.json")
    assert first is not None
    written = json.loads(first)
    assert (written["name"], "sources" in written["settings"]) == ("study", False)
    create_job(store, job)
    assert store.read(".umpteen/job.json") == first


def test_new_job_goes_where_it_cannot_be_submitted(job: Job) -> None:
    created = Path(job.settings.address, ".umpteen/job.json")
    with pytest.raises(BackendError, match="no such"), job_created(read_history(job), job):
        raise BackendError("no such cluster" if created.exists() else "not created")
    assert not Path(job.settings.address).exists()


def test_job_that_was_there_stays_where_it_cannot_be_submitted(job: Job) -> None:
    create_job(open_store(job.settings.address), job)
    with pytest.raises(BackendError), job_created(read_history(job), job):
        raise BackendError("no such cluster")
    assert Path(job.settings.address, ".umpteen/job.json").exists()
