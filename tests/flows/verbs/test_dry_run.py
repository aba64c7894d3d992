"""`umpteen run --dry-run`: what would run, why, and who said which setting."""

from __future__ import annotations

import json

from tests.support.command import Umpteen
from tests.support.store import read_tree


def test_dry_run_of_a_new_job_makes_nothing(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "touch ran\ntrue\n")
    done = umpteen("run", "job.txt", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "would run 2 of 2 tasks: 2 new"
    assert [path.name for path in umpteen.folder.iterdir()] == ["job.txt"]


def test_dry_run_says_who_set_what(umpteen: Umpteen) -> None:
    umpteen.write("job.yaml", "slots: 3\nresults: out/{name}\ntasks: [{command: 'true'}]\n")
    umpteen.write("run.yaml", "grace: 5s\n")
    done = umpteen("run", "job.yaml", "run.yaml", "--deadline", "2h")
    assert done.returncode == 0, done.stderr
    shown = umpteen("run", "job.yaml", "run.yaml", "--deadline", "2h", "--dry-run").stdout
    lines = {line.split()[0]: line for line in shown.splitlines()[1:]}
    assert lines["slots"].split() == ["slots", "3", "from", "job.yaml"]
    assert lines["grace"].split() == ["grace", "5", "s", "from", "run.yaml"]
    assert lines["deadline"].split() == ["deadline", "2", "h", "from", "--deadline"]
    assert lines["results"].split() == ["results", "out/job", "from", "job.yaml"]
    assert lines["executor"].split() == ["executor", "local", "from", "default"]


def test_dry_run_of_a_job_that_ran_says_why_each_runs(umpteen: Umpteen) -> None:
    tasks = [
        {"name": "done", "command": "true"},
        {"name": "bad", "command": "false"},
        {"name": "other", "command": "echo --seed 9 --fast"},
    ]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    umpteen("run", "job.json")
    tasks[2]["command"] = "echo --seed 9 --warm --fast"
    tasks.append({"name": "new", "command": "true"})
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    before = read_tree(umpteen.store())

    lines = umpteen("run", "job.json", "--dry-run").stdout.splitlines()

    assert lines[0] == "would run 3 of 4 tasks: 1 failed before and run again, 1 changed, 1 new"
    assert lines[1] == "  done      1 are done and left alone"
    assert lines[2] == "  changed   other: command   9  →  9 --warm"
    assert read_tree(umpteen.store()) == before


def test_dry_run_names_a_changed_environment(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "true\n")
    umpteen("run", "job.txt", "--env", "A=1")
    shown = umpteen("run", "job.txt", "--env", "A=2", "--dry-run").stdout
    assert "changed   0: env   A=1  →  A=2" in shown


def test_dry_run_follows_rerun(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "true\nfalse\n")
    umpteen("run", "job.txt")
    shown = umpteen("run", "job.txt", "--rerun", "all", "--dry-run").stdout
    assert shown.startswith("would run 2 of 2 tasks: ")
    shown = umpteen("run", "job.txt", "--rerun", "none", "--dry-run").stdout
    assert shown.startswith("would run 0 of 2 tasks: nothing to do")


def test_dry_run_json_is_one_object(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "echo a\n")
    umpteen("run", "job.txt")
    umpteen.write("job.txt", "echo b\n")
    plan = json.loads(umpteen("run", "job.txt", "--dry-run", "--json").stdout)
    assert (plan["name"], plan["total"], plan["run"]) == ("job", 1, {"changed": 1})
    assert plan["changed"] == [{"name": "0", "before": "echo a", "now": "echo b"}]
    assert plan["settings"]["executor"] == {"value": "local", "source": "default"}
