"""`umpteen run`: every way to say what to run, and what is left of it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.processes import list_processes
from tests.support.store import list_records, read_record
from tests.support.wait import wait_until

# --- the documents' own files ---------------------------------------------------------------

SATURN_RUN = """executor:
  class_spec: LocalExecutor
results:
  class_spec: LocalResults
  path: {folder}/{{name}}
"""
SATURN_TASKS = """tasks:
  - command: julia /home/jovyan/workspace/julia-example/fibonacci.jl 12
  - command: julia /home/jovyan/workspace/julia-example/fibonacci.jl 30
  - command: julia /home/jovyan/workspace/julia-example/fibonacci.jl 5
  - command: julia /home/jovyan/workspace/julia-example/fibonacci.jl 13
"""
JULIA = '#!/bin/sh\necho "fibonacci of $2"\necho "$2" > "$SATURN_RUN_LOCAL_RESULTS_DIR/n"\n'
SC_BATCH = {
    "nprocs": 2,
    "remote_output_path": "out/",
    "runs": [
        {"cmd": "echo one", "remote_output_path": "out/0"},
        {"cmd": "echo two", "remote_output_path": "out/1"},
    ],
}


@pytest.mark.parametrize("files", [("run.yaml", "tasks.yaml"), ("tasks.yaml", "run.yaml")])
def test_run_saturn_documents_files_leaves_what_they_promise(
    umpteen: Umpteen, tmp_path: Path, files: tuple[str, str]
) -> None:
    umpteen.write("run.yaml", SATURN_RUN.format(folder=tmp_path / "results"))
    umpteen.write("tasks.yaml", SATURN_TASKS)
    umpteen.write("bin/julia", JULIA).chmod(0o755)
    path = {"PATH": f"{umpteen.folder / 'bin'}:{os.environ['PATH']}"}

    done = umpteen("run", *files, "--name", "my-job", env=path)

    assert done.returncode == 0, done.stderr
    for index, number in enumerate([12, 30, 5, 13]):
        folder = tmp_path / "results" / "my-job" / str(index)
        assert (folder / "stdout").read_text() == f"fibonacci of {number}\n"
        assert (folder / "stderr").read_text() == ""
        assert (folder / "status").read_text() == "0"
        assert (folder / "results" / "n").read_text() == f"{number}\n"


def test_run_with_prefix_names_the_job_by_it_and_the_time(umpteen: Umpteen) -> None:
    done = umpteen("run", "true", "--prefix", "nightly", "--json")
    name = json.loads(done.stdout.splitlines()[-1])["name"]
    assert re.fullmatch(r"nightly-\d{8}T\d{6}Z", name)
    assert umpteen.store(name).is_dir()


def test_run_results_name_is_filled_in(umpteen: Umpteen, tmp_path: Path) -> None:
    done = umpteen("run", "true", "--name", "n", "--results", f"{tmp_path}/a/{{name}}/b")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a/n/b/0/status_code").read_text() == "0"


# --- the forms of input -----------------------------------------------------------------------

FORMS = {
    "tasks.yaml": "tasks:\n  - command: echo one\n  - command: echo two\n",
    "list.yaml": "- command: echo one\n- command: echo two\n",
    "tasks.json": '{"tasks": [{"command": "echo one"}, {"command": "echo two"}]}',
    "tasks.jsonl": '{"command": "echo one"}\n{"command": "echo two"}\n',
    "tasks.csv": "command,name\necho one,0\necho two,1\n",
    "lines.txt": "# numbers\necho one\n\necho two\n",
    "no-extension": "echo one\necho two\n",
    "matrix.yaml": "tasks:\n- command: echo {word}\n  name: '{at}'\n"
    "  matrix: [{word: one, at: 0}, {word: two, at: 1}]\n",
}


def expect_one_and_two(store: Path) -> None:
    assert (store / "0/stdout").read_text() == "one\n"
    assert (store / "1/stdout").read_text() == "two\n"
    assert (store / "1/status_code").read_text() == "0"


@pytest.mark.parametrize("name", FORMS)
def test_run_file_of_each_form_runs_its_tasks(umpteen: Umpteen, name: str) -> None:
    umpteen.write(name, FORMS[name])
    done = umpteen("run", name)
    assert done.returncode == 0, done.stderr
    expect_one_and_two(umpteen.store(name.partition(".")[0]))


@pytest.mark.parametrize("name", ["lines.txt", "tasks.yaml", "tasks.json", "tasks.jsonl"])
def test_run_standard_input_of_each_form_runs_its_tasks(umpteen: Umpteen, name: str) -> None:
    done = umpteen("run", "-", "--name", "job", stdin=FORMS[name])
    assert done.returncode == 0, done.stderr
    expect_one_and_two(umpteen.store())


@pytest.mark.parametrize("name", ["batch.json", "batch.yaml"])
def test_run_batch_file_of_sc_fills_its_own_places(umpteen: Umpteen, name: str) -> None:
    text = json.dumps(SC_BATCH)
    if name.endswith("yaml"):
        text = (
            "nprocs: 2\nremote_output_path: out/\nruns:\n"
            "- cmd: echo one\n  remote_output_path: out/0\n"
            "- cmd: echo two\n  remote_output_path: out/1\n"
        )
    umpteen.write(name, text)
    done = umpteen("run", name)
    assert done.returncode == 0, done.stderr
    expect_one_and_two(umpteen.folder / "out")


def test_run_template_with_values_runs_the_product(umpteen: Umpteen) -> None:
    done = umpteen("run", "echo {a}-{b}", "a=x y,z", "b=1..2", "--name", "job")
    assert done.returncode == 0, done.stderr
    assert (umpteen.store() / "a=x y,b=1/stdout").read_text() == "x y-1\n"
    assert (umpteen.store() / "a=z,b=2/stdout").read_text() == "z-2\n"
    assert len(list_records(umpteen.store())) == 4


def test_run_template_with_a_table_runs_each_row(umpteen: Umpteen) -> None:
    umpteen.write("params.csv", "lr,seed\n0.1,1\n0.2,2\n")
    done = umpteen("run", "echo {lr} {seed}", "--from", "params.csv", "--name", "job")
    assert done.returncode == 0, done.stderr
    assert (umpteen.store() / "lr=0.1,seed=1/stdout").read_text() == "0.1 1\n"
    assert (umpteen.store() / "lr=0.2,seed=2/stdout").read_text() == "0.2 2\n"


def test_run_single_command_runs_once(umpteen: Umpteen) -> None:
    done = umpteen("run", "echo hello; echo there >&2")
    assert done.returncode == 0, done.stderr
    assert (umpteen.store("echo") / "0/stdout").read_text() == "hello\n"
    assert (umpteen.store("echo") / "0/stderr").read_text() == "there\n"


@pytest.mark.parametrize(
    "task",
    [
        {"command": ["printf", "%s|", "a b", "$HOME", "*"], "shell": False},
        {"command": ["printf", "%s|", "a b", "$HOME", "*"]},
        {"command": "printf '%s|' 'a b' $HOME *", "shell": False},
    ],
)
def test_run_command_without_shell_gets_its_words_as_they_are(
    umpteen: Umpteen, task: dict[str, object]
) -> None:
    umpteen.write("job.json", json.dumps({"tasks": [task]}))
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    assert (umpteen.store() / "0/stdout").read_text() == "a b|$HOME|*|"


# --- what a task sees ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variable", ["UMPTEEN_RESULTS_DIR", "SATURN_RUN_LOCAL_RESULTS_DIR", "RESULTS_DIR"]
)
def test_run_what_is_left_in_the_results_folder_is_kept(umpteen: Umpteen, variable: str) -> None:
    command = f'mkdir -p "${variable}/deep/er"; printf x > "${variable}/deep/er/file"'
    done = umpteen("run", command, "--name", "job")
    assert done.returncode == 0, done.stderr
    assert (umpteen.store() / "0/results/deep/er/file").read_text() == "x"


def test_run_results_folder_is_empty_for_every_task(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", 'ls -A "$RESULTS_DIR"; echo > "$RESULTS_DIR/f"\n' * 6)
    umpteen("run", "job.txt", "--slots", "2")
    left = [(umpteen.store() / str(n) / "stdout").read_text() for n in range(6)]
    assert left == [""] * 6


def test_run_without_results_leaves_no_results_folder(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "job")
    names = {path.name for path in (umpteen.store() / "0").iterdir()}
    assert names == {"stdout", "stderr", "status_code"}


def test_run_task_sees_every_variable(umpteen: Umpteen) -> None:
    umpteen.write("job.yaml", "tasks: [{command: 'true'}, {command: env -0, name: a/b}]")
    umpteen("run", "job.yaml", "--slots", "1")
    store = umpteen.store()
    seen = dict(
        entry.split("=", 1) for entry in (store / "a/b/stdout").read_text().split("\0") if entry
    )
    results = seen["UMPTEEN_RESULTS_DIR"]
    expected = {
        "UMPTEEN_JOB": "job",
        "UMPTEEN_TASK": "a/b",
        "UMPTEEN_TASK_INDEX": "1",
        "UMPTEEN_ATTEMPT": "1",
        "UMPTEEN_SLOT": "0",
        "UMPTEEN_OUTPUT": str(store / "a/b"),
        "UMPTEEN_RUNNER": list_records(store)[0]["token"],
        "SATURN_RUN_LOCAL_RESULTS_DIR": f"{results}/",
        "SATURN_RUN_REMOTE_OUTPUT_PATH": str(store / "a/b"),
        "SATURN_RUN_LOCAL_RANK": "0",
        "RESULTS_DIR": results,
    }
    assert {key: seen.get(key) for key in expected} == expected
    assert results.startswith(f"{store}/.umpteen/scratch/")


def test_run_task_inherits_the_environment(umpteen: Umpteen) -> None:
    umpteen("run", "printenv COLOUR", "--name", "job", env={"COLOUR": "a\nb=c"})
    assert (umpteen.store() / "0/stdout").read_text() == "a\nb=c\n"


def test_run_inside_a_task_has_a_runner_of_its_own(umpteen: Umpteen) -> None:
    program = umpteen.command[0]
    umpteen.write("inner.txt", "printenv UMPTEEN_RUNNER UMPTEEN_JOB\n")
    done = umpteen("run", f"{program} run inner.txt -q; printenv UMPTEEN_RUNNER", "--name", "outer")
    assert done.returncode == 0, done.stderr
    outer = (umpteen.store("outer") / "0/stdout").read_text().split()
    inner = (umpteen.store("inner") / "0/stdout").read_text().split()
    assert inner[1] == "inner"
    assert inner[0] != outer[0]


# --- settings -------------------------------------------------------------------------------------

SHOW = "tasks:\n- command: printenv A B; pwd\n"


def test_run_env_and_cwd_from_the_file_are_used(umpteen: Umpteen) -> None:
    (umpteen.folder / "sub").mkdir()
    umpteen.write("job.yaml", "env: {A: top, B: top}\ncwd: sub\n" + SHOW + "  env: {B: own}\n")
    umpteen("run", "job.yaml")
    expected = f"top\nown\n{umpteen.folder / 'sub'}\n"
    assert (umpteen.store() / "0/stdout").read_text() == expected


def test_run_env_and_cwd_from_flags_override_the_file(umpteen: Umpteen) -> None:
    (umpteen.folder / "sub").mkdir()
    umpteen.write("job.yaml", "env: {A: top, B: top}\ncwd: nowhere\n" + SHOW)
    umpteen("run", "job.yaml", "--env", "B=flag=x", "--cwd", "sub")
    expected = f"top\nflag=x\n{umpteen.folder / 'sub'}\n"
    assert (umpteen.store() / "0/stdout").read_text() == expected


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("tasks: [{command: sleep 600, timeout: 0.2}]", []),
        ("timeout: 0.2s\ntasks: [{command: sleep 600}]", []),
        ("tasks: [{command: sleep 600, timeout: 1h}]", ["--timeout", "0.2s"]),
    ],
)
def test_run_timeout_ends_a_task_and_says_so(umpteen: Umpteen, text: str, flags: list[str]) -> None:
    umpteen.write("job.yaml", text)
    done = umpteen("run", "job.yaml", *flags)
    record = read_record(umpteen.store())
    assert done.returncode == 1
    assert (record["state"], record["signal"]) == ("timed_out", 15)
    assert 0.2 <= record["seconds"] < 10
    assert " timed out  0  after 0.2" in done.stderr


def test_run_timeout_kills_what_ignores_being_asked(umpteen: Umpteen) -> None:
    command = "trap '' TERM; while :; do sleep 0.1; done"
    done = umpteen("run", command, "--timeout", "0.2s", "--grace", "0.3s", "--name", "job")
    record = read_record(umpteen.store())
    assert done.returncode == 1
    assert (record["state"], record["signal"]) == ("timed_out", 9)


def test_run_deadline_ends_the_job(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "sleep 600\n" * 3)
    done = umpteen("run", "job.txt", "--slots", "2", "--deadline", "1s")
    records = list_records(umpteen.store())
    assert done.returncode == 1
    assert {(r["state"], r["reason"]) for r in records} == {("timed_out", "deadline")}
    assert "1 not run" in done.stderr


def test_run_slots_are_filled_and_never_exceeded(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "sleep 0.1\n" * 12)
    done = umpteen("run", "job.txt", "--slots", "3")
    assert done.returncode == 0, done.stderr
    spans = [(r["start_s"], r["end_s"]) for r in list_records(umpteen.store())]
    at_once = [sum(s <= start < e for s, e in spans) for start, _ in spans]
    assert max(at_once) == 3
    assert {r["slot"] for r in list_records(umpteen.store())} <= {0, 1, 2}


def test_run_more_slots_than_cores_are_filled(umpteen: Umpteen) -> None:
    # Each goes on only when all eight have begun.
    wait = 'touch here.$UMPTEEN_SLOT; until [ "$(ls here.* | wc -l)" -ge 8 ]; do sleep 0.05; done'
    umpteen.write("job.txt", f"{wait}\n" * 8)
    done = umpteen("run", "job.txt", "--slots", "8", "--timeout", "30s")
    assert done.returncode == 0, done.stderr


# --- what is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code"), [("true", 0), ("false", 1), ("exit 3", 1), ("kill -9 $$", 1)]
)
def test_run_exit_code_says_whether_all_succeeded(
    umpteen: Umpteen, command: str, code: int
) -> None:
    umpteen.write("job.txt", f"true\n{command}\n")
    assert umpteen("run", "job.txt").returncode == code


def test_run_quiet_says_nothing_but_that_tasks_failed(umpteen: Umpteen) -> None:
    done = umpteen("run", "echo out; echo err >&2; exit {x}", "x=0", "--name", "job", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = umpteen("run", "echo out; echo err >&2; exit {x}", "x=0..2", "--name", "job", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"job: 1 succeeded, 2 failed in .*; umpteen retry job runs the 2 that failed\n", done.stderr
    )


def test_run_json_is_one_object_a_line(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "true\necho why >&2; exit 7\n")
    done = umpteen("run", "job.txt", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    failed = next(event for event in events if event["event"] == "failed")
    assert done.stderr == ""
    assert [events[0]["event"], events[-1]["event"]] == ["started", "ended"]
    assert {event["event"] for event in events} <= {"started", "progress", "failed", "ended"}
    assert (failed["name"], failed["reason"], failed["last_line"]) == ("1", "exit 7", "why")
    assert (events[-1]["state"], events[-1]["counts"]["succeeded"]) == ("failed", 1)


def test_run_plain_lines_say_what_a_person_needs(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "true\necho why >&2; exit 7\n")
    done = umpteen("run", "job.txt", "--slots", "2")
    lines = done.stderr.splitlines()
    assert done.stdout == ""
    assert lines[0] == ("job: 2 tasks, 2 at a time on this machine, results in umpteen-results/job")
    assert lines[1].split() == "failed 1 exit 7 why umpteen logs job 1 --stderr".split()
    assert lines[2].startswith("job: 1 succeeded, 1 failed in ")
    assert "\x1b" not in done.stderr


# --- names that break what does not quote -----------------------------------------------------


def test_run_in_a_hostile_folder_works(umpteen: Umpteen, hostile_path: Path) -> None:
    (hostile_path / "job.txt").write_text('pwd; echo x > "$RESULTS_DIR/f"\n')
    done = umpteen("run", "job.txt", cwd=hostile_path)
    folder = hostile_path / "umpteen-results/job/0"
    assert done.returncode == 0, done.stderr
    assert (folder / "stdout").read_text() == f"{hostile_path}\n"
    assert (folder / "results/f").read_text() == "x\n"


def test_run_in_a_folder_that_is_no_text_works_or_is_refused_in_words(umpteen: Umpteen) -> None:
    folder = umpteen.folder / os.fsdecode(b"bad \xff")
    folder.mkdir()
    done = umpteen("run", "true", cwd=folder)
    assert done.returncode in (0, 2)
    assert "unexpected" not in done.stderr


def test_run_with_hostile_results_and_cwd_works(umpteen: Umpteen, hostile_path: Path) -> None:
    done = umpteen(
        "run", "pwd", "--results", hostile_path / "out", "--cwd", hostile_path, "--name", "job"
    )
    assert done.returncode == 0, done.stderr
    assert (hostile_path / "out/0/stdout").read_text() == f"{hostile_path}\n"


def test_run_hostile_values_reach_the_command_whole(umpteen: Umpteen) -> None:
    value = 'it\'s "a" $HOME `id` * \\ ; ünï 名'
    umpteen.write("job.json", json.dumps({"tasks": [{"command": "printf %s {x}", "name": "t",
                                                     "matrix": {"x": [value]}}]}))  # fmt: skip
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    assert (umpteen.store() / "t/stdout").read_text() == value


# --- commands that go wrong -------------------------------------------------------------------


@pytest.mark.parametrize("command", ["no-such-program 1", ["no-such-program", "1"], "no-such >x"])
def test_run_command_that_does_not_exist_is_recorded_as_127(
    umpteen: Umpteen, command: str | list[str]
) -> None:
    umpteen.write("job.json", json.dumps({"tasks": [{"command": command}]}))
    done = umpteen("run", "job.json")
    record = read_record(umpteen.store())
    assert done.returncode == 1
    assert (record["state"], record["exit_code"]) == ("failed", 127)
    assert (umpteen.store() / "0/status_code").read_text() == "127"
    assert "no-such" in (umpteen.store() / "0/stderr").read_text()


@pytest.mark.parametrize("command", ["pwd", "ls | cat", ["ls"]])
def test_run_missing_folder_is_recorded_with_its_name(
    umpteen: Umpteen, command: str | list[str]
) -> None:
    umpteen.write("job.json", json.dumps({"tasks": [{"command": command, "cwd": "nowhere"}]}))
    done = umpteen("run", "job.json")
    record = read_record(umpteen.store())
    assert done.returncode == 1
    assert (record["state"], record["exit_code"]) == ("failed", 126)
    assert "nowhere: No such file or directory" in record["reason"]


def test_run_file_that_may_not_be_executed_is_recorded_as_126(umpteen: Umpteen) -> None:
    umpteen.write("script.sh", "echo hello\n")
    done = umpteen("run", "./script.sh now", "--name", "job")
    assert done.returncode == 1
    assert read_record(umpteen.store())["exit_code"] == 126


def test_run_script_without_interpreter_line_runs_as_in_a_shell(umpteen: Umpteen) -> None:
    umpteen.write("script", "echo hello $1\n").chmod(0o755)
    done = umpteen("run", "./script now", "--name", "job")
    assert done.returncode == 0, done.stderr
    assert (umpteen.store() / "0/stdout").read_text() == "hello now\n"


@pytest.mark.parametrize("number", [9, 15, 11])
def test_run_task_killed_by_a_signal_is_recorded_with_it(umpteen: Umpteen, number: int) -> None:
    done = umpteen("run", f"ulimit -c 0; kill -{number} $$", "--name", "job")
    record = read_record(umpteen.store())
    assert done.returncode == 1
    assert (record["state"], record["signal"]) == ("failed", number)
    assert "exit_code" not in record
    assert (umpteen.store() / "0/status_code").read_text() == str(-number)
    assert f"signal {number}" in done.stderr


@pytest.mark.parametrize(
    "mischief",
    ["rm -rf $UMPTEEN_OUTPUT", "rm -rf $RESULTS_DIR; echo > $RESULTS_DIR", "rm -rf $RESULTS_DIR"],
)
def test_run_task_that_spoils_its_own_folders_stops_no_other(
    umpteen: Umpteen, mischief: str
) -> None:
    umpteen.write("job.txt", f"{mischief}\necho b; echo c > $RESULTS_DIR/c\n")
    patience = {"UMPTEEN_STORE_PATIENCE_S": "1"}
    done = umpteen("run", "job.txt", "--slots", "1", env=patience)
    assert done.returncode in (0, 1), done.stderr
    assert read_record(umpteen.store(), 0)["state"] in ("succeeded", "failed")
    assert read_record(umpteen.store(), 1)["state"] == "succeeded"
    assert (umpteen.store() / "1/results/c").read_text() == "c\n"


# --- outputs, byte for byte -------------------------------------------------------------------


def test_run_output_of_50_mb_is_kept_whole(umpteen: Umpteen) -> None:
    done = umpteen("run", "head -c 50000000 /dev/zero", "--name", "job")
    assert done.returncode == 0, done.stderr
    assert (umpteen.store() / "0/stdout").stat().st_size == 50_000_000
    assert read_record(umpteen.store())["stdout_bytes"] == 50_000_000


def test_run_binary_output_is_kept_byte_for_byte(umpteen: Umpteen) -> None:
    content = os.urandom(100_000) + b"\r\n\xff\xfe\0\x1b[31m"
    (umpteen.folder / "in").write_bytes(content)
    umpteen("run", "cat in; cat in >&2; exit 1", "--name", "job")
    assert (umpteen.store() / "0/stdout").read_bytes() == content
    assert (umpteen.store() / "0/stderr").read_bytes() == content


def test_run_invalid_utf8_as_last_line_is_shown_harmlessly(umpteen: Umpteen) -> None:
    done = umpteen("run", r"printf 'a\377\033[31mb' >&2; exit 1", "--name", "job")
    assert done.returncode == 1
    assert "a\N{REPLACEMENT CHARACTER}b" in done.stderr
    assert "\x1b" not in done.stderr
    assert (umpteen.store() / "0/stderr").read_bytes() == b"a\xff\x1b[31mb"


def test_run_task_finds_an_empty_standard_input(umpteen: Umpteen) -> None:
    done = umpteen("run", "cat", "--name", "job", stdin="not for the task")
    assert done.returncode == 0, done.stderr
    assert (umpteen.store() / "0/stdout").read_text() == ""


def test_run_record_says_what_the_task_cost(umpteen: Umpteen) -> None:
    burn = "import time; x = b'x' * 30_000_000\nwhile time.process_time() < 0.3: pass"
    umpteen("run", f'python3 -c "{burn}"', "--name", "job")
    record = read_record(umpteen.store())
    assert 0.3 <= record["cpu_s"] < 10
    assert 30_000 < record["peak_kb"] < 300_000
    assert record["end_s"] - record["start_s"] == pytest.approx(record["seconds"], abs=0.002)


# --- what tasks leave behind ------------------------------------------------------------------


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# Until the process whose pid is in the file has gone; the runner itself lives on meanwhile.
GONE = "until [ -s pid ] && ! grep -qs '[RSD] (' /proc/$(cat pid)/status; do sleep 0.02; done"


def test_run_child_left_in_the_background_is_ended_with_its_task(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", f"sleep 600 & echo $! > pid\n{GONE}\n")
    done = umpteen("run", "job.txt", "--slots", "1", "--timeout", "20s")
    assert done.returncode == 0, done.stderr
    assert not is_alive(int((umpteen.folder / "pid").read_text()))


def test_run_child_in_its_own_session_is_ended_at_a_timeout(umpteen: Umpteen) -> None:
    umpteen.write(
        "job.yaml",
        "slots: 2\ntasks:\n"
        "- {command: setsid sleep 600 & echo $! > pid; sleep 600, timeout: 0.3}\n"
        f"- {{command: {json.dumps(GONE)}, timeout: 20}}\n",
    )
    umpteen("run", "job.yaml")
    assert read_record(umpteen.store(), 1)["state"] == "succeeded"
    assert not is_alive(int((umpteen.folder / "pid").read_text()))


def test_run_leaves_no_process_and_no_scratch(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "setsid sleep 600 & true\n" * 4)
    done = umpteen("run", "job.txt")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not list_processes(umpteen), 5)
    assert not list(umpteen.store().glob(".umpteen/scratch/*"))
    assert not list(umpteen.store().glob(".umpteen/running/*"))
    assert not [path for path in umpteen.leases.iterdir() if path.is_dir()]


@pytest.mark.parametrize("arguments", [["--version"], ["run", "true"]])
def test_run_on_a_folder_loads_nothing_of_other_places(
    umpteen: Umpteen, arguments: list[str]
) -> None:
    done = umpteen(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    assert "umpteen.cli" in done.stderr
    assert "fsspec" not in done.stderr
    assert "umpteen.store.remote" not in done.stderr


def test_run_of_one_command_loads_no_reader_of_files_and_no_packer(umpteen: Umpteen) -> None:
    loaded = umpteen.list_loaded("run", "true")
    assert "umpteen.formats.reading" in loaded
    readers = {"files", "json_documents", "matrix", "native", "saturn_batch", "saturn_recipe"}
    assert not loaded & {f"umpteen.formats.{name}" for name in (*readers, "yaml_documents")}
    assert not {name for name in loaded if name.startswith("umpteen.verbs.split")}
    looks = {"why", "pull", "files", "table", "facts", "expression"}
    assert not loaded & {f"umpteen.query.{name}" for name in looks}
    assert not loaded & {"ctypes", "csv", "fractions", "rich", "tarfile", "yaml"}
