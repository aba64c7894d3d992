"""Jobs that are larger than what Slurm takes of a user at once."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable

from tests.support.command import Umpteen
from tests.support.fake_slurm import FakeSlurm
from tests.support.slurm import PROGRAMS, SlurmCluster
from tests.support.store import list_records
from tests.support.wait import wait_until

Make = Callable[..., FakeSlurm]
CALLS_MOST_A_S = 4.0  # of all commands, averaged over ten seconds
WINDOW_S = 10.0


def start(umpteen: Umpteen, cluster: FakeSlurm, *more: str) -> subprocess.CompletedProcess[str]:
    """`umpteen run` of the job in `job.json`."""
    return umpteen("run", "job.json", *more, env=cluster.environment, timeout_s=240)


def write_job(umpteen: Umpteen, count: int, batch_size: int, **more: object) -> None:
    """`job.json` for Slurm: so many commands, each of which writes down that it ran."""
    tasks = [{"command": f"echo {n} >> {umpteen.folder}/ran.{n % 7}"} for n in range(count)]
    content = {"executor": {"slurm": {}}, "batch_size": batch_size, "tasks": tasks, **more}
    umpteen.write("job.json", json.dumps(content))


def count_runs(umpteen: Umpteen) -> Counter[str]:
    """How often each command ran."""
    files = umpteen.folder.glob("ran.*")
    return Counter(word for file in files for word in file.read_text().split())


def list_submitters(cluster: FakeSlurm) -> list[str]:
    """The states of the jobs that submitted others."""
    question = "SELECT state FROM elements JOIN jobs ON jobs.id = job WHERE name LIKE '%-submitter'"
    return [state for (state,) in cluster.select(question)]


def test_what_there_is_no_room_for_is_submitted_later_each_exactly_once(
    umpteen: Umpteen, make_fake_slurm: Make
) -> None:
    cluster = make_fake_slurm(
        array_size=21, submit_jobs=12, says_submit_jobs=True, cpus=8, failing=0.05, lying=0.05
    )
    write_job(umpteen, 400, 10)
    done = start(umpteen, cluster)
    assert done.returncode == 0, done.stderr
    assert Counter(count_runs(umpteen).values()) == {1: 400}
    records = Counter(record["task"] for record in list_records(umpteen.store()))
    assert Counter(records.values()) == {1: 400}
    assert list_submitters(cluster) == ["COMPLETED"]
    busiest = cluster.find_busiest(WINDOW_S)
    assert busiest <= CALLS_MOST_A_S, cluster.count_calls()


def test_nobody_has_to_stay_for_what_is_submitted_later(
    umpteen: Umpteen, make_fake_slurm: Make
) -> None:
    cluster = make_fake_slurm(submit_jobs=8)
    write_job(umpteen, 24, 1)
    assert start(umpteen, cluster, "--detach").returncode == 0
    wait_until(lambda: len(count_runs(umpteen)) == 24, 120)
    calls = cluster.count_calls()
    done = umpteen("collect", "job", env=cluster.environment)
    assert done.returncode == 0, done.stderr
    assert cluster.count_calls()["sbatch"] == calls["sbatch"]
    assert Counter(count_runs(umpteen).values()) == {1: 24}


def test_job_that_is_not_in_the_queue_yet_waits_and_is_cancelled(
    umpteen: Umpteen, make_fake_slurm: Make
) -> None:
    cluster = make_fake_slurm(submit_jobs=8, cpus=8)
    tasks = [{"command": f"touch {n}.began; sleep 600"} for n in range(20)]
    content = {"executor": {"slurm": {}}, "batch_size": 1, "tasks": tasks}
    umpteen.write("job.json", json.dumps(content))
    assert start(umpteen, cluster, "--detach").returncode == 0
    wait_until(lambda: list(umpteen.folder.glob("*.began")), 60)
    counts = json.loads(umpteen("status", "job", "--json", env=cluster.environment).stdout)
    assert counts["counts"]["waiting"] + counts["counts"]["running"] == 20
    done = umpteen("cancel", "job", env=cluster.environment)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not cluster.ask("squeue", "-h").stdout)
    counts = json.loads(umpteen("status", "job", "--json", env=cluster.environment).stdout)
    assert counts["counts"]["cancelled"] == 20


def test_what_is_after_others_is_submitted_behind_them(
    umpteen: Umpteen, make_fake_slurm: Make
) -> None:
    cluster = make_fake_slurm(submit_jobs=8, cpus=4)
    # As many as the cluster has cores, or one batch would have all of it.
    first = [{"name": f"a-{n}", "command": "echo a >> order"} for n in range(12)]
    last = [{"name": f"b-{n}", "command": "echo b >> order", "after": "a-*"} for n in range(4)]
    content = {"executor": {"slurm": {}}, "batch_size": 1, "tasks": [*first, *last]}
    umpteen.write("job.json", json.dumps(content))
    done = start(umpteen, cluster)
    assert done.returncode == 0, done.stderr
    assert (umpteen.folder / "order").read_text() == "a\n" * 12 + "b\n" * 4


def test_task_that_is_to_have_more_memory_gets_an_element_that_asked_for_more(
    umpteen: Umpteen, make_fake_slurm: Make
) -> None:
    cluster = make_fake_slurm()
    rule = {"when": "exit_code:3", "memory": "x2", "wait": "1s"}
    task = {"command": "test -e second || { touch second; exit 3; }", "memory": "100M"}
    others = [{"command": "true", "memory": "100M"}] * 2
    content = {"executor": {"slurm": {}}, "tasks": [{**task, "retries": rule}, *others]}
    umpteen.write("job.json", json.dumps(content))
    done = start(umpteen, cluster)
    assert done.returncode == 0, done.stderr
    assert [memory for (memory,) in cluster.select("SELECT memory FROM jobs ORDER BY id")] == [
        "100M", "200M",
    ]  # fmt: skip
    attempts = [record["attempt"] for record in list_records(umpteen.store()) if not record["task"]]
    assert attempts == [1, 2]


def test_no_room_for_a_single_job_is_said(umpteen: Umpteen, make_fake_slurm: Make) -> None:
    cluster = make_fake_slurm(submit_jobs=1)
    filling = ["sbatch", "--parsable", str(umpteen.write("sleep.sh", "#!/bin/sh\nsleep 600\n"))]
    assert cluster.ask(*filling).returncode == 0
    write_job(umpteen, 3, 1)
    done = start(umpteen, cluster)
    assert done.returncode == 3
    assert "Slurm takes no more jobs of yours now" in done.stderr


def test_real_slurm_takes_more_than_its_most_jobs(
    umpteen: Umpteen, need: Callable[[str], str]
) -> None:
    for program in PROGRAMS:
        need(program)
    cluster = SlurmCluster(nodes=1, job_count=8, job_age_s=2)
    write_job(umpteen, 12, 1)
    try:
        cluster.start()
        done = umpteen("run", "job.json", env=cluster.environment, timeout_s=180)
        assert done.returncode == 0, done.stderr
    finally:
        cluster.stop()
    assert Counter(count_runs(umpteen).values()) == {1: 12}
