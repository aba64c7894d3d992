"""`umpteen status`: how a job stands."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.wait import wait_until


def test_status_of_a_finished_job_says_so(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "job")
    done = umpteen("status", "job")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == [
        "job: succeeded, 1 done", "  results   umpteen-results/job"
    ]  # fmt: skip


def test_status_names_what_failed_and_how(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "true\necho why >&2; exit 7\nkill -9 $$\n")
    umpteen("run", "job.txt")
    done = umpteen("status", "job")
    shown = {line.split("  ")[1].strip(): line for line in done.stdout.splitlines()[3:]}
    assert done.returncode == 1
    assert "job: failed, 1 done · 2 failed" in done.stdout
    assert "exit 7" in shown["1"]
    assert "why" in shown["1"]
    assert "umpteen logs job 1 --stderr" in shown["1"]
    assert "signal 9" in shown["2"]


def test_status_lists_as_many_failures_as_asked(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "exit 1\n" * 12)
    umpteen("run", "job.txt")
    assert umpteen("status", "job").stdout.count("exit 1") == 10
    assert "and 2 more" in umpteen("status", "job").stdout
    assert umpteen("status", "job", "--failures", "12").stdout.count("exit 1") == 12
    assert umpteen("status", "job", "--failures", "0").stdout.count("exit 1") == 0


def crowd(umpteen: Umpteen, count: int) -> None:
    """prep fails, and so many are after it."""
    tasks = [
        {"name": "prep", "command": "echo why >&2; exit 2"},
        {"name": "t-{n}", "command": "true", "after": "prep", "matrix": {"n": f"1..{count}"}},
    ]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))


@pytest.mark.parametrize("count", [60, 2000])
def test_status_shows_failures_before_what_was_skipped(umpteen: Umpteen, count: int) -> None:
    crowd(umpteen, count)
    run = umpteen("run", "job.json")
    shown = [
        " failed  prep  exit 2  why  umpteen logs job prep --stderr",
        f" {count:,} skipped after prep, which failed",
    ]
    assert [line for line in run.stderr.splitlines() if line in shown] == shown
    assert umpteen("status", "job").stdout.splitlines()[3:] == shown
    failures = json.loads(umpteen("status", "job", "--json").stdout)["failures"]
    assert len(failures) == 10
    assert "prep" in [failure["name"] for failure in failures]


def test_status_and_run_name_failures_where_the_rest_is_cancelled(umpteen: Umpteen) -> None:
    run = umpteen("run", "exit {n}", "n=1..300", "--max-failures", "3", "--name", "job")
    for said in (run.stderr, umpteen("status", "job").stdout):
        assert said.count("\n failed  n=") >= 3
        assert said.count("cancelled: not started after 3 failed") == 1
        assert "umpteen logs job n=300" not in said


def test_run_json_names_the_failure_and_what_was_skipped(umpteen: Umpteen) -> None:
    crowd(umpteen, 60)
    lines = umpteen("run", "job.json", "--json").stdout.splitlines()
    events = [event for event in map(json.loads, lines) if event["event"] == "failed"]
    assert events[0]["name"] == "prep"
    assert len(events) == 61


def test_status_of_a_cancelled_job_counts_without_its_signal(umpteen: Umpteen) -> None:
    umpteen("run", "touch began; sleep 600", "n=1,2", "--slots", "1", "--name", "job", "--detach")
    wait_until((umpteen.folder / "began").exists)
    umpteen("cancel", "job")
    assert sorted(umpteen("status", "job").stdout.splitlines()[3:]) == [
        " 1 cancelled (n=1)", " 1 cancelled: not started (n=2)"
    ]  # fmt: skip


def test_status_repeats_the_address_that_was_typed(umpteen: Umpteen) -> None:
    umpteen("run", "exit 1", "--name", "job")
    said = umpteen("status", "./umpteen-results/job").stdout
    assert "umpteen logs ./umpteen-results/job 0" in said


def test_run_of_a_job_that_its_name_does_not_find_says_where_it_is(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "job", "-q")
    done = umpteen("run", "exit 1", "--name", "job", "--results", "else where/{name}")
    assert "umpteen logs 'else where/job' 0" in done.stderr
    assert "umpteen retry 'else where/job'     runs the 1 that failed" in done.stderr


def test_status_json_is_one_object(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "true\necho why >&2; exit 7\n")
    umpteen("run", "job.txt")
    done = umpteen("status", "job", "--json")
    status = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert status["name"] == "job"
    assert status["address"] == str(umpteen.store())
    assert (status["state"], status["total"], status["slots"]) == ("failed", 2, 2)
    assert (status["counts"]["succeeded"], status["counts"]["failed"]) == (1, 1)
    assert status["failures"] == [
        {"index": 1, "name": "1", "state": "failed", "reason": "exit 7", "last_line": "why"}
    ]


def test_status_of_a_running_job_names_its_tasks(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "until [ -e go ]; do sleep 0.05; done\n" * 3)
    watcher = umpteen.start("run", "job.txt", "--slots", "2")

    def read_running() -> list[int]:
        shown = umpteen("status", "job", "--json").stdout if umpteen.store().exists() else "{}"
        return sorted(task["index"] for task in json.loads(shown).get("running", []))

    wait_until(lambda: read_running() == [0, 1])
    assert "job: running, 2 running · 1 waiting" in umpteen("status", "job").stdout
    umpteen.write("go", "")
    _, said = watcher.communicate(timeout=30)
    assert watcher.returncode == 0, said
    assert umpteen("status", "job").stdout.startswith("job: succeeded, 3 done")


def test_status_of_an_interrupted_job_says_how_to_go_on(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "touch begun; sleep 600\n")
    watcher = umpteen.start("run", "job.txt")
    wait_until((umpteen.folder / "begun").exists)
    watcher.send_signal(signal.SIGINT)
    watcher.communicate(timeout=30)
    done = umpteen("status", "job")
    assert done.returncode == 1
    assert "job: unfinished, 1 waiting" in done.stdout
    assert "goes on with it" in done.stdout


@pytest.mark.parametrize(
    "verb", ["status", "results", "export", "collect", "retry", "cancel", "logs", "why", "rm"]
)
def test_status_and_others_take_the_job_file(umpteen: Umpteen, verb: str) -> None:
    umpteen.write("sweep.yaml", "results: ./out/{name}\ntasks: ['true']\n")
    umpteen("run", "sweep.yaml")
    more = {"logs": ["0"], "why": ["0"], "rm": ["--yes"]}.get(verb, [])
    done = umpteen(verb, "sweep.yaml", *more)
    assert done.returncode == 0, done.stderr


def test_status_by_address_works_from_anywhere(umpteen: Umpteen, tmp_path: Path) -> None:
    umpteen("run", "true", "--name", "job")
    assert umpteen("status", "umpteen-results/job").returncode == 0
    assert umpteen("status", umpteen.store(), cwd=tmp_path).returncode == 0
    assert umpteen("status", f"file://{umpteen.store()}", cwd=tmp_path).returncode == 0
    assert umpteen("status", ".", cwd=umpteen.store()).returncode == 0


def test_status_by_name_works_from_another_folder(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "job", "--results", "deep/{name}")
    done = umpteen("status", "job", cwd=umpteen.home)
    assert done.returncode == 0, done.stderr
    assert str(umpteen.folder / "deep/job") in done.stdout


def test_status_of_several_of_one_name_lists_them(umpteen: Umpteen, tmp_path: Path) -> None:
    places = [tmp_path / "a", tmp_path / "b"]
    for place in places:
        umpteen("run", "true", "--name", "job", "--results", place)
    done = umpteen("status", "job")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there are 2 jobs named 'job'")
    assert all(str(place) in done.stderr for place in places)


def test_status_of_several_of_one_name_prefers_the_one_here(
    umpteen: Umpteen, tmp_path: Path
) -> None:
    umpteen("run", "true", "--name", "job", "--results", tmp_path / "elsewhere", cwd=tmp_path)
    umpteen("run", "true", "--name", "job")
    assert json.loads(umpteen("status", "job", "--json").stdout)["address"] == str(umpteen.store())


def test_status_of_two_that_were_handed_in_from_here_asks_which(
    umpteen: Umpteen, tmp_path: Path
) -> None:
    umpteen("run", "true", "--name", "job")
    umpteen("run", "true", "--name", "job", "--results", tmp_path / "elsewhere")
    done = umpteen("status", "job")
    assert done.returncode == 2
    assert str(umpteen.store()) in done.stderr
    assert str(tmp_path / "elsewhere") in done.stderr


@pytest.mark.parametrize("verb", ["status", "cancel", "retry", "collect", "rm", "export"])
def test_status_and_others_of_a_job_file_mean_its_own_job(
    umpteen: Umpteen, tmp_path: Path, verb: str
) -> None:
    umpteen.write("study.yaml", "tasks: ['false']\n")
    umpteen("run", "study.yaml")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/study.yaml").write_text("tasks: ['true', 'true']\n")
    more = ["--yes"] if verb == "rm" else []
    done = umpteen(verb, "study.yaml", *more, cwd=tmp_path / "other")
    assert done.returncode == 2
    assert "study.yaml has not been run from here" in done.stderr
    assert str(umpteen.store("study")) in done.stderr
    assert umpteen("logs", "study", "0").returncode == 0  # it is there, and as it was


def test_status_of_a_misspelt_job_names_the_nearest(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "sweep")
    done = umpteen("status", "swep")
    assert done.returncode == 2
    registry = umpteen.home / "data/umpteen/jobs"
    assert done.stderr == (
        f"error: no job named 'swep' in ./umpteen-results or the registry, {registry}\n\n"
        "hint: did you mean 'sweep'? umpteen ls shows all\n"
    )


def test_status_error_with_json_is_json(umpteen: Umpteen) -> None:
    done = umpteen("status", "nowhere", "--json")
    assert done.returncode == 2
    message: str = json.loads(done.stdout)["message"]
    assert message.startswith("no job named 'nowhere' in ./umpteen-results or the registry, /")


@pytest.mark.parametrize("file", ["job.json", "handed/1.json"])
def test_status_of_a_damaged_store_says_which_file(umpteen: Umpteen, file: str) -> None:
    umpteen("run", "true", "--name", "job")
    (umpteen.store() / ".umpteen" / file).write_text('{"name": "jo')
    done = umpteen("status", "job")
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("error: ")
    assert file in done.stderr


def test_status_after_a_damaged_record_line_counts_the_others(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "true\n" * 3)
    umpteen("run", "job.txt", "--slots", "1")
    (path,) = umpteen.store().glob(".umpteen/records/1/*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    assert b'"task":1' in lines[2]
    path.write_bytes(b"".join([*lines[:2], b'{"task":1,"dig\n', *lines[3:]]))
    status = json.loads(umpteen("status", "job", "--json").stdout)
    assert (status["state"], status["counts"]["succeeded"]) == ("unfinished", 2)


@pytest.mark.parametrize("verb", [("status", "job"), ("status", "job", "--json"), ("ls",)])
def test_look_at_jobs_loads_nothing_that_makes_or_runs_them(
    umpteen: Umpteen, verb: tuple[str, ...]
) -> None:
    umpteen("run", "exit 1", "--name", "job")
    loaded = umpteen.list_loaded(*verb)
    packages = {".".join(name.split(".")[:2]) for name in loaded}
    assert "umpteen.query" in packages
    others = {"formats", "planning", "submission", "verbs"}
    assert not packages & {f"umpteen.{name}" for name in others}
    assert not loaded & {"ctypes", "fractions", "rich", "subprocess", "yaml"}
