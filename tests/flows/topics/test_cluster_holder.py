"""Clusters that umpteen makes itself: how long they live, and what becomes of their jobs."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter

import pytest

from tests.flows.topics.test_dask import WAIT, finish, read_lines, states, write_job
from tests.support.command import Umpteen
from tests.support.processes import list_processes
from tests.support.store import list_records
from tests.support.wait import wait_until

# As those of a cloud, which take their time for both.
SLOW = """
import os, pathlib, time
from distributed import LocalCluster

class Slow(LocalCluster):
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        (self.folder / f"making.{os.getpid()}").touch()
        self.wait_for("make")
        super().__init__(n_workers=1, threads_per_worker=1, dashboard_address=":0")

    def __exit__(self, *error):
        (self.folder / f"closing.{os.getpid()}").touch()
        self.wait_for("close")
        super().__exit__(*error)
        (self.folder / f"gone.{os.getpid()}").touch()

    def wait_for(self, name):
        while not (self.folder / name).exists():
            time.sleep(0.05)
"""


def build_options(threads: int, **more: object) -> dict[str, object]:
    """Of the executor, for a LocalCluster with one worker."""
    kwargs = {"n_workers": 1, "threads_per_worker": threads, "dashboard_address": ":0", **more}
    return {"cluster_class": "LocalCluster", "cluster_kwargs": kwargs}


def write_slow_job(umpteen: Umpteen, *tasks: str) -> dict[str, str]:
    """`job.json` on a cluster that is there once there is a file `make`, and gone after `close`.

    Gives what has to be in the environment.
    """
    umpteen.write("packages/slow.py", SLOW)
    kwargs = {"folder": str(umpteen.folder)}
    write_job(umpteen, {"cluster_class": "slow.Slow", "cluster_kwargs": kwargs}, *tasks)
    return {"PYTHONPATH": str(umpteen.folder / "packages")}


def find_holders(umpteen: Umpteen) -> list[int]:
    return [
        pid for pid, c in list_processes(umpteen).items() if b"umpteen.executors.dask.cluster" in c
    ]


def count(umpteen: Umpteen, pattern: str) -> int:
    return len(list(umpteen.folder.glob(pattern)))


def test_cluster_holder_outlives_its_clients_and_ends_when_all_is_done(umpteen: Umpteen) -> None:
    write_job(
        umpteen,
        build_options(2) | {"cluster_class": "distributed.LocalCluster"},
        *(f"touch began.{n}; {WAIT}" for n in range(3)),
    )
    first = umpteen.start("run", "job.json")
    wait_until((umpteen.folder / "began.1").exists)
    os.killpg(first.pid, signal.SIGINT)
    assert "umpteen collect job" in finish(first, 130)
    second = umpteen.start("collect", "job")
    assert second.stderr
    assert second.stderr.readline().startswith("job: 3 tasks")
    os.killpg(second.pid, signal.SIGKILL)
    finish(second, -signal.SIGKILL)
    umpteen.write("go", "")
    done = umpteen("collect", "job")
    assert done.returncode == 0, done.stderr
    assert [record["attempt"] for record in list_records(umpteen.store())] == [1] * 3
    wait_until(lambda: not list_processes(umpteen), 30)
    assert umpteen("status", "job").returncode == 0


def test_cluster_holder_that_is_killed_is_followed_by_another(umpteen: Umpteen) -> None:
    kwargs = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": ":0"}
    options = {"cluster_class": "LocalCluster", "cluster_kwargs": kwargs}
    tasks = [f"touch began.{n}; {WAIT}; echo {n} >> ran" for n in range(1, 3)]
    write_job(umpteen, options, "echo 0 >> ran", *tasks, batch_size=1)
    running = umpteen.start("run", "job.json")
    wait_until(lambda: (umpteen.folder / "began.1").exists() and list_records(umpteen.store()))
    os.kill(find_holders(umpteen)[0], signal.SIGKILL)
    umpteen.write("go", "")
    finish(running)
    assert Counter(read_lines(umpteen, "ran")) == {"0": 1, "1": 1, "2": 1}


def test_cluster_holder_that_is_told_to_end_leaves_a_job_that_is_known_to_be_unfinished(
    umpteen: Umpteen,
) -> None:
    write_job(umpteen, build_options(1), f"touch began; {WAIT}", "true", batch_size=1)
    assert umpteen("run", "job.json", "--detach").returncode == 0
    wait_until((umpteen.folder / "began").exists)
    os.kill(find_holders(umpteen)[0], signal.SIGTERM)
    wait_until(lambda: not list_processes(umpteen), 30)
    assert json.loads(umpteen("status", "job", "--json").stdout)["state"] == "unfinished"
    umpteen.write("go", "")
    done = umpteen("collect", "job", timeout_s=30)
    assert done.returncode == 0, done.stderr
    assert "does not answer" not in done.stderr


def test_cluster_holder_that_is_told_twice_to_end_closes_its_cluster_once(umpteen: Umpteen) -> None:
    umpteen.write("make", "")
    env = write_slow_job(umpteen, f"touch began; {WAIT}")
    assert umpteen("run", "job.json", "--detach", env=env).returncode == 0
    wait_until((umpteen.folder / "began").exists)
    (holder,) = find_holders(umpteen)
    os.kill(holder, signal.SIGTERM)
    wait_until(lambda: count(umpteen, "closing.*") == 1)
    os.kill(holder, signal.SIGTERM)
    umpteen.write("close", "")
    wait_until(lambda: not list_processes(umpteen), 30)
    assert count(umpteen, "gone.*") == 1


def test_interrupt_ends_a_cluster_that_is_being_made(umpteen: Umpteen) -> None:
    env = write_slow_job(umpteen, "true")
    running = umpteen.start("run", "job.json", env=env)
    assert running.stderr
    assert running.stderr.readline() == "starting slow.Slow, 3 s\n"
    os.killpg(running.pid, signal.SIGINT)
    finish(running, 130, 10)
    wait_until(lambda: not list_processes(umpteen))
    umpteen.write("make", "")
    umpteen.write("close", "")
    done = umpteen("run", "job.json", env=env)
    assert done.returncode == 0, done.stderr


def test_cluster_that_is_being_made_is_found_by_the_next(umpteen: Umpteen) -> None:
    env = write_slow_job(umpteen, "true")
    first = umpteen.start("run", "job.json", env=env)
    wait_until(lambda: count(umpteen, "making.*") == 1)
    os.killpg(first.pid, signal.SIGKILL)
    finish(first, -signal.SIGKILL)
    second = umpteen.start("run", "job.json", env=env)
    assert second.stderr
    assert second.stderr.readline().startswith("starting slow.Slow")
    umpteen.write("make", "")
    umpteen.write("close", "")
    finish(second)
    assert count(umpteen, "making.*") == 1
    wait_until(lambda: not list_processes(umpteen), 30)


def test_cluster_that_is_being_closed_is_given_no_more(umpteen: Umpteen) -> None:
    umpteen.write("make", "")
    env = write_slow_job(umpteen, "true")
    assert umpteen("run", "job.json", env=env).returncode == 0
    wait_until(lambda: count(umpteen, "closing.*") == 1, 30)
    env = write_slow_job(umpteen, "true", "echo $UMPTEEN_TASK_NAME")
    assert umpteen("run", "job.json", "--detach", env=env).returncode == 0
    assert count(umpteen, "making.*") == 2
    umpteen.write("close", "")
    done = umpteen("collect", "job", env=env)
    assert done.returncode == 0, done.stderr
    assert states(umpteen) == {"succeeded": 2}


def test_cluster_within_one_process_is_refused(umpteen: Umpteen) -> None:
    write_job(umpteen, build_options(1, processes=False), "true")
    done = umpteen("run", "job.json")
    assert done.returncode == 3
    assert "its scheduler is within one process" in done.stderr
    wait_until(lambda: not list_processes(umpteen))


@pytest.mark.parametrize("name", ["n_workers", "threads_per_worker"])
def test_cluster_may_choose_its_size(umpteen: Umpteen, name: str) -> None:
    write_job(umpteen, build_options(1, **{name: None}), "true")
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
