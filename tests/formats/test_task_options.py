"""On what terms tasks run: `after`, `retries`, weights and guards, in each syntax."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen.errors import InputError
from umpteen.formats import read_job
from umpteen.formats.flags import JobFlags, TaskFlags
from umpteen.formats.task_options import parse_retries
from umpteen.job.spec import Job, Retry, Task, TaskOptions
from umpteen.units import parse_size

Read = Callable[..., Job]
GB = 1 << 30


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """`read(text, "job.yaml", "t.csv", cpus=2)` is the job of such files and flags."""
    monkeypatch.chdir(tmp_path)

    def read(text: str, name: str = "job.yaml", *beside: str, **flags: Any) -> Job:
        Path(name).write_text(text)
        tasks = {key: flags.pop(key) for key in TaskFlags.__struct_fields__ if key in flags}
        return read_job([name, *beside], flags=JobFlags(**flags, tasks=TaskFlags(**tasks)))

    return read


def refuse(read: Read, text: str, name: str = "job.yaml") -> InputError:
    with pytest.raises(InputError) as caught:
        read(text, name)
    return caught.value


def read_terms(read: Read, line: str) -> TaskOptions | None:
    """The terms of a task with this line, after a task called prep."""
    return read(f"tasks:\n- {{name: prep, command: a}}\n- command: b\n  {line}\n").tasks[1].options


FULL = TaskOptions(
    after=[("prep", "succeeded")],
    retries=[Retry(["failed"], times=3)],
    cpus=2,
    memory=4 * GB,
    gpus=1,
    expect=["results/model.pt"],
    output_limit=100,
    priority=-1,
    slurm={"gres": "gpu:a100:1", "cpus-per-task": "4", "exclusive": ""},
    needs=("g++", "openfoam-11"),
)
FULL_KEYS = {
    "after": "prep",
    "retries": 3,
    "cpus": 2,
    "memory": "4G",
    "gpus": 1,
    "priority": -1,
    "expect": "results/model.pt",
    "output_limit": 100,
    "slurm": {"gres": "gpu:a100:1", "cpus_per_task": 4, "exclusive": True, "hold": False},
    "needs": ["openfoam-11", "g++", "openfoam-11"],
}


def test_terms_every_key_is_read_from_json(read: Read) -> None:
    tasks = [{"name": "prep", "command": "a"}, {"command": "b", **FULL_KEYS}]
    assert read(json.dumps({"tasks": tasks}), "job.json").tasks[1].options == FULL


def test_terms_every_key_is_read_from_yaml(read: Read) -> None:
    lines = "\n".join(f"  {key}: {json.dumps(value)}" for key, value in FULL_KEYS.items())
    text = f"tasks:\n- {{name: prep, command: a}}\n- command: b\n{lines}\n"
    assert read(text).tasks[1].options == FULL


@pytest.mark.parametrize(
    ("key", "own"),
    [("retries", 7), ("cpus", 7), ("memory", "7G"), ("gpus", 7), ("priority", 7), ("expect", "x"),
     ("output_limit", "7K"), ("needs", "[a, 7]")],
)  # fmt: skip
def test_terms_of_the_job_serve_tasks_without_their_own(
    read: Read, key: str, own: int | str
) -> None:
    job = read(f"{key}: {FULL_KEYS[key]}\ntasks: [a, {{command: b, {key}: {own}}}]\n")
    alone = read(f"tasks: [{{command: b, {key}: {own}}}]\n")
    assert job.tasks[0].options == TaskOptions(**{key: getattr(FULL, key)})
    assert job.tasks[1].options == alone.tasks[0].options != TaskOptions()


def test_terms_of_slurm_are_laid_over_those_of_the_job_one_by_one(read: Read) -> None:
    job = read(
        "slurm: {partition: main, mem: 4G, time: 2h}\n"
        "tasks: [{command: a, slurm: {time: 1h, mem-per-cpu: 1G}}, {command: b, slurm: {}}]\n"
    )
    slurm = [task.options and task.options.slurm for task in job.tasks]
    assert slurm == [
        {"partition": "main", "time": "60:00", "mem-per-cpu": "1G"},
        {"partition": "main", "mem": "4G", "time": "120:00"},
    ]


def test_terms_of_slurm_in_a_run_file_are_laid_over_those_of_the_tasks_file(
    read: Read, tmp_path: Path
) -> None:
    (tmp_path / "tasks.yaml").write_text("slurm: {time: 1h, account: a}\ntasks: [true]\n")
    job = read("slurm: {account: b}\n", "run.yaml", "tasks.yaml")
    assert job.tasks[0].options == TaskOptions(slurm={"time": "60:00", "account": "b"})


def test_terms_of_slurm_that_are_misspelt_are_answered_with_the_nearest(read: Read) -> None:
    error = refuse(read, "slurm: {partytion: main}\ntasks: [true]\n")
    assert (error.line, error.field, error.hint) == (1, "slurm", "did you mean 'partition'?")


def test_terms_after_of_the_job_is_undone_by_an_empty_list(read: Read) -> None:
    job = read("after: prep\nretries: 2\ntasks: [{name: prep, command: a, after: []}, b]\n")
    twice = [Retry(["failed"], times=2)]
    assert job.tasks[0].options == TaskOptions(retries=twice)
    assert job.tasks[1].options == TaskOptions(after=[("prep", "succeeded")], retries=twice)


@pytest.mark.parametrize(
    "line", ["retries: 0", "retries: []", "after: []", "expect: []", "gpus: 0",
             "priority: 0", "output_limit: 0", "slurm: {}", "slurm: {hold: false}", "tags: a",
             "needs: []"],
)  # fmt: skip
def test_terms_that_say_nothing_are_none(read: Read, line: str) -> None:
    assert read_terms(read, line) is None


def test_terms_of_plain_tasks_are_none(read: Read) -> None:
    assert read('["a", {"command": "b", "name": "c"}]', "job.json").tasks == [
        Task("a"),
        Task("b", "c"),
    ]


def test_terms_of_the_run_file_serve_the_rows_of_a_table(read: Read, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("command,name,x\na,b-1,2\nb {x},c-{x},1\n")
    (tmp_path / "run.yaml").write_text("cpus: 2\nexpect: out/{x}\n")
    job = read_job(["run.yaml", "t.csv"])
    assert [task.options for task in job.tasks] == [
        TaskOptions(cpus=2, expect=["out/2"]),
        TaskOptions(cpus=2, expect=["out/1"]),
    ]
    with pytest.raises(InputError, match="line 2: task 0: after 'b-2': there is no task"):
        read("after: 'b-{x}'\n", "run.yaml", "t.csv")


def test_terms_flags_override_tasks(read: Read) -> None:
    once = [Retry(["timed_out"])]
    text = "cpus: 3\ntasks: [{command: a, cpus: 2, retries: 5, priority: 1, needs: a}, b]\n"
    flags: dict[str, Any] = {"retries": once, "cpus": 1, "memory": GB, "gpus": 2, "output_limit": 5}
    flags["needs"] = ("b", "c")
    job = read(text, **flags)
    terms = TaskOptions(retries=once, cpus=1, memory=GB, gpus=2, output_limit=5, needs=("b", "c"))
    assert job.tasks[1].options == terms
    assert job.tasks[0].options == TaskOptions(
        retries=once, cpus=1, memory=GB, gpus=2, output_limit=5, priority=1, needs=("b", "c")
    )
    assert job.source_digest != read(text).source_digest


# --- after ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "after"),
    [
        ("prep", [("prep", "succeeded")]),
        ("[prep, 'p*', prep]", [("prep", "succeeded"), ("p*", "succeeded")]),
        ("{prep: any}", [("prep", "any")]),
        ("{prep: failed, '*ep': succeeded}", [("prep", "failed"), ("*ep", "succeeded")]),
        ("[prep, {'pre?': failed}]", [("prep", "succeeded"), ("pre?", "failed")]),
        ("'[p]rep'", [("[p]rep", "succeeded")]),
    ],
)
def test_after_takes_names_patterns_and_outcomes(
    read: Read, given: str, after: list[tuple[str, str]]
) -> None:
    assert read_terms(read, f"after: {given}") == TaskOptions(after=after)


def test_after_takes_names_that_are_numbers(read: Read) -> None:
    tasks = [{"name": 3, "command": "a"}, {"command": "b", "after": [3]}]
    assert read(json.dumps(tasks), "job.json").tasks[1].options == TaskOptions(
        after=[("3", "succeeded")]
    )


def test_after_and_expect_are_filled_as_names_and_texts(read: Read) -> None:
    job = read("""\
tasks:
- {name: 'prep-{lr}', command: 'a {lr}', matrix: {lr: [a/b, 2]}}
- {name: 'train-{lr}', command: 'b {lr}', matrix: {lr: [a/b, 2]},
   after: ['prep-{lr}', {'prep-*': any}], expect: 'out/{lr}'}
""")
    assert [task.options for task in job.tasks] == [
        None,
        None,
        TaskOptions(after=[("prep-a%2Fb", "succeeded"), ("prep-*", "any")], expect=["out/a/b"]),
        TaskOptions(after=[("prep-2", "succeeded"), ("prep-*", "any")], expect=["out/2"]),
    ]


def test_after_that_is_filled_to_the_same_stands_once(read: Read) -> None:
    job = read("""\
tasks:
- {name: 'p-1', command: a}
- {name: t, command: 'b {x} {y}', matrix: {x: 1, y: 1}, after: ['p-{x}', 'p-{y}']}
""")
    assert job.tasks[1].options == TaskOptions(after=[("p-1", "succeeded")])


@pytest.mark.parametrize("syntax", ["job.json", "job.jsonl", "job.yaml"])
def test_after_of_many_plain_tasks_is_read(read: Read, syntax: str) -> None:
    tasks: list[dict[str, Any]] = [{"name": "0", "command": "a"}]
    tasks += [{"name": str(i), "command": "a", "after": str(i - 1)} for i in range(1, 40)]
    tasks += [{"command": "b", "after": ["0", "39", "0"]}, {"command": "c"}]
    lines = [json.dumps(task) for task in tasks]
    text = "\n".join(lines) if syntax == "job.jsonl" else "[\n" + ",\n".join(lines) + "\n]"
    job = read(text, syntax)
    assert job.tasks[0] == Task("a", "0")
    assert job.tasks[39] == Task("a", "39", options=TaskOptions(after=[("38", "succeeded")]))
    assert job.tasks[40] == Task(
        "b", options=TaskOptions(after=[("0", "succeeded"), ("39", "succeeded")])
    )
    assert job.tasks[41] == Task("c")


OUTCOMES = "'after' must be succeeded, any or failed"


@pytest.mark.parametrize(
    ("line", "problem", "hint"),
    [
        ("after: trian", "task 't': after 'trian': there is no task of that name", "'train'"),
        ("after: [train, x*]", "task 't': after 'x*': no task's name is like that", ""),
        ("after: t", "task 't': tasks wait for each other: t after t", "must not be"),
        ("after: {train: success}", f"task 't': 'train' in {OUTCOMES}, not 'success'", "succeeded"),
        ("after: {train: [any]}", f"task 't': 'train' in {OUTCOMES}, not a list", "'any'"),
        ("after: [[train]]", "task 't': the names in 'after' must be text or a number, not a list",
         ""),
        ("after: ['']", "task 't': 'after' has an empty name", "the name of a task"),
        ('after: "a\\0"', "task 't': the names in 'after': a NUL character cannot be passed on",
         ""),
    ],
)  # fmt: skip
def test_after_that_cannot_be_names_its_line(
    read: Read, line: str, problem: str, hint: str
) -> None:
    text = (
        "tasks:\n- {name: train, command: a}\n- {name: last, command: b}\n"
        f"- name: t\n  command: c\n  {line}\n"
    )
    error = refuse(read, text)
    assert error.message == f"job.yaml, line 6: {problem}"
    assert (error.line, error.field) == (6, "after")
    assert hint in (error.hint or "")


def test_after_in_a_circle_is_named(read: Read) -> None:
    text = "tasks:\n- x\n- {name: a, command: x, after: b}\n- {name: b, command: x, after: 'a*'}\n"
    error = refuse(read, text)
    problem = "task 'a': tasks wait for each other: a after b after a"
    assert error.message == f"job.yaml, line 3: {problem}"


@pytest.mark.parametrize("given", ['"x"', '["x"]', '["a", ""]', '""'])
def test_after_that_is_wrong_in_json_names_its_line(read: Read, given: str) -> None:
    text = f'[{{"name": "a", "command": "b"}},\n{{"command": "c", "after": {given}}}]'
    assert refuse(read, text, "job.json").line == 2


def test_after_in_a_matrix_names_its_entry(read: Read) -> None:
    text = (
        "tasks:\n- {name: 'p-{x}', command: 'a {x}', matrix: {x: 1..3}}\n"
        "- {name: 't-{x}', command: 'b {x}', matrix: {x: 3..4}, after: 'p-{x}'}\n"
    )
    error = refuse(read, text)
    assert error.message == (
        "job.yaml, line 3: task 't-{x}': after 'p-4': there is no task of that name"
    )


def test_after_with_an_unknown_placeholder_is_refused(read: Read) -> None:
    error = refuse(read, "tasks:\n- command: 'a {lr}'\n  matrix: {lr: 1}\n  after: 'p-{l}'\n")
    assert error.message == "job.yaml, line 4: task 0: unknown placeholder {l}"


# --- retries -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        ("1000", [Retry(["failed"], times=1000)]),
        ("{when: timed_out}", [Retry(["timed_out"])]),
        ("{times: 3}", [Retry(["failed"], times=3)]),
        ("{}", [Retry(["failed"])]),
        ("{when: any, wait: 0}", [Retry(["failed"], wait_s=0.0)]),
        ("{when: [failed, any, lost]}", [Retry(["failed", "lost"])]),
        ("{when: [out_of_memory, output_limit], memory: x1.5, alone: true}",
         [Retry(["out_of_memory", "output_limit"], memory_factor=1.5, alone=True)]),
        ("{memory: 8G, wait: 1m}", [Retry(["failed"], memory=8 * GB, wait_s=60.0)]),
        ("[{when: exit_code 75, times: 5}, {when: exit_code 1-9}, {when: 'exit_code:3'}]",
         [Retry(["exit_code:75"], times=5), Retry(["exit_code:1-9"]), Retry(["exit_code:3"])]),
        ("{when: [signal 9, signal KILL, signal SIGKILL, SIGKILL, signal kill]}",
         [Retry(["signal:9"])]),
    ],
)  # fmt: skip
def test_retries_are_a_number_a_rule_or_rules(read: Read, given: str, rules: list[Retry]) -> None:
    assert read_terms(read, f"retries: {given}") == TaskOptions(retries=rules)


def test_retries_in_json_have_numbers_and_truth_values() -> None:
    rule = {"when": ["failed"], "times": 2, "wait": 3, "memory": 2 * GB, "alone": True}
    assert parse_retries([rule]) == [Retry(["failed"], 2, 3.0, memory=2 * GB, alone=True)]


MEMORY = "a factor such as x2, or a size such as 8G"
WHEN = "a condition or a list of conditions"
RULES = "write retries: 3, or retries: {when: timed_out, times: 3}"


@pytest.mark.parametrize(
    ("given", "problem", "hint"),
    [
        ("two", "'retries' must be a number, a rule or a list of rules, not 'two'", RULES),
        ("1.5", "'retries' must be a number, a rule or a list of rules, not 1.5", RULES),
        ("-1", "'retries' must be from 0 to 1000, not -1", None),
        ("1001", "'retries' must be from 0 to 1000, not 1001", None),
        ("[3]", "a rule of 'retries' must be a mapping, not 3", RULES),
        ("{tims: 3}", "unknown key 'tims' in 'retries'", "did you mean 'times'?"),
        ("{times: 0}", "'times' of a retry must be a whole number from 1 to 1000, not 0", None),
        ("{times: x}", "'times' of a retry must be a whole number from 1 to 1000, not 'x'", None),
        ("{wait: soon}",
         "'wait' of a retry must be a duration such as 0, 5s or 1m, not 'soon'", None),
        ("{memory: more}",
         f"'memory' of a retry must be {MEMORY}, not 'more'", None),
        ("{memory: 3}", "a memory of 3 bytes is too little", "write a unit: 3M or 3G"),
        ("{memory: x0.5}", "a retry cannot have less memory than x1", None),
        ("{alone: perhaps}", "'alone' of a retry must be true or false, not 'perhaps'", None),
        ("{when: []}", f"'when' of a retry must be {WHEN}, not an empty list", None),
        ("{when: {exit_code: 3}}", f"'when' of a retry must be {WHEN}, not a mapping", None),
        ("{when: timedout}", "unknown condition 'timedout' in 'retries'",
         "did you mean 'timed_out'?"),
        ("{when: exit_code 256}", "unknown condition 'exit_code 256' in 'retries'",
         "did you mean 'exit_code 75' or 'exit_code 1-9'?"),
        ("{when: exit_code 9-1}", "unknown condition 'exit_code 9-1' in 'retries'",
         "did you mean 'exit_code 1-9' or 'exit_code 75'?"),
        ("{when: exit_code=3}", "unknown condition 'exit_code=3' in 'retries'",
         "did you mean 'exit_code 3'?"),
        ("{when: signal = KILL}", "unknown condition 'signal = KILL' in 'retries'",
         "did you mean 'signal KILL'?"),
        ("{when: signal NO}", "unknown condition 'signal NO' in 'retries'",
         "did you mean 'signal KILL'?"),
        ("{when: signal 99}", "unknown condition 'signal 99' in 'retries'",
         "did you mean 'signal KILL'?"),
    ],
)  # fmt: skip
def test_retries_that_cannot_be_name_their_line(
    read: Read, given: str, problem: str, hint: str | None
) -> None:
    error = refuse(read, f"tasks:\n- name: t\n  command: a\n  retries: {given}\n")
    assert error.message == f"job.yaml, line 4: task 't': {problem}"
    assert (error.hint, error.line, error.field) == (hint, 4, "retries")


@pytest.mark.parametrize("given", ["true", "1.5", '"x"', "[null]", '{"times": null}'])
def test_retries_of_another_type_in_json_are_refused(read: Read, given: str) -> None:
    error = refuse(read, f'[{{"command": "a",\n"retries": {given}}}]', "job.json")
    assert (error.line, error.field) == (2, "retries")


# --- weights and guards --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("100", 100),
        ("100B", 100),
        ("100K", 100 << 10),
        ("512M", 512 << 20),
        ("1.5GB", 3 << 29),
        ("4G", 4 << 30),
        ("4 GiB", 4 << 30),
        ("3mib", 3 << 20),
        ("2T", 2 << 40),
        ("1P", 1 << 50),
        ("", None),
        ("G", None),
        ("-1G", None),
        ("1X", None),
        ("1iB", None),
        ("1e9", None),
        ("9999999999999T", None),
    ],
)
def test_size_is_read_by_powers_of_1024(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@given(
    st.integers(0, 10**6), st.sampled_from("KMGT"), st.sampled_from(["", "B", "iB", "b"]),
    st.booleans(),
)  # fmt: skip
def test_size_of_any_whole_number_is_exact(
    number: int, unit: str, ending: str, is_spaced: bool
) -> None:
    text = f"{number}{' ' * is_spaced}{unit}{ending}"
    assert parse_size(text) == parse_size(text.lower()) == number * 1024 ** (" KMGT".index(unit))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("cpus: 0", "'cpus' must be a whole number of at least 1, not 0 in task 't'"),
        ("cpus: 1.5", "'cpus' must be a whole number of at least 1, not 1.5 in task 't'"),
        (f"cpus: {'9' * 30}",
         f"'cpus' must be a whole number of at least 1, not {'9' * 30} in task 't'"),
        ("gpus: -1", "'gpus' must be a whole number of at least 0, not -1 in task 't'"),
        ("priority: high", "'priority' must be a whole number, not 'high' in task 't'"),
        ("memory: 4096", "task 't': a memory of 4096 bytes is too little"),
        ("memory: 0G", "task 't': a memory of 0 bytes is too little"),
        ("memory: lots", "task 't': 'memory' must be a size such as 512M or 4G, not 'lots'"),
        ("memory: [4G]", "'memory' must be a size such as 512M or 4G, not a list in task 't'"),
        ("output_limit: x", "task 't': 'output_limit' must be a size such as 512M or 4G, not 'x'"),
        ("expect: ['']", "task 't': 'expect' has an empty path"),
        ("expect: [[a]]", "task 't': the values of 'expect' must be text or a number, not a list"),
        ("expect: {a: b}", "'expect' must be a text or a list of texts, not a mapping in task 't'"),
        ("slurm: 2h", "'slurm' must be a mapping of options to values, not '2h' in task 't'"),
        ("slurm: {tme: 2h}", "task 't': the executor 'slurm' has no option 'tme'"),
        ("slurm: {time: soon}", "task 't': 'soon' of 'time' is no time that Slurm knows"),
        ("slurm: {array: 1-3}", "task 't': the executor 'slurm' sets 'array' itself"),
        ("needs: {a: b}", "'needs' must be a name or a list of names, not a mapping in task 't'"),
        ("needs: [[a]]", "task 't': the names in 'needs' must be text or a number, not a list"),
        ("needs: [a, '']", "task 't': 'needs' has an empty name"),
        ("needs: 'a, b'", "task 't': 'a, b' in 'needs' cannot be the name of a capability"),
        ("needs: -O2", "task 't': '-O2' in 'needs' cannot be the name of a capability"),
        ("needs: [größe]", "task 't': 'größe' in 'needs' cannot be the name of a capability"),
        ("needs: ['{x}']", "task 't': '{x}' in 'needs' cannot be the name of a capability"),
    ],
)  # fmt: skip
def test_weight_that_cannot_be_names_its_line(read: Read, line: str, problem: str) -> None:
    error = refuse(read, f"tasks:\n- name: t\n  command: a\n  {line}\n")
    assert error.message == f"job.yaml, line 4: {problem}"
    assert (error.line, error.field) == (4, line.partition(":")[0])


def test_need_of_one_name_is_a_list_of_it(read: Read) -> None:
    for line in ("needs: python3.12", "needs: [python3.12]"):
        assert read_terms(read, line) == TaskOptions(needs=("python3.12",))
    assert read('[{"command": "a", "needs": [3]}]', "job.json").tasks[0].options == TaskOptions(
        needs=("3",)
    )


def test_name_of_a_need_has_at_most_a_hundred_characters(read: Read) -> None:
    assert read_terms(read, f"needs: {'a' * 100}") == TaskOptions(needs=("a" * 100,))
    error = refuse(read, f"tasks: [a]\nneeds: {'a' * 101}\n")
    assert error.message.endswith("in 'needs' cannot be the name of a capability")
    assert (error.line, error.field) == (2, "needs")
    assert error.hint == "use letters, digits and '._+-', at most 100 and first a letter or digit"


def test_memory_of_few_bytes_asks_for_a_unit(read: Read) -> None:
    assert refuse(read, "tasks: [{command: a, memory: 16}]").hint == "write a unit: 16M or 16G"


def test_memory_of_many_bytes_is_taken(read: Read) -> None:
    assert read_terms(read, "memory: 1048576") == TaskOptions(memory=1 << 20)


@pytest.mark.parametrize("name", ["job.yaml", "job.json"])
def test_guards_of_the_job_are_settings(read: Read, name: str) -> None:
    settings = read('{"canary": 2, "max_failures": 10, "fail_fast": true, "tasks": ["a"]}', name)
    assert (settings.settings.canary, settings.settings.max_failures) == (2, 10)
    assert settings.settings.fail_fast
    assert settings.settings.sources["canary"] == name


def test_guard_fail_fast_alone_is_after_the_first_failure(read: Read) -> None:
    settings = read("fail_fast: true\ntasks: [a]").settings
    assert (settings.max_failures, settings.sources["max_failures"]) == (1, "job.yaml")
    assert read("fail_fast: false\ntasks: [a]").settings.max_failures == 0
    assert read("max_failures: 4\ntasks: [a]", fail_fast=True).settings.max_failures == 4


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("canary: -1", "'canary' must be a whole number of at least 0, not -1"),
        ("canary: few", "'canary' must be a whole number of at least 0, not 'few'"),
        ("max_failures: -1", "'max_failures' must be a whole number of at least 0, not -1"),
        ("fail_fast: yes", "'fail_fast' must be true or false, not 'yes'"),
        ("retries: two", "'retries' must be a number, a rule or a list of rules, not 'two'"),
        ("after: {b: x}", "'b' in 'after' must be succeeded, any or failed, not 'x'"),
        ("memory: 1", "a memory of 1 bytes is too little"),
    ],
)
def test_guard_or_default_that_cannot_be_names_its_line(
    read: Read, line: str, problem: str
) -> None:
    error = refuse(read, f"tasks: [a]\n{line}\n")
    assert error.message == f"job.yaml, line 2: {problem}"


def test_guard_in_a_task_is_an_unknown_key(read: Read) -> None:
    assert "unknown key 'canary'" in refuse(read, "tasks: [{command: a, canary: 2}]").message


def test_template_is_told_only_where_canaries_go_first(read: Read) -> None:
    text = """\
tasks:
- a
- {command: 'b {x}', matrix: {x: 1..2}}
- {command: c, cpus: 2}
- {command: 'd {x}', matrix: {x: 3}, cpus: 2}
"""
    plain = [task.options.template if task.options else 0 for task in read(text).tasks]
    told = [task.options.template if task.options else 0 for task in read(text, canary=1).tasks]
    assert plain == [0, 0, 0, 0, 0]
    assert told == [0, 2, 2, 0, 4]
