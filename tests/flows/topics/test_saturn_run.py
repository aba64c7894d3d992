"""What `saturn run` and `saturn collect` do, one test for each line of their list, on real Dask.

The numbers are those of the list that umpteen was built by. The files are those of the
documents, with other addresses, and a `julia` that knows one program.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.topics.test_bad_input import expect_refusal
from tests.support.command import Umpteen
from tests.support.dask import DaskCluster
from tests.support.processes import list_processes
from tests.support.s3 import S3
from tests.support.saturn import RUN, RUN_ON_SATURN, TASKS
from tests.support.store import list_records
from tests.support.wait import wait_until
from umpteen.store.address import OPTIONS_VARIABLE, open_store

FIBONACCI = ["144\n", "832040\n", "5\n", "233\n"]
JULIA = """\
#!/bin/sh
[ -e "$1" ] || { echo "no such file: $1" >&2; exit 1; }
awk -v n="$2" 'BEGIN { b = 1; while (n--) { c = a + b; a = b; b = c } print a }'
"""
MIXED = """\
tasks:
  - command: echo first
  - command: echo named; exit 3
    name: fails
  - command: mkdir -p $RESULTS_DIR/a/b; echo deep > $RESULTS_DIR/a/b/c; echo top > $RESULTS_DIR/d
  - command: [printf, "%s|", a b, $HOME, "c;d"]
    shell: false
  - command: printf 'b\\na\\n' | sort; echo $((1 + 1))
    shell: true
  - command: [no-such-program, x]
    shell: false
    name: unstartable
"""
LOCAL_CLUSTER = """\
executor:
  class_spec: DaskExecutor
  cluster_class: LocalCluster
  cluster_kwargs: {n_workers: 1, threads_per_worker: 2, dashboard_address: ":0", env: {GIVEN: told}}
results:
  class_spec: LocalResults
  path: results/{name}
"""
# The package of Saturn Cloud's needs an account there.
STAND_IN = """\
from distributed import LocalCluster

class SaturnCluster(LocalCluster):
    def __init__(self):
        super().__init__(n_workers=1, threads_per_worker=2, dashboard_address=":0")
"""
WAITS = "touch began.{n}; until [ -e go ]; do sleep 0.05; done; echo {n}"


def make_umpteen(folder: Path) -> Umpteen:
    (folder / "work").mkdir()
    (folder / "home").mkdir()
    return Umpteen(folder / "work", folder / "home")


def end_all(umpteen: Umpteen) -> None:
    for pid in list_processes(umpteen):
        os.kill(pid, signal.SIGKILL)


def write_run(umpteen: Umpteen, cluster: DaskCluster, *more: str) -> None:
    """The document's first run.yaml for this cluster and this test's folder."""
    run = RUN.replace("tcp://127.0.0.1:8786", cluster.address)
    run = run.replace("/tmp/results", str(umpteen.folder / "results"))
    umpteen.write("run.yaml", run + "".join(f"{line}\n" for line in more))


def write_tasks(umpteen: Umpteen, *commands: str) -> None:
    umpteen.write("tasks.yaml", json.dumps({"tasks": [{"command": c} for c in commands]}))


def write_waiting(umpteen: Umpteen, count: int) -> None:
    """So many tasks that run until there is a file `go`."""
    write_tasks(umpteen, *(WAITS.replace("{n}", str(n)) for n in range(count)))


def put_code(code: Path) -> Path:
    """A folder as the documents have it, and the julia to run it with."""
    code.mkdir(parents=True)
    (code / "fibonacci.jl").write_text("fibonacci(n) = n < 2 ? n : fibonacci(n-1) + fibonacci(n-2)")
    return code


def put_julia(cluster: DaskCluster) -> None:
    julia = cluster.programs / "julia"
    julia.write_text(JULIA)
    julia.chmod(0o755)


def run(umpteen: Umpteen, name: str = "my-job", *more: str) -> subprocess.CompletedProcess[str]:
    return umpteen("run", "run.yaml", "tasks.yaml", "--name", name, *more)


def find_job(umpteen: Umpteen, name: str = "my-job") -> Path:
    return umpteen.folder / "results" / name


def read_stdouts(job: Path, count: int) -> list[str]:
    return [(job / str(n) / "stdout").read_text() for n in range(count)]


@pytest.fixture(scope="module")
def my_job(dask_cluster: DaskCluster, tmp_path_factory: pytest.TempPathFactory) -> Umpteen:
    """The document's first example, which has run to its end."""
    umpteen = make_umpteen(tmp_path_factory.mktemp("saturn"))
    code = put_code(umpteen.folder / "julia-example")
    put_julia(dask_cluster)
    write_run(umpteen, dask_cluster)
    umpteen.write("tasks.yaml", TASKS.replace("/home/jovyan/workspace/julia-example", str(code)))
    done = run(umpteen)
    assert done.returncode == 0, done.stderr
    return umpteen


@pytest.fixture(scope="module")
def mixed(dask_cluster: DaskCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a job with tasks of all kinds, some of which fail."""
    umpteen = make_umpteen(tmp_path_factory.mktemp("mixed"))
    write_run(umpteen, dask_cluster)
    umpteen.write("tasks.yaml", MIXED)
    done = run(umpteen)
    assert done.returncode == 1, done.stderr
    return find_job(umpteen)


@pytest.fixture(scope="module")
def far_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this machine that is empty on each worker of `far_cluster`."""
    return tmp_path_factory.mktemp("far")


@pytest.fixture(scope="module")
def far_cluster(
    far_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaskCluster]:
    """A Dask cluster whose two workers see nothing of that folder."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root, for workers that see another disk")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("UMPTEEN_", "DASK_"))}
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"), environment)
    cluster.hidden = [far_folder]
    try:
        cluster.start()
        cluster.add_worker()
        cluster.add_worker()
        yield cluster
    finally:
        cluster.stop()


# --- the document -------------------------------------------------------------------------------


def test_01_first_example(my_job: Umpteen) -> None:
    assert read_stdouts(find_job(my_job), 4) == FIBONACCI


def test_02_second_example_without_its_package_names_it(umpteen: Umpteen) -> None:
    umpteen.write("run.yaml", RUN_ON_SATURN)
    umpteen.write("tasks.yaml", TASKS)
    expect_refusal(run(umpteen), "SaturnCluster", "pip install dask-saturn")
    assert not (umpteen.home / "data").exists()


def test_02_second_example_runs_with_a_stand_in_for_its_package(umpteen: Umpteen, s3: S3) -> None:
    code = put_code(umpteen.folder / "julia-example")
    umpteen.write("bin/julia", JULIA).chmod(0o755)
    place = "/home/jovyan/workspace/julia-example"
    text = RUN_ON_SATURN.replace("saturn-internal-s3-test", s3.bucket)
    umpteen.write("run.yaml", text.replace(place, str(code)))
    umpteen.write("tasks.yaml", TASKS.replace(place, str(code)))
    umpteen.write("packages/dask_saturn.py", STAND_IN)
    env = {
        "PYTHONPATH": str(umpteen.folder / "packages"),
        "PATH": f"{umpteen.folder}/bin:{os.environ['PATH']}",
        OPTIONS_VARIABLE: json.dumps(s3.options),
    }
    done = umpteen("run", "run.yaml", "tasks.yaml", "--name", "my-job", env=env)
    assert done.returncode == 0, done.stderr
    store = open_store(f"s3://{s3.bucket}/saturn-run-2022.12.13/my-job", s3.options)
    assert [store.read(f"{n}/stdout") for n in range(4)] == [text.encode() for text in FIBONACCI]
    assert [store.read(f"{n}/status") for n in range(4)] == [b"0"] * 4


def test_03_prefix_makes_a_name_that_is_shown(umpteen: Umpteen, dask_cluster: DaskCluster) -> None:
    write_run(umpteen, dask_cluster)
    write_tasks(umpteen, "true")
    done = umpteen("run", "run.yaml", "tasks.yaml", "--prefix", "exp")
    assert done.returncode == 0, done.stderr
    name = done.stderr.partition(":")[0]
    assert name.startswith("exp-20")
    assert name in umpteen("ls").stdout
    assert umpteen("collect", "run.yaml", "--name", name).returncode == 0


def test_04_unnamed_tasks_are_counted_from_0(my_job: Umpteen) -> None:
    found = {path.name for path in find_job(my_job).iterdir() if path.name[0] != "."}
    assert found == {"0", "1", "2", "3"}


def test_05_each_task_has_stdout_stderr_and_status(my_job: Umpteen) -> None:
    for n in range(4):
        folder = find_job(my_job) / str(n)
        assert {path.name for path in folder.iterdir()} == {"stdout", "stderr", "status"}
        assert (folder / "status").read_text() == "0"
        assert (folder / "stderr").read_text() == ""


def test_06_ctrl_c_then_collect_waits_for_the_rest(
    umpteen: Umpteen, dask_cluster: DaskCluster
) -> None:
    write_run(umpteen, dask_cluster)
    write_waiting(umpteen, 4)
    running = umpteen.start("run", "run.yaml", "tasks.yaml", "--name", "my-job")
    wait_until((umpteen.folder / "began.0").exists)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "umpteen collect my-job" in said
    (umpteen.folder / "tasks.yaml").unlink()
    again = umpteen.start("collect", "run.yaml", "--name", "my-job")
    assert again.stderr
    assert again.stderr.readline().startswith("my-job: 4 tasks")
    umpteen.write("go", "")
    _, said = again.communicate(timeout=60)
    assert again.returncode == 0, said
    assert read_stdouts(find_job(umpteen), 4) == [f"{n}\n" for n in range(4)]


def test_07_killed_client_needs_no_collect(umpteen: Umpteen, dask_cluster: DaskCluster) -> None:
    write_run(umpteen, dask_cluster)
    write_waiting(umpteen, 4)
    running = umpteen.start("run", "run.yaml", "tasks.yaml", "--name", "my-job")
    wait_until((umpteen.folder / "began.0").exists)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate(timeout=30)
    umpteen.write("go", "")
    statuses = [find_job(umpteen) / str(n) / "status" for n in range(4)]
    wait_until(lambda: all(status.exists() for status in statuses))
    assert [status.read_text() for status in statuses] == ["0"] * 4


@pytest.mark.root
def test_08_synced_folder_is_on_every_worker(
    umpteen: Umpteen, far_cluster: DaskCluster, far_folder: Path
) -> None:
    code = put_code(far_folder / "08/julia-example")
    put_julia(far_cluster)
    write_run(umpteen, far_cluster, f"file_syncs: [{{src: {code}/}}]")
    meet = "echo $WORKER; touch {0}; until [ -e 0 ] && [ -e 1 ]; do sleep 0.05; done; "
    commands = [meet.format(n) + f"julia {code}/fibonacci.jl 12" for n in range(2)]
    write_tasks(umpteen, *commands)
    done = run(umpteen)
    assert done.returncode == 0, done.stderr
    assert sorted(read_stdouts(find_job(umpteen), 2)) == ["w0\n144\n", "w1\n144\n"]


# --- its code -----------------------------------------------------------------------------------


def test_09_name_is_filled_in_everywhere(umpteen: Umpteen, dask_cluster: DaskCluster) -> None:
    write_run(umpteen, dask_cluster)
    path = umpteen.folder / "run.yaml"
    path.write_text(path.read_text().replace("/{name}", "/{name}/of-{name}"))
    write_tasks(umpteen, "true")
    assert run(umpteen).returncode == 0
    assert (find_job(umpteen) / "of-my-job/0/status").read_text() == "0"


def test_10_results_dir_becomes_results(mixed: Path) -> None:
    assert (mixed / "2/results/a/b/c").read_text() == "deep\n"
    assert (mixed / "2/results/d").read_text() == "top\n"


def test_11_failure_is_a_status_and_stops_no_other(mixed: Path) -> None:
    assert (mixed / "fails/status").read_text() == "3"
    assert (mixed / "fails/stdout").read_text() == "named\n"
    assert [(mixed / name / "status").read_text() for name in ("0", "2", "3", "4")] == ["0"] * 4


def test_12_shell_or_none(mixed: Path) -> None:
    assert (mixed / "3/stdout").read_text() == "a b|$HOME|c;d|"
    assert (mixed / "4/stdout").read_text() == "a\nb\n2\n"


def test_13_unnamed_tasks_count_the_named_ones(mixed: Path) -> None:
    found = {path.name for path in mixed.iterdir() if path.name[0] != "."}
    assert found == {"0", "fails", "2", "3", "4", "unstartable"}


def test_14_name_and_prefix_are_refused_and_nothing_is_done(
    umpteen: Umpteen, dask_cluster: DaskCluster
) -> None:
    write_run(umpteen, dask_cluster)
    write_tasks(umpteen, "true")
    both = umpteen("run", "run.yaml", "tasks.yaml", "--name", "a", "--prefix", "b")
    expect_refusal(both, "--name", "--prefix")
    assert {path.name for path in umpteen.folder.iterdir()} == {"run.yaml", "tasks.yaml"}


def test_14_without_name_and_prefix_the_tasks_file_is_the_name(
    umpteen: Umpteen, dask_cluster: DaskCluster
) -> None:
    write_run(umpteen, dask_cluster)
    umpteen.write("sweep.yaml", "tasks: [{command: 'true'}]")
    assert umpteen("run", "run.yaml", "sweep.yaml").returncode == 0
    assert (find_job(umpteen, "sweep") / "0/status").exists()


def test_15_address_beats_cluster_class(umpteen: Umpteen, dask_cluster: DaskCluster) -> None:
    write_run(umpteen, dask_cluster)
    path = umpteen.folder / "run.yaml"
    path.write_text(
        path.read_text().replace("results:", "  cluster_class: no.such.Class\nresults:")
    )
    write_tasks(umpteen, "echo $WORKER")
    assert run(umpteen).returncode == 0
    assert read_stdouts(find_job(umpteen), 1)[0].startswith("w")
    path.write_text("executor: {class_spec: DaskExecutor}\nresults: results/{name}")
    expect_refusal(run(umpteen), "scheduler_address", "cluster_class")


@pytest.fixture(scope="module")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Umpteen]:
    """A job on a LocalCluster, which has run to its end with exit code 0."""
    umpteen = make_umpteen(tmp_path_factory.mktemp("local"))
    umpteen.write("run.yaml", LOCAL_CLUSTER)
    meet = "echo $GIVEN; touch {0}; until [ -e 0 ] && [ -e 1 ]; do sleep 0.05; done"
    write_tasks(umpteen, meet.format(0), meet.format(1))
    done = run(umpteen)
    assert done.returncode == 0, done.stderr
    yield umpteen
    end_all(umpteen)


def test_16_cluster_kwargs_reach_the_cluster(local_run: Umpteen) -> None:
    assert read_stdouts(find_job(local_run), 2) == ["told\n", "told\n"]


def test_17_local_cluster_ends_well(local_run: Umpteen) -> None:
    assert [(find_job(local_run) / f"{n}/status").read_text() for n in range(2)] == ["0", "0"]
    assert local_run("collect", "run.yaml", "--name", "my-job").returncode == 0


def test_18_s3_shows_outputs_meanwhile_and_status_last(
    umpteen: Umpteen, dask_cluster: DaskCluster, s3: S3
) -> None:
    executor = {"class_spec": "DaskExecutor", "scheduler_address": dask_cluster.address}
    url = f"s3://{s3.bucket}/{{name}}/"
    results = {"class_spec": "S3Results", "s3_url": url, "options": s3.options}
    umpteen.write("run.yaml", json.dumps({"executor": executor, "results": results}))
    leave = "for n in 1 2 3 4 5 6 7 8; do echo $n > $RESULTS_DIR/$n; done"
    write_tasks(umpteen, f"echo one; touch began; until [ -e go ]; do sleep 0.05; done; {leave}")
    env = {OPTIONS_VARIABLE: json.dumps(s3.options)}
    running = umpteen.start("run", "run.yaml", "tasks.yaml", "--name", "my-job")
    store = open_store(f"s3://{s3.bucket}/my-job", s3.options)
    wait_until((umpteen.folder / "began").exists)
    began_s = time.monotonic()
    following = umpteen.start("logs", "my-job", "0", "--follow", env=env)
    assert following.stdout
    assert following.stdout.readline() == "one\n"
    assert time.monotonic() - began_s < 5 + 25  # with what it takes to start a command
    umpteen.write("go", "")
    wait_until(lambda: store.read("0/status") == b"0")
    assert [store.read(f"0/results/{n}") for n in range(1, 9)] == [b"%d\n" % n for n in range(1, 9)]
    assert store.read("0/stdout") == b"one\n"
    for each in (running, following):
        _, said = each.communicate(timeout=30)
        assert each.returncode == 0, said


@pytest.mark.root
def test_19_file_and_folder_without_git_to_the_same_place_or_another(
    umpteen: Umpteen, far_cluster: DaskCluster, far_folder: Path
) -> None:
    top = far_folder / "19"
    code = put_code(top / "my code")
    (code / ".git").mkdir()
    (code / ".git/config").touch()
    for name in ("one.csv", "two.csv", "three.csv"):
        (top / name).write_text(name)
    syncs = [
        {"src": f"{code}/"},
        {"src": f"{top}/one.csv"},
        {"src": f"{top}/two.csv", "dest": f"{top}/two.csv"},
        {"src": f"{top}/three.csv", "dest": f"{top}/other/3.csv"},
        {"src": str(code), "dest": f"{top}/other/code"},
    ]
    write_run(umpteen, far_cluster, f"file_syncs: {json.dumps(syncs)}")
    write_tasks(umpteen, f"cd {top}; find -L . -type f | sort; cat one.csv two.csv other/3.csv")
    done = run(umpteen)
    assert done.returncode == 0, done.stderr
    assert (find_job(umpteen) / "0/stdout").read_text().splitlines() == [
        "./my code/fibonacci.jl",
        "./one.csv",
        "./other/3.csv",
        "./other/code/fibonacci.jl",
        "./two.csv",
        "one.csvtwo.csvthree.csv",
    ]


@pytest.mark.root
def test_19_folder_that_changed_is_new_on_workers_and_their_own_is_left(
    umpteen: Umpteen, far_cluster: DaskCluster, far_folder: Path
) -> None:
    code, own = put_code(far_folder / "twice/code"), put_code(far_folder / "twice/own")
    meet = "touch {0}.{1}; until [ -e {0}.0 ] && [ -e {0}.1 ]; do sleep 0.05; done; "
    do = f"cat {code}/version; mkdir -p {own}; touch {own}/mine; ls {own}"
    for version in ("1", "2"):
        (code / "version").write_text(f"{version}\n")
        syncs = [{"src": str(code)}, {"src": str(own)}]
        write_run(umpteen, far_cluster, f"file_syncs: {json.dumps(syncs[: int(version)])}")
        write_tasks(umpteen, *(meet.format(version, n) + do for n in range(2)))  # on each worker
        done = run(umpteen, version)
        assert done.returncode == 0, done.stderr
        assert read_stdouts(find_job(umpteen, version), 2) == [f"{version}\nmine\n"] * 2


def test_20_collect_of_an_unknown_name_says_so(umpteen: Umpteen, dask_cluster: DaskCluster) -> None:
    write_run(umpteen, dask_cluster)
    done = umpteen("collect", "run.yaml", "--name", "nobody")
    expect_refusal(done, "nobody")


def test_21_second_collect_ends_well(my_job: Umpteen) -> None:
    for _ in range(2):
        assert my_job("collect", "run.yaml", "--name", "my-job").returncode == 0


def test_22_rerun_all_runs_all_again_and_the_default_what_did_not_succeed(
    umpteen: Umpteen, dask_cluster: DaskCluster
) -> None:
    write_run(umpteen, dask_cluster)
    write_tasks(umpteen, *(f"echo {n} >> ran; exit {n}" for n in range(2)))
    run(umpteen)
    run(umpteen)
    assert Counter((umpteen.folder / "ran").read_text().split()) == {"0": 1, "1": 2}
    run(umpteen, "my-job", "--rerun", "all")
    assert Counter((umpteen.folder / "ran").read_text().split()) == {"0": 2, "1": 3}


def test_23_run_does_not_harm_one_whose_name_begins_alike(
    umpteen: Umpteen, dask_cluster: DaskCluster
) -> None:
    write_run(umpteen, dask_cluster)
    write_waiting(umpteen, 2)
    assert run(umpteen, "zlong", "--detach").returncode == 0
    wait_until((umpteen.folder / "began.1").exists)
    write_tasks(umpteen, "true")
    assert run(umpteen, "z").returncode == 0
    umpteen.write("go", "")
    done = umpteen("collect", "run.yaml", "--name", "zlong")
    assert done.returncode == 0, done.stderr
    assert [r["state"] for r in list_records(find_job(umpteen, "zlong"))] == ["succeeded"] * 2


def test_24_command_that_cannot_be_started_has_a_status_and_says_why(mixed: Path) -> None:
    assert (mixed / "unstartable/status").read_text() == "127"
    assert "no-such-program" in (mixed / "unstartable/stderr").read_text()


@pytest.mark.parametrize(
    ("tasks", "more", "needle"),
    [
        ("[{command: a, name: x}, {command: b, name: x}]", "", "x"),
        ("[{command: a, nme: x}]", "", "nme"),
        ("[{command: a}]", "file_syncs: [{src: nowhere}]", "nowhere"),
        ("[{command: a}]", "file_sync: [{src: code}]", "file_sync"),
        ("[{command: a}]", "file_syncs: [{source: code}]", "source"),
    ],
)
def test_25_wrong_files_are_refused_before_anything_is_handed_in(
    umpteen: Umpteen, dask_cluster: DaskCluster, tasks: str, more: str, needle: str
) -> None:
    write_run(umpteen, dask_cluster, more)
    umpteen.write("tasks.yaml", f"tasks: {tasks}")
    expect_refusal(run(umpteen), needle)
    assert not list(find_job(umpteen).glob(".umpteen/batches/*"))


@pytest.mark.root
def test_26_worker_that_joins_later_has_what_was_synced(
    umpteen: Umpteen, far_cluster: DaskCluster, far_folder: Path
) -> None:
    code = put_code(far_folder / "26/code")
    put_julia(far_cluster)
    write_run(umpteen, far_cluster, f"file_syncs: [{{src: {code}}}]")
    meet = "touch began.{0}; until [ -e began.2 ]; do sleep 0.05; done; echo $WORKER; "
    commands = [meet.format(n) + f"julia {code}/fibonacci.jl 5" for n in range(3)]
    write_tasks(umpteen, *commands)
    running = umpteen.start("run", "run.yaml", "tasks.yaml", "--name", "my-job")
    wait_until(lambda: all((umpteen.folder / f"began.{n}").exists() for n in range(2)))
    far_cluster.add_worker()
    _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert set(read_stdouts(find_job(umpteen), 3)) == {f"w{n}\n5\n" for n in range(3)}
