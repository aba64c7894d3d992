"""An executor that has what is submitted to it, and runs nothing; and jobs for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from umpteen.executors import registry
from umpteen.executors.base import (
    Abilities,
    BatchState,
    Executor,
    OnProgress,
    SubmitRequest,
    ignore_progress,
)
from umpteen.formats import read_job
from umpteen.job.spec import Job


class KeepingExecutor(Executor):
    """Has what is submitted to it, and runs nothing."""

    name = "keeping"
    abilities = Abilities(
        dependencies=True, capabilities=False, reconnect=True, is_engine=True,
        batches_most=0, start_up_s=0.0,
    )  # fmt: skip
    asked: ClassVar[list[SubmitRequest]] = []
    living: ClassVar[set[str]] = set()

    def submit(
        self, request: SubmitRequest, on_progress: OnProgress = ignore_progress
    ) -> dict[str, str]:
        del on_progress
        self.asked.append(request)
        return {batch: f"handle {batch}" for batch in request.batches}

    def poll(self, handles: Sequence[str]) -> dict[str, BatchState]:
        return {
            handle: BatchState.RUNNING if handle in self.living else BatchState.ENDED
            for handle in handles
        }

    def wake(self, handles: Sequence[str]) -> None:
        raise AssertionError(handles)


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a job's store, with leases, a registry and an executor of this test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("UMPTEEN_LEASES", str(tmp_path / "leases"))
    path = f"{__name__}:{KeepingExecutor.__name__}"
    monkeypatch.setitem(registry._OURS, "keeping", path)
    monkeypatch.setattr(KeepingExecutor, "asked", [])
    monkeypatch.setattr(KeepingExecutor, "living", set())
    return str(tmp_path / "job")


def make_job(address: str, *commands: str, **settings: Any) -> Job:
    job = read_job(["echo {n}", "n=" + ",".join(commands)], name="job")
    changed = msgspec.structs.replace(
        job.settings, address=address, executor="keeping", slots=1, **settings
    )
    return msgspec.structs.replace(job, settings=changed)
