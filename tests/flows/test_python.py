"""`import umpteen`: the verbs as functions, in a script and in a notebook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from tests.support.command import SOURCE, Umpteen
from tests.support.sweep import list_processes
from tests.support.wait import wait_until


def run_python(umpteen: Umpteen, text: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-c", "import umpteen\nfrom umpteen import *\n" + text],
        cwd=umpteen.folder,
        env=umpteen.environment | {"PYTHONPATH": str(SOURCE)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def printed(umpteen: Umpteen, text: str) -> list[str]:
    done = run_python(umpteen, text)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_python_run_gives_every_task(umpteen: Umpteen) -> None:
    lines = printed(
        umpteen,
        """
job = run([Task("echo {n}; echo e >&2; exit {n}", "t{n}", matrix={"n": "0..1"})], name="job")
for t in job:
    print(t.name, t.index, t.state, t.exit_code, t.stdout.split(), t.stderr.split(), t.parameters)
print(job.ok, len(job), job[1].name, job["t0"].path, [t.name for t in job.failed])
""",
    )
    assert lines == [
        "t0 0 succeeded 0 ['0'] ['e'] {'n': '0'}",
        "t1 1 failed 1 ['1'] ['e'] {'n': '1'}",
        f"False 2 t1 {umpteen.store()}/t0 ['t1']",
    ]


def test_python_run_again_runs_only_what_is_not_done(umpteen: Umpteen) -> None:
    text = "job = run(['echo x >> ran', 'echo y >> ran; exit 1'], name='job')\n"
    for _ in range(2):
        printed(umpteen, text)
    assert sorted((umpteen.folder / "ran").read_text().split()) == ["x", "y", "y"]


def test_python_submitted_job_outlives_its_process(umpteen: Umpteen) -> None:
    printed(umpteen, "submit('until test -e go; do sleep 0.05; done; echo done', name='job')")
    assert list_processes(umpteen)
    (umpteen.folder / "go").touch()
    lines = printed(umpteen, "job = collect('job'); print(job.ok, job[0].stdout)")
    assert lines[0] == "True done"


@pytest.mark.parametrize(
    "text",
    [
        "run(['true', 'exit 1'], name='job', progress=False)",
        "job = run('true', name='job', progress=False)",
        "submit('sleep 0.5', name='job')",
        "job = submit('sleep 0.5', name='job'); job.cancel()",
        "submit('true', name='job').wait(); collect('job').retry()",
    ],
)
def test_python_leaves_nothing_open(umpteen: Umpteen, text: str) -> None:
    done = run_python(umpteen, text, "-X", "dev")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def test_python_cancel_ends_what_runs(umpteen: Umpteen) -> None:
    lines = printed(
        umpteen,
        "job = submit(['sleep 600', 'true'], name='job', slots=1)\njob.cancel()\n"
        "print([t.state for t in job])",
    )
    assert lines[0].startswith("['cancelled', ")
    wait_until(lambda: not list_processes(umpteen), 10)


def test_python_retry_where(umpteen: Umpteen) -> None:
    lines = printed(
        umpteen,
        """
job = run(["exit 3", "exit 4"], name="job", progress=False)
again = job.retry(where="exit_code=4", progress=False)
print([t.record.attempt for t in again])
""",
    )
    assert lines == ["[1, 2]"]


def test_python_rows_are_those_of_export(umpteen: Umpteen) -> None:
    lines = printed(
        umpteen,
        """
run("echo {lr}", values={"lr": [0.1, 0.01]}, name="job", progress=False)
print([(row["name"], row["lr"], row["state"]) for row in open_job("job").to_rows()])
""",
    )
    assert lines == ["[('lr=0.1', '0.1', 'succeeded'), ('lr=0.01', '0.01', 'succeeded')]"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("run([Task('true', after='nope')], name='job')", "there is no task of that name"),
        ("run(['true'])", "a list of tasks needs a name"),
        ("run(Job('job', [Task('true', cpus=0)]))", "'cpus' must be"),
        ("run('job.yaml')", "no such file"),
        ("open_job('nothing')", "no job named 'nothing'"),
        ("open_job('..')", "no job named '..'"),
        ("run('echo {x}')", "'x' has no values"),
    ],
)
def test_python_errors_are_umpteens(umpteen: Umpteen, call: str, message: str) -> None:
    lines = printed(
        umpteen,
        f"from umpteen.errors import UmpteenError\ntry:\n    {call}\n"
        "except UmpteenError as error:\n    print(error)\n",
    )
    assert message in lines[0]
    assert "stdin" not in lines[0]


def test_python_names_are_typed_for_checkers(umpteen: Umpteen) -> None:
    script = umpteen.write(
        "script.py",
        "import umpteen\njob = umpteen.run('true')\nreveal_type(job)\n"
        "reveal_type(job[0].exit_code)\n",
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(script)],
        cwd=umpteen.folder, capture_output=True, text=True, check=False,
        env=umpteen.environment | {"MYPYPATH": str(SOURCE)},
    )  # fmt: skip
    assert 'Revealed type is "umpteen.api.OpenJob"' in done.stdout
    assert 'Revealed type is "int | None"' in done.stdout


def test_python_in_a_notebook_shows_one_output(
    umpteen: Umpteen, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in umpteen.environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    cell = "import umpteen\njob = umpteen.run(['sleep 0.3; echo hello', 'exit 2'], name='nb')"
    v4: Any = nbformat.v4
    notebook = v4.new_notebook(cells=[
        v4.new_code_cell(cell), v4.new_code_cell("print(job[0].stdout, job.ok)"),
    ])  # fmt: skip
    nbclient.NotebookClient(
        notebook, timeout=60, resources={"metadata": {"path": str(umpteen.folder)}}
    ).execute()
    first, second = notebook.cells
    (shown,) = [output for output in first.outputs if output.output_type == "display_data"]
    text = shown["data"]["text/plain"]
    assert text.startswith("nb: 2 tasks")
    assert "1 succeeded, 1 failed" in text
    assert "exit 2" in text
    assert second.outputs[0]["text"] == "hello\n False\n"


def test_python_name_that_is_not_there(umpteen: Umpteen) -> None:
    done = run_python(umpteen, "umpteen.nothing")
    assert "module 'umpteen' has no attribute 'nothing'" in done.stderr
    assert not Path(umpteen.folder, "umpteen-results").exists()
