from __future__ import annotations

from pathlib import Path

import pytest

from umpteen.formats import read_job
from umpteen.job.spec import Job
from umpteen.verbs.retry import Rerun, change_tasks, list_behind

FILE = """
tasks:
- {name: prep, command: "true"}
- {name: train, command: "true", after: prep}
- {name: score, command: "true", after: train, timeout: 30}
- {name: alone, command: "true"}
"""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    file = tmp_path / "job.yaml"
    file.write_text(FILE)
    return read_job([str(file)])


def test_what_is_behind_tasks_is_found_through_others(job: Job) -> None:
    assert list_behind(job, {"prep"}) == {"train", "score"}
    assert list_behind(job, {"train"}) == {"score"}
    assert list_behind(job, {"score", "alone"}) == set()


def test_only_tasks_that_are_meant_are_changed(job: Job) -> None:
    changed = change_tasks(job, {"train"}, Rerun(timeout_s=5.0))
    assert [task.timeout_s for task in changed.tasks] == [None, 5.0, 30.0, None]
    assert [task.timeout_s for task in job.tasks] == [None, None, 30.0, None]
