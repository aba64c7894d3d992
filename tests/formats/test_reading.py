"""From the arguments of `run` to a job: which reader, which name, who overrides whom."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from umpteen.errors import InputError
from umpteen.formats import read_executor, read_job, read_names
from umpteen.formats.flags import JobFlags, TaskFlags
from umpteen.formats.sources import choose_job_name
from umpteen.job.settings import ExecutorChoice
from umpteen.job.spec import Task


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def refuse(arguments: Sequence[str], *tables: str) -> InputError:
    with pytest.raises(InputError) as caught:
        read_job(arguments, tables=tables)
    return caught.value


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("tasks: [a b, c]", ["a b", "c"]),
        ("---\n# x\ntasks: [a]", ["a"]),
        ("- command: a\n- c\n", ["a", "c"]),
        ("- echo 1\n- echo 2\n", ["echo 1", "echo 2"]),
        ('{"tasks": ["a"]}', ["a"]),
        ('\ufeff  {\n"tasks": ["a"]}', ["a"]),
        ('["a", {"command": "b"}]', ["a", "b"]),
        ('{"command": "a"}', ["a"]),
        ('{"command": "a"}\n{"command": "b"}', ["a", "b"]),
        ("remote_output_path: a\nruns: [{cmd: b}]", ["b"]),
        ("a\n# no\nb: c d\n", ["a", "b: c d"]),
        ('[ "$x" = a ] && b\n', ['[ "$x" = a ] && b']),
        ("{ a; }\n", ["{ a; }"]),
        (": nothing\n", [": nothing"]),
    ],
)
def test_reading_tells_the_format_by_content(text: str, commands: list[str]) -> None:
    assert [task.command for task in read_job([write("x", text)]).tasks] == commands


@pytest.mark.parametrize("name", ["x.yaml", "x.json", "x.txt", "x"])
def test_reading_json_by_any_name(name: str) -> None:
    assert read_job([write(name, '{"tasks": ["a"]}')]).tasks == [Task("a")]


@pytest.mark.parametrize("text", ['{"tasks": ["a"}', '["a", ', '{"command": "a"}\n{"command"'])
def test_reading_broken_json_is_never_run_as_commands(text: str) -> None:
    assert "JSON" in refuse([write("x.json", text)]).message


def test_reading_broken_json_in_yaml_is_a_yaml_error() -> None:
    assert "not valid YAML" in refuse([write("x.yaml", '{"tasks": ["a"}')]).message


@pytest.mark.parametrize("reverse", [False, True])
def test_reading_run_file_and_tasks_file_in_either_order(reverse: bool) -> None:
    run = write("run.yaml", "slots: 3\nresults: /r\nenv: {A: 1}\ntimeout: 5\n")
    tasks = write("tasks.yaml", "slots: 2\ngrace: 7\nenv: {A: 0, B: 2}\ntasks: [a]\n")
    job = read_job([tasks, run] if reverse else [run, tasks])
    assert job.name == "tasks"
    assert job.tasks == [Task("a", env={"A": "1", "B": "2"}, timeout_s=5.0)]
    settings = job.settings
    assert (settings.slots, settings.grace_s, settings.address) == (3, 7.0, "/r")
    assert settings.sources["slots"] == "run.yaml"
    assert settings.sources["grace_s"] == "tasks.yaml"


def test_reading_run_file_with_lines_of_commands() -> None:
    job = read_job([write("c.txt", "a {x}\n"), write("run.yaml", "matrix: {x: 1..2}\nname: n\n")])
    assert (job.name, [task.command for task in job.tasks]) == ("n", ["a 1", "a 2"])


def test_reading_wrong_default_of_the_run_file_names_that_file() -> None:
    error = refuse([write("run.yaml", "slots: 1\ntimeout: x\n"), write("c.txt", "a\n")])
    assert (error.file, error.line) == ("run.yaml", 2)


def test_reading_two_files_with_tasks_is_refused() -> None:
    error = refuse([write("a.yaml", "tasks: [a]"), write("b.yaml", "tasks: [b]")])
    assert "both have tasks" in error.message


def test_reading_flags_override_files_and_tasks() -> None:
    write("a.yaml", "slots: 2\ntasks: [{command: a, timeout: 5, env: {A: 1, B: 2}, cwd: x}, b]")
    flags = JobFlags(slots=9, tasks=TaskFlags(timeout_s=60.0, env={"B": "3"}, cwd="/w"))
    job = read_job(["a.yaml"], flags=flags)
    assert (job.settings.slots, job.settings.sources["slots"]) == (9, "--slots")
    assert job.tasks == [
        Task("a", env={"A": "1", "B": "3"}, cwd="/w", timeout_s=60.0),
        Task("b", env={"B": "3"}, cwd="/w", timeout_s=60.0),
    ]


def test_reading_flags_override_batch_files_too() -> None:
    write("a.yaml", "remote_output_path: o\nruns: [{cmd: a}]")
    job = read_job(["a.yaml"], flags=JobFlags(tasks=TaskFlags(cwd="/w")))
    assert job.tasks == [Task("a", "0", cwd="/w")]


def test_reading_standard_input() -> None:
    job = read_job(["-"], stdin=io.BytesIO(b"echo a\n"))
    assert (job.name, job.tasks) == ("stdin", [Task("echo a")])
    with pytest.raises(InputError, match="stdin has no tasks"):
        read_job(["-"], stdin=io.BytesIO(b""))


def test_reading_a_command_alone() -> None:
    command = "python sim.py '{x}' ${HOME}"
    job = read_job([command])
    assert (job.name, job.tasks) == ("sim", [Task(command)])


def test_reading_a_command_with_placeholders_and_no_values_is_refused() -> None:
    assert refuse(["sim.py {x}"]).message == "the command has {x}, and 'x' has no values"


def test_reading_a_word_that_is_no_file_and_no_program_is_refused() -> None:
    write("sweep", "tasks: [a]")
    error = refuse(["swep"])
    assert (error.message, error.hint) == ("no such file: 'swep'", "did you mean 'sweep'?")
    assert read_job(["true"]).tasks == [Task("true")]


def test_reading_a_program_with_values_is_a_command() -> None:
    Path(write("throw", "#!/bin/sh\n")).chmod(0o755)
    job = read_job(["./throw", "n=1..3"])
    assert (job.name, [task.name for task in job.tasks]) == ("throw", ["n=1", "n=2", "n=3"])
    assert {str(task.command) for task in job.tasks} == {"./throw"}


def test_reading_a_job_file_that_may_be_executed_takes_no_values() -> None:
    Path(write("a.yaml", "tasks: [a]")).chmod(0o755)
    assert "cannot stand beside the job file" in refuse(["a.yaml", "n=1..3"]).message


def test_reading_a_command_with_values() -> None:
    job = read_job(["python sim.py --lr {lr} {seed}", "lr=0.1,0.01", "seed=1..50"])
    assert len(job.tasks) == 100
    assert job.tasks[99] == Task(
        "python sim.py --lr 0.01 50",
        "lr=0.01,seed=50",
        parameters={"lr": "0.01", "seed": "50"},
    )


def test_reading_a_command_with_a_table() -> None:
    write("p.csv", "lr,note\n0.1,a'b\n")
    job = read_job(["sim {lr} {note}", "seed=1..2"], tables=["p.csv"])
    assert [task.command for task in job.tasks] == ["sim 0.1 'a'\\''b'"] * 2
    assert job.tasks[0].name == "lr=0.1,note=a'b,seed=1"


def test_reading_unknown_placeholder_names_the_nearest() -> None:
    error = refuse(["sim {sed}", "seed=1"])
    assert error.message == "unknown placeholder {sed}"
    assert "'seed'" in str(error.hint)


@pytest.mark.parametrize("name", ["swep.yaml", "./swep.yaml", "sweep.yml"])
def test_reading_missing_file_names_those_near(name: str) -> None:
    write("sweep.yaml", "tasks: [a]")
    error = refuse([name])
    assert error.message == f"no such file: {name!r}"
    assert "sweep.yaml" in str(error.hint)


@pytest.mark.parametrize("arguments", [["no/such"], ["a.yaml", "x=1"], ["no/where/a.json"]])
def test_reading_missing_file_is_never_run(arguments: list[str]) -> None:
    assert "no such file" in refuse(arguments).message


def test_reading_second_file_must_exist() -> None:
    assert "'no.yaml'" in refuse([write("a.txt", "a\n"), "no.yaml"]).message


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "nothing to run"),
        ([""], "nothing to run"),
        (["."], "is a directory"),
        (["sh", "a.py"], "neither a job file nor key=values"),
        (["a \udcff"], "is not UTF-8"),
        (["sim {x}", "x="], "'x' has no values"),
        (["a\0b"], "no such file"),
        (["a b\0"], "NUL"),
    ],
)
def test_reading_wrong_arguments_are_refused(arguments: list[str], problem: str) -> None:
    assert problem in refuse(arguments).message


def test_reading_values_beside_a_file_are_refused() -> None:
    assert "x=1" in refuse([write("a.txt", "a {x}\n"), "x=1"]).message


def test_reading_a_table_beside_a_file_is_refused() -> None:
    assert "table" in refuse([write("a.txt", "a\n")], "p.csv").message
    refused = refuse([write("sim.py", "print()\n")], "p.csv")
    assert refused.hint == "umpteen run 'python3 sim.py {x}' --from p.csv"


def test_reading_tables_of_equal_columns_are_joined() -> None:
    write("p.csv", "a,b\n1,x\n2,y\n")
    write("more.json", '[{"b": "z", "a": 3}]')
    job = read_job(["sim {a} {b}"], tables=["p.csv", "more.json"])
    assert [task.command for task in job.tasks] == ["sim 1 x", "sim 2 y", "sim 3 z"]
    assert job.tasks[2].name == "a=3,b=z"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("a,c\n1,2\n", "p.csv and more.csv have not the same columns: b, c"),
        ("a\n1\n", "p.csv and more.csv have not the same columns: b"),
        ("b,a\n9,8\nx,1\n", "the row a=1, b=x is in p.csv, too"),
    ],
)
def test_reading_tables_that_do_not_fit_are_refused(more: str, message: str) -> None:
    write("p.csv", "a,b\n1,x\n")
    write("more.csv", more)
    assert message in refuse(["sim {a}"], "p.csv", "more.csv").message
    assert (
        "the same row as in line 2" in refuse(["sim {a}"], write("q.csv", "a\n1\n2\n1\n")).message
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_reading_unreadable_file_is_refused() -> None:
    Path(write("a.yaml", "tasks: [a]")).chmod(0)
    assert "cannot be read" in refuse(["a.yaml"]).message


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python sim.py --lr 3", "sim"),
        ("FOO=1 ./run.sh x", "run"),
        ("julia -p 3 /a/b/fib.jl 12", "fib"),
        ("/usr/bin/env true", "env"),
        ("sleep 1", "sleep"),
        ("echo 'a", "echo"),
        ("{x}", "command"),
        ("$(x)", "x"),
    ],
)
def test_reading_job_name_of_a_command(command: str, name: str) -> None:
    assert choose_job_name(command) == name


def test_reading_job_name_is_given_or_in_the_file_or_its_stem() -> None:
    write("a.b.yaml", "tasks: [a]")
    write("c.yaml", "name: inside\ntasks: [a]")
    assert read_job(["a.b.yaml"]).name == "a.b"
    assert read_job(["c.yaml"]).name == "inside"
    assert read_job(["c.yaml"], name="given").name == "given"
    with pytest.raises(InputError, match="would leave the results directory"):
        read_job(["c.yaml"], name="../x")


def test_reading_digest_follows_every_byte_and_flag() -> None:
    write("p.csv", "x\n1\n")
    write("a.yaml", "tasks: [{command: a, matrix: {from: p.csv}}]")
    first = read_job(["a.yaml"]).source_digest
    assert first
    assert read_job(["a.yaml"]).source_digest == first
    assert read_job(["a.yaml"], flags=JobFlags(slots=3)).source_digest == first
    changed = read_job(["a.yaml"], flags=JobFlags(tasks=TaskFlags(cwd="x"))).source_digest
    write("p.csv", "x\n2\n")
    assert len({first, changed, read_job(["a.yaml"]).source_digest}) == 3


def test_reading_bad_name_far_behind_a_matrix_names_its_line() -> None:
    write(
        "a.yaml", "tasks:\n- {command: '{x}', matrix: {x: 1..30}}\n- a\n- {name: .., command: b}\n"
    )
    error = refuse(["a.yaml"])
    assert (error.line, error.field) == (4, "name")


def test_reading_many_tasks_mixed_keeps_their_order() -> None:
    entries = [
        f"- echo {i}" if i % 3 else f"- {{command: echo {i}, timeout: 5}}" for i in range(12_000)
    ]
    job = read_job([write("a.yaml", "\n".join(["tasks:", *entries]))])
    assert [task.command for task in job.tasks] == [f"echo {i}" for i in range(12_000)]
    assert [task.timeout_s for task in job.tasks[:4]] == [5.0, None, None, 5.0]


def test_what_is_kept_of_a_file_that_names_a_job_is_not_its_tasks(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    tasks = [f"python train.py --seed {number}" for number in range(100_000)]
    file.write_text(json.dumps({"name": "job", "executor": "dask", "tasks": tasks}))
    del tasks
    tracemalloc.start()
    try:
        assert read_names(str(file)).name == "job"
        assert read_executor(str(file)) == ExecutorChoice("dask")
        assert tracemalloc.get_traced_memory()[0] < file.stat().st_size
    finally:
        tracemalloc.stop()
