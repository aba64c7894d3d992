"""`umpteen logs`: what a task wrote, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from tests.support.command import Umpteen
from tests.support.store import list_records
from tests.support.wait import wait_until


def read_logs(umpteen: Umpteen, *arguments: str) -> bytes:
    return subprocess.run(
        [*umpteen.command, "logs", *arguments], cwd=umpteen.folder, env=umpteen.environment,
        capture_output=True, check=True, timeout=60,
    ).stdout  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_logs_are_what_was_written_byte_for_byte(umpteen: Umpteen, size: int) -> None:
    content = os.urandom(size)
    (umpteen.folder / "in").write_bytes(content)
    umpteen("run", "cat in; cat in in >&2", "--name", "job")
    assert read_logs(umpteen, "job", "0") == content
    assert read_logs(umpteen, "job", "0", "--stderr") == content * 2


def test_logs_take_the_name_before_the_index(umpteen: Umpteen) -> None:
    tasks = [{"name": name, "command": f"echo named {name}"} for name in ("1", "x/y")]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    umpteen("run", "job.json")
    assert read_logs(umpteen, "job", "1") == b"named 1\n"
    assert read_logs(umpteen, "job", "x/y") == b"named x/y\n"
    assert read_logs(umpteen, "job", "0") == b"named 1\n"


def test_logs_json_has_both_and_the_record(umpteen: Umpteen) -> None:
    umpteen("run", r"printf 'a\377'; echo b >&2; exit 3", "--name", "job")
    shown = json.loads(umpteen("logs", "job", "0", "--json").stdout)
    assert (shown["name"], shown["index"], shown["state"]) == ("0", 0, "failed")
    assert (shown["stdout"], shown["stderr"]) == ("a\N{REPLACEMENT CHARACTER}", "b\n")
    assert shown["record"]["exit_code"] == 3
    assert shown["folder"] == str(umpteen.store() / "0")


def test_logs_of_a_later_attempt_are_the_newest(umpteen: Umpteen) -> None:
    for _ in range(2):
        umpteen("run", "echo $UMPTEEN_ATTEMPT; exit 1", "--name", "job")
    assert read_logs(umpteen, "job", "0") == b"2\n"


def test_logs_of_an_interrupted_attempt_can_be_read(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "echo half; touch begun; sleep 600\n")
    watcher = umpteen.start("run", "job.txt")
    wait_until((umpteen.folder / "begun").exists)
    watcher.send_signal(signal.SIGINT)
    watcher.communicate(timeout=30)
    assert read_logs(umpteen, "job", "0") == b"half\n"


def test_logs_of_a_running_task_are_what_there_is(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "echo one; touch begun; until [ -e go ]; do sleep 0.05; done\n")
    watcher = umpteen.start("run", "job.txt")
    wait_until((umpteen.folder / "begun").exists)
    assert read_logs(umpteen, "job", "0") == b"one\n"
    umpteen.write("go", "")
    watcher.communicate(timeout=30)


def test_logs_follow_ends_when_the_task_ends(umpteen: Umpteen) -> None:
    # The job itself goes on, so it is the task whose end counts.
    umpteen.write(
        "job.txt",
        "echo one; touch begun; until [ -e go ]; do sleep 0.05; done; echo two\n"
        "until [ -e end ]; do sleep 0.05; done\n",
    )
    watcher = umpteen.start("run", "job.txt", "--slots", "2")
    wait_until((umpteen.folder / "begun").exists)
    follower = umpteen.start("logs", "job", "0", "--follow")
    assert follower.stdout
    assert follower.stdout.readline() == "one\n"
    umpteen.write("go", "")
    rest, said = follower.communicate(timeout=20)
    assert (follower.returncode, rest, watcher.poll()) == (0, "two\n", None), said
    umpteen.write("end", "")
    watcher.communicate(timeout=30)


def test_logs_follow_of_a_task_that_waits_waits_for_it(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "touch begun; until [ -e go ]; do sleep 0.05; done\necho late\n")
    watcher = umpteen.start("run", "job.txt", "--slots", "1")
    wait_until((umpteen.folder / "begun").exists)
    follower = umpteen.start("logs", "job", "1", "--follow")
    umpteen.write("go", "")
    assert follower.communicate(timeout=20)[0] == "late\n"
    watcher.communicate(timeout=30)


def test_logs_follow_of_a_task_that_waits_says_so(umpteen: Umpteen) -> None:
    umpteen("run", "touch began; sleep 600", "n=1,2", "--slots", "1", "--name", "job", "--detach")
    wait_until((umpteen.folder / "began").exists)
    follower = umpteen.start("logs", "job", "n=2", "--follow")
    assert follower.stderr
    assert follower.stderr.readline() == "n=2 has written nothing yet: what it writes comes here\n"
    umpteen("cancel", "job")
    follower.communicate(timeout=30)


def test_logs_follow_of_a_finished_task_ends_at_once(umpteen: Umpteen) -> None:
    umpteen("run", "echo one", "--name", "job")
    assert read_logs(umpteen, "job", "0", "--follow") == b"one\n"


def test_logs_of_a_task_that_wrote_nothing_yet_says_so(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "touch begun; sleep 600\necho late\n")
    watcher = umpteen.start("run", "job.txt", "--slots", "1")
    wait_until((umpteen.folder / "begun").exists)
    done = umpteen("logs", "job", "1")
    watcher.send_signal(signal.SIGINT)
    watcher.communicate(timeout=30)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 1 has written nothing yet: it is waiting")


def test_logs_of_an_unknown_task_name_the_nearest(umpteen: Umpteen) -> None:
    umpteen.write("job.yaml", "tasks: [{name: train, command: a}, {name: test, command: b}]")
    umpteen("run", "job.yaml")
    done = umpteen("logs", "job", "trian")
    assert done.returncode == 2
    assert done.stderr == "error: no task 'trian' in 'job'\n\nhint: did you mean 'train'?\n"


@pytest.mark.parametrize("task", ["2", "99999999999", "-1", ""])
def test_logs_of_a_task_that_cannot_be_is_refused(umpteen: Umpteen, task: str) -> None:
    umpteen.write("job.txt", "true\ntrue\n")
    umpteen("run", "job.txt")
    done = umpteen("logs", "job", "--", task)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: no task {task!r} in 'job'")


def test_logs_into_a_closed_pipe_end_quietly(umpteen: Umpteen) -> None:
    umpteen("run", "yes | head -c 3000000", "--name", "job")
    command = f"{umpteen.command[0]} logs job 0 | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], cwd=umpteen.folder, env=umpteen.environment, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("y\n", "")


def test_logs_of_sc_outputs_elsewhere_are_found(umpteen: Umpteen) -> None:
    runs = [{"cmd": "echo away", "remote_output_path": "away/x"}]
    umpteen.write("b.json", json.dumps({"remote_output_path": "out", "runs": runs}))
    assert umpteen("run", "b.json", "--name", "job").returncode == 0
    assert len(list_records(umpteen.folder / "out")) == 1
    assert read_logs(umpteen, "out/", "0") == b"away\n"


# --- attempts ---------------------------------------------------------------------------------


def test_logs_of_an_attempt_are_those_of_that_one(umpteen: Umpteen) -> None:
    for _ in range(2):
        umpteen("run", "echo $UMPTEEN_ATTEMPT; exit 1", "--name", "job", "--retries", "1")
    for number in range(1, 5):
        assert read_logs(umpteen, "job", "0", "--attempt", str(number)) == b"%d\n" % number


def test_logs_of_an_attempt_that_is_not_there_name_those_that_are(umpteen: Umpteen) -> None:
    umpteen("run", "exit 1", "--name", "job", "--retries", "1")
    done = umpteen("logs", "job", "0", "--attempt", "3")
    assert done.returncode == 2
    assert done.stderr == "error: 0 has no attempt 3\n\nhint: its attempts are 1, 2\n"


def test_logs_json_has_every_attempt(umpteen: Umpteen) -> None:
    umpteen("run", "echo $UMPTEEN_ATTEMPT; exit 1", "--name", "job", "--retries", "1")
    shown = json.loads(umpteen("logs", "job", "0", "--json").stdout)
    assert [each["stdout"] for each in shown["attempts"]] == ["1\n", "2\n"]
    assert [each["record"]["attempt"] for each in shown["attempts"]] == [1, 2]
    assert shown["stdout"] == "2\n"


def test_logs_of_a_task_that_runs_again_are_the_newest(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "echo $UMPTEEN_ATTEMPT; [ -e go ] && touch began && sleep 600\n")
    umpteen("run", "job.txt")
    umpteen.write("go", "")
    umpteen("run", "job.txt", "--detach")
    wait_until((umpteen.folder / "began").exists)
    wait_until(lambda: read_logs(umpteen, "job", "0") == b"2\n")
    assert read_logs(umpteen, "job", "0", "--attempt", "1") == b"1\n"
    assert read_logs(umpteen, "job", "0", "--attempt", "2") == b"2\n"
