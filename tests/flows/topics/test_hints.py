"""What umpteen prints for you to type works when typed, whatever jobs and tasks are called."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.support.command import Umpteen

JOBS = ["--help", "-1 it's `id` $HOME *"]
TASKS = ["-1", "--stderr", "-f it's", "--", "[ab]"]
TYPED = re.compile(r"umpteen [a-z-]+ .*?(?= {3,}|$| ends it first)", re.MULTILINE)


def test_negative_number_is_a_task(umpteen: Umpteen) -> None:
    tasks = "{name: '{x}', command: 'echo {x}; exit 1', matrix: {x: [-1, 0, '-0.5']}}"
    umpteen.write("neg.yaml", f"tasks: [{tasks}]")
    umpteen("run", "neg.yaml")
    assert umpteen("logs", "neg", "-1").stdout == "-1\n"
    assert umpteen("logs", "neg", "-0.5", "--attempt", "1").stdout == "-0.5\n"
    assert umpteen("why", "neg", "-1", "--json").returncode == 0
    assert "2 failed before and run again" in umpteen("retry", "neg", "0", "-1").stderr
    done = umpteen("logs", "neg", "-1", "--stder")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: there is no flag --stder")


@pytest.mark.parametrize("flag", ["--wait", "--watch", "--quite"])
def test_unknown_flag_beside_a_job_file_is_about_the_flag(umpteen: Umpteen, flag: str) -> None:
    umpteen.write("job.yaml", "tasks: [true]")
    done = umpteen("run", "job.yaml", flag)
    hint = done.stderr.partition("hint: ")[2]
    assert ("'--quiet'" in hint) == (flag == "--quite")
    assert ("umpteen collect" in hint) == (flag != "--quite")
    assert "job.yaml" not in hint
    done = umpteen("run", "job.yaml", "--name", "sh", flag)
    assert done.stderr.partition("hint: ")[2] == hint


def find_typed(*texts: str) -> set[str]:
    """The commands that these outputs name."""
    return {found.group() for text in texts for found in TYPED.finditer(text)}


def type_it(umpteen: Umpteen, line: str) -> subprocess.CompletedProcess[str]:
    script = f'umpteen() {{ "{umpteen.command[0]}" "$@"; }}\n{line}'
    return subprocess.run(
        ["sh", "-c", script], cwd=umpteen.folder, env=umpteen.environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("job", JOBS)
def test_hints_are_commands_that_work(umpteen: Umpteen, job: str) -> None:
    tasks = [{"name": name, "command": "echo why >&2; exit 1"} for name in TASKS]
    tasks.append({"name": "-behind", "command": "true", "after": "-1"})
    tasks.append({"name": "-slow", "command": "sleep 9", "timeout": "0.1s"})
    umpteen.write("j.json", json.dumps({"name": job, "tasks": tasks}))
    before = umpteen("run", "j.json").stderr
    said = [before, umpteen("status", "--", job).stdout]
    said += [umpteen("why", "--", job, task).stdout for task in (*TASKS[:2], "-behind", "-slow")]
    said.append(umpteen("retry", "--detach", "--", job, "-1").stderr)
    umpteen("collect", "--", job)  # rm speaks otherwise of what still runs
    said.append(umpteen("rm", "--", job).stderr)

    typed = find_typed(*said)

    verbs = {line.split()[1] for line in typed}
    assert verbs == {"logs", "retry", "collect", "rm"}, typed
    for line in sorted(typed, key=lambda line: line.startswith("umpteen rm")):
        done = type_it(umpteen, line)
        assert done.returncode in (0, 1), f"{line}: {done.stderr}"
        assert "error:" not in done.stderr, f"{line}: {done.stderr}"
        if " logs " in line and "-slow" not in line:
            assert (done.stdout, done.returncode) == ("why\n", 0), line


@pytest.mark.parametrize("job", JOBS)
def test_hints_of_a_job_that_runs_are_commands_that_work(umpteen: Umpteen, job: str) -> None:
    task = {"name": "-1", "command": "until [ -e go ]; do sleep 0.02; done"}
    umpteen.write("j.json", json.dumps({"name": job, "tasks": [task]}))
    umpteen("run", "j.json", "--detach")
    (cancel,) = find_typed(umpteen("rm", "--yes", "--", job).stderr)
    done = type_it(umpteen, cancel)
    assert (done.returncode, "1 cancelled" in done.stderr) == (0, True), done.stderr
    typed = find_typed(done.stderr, umpteen("why", "--", job, "-1").stdout)
    umpteen.write("go", "")
    assert typed, done.stderr
    for line in typed:
        assert type_it(umpteen, line).returncode == 0, line
