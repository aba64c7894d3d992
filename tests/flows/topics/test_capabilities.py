"""What tasks need of a machine by name: given where it is said to be there, refused elsewhere."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.store import list_records

CFD: dict[str, Any] = {"name": "cfd", "command": "touch ran", "needs": ["openfoam", "g++"]}
POST: dict[str, Any] = {"name": "post", "command": "touch post", "tags": "post"}


def write(umpteen: Umpteen, *tasks: dict[str, Any], **more: Any) -> None:
    umpteen.write("job.json", json.dumps({"tasks": tasks, **more}))


def having(*names: str) -> dict[str, Any]:
    return {"executor": {"local": {"capabilities": names}}}


def refused(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """(error, hint) of a verb that refused."""
    assert done.returncode == 2, done.stderr
    error, _, hint = done.stderr.strip().partition("\n\nhint: ")
    return error.removeprefix("error: "), hint


@pytest.mark.parametrize(
    ("executor", "hint"),
    [
        ("local", "executor: {local: {capabilities: [g++, openfoam]}} says what this machine has"),
        ("slurm", "write slurm: {constraint: g++&openfoam} in its place, by features of nodes"),
        ({"dask": {"scheduler_address": "tcp://127.0.0.1:1"}}, "leave 'needs' out, or use "),
        ({"ray": {"address": "127.0.0.1:1"}}, "leave 'needs' out, or use "),
    ],
)
def test_executor_that_does_not_know_refuses_before_anything_is_written(
    umpteen: Umpteen, executor: Any, hint: str
) -> None:
    write(umpteen, POST, CFD, executor=executor)
    for more in ([], ["--dry-run"], ["--detach"]):
        error, hinted = refused(umpteen("run", "job.json", *more))
        name = executor if isinstance(executor, str) else next(iter(executor))
        assert error == (
            f"task 'cfd' needs 'g++' and 'openfoam'; the executor '{name}' does not know what "
            "machines have"
        )
        assert hinted.startswith(hint)
        assert [path.name for path in umpteen.folder.iterdir()] == ["job.json"]


def test_machine_that_is_said_to_have_it_runs_it(umpteen: Umpteen) -> None:
    write(umpteen, POST, CFD, **having("g++", "openfoam", "gpu"))
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    assert (umpteen.folder / "ran").exists()


def test_machine_that_is_said_to_have_other_things_refuses_it(umpteen: Umpteen) -> None:
    write(umpteen, POST, CFD, **having("g++", "gpu"))
    assert refused(umpteen("run", "job.json")) == (
        "task 'cfd' needs 'openfoam'; this machine is said to have 'g++' and 'gpu'",
        "executor: {local: {capabilities: [g++, gpu, openfoam]}} says what this machine has",
    )
    assert not umpteen.store().exists()


def test_flag_is_for_every_task_and_may_be_repeated(umpteen: Umpteen) -> None:
    write(umpteen, POST, CFD, **having("b", "a"))
    done = umpteen("run", "job.json", "--needs", "b", "--needs", "a")
    assert done.returncode == 0, done.stderr
    error, _ = refused(umpteen("run", "true", "--name", "other", "--needs", "b"))
    assert error.startswith("task '0' needs 'b'; ")
    error, hint = refused(umpteen("run", "true", "--needs", "a b"))
    assert error == "'a b' in 'needs' cannot be the name of a capability"
    assert hint.startswith("use letters, digits")


def test_only_tasks_that_are_to_run_are_looked_at(umpteen: Umpteen) -> None:
    write(umpteen, POST, CFD)
    done = umpteen("run", "job.json", "--only", "tag=post")
    assert (umpteen.folder / "post").exists(), done.stderr
    error, _ = refused(umpteen("run", "job.json"))
    assert error.startswith("task 'cfd' needs ")
    error, _ = refused(umpteen("collect", "job"))
    assert error.startswith("task 'cfd' needs ")
    write(umpteen, POST, CFD, **having("g++", "openfoam"))
    assert umpteen("run", "job.json").returncode == 0
    write(umpteen, POST, CFD)
    assert umpteen("run", "job.json").returncode == 0  # all is done, whatever it needed


def test_what_is_needed_and_what_is_there_are_kept_for_retry_and_collect(
    umpteen: Umpteen,
) -> None:
    write(umpteen, {**CFD, "command": "[ -e go ]"}, **having("g++", "openfoam"))
    assert umpteen("run", "job.json").returncode == 1
    for more in ([], ["--detach"]):  # as each of them is kept for the next
        assert umpteen("retry", "job", *more).returncode == (0 if more else 1)
        assert umpteen("collect", "job").returncode == 1
    (line,) = (umpteen.store() / ".umpteen/tasks/1.jsonl").read_text().splitlines()
    assert json.loads(line)["terms"] == {"needs": ["g++", "openfoam"]}
    (umpteen.folder / "go").touch()
    error, _ = refused(umpteen("retry", "job", "--executor", "slurm"))
    assert error.endswith("the executor 'slurm' does not know what machines have")
    assert umpteen("retry", "job").returncode == 0
    states = [record["state"] for record in list_records(umpteen.store())]
    assert states == ["failed", "failed", "failed", "succeeded"]


def test_other_needs_do_not_run_again_what_is_done(umpteen: Umpteen) -> None:
    write(umpteen, CFD, **having("g++", "openfoam"))
    assert umpteen("run", "job.json").returncode == 0
    write(umpteen, {**CFD, "needs": "gpu"}, **having("gpu"))
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    assert len(list_records(umpteen.store())) == 1
