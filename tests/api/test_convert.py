from __future__ import annotations

import enum
import fractions
from pathlib import Path
from typing import Any

import pytest

import umpteen
from umpteen.api.convert import build_job
from umpteen.errors import InputError
from umpteen.formats.flags import JobFlags
from umpteen.job.spec import Job as PlannedJob

ODD: Any = fractions.Fraction(1, 3)
ODD_NAME: Any = None


class Array:
    """As numpy's, for what is read of it."""

    def tolist(self) -> list[float]:
        return [0.1, 2.5]


class Colour(enum.Enum):
    RED = "red"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def build(job: Any, values: dict[str, Any] | None = None, name: str | None = None) -> PlannedJob:
    return build_job(job, values, name, JobFlags())


def list_commands(job: PlannedJob) -> list[Any]:
    return [task.command for task in job.tasks]


@pytest.mark.parametrize(
    ("values", "commands"),
    [
        ([1, 2], ["echo 1", "echo 2"]),
        (range(2), ["echo 0", "echo 1"]),
        (Array(), ["echo 0.1", "echo 2.5"]),
        ((Colour.RED,), ["echo red"]),
        ([Path("/a/b")], ["echo /a/b"]),
        ([True, False], ["echo true", "echo false"]),
        ([1e-5, 1e22, 2.0], ["echo 0.00001", "echo 1e22", "echo 2.0"]),
    ],
)
def test_values_are_written_as_a_job_file_has_them(values: Any, commands: list[str]) -> None:
    assert list_commands(build("echo {x}", {"x": values})) == commands


def test_job_is_named_as_its_program_says() -> None:
    assert build(umpteen.Task(["python", "train.py", "a b"])).name == "train"
    assert build("python sim.py {x}", {"x": [1]}).name == "sim"
    assert build(["echo a"], name="mine").name == "mine"


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ([umpteen.Task("echo", timeout="soon")], "task 0: "),
        ([umpteen.Task("echo", name="a", timeout="soon")], "task 'a': "),
        ([umpteen.Task("echo", cpus=0)], "'cpus' must be a whole number of at least 1, not 0"),
        ([1], "item 0 of 'tasks' must be a mapping or a command, not 1"),
        ([umpteen.Task("echo", after="nothing")], "task 0: "),
    ],
)
def test_error_says_nothing_of_lines_that_nobody_wrote(job: Any, said: str) -> None:
    with pytest.raises(InputError) as raised:
        build(job, name="job")
    assert raised.value.message.startswith(said)
    assert (raised.value.file, raised.value.line) == (None, None)


@pytest.mark.parametrize(
    ("job", "values", "said"),
    [
        ([], None, "the job has no tasks"),
        (b"echo", None, "'bytes' is no job"),
        (["echo"], {"x": [1]}, "'values' go with a command"),
        ("echo {x}", [1], "'values' must be a mapping"),
        ([umpteen.Task("echo", tags=ODD)], None, "a job cannot hold"),
        (umpteen.Job("a", ["echo"], defaults={"command": "x"}), None, "unknown key 'command'"),
        (umpteen.Job(ODD_NAME, ["echo"]), None, "the job has no name"),
    ],
)
def test_what_is_no_job_is_refused(job: Any, values: Any, said: str) -> None:
    is_named = isinstance(job, (str, umpteen.Job))
    with pytest.raises(InputError, match=said):
        build(job, values, name=None if is_named else "job")


def test_numbers_of_options_stay_numbers() -> None:
    results: Any = {"path": "out", "options": {"wait": 1e-5}}
    job = build(umpteen.Job("a", ["echo"], results=results))
    assert job.settings.results_options == {"wait": 1e-5}


def test_settings_of_a_program_are_told_to_be_its_own() -> None:
    job = build(umpteen.Job("a", ["echo"], slots=3))
    assert (job.settings.slots, job.settings.sources["slots"]) == (3, "Python")
