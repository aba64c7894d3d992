"""`import umpteen`: the verbs as functions, in a script and in a notebook."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from tests.docs.pages import ROOT
from tests.support.command import SOURCE, Umpteen
from tests.support.processes import list_processes
from tests.support.wait import wait_until
from umpteen import api
from umpteen.api import OpenJob


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


def test_python_task_needs_what_its_machine_has(umpteen: Umpteen) -> None:
    text = """
local = {"local": {"capabilities": ["gpu"]}}
print(run(Job("job", [Task("true", needs={"gpu"})], executor=local), progress=False).ok)
try:
    run(Task("true", needs="gpu"))
except Exception as error:
    print(type(error).__name__, error.message)
"""
    assert printed(umpteen, text) == [
        "True",
        "InputError task '0' needs 'gpu'; the executor 'local' does not know what machines have",
    ]


def test_python_run_gives_every_task(umpteen: Umpteen) -> None:
    lines = printed(
        umpteen,
        """
job = run([Task("echo {n}; echo e >&2; exit {n}", "t{n}", matrix={"n": "0..1"})], name="job")
for t in job:
    print(t.name, t.index, t.state, t.exit_code, t.stdout.split(), t.stderr.split(), t.parameters)
print(job.ok, len(job), job[1].name, job["t0"].path, [t.name for t in job.failed])
print(job[-1].name, [t.name for t in job[:1]], "t0" in job, "t7" in job, job[1].reason)
for key in (2, "t7"):
    try:
        job[key]
    except LookupError as error:
        print(type(error).__name__)
""",
    )
    assert lines == [
        "t0 0 succeeded 0 ['0'] ['e'] {'n': '0'}",
        "t1 1 failed 1 ['1'] ['e'] {'n': '1'}",
        f"False 2 t1 {umpteen.store()}/t0 ['t1']",
        "t1 ['t0'] True False exit 1",
        "IndexError",
        "KeyError",
    ]


def test_python_run_takes_what_programs_have(umpteen: Umpteen) -> None:
    umpteen.write("file.txt", "echo in a file\n")
    lines = printed(
        umpteen,
        """
import decimal, enum, os, pathlib
class Array:
    def __init__(self, held): self.held = held
    def tolist(self): return self.held
class Kind(enum.Enum):
    A = "a"
class Text(str): pass
given = {
    "r": range(2), "t": (1.5, float("inf")), "g": (c for c in "x"), "a": Array([1]), "k": Kind,
    "s": Array(3), "p": pathlib.Path("b c"), "d": [decimal.Decimal("0.10")], "u": Text("v"),
}
command = "echo {r} {t} {g} {a} {k} {s} {p} {d} {u}"
job = run(command, values=given, slots=Array(2), progress=False)
print(job.name, len(job), job[0].stdout.strip(), job[-1].stdout.strip())
pathlib.Path("there").mkdir()
task = Task(["pwd", pathlib.Path("-P")], cwd=pathlib.Path("there"), env={"A": 1}, tags=("x",))
job = run(task, results=pathlib.Path("out"), progress=False)
print(job.name, job[0].stdout.strip() == os.path.realpath("there"), job.address.endswith("/out"))
print(run(pathlib.Path("file.txt"), progress=False)[0].stdout.strip())
print(run((c for c in ["true"]), name="generated", progress=False).ok)
""",
    )
    assert lines == [
        "echo 4 0 1.5 x 1 a 3 b c 0.10 v 1 inf x 1 a 3 b c 0.10 v",
        "pwd True True",
        "in a file",
        "True",
    ]


def test_python_run_takes_the_flags_of_the_command(umpteen: Umpteen) -> None:
    lines = printed(
        umpteen,
        """
job = run("exit {n}", values={"n": "0..2"}, name="job", only="n<2", retries=1, progress=False,
          timeout="20s", memory="10M", cpus=1, gpus=0)
print([(t.state, t.record and t.record.attempt) for t in job])
tasks = job.history.read_tasks()
print({(t.timeout_s, t.options.memory, t.options.cpus, len(t.options.retries)) for t in tasks})
slow = submit("sleep 60", name="slow", timeout="10s").wait()  # told to half a second
print(slow[0].state, slow[0].reason)
""",
    )
    assert lines == [
        "[('succeeded', 1), ('failed', 2), ('waiting', None)]",
        "{(20.0, 10485760, 1, 1)}",
        "timed_out timed out after 10 s",
    ]


def test_python_defaults_hold_for_tasks_that_have_none(umpteen: Umpteen) -> None:
    lines = printed(
        umpteen,
        """
tasks = [Task("true", "a"), Task("true", "b", timeout=3)]
job = run(Job("job", tasks, defaults={"timeout": "5s"}), progress=False)
print([(task.name, task.timeout_s) for task in job.history.read_tasks()])
""",
    )
    assert lines == ["[('a', 5.0), ('b', 3.0)]"]


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


def test_python_retry_changes_what_runs_again(umpteen: Umpteen) -> None:
    lines = printed(
        umpteen,
        """
job = run(["exit 3", "exit 4", "true"], name="job", progress=False)
job.retry(job[0], -1, timeout="20s", memory="10M", slots=1, progress=False)
print([t.record.attempt for t in job], job.status().slots)
print([(t.timeout_s, t.options and t.options.memory) for t in job.history.read_tasks()])
""",
    )
    assert lines == ["[2, 1, 2] 1", "[(20.0, 10485760), (None, None), (20.0, 10485760)]"]


def test_python_why_and_remove(umpteen: Umpteen) -> None:
    lines = printed(
        umpteen,
        """
job = run(["exit 3", "true"], name="job", progress=False)
print(job.why(0) == job.why(job[0]) == job.why("0"))
print(job.why(0))
job.remove()
""",
    )
    assert lines[0] == "True"
    assert lines[1].startswith("0 failed (exit 3) at ")
    assert not umpteen.store().exists()


def test_python_rows_are_those_of_export(umpteen: Umpteen) -> None:
    lines = printed(
        umpteen,
        """
run("echo {lr}", values={"lr": [0.1, 0.01]}, name="job", progress=False)
print([(row["name"], row["lr"], row["state"]) for row in open_job("job").to_rows()])
""",
    )
    assert lines == ["[('lr=0.1', 0.1, 'succeeded'), ('lr=0.01', 0.01, 'succeeded')]"]


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
        ("run('echo {x}', values='x=1')", "'values' must be a mapping"),
        ("run('echo {x}', values={'x': object()})", "a job cannot hold <object"),
        ("run('echo {x}', values={'x': [b'1']})", "a job cannot hold b'1'"),
        ("run('echo {x}', values={'x': '\\ud800'})", "is not UTF-8 text"),
        ("run('script', values={'x': 1})", "'script' is a file"),
        ("run('missing.yaml', values={'x': 1})", "no such file: 'missing.yaml'"),
        ("run(['true'], name='job', values={'x': 1})", "'values' go with a command"),
        ("run(Job('job', ['true']), values={'x': 1})", "'values' go with a command"),
        ("run(Path('no file'))", "no such file: 'no file'"),
        ("run(None)", "'NoneType' is no job"),
        ("run({'tasks': ['true']})", "'dict' is no job"),
        ("run([], name='job')", "the job has no tasks"),
        ("run('true', slots=-1)", "'slots' must be a whole number of at least 1, not -1"),
        ("run('true', slots=2.5)", "'slots' must be a whole number of at least 1, not 2.5"),
        ("run('true', cpus=True)", "'cpus' must be a whole number of at least 1, not true"),
        ("run('true', results='')", "'results' must be an address, not nothing"),
        ("run('true', timeout='soon')", "the timeout 'soon' is not a duration above 0"),
        ("run('true', only='state=failed')", "'state' is not known before a task has run"),
        ("run('true', rerun='bogus')", "there is no rerun='bogus'"),
        ("Task('true', time_out=3)", "a Task has no 'time_out'"),
        ("Job('job', ['true'], slot=3)", "a Job has no 'slot'"),
        ("run(Job('job', ['true'], defaults={'name': 'x'}))", "unknown key 'name' in 'defaults'"),
        ("run(Job('job', ['true'], defaults={'tasks': []}))", "unknown key 'tasks' in 'default"),
    ],
)
def test_python_errors_are_umpteens(umpteen: Umpteen, call: str, message: str) -> None:
    umpteen.write("script", "echo")
    lines = printed(
        umpteen,
        "from pathlib import Path\nfrom umpteen.errors import UmpteenError\n"
        f"try:\n    {call}\nexcept UmpteenError as error:\n    print(error)\n",
    )
    assert message in lines[0]
    assert "stdin" not in lines[0]
    assert not Path(umpteen.folder, "umpteen-results").exists()


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        ("run('echo {x}')", 'write values={"x": [1, 2]}'),
        ("submit('true', rerun='faild')", "did you mean 'failed'?"),
        ("Task('true', time_out=3)", "did you mean 'timeout'?"),
        ("open_job('nothing')", "umpteen run … starts one"),
    ],
)
def test_python_errors_show_their_hint(umpteen: Umpteen, call: str, hint: str) -> None:
    done = run_python(umpteen, call)
    assert done.stderr.rstrip().endswith(hint)
    assert "\nhint: " in done.stderr


def test_python_names_are_found_by_dir(umpteen: Umpteen) -> None:
    lines = printed(umpteen, "print([n for n in dir(umpteen) if n[0] != '_'], umpteen.errors)")
    assert lines[0].startswith(
        "['Job', 'OpenJob', 'Task', 'TaskResult', 'collect', 'errors', 'open_job', 'run', 'submit']"
    )


@pytest.mark.parametrize(
    "function",
    [
        *(api.run, api.submit, api.collect, api.open_job),
        *(OpenJob.why, OpenJob.wait, OpenJob.cancel, OpenJob.retry, OpenJob.remove),
    ],
)
def test_python_page_has_every_argument(function: Callable[..., Any]) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    found = inspect.signature(function).parameters.values()
    names = ["*" * (p.kind is p.VAR_POSITIONAL) + p.name for p in found if p.name != "self"]
    owner = "job." if "." in function.__qualname__ else ""
    assert f"| `{owner}{function.__name__}({', '.join(names)})` |" in page


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
    assert 'Revealed type is "umpteen.api.open_jobs.OpenJob"' in done.stdout
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
        v4.new_code_cell("umpteen.run('echo {x}')", metadata={"tags": ["raises-exception"]}),
    ])  # fmt: skip
    nbclient.NotebookClient(
        notebook, timeout=60, resources={"metadata": {"path": str(umpteen.folder)}}
    ).execute()
    first, second, third = notebook.cells
    (shown,) = [output for output in first.outputs if output.output_type == "display_data"]
    text = shown["data"]["text/plain"]
    assert text.startswith("nb: 2 tasks")
    assert "1 succeeded, 1 failed" in text
    assert "exit 2" in text
    assert second.outputs[0]["text"] == "hello\n False\n"
    assert "hint: write values=" in "\n".join(third.outputs[0]["traceback"])


def test_python_name_that_is_not_there(umpteen: Umpteen) -> None:
    done = run_python(umpteen, "umpteen.nothing")
    assert "module 'umpteen' has no attribute 'nothing'" in done.stderr
    assert not Path(umpteen.folder, "umpteen-results").exists()
