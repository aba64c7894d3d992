"""The native job file, in each of its syntaxes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.saturn import RUN, RUN_ON_SATURN, TASKS
from umpteen.errors import InputError
from umpteen.formats import json_documents, native, read_job
from umpteen.job.spec import Job, Task

Read = Callable[..., Job]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """`read(text, "sweep.yaml")` is the job of such a file."""
    monkeypatch.chdir(tmp_path)

    def read(text: str | bytes, name: str = "sweep.yaml") -> Job:
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_job([name])

    return read


def refuse(read: Read, text: str | bytes, name: str = "sweep.yaml") -> InputError:
    with pytest.raises(InputError) as caught:
        read(text, name)
    return caught.value


def test_saturn_run_documents_are_read_as_they_are(read: Read) -> None:
    job = read(RUN + TASKS)
    assert job.settings.executor == "dask"
    assert job.settings.executor_options == {"scheduler_address": "tcp://127.0.0.1:8786"}
    assert (job.settings.address, job.settings.status_file) == ("/tmp/results/{name}", "status")
    assert len(job.tasks) == 4
    assert str(job.tasks[3].command).endswith("fibonacci.jl 13")


def test_saturn_run_s3_results_are_an_address(read: Read) -> None:
    settings = read(RUN_ON_SATURN + TASKS).settings
    assert settings.address == "s3://saturn-internal-s3-test/saturn-run-2022.12.13/{name}/"
    assert settings.status_file == "status"
    assert settings.executor_options == {"cluster_class": "SaturnCluster"}
    assert list(settings.file_syncs) == [("/home/jovyan/workspace/julia-example/", None)]


def test_native_every_key_of_a_task_is_read(read: Read) -> None:
    job = read("""\
name: 007
slots: 8
results: /shared/{name}
executor: {slurm: {partition: gpu, time: 2h, nodes: 2, exclusive: true, tag: "5", none: ~}}
deadline: 1-12:00:00
grace: 30s
timeout: 90
env: {A: no, B: "0.10"}
tags: [all]
tasks:
  - name: 3
    command: [python, a.py, 0.10]
    timeout: 2h
    env: {B: 007, C: }
    cwd: ./work
    tags: paper
  - echo {x}
""")
    assert job.name == "007"
    assert job.tasks == [
        Task(
            ["python", "a.py", "0.10"],
            "3",
            env={"A": "no", "B": "007", "C": ""},
            cwd="./work",
            timeout_s=7200.0,
            tags=["paper"],
        ),
        Task("echo {x}", env={"A": "no", "B": "0.10"}, timeout_s=90.0, tags=["all"]),
    ]
    settings = job.settings
    assert (settings.slots, settings.address) == (8, "/shared/{name}")
    assert (settings.deadline_s, settings.grace_s) == (129600.0, 30.0)
    assert settings.executor_options == {
        "partition": "gpu",
        "time": "2h",
        "nodes": 2,
        "exclusive": True,
        "tag": "5",
        "none": None,
    }
    assert settings.sources["slots"] == "sweep.yaml"
    assert settings.sources["status_file"] == "default"


def test_native_json_means_the_same(read: Read) -> None:
    given: dict[str, Any] = {
        "nprocs": 2,
        "executor": {"slurm": {"nodes": 2, "ratio": 0.5}},
        "tasks": [{"command": "a", "name": 7, "env": {"A": 1, "B": True}, "timeout": 0.5}, "b"],
    }
    job = read(json.dumps(given).replace('"A": 1', '"A": 1.50'), "sweep.json")
    assert job.tasks == [
        Task("a", "7", env={"A": "1.50", "B": "true"}, timeout_s=0.5),
        Task("b"),
    ]
    assert job.settings.slots == 2
    assert job.settings.executor_options == {"nodes": 2, "ratio": 0.5}


def test_native_json_nulls_are_not_given(read: Read) -> None:
    job = read('{"name": null, "tasks": [{"command": "a", "name": null, "env": null}]}', "a.json")
    assert (job.name, job.tasks) == ("a", [Task("a")])


def test_native_matrix_fills_command_name_environment_and_folder(read: Read) -> None:
    job = read("""\
tasks:
  - name: train-{lr}-{seed}
    command: python train.py --lr {lr} '{seed}'
    matrix: {lr: [0.10, 1e-3], seed: 1..2}
    env: {LR: "{lr}"}
    cwd: run/{seed}
""")
    assert len(job.tasks) == 4
    assert job.tasks[1] == Task(
        "python train.py --lr 0.10 '2'",
        "train-0.10-2",
        env={"LR": "0.10"},
        cwd="run/2",
        parameters={"lr": "0.10", "seed": "2"},
    )


def test_native_matrix_of_the_job_serves_tasks_without_their_own(read: Read) -> None:
    job = read("matrix: {x: 1..2}\ntasks: ['a {x}', {command: 'b {y}', matrix: {y: 3}}]\n")
    assert [task.command for task in job.tasks] == ["a 1", "a 2", "b 3"]
    assert [task.name for task in job.tasks] == ["x=1", "x=2", "y=3"]


def test_native_matrix_table_lies_beside_the_job_file(read: Read, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "p.csv").write_text("lr,file name\n0.1,a b\n")
    text = "tasks: [{command: 'x {lr} {file name}', matrix: {from: p.csv}}]"
    assert read(text, "in/sweep.yaml").tasks[0].command == "x 0.1 'a b'"


def test_native_command_without_shell_is_split(read: Read) -> None:
    job = read("tasks: [{command: \"a 'b c' {x}\", shell: false, matrix: {x: ['p q']}}]")
    assert job.tasks[0].command == ["a", "b c", "p q"]


def test_native_list_is_a_list_whatever_shell_says(read: Read) -> None:
    job = read('[{"command": ["a", 0.10], "shell": true}]', "a.json")
    assert job.tasks[0].command == ["a", "0.10"]


def test_native_yaml_anchors_and_merges_work(read: Read) -> None:
    job = read("env: &e {A: 1}\ntasks: [{command: a, env: {<<: *e, B: 2}}]")
    assert job.tasks[0].env == {"A": "1", "B": "2"}


def test_native_json_lines_are_tasks(read: Read) -> None:
    text = '{"command": "a"}\n\n{"command": "b", "name": "n", "timeout": "1m"}\n'
    for name in ("a.jsonl", "a.txt"):
        assert read(text, name).tasks == [Task("a"), Task("b", "n", timeout_s=60.0)]


def test_native_csv_columns_are_parameters(read: Read) -> None:
    job = read("command,name,lr\npython a.py {lr},,0.10\necho,last-{lr},2\n", "a.csv")
    assert job.tasks == [
        Task("python a.py 0.10", "lr=0.10", parameters={"lr": "0.10"}),
        Task("echo", "last-2", parameters={"lr": "2"}),
    ]


def test_native_csv_blanks_behind_a_delimiter_are_skipped(read: Read) -> None:
    job = read('command, lr, note\necho {lr} {note}, 0.10, "a, b"\n', "a.csv")
    assert job.tasks[0].command == "echo 0.10 'a, b'"


def test_native_misspelt_key_names_line_task_and_the_right_one(read: Read) -> None:
    text = "slots: 2\ntasks:\n  - command: a\n  - name: train\n    comand: b\n"
    error = refuse(read, text)
    assert error.message == "sweep.yaml, line 5: unknown key 'comand' in task 'train'"
    assert error.hint == "did you mean 'command'?"
    assert (error.file, error.line, error.field) == ("sweep.yaml", 5, "comand")


def test_native_misspelt_key_in_json_names_the_line(read: Read) -> None:
    text = '{"tasks": [\n  {"command": "a [\\"{"},\n  {"command": "b",\n   "nmae": "x"}\n]}'
    error = refuse(read, text, "sweep.json")
    assert error.message == "sweep.json, line 4: unknown key 'nmae' in task 1"


def test_native_misspelt_key_in_json_lines_names_the_line(read: Read) -> None:
    error = refuse(read, '{"command": "a"}\n\n{"comand": "b"}\n', "a.jsonl")
    assert error.message == "a.jsonl, line 3: unknown key 'comand' in task 1"


def test_native_key_of_a_later_version_says_so(read: Read) -> None:
    key = "results_lines"
    in_task = refuse(read, f"tasks:\n- command: a\n  {key}: 3\n")
    assert in_task.message.startswith(
        f"sweep.yaml, line 3: '{key}' is not supported yet by this version"
    )
    assert refuse(read, f"tasks: [a]\n{key}: 3\n").line == 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("timeout: soon", "'soon' is not a duration"),
        ("timeout: 0", "'0' is not a duration"),
        ("timeout: [1]", "'timeout' must be a duration"),
        ("env: [1]", "'env' must be a mapping of names to values, not a list"),
        ("env: {A: [1]}", "the value of variable 'A' must be text or a number, not a list"),
        ("env: {A=B: 1}", "'A=B' cannot be the name of a variable"),
        ("shell: yes", "'shell' must be true or false, not 'yes'"),
        ("cwd: [a]", "'cwd' must be a text, not a list"),
        ('cwd: "a\\0"', "'cwd' holds a NUL"),
        ("tags: {a: b}", "'tags' must be a text or a list of texts, not a mapping"),
        ("matrix: 3", "'matrix' must be a mapping"),
        ("matrix: {x: []}", "'x' has no values"),
        ("matrix: {x: 1..}", "'1..' of 'x' is no range"),
        ("matrix: {from: no.csv}", "no such file: 'no.csv'"),
        ("matrix: {sed: 1..2}", "unknown placeholder {seed}"),
        ("name: ..", "'..' cannot be a task's name"),
        ("name: /a", "it begins with '/'"),
        ('name: "a\\nb"', "control character"),
        ('name: "a\\0b"', "control character"),
        (f"name: {'x' * 300}", "300 bytes are too long"),
        ("name: first", "two tasks have the name 'first'"),
        ("name: first/b", "would lie in the folder of task 'first'"),
    ],
)
def test_native_wrong_value_names_its_line(read: Read, line: str, problem: str) -> None:
    text = f"tasks:\n- {{name: first, command: a}}\n- command: b {{seed}}\n  {line}\n"
    error = refuse(read, text)
    assert problem in error.message
    # What a template lacks is wrong in the task, not in its matrix.
    assert error.line == (3 if "placeholder" in problem else 4)


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ("{command: 3}", "'command' must be a text or a list of words, not 3 in task 0"),
        ("{command: {a: b}}", "'command' must be a text or a list of words, not a mapping"),
        ("{command: [[a]]}", "the words of a command must be text or a number, not a list"),
        ("{command: []}", "no command"),
        ("{command: }", "no command"),
        ("{name: a}", "task 'a': no command"),
        ("3", "item 0 of 'tasks' must be a mapping or a command, not 3"),
        ("[a]", "item 0 of 'tasks' must be a mapping or a command, not a list"),
        ('"a\\0"', "the command holds a NUL character"),
    ],
)
def test_native_wrong_command_is_refused(read: Read, task: str, problem: str) -> None:
    error = refuse(read, f"tasks:\n- {task}\n")
    assert problem in error.message
    assert error.line == 2


@pytest.mark.parametrize("command", ["3", "null", "true", "{}", "1.5"])
def test_native_json_command_of_another_type_is_refused(read: Read, command: str) -> None:
    error = refuse(read, f'{{"tasks": [\n{{"command": {command}}}]}}', "a.json")
    assert error.message.startswith("a.json, line 2: 'command' must be a text or a list of words")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("slots: -1", "'slots' must be a whole number of at least 1, not -1"),
        ("slots: 0", "'slots' must be a whole number"),
        ("slots: many", "'slots' must be a whole number of at least 1, not 'many'"),
        ("slots: 3\nnprocs: 4", "'slots' and 'nprocs' are the same"),
        ("name: ../x", "'../x' cannot be a job's name: it would leave the results directory"),
        ("deadline: x", "'x' is not a duration"),
        ("timeout: x", "'x' is not a duration"),
        ("matrix: {x: 1..}", "is no range"),
        ("env: 3", "'env' must be a mapping"),
        ("results: {pth: b}", "unknown key 'pth' in 'results'"),
        ("results: {class_spec: LocalResult, path: a}", "unknown class_spec 'LocalResult'"),
        ("results: {class_spec: LocalResults}", "'results' needs path"),
        ("results: [a]", "'results' must be an address"),
        ("executor: {a: b, c: d}", "'executor' must be a name"),
        ("executor: [a]", "'executor' must be a name"),
        ("exectuor: local", "unknown key 'exectuor'"),
    ],
)
def test_native_wrong_setting_names_its_line(read: Read, line: str, problem: str) -> None:
    error = refuse(read, f"tasks: [a]\n{line}\n")
    assert problem in error.message
    assert error.line == 2 + line.count("\n")


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("tasks: [a\n", (1, 10), "not valid YAML"),
        ("tasks:\n\t- a\n", (2, 1), "cannot start any token"),
        ("tasks: a: b\n", (1, 9), "not valid YAML"),
        ("tasks: [*x]\n", (1, 9), "undefined alias"),
        ("slots: 1\nslots: 2\ntasks: [a]\n", (2, 1), "the key 'slots' stands here twice"),
        ("tasks: [a]\n---\ntasks: [b]\n", (2, 1), "another document"),
        ("tasks: [\x01]\n", (1, 9), "control character"),
        (b"tasks: [\xff]\n", (1, 9), "is not UTF-8 text"),
    ],
)
def test_native_malformed_yaml_names_line_and_column(
    read: Read, text: str | bytes, place: tuple[int, int], problem: str
) -> None:
    error = refuse(read, text)
    assert problem in error.message
    assert (error.line, error.column) == place


def test_native_yaml_with_tabs_says_so(read: Read) -> None:
    assert "tabs" in str(refuse(read, "tasks:\n\t- a\n").hint)


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ('{"tasks": [\n"a",]}', (2, 5), "trailing comma"),
        ('{"tasks": [\n"a"', (2, 4), "the text ends too early"),
        ('{"tasks": ["a"]}\nx', (2, 1), "trailing characters"),
        ("{'tasks': []}", (1, 2), "not valid JSON"),
        (b'{"tasks": ["\xff"]}', (1, 13), "is not UTF-8 text"),
    ],
)
def test_native_malformed_json_names_line_and_column(
    read: Read, text: str | bytes, place: tuple[int, int], problem: str
) -> None:
    error = refuse(read, text, "sweep.json")
    assert problem in error.message
    assert (error.line, error.column) == place


def test_native_large_json_cut_in_the_middle_names_its_end(read: Read) -> None:
    text = '{"tasks": [\n' + ",\n".join(f'{{"command": "echo {i}"}}' for i in range(100_000))
    half = text[: len(text) // 2]
    error = refuse(read, half, "sweep.json")
    assert (error.line, error.message.count("ends too early")) == (half.count("\n") + 1, 1)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "a.yaml"),
        ("\n\n", "a.txt"),
        ("# nothing\n", "a.txt"),
        ("tasks:\n", "a.yaml"),
        ("tasks: []\n", "a.yaml"),
        ("slots: 3\n", "a.yaml"),
        ("{}", "a.json"),
        ('{"tasks": null}', "a.json"),
        ("command\n", "a.csv"),
    ],
)
def test_native_without_tasks_is_refused(read: Read, text: str, name: str) -> None:
    assert refuse(read, text, name).message == f"{name} has no tasks"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("tasks: {a: b}", "a.yaml"),
        ("tasks: {}", "a.yaml"),
        ("tasks: a", "a.yaml"),
        ('{"tasks": {}}', "a.json"),
        ("just text", "a.yaml"),
        ("3", "a.json"),
        ('"a"', "a.json"),
        ("[" * 100_000, "a.json"),
        ("a: " + "[" * 3000, "a.yaml"),
        ("x,y\n1,2\n", "a.csv"),
        ("command,x\na\n", "a.csv"),
        ("command,x\na {y},1\n", "a.csv"),
        ("command,x\n,1\n", "a.csv"),
    ],
)
def test_native_of_a_wrong_shape_is_refused(read: Read, text: str, name: str) -> None:
    assert refuse(read, text, name).file == name


def test_native_matrix_with_one_name_for_all_tells_how(read: Read) -> None:
    error = refuse(read, "tasks:\n- name: t\n  command: a {x}\n  matrix: {x: 1..2}\n")
    assert error.message == "sweep.yaml, line 2: two tasks have the name 't'"
    assert error.hint == "the name must hold what differs: {x}"


# --- what msgspec says, which has no other form than its words ------------------------------------


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    known: int = 0


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: list[Inner] = []


def message_of(content: str, kind: Any = Outer) -> str:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(content, type=kind)
    return str(caught.value)


def test_msgspec_names_an_unknown_key_and_its_path_as_we_read_them() -> None:
    match = native._UNKNOWN_KEY.fullmatch(message_of('{"inner": [{}, {"odd": 1}]}'))
    assert match is not None
    assert match.groups() == ("odd", "$.inner[1]")
    at_top = native._UNKNOWN_KEY.fullmatch(message_of('{"odd": 1}'))
    assert at_top is not None
    assert at_top.groups() == ("odd", None)


def test_msgspec_names_the_path_of_a_wrong_value_as_we_read_it() -> None:
    match = native._WRONG_TYPE.fullmatch(message_of('{"inner": [{}, {"known": "x"}]}'))
    assert match is not None
    assert native._parse_steps(match[1]) == ["inner", 1, "known"]


@pytest.mark.parametrize(
    ("content", "reason", "offset"),
    [("[1,]", "trailing comma in array", 3), ("[1] 2", "trailing characters", 4)],
)
def test_msgspec_names_the_byte_of_broken_json_as_we_read_it(
    content: str, reason: str, offset: int
) -> None:
    error = msgspec.DecodeError(message_of(content, Any))
    found, at = json_documents._read_json_reason(error, len(content))
    assert (reason in found, at) == (True, offset)


def test_msgspec_says_of_a_text_that_ends_too_early_what_we_look_for() -> None:
    assert "truncated" in message_of("[1", Any)
