"""Jobs whose results are in no folder: on a real S3 server, behind a real SFTP server."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.command import Umpteen
from tests.support.processes import find_runners, list_processes
from tests.support.proxy import Answer, FaultProxy, Request, refusal
from tests.support.s3 import S3
from tests.support.sftp import Sftp, Ssh
from tests.support.wait import wait_until
from tests.sweeps.far import run_far_point
from tests.sweeps.plain import TARGETS, Point
from umpteen.model.command import RUNNER_VARIABLE
from umpteen.query.live import LiveReader
from umpteen.runner.launch import build_runner_command
from umpteen.store.address import OPTIONS_VARIABLE, open_store
from umpteen.store.base import Store
from umpteen.store.records import list_starts, read_start
from umpteen.system.host import read_machine

RECORDS = ".umpteen/records/1"
SEED = os.environ.get("UMPTEEN_SWEEP_SEED") or str(int(time.time()))
WAITS = "touch began.{n}; until [ -e go ]; do sleep 0.05; done; echo {n}"

# A runner that waits less long for an earlier start elsewhere.
SHORT_OF_TIME = """
import sys, umpteen.runner.recovery
umpteen.runner.recovery.EARLIER_S = 1.0
from umpteen.runner.main import main
sys.exit(main())
"""


@dataclass
class Place:
    """A store, how to open it, and the command with that in its environment."""

    umpteen: Umpteen
    address: str
    options: dict[str, Any]

    def __call__(self, *arguments: str, **more: Any) -> Any:
        env = {OPTIONS_VARIABLE: json.dumps(self.options), **more.pop("env", {})}
        return self.umpteen(*arguments, env=env, **more)

    def start(self, *arguments: str) -> Any:
        return self.umpteen.start(*arguments, env={OPTIONS_VARIABLE: json.dumps(self.options)})

    def run(self, *arguments: str, **more: Any) -> Any:
        return self("run", *arguments, "--name", "job", "--results", self.address, **more)

    def open(self) -> Store:
        return open_store(self.address, self.options)

    def states(self) -> Counter[str]:
        counts = json.loads(self("status", self.address, "--json").stdout)["counts"]
        return Counter({state: count for state, count in counts.items() if count})

    def successes(self) -> Counter[int]:
        """How many records of a success each task has."""
        store, here = self.open(), read_machine()
        starts = [
            read_start(store, batch, key, here)
            for batch in store.names(".umpteen/records")
            for key in list_starts(store, batch)
        ]
        return Counter(r.task for start in starts for r in start.records if r.succeeded)


@pytest.fixture(params=["s3", "sftp", "ssh"])
def place(request: pytest.FixtureRequest, umpteen: Umpteen) -> Place:
    """Each kind of store that is no folder."""
    found: S3 | Sftp | Ssh = request.getfixturevalue(request.param)
    return Place(umpteen, found.address, found.options)


@pytest.fixture
def far(umpteen: Umpteen, s3: S3, s3_proxy: FaultProxy) -> Place:
    """A store on S3, behind the proxy, whose client gives up soon."""
    return Place(umpteen, s3.address, {**s3.through(s3_proxy.port), "read_timeout": 2})


def test_job_leaves_there_what_it_leaves_in_a_folder(place: Place) -> None:
    command = "echo {n}; echo e{n} >&2; echo {n} > $RESULTS_DIR/f; exit $(( {n} == 3 ))"
    done = place.run(command, "n=1..5")
    assert done.returncode == 1, done.stderr
    assert "4 succeeded, 1 failed" in done.stderr
    store = place.open()
    for n in range(1, 6):
        files = {name: store.read(f"n={n}/{name}") for name, _ in store.walk(f"n={n}")}
        assert files == {
            "stdout": f"{n}\n".encode(),
            "stderr": f"e{n}\n".encode(),
            "status_code": b"%d" % (n == 3),
            "results/f": f"{n}\n".encode(),
        }
    assert place.states() == {"succeeded": 4, "failed": 1}
    assert place("logs", "job", "n=2", "--stderr").stdout == "e2\n"
    assert place("results", "job").stdout.splitlines() == [
        f"{place.address}/n={n}/results/f" for n in range(1, 6)
    ]
    wait_until(lambda: not list_processes(place.umpteen))
    assert not list(place.umpteen.leases.glob("*/spool"))


def test_job_runs_again_only_what_failed_and_keeps_both_attempts(place: Place) -> None:
    command = "echo $UMPTEEN_ATTEMPT {n}; [ {n} != 2 ] || [ -e go ]"
    place.run(command, "n=1..3")
    place.umpteen.write("go", "")
    done = place.run(command, "n=1..3")
    assert done.returncode == 0, done.stderr
    assert "2 done before, 1 failed before" in done.stderr
    assert place("logs", "job", "n=2").stdout == "2 2\n"
    assert place("logs", "job", "n=2", "--attempt", "1").stdout == "1 2\n"
    assert place.successes() == {0: 1, 1: 1, 2: 1}


def test_attempts_that_are_retried_are_all_kept(place: Place) -> None:
    command = "echo $UMPTEEN_ATTEMPT; [ $UMPTEEN_ATTEMPT = 3 ]"
    task = {"command": command, "retries": {"when": "failed", "times": 3, "wait": 0}}
    place.umpteen.write("job.json", json.dumps({"tasks": [task]}))
    done = place("run", "job.json", "--results", place.address)
    assert done.returncode == 0, done.stderr
    for attempt in (1, 2, 3):
        assert place("logs", "job", "0", "--attempt", str(attempt)).stdout == f"{attempt}\n"
    assert place.open().read("0/status_code") == b"0"


def test_what_is_after_others_runs_when_their_outputs_are_there(place: Place) -> None:
    tasks = [{"name": "a", "command": "echo a"}]
    tasks += [{"name": n, "command": f"echo {n}", "after": b} for n, b in (("b", "a"), ("c", "b"))]
    place.umpteen.write("job.json", json.dumps({"tasks": tasks}))
    done = place("run", "job.json", "--results", place.address)
    assert done.returncode == 0, done.stderr
    assert place.states() == {"succeeded": 3}
    assert place.open().names(".umpteen/batches") == ["1.json"]
    assert len(place.open().names(".umpteen/records/1")) == 1


def test_results_are_pulled_and_only_what_is_missing_again(place: Place) -> None:
    place.run("echo {n}; echo {n} > $RESULTS_DIR/a.csv; touch $RESULTS_DIR/b", "n=1..3")
    first = place("results", "job", "here", "--include", "*.csv")
    assert first.stderr == "3 files, 6 bytes in here\n"
    copied = place.umpteen.folder / "here"
    assert (copied / "n=2/results/a.csv").read_text() == "2\n"
    again = place("results", "job", "here", "--exclude", "*/b")
    assert again.stderr == "12 files, 15 bytes in here, 3 of them were there\n"
    assert not list(copied.glob("*/results/b"))


def test_job_is_removed_with_nothing_else(place: Place) -> None:
    place.run("echo {n} > $RESULTS_DIR/f", "n=1..3")
    place.run("echo {n} > $RESULTS_DIR/f", "n=2..3", "--rerun", "all")  # so that some are dropped
    store = place.open()
    store.replace("n=1/mine", b"not umpteen's")
    store.replace("other/mine", b"not umpteen's")
    done = place("rm", "job", "--yes")
    assert done.returncode == 0, done.stderr
    assert "job: removed, 3 tasks had outputs\n" in done.stderr
    assert "left      1 file that umpteen did not write\n" in done.stderr
    assert f"left      it is not empty: {place.address}\n" in done.stderr
    assert {path for path, _ in store.walk("")} == {"n=1/mine", "other/mine"}


def test_job_that_is_removed_leaves_no_empty_folders(umpteen: Umpteen, sftp: Sftp) -> None:
    place = Place(umpteen, sftp.address, sftp.options)
    for _ in range(2):  # so that there are earlier attempts
        place.run("mkdir $RESULTS_DIR/d; echo {n} > $RESULTS_DIR/d/f", "n=1..3", "--rerun", "all")
    folder = Path(sftp.folder)
    (folder / "outside/results/empty").mkdir(parents=True)
    (folder / "job/n=1/link").symlink_to(folder / "outside")
    (folder / "job/theirs").mkdir()
    done = place("rm", "job", "--yes")
    assert done.returncode == 0, done.stderr
    left = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert {path for path in left if path.startswith(("job", "outside"))} == {
        "job", "job/n=1", "job/n=1/link", "job/theirs",
        "outside", "outside/results", "outside/results/empty",
    }  # fmt: skip
    assert "left      1 file that umpteen did not write\n" in done.stderr
    (folder / "job/n=1/link").unlink()
    (folder / "job/n=1").rmdir()
    (folder / "job/theirs").rmdir()
    place.run("echo {n}", "n=1..3")
    assert place("rm", "job", "--yes").returncode == 0
    assert not (folder / "job").exists()


def test_folder_is_synced_once_and_its_digest_known(place: Place) -> None:
    place.umpteen.write("code/main.py", "print('from', __file__)")
    for values in ("n=1..2", "n=1..3"):
        done = place.run("python3 $UMPTEEN_SYNCED/main.py {n}", values, "--sync", "code")
        assert done.returncode == 0, done.stderr
    [archive] = place.open().names(".umpteen/synced")
    digest = archive.removesuffix(".tar.gz")
    printed = place("logs", "job", "n=3").stdout
    assert printed == f"from {place.umpteen.leases}/synced/{digest}/content/main.py\n"
    handed = json.loads(place.open().read(".umpteen/handed/2.json") or b"")
    assert handed["settings"]["synced"] == [[digest, None, ""]]


@pytest.mark.parametrize("spoil", [lambda whole: whole[:-20], lambda _: b"no archive"])
def test_synced_folder_whose_archive_is_damaged_is_sent_again(
    place: Place, spoil: Callable[[bytes], bytes]
) -> None:
    place.umpteen.write("code/main.py", "print('from', __file__)")
    command = ("python3 $UMPTEEN_SYNCED/main.py {n}", "--sync", "code")
    assert place.run(*command, "n=1..2").returncode == 0
    store = place.open()
    [archive] = store.names(".umpteen/synced")
    key = f".umpteen/synced/{archive}"
    store.replace(key, spoil(store.read(key) or b""))
    shutil.rmtree(place.umpteen.leases / "synced")  # as on a machine that has not run it yet
    done = place.run(*command, "n=1..3")
    assert done.returncode == 3, done.stderr
    assert "of a synced folder is damaged" in done.stderr
    assert "hint: run the job again" in done.stderr
    assert store.names(".umpteen/synced") == []
    done = place.run(*command, "n=1..3")
    assert done.returncode == 0, done.stderr
    assert store.names(".umpteen/synced") == [archive]
    assert place.states() == {"succeeded": 3}


def test_task_is_followed_while_it_runs(place: Place) -> None:
    place.run("echo one; until [ -e go ]; do sleep 0.1; done; echo two", "--detach")
    following = place.start("logs", "job", "0", "--follow")
    assert following.stdout.readline() == "one\n"
    place.umpteen.write("go", "")
    rest, said = following.communicate(timeout=60)
    assert (following.returncode, rest) == (0, "two\n"), said
    wait_until(lambda: not list_processes(place.umpteen))
    assert not place.open().walk(".umpteen/live")


def have_looked(umpteen: Umpteen, word: str) -> None:
    """Have the runner of a task that has begun look now for who follows, as `cancel` has it."""
    wait_until((umpteen.folder / f"began.{word}").exists)
    os.kill(find_runners(umpteen)[0], signal.SIGUSR1)


def test_follower_sees_what_the_newest_start_prints(place: Place) -> None:
    command = "cat word; touch began.$(cat word); until [ -e go ]; do sleep 0.1; done"
    store = place.open()
    reader = LiveReader(store, 0, "stdout")
    reader.begin()
    place.umpteen.write("word", "first\n")
    place.run(command, "--detach")
    have_looked(place.umpteen, "first")
    wait_until(lambda: reader.read() == b"first\n")
    for pid in find_runners(place.umpteen):
        os.kill(pid, signal.SIGKILL)
    [[path, _]] = store.walk(".umpteen/live/0")
    folder, _, name = path.partition("/")
    for token in ("0" * 12, "f" * 12):  # whichever comes first in a listing
        left = f"{folder.rpartition('-')[0]}-{token}"
        store.replace(f".umpteen/live/0/{left}/{name}", b"first\n")
    place.umpteen.write("word", "second\n")
    place.run(command, "--detach")
    have_looked(place.umpteen, "second")
    wait_until(lambda: reader.read() == b"second\n", 30)
    place.umpteen.write("go", "")
    assert place("collect", "job").returncode == 0


def test_options_are_neither_stored_nor_shown_nor_given_to_tasks(umpteen: Umpteen, s3: S3) -> None:
    secret = {**s3.options, "client_kwargs": {"region_name": "us-east-1"}}
    results = {"class_spec": "S3Results", "s3_url": s3.address, "options": secret}
    umpteen.write("job.json", json.dumps({"results": results, "tasks": ["env"], "name": "job"}))
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    store = open_store(s3.address, s3.options)
    assert store.read("0/status") == b"0"
    for path, _ in store.walk(""):
        content = store.read(path) or b""
        assert s3.endpoint.encode() not in content, path
    assert s3.endpoint not in done.stderr


def test_runner_killed_loses_nothing_and_runs_nothing_twice(place: Place) -> None:
    command = (
        "echo {n} >> ran.{n}; [ {n} != 12 ] || touch began; "
        "[ {n} -lt 12 ] || [ -e go ] || sleep 600"
    )
    place.run(command, "n=1..16", "--slots", "2", "--detach", "-q")
    wait_until((place.umpteen.folder / "began").exists)
    for pid in find_runners(place.umpteen):
        os.kill(pid, signal.SIGKILL)
    place.umpteen.write("go", "")
    done = place.run(command, "n=1..16", "--slots", "2")
    assert done.returncode == 0, done.stderr
    assert place.states() == {"succeeded": 16}
    assert place.successes() == dict.fromkeys(range(16), 1)
    assert {place.open().read(f"n={n}/status_code") for n in range(1, 17)} == {b"0"}


@pytest.mark.parametrize("slots", ["1", "2"])  # the same batch goes on, or another has its tasks
def test_files_of_an_attempt_without_a_record_do_not_stay(place: Place, slots: str) -> None:
    command = "touch began.{n}; [ {n} = 2 ] || [ -e go ] || sleep 600; echo {n}"
    arguments = ("run", command, "n=1..2", "--name", "job", "--results", place.address)
    watcher = place.start(*arguments, "--slots", "1")
    wait_until((place.umpteen.folder / "began.1").exists)
    store = place.open()
    store.replace("n=2/results/stale", b"put by an attempt that was never recorded")
    watcher.send_signal(signal.SIGINT)
    _, said = watcher.communicate(timeout=60)
    assert watcher.returncode == 130, said
    place.umpteen.write("go", "")
    done = place(*arguments, "--slots", slots)
    assert done.returncode == 0, done.stderr
    assert len(store.names(".umpteen/batches")) == int(slots)
    assert {name for name, _ in store.walk("n=2")} == {"stdout", "stderr", "status_code"}


def test_first_run_lists_no_folder_of_a_task(far: Place, s3_proxy: FaultProxy) -> None:
    done = far.run("echo {n}", "n=1..20")
    assert done.returncode == 0, done.stderr
    assert not [path for method, path in s3_proxy.requests if method == "GET" and "n%3D" in path]


def test_two_who_hand_in_at_once_run_each_task_once(place: Place) -> None:
    first, second = (
        place.start("run", "echo {n}", "n=1..8", "--name", "job", "--results", place.address)
        for _ in range(2)
    )
    for each in (first, second):
        _, said = each.communicate(timeout=120)
        assert each.returncode == 0, said
    assert place.successes() == dict.fromkeys(range(8), 1)


@pytest.mark.parametrize("does_end", [True, False])
def test_start_beside_one_that_may_live_elsewhere_overwrites_nothing(
    place: Place, does_end: bool
) -> None:
    place.run("echo $UMPTEEN_ATTEMPT")
    store = place.open()
    [segment] = [f"{RECORDS}/{name}" for name, _ in store.walk(RECORDS)]
    opened, *_ = (store.read(segment) or b"").splitlines()
    store.delete(segment)
    earlier = f"{RECORDS}/1-abcdef.0.jsonl"
    foreign = json.dumps({**json.loads(opened), "machine": "elsewhere"}).encode() + b"\n"
    store.replace(earlier, foreign)
    store.replace("0/stdout", b"of the earlier start\n")

    command, token = build_runner_command(), "0" * 12
    if not does_end:
        command = [sys.executable, "-c", SHORT_OF_TIME, f"--token={token}"]
    again = subprocess.Popen(
        [*command, place.address, "1"],
        env={
            **place.umpteen.environment,
            OPTIONS_VARIABLE: json.dumps(place.options),
            **({} if does_end else {RUNNER_VARIABLE: token}),
        },
    )
    if does_end:
        wait_until(lambda: len(store.names(RECORDS)) == 2)
        store.replace(earlier, foreign + b'{"event":"end","left":1,"states":{}}\n')
    assert again.wait(60) == 0

    kept = b"1\n" if does_end else b"of the earlier start\n"
    assert store.read("0/stdout") == kept
    assert place("logs", place.address, "0").stdout == "1\n"


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("target", TARGETS)
def test_job_killed_at_a_random_point_has_each_success_once(
    umpteen: Umpteen, s3: S3, target: str, number: int
) -> None:
    point = Point(random.Random(f"{SEED}/{target}/{number}"), 40, target)
    faults = run_far_point(umpteen, s3, point, 40)
    assert not faults, f"UMPTEEN_SWEEP_SEED={SEED}, {point}: {faults}"


@pytest.mark.root
def test_outputs_on_their_way_leave_room_on_the_disk(
    far: Place, s3_proxy: FaultProxy, own_disk: Path
) -> None:
    far.options["read_timeout"] = 20  # a slow line is no silent one
    s3_proxy.rate_bytes_s = 2 << 20
    done = far.run(
        "sleep 0.1; head -c 2097152 /dev/zero > $RESULTS_DIR/{n}", "n=1..24", "--slots", "2",
        env={"UMPTEEN_LEASES": str(own_disk / "leases")},
    )  # fmt: skip
    s3_proxy.rate_bytes_s = 0.0
    assert done.returncode == 0, done.stderr
    assert far.states() == {"succeeded": 24}


@pytest.mark.root
def test_outputs_larger_than_what_may_wait_go_too(far: Place, own_disk: Path) -> None:
    done = far.run(
        "head -c 10000000 /dev/zero > $RESULTS_DIR/{n}", "n=1..3", "--slots", "1",
        env={"UMPTEEN_LEASES": str(own_disk / "leases")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert far.open().walk("n=3/results") == [("3", 10000000)]


# --- faults -----------------------------------------------------------------------------------


def disturb(proxy: FaultProxy) -> None:
    proxy.errors = proxy.reset = 0.05


def stall(proxy: FaultProxy) -> None:
    proxy.blackhole = True


@pytest.mark.parametrize("fault", [disturb, stall])
def test_job_bears_with_a_bad_network(
    far: Place, s3_proxy: FaultProxy, fault: Callable[[FaultProxy], None]
) -> None:
    watcher = far.start(
        "run", WAITS, "n=1..20", "--name", "job", "--results", far.address, "--slots", "4",
    )  # fmt: skip
    wait_until((far.umpteen.folder / "began.4").exists)
    fault(s3_proxy)
    far.umpteen.write("go", "")
    if fault is stall:
        wait_until(lambda: list(far.umpteen.leases.glob("*/spool/*-1/status_code")))
        s3_proxy.blackhole = False
    _, said = watcher.communicate(timeout=120)
    s3_proxy.errors = s3_proxy.reset = 0.0
    assert watcher.returncode == 0, said
    assert far.successes() == dict.fromkeys(range(20), 1)
    assert {far.open().read(f"n={n}/status_code") for n in range(1, 21)} == {b"0"}


# The installed command, with few enough tasks in a batch that there are many of them.
SMALL_BATCHES = """
import sys, umpteen.planning.batch_files
umpteen.planning.batch_files.LOCAL_BATCH_CAP = 1
from umpteen.cli.main import main
sys.exit(main())
"""


def start_with_small_batches(
    place: Place, *arguments: str, env: dict[str, str]
) -> subprocess.Popen[str]:
    env = {OPTIONS_VARIABLE: json.dumps(place.options), **env}
    return subprocess.Popen(
        [sys.executable, "-c", SMALL_BATCHES, "run", *arguments, "--name", "job",
         "--results", place.address],
        cwd=place.umpteen.folder, env=place.umpteen.environment | env, text=True,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def read_until(stream: IO[str], words: str) -> str:
    """What comes until a line has the words in it, which is the last of it."""
    read = ""
    for line in stream:
        read += line
        if words in line:
            return read
    raise AssertionError(f"{words!r} is not in {read}")


@pytest.mark.parametrize("does_pass", [True, False])
def test_next_batch_that_cannot_be_opened_ends_no_task(
    far: Place, s3_proxy: FaultProxy, does_pass: bool
) -> None:
    command = "echo {n} >> ran; touch began.{n}; until [ -e go.{n} ]; do sleep 0.05; done"
    patience = {} if does_pass else {"UMPTEEN_STORE_PATIENCE_S": "1"}
    watcher = start_with_small_batches(far, command, "n=1..12", "--slots", "2", env=patience)
    wait_until(lambda: len(list(far.umpteen.folder.glob("began.*"))) == 2)
    s3_proxy.only, s3_proxy.status, s3_proxy.code = "/batches/9.json", 403, "AccessDenied"
    s3_proxy.errors = 1.0
    for n in range(1, 8):  # all that was opened before but one
        far.umpteen.write(f"go.{n}", "")
    assert watcher.stderr is not None
    said = read_until(watcher.stderr, "batches/9.json")
    if does_pass:
        s3_proxy.errors = 0.0
    for n in range(8, 13):
        far.umpteen.write(f"go.{n}", "")
    said += watcher.communicate(timeout=60)[1]
    s3_proxy.errors = 0.0
    assert watcher.returncode == (0 if does_pass else 3), said
    ran = sorted(map(int, (far.umpteen.folder / "ran").read_text().split()))
    assert ran == list(range(1, 13 if does_pass else 9)), said
    assert far.states()["succeeded"] == len(ran)
    if not does_pass:
        assert "error: could not" in said
        assert far.run(command, "n=1..12").returncode == 0


def test_batches_that_are_never_opened_are_recorded_as_cancelled(place: Place) -> None:
    watcher = start_with_small_batches(
        place, "false {n}", "n=1..12", "--slots", "1", "--max-failures", "1", env={}
    )
    said = watcher.communicate(timeout=60)[1]
    assert watcher.returncode == 1, said
    states = place.states()  # the second may begin while the outputs of the first are on their way
    assert states == {"failed": states["failed"], "cancelled": 12 - states["failed"]}
    assert states["failed"] < 6
    assert len(place.open().names(".umpteen/records/12")) == 1, said


@pytest.mark.parametrize("fault", ["refused", "silent"])
def test_run_goes_on_while_its_watcher_cannot_read_the_store(
    far: Place, s3_proxy: FaultProxy, fault: str
) -> None:
    watcher = far.start(
        "run", f"echo {{n}} >> ran; {WAITS}", "n=1..4", "--name", "job", "--results", far.address,
        "--slots", "4",
    )  # fmt: skip
    wait_until((far.umpteen.folder / "began.4").exists)
    if fault == "silent":
        s3_proxy.blackhole = True
        said = read_until(watcher.stderr, "job: the results store has not answered for 5 s")
    else:
        s3_proxy.status, s3_proxy.code, s3_proxy.errors = 403, "AccessDenied", 1.0
        said = read_until(watcher.stderr, "job: the results store cannot be read: could not")
    s3_proxy.blackhole, s3_proxy.errors = False, 0.0
    far.umpteen.write("go", "")
    said += watcher.communicate(timeout=60)[1]
    assert watcher.returncode == 0, said
    assert "job: goes on" in said
    assert sorted((far.umpteen.folder / "ran").read_text().split()) == list("1234")
    assert far.states() == {"succeeded": 4}


def test_task_whose_results_the_store_refuses_fails_alone(far: Place) -> None:
    deep = "/".join(["d" * 200] * 6)  # S3 takes names of 1024 bytes
    command = f"[ {{n}} != 2 ] || (mkdir -p $RESULTS_DIR/{deep}; touch $RESULTS_DIR/{deep}/f)"
    # That the store takes others afterwards is how it is known to be the task's own fault.
    watcher = far.start(
        "run", f"[ {{n}} = 2 ] || until [ -e go ]; do sleep 0.05; done; {command}", "n=1..6",
        "--name", "job", "--results", far.address, "--slots", "2",
    )  # fmt: skip
    [trouble] = wait_until(lambda: list(far.umpteen.leases.glob("*/trouble")))
    wait_until(trouble.read_text)
    far.umpteen.write("go", "")
    _, said = watcher.communicate(timeout=60)
    assert watcher.returncode == 1, said
    assert far.states() == {"succeeded": 5, "failed": 1}
    assert "could not keep its outputs" in said
    assert far.open().read("n=2/status_code") is None

    reason = json.loads(far("logs", "job", "n=2", "--json").stdout)["record"]["reason"]
    assert len(reason) <= 300
    left = Path(reason.partition("; its outputs are in ")[2])
    assert (left / "results" / deep / "f").exists()
    assert far("retry", "job", "n=1").returncode == 1  # n=2 has still failed
    assert (left / "stdout").exists()
    lease = far.umpteen.leases / left.relative_to(far.umpteen.leases).parts[0]
    long_ago_s = time.time() - 31 * 86400
    os.utime(lease, (long_ago_s, long_ago_s))
    far.umpteen("run", "true", "--name", "other")
    assert not lease.exists()


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "ExpiredToken", "renew your credentials"),
        (404, "NoSuchBucket", "make the bucket"),
        (403, "QuotaExceeded", "make room or ask"),
    ],
)
def test_outcomes_that_cannot_be_put_are_kept_and_said(
    far: Place, s3_proxy: FaultProxy, status: int, code: str, hint: str
) -> None:
    watcher = far.umpteen.start(
        "run", f"echo {{n}} >> ran; {WAITS}", "n=1..6", "--name", "job", "--results", far.address,
        "--slots", "2",
        env={OPTIONS_VARIABLE: json.dumps(far.options), "UMPTEEN_STORE_PATIENCE_S": "2"},
    )  # fmt: skip
    wait_until((far.umpteen.folder / "began.2").exists)
    s3_proxy.errors, s3_proxy.status, s3_proxy.code = 1.0, status, code
    far.umpteen.write("go", "")
    kept = wait_until(lambda: list(far.umpteen.leases.glob("*/kept.jsonl")), 60)
    s3_proxy.errors = 0.0
    _, said = watcher.communicate(timeout=120)
    outcomes = [line for line in kept[0].read_text().splitlines() if "task" in json.loads(line)]
    assert len(outcomes) >= 2
    assert f"{len(outcomes)} outcomes are kept in {kept[0]}" in said
    assert f"hint: {hint}" in said
    assert list(kept[0].parent.glob("spool/*/stdout"))
    done = far.run(f"echo {{n}} >> ran; {WAITS}", "n=1..6")
    assert done.returncode == 0, said + done.stderr
    assert far.states() == {"succeeded": 6}
    assert sorted((far.umpteen.folder / "ran").read_text().split()) == list("123456")
    assert {far.open().read(f"n={n}/stdout") for n in range(1, 7)} == {
        b"%d\n" % n for n in range(1, 7)
    }


def test_outputs_that_arrived_before_the_store_refused_are_not_made_again(
    far: Place, s3_proxy: FaultProxy
) -> None:
    command, runs = "echo {n} >> ran; echo {n}", "n=1..6"

    def refuse(request: Request) -> Answer | None:
        is_record = request.method == "PUT" and "/records/" in request.path
        return refusal(400, "ExpiredToken") if is_record and is_begun() else None

    def is_begun() -> bool:
        return (far.umpteen.folder / "ran").exists()

    s3_proxy.rule = refuse
    done = far.run(command, runs, env={"UMPTEEN_STORE_PATIENCE_S": "1"})
    assert done.returncode == 3
    assert "the credentials have expired; 6 outcomes are kept" in done.stderr
    assert "hint: renew your credentials" in done.stderr
    assert not list(far.umpteen.leases.glob("*/spool/*/stdout"))
    s3_proxy.rule = None
    far.open().delete("n=6/status_code")  # of one it is not to be known that all is there
    assert far("run", command, runs, "--only", "n=2", "--name", "job", "--results", far.address)
    done = far.run(command, runs)
    assert done.returncode == 0, done.stderr
    assert far.states() == {"succeeded": 6}
    assert sorted((far.umpteen.folder / "ran").read_text().split()) == list("1234566")


def test_outcomes_are_kept_for_whoever_comes_to_the_store(far: Place, s3_proxy: FaultProxy) -> None:
    command, runs = f"echo {{n}} >> ran; {WAITS}", "n=1..4"
    watcher = far.umpteen.start(
        "run", command, runs, "--name", "job", "--results", far.address, "--slots", "4",
        env={OPTIONS_VARIABLE: json.dumps(far.options), "UMPTEEN_STORE_PATIENCE_S": "1"},
    )  # fmt: skip
    wait_until((far.umpteen.folder / "began.4").exists)
    s3_proxy.errors, s3_proxy.status, s3_proxy.code = 1.0, 400, "ExpiredToken"
    far.umpteen.write("go", "")
    watcher.communicate(timeout=120)
    s3_proxy.errors = 0.0
    env = {OPTIONS_VARIABLE: json.dumps(far.options), "UMPTEEN_STORE_PATIENCE_S": "1"}
    codes: list[int] = []

    def refuse(request: Request) -> Answer | None:
        asked.append(request.path)
        is_late = sum("/batches/" in path for path in asked) > 1  # at first slots are asked for
        return refusal(400, "ExpiredToken") if is_late and not codes else None

    asked: list[str] = []
    s3_proxy.rule = refuse
    for token in ("a" * 12, "b" * 12):  # a runner that cannot read the batch, and one that can
        runner = [*build_runner_command(), f"--token={token}", far.address, "1"]
        done = subprocess.run(
            runner, env={**far.umpteen.environment, **env, RUNNER_VARIABLE: token},
            capture_output=True, timeout=60, check=False, cwd=far.umpteen.folder,
        )  # fmt: skip
        codes.append(done.returncode)
    assert codes == [3, 0]
    assert far.states() == {"succeeded": 4}
    assert sorted((far.umpteen.folder / "ran").read_text().split()) == list("1234")


def test_outcomes_on_their_way_are_kept_where_a_lane_is_killed(
    far: Place, s3_proxy: FaultProxy
) -> None:
    command = f"echo {{n}} >> ran; {WAITS}; [ {{n}} = 1 ] || [ -e on ] || sleep 600"
    watcher = far.umpteen.start(
        "run", command, "n=1..3", "--name", "job", "--results", far.address, "--slots", "1",
        env={OPTIONS_VARIABLE: json.dumps(far.options), "UMPTEEN_STORE_PATIENCE_S": "5"},
    )  # fmt: skip
    wait_until((far.umpteen.folder / "began.1").exists)
    lane = find_runners(far.umpteen)[-1]
    s3_proxy.errors, s3_proxy.status, s3_proxy.code = 1.0, 403, "ExpiredToken"
    far.umpteen.write("go", "")
    [trouble] = wait_until(lambda: list(far.umpteen.leases.glob("*/trouble")))
    wait_until(trouble.read_text)  # so the runner has heard of it
    os.kill(lane, signal.SIGKILL)
    wait_until(lambda: list(far.umpteen.leases.glob("*/kept.jsonl")), 60)
    s3_proxy.errors = 0.0
    far.umpteen.write("on", "")
    _, said = watcher.communicate(timeout=120)
    done = far.run(command, "n=1..3")
    assert done.returncode == 0, said + done.stderr
    assert far.states() == {"succeeded": 3}
    assert (far.umpteen.folder / "ran").read_text().split().count("1") == 1
