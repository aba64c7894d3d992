"""What running tasks print, as objects in its place where the results are in no folder."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import umpteen as api
from tests.support.command import Umpteen
from tests.support.processes import find_runners
from tests.support.proxy import FaultProxy
from tests.support.s3 import S3
from tests.support.sftp import Sftp
from tests.support.wait import wait_until
from umpteen.store.address import OPTIONS_VARIABLE, open_store
from umpteen.store.base import Store

WAITS = "echo begun $UMPTEEN_ATTEMPT; echo e >&2; until [ -e {0} ]; do sleep 0.05; done; echo end"


class Job:
    """A job whose results are far, `job.json`, and its store."""

    def __init__(self, umpteen: Umpteen, address: str, options: dict[str, Any]) -> None:
        self.umpteen, self.address = umpteen, address
        self.env = {OPTIONS_VARIABLE: json.dumps(options)}
        self.store = open_store(address, options)

    def write(self, *tasks: Any, **results: Any) -> None:
        place = {"s3_url": self.address, "live": True} | results
        self.umpteen.write("job.json", json.dumps({"tasks": tasks, "results": place}))

    def start(self, *flags: str) -> Any:
        return self.umpteen.start("run", "job.json", *flags, env=self.env)

    def run(self, *flags: str) -> Any:
        return self.umpteen("run", "job.json", *flags, env=self.env)

    def read(self, key: str) -> bytes:
        return self.store.read(key) or b""

    def go(self, name: str) -> None:
        self.umpteen.write(name, "")


@pytest.fixture(params=["s3", "sftp"])
def job(request: pytest.FixtureRequest, umpteen: Umpteen) -> Iterator[Job]:
    found: S3 | Sftp = request.getfixturevalue(request.param)
    job = Job(umpteen, found.address, found.options)
    yield job
    job.store.close()


def list_outputs(store: Store, task: str) -> set[str]:
    return {name for name, _ in store.walk(task)}


def test_outputs_of_a_running_task_are_in_their_place(job: Job) -> None:
    job.write(WAITS.format("go"))
    process = job.start()
    wait_until(lambda: job.read("0/stdout") == b"begun 1\n" and job.read("0/stderr") == b"e\n", 30)
    assert list_outputs(job.store, "0") == {"stdout", "stderr"}
    assert job.umpteen("logs", job.address, "0", env=job.env).stdout == "begun 1\n"
    job.go("go")
    assert process.communicate(timeout=60)[1] is not None
    assert job.read("0/stdout") == b"begun 1\nend\n"
    assert list_outputs(job.store, "0") == {"stdout", "stderr", "status_code"}


@pytest.mark.parametrize(
    ("results", "is_live"),
    [
        ({"class_spec": "S3Results"}, True),
        ({"class_spec": "S3Results", "live": False}, False),
        ({}, False),
    ],
)
def test_it_is_so_by_default_where_saturn_run_does_it(
    umpteen: Umpteen, s3: S3, results: dict[str, Any], *, is_live: bool
) -> None:
    place = {"s3_url": s3.address, **results}
    umpteen.write("job.json", json.dumps({"tasks": ["true"], "results": place}))
    env = {OPTIONS_VARIABLE: json.dumps(s3.options)}
    assert umpteen("run", "job.json", env=env).returncode == 0
    store = open_store(s3.address, s3.options)
    batch = json.loads(store.read(".umpteen/batches/1.json") or b"")
    assert batch["umpteen"].get("live", False) is is_live
    store.close()


def test_who_follows_has_them_there_too(umpteen: Umpteen, s3: S3) -> None:
    job = Job(umpteen, s3.address, s3.options)
    job.write(WAITS.format("go"), WAITS.format("go"), live=False)
    process = job.start("--slots", "2")
    wait_until(lambda: job.store.names(".umpteen/running/1"), 30)
    follower = umpteen.start("logs", job.address, "0", "--follow", env=job.env)
    wait_until(lambda: job.read("0/stdout") == b"begun 1\n", 60)
    assert list_outputs(job.store, "1") == set()
    job.go("go")
    assert follower.communicate(timeout=60)[0] == "begun 1\nend\n"
    process.communicate(timeout=60)
    job.store.close()


def test_earlier_attempt_is_moved_first_and_a_lost_one_is_not_taken_for_it(job: Job) -> None:
    job.write("echo first")
    assert job.run().returncode == 0
    job.write({"command": WAITS.format("go"), "name": "0"})
    process = job.start()
    wait_until(lambda: job.read("0/stdout") == b"begun 2\n", 30)
    assert "0/status_code" not in list_outputs(job.store, "")
    for pid in find_runners(job.umpteen):
        os.kill(pid, signal.SIGKILL)
    process.kill()
    process.communicate()
    (kept,) = {name.split("/")[2] for name in list_outputs(job.store, "") if "/attempts/" in name}
    assert job.read(f"0/attempts/{kept}/stdout") == b"first\n"
    said = json.loads(job.umpteen("logs", job.address, "0", "--json", env=job.env).stdout)
    assert said["attempts"][0]["stdout"] == "first\n"
    os.environ.update(job.env)
    try:
        assert api.open_job(job.address)["0"].stdout == "first\n"
    finally:
        del os.environ[OPTIONS_VARIABLE]
    job.write({"command": "printf x", "name": "0"})
    assert job.run().returncode == 0
    assert (job.read("0/stdout"), job.read("0/stderr")) == (b"x", b"")
    assert job.read("0/status_code") == b"0"
    assert job.read(f"0/attempts/{kept}/stdout") == b"first\n"


def test_attempt_that_is_tried_again_leaves_nothing_of_itself(job: Job) -> None:
    command = f"{WAITS.format('go.$UMPTEEN_ATTEMPT')}; [ $UMPTEEN_ATTEMPT = 2 ]"
    retries = {"when": "failed", "times": 1, "wait": 0}
    job.write({"command": command, "retries": retries})
    process = job.start()
    wait_until(lambda: job.read("0/stdout") == b"begun 1\n", 30)
    job.go("go.1")
    wait_until(lambda: job.read("0/stdout") == b"begun 2\n", 30)
    job.go("go.2")
    process.communicate(timeout=60)
    assert job.read("0/stdout") == b"begun 2\nend\n"
    (kept,) = {name.split("/")[1] for name in list_outputs(job.store, "0") if "attempts" in name}
    assert job.read(f"0/attempts/{kept}/stdout") == b"begun 1\nend\n"


def test_what_prints_nothing_new_is_not_put_again(
    umpteen: Umpteen, s3: S3, s3_proxy: FaultProxy
) -> None:
    job = Job(umpteen, s3.address, s3.through(s3_proxy.port))
    job.write(WAITS.format("go"))
    process = job.start()

    def count(name: str) -> int:
        puts = [path for method, path in s3_proxy.requests if method == "PUT"]
        return sum(path.partition("?")[0].endswith(name) for path in puts)

    wait_until(lambda: count("/0/stderr") == 1, 30)
    shown = count("/running/1/")
    wait_until(lambda: sum("/running/" in path for _, path in s3_proxy.requests) > shown + 2, 60)
    assert (count("/0/stdout"), count("/0/stderr")) == (1, 1)
    job.go("go")
    process.communicate(timeout=60)
    assert (count("/0/stdout"), count("/0/stderr")) == (2, 2)
    job.store.close()


def test_last_line_of_stderr_is_read_where_it_is(job: Job) -> None:
    job.write("echo why it failed >&2; exit 3")
    assert "why it failed" in job.run().stderr
    assert "why it failed" in job.umpteen("status", job.address, env=job.env).stdout
