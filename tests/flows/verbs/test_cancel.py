"""`umpteen cancel`: end a job, or some tasks of it, and keep what they printed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter

from tests.support.command import Umpteen
from tests.support.processes import find_runners, list_processes
from tests.support.store import list_records
from tests.support.wait import wait_until

# Prints, leaves a grandchild in the group and one in a session of its own, and waits.
CLINGS = "echo half; (sleep 600 & setsid sleep 600 & touch began.{n}; wait)"


def begin(umpteen: Umpteen, *arguments: str, slots: int = 2, tasks: int = 4) -> None:
    given = ("run", CLINGS, f"n=1..{tasks}", "--name", "job", "--slots", str(slots), "-q")
    assert umpteen(*given, "--detach", *arguments).returncode == 0
    for number in range(1, min(slots, tasks) + 1):
        wait_until((umpteen.folder / f"began.{number}").exists)


def signal_runners(umpteen: Umpteen, number: int) -> None:
    for pid in find_runners(umpteen):
        os.kill(pid, number)


def states(umpteen: Umpteen) -> Counter[str]:
    counts = json.loads(umpteen("status", "job", "--json").stdout)["counts"]
    return Counter({state: count for state, count in counts.items() if count})


def test_cancel_ends_what_runs_with_its_children_and_starts_nothing_more(umpteen: Umpteen) -> None:
    begin(umpteen)
    done = umpteen("cancel", "job")
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["job: 4 cancelled", "  again     umpteen retry job"]
    assert states(umpteen) == {"cancelled": 4}
    assert umpteen("logs", "job", "n=1").stdout == "half\n"
    wait_until(lambda: not list_processes(umpteen))


def test_cancel_kills_what_does_not_heed_a_kind_word(umpteen: Umpteen) -> None:
    umpteen.write("stays.sh", "trap '' TERM\ntouch began\nwhile :; do sleep 600; done\n")
    umpteen("run", "sh stays.sh", "--name", "job", "--detach", "--grace", "1")
    wait_until((umpteen.folder / "began").exists)
    assert umpteen("cancel", "job").returncode == 0
    assert states(umpteen) == {"cancelled": 1}
    assert list_records(umpteen.store())[0]["signal"] == signal.SIGKILL
    wait_until(lambda: not list_processes(umpteen))


def test_cancel_of_one_running_and_one_waiting_task_leaves_the_others(umpteen: Umpteen) -> None:
    wait = "touch began.{n}; until [ -e go ]; do sleep 0.05; done; touch ran.{n}"
    umpteen("run", wait, "n=1..5", "--name", "job", "--slots", "2", "--detach", "-q")
    wait_until((umpteen.folder / "began.2").exists)
    done = umpteen("cancel", "job", "n=1", "n=4")
    assert done.returncode == 0, done.stderr
    umpteen.write("go", "")
    assert umpteen("collect", "job", "-q").returncode == 1
    assert states(umpteen) == {"succeeded": 3, "cancelled": 2}
    ran = {path.name for path in umpteen.folder.glob("ran.*")}
    assert ran == {"ran.2", "ran.3", "ran.5"}


def test_cancel_takes_patterns_and_indices(umpteen: Umpteen) -> None:
    tasks = [{"name": name, "command": "sleep 600"} for name in ("a-1", "a-2", "b", "c")]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    umpteen("run", "job.json", "--slots", "4", "--detach")
    wait_until(lambda: states(umpteen)["running"] == 4)
    assert umpteen("cancel", "job", "a-*", "2").returncode == 0
    assert states(umpteen) == {"running": 1, "cancelled": 3}


def test_cancel_of_an_unknown_task_cancels_nothing(umpteen: Umpteen) -> None:
    begin(umpteen)
    done = umpteen("cancel", "job", "n=1", "m=1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no task 'm=1' in 'job'")
    assert states(umpteen)["cancelled"] == 0


def test_cancel_ends_a_run_that_is_watched_elsewhere(umpteen: Umpteen) -> None:
    watcher = umpteen.start("run", CLINGS, "n=1..3", "--name", "job", "--slots", "1")
    wait_until((umpteen.folder / "began.1").exists)
    assert umpteen("cancel", "job").returncode == 0
    _, said = watcher.communicate(timeout=30)
    assert watcher.returncode == 1
    assert "job: 3 cancelled in" in said
    assert "umpteen retry job     runs the 3 that were cancelled" in said


def test_cancel_json_has_the_status_after_it(umpteen: Umpteen) -> None:
    umpteen("run", "touch began; sleep 600", "n=1..3", "--name", "job", "--slots", "1", "--detach")
    wait_until((umpteen.folder / "began").exists)
    shown = json.loads(umpteen("cancel", "job", "--json").stdout)
    assert (shown["cancelled"], shown["left"], shown["status"]["state"]) == (3, 0, "failed")


def test_cancel_of_a_job_that_nobody_runs_records_it(umpteen: Umpteen) -> None:
    begin(umpteen)
    for pid in find_runners(umpteen):
        os.kill(pid, signal.SIGKILL)
    done = umpteen("cancel", "job")
    assert done.returncode == 0
    assert done.stderr.startswith("job: 4 cancelled")
    assert states(umpteen) == {"cancelled": 4}
    wait_until(lambda: not list_processes(umpteen))  # what the dead runner left is ended, too


def test_cancel_of_tasks_that_nobody_runs_leaves_the_others_to_collect(umpteen: Umpteen) -> None:
    watcher = umpteen.start("run", "touch began; sleep 600", "n=1..3", "--name", "job")
    wait_until((umpteen.folder / "began").exists)
    os.killpg(watcher.pid, signal.SIGINT)
    watcher.communicate(timeout=30)
    assert umpteen("cancel", "job", "n=2").stderr.startswith("job: 1 cancelled")
    assert states(umpteen) == {"waiting": 2, "cancelled": 1}


def test_cancel_of_a_finished_job_says_so(umpteen: Umpteen) -> None:
    umpteen("run", "exit {n}", "n=0,1", "--name", "job")
    for _ in range(2):
        done = umpteen("cancel", "job")
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == "job: nothing to cancel, 2 had ended before\n"


def test_cancel_twice_is_no_error(umpteen: Umpteen) -> None:
    begin(umpteen)
    assert umpteen("cancel", "job").returncode == 0
    again = umpteen("cancel", "job")
    assert (again.returncode, again.stderr) == (0, "job: nothing to cancel, 4 had ended before\n")


def test_cancel_json_says_how_many(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "job")
    umpteen("run", "touch began; sleep 600", "n=1..3", "--name", "job", "--detach", "-q")
    wait_until((umpteen.folder / "began").exists)
    found = json.loads(umpteen("cancel", "job", "--json").stdout)
    assert (found["cancelled"], found["left"], found["never_starts"]) == (3, 0, 0)
    assert found["status"]["counts"]["cancelled"] == 3


def test_cancelled_tasks_run_again_with_the_same_command(umpteen: Umpteen) -> None:
    wait = "touch began; [ -e go ] || sleep 600"
    umpteen("run", wait, "--name", "job", "--detach", "-q")
    wait_until((umpteen.folder / "began").exists)
    umpteen("cancel", "job")
    umpteen.write("go", "")
    assert umpteen("run", wait, "--name", "job").returncode == 0
    assert [r["state"] for r in list_records(umpteen.store())] == ["cancelled", "succeeded"]


def test_cancel_of_a_job_of_umpteen_batch_is_refused(umpteen: Umpteen) -> None:
    runs = [{"cmd": "touch began; sleep 600"}]
    umpteen.write("b.json", json.dumps({"remote_output_path": "out", "runs": runs}))
    runner: subprocess.Popen[str] = umpteen.start("batch", "b.json")
    wait_until((umpteen.folder / "began").exists)
    done = umpteen("cancel", "out/")
    assert done.returncode == 2
    assert "was started by `umpteen batch`" in done.stderr
    runner.terminate()
    runner.communicate(timeout=30)


def test_cancel_of_a_waiting_task_is_recorded_at_once_and_can_be_retried(umpteen: Umpteen) -> None:
    wait = "touch began.{n}; until [ -e go ]; do sleep 0.05; done; touch ran.{n}"
    umpteen("run", wait, "n=1..5", "--name", "job", "--slots", "2", "--detach", "-q")
    wait_until((umpteen.folder / "began.2").exists)
    done = umpteen("cancel", "job", "n=4", "n=5")
    assert (done.returncode, states(umpteen)) == (0, {"running": 2, "waiting": 1, "cancelled": 2})
    assert "2 cancelled" in done.stderr
    assert umpteen("retry", "job", "n=4", "--detach").returncode == 0
    umpteen.write("go", "")
    umpteen("collect", "job", "-q")
    assert states(umpteen) == {"succeeded": 4, "cancelled": 1}
    assert not (umpteen.folder / "ran.5").exists()


def test_cancel_of_thousands_of_waiting_tasks_takes_seconds(umpteen: Umpteen) -> None:
    umpteen.write("job.json", json.dumps({"tasks": ["sleep 600"] * 5000}))
    umpteen("run", "job.json", "--slots", "2", "--detach", "-q")
    wait_until(lambda: states(umpteen)["running"] == 2)
    assert umpteen("cancel", "job", *map(str, range(2, 5000)), timeout_s=30).returncode == 0
    assert states(umpteen) == {"running": 2, "cancelled": 4998}


def test_cancelled_task_stays_so_after_its_runner_was_killed(umpteen: Umpteen) -> None:
    tasks = [{"name": "a", "command": "touch began; until [ -e go ]; do sleep 0.05; done"}]
    tasks += [{"name": f"w{n}", "command": f"touch ran.{n}", "after": "a"} for n in range(3)]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    umpteen("run", "job.json", "--detach", "-q")
    wait_until((umpteen.folder / "began").exists)
    signal_runners(umpteen, signal.SIGSTOP)
    cancelling = umpteen.start("cancel", "job", "w0", "w1")
    wait_until((umpteen.store() / ".umpteen/cancel").exists)
    signal_runners(umpteen, signal.SIGKILL)
    cancelling.communicate(timeout=60)
    umpteen.write("go", "")
    umpteen("collect", "job", "-q")
    assert states(umpteen) == {"succeeded": 2, "cancelled": 2}
    assert {path.name for path in umpteen.folder.glob("ran.*")} == {"ran.2"}


def test_cancel_ends_what_is_not_in_the_file_any_more(umpteen: Umpteen) -> None:
    umpteen.write("job.json", json.dumps({"tasks": [{"name": "a", "command": "sleep 600"}]}))
    umpteen("run", "job.json", "--detach", "-q")
    wait_until(lambda: states(umpteen)["running"] == 1)
    umpteen.write("job.json", json.dumps({"tasks": [{"name": "b", "command": "sleep 600"}]}))
    umpteen("run", "job.json", "--detach", "-q")
    assert umpteen("cancel", "job").returncode == 0
    wait_until(lambda: not list_processes(umpteen))


def test_cancelled_task_is_recorded_once_whatever_dies(umpteen: Umpteen) -> None:
    wait = "touch began.{n}; until [ -e go ]; do sleep 0.05; done; echo {n} >> ran"
    umpteen("run", wait, "n=1..5", "--name", "job", "--slots", "2", "--detach", "-q")
    wait_until((umpteen.folder / "began.2").exists)
    assert umpteen("cancel", "job", "n=1", "n=4").returncode == 0
    signal_runners(umpteen, signal.SIGKILL)
    umpteen.write("go", "")
    assert umpteen("collect", "job", "-q").returncode == 1
    assert states(umpteen) == {"succeeded": 3, "cancelled": 2}
    assert set((umpteen.folder / "ran").read_text().split()) == {"2", "3", "5"}
    final = Counter(r["task"] for r in list_records(umpteen.store()) if r["state"] != "waiting")
    assert final == dict.fromkeys(range(5), 1)
