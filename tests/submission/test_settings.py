from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from umpteen.errors import SettingsError
from umpteen.executors.feasibility import refuse_too_many_slots
from umpteen.formats import read_job
from umpteen.job.spec import Job
from umpteen.submission.settings import detach, resolve_settings


def read(**changes: object) -> Job:
    job = read_job(["echo"], name="study")
    settings = msgspec.structs.replace(job.settings, **changes)
    return msgspec.structs.replace(job, settings=settings)


def test_settings_are_complete_once_resolved(tmp_path: Path) -> None:
    address = f"{tmp_path}/runs/{{name}}"
    settings = resolve_settings(read(address=address, slots=0), "/somewhere").settings
    assert (settings.address, settings.submitted_from) == (f"{tmp_path}/runs/study", "/somewhere")
    assert settings.slots >= 1
    assert settings.sources["slots"] == "default: the cores this process may use"


def test_slots_that_were_given_stay(tmp_path: Path) -> None:
    settings = resolve_settings(read(address=str(tmp_path), slots=3), "/somewhere").settings
    assert settings.slots == 3


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/data/{nmae}", "has {nmae}, which nothing stands for"),
        ("/", "cannot lie in the root folder itself"),
        ("/data/\udcff", "is not UTF-8"),
    ],
)
def test_address_that_cannot_be_is_refused(address: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        resolve_settings(read(address=address), "/somewhere")


def test_too_many_slots_are_refused() -> None:
    refuse_too_many_slots(10_000)
    with pytest.raises(SettingsError, match="10,001 slots are more than one runner has"):
        refuse_too_many_slots(10_001)


def test_only_what_would_end_with_this_process_is_detached() -> None:
    assert detach(read()).settings.executor_options == {"detach": True}
    assert detach(read(executor="dask")).settings.executor_options == {}
