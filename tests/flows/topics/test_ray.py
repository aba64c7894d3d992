"""A job on a real Ray cluster: coming back to it, and what dies in between."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.topics.test_shadows import check_none_imported, shadow_all
from tests.support.command import Umpteen
from tests.support.ray import RayCluster
from tests.support.store import list_records
from tests.support.wait import wait_until
from tests.sweeps.engines import KILL

WAITS = "touch began.{n}; until [ -e go ]; do sleep 0.05; done; echo {n}"
CLINGS = "echo half; (sleep 600 & setsid sleep 600 & touch began.{n}; wait)"
LIMIT_S = 90


@pytest.fixture
def on_ray(umpteen: Umpteen, ray_cluster: RayCluster) -> Iterator[list[str]]:
    """The arguments for a job on the cluster; what is left of it is ended."""
    yield ["--name", "job", "--executor", "ray", "--scheduler-address", ray_cluster.address, "-q"]
    if umpteen.store().exists():
        umpteen("cancel", "job")


def began(umpteen: Umpteen, count: int) -> bool:
    return len(list(umpteen.folder.glob("began.*"))) >= count


def wait_for_begin(umpteen: Umpteen, count: int) -> None:
    wait_until(lambda: began(umpteen, count), LIMIT_S)


def states(umpteen: Umpteen) -> Counter[str]:
    return Counter(record["state"] for record in list_records(umpteen.store()))


def list_commands(umpteen: Umpteen) -> list[int]:
    """Processes that work in the folder of the test."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cwd").readlink() == umpteen.folder:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


# --- running and coming back ------------------------------------------------------------------


def test_ray_runs_the_two_files_of_saturn_run(umpteen: Umpteen, ray_cluster: RayCluster) -> None:
    head = ray_cluster.address
    umpteen.write(
        "run.yaml",
        f"executor:\n  class_spec: RayExecutor\n  address: {head}\n"
        f"results:\n  class_spec: LocalResults\n  path: {umpteen.folder}/out/{{name}}\n",
    )
    umpteen.write("tasks.yaml", "tasks:\n- {command: echo a}\n- {command: echo b; exit 3}\n")
    done = umpteen("run", "run.yaml", "tasks.yaml", "--name", "my-job")
    assert done.returncode == 1, done.stderr
    assert (umpteen.folder / "out/my-job/0/stdout").read_text() == "a\n"
    again = umpteen("collect", "run.yaml", "--name", "my-job")
    assert "my-job: 1 succeeded, 1 failed" in again.stderr


def test_ray_imports_nothing_of_the_folder_that_it_is_typed_in(
    umpteen: Umpteen, ray_cluster: RayCluster
) -> None:
    shadow_all(umpteen.folder)
    options = {"address": ray_cluster.address, "runtime_env": {"env_vars": {"COLOUR": "green"}}}
    umpteen.write("job.json", json.dumps({"tasks": ["echo 1"], "executor": {"ray": options}}))
    done = umpteen("run", "job.json", timeout_s=120)
    assert done.returncode == 0, done.stderr
    check_none_imported(umpteen)


def test_ray_needs_nothing_of_umpteen_on_workers(ray_cluster: RayCluster) -> None:
    done = subprocess.run(
        [ray_cluster.python, "-c", "import ray, umpteen"],
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert "No module named 'umpteen'" in done.stderr


def test_ray_interrupted_goes_on_and_is_collected_from_another_shell(
    umpteen: Umpteen, on_ray: list[str]
) -> None:
    client = umpteen.start("run", WAITS, "n=1..3", *on_ray[:-1])
    wait_for_begin(umpteen, 3)
    os.killpg(client.pid, signal.SIGINT)
    _, said = client.communicate(timeout=LIMIT_S)
    assert client.returncode == 130
    assert "  watch     umpteen collect job" in said.splitlines()
    assert umpteen("status", "job").stdout.count("running") >= 1
    umpteen.write("go", "")
    done = umpteen("collect", "job", cwd=umpteen.home)
    assert done.returncode == 0, done.stderr
    assert states(umpteen) == {"succeeded": 3}


@pytest.mark.parametrize("kind", ["address", "client_address"])
def test_ray_client_killed_outright_loses_nothing(
    umpteen: Umpteen, ray_cluster: RayCluster, kind: str
) -> None:
    flags = ["--executor", "ray", "--scheduler-address", getattr(ray_cluster, kind)]
    client = umpteen.start("run", WAITS, "n=1..4", "--name", "job", "--batch-size", "1", *flags)
    wait_for_begin(umpteen, 3)
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate(timeout=LIMIT_S)
    umpteen.write("go", "")
    wait_until(lambda: states(umpteen) == {"succeeded": 4}, LIMIT_S)
    assert umpteen("collect", "job").returncode == 0


def test_ray_cancel_ends_commands_with_their_children(umpteen: Umpteen, on_ray: list[str]) -> None:
    umpteen("run", CLINGS, "n=1..5", "--batch-size", "1", "--detach", *on_ray)
    wait_for_begin(umpteen, 3)
    done = umpteen("cancel", "job")
    assert done.returncode == 0, done.stderr
    assert states(umpteen) == {"cancelled": 5}
    assert len(list(umpteen.folder.glob("began.*"))) == 3
    wait_until(lambda: not list_commands(umpteen))


def test_ray_cancel_of_one_task_leaves_the_others(umpteen: Umpteen, on_ray: list[str]) -> None:
    umpteen("run", WAITS, "n=1..5", "--batch-size", "1", "--detach", *on_ray)
    wait_for_begin(umpteen, 3)
    running = min(umpteen.folder.glob("began.*")).suffix[1:]
    assert umpteen("cancel", "job", f"n={running}").returncode == 0
    umpteen.write("go", "")
    umpteen("collect", "job", "-q")
    assert states(umpteen) == {"cancelled": 1, "succeeded": 4}


def test_ray_logs_follow_a_running_task(umpteen: Umpteen, on_ray: list[str]) -> None:
    umpteen("run", f"echo early; {WAITS}", "n=1", "--detach", *on_ray)
    wait_for_begin(umpteen, 1)
    follower = umpteen.start("logs", "job", "n=1", "--follow")
    assert follower.stdout
    assert follower.stdout.readline() == "early\n"
    umpteen.write("go", "")
    rest, _ = follower.communicate(timeout=LIMIT_S)
    assert rest == "1\n"


def test_ray_order_between_batches_and_hand_ins_is_kept(
    umpteen: Umpteen, on_ray: list[str]
) -> None:
    first = {"name": "a", "command": "touch began.a; until [ -e go ]; do sleep 0.05; done; touch a"}
    second = {"name": "b", "command": "[ -e a ] && touch b", "after": "a"}
    third = {"name": "c", "command": "[ -e b ]", "after": "b"}
    umpteen.write("job.json", json.dumps({"tasks": [first, second], "batch_size": 1}))
    umpteen("run", "job.json", "--detach", *on_ray)
    wait_for_begin(umpteen, 1)
    umpteen.write("job.json", json.dumps({"tasks": [first, second, third], "batch_size": 1}))
    umpteen("run", "job.json", "--detach", *on_ray)
    umpteen.write("go", "")
    assert umpteen("collect", "job").returncode == 0
    assert states(umpteen) == {"succeeded": 3}


# --- what dies --------------------------------------------------------------------------------


def test_ray_worker_killed_runs_again_what_had_not_ended_and_nothing_else(
    umpteen: Umpteen, ray_cluster: RayCluster, on_ray: list[str]
) -> None:
    command = "echo {n} >> ran.{n}; [ {n} = 1 ] || until [ -e go ]; do sleep 0.05; done"
    umpteen("run", command, "n=1..2", "--batch-size", "2", "--detach", *on_ray)
    second = umpteen.folder / "ran.2"
    wait_until(second.exists, LIMIT_S)
    wait_until(lambda: states(umpteen)["succeeded"] == 1)
    before = list_commands(umpteen)
    (worker,) = ray_cluster.list_pids("ray::run_batch")
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not set(before) & set(list_commands(umpteen)), 5)
    wait_until(lambda: second.read_text() == "2\n2\n", LIMIT_S)
    umpteen.write("go", "")
    assert umpteen("collect", "job").returncode == 0
    assert (umpteen.folder / "ran.1").read_text() == "1\n"
    won = [r["task"] for r in list_records(umpteen.store()) if r["state"] == "succeeded"]
    assert sorted(won) == [0, 1]


def test_ray_tasks_that_kill_their_worker_are_stopped_and_named(
    umpteen: Umpteen, on_ray: list[str]
) -> None:
    umpteen.write("kill.sh", KILL)
    command = "echo {n} >> ran; [ {n} = 1 ] || [ {n} = 4 ] || sh kill.sh 4"
    done = umpteen("run", command, "n=1..4", "--batch-size", "4", *on_ray[:-1], timeout_s=120)
    assert done.returncode == 1, done.stderr
    assert re.findall(r"n=(\d) +killed its runner", done.stderr) == ["2", "3"]
    ran = Counter((umpteen.folder / "ran").read_text().split())
    assert ran == {"1": 1, "2": 3, "3": 3, "4": 1}


def test_ray_actor_killed_comes_back_and_hands_in_the_rest(
    umpteen: Umpteen, ray_cluster: RayCluster, on_ray: list[str]
) -> None:
    umpteen("run", WAITS, "n=1..4", "--batch-size", "1", "--detach", *on_ray)
    wait_for_begin(umpteen, 3)
    before = set(list_commands(umpteen))
    for owner in ray_cluster.list_pids("ray::Owner"):
        os.kill(owner, signal.SIGKILL)
    wait_until(lambda: not before & set(list_commands(umpteen)), LIMIT_S)
    umpteen.write("go", "")
    wait_until(lambda: states(umpteen)["succeeded"] == 4, LIMIT_S)
    assert umpteen("collect", "job").returncode == 0


@pytest.mark.slow
def test_ray_head_killed_and_started_again_goes_on_with_the_rest(
    umpteen: Umpteen, ray_cluster: RayCluster, on_ray: list[str]
) -> None:
    command = "echo {n} >> ran.{n}; [ {n} = 1 ] || until [ -e go ]; do sleep 0.05; done"
    client = umpteen.start("run", command, "n=1..4", "--batch-size", "2", *on_ray)
    wait_until(lambda: states(umpteen)["succeeded"] == 1, LIMIT_S)
    ray_cluster.kill()
    wait_until(lambda: not set(list_commands(umpteen)) - {client.pid}, 5)
    ray_cluster.start()
    umpteen.write("go", "")
    _, said = client.communicate(timeout=60)
    assert client.returncode == 0, said
    assert states(umpteen)["succeeded"] == 4
    assert (umpteen.folder / "ran.1").read_text() == "1\n"


# --- what batches need ------------------------------------------------------------------------


def test_ray_tasks_get_what_they_need(umpteen: Umpteen, ray_cluster: RayCluster) -> None:
    tasks = {
        "command": "echo $CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS $COLOUR $DEPTH",
        "gpus": 1,
        "cpus": 2,
    }
    environment = {"env_vars": {"COLOUR": "green", "DEPTH": 4}}
    executor = {"ray": {"address": ray_cluster.address, "runtime_env": environment}}
    umpteen.write("job.json", json.dumps({"executor": executor, "tasks": [tasks]}))
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[01] 2 green 4\n", umpteen("logs", "job", "0").stdout)


def test_ray_task_that_no_machine_has_the_cpus_for_is_refused_before_anything_runs(
    umpteen: Umpteen, on_ray: list[str]
) -> None:
    for more in ([], ["--dry-run"]):
        done = umpteen("run", "touch ran", "--name", "job", "--cpus", "4", *on_ray, *more)
        assert done.returncode == 2, done.stderr
        assert "needs 4 cpus; a worker of ray has at most 3" in done.stderr
        assert "hint: start machines with 4 CPUs" in done.stderr
    assert not umpteen.store().exists()


def test_ray_tasks_share_no_cpus_of_a_batch_against_their_own(
    umpteen: Umpteen, on_ray: list[str]
) -> None:
    hold = "mkdir held || exit 9; sleep 0.2; rmdir held; echo {n}"
    flags = ("--slots", "2", "--cpus", "2", "--name", "job")
    done = umpteen("run", hold, "n=1..4", *flags, *on_ray)
    assert done.returncode == 0, done.stderr


def test_ray_without_room_ends_at_the_limit_and_says_why(
    umpteen: Umpteen, ray_cluster: RayCluster
) -> None:
    executor = {"address": ray_cluster.address, "resources": {"licence": 1}, "worker_timeout": "2s"}
    umpteen.write("job.json", json.dumps({"executor": {"ray": executor}, "tasks": ["true"]}))
    done = umpteen("run", "job.json")
    assert done.returncode == 3
    assert "waiting for room: no machine of the Ray cluster has CPU: 1, licence: 1" in done.stderr
    assert "error: no machine of the Ray cluster has CPU: 1, licence: 1 after 2 s" in done.stderr


def test_ray_worker_that_cannot_work_ends_the_job_with_its_reason(
    umpteen: Umpteen, ray_cluster: RayCluster
) -> None:
    environment = {"env_vars": {"UMPTEEN_LEASES": "/proc/none"}}
    executor = {"ray": {"address": ray_cluster.address, "runtime_env": environment}}
    umpteen.write("job.json", json.dumps({"executor": executor, "tasks": ["true"]}))
    done = umpteen("run", "job.json")
    assert done.returncode == 3
    assert "cannot write /proc/none" in done.stderr


# --- errors -----------------------------------------------------------------------------------


def test_ray_address_where_nobody_listens_is_an_error_at_once(umpteen: Umpteen) -> None:
    done = umpteen("run", "true", "--executor", "ray", "--scheduler-address", "127.0.0.1:1")
    assert done.returncode == 3
    assert done.stderr.endswith(
        "error: the Ray cluster at 127.0.0.1:1 does not answer: Connection refused\n\n"
        "hint: start it with `ray start --head`, or give its address; "
        "from a machine that is none of its own: ray://HOST:10001\n"
    )
    assert not list(umpteen.folder.glob("umpteen-results/*/.umpteen/batches/*"))


@pytest.mark.parametrize(
    "environment", [{"env_vars": ["COLOUR"]}, {"py_modules": ["/no/such"]}, {"colour": "green"}]
)
def test_ray_runtime_env_that_is_wrong_is_refused_before_anything_is_handed_in(
    umpteen: Umpteen, ray_cluster: RayCluster, environment: dict[str, object]
) -> None:
    executor = {"ray": {"address": ray_cluster.address, "runtime_env": environment}}
    umpteen.write("job.json", json.dumps({"executor": executor, "tasks": ["true"]}))
    done = umpteen("run", "job.json")
    assert done.returncode == 2, done.stderr
    assert "the option 'runtime_env' of 'ray' is not as Ray wants it" in done.stderr
    assert any(word in done.stderr for word in ("env_vars", "/no/such", "colour"))
    assert not list(umpteen.store().glob(".umpteen/batches/*"))


def test_ray_needs_that_ray_does_not_take_end_the_run(
    umpteen: Umpteen, ray_cluster: RayCluster
) -> None:
    executor = {"ray": {"address": ray_cluster.address, "resources": {"TPU": 3}}}
    umpteen.write("job.json", json.dumps({"executor": executor, "tasks": ["true", "true"]}))
    done = umpteen("run", "job.json")
    assert done.returncode == 3, done.stderr
    assert "Ray gave it up" in done.stderr
    assert "TPU" in done.stderr
    wait_until(lambda: not ray_cluster.list_pids("ray::Owner"), LIMIT_S)


def test_ray_address_of_something_else_is_an_error_within_15_s(umpteen: Umpteen) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        began_s = time.monotonic()
        done = umpteen("run", "true", "--executor", "ray", "--scheduler-address", address)
    assert time.monotonic() - began_s < 15
    assert done.returncode == 3
    assert f"error: the Ray cluster at {address} does not answer" in done.stderr


def test_ray_of_another_version_is_named(umpteen: Umpteen, ray_cluster: RayCluster) -> None:
    place = umpteen.write("path/sitecustomize.py", "import ray\nray.__version__ = '2.9.0'\n")
    flags = ("--executor", "ray", "--scheduler-address", ray_cluster.address)
    done = umpteen("run", "true", *flags, env={"PYTHONPATH": str(place.parent)})
    assert done.returncode == 3
    assert f"error: the Ray cluster at {ray_cluster.address} has Ray 2." in done.stderr
    assert "here are Ray 2.9.0 and Python 3." in done.stderr


def test_ray_local_is_refused_and_ray_start_named(umpteen: Umpteen) -> None:
    done = umpteen("run", "true", "--executor", "ray", "--scheduler-address", "local")
    assert done.returncode == 2
    assert (
        "error: umpteen makes no Ray cluster itself\n\nhint: start one with `ray start --head`"
        in (done.stderr)
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"adress": "x"},
            "the executor 'ray' has no option 'adress'\n\nhint: did you mean 'address'",
        ),
        ({"resources": {"bundle": 1}}, "'bundle' is none of the custom resources of 'ray'"),
        ({"resources": {"GPU": 1}}, "'GPU' is none of the custom resources of 'ray'"),
        ({"resources": {"licence": "one"}}, "'licence' of the executor 'ray' must be a number"),
        ({"runtime_env": "green"}, "the option 'runtime_env' of 'ray' must be names with values"),
        ({"runtime_env": {"working_dir": "."}}, "do not run in the working_dir"),
    ],
)
def test_ray_options_that_are_wrong_are_refused(
    umpteen: Umpteen, options: dict[str, object], said: str
) -> None:
    umpteen.write("job.json", json.dumps({"executor": {"ray": options}, "tasks": ["true"]}))
    done = umpteen("run", "job.json", "--dry-run")
    assert done.returncode == 2
    assert said in done.stderr
