"""What cannot be run is refused in one sentence, and nothing is made."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.store import list_records
from tests.support.wait import wait_until


def expect_refusal(done: subprocess.CompletedProcess[str], *needles: str, code: int = 2) -> None:
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for needle in needles:
        assert needle in done.stderr
    assert done.stdout == ""


def expect_nothing_made(umpteen: Umpteen, *but: str) -> None:
    assert {path.name for path in umpteen.folder.iterdir()} == set(but)
    assert list(umpteen.home.iterdir()) == []


def in_json(*names: str) -> str:
    return json.dumps({"tasks": [{"name": name, "command": "true"} for name in names]})


# --- files ---------------------------------------------------------------------------------------

FILES = {
    "malformed YAML": (
        "job.yaml",
        "tasks:\n- command: {a: b: c}\n- command: d\n",
        ["job.yaml, line 2, column 17: not valid YAML"],
    ),
    "cut YAML": ("job.yaml", "tasks:\n- command: [a", ["job.yaml, line 2", "not valid YAML"]),
    "tab in YAML": ("job.yaml", "tasks:\n\t- command: a", ["line 2, column 1", "tabs"]),
    "malformed JSON": ("job.json", '{"tasks": [\n{"command" "x"}]}', ["job.json, line 2, column"]),
    "cut JSON": ("job.json", '{"tasks": [{"command": "x"', ["job.json, line 1", "too early"]),
    "malformed JSON-lines": ("job.jsonl", '{"command": "a"}\n{"comm', ["job.jsonl, line 2"]),
    "misspelt key of a task": (
        "job.yaml",
        "tasks:\n- command: a\n- comand: x\n  name: train",
        ["job.yaml, line 3: unknown key 'comand' in task 'train'", "did you mean 'command'?"],
    ),
    "misspelt key of a job": ("job.yaml", "slot: 2\ntasks: [{command: a}]", ["line 1", "'slots'"]),
    "wrong type": ("job.yaml", "slots: many\ntasks: [{command: a}]", ["line 1", "whole number"]),
    "no slots": ("job.yaml", "slots: 0\ntasks: [{command: a}]", ["line 1", "at least 1"]),
    "timeout of nothing": ("job.yaml", "tasks: [{command: a, timeout: 0}]", ["timeout", "above 0"]),
    "duplicate key": ("job.yaml", "slots: 1\nslots: 2\ntasks: [a]", ["line 2", "twice"]),
    "task without command": ("job.yaml", "tasks:\n- name: a", ["line 2", "no command"]),
    "empty command": ("job.json", '{"tasks": [{"command": " "}]}', ["no command"]),
    "NUL in a command": ("job.json", '{"tasks": [{"command": "a\\u0000"}]}', ["NUL"]),
    "unclosed quote": ("job.yaml", "shell: false\ntasks: [{command: echo 'a}]", ["quote"]),
    "empty file": ("job.yaml", "", ["has no tasks", "empty"]),
    "only comments": ("job.txt", "# nothing\n\n", ["has no tasks"]),
    "no tasks": ("job.yaml", "tasks: []", ["has no tasks"]),
    "no runs": ("job.yaml", "remote_output_path: out\nruns: []", ["has no tasks"]),
    "duplicate names": ("job.json", in_json("a", "b", "a"), ["two tasks have the name 'a'"]),
    "duplicate names of a template": (
        "job.yaml",
        "tasks:\n- {command: 'echo {x}', name: same, matrix: {x: [1, 2]}}",
        ["line 2", "two tasks have the name 'same'", "{x}"],
    ),
    "name above": ("job.json", in_json("../a"), ["leave the results directory"]),
    "name above within": ("job.json", in_json("a/../../b"), ["leave the results directory"]),
    "absolute name": ("job.json", in_json("/a"), ["begins with '/'"]),
    "newline in a name": ("job.json", in_json("a\nb"), ["control character"]),
    "NUL in a name": ("job.json", in_json("a\0b"), ["control character"]),
    "name of 300": ("job.json", in_json("x" * 300), ["300 bytes are too long"]),
    "name below another": ("job.json", in_json("a/b", "a"), ["in the folder of task 'a'"]),
    "name of ours": ("job.json", in_json(".umpteen/a"), ["umpteen's own"]),
    "job's name with a slash": (
        "job.yaml",
        "name: a/b\ntasks: [{command: a}]",
        ["line 1", "'a/b'"],
    ),
    "results of an unknown scheme": (
        "job.yaml",
        "results: sfpt://lab/{name}\ntasks: [{command: a}]",
        ["sfpt://", "'sftp'"],
    ),
    "executor of later": ("job.yaml", "executor: pool\ntasks: [{command: a}]", ["'pool'", "yet"]),
    "hosts that are none": (
        "job.yaml",
        "executor: {ssh: {hosts: [a, '-oProxyCommand=x']}}\ntasks: [{command: a}]",
        ["'-oProxyCommand=x'", "no host"],
    ),
    "unknown executor": ("job.yaml", "executor: locla\ntasks: [{command: a}]", ["'local'"]),
    "unknown option of local": (
        "job.yaml",
        "executor: {local: {slots: 4}}\ntasks: [{command: a}]",
        ["no option 'slots'"],
    ),
    "key of later": (
        "job.yaml", "tasks:\n- {command: a, results_lines: b}", ["line 2", "'results_lines'", "yet"]
    ),
    "no capability": ("job.yaml", "needs: b c\ntasks: [a]", ["line 1", "'needs'", "'b c'"]),
    "script in place of a list": ("job.txt", "#!/bin/sh\necho a\n", ["script", "'sh job.txt'"]),
    "program in place of a list": ("sim.py", "import os\n", ["script", "'python3 sim.py'"]),
    "Makefile, which may be YAML": ("Makefile", "all:\n\techo a\n", ["make -f Makefile"]),
    "rules of make": ("rules.mk", "all: a\n", ["make -f rules.mk"]),
    "table in place of a list": ("values.txt", "lr seed\n0.1 1\n", ["line 2", "--from"]),
    "misspelt placeholder in a folder": (
        "job.yaml",
        "tasks:\n- {command: a, cwd: 'w/{sed}', matrix: {seed: [1]}}",
        ["line 2", "{sed}", "'seed'"],
    ),
    "misspelt placeholder in what is expected": (
        "job.yaml",
        "tasks:\n- {command: a, expect: ['w/{sed}'], matrix: {seed: [1]}}",
        ["line 2", "{sed}", "'seed'"],
    ),
    "after an unknown task": (
        "job.yaml",
        "tasks:\n- {name: prep, command: a}\n- command: b\n  after: perp",
        ["line 4: task 1: after 'perp': there is no task of that name", "did you mean 'prep'?"],
    ),
    "after each other": (
        "job.yaml",
        "tasks:\n- {name: a, command: x, after: b}\n- {name: b, command: x, after: a}",
        ["line 2", "tasks wait for each other: a after b after a"],
    ),
    "unknown outcome": ("job.yaml", "tasks:\n- {command: a, after: {b: ok}}", ["line 2", "'ok'"]),
    "misspelt key of a retry": (
        "job.yaml",
        "tasks:\n- command: a\n  retries: {tims: 3}",
        ["line 3: task 0: unknown key 'tims' in 'retries'", "did you mean 'times'?"],
    ),
    "unknown condition": ("job.yaml", "retries: {when: oom}\ntasks: [a]", ["line 1", "'oom'"]),
    "memory without a unit": (
        "job.json",
        '{"tasks": [\n{"command": "a", "memory": 16}]}',
        ["line 2: task 0: a memory of 16 bytes is too little", "16M or 16G"],
    ),
    "no core": ("job.yaml", "cpus: 0\ntasks: [a]", ["line 1", "'cpus'", "at least 1"]),
}  # fmt: skip


def test_command_in_several_words_is_shown_in_quotes(umpteen: Umpteen) -> None:
    done = umpteen("run", "echo", "a b", "{x}", "x=1,2")
    expect_refusal(done, "'a b' is neither a job file nor key=values")
    typed = shlex.split(done.stderr.partition("quotes: ")[2])[1:]
    assert umpteen(*typed).returncode == 0
    assert umpteen("logs", "echo", "x=2").stdout == "a b 2\n"


@pytest.mark.parametrize("case", FILES)
def test_bad_file_is_refused_with_its_place(umpteen: Umpteen, case: str) -> None:
    name, text, needles = FILES[case]
    umpteen.write(name, text)
    expect_refusal(umpteen("run", name), *needles)
    expect_nothing_made(umpteen, name)


def test_bad_file_that_is_no_text_is_refused(umpteen: Umpteen) -> None:
    (umpteen.folder / "job.txt").write_bytes(b"echo a\n\xff\xfe\n")
    expect_refusal(umpteen("run", "job.txt"), "job.txt, line 2")
    expect_nothing_made(umpteen, "job.txt")


def test_bad_file_is_refused_in_dry_run_too(umpteen: Umpteen) -> None:
    umpteen.write("job.json", in_json("a", "a"))
    expect_refusal(umpteen("run", "job.json", "--dry-run"), "two tasks have the name 'a'")
    expect_nothing_made(umpteen, "job.json")


def test_bad_file_in_json_is_an_object(umpteen: Umpteen) -> None:
    umpteen.write("job.yaml", "tasks:\n- comand: x\n")
    done = umpteen("run", "job.yaml", "--json")
    error = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (2, "")
    assert (error["error"], error["file"], error["line"]) == ("InputError", "job.yaml", 2)
    assert "did you mean 'command'?" in error["hint"]


@pytest.mark.parametrize("flags", [["--debug"], []])
def test_bad_file_shows_a_traceback_only_where_asked(umpteen: Umpteen, flags: list[str]) -> None:
    umpteen.write("job.json", in_json("a", "a"))
    done = umpteen(*flags, "run", "job.json")
    assert ("Traceback" in done.stderr) == bool(flags)


# --- arguments --------------------------------------------------------------------------------

ARGUMENTS = {
    "missing file": (
        ["run", "jobs.yaml"],
        ["no such file: 'jobs.yaml'", "did you mean 'job.yaml'"],
    ),
    "missing file elsewhere": (["run", "sub/job.yaml"], ["no such file: 'sub/job.yaml'"]),
    "missing second file": (["run", "job.yaml", "run.yaml"], ["run.yaml"]),
    "directory": (["run", "folder"], ["'folder' is a directory"]),
    "directory as second file": (["run", "job.yaml", "folder"], ["'folder' is a directory"]),
    "two files with tasks": (["run", "job.yaml", "job.yaml"], ["both have tasks"]),
    "three files": (["run", "job.yaml", "job.yaml", "job.yaml"], ["too many"]),
    "unknown placeholder": (["run", "echo {x} {y}", "x=1"], ["y"]),
    "no values": (["run", "echo {x}", "x="], ["x"]),
    "placeholder without values": (["run", "echo {x}"], ["{x}", "x=1..5"]),
    "word that is no program": (["run", "jbo"], ["no such file: 'jbo'"]),
    "empty command": (["run", " "], ["nothing to run"]),
    "nothing": (["run"], ["Missing argument", "umpteen run --help"]),
    "name above": (["run", "true", "--name", "../x"], ["'../x' cannot be a job's name"]),
    "name of 300": (["run", "true", "--name", "x" * 300], ["too long"]),
    "name and prefix": (["run", "true", "--name", "a", "--prefix", "b"], ["exclude"]),
    "results of an unknown scheme": (["run", "true", "--results", "s4://b/c"], ["s4://", "s3"]),
    "results with a password": (["run", "true", "--results", "sftp://a:b@c/d"], ["password"]),
    "slots of nothing": (["run", "true", "--slots", "0"], ["--slots"]),
    "timeout of words": (["run", "true", "--timeout", "soon"], ["--timeout", "not a duration"]),
    "env without value": (["run", "true", "--env", "A"], ["KEY=VALUE"]),
    "misspelt rerun": (["run", "true", "--rerun", "fail"], ["'failed'"]),
    "slots of words": (["run", "true", "--slots", "two"], ["--slots: 'two' is no whole number"]),
    "value as a flag": (["run", "echo {x}", "--x", "1"], ["no flag --x", "no dashes: x=1"]),
    "value after blanks": (["run", "echo {x}", "x", "=", "1"], ["without blanks"]),
    "where in words": (
        ["retry", "job", "--where", "state=failed", "and", "x=2"],
        ["--where takes one word", "write --where 'state=failed and x=2'"],
    ),
    "only in words": (
        ["run", "job.yaml", "--only", "x=1", "or", "x=2"], ["write --only 'x=1 or x=2'"]
    ),
    "no task": (["logs", "job"], ["Missing argument TASK", "for example umpteen logs sim"]),
    "no shell": (["completion"], ["Missing argument SHELL: bash, zsh or fish"]),
    "wrong shell": (["completion", "csh"], ["SHELL: 'csh'"]),
    "verb of others": (["stop", "job"], ["no verb 'stop'", "umpteen cancel ends a job"]),
    "misspelt flag": (["run", "true", "--slot", "2"], ["no flag --slot", "did you mean '--slots'"]),
    "misspelt verb": (["rnu", "true"], ["no verb 'rnu'", "did you mean 'run'?"]),
    "table for a file": (["run", "job.yaml", "--from", "t.csv"], ["table"]),
    "missing table": (["run", "echo {x}", "--from", "t.csv"], ["no such file: 't.csv'"]),
    "unknown job": (["status", "nowhere"], ["no job named 'nowhere'"]),
    "missing batch file": (["batch", "nowhere.json"], ["nowhere.json"]),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments_are_refused_with_a_way_out(umpteen: Umpteen, case: str) -> None:
    arguments, needles = ARGUMENTS[case]
    umpteen.write("job.yaml", "tasks: [{command: 'true'}]\n")
    (umpteen.folder / "folder").mkdir()
    expect_refusal(umpteen(*arguments), *needles)
    expect_nothing_made(umpteen, "job.yaml", "folder")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["train.py", "--config", "my base"],
            "umpteen run 'python3 train.py --config '\"'\"'my base",
        ),
        (["--timeout", "9", "echo", "--xyz=1"], "umpteen run --timeout 9 'echo --xyz=1'"),
    ],
)
def test_bad_flag_of_the_command_itself_is_answered_with_what_to_type(
    umpteen: Umpteen, words: list[str], line: str
) -> None:
    umpteen.write("train.py", "import sys; print(sys.argv)\n")
    done = umpteen("run", *words)
    expect_refusal(done, line)
    command = done.stderr.partition("hint: ")[2].partition("quotes: ")
    typed = (command[2] or command[0]).removeprefix("umpteen ").strip()
    assert umpteen(*shlex.split(typed)).returncode == 0


def test_bad_flag_hint_stands_in_its_own_paragraph(umpteen: Umpteen) -> None:
    done = umpteen("run", "true", "--slot", "2")
    lines = done.stderr.splitlines()
    assert lines[0] == "error: there is no flag --slot"
    assert lines[1] == ""
    assert lines[2].startswith("hint: did you mean '--slots'")


@pytest.mark.parametrize(
    ("runs", "needle"),
    [
        ([{"cmd": "true"}, {"command": "true"}], "unknown key 'command'"),
        ([{"remote_output_path": "a"}], "no command"),
        ([{"cmd": "a", "remote_output_path": "o/x"}, {"cmd": "b", "remote_output_path": "o/x/"}],
         "name 'x'"),
    ],
)  # fmt: skip
def test_bad_batch_file_is_refused(
    umpteen: Umpteen, runs: list[dict[str, str]], needle: str
) -> None:
    umpteen.write("batch.json", json.dumps({"remote_output_path": "o", "runs": runs}))
    expect_refusal(umpteen("batch", "batch.json"), needle)
    expect_nothing_made(umpteen, "batch.json")


# --- places that cannot be written ------------------------------------------------------------


@pytest.fixture
def unprivileged(umpteen: Umpteen) -> Iterator[list[str]]:
    """What to put before a command so that even root may not write where it may not."""
    prefix = []
    if os.geteuid() == 0:
        given_up = "-dac_override,-dac_read_search"
        prefix = ["setpriv", f"--bounding-set={given_up}", f"--inh-caps={given_up}"]
        try:
            subprocess.run([*prefix, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs setpriv, or not to be root")
    yield prefix
    for folder in (umpteen.folder, *umpteen.folder.rglob("*/")):
        folder.chmod(0o755)


def run_as(
    prefix: list[str], umpteen: Umpteen, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, *umpteen.command, *arguments], cwd=umpteen.folder, env=umpteen.environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("flags", [[], ["--results", "deep/er/{name}"]])
def test_bad_results_folder_that_cannot_be_written_is_refused(
    umpteen: Umpteen, unprivileged: list[str], flags: list[str]
) -> None:
    umpteen.folder.chmod(0o555)
    done = run_as(unprivileged, umpteen, "run", "true", *flags)
    expect_refusal(done, "Permission denied", "--results", code=3)
    expect_nothing_made(umpteen)


def test_bad_task_folder_that_cannot_be_written_fails_in_words(
    umpteen: Umpteen, unprivileged: list[str]
) -> None:
    umpteen("run", "false", "--name", "job")
    (umpteen.store() / "0").chmod(0o555)
    umpteen_env = {"UMPTEEN_STORE_PATIENCE_S": "1"}
    done = run_as(["env", *(f"{k}={v}" for k, v in umpteen_env.items()), *unprivileged],
                  umpteen, "run", "false", "--name", "job")  # fmt: skip
    assert done.returncode in (1, 3)
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["status", "retry", "rm"])
def test_bad_results_that_cannot_be_read_have_a_hint_for_that(
    umpteen: Umpteen, unprivileged: list[str], verb: str
) -> None:
    umpteen("run", "false", "--name", "job")
    folder = umpteen.store() / ".umpteen"
    folder.chmod(0o000)
    done = run_as(unprivileged, umpteen, verb, "umpteen-results/job")
    folder.chmod(0o755)
    expect_refusal(done, "Permission denied", "hint: you may not read it", code=3)


def test_bad_job_file_in_a_closed_folder_cannot_be_read(
    umpteen: Umpteen, unprivileged: list[str]
) -> None:
    path = umpteen.write("closed/job.yaml", "tasks: [ls]")
    path.parent.chmod(0o000)
    done = run_as(unprivileged, umpteen, "run", "closed/job.yaml")
    path.parent.chmod(0o755)
    expect_refusal(done, "'closed/job.yaml' cannot be read: Permission denied")


def test_status_of_a_job_whose_file_cannot_be_read_leaves_its_age_out(
    umpteen: Umpteen, unprivileged: list[str]
) -> None:
    umpteen("run", "true", "--name", "job")
    (umpteen.store() / ".umpteen/job.json").chmod(0o000)
    done = run_as(unprivileged, umpteen, "status", "job")
    assert done.stdout.splitlines() == ["job: succeeded, 1 done", "  results   umpteen-results/job"]


def test_bad_results_that_are_a_file_are_refused(umpteen: Umpteen) -> None:
    umpteen.write("taken", "")
    done = umpteen("run", "true", "--results", "taken/{name}")
    expect_refusal(done, "taken", "--results", code=3)


def test_bad_results_of_another_job_are_refused(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "one", "--results", "here")
    done = umpteen("run", "true", "--name", "two", "--results", "here")
    expect_refusal(done, "holds the job 'one'", "--name one")


# --- full disks -------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs root, for a small disk of its own")
    yield disk
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all that is left of the disk."""
    path = disk / "fill"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return path


@pytest.mark.root
def test_full_disk_before_the_run_is_refused(umpteen: Umpteen, small_disk: Path) -> None:
    fill(small_disk)
    done = umpteen("run", "true", "--results", small_disk / "{name}")
    expect_refusal(done, "No space left on device", "make room", code=3)


@pytest.mark.root
def test_full_disk_in_the_middle_costs_no_success_and_invents_none(
    umpteen: Umpteen, small_disk: Path
) -> None:
    lines = [f"echo {n} > $RESULTS_DIR/n && head -c 20000 /dev/zero" for n in range(100)]
    umpteen.write("job.txt", "\n".join(lines))
    patience = {"UMPTEEN_STORE_PATIENCE_S": "1"}
    results = ["--results", str(small_disk / "{name}")]

    first = umpteen("run", "job.txt", *results, env=patience)
    assert first.returncode in (1, 3)
    assert "Traceback" not in first.stderr
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    again = umpteen("run", "job.txt", *results, env=patience)

    assert again.returncode == 0, again.stderr
    store = small_disk / "job"
    done = [r["task"] for r in list_records(store) if r["state"] == "succeeded"]
    assert sorted(done) == list(range(100))
    for number in range(100):
        assert (store / f"{number}/stdout").stat().st_size == 20000
        assert (store / f"{number}/results/n").read_text() == f"{number}\n"


@pytest.mark.root
def test_full_disk_that_gets_room_in_time_is_only_waited_for(
    umpteen: Umpteen, small_disk: Path
) -> None:
    begun = umpteen.folder / "begun"
    umpteen.write("job.txt", "touch begun; until [ -e go ]; do sleep 0.05; done\necho b\n")
    watcher = umpteen.start(
        "run", "job.txt", "--slots", "1", "--results", str(small_disk / "{name}")
    )
    wait_until(begun.exists)
    filling = fill(small_disk)
    umpteen.write("go", "")
    status = small_disk / "job/0/status_code"
    wait_until(lambda: status.exists() and not status.read_text())  # it could not be written
    filling.unlink()
    _, said = watcher.communicate(timeout=30)
    assert watcher.returncode == 0, said
    assert sorted(r["task"] for r in list_records(small_disk / "job")) == [0, 1]
    assert status.read_text() == "0"


@pytest.mark.parametrize(
    "tasks",
    [
        '[{name: "run-{seed}", command: "train --lr {lr}"}]',
        '[{"name": "run-{seed}", "command": ["train"], "tags": ["a"]}]',
        '[{"name": "a", "command": "true"}, {"name": "{x}", "command": "true"}]',
    ],
)
def test_bad_name_with_a_placeholder_and_no_values_is_refused(umpteen: Umpteen, tasks: str) -> None:
    umpteen.write("a.yaml", f"tasks: {tasks}\n")
    expect_refusal(umpteen("run", "a.yaml"), "a.yaml, line 1", "has no values", "matrix: {")


def test_bad_results_with_a_misspelt_placeholder_are_refused(umpteen: Umpteen) -> None:
    done = umpteen("run", "true", "--results", "out/{naam}/{name}")
    expect_refusal(done, "{naam}", "{name} is the job's name")


def test_command_that_begins_like_a_flag_is_none_of_the_shells(umpteen: Umpteen) -> None:
    umpteen.write("a.txt", "--flag b\n+x; true\n")
    assert umpteen("run", "a.txt", "-q").returncode == 1
    assert "--flag: not found" in umpteen("logs", "a", "0", "--stderr").stdout
    assert (
        umpteen("status", "a", "--json").stdout.count('"index": 1,') == 0
    )  # only the first failed


@pytest.mark.parametrize("address", ["memory://x/y", "sfs://org", "http://127.0.0.1:1/x"])
@pytest.mark.parametrize("verb", ["run", "batch"])
def test_an_address_that_can_hold_no_job_is_refused(
    umpteen: Umpteen, address: str, verb: str
) -> None:
    umpteen.write("b.json", json.dumps({"remote_output_path": address, "runs": [{"cmd": "true"}]}))
    done = umpteen(
        verb, "b.json", env={"SATURN_BASE_URL": "http://127.0.0.1:1", "SATURN_TOKEN": "t"}
    )
    expect_refusal(done, address.partition("://")[0])
    assert not umpteen.leases.exists() or not list(umpteen.leases.rglob("runner.json"))
