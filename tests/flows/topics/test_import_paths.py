"""Executors by import path: loaded where the caller names them himself, never from a store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import SOURCE, Umpteen
from tests.support.wait import wait_until

PATH = "lab_queue:LabExecutor"
MODULE = """
from umpteen.executors.local import LocalExecutor

open({mark!r}, "w").close()

class LabExecutor(LocalExecutor):
    name = "lab"
"""
TASKS = f"name: job\nexecutor: {PATH}\ntasks:\n  - command: test -e done\n"
OWN_PROGRAM = """import umpteen
from umpteen.errors import SettingsError
job = umpteen.run("test -e done", name="job", executor={path!r}, progress=False)
open("done", "w").close()
assert job.retry(progress=False).ok
assert umpteen.open_job("job", executor={path!r}).wait().ok
assert umpteen.collect("job", executor={path!r}, progress=False).ok
try:
    umpteen.collect("job", progress=False)
except SettingsError as error:
    print(error.hint)
"""
VERBS = ["collect", "retry", "cancel"]
# A file whose executor cannot be reached here, of a job that was run on this machine.
ELSEWHERE = """name: here
executor: {dask: {scheduler_address: "tcp://127.0.0.1:1"}}
tasks: [{command: "until test -e go; do sleep 0.1; done; test -e done"}]
"""


class Lab:
    """A job of one task that fails, run by an executor of a module beside it."""

    def __init__(self, umpteen: Umpteen) -> None:
        self.umpteen = umpteen
        self.mark = umpteen.folder / "was_loaded"
        umpteen.write("modules/lab_queue.py", MODULE.format(mark=str(self.mark)))
        self.environment = {"PYTHONPATH": str(umpteen.folder / "modules")}

    def __call__(self, *arguments: str | Path) -> tuple[int, str]:
        """Exit code and stderr; whether the module was loaded is seen by `mark`."""
        self.mark.unlink(missing_ok=True)
        done = self.umpteen(*arguments, env=self.environment)
        return done.returncode, done.stderr


@pytest.fixture
def lab(umpteen: Umpteen) -> Lab:
    """The job has run once, from a job file that names the path."""
    lab = Lab(umpteen)
    umpteen.write("tasks.yaml", TASKS)
    code, said = lab("run", "tasks.yaml")
    assert code == 1, said
    assert lab.mark.exists()
    return lab


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("job", ["job", "umpteen-results/job"])
def test_name_or_address_loads_no_path(lab: Lab, verb: str, job: str) -> None:
    code, said = lab(verb, job)
    assert code == 2
    assert not lab.mark.exists()
    assert f"the executor '{PATH}' is an import path, which is loaded only where you" in said
    assert f"hint: give the job's file in place of its name, or --executor {PATH}" in said


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("given", [("tasks.yaml",), ("job", "--executor", PATH)])
def test_job_file_or_flag_loads_the_path(lab: Lab, verb: str, given: tuple[str, ...]) -> None:
    (lab.umpteen.folder / "done").touch()
    code, said = lab(verb, *given)
    assert code == {"retry": 0, "collect": 1, "cancel": 0}[verb], said
    assert lab.mark.exists()


def test_other_path_than_that_of_the_job_is_not_enough_to_ask_it(lab: Lab) -> None:
    code, said = lab("retry", "job", "--executor", "no_such_module:Executor")
    assert code == 2
    assert not lab.mark.exists()
    assert "there is no executor 'no_such_module:Executor'" in said


def test_job_goes_on_by_an_executor_that_needs_no_path(lab: Lab) -> None:
    (lab.umpteen.folder / "done").touch()
    code, said = lab("retry", "job", "--executor", "local")
    assert code == 0, said
    assert not lab.mark.exists()
    assert lab("collect", "job")[0] == 0


@pytest.mark.parametrize("verb", ["retry", "rm"])
def test_verbs_that_write_nothing_by_it_load_no_path(lab: Lab, verb: str) -> None:
    code, said = lab(verb, "job", "--dry-run" if verb == "retry" else "--yes")
    assert code == {"retry": 2, "rm": 0}[verb], said
    assert not lab.mark.exists()


def test_running_job_is_cancelled_by_its_file(lab: Lab) -> None:
    # Detached by its own option: of other executors than ours --detach takes it for granted.
    executor = f"executor: {{'{PATH}': {{detach: true}}}}"
    lab.umpteen.write("long.yaml", f"{executor}\ntasks:\n  - command: sleep 100\n")
    assert lab("run", "long.yaml", "--detach")[0] == 0
    wait_until(lambda: '"running": 1' in lab.umpteen("status", "long", "--json").stdout)
    assert lab("rm", "long", "--yes")[0] == 2
    assert lab("cancel", "long")[0] == 2
    assert not lab.mark.exists()
    code, said = lab("cancel", "long.yaml")
    assert code == 0, said
    shown = json.loads(lab.umpteen("status", "long", "--json").stdout)
    assert shown["counts"]["cancelled"] == 1


def test_python_program_goes_on_with_its_own_job(umpteen: Umpteen) -> None:
    lab = Lab(umpteen)
    text = OWN_PROGRAM.format(path=PATH)
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=umpteen.folder,
        env=umpteen.environment | {"PYTHONPATH": f"{SOURCE}:{umpteen.folder / 'modules'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"--executor {PATH}" in done.stdout
    assert lab.mark.exists()


def test_retry_and_cancel_of_a_file_leave_the_job_where_it_ran(umpteen: Umpteen) -> None:
    umpteen.write("here.yaml", ELSEWHERE)
    assert umpteen("run", "here.yaml", "--executor", "local", "--detach").returncode == 0
    wait_until(lambda: list(umpteen.store("here").glob(".umpteen/running/*/*.json")))
    assert umpteen("cancel", "here.yaml").returncode == 0
    umpteen.write("go", "")
    umpteen.write("done", "")
    shown = json.loads(umpteen("retry", "here.yaml", "--dry-run", "--json").stdout)["settings"]
    assert shown["executor"] == {"value": "local", "source": "the run before"}
    assert umpteen("retry", "here.yaml").returncode == 0
