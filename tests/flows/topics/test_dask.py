"""Jobs on Dask: how a cluster is found, and what becomes of a job when parts of it die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.dask import DaskCluster
from tests.support.processes import list_processes
from tests.support.ray import make_python
from tests.support.s3 import S3
from tests.support.store import list_records, read_record
from tests.support.wait import wait_until
from tests.sweeps.engines import KILL
from umpteen.store.address import OPTIONS_VARIABLE, open_store

# As a notebook runs a cell; what others log stays theirs to choose.
IN_A_LOOP = """
import asyncio, distributed, gc, logging, sys, time
import umpteen

async def main():
    options = {"dask": {"scheduler_address": sys.argv[1]}}
    job = umpteen.run(["true"], name="job", executor=options, progress=False)
    print(job.status().state, logging.getLogger("asyncio").getEffectiveLevel(), flush=True)
    clients = [one for one in gc.get_objects() if isinstance(one, distributed.Client)]
    while any(client.status == "running" for client in clients):
        time.sleep(0.01)

logging.getLogger("asyncio").setLevel(logging.INFO)
asyncio.run(main())
"""
WAIT = "until [ -e go ]; do sleep 0.05; done"


def write_job(
    umpteen: Umpteen, options: dict[str, Any] | DaskCluster, *tasks: Any, **settings: Any
) -> None:
    """`job.json` for a cluster, or for these options of the executor."""
    if isinstance(options, DaskCluster):
        options = {"scheduler_address": options.address}
    listed = [{"command": task} if isinstance(task, str) else task for task in tasks]
    content = {"executor": {"dask": options}, "tasks": listed, **settings}
    umpteen.write("job.json", json.dumps(content))


def read_lines(umpteen: Umpteen, name: str) -> list[str]:
    path = umpteen.folder / name
    return path.read_text().split() if path.exists() else []


def is_alive(pid: str) -> bool:
    """Whether a process runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def finish(running: subprocess.Popen[str], code: int = 0, limit_s: float = 60) -> str:
    """What it says on stderr until it ends with that code."""
    _, said = running.communicate(timeout=limit_s)
    assert running.returncode == code, said
    return said


def states(umpteen: Umpteen) -> Counter[str]:
    counts = json.loads(umpteen("status", "job", "--json").stdout)["counts"]
    return Counter({state: count for state, count in counts.items() if count})


# --- which cluster ------------------------------------------------------------------------------


def test_slash_behind_the_address_changes_nothing(
    umpteen: Umpteen, dask_cluster: DaskCluster
) -> None:
    address = f"{dask_cluster.address}/"
    done = umpteen("run", "true", "--executor", "dask", "--scheduler-address", address)
    assert done.returncode == 0, done.stderr
    done = umpteen("run", "false", "--executor", "dask", env={"DASK_SCHEDULER_ADDRESS": address})
    assert done.returncode == 1, done.stderr


def test_flags_name_the_cluster(umpteen: Umpteen, dask_cluster: DaskCluster) -> None:
    flags = ("--executor", "dask", "--scheduler-address", dask_cluster.address)
    done = umpteen("run", "echo $WORKER", "n=1..3", "--name", "job", *flags)
    assert done.returncode == 0, done.stderr
    assert "on dask" in done.stderr
    assert (umpteen.store() / "n=1/stdout").read_text() in ("w0\n", "w1\n")


@pytest.mark.parametrize("variable", ["DASK_SCHEDULER_ADDRESS", "DASK_CONFIG"])
def test_configuration_of_dask_names_the_cluster(
    umpteen: Umpteen, dask_cluster: DaskCluster, variable: str
) -> None:
    given = dask_cluster.address
    if variable == "DASK_CONFIG":
        given = str(umpteen.write("dask.yaml", f"scheduler-address: {given}\n"))
    done = umpteen("run", "true", "--name", "job", "--executor", "dask", env={variable: given})
    assert done.returncode == 0, done.stderr


def make_certificate(folder: Path, name: str, openssl: str) -> tuple[str, str]:
    """A certificate, which signed itself, and its key."""
    cert, key = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    named = ["-subj", f"/CN={name}", "-keyout", key, "-out", cert]
    subprocess.run(
        [openssl, "req", "-x509", *made, *named, "-days", "2"], capture_output=True, check=True
    )
    return cert, key


def trust(cert: str, key: str) -> dict[str, str]:
    """Dask's variables for a client."""
    tls = "DASK_DISTRIBUTED__COMM__TLS"
    return {f"{tls}__CA_FILE": cert, f"{tls}__CLIENT__CERT": cert, f"{tls}__CLIENT__KEY": key}


def test_tls_as_dask_is_configured_and_wrong_tls_is_said(
    umpteen: Umpteen, own_cluster: DaskCluster, tmp_path: Path, need: Callable[[str], str]
) -> None:
    right, wrong = (make_certificate(tmp_path, n, need("openssl")) for n in ("right", "wrong"))
    own_cluster.protocol = "tls"
    own_cluster.options = [f"--tls-ca-file={right[0]}", f"--tls-cert={right[0]}"]
    own_cluster.options.append(f"--tls-key={right[1]}")
    own_cluster.start()
    own_cluster.add_worker()
    flags = ("--name", "job", "--executor", "dask", "--scheduler-address")
    done = umpteen("run", "true", *flags, own_cluster.address, env=trust(*right))
    assert done.returncode == 0, done.stderr

    plain = own_cluster.address.replace("tls:", "tcp:")
    began_s = time.monotonic()
    bad = [
        umpteen.start("run", "true", "n=1,2", *flags, address, env=env)
        for address, env in (
            (own_cluster.address, {}),
            (own_cluster.address, trust(*wrong)),
            (plain, trust(*right)),
        )
    ]
    for running in bad:
        said = finish(running, 3)
        assert "tls" in said.lower(), said
        assert "Traceback" not in said
    assert time.monotonic() - began_s < 15 + 3


def test_wrong_address_is_said_within_15_s(umpteen: Umpteen) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        addresses = {
            f"tcp://127.0.0.1:{silent.getsockname()[1]}": "does not answer",
            "tcp://127.0.0.1:1": "refused",
            "tcp://no-such-host.invalid:8786": "does not answer",
        }
        began_s = time.monotonic()
        flags = ("--executor", "dask", "--scheduler-address")
        started = [
            (umpteen.start("run", "true", "--name", f"job{n}", *flags, address), address, needle)
            for n, (address, needle) in enumerate(addresses.items())
        ]
        for running, address, needle in started:
            said = finish(running, 3)
            assert address in said
            assert needle in said
            assert "hint: " in said
        assert time.monotonic() - began_s < 15


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({"scheduler_address": "tcp://127.0.0.1:notaport"}, "write tcp://HOST:8786"),
        ({"scheduler_address": "http://127.0.0.1:8786"}, "write tcp://HOST:8786"),
        ({"scheduler_address": "tcp://127.0.0.1:1", "resources": {"GPU": "1"}}, "'GPU'"),
    ],
)
def test_options_that_are_wrong_are_refused(
    umpteen: Umpteen, options: dict[str, Any], needle: str
) -> None:
    write_job(umpteen, options, "true")
    done = umpteen("run", "job.json")
    assert done.returncode == 2
    assert needle in done.stderr
    assert not umpteen.store().exists()


def test_cluster_that_cannot_be_made_says_why(umpteen: Umpteen) -> None:
    options = {"cluster_class": "LocalCluster", "cluster_kwargs": {"n_wrkers": 2}}
    write_job(umpteen, options, "true")
    done = umpteen("run", "job.json")
    assert done.returncode == 3
    assert "n_wrkers" in done.stderr
    assert not list_processes(umpteen)


# --- workers ------------------------------------------------------------------------------------


def test_resources_choose_the_worker(umpteen: Umpteen, own_cluster: DaskCluster) -> None:
    own_cluster.start()
    own_cluster.add_worker(threads=2)
    own_cluster.add_worker(resources="LICENCE=1")
    options = {"scheduler_address": own_cluster.address, "resources": {"LICENCE": 1}}
    write_job(umpteen, options, *["echo $WORKER >> ran"] * 6, batch_size=1)
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    assert read_lines(umpteen, "ran") == ["w1"] * 6


def test_resources_that_no_worker_has_are_waited_for_as_long_as_is_said(
    umpteen: Umpteen, dask_cluster: DaskCluster
) -> None:
    address = dask_cluster.address
    options = {"scheduler_address": address, "resources": {"MOON": 1}, "worker_timeout": "2s"}
    write_job(umpteen, options, {"command": "true", "gpus": 1})
    done = umpteen("run", "job.json")
    assert done.returncode == 3
    reason = "waiting for workers: no worker of the Dask cluster has free GPU: 1, MOON: 1"
    assert reason in done.stderr
    assert "after 2 s" in done.stderr
    assert "worker_timeout" in done.stderr
    assert "unfinished" in umpteen("status", "job").stdout  # and nothing waits there any more


def test_workers_that_come_later_are_waited_for(umpteen: Umpteen, own_cluster: DaskCluster) -> None:
    own_cluster.start()
    write_job(umpteen, own_cluster, "echo $WORKER")
    running = umpteen.start("run", "job.json")
    assert running.stderr
    wait_until(lambda: running.stderr and "has no workers yet" in running.stderr.readline())
    assert "has no workers yet" in umpteen("status", "job").stdout
    own_cluster.add_worker()
    finish(running)
    assert (umpteen.store() / "0/stdout").read_text() == "w0\n"


def test_slots_have_a_worker_run_one_batch_at_a_time(
    umpteen: Umpteen, dask_cluster: DaskCluster
) -> None:
    # Of one batch two at once, and none of another: each takes the worker for itself.
    take = "mkdir -p $WORKER.{0}; [ $(ls -d $WORKER.* | wc -l) = 1 ] || exit 9"
    meet = "touch {0}.{1}; until [ -e {0}.0 ] && [ -e {0}.1 ]; do sleep 0.05; done"
    tasks = [
        f"{take}; {meet}; mkdir over.{{0}} 2> /dev/null || rmdir $WORKER.{{0}}".format(batch, slot)
        for batch in range(6)
        for slot in range(2)
    ]
    write_job(umpteen, dask_cluster, *tasks, slots=2, batch_size=2)
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    assert len(list(umpteen.store().glob(".umpteen/records/*"))) == 6


def test_slots_give_a_batch_that_waits_to_a_worker_that_is_free(
    umpteen: Umpteen, own_cluster: DaskCluster
) -> None:
    own_cluster.start()
    own_cluster.add_worker(threads=2)
    write_job(umpteen, own_cluster, f"touch began; {WAIT}", "echo $WORKER; touch go",
              slots=2, batch_size=1)  # fmt: skip
    running = umpteen.start("run", "job.json")
    wait_until((umpteen.folder / "began").exists)
    own_cluster.add_worker()
    finish(running)
    assert (umpteen.store() / "1/stdout").read_text() == "w1\n"


# Takes as many files of its worker as it needs cores, and fails where these are too many.
TAKE = """
[ $WORKER = w0 ] && threads=1 || threads=2
for n in $(seq {0}); do mktemp $WORKER.core.XXXXXX >> $UMPTEEN_RESULTS_DIR/cores; done
ls -d $WORKER.core.* | wc -l | {{ read taken; [ $taken -le $threads ] || exit 9; }} || exit
sleep 0.2
rm $(cat $UMPTEEN_RESULTS_DIR/cores)
"""


def test_tasks_share_no_cores_of_a_worker_against_their_cpus(
    umpteen: Umpteen, dask_cluster: DaskCluster
) -> None:
    wide = [{"command": TAKE.format(2), "cpus": 2, "tags": ["wide"]} for _ in range(4)]
    plain = [{"command": TAKE.format(1)} for _ in range(6)]
    write_job(umpteen, dask_cluster, *wide[:2], *plain, *wide[2:], batch_size=1)
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("flags", "hint"),
    [([], "start workers with --nthreads 99"), (["--slots", "2"], "start workers on machines")],
)
def test_task_that_no_worker_has_the_cores_for_is_refused_before_anything_runs(
    umpteen: Umpteen, dask_cluster: DaskCluster, flags: list[str], hint: str
) -> None:
    write_job(umpteen, dask_cluster, "touch ran", {"name": "big", "command": "true", "cpus": 99})
    for more in ([], ["--dry-run"]):
        done = umpteen("run", "job.json", *flags, *more)
        assert done.returncode == 2, done.stderr
        assert "task 'big' needs 99 cpus; a worker of dask has at most" in done.stderr
        assert f"hint: {hint}" in done.stderr
        assert not umpteen.store().exists()


def test_task_that_a_cluster_to_be_made_has_no_cores_for_is_refused(umpteen: Umpteen) -> None:
    kwargs = {"n_workers": 1, "threads_per_worker": 1}
    options = {"cluster_class": "LocalCluster", "cluster_kwargs": kwargs}
    write_job(umpteen, options, {"command": "true", "cpus": 2})
    done = umpteen("run", "job.json")
    assert done.returncode == 2, done.stderr
    assert "hint: write threads_per_worker: 2 in cluster_kwargs" in done.stderr


def test_wide_task_goes_to_the_worker_that_has_its_cores(
    umpteen: Umpteen, own_cluster: DaskCluster
) -> None:
    own_cluster.start()
    own_cluster.add_worker()
    own_cluster.add_worker(threads=5)  # more than this machine may have: the worker counts
    write_job(umpteen, own_cluster, *[{"command": "echo $WORKER", "cpus": 5}] * 3, batch_size=1)
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    assert "3 tasks, 1 at a time on dask" in done.stderr
    assert [(umpteen.store() / f"{n}/stdout").read_text() for n in range(3)] == ["w1\n"] * 3


@pytest.mark.slow
def test_wide_task_that_only_narrow_workers_are_there_for_fails_with_the_reason(
    umpteen: Umpteen, own_cluster: DaskCluster
) -> None:
    own_cluster.start()
    write_job(umpteen, own_cluster, "true", {"command": "true", "cpus": 3}, batch_size=1)
    running = umpteen.start("run", "job.json")
    wait_until(lambda: list(umpteen.store().glob(".umpteen/handed/*.handles.json")))
    own_cluster.add_worker()
    assert "needs 3 cpus, and this machine has 1" in finish(running, 1, 120)
    assert states(umpteen) == {"succeeded": 1, "failed": 1}


def test_tasks_wait_for_those_of_other_batches_on_other_workers(
    umpteen: Umpteen, dask_cluster: DaskCluster
) -> None:
    first = [{"name": f"a{n}", "command": f"touch a.{n}"} for n in range(12)]
    check = "[ $(ls a.* | wc -l) = 12 ] && touch b.{0} && echo $WORKER >> ran"
    then = [{"name": f"b{n}", "command": check.format(n), "after": "a*"} for n in range(12)]
    last = {"name": "c", "command": "[ $(ls b.* | wc -l) = 12 ]", "after": "b*"}
    write_job(umpteen, dask_cluster, *first, *then, last)
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    assert states(umpteen) == {"succeeded": 25}
    assert len(list(umpteen.store().glob(".umpteen/batches/*.json"))) > 4
    assert set(read_lines(umpteen, "ran")) == {"w0", "w1"}


def test_worker_without_umpteen_runs_tasks(umpteen: Umpteen, own_cluster: DaskCluster) -> None:
    bare = os.path.join(sys.base_prefix, "bin", "python3")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    env = own_cluster.environment | {"PYTHONPATH": packages}
    probe = [bare, "-c", "import distributed; import umpteen"]
    said = subprocess.run(probe, env=env, capture_output=True, text=True, check=False).stderr
    if "No module named 'umpteen'" not in said:
        pytest.skip("needs a Python that has distributed and not umpteen")
    own_cluster.python, own_cluster.environment = bare, env
    own_cluster.start()
    own_cluster.add_worker()
    write_job(umpteen, own_cluster, "echo hello")
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    assert (umpteen.store() / "0/stdout").read_text() == "hello\n"


# --- what workers cannot do ---------------------------------------------------------------------


@pytest.mark.root
def test_results_that_workers_do_not_see_end_the_run_at_once(
    umpteen: Umpteen, own_cluster: DaskCluster, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    own_cluster.hidden = [tmp_path / "mine"]
    own_cluster.start()
    own_cluster.add_worker()
    write_job(umpteen, own_cluster, *["true"] * 8, results=str(tmp_path / "mine/{name}"))
    began_s = time.monotonic()
    done = umpteen("run", "job.json")
    assert done.returncode == 3, done.stderr
    assert time.monotonic() - began_s < 25  # some seconds, on a machine that is busy
    assert str(tmp_path / "mine/job") in done.stderr
    assert "shared" in done.stderr
    assert "object store" in done.stderr


def test_worker_that_cannot_work_ends_what_waits_and_leaves_what_runs(
    umpteen: Umpteen, own_cluster: DaskCluster
) -> None:
    own_cluster.start()
    good = own_cluster.add_worker()
    write_job(umpteen, own_cluster, *(f"touch began.{n}; {WAIT}" for n in range(4)), batch_size=1)
    running = umpteen.start("run", "job.json")
    wait_until(lambda: list(umpteen.folder.glob("began.*")))
    own_cluster.environment["UMPTEEN_LEASES"] = str(umpteen.write("file", ""))
    own_cluster.add_worker()
    assert f"cannot write {umpteen.folder}/file" in finish(running, 3)
    assert states(umpteen) == {"running": 1, "waiting": 3}
    umpteen.write("go", "")
    own_cluster.kill(own_cluster.workers[1])
    done = umpteen("collect", "job")
    assert done.returncode == 0, done.stderr
    assert good.poll() is None
    assert [record["attempt"] for record in list_records(umpteen.store())] == [1] * 4


@pytest.mark.root
def test_full_disk_of_a_worker_is_said(
    umpteen: Umpteen, own_cluster: DaskCluster, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root, for a disk of its own")
    try:
        own_cluster.environment["UMPTEEN_LEASES"] = str(disk)
        own_cluster.start()
        own_cluster.add_worker()
        write_job(umpteen, own_cluster, "true")
        done = umpteen("run", "job.json")
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    assert done.returncode == 3, done.stderr
    assert "No space left on device" in done.stderr
    assert str(disk) in done.stderr


@pytest.mark.root
def test_folder_that_is_not_on_a_worker_is_refused_unless_the_job_says_where_to_run(
    umpteen: Umpteen, own_cluster: DaskCluster, tmp_path: Path
) -> None:
    here = tmp_path / "mine/work"
    here.mkdir(parents=True)
    (here / "data").write_text("x")
    own_cluster.hidden = [tmp_path / "mine"]
    own_cluster.start()
    own_cluster.add_worker()
    flags = ["--executor", "dask", "--scheduler-address", own_cluster.address]
    flags += ["--results", str(tmp_path / "shared/{name}")]
    done = umpteen("run", "touch ran; pwd", "n=1..3", "--name", "job", *flags, cwd=here)
    assert done.returncode == 3
    assert f"worker {socket.gethostname()} (tcp://" in done.stderr
    assert f"handed in from, {here}, is not there" in done.stderr
    assert "--sync" in done.stderr
    assert not list(tmp_path.glob("shared/job/n=*"))
    done = umpteen("run", "pwd", "--name", "cwd", "--cwd", tmp_path, *flags, cwd=here)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shared/cwd/0/stdout").read_text() == f"{tmp_path}\n"
    done = umpteen("run", "cat data", "--name", "sync", "--sync", ".", *flags, cwd=here)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shared/sync/0/stdout").read_text() == "x"


def test_python_of_a_worker_that_is_gone_is_named(
    umpteen: Umpteen, own_cluster: DaskCluster, tmp_path: Path
) -> None:
    own_cluster.python = str(tmp_path / "python")
    Path(own_cluster.python).symlink_to(sys.executable)
    env = {"PYTHONPATH": next(path for path in sys.path if path.endswith("site-packages"))}
    own_cluster.environment |= env
    own_cluster.start()
    own_cluster.add_worker()
    Path(own_cluster.python).unlink()
    write_job(umpteen, own_cluster, "true")
    done = umpteen("run", "job.json")
    assert done.returncode == 3
    assert f"worker {socket.gethostname()} (tcp://" in done.stderr
    assert f"cannot start Python, {own_cluster.python}: No such file" in done.stderr


def test_what_a_worker_lacks_for_the_store_is_said_to_be_of_it(
    umpteen: Umpteen, own_cluster: DaskCluster, s3: S3, tmp_path: Path
) -> None:
    own_cluster.python = str(make_python(tmp_path / "python"))
    (client,) = (tmp_path / "python").glob("lib/python*/site-packages/aiobotocore")
    there = client.readlink()
    client.unlink()
    nothing = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": s3.endpoint}
    own_cluster.environment |= {**nothing, "HOME": str(tmp_path)}
    own_cluster.start()
    own_cluster.add_worker()
    write_job(umpteen, own_cluster, "true", results=s3.address)
    env = {**nothing, "AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": s3.secret}
    worker = f"worker {socket.gethostname()} (tcp://"
    done = umpteen("run", "job.json", env=env)
    assert (done.returncode, worker in done.stderr) == (3, True), done.stderr
    assert "results at s3:// need the package aiobotocore" in done.stderr
    assert f"{own_cluster.python} -m pip install aiobotocore" in done.stderr
    client.symlink_to(there)
    done = umpteen("run", "job.json", env=env)
    assert (done.returncode, worker in done.stderr) == (3, True), done.stderr
    assert "no credentials were found" in done.stderr


def test_threads_that_dask_limits_are_those_that_a_task_states(
    umpteen: Umpteen, own_cluster: DaskCluster
) -> None:
    own_cluster.start()
    own_cluster.add_worker(threads=2, nanny=True)
    show = "echo $OMP_NUM_THREADS $MKL_NUM_THREADS"
    own = {"command": show, "cpus": 2, "env": {"OMP_NUM_THREADS": "7"}}
    write_job(umpteen, own_cluster, show, {"command": show, "cpus": 2}, own)
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    printed = [(umpteen.store() / f"{n}/stdout").read_text().strip() for n in range(3)]
    assert printed == ["1 1", "2 2", "7 2"]


# --- from the client ----------------------------------------------------------------------------


def test_secret_options_are_not_in_a_store_that_others_may_read(umpteen: Umpteen, s3: S3) -> None:
    options = {
        "cluster_class": "LocalCluster",
        "cluster_kwargs": {"n_workers": 1, "api_token": "hidden-word"},
    }
    write_job(umpteen, options, "true", results=s3.address)
    env = {OPTIONS_VARIABLE: json.dumps(s3.options)}
    umpteen("run", "job.json", env=env)  # which fails, as that is no option of a LocalCluster
    store = open_store(s3.address, s3.options)
    for key, _ in store.walk(""):
        assert b"hidden-word" not in (store.read(key) or b""), key
    store.close()
    done = umpteen("collect", "job", env=env)
    assert done.returncode == 2, done.stderr
    assert "cluster_kwargs.api_token, which the store does not keep" in done.stderr
    assert "hidden-word" not in done.stderr


def test_colleague_cancels_a_job_that_the_store_lets_him_write_to(
    umpteen: Umpteen, dask_cluster: DaskCluster, s3: S3, tmp_path: Path
) -> None:
    env = {OPTIONS_VARIABLE: json.dumps(s3.options)}
    write_job(umpteen, dask_cluster, "touch began; sleep 600", results=s3.address)
    running = umpteen.start("run", "job.json", env=env)
    wait_until(lambda: (umpteen.folder / "began").exists() or running.poll() is not None, 60)
    (tmp_path / "other").mkdir()
    other = Umpteen(tmp_path, tmp_path / "other")
    done = other("cancel", s3.address, env=env)
    assert done.returncode == 0, done.stderr
    assert "1 cancelled" in finish(running, 1)


@pytest.mark.root
def test_colleague_who_may_read_a_job_collects_it_without_its_options(
    umpteen: Umpteen, dask_cluster: DaskCluster, tmp_path: Path
) -> None:
    write_job(umpteen, dask_cluster, f"{WAIT}; echo done")
    running = umpteen.start("run", "job.json")
    wait_until(lambda: list(umpteen.store().glob(".umpteen/running/*/*.json")))
    (options,) = umpteen.store().glob(".umpteen/handed/*.options.json")
    assert options.stat().st_mode & 0o77 == 0
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    home = tmp_path / "other"
    home.mkdir()
    os.chown(home, 65534, 65534)
    env = umpteen.environment | {"HOME": str(home), "XDG_DATA_HOME": str(home / "data")}
    env |= {"UMPTEEN_LEASES": str(home / "leases"), "DASK_SCHEDULER_ADDRESS": dask_cluster.address}
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *umpteen.command]
    other = subprocess.Popen(
        [*command, "collect", str(umpteen.folder / "job.json"), "--name", "job"],
        env=env, cwd=umpteen.folder, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stderr
    umpteen.write("go", "")
    said = other.communicate(timeout=60)[1]
    assert other.returncode == 0, said
    finish(running)


def test_cancel_ends_commands_with_their_children(
    umpteen: Umpteen, dask_cluster: DaskCluster
) -> None:
    spawn = "sleep 600 & echo $! >> pids; setsid sleep 600 & echo $! >> pids; touch began.{0}; wait"
    write_job(umpteen, dask_cluster, *(spawn.format(n) for n in range(4)))
    running = umpteen.start("run", "job.json")
    wait_until(lambda: len(list(umpteen.folder.glob("began.*"))) == 3)
    pids = read_lines(umpteen, "pids")
    done = umpteen("cancel", "job")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not any(map(is_alive, pids)), 5)
    finish(running, 1)
    assert states(umpteen) == {"cancelled": 4}


def test_cancel_reaches_the_runner_of_a_worker_that_hangs(
    umpteen: Umpteen, own_cluster: DaskCluster
) -> None:
    own_cluster.start()
    worker = own_cluster.add_worker()
    write_job(umpteen, own_cluster, "echo $$ >> pids; exec sleep 600")
    assert umpteen("run", "job.json", "--detach").returncode == 0
    wait_until(lambda: read_lines(umpteen, "pids"))
    os.kill(worker.pid, signal.SIGSTOP)
    done = umpteen("cancel", "job", timeout_s=20)
    assert done.returncode == 0, done.stderr
    assert states(umpteen) == {"cancelled": 1}
    assert not any(map(is_alive, read_lines(umpteen, "pids")))


def test_logs_follow_a_task_that_runs(umpteen: Umpteen, dask_cluster: DaskCluster) -> None:
    write_job(umpteen, dask_cluster, f"echo one; touch began; {WAIT}; echo two")
    assert umpteen("run", "job.json", "--detach").returncode == 0
    wait_until((umpteen.folder / "began").exists)
    following = umpteen.start("logs", "job", "0", "--follow")
    assert following.stdout
    assert following.stdout.readline() == "one\n"
    umpteen.write("go", "")
    rest, said = following.communicate(timeout=30)
    assert (following.returncode, rest) == (0, "two\n"), said


def test_cancel_of_one_task_leaves_those_that_lost_their_worker(
    umpteen: Umpteen, own_cluster: DaskCluster
) -> None:
    own_cluster.start()
    lost = own_cluster.add_worker()
    tasks = [f"touch began.{n}; {WAIT}" for n in range(4)]
    write_job(umpteen, own_cluster, *tasks, batch_size=4)
    assert umpteen("run", "job.json", "--detach").returncode == 0
    wait_until((umpteen.folder / "began.0").exists)
    own_cluster.kill(lost)
    wait_until(lambda: "Remove worker" in (own_cluster.folder / "scheduler.log").read_text())
    umpteen("cancel", "job", "2")
    umpteen.write("go", "")
    own_cluster.add_worker()
    done = umpteen("collect", "job")
    assert done.returncode == 1, done.stderr
    assert states(umpteen) == {"succeeded": 3, "cancelled": 1}
    assert len(list(umpteen.folder.glob("began.*"))) == 3


def test_frozen_worker_with_answers_does_not_hold_up_who_watches(
    umpteen: Umpteen, own_cluster: DaskCluster
) -> None:
    own_cluster.start()
    workers = {f"w{n}": own_cluster.add_worker() for n in range(2)}
    wait = f"echo $WORKER > waits; {WAIT}"
    write_job(umpteen, own_cluster, wait, *["true"] * 20, batch_size=1)
    running = umpteen.start("run", "job.json")
    wait_until(lambda: len(list_records(umpteen.store())) == 20)
    (busy,) = read_lines(umpteen, "waits")
    frozen = next(worker for name, worker in workers.items() if name != busy)
    os.kill(frozen.pid, signal.SIGSTOP)
    os.killpg(running.pid, signal.SIGINT)
    assert "umpteen collect job" in finish(running, 130, 10)
    umpteen.write("go", "")
    done = umpteen("collect", "job", timeout_s=30)
    assert done.returncode == 0, done.stderr


def test_program_with_a_loop_may_run_a_job_and_outlive_its_cluster(
    umpteen: Umpteen, own_cluster: DaskCluster
) -> None:
    own_cluster.start()
    own_cluster.add_worker()
    program = subprocess.Popen(
        [sys.executable, umpteen.write("main.py", IN_A_LOOP), own_cluster.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=umpteen.folder,
        env=umpteen.environment,
    )
    assert program.stdout
    assert program.stdout.readline() == "succeeded 20\n"
    own_cluster.stop()
    _, said = program.communicate(timeout=30)
    assert program.returncode == 0, said
    assert "Traceback" not in said


def test_collect_goes_on_where_the_run_file_says(
    umpteen: Umpteen, own_cluster: DaskCluster, dask_cluster: DaskCluster
) -> None:
    own_cluster.start()
    write_job(umpteen, own_cluster, "true", "true")
    assert umpteen("run", "job.json", "--detach").returncode == 0
    own_cluster.kill(own_cluster.scheduler)
    own_cluster.start()  # of which nobody knows what it was given before
    write_job(umpteen, dask_cluster)
    done = umpteen("collect", "job.json", "--name", "job")
    assert done.returncode == 0, done.stderr
    assert states(umpteen) == {"succeeded": 2}


def test_collect_keeps_the_address_that_was_given_beside_the_file(
    umpteen: Umpteen, dask_cluster: DaskCluster
) -> None:
    umpteen.write("job.json", json.dumps({"executor": "dask", "tasks": [f"touch began; {WAIT}"]}))
    env = {"DASK_SCHEDULER_ADDRESS": dask_cluster.address}
    assert umpteen("run", "job.json", "--detach", env=env).returncode == 0
    wait_until((umpteen.folder / "began").exists)
    refused = umpteen("collect", "job")
    assert refused.returncode == 2
    assert "the executor 'dask' needs scheduler_address" in refused.stderr
    assert "unexpected" not in refused.stderr
    umpteen("cancel", "job", env=env)
    done = umpteen("run", "job.json", "--scheduler-address", dask_cluster.address, "--detach")
    assert done.returncode == 0, done.stderr
    umpteen.write("go", "")
    done = umpteen("collect", "job.json", "--name", "job")
    assert done.returncode == 0, done.stderr


# --- what dies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_worker_that_is_lost_loses_only_what_it_had_not_done(
    umpteen: Umpteen, own_cluster: DaskCluster, number: int
) -> None:
    own_cluster.environment["DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"] = "2s"
    own_cluster.start()
    lost = own_cluster.add_worker()
    # On the second worker it fails once, which is what its one retry is for.
    fail = "[ -e failed ] || { touch failed; exit 1; }"
    one = f"echo 1 >> ran; touch began; [ $WORKER != w0 ] || sleep 600; {fail}"
    retried = {"command": one, "retries": {"when": "failed", "times": 1, "wait": 0}}
    write_job(umpteen, own_cluster, "echo 0 >> ran", retried, "echo 2 >> ran", batch_size=3)
    running = umpteen.start("run", "job.json")
    wait_until((umpteen.folder / "began").exists)
    wait_until(lambda: len(list_records(umpteen.store())) == 1)
    own_cluster.add_worker()
    os.kill(lost.pid, number)
    finish(running)
    assert Counter(read_lines(umpteen, "ran")) == {"0": 1, "1": 3, "2": 1}
    ended = Counter((r["task"], r["state"]) for r in list_records(umpteen.store()))
    ended.pop((1, "waiting"), None)  # a runner that can still tell does so
    assert ended == {(n, "succeeded"): 1 for n in range(3)} | {(1, "failed"): 1}


@pytest.mark.parametrize("above", [3, 4], ids=["runner", "worker"])
def test_task_that_kills_what_runs_it_is_stopped_and_named(
    umpteen: Umpteen, own_cluster: DaskCluster, above: int
) -> None:
    own_cluster.start()
    own_cluster.add_worker(nanny=True)
    umpteen.write("kill.sh", KILL)
    killer = {"name": "killer", "command": f"echo killer >> ran; sh kill.sh {above}"}
    write_job(umpteen, own_cluster, "echo 0 >> ran", killer, "echo 2 >> ran", batch_size=3)
    done = umpteen("run", "job.json", timeout_s=90)
    assert done.returncode == 1, done.stderr
    assert "killer" in done.stderr
    assert "killed its runner" in done.stderr
    ran = Counter(read_lines(umpteen, "ran"))
    assert (ran["killer"], ran["2"]) == (3, 1)
    assert (
        ran["0"] == 1 or above == 3
    )  # what a runner had not recorded when it was killed runs again
    assert states(umpteen) == {"succeeded": 2, "failed": 1}


@pytest.mark.parametrize("is_watched", [True, False])
def test_scheduler_that_is_lost_loses_nothing_that_was_done(
    umpteen: Umpteen, own_cluster: DaskCluster, *, is_watched: bool
) -> None:
    own_cluster.start()
    own_cluster.add_worker()
    write_job(umpteen, own_cluster, "echo 0 >> ran", f"touch began; {WAIT}; echo 1 >> ran",
              *(f"echo {n} >> ran" for n in range(2, 6)), batch_size=2)  # fmt: skip
    running = umpteen.start("run", "job.json")
    wait_until((umpteen.folder / "began").exists)
    wait_until(lambda: len(list_records(umpteen.store())) == 1)
    own_cluster.kill(own_cluster.scheduler)
    if not is_watched:
        os.killpg(running.pid, signal.SIGINT)
        assert "umpteen collect job" in finish(running, 130)
    own_cluster.start()
    own_cluster.add_worker()
    umpteen.write("go", "")
    if not is_watched:
        running = umpteen.start("collect", "job")
    said = finish(running)
    assert is_watched or "not finished before" in said
    assert "6 succeeded" in said
    assert Counter(read_lines(umpteen, "ran")) == {str(n): 1 for n in range(6)}
    assert read_record(umpteen.store(), 0)["state"] == "succeeded"
