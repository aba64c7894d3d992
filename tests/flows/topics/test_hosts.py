"""Jobs on real hosts behind ssh: everything comes home, whatever dies on the way."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.hosts import Host, Hosts
from tests.support.store import list_records
from tests.support.wait import wait_until

pytestmark = pytest.mark.root

JOB = """name: job
executor: {{ssh: {{hosts: [{hosts}]{more}}}}}
tasks:
  - name: t{{n}}
    command: {command}
    cwd: /tmp
    matrix: {{n: 0..{last}}}
"""
LIMIT_S = 90.0


def write_job(
    umpteen: Umpteen, hosts: Iterable[Host], command: str, count: int, more: str = ""
) -> Path:
    """A job file of so many tasks with one command. more: further options of the executor."""
    names = ", ".join(host.name for host in hosts)
    text = JOB.format(
        hosts=names, more=f", {more}" if more else "", command=json.dumps(command), last=count - 1
    )
    return umpteen.write("job.yaml", text)


def read_stdouts(umpteen: Umpteen) -> list[str]:
    """What each task printed."""
    return [path.read_text() for path in sorted(umpteen.store().glob("t*/stdout"))]


def list_left(host: Host) -> list[str]:
    """What of a job is still on a host: processes, and files of its copy."""
    processes = [line for line in host.list_processes() if "umpteen" in line]
    copies = host.path("/var/tmp").glob("umpteen-*/jobs/*")
    return [*processes, *map(str, copies)]


def assert_once(umpteen: Umpteen, count: int) -> None:
    """Each task has exactly one success, and its files."""
    records = list_records(umpteen.store())
    won = collections.Counter(r["task"] for r in records if r["state"] == "succeeded")
    assert won == dict.fromkeys(range(count), 1)
    assert len(read_stdouts(umpteen)) == count


def find_head(umpteen: Umpteen) -> int:
    """The process id of the only head that lives."""
    (lease,) = umpteen.leases.glob("*/runner.json")
    return int(json.loads(lease.read_text())["pid"])


def test_everything_comes_home_from_hosts_of_all_kinds(umpteen: Umpteen, hosts: Hosts) -> None:
    opened = [
        hosts.open("plain"),
        hosts.open("loud", banner=True, user="other"),
        hosts.open("pypy", python="pypy3"),
        hosts.open("bare", without=("bash", "rsync"), noexec_tmp=True),
        hosts.open("late", clock_s=3600),
    ]
    command = (
        "hostname; echo err >&2; cd $UMPTEEN_RESULTS_DIR; mkdir -p a/b; echo {n} > a/b/deep; "
        "ln -s a/b/deep link; head -c 3000000 /dev/urandom > big; "
        "sha256sum big > sum; printf '#!/bin/sh' > run; chmod +x run; exit $(({n} % 2))"
    )
    tasks = [
        {"name": f"t{n}", "cwd": "/tmp", "needs": [opened[n % 5].name]}
        | {"command": command.replace("{n}", str(n))}
        for n in range(20)
    ]
    own = [{"host": host.name, "capabilities": [host.name]} for host in opened]
    job = {"name": "job", "executor": {"ssh": {"hosts": own}}, "tasks": tasks}
    umpteen.write("job.yaml", json.dumps(job))
    done = umpteen("run", "job.yaml")
    assert done.returncode == 1, done.stderr
    assert "10 succeeded, 10 failed" in done.stdout + done.stderr
    assert set(read_stdouts(umpteen)) == {f"{host.name}\n" for host in opened}
    for n in range(20):
        task = umpteen.store() / f"t{n}"
        assert (task / "stderr").read_text() == "err\n"
        assert (task / "status_code").read_text() == str(n % 2)
        assert (task / "results/link").read_text() == f"{n}\n"
        assert (task / "results/link").is_symlink()
        assert os.access(task / "results/run", os.X_OK)
        check = f"cd {task}/results && sha256sum -c --quiet sum"
        assert os.system(check) == 0
    wait_until(lambda: not any(map(list_left, opened)), 30)
    again = umpteen("run", "job.yaml", "--rerun", "none")
    assert again.returncode == 1, again.stderr


def test_interrupt_leaves_hosts_working_and_collect_brings_the_rest(
    umpteen: Umpteen, hosts: Hosts
) -> None:
    opened = [hosts.open("h1"), hosts.open("h2")]
    write_job(umpteen, opened, "echo a; sleep 1", 12)
    watcher = umpteen.start("run", "job.yaml")
    wait_until(lambda: umpteen.store().glob("t*/stdout"), LIMIT_S)
    wait_until(lambda: len(read_stdouts(umpteen)) > 0, LIMIT_S)
    os.killpg(watcher.pid, signal.SIGINT)
    _, said = watcher.communicate(timeout=60)
    assert watcher.returncode == 130
    assert "umpteen collect job" in said
    done = umpteen("collect", "job")
    assert done.returncode == 0, done.stderr
    assert_once(umpteen, 12)


@pytest.mark.parametrize("what", ["head", "agent", "ssh", "runner", "lane"])
def test_nothing_is_lost_or_run_twice_where_something_is_killed(
    umpteen: Umpteen, hosts: Hosts, what: str
) -> None:
    opened = [hosts.open("h1"), hosts.open("h2")]
    write_job(umpteen, opened, "echo x >> ran.{n}; sleep 0.4; echo a", 30)
    assert umpteen("run", "job.yaml", "--detach").returncode == 0
    wait_until(lambda: len(read_stdouts(umpteen)) > 2, LIMIT_S)
    if what == "head":
        os.kill(find_head(umpteen), signal.SIGKILL)
    for pid, line in opened[0].find_processes().items():
        is_runner = "umpteen.runner.main" in line
        if (what == "agent" and "sys.stdin.buffer" in line and "exec(" in line) or (
            what == "runner" and is_runner and not _is_lane(pid, opened[0])
        ):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if what == "lane" and is_runner and _is_lane(pid, opened[0]):
            os.kill(pid, signal.SIGKILL)
            break
    if what == "ssh":
        os.system(f"pkill -9 -f '^ssh: .*{hosts.folder}' ; pkill -9 -f 'ssh -F {hosts.config}'")
    done = umpteen("collect", "job")
    assert done.returncode == 0, done.stderr
    assert_once(umpteen, 30)
    if what in ("head", "agent", "ssh"):  # what runs on hosts is not touched by these
        files = [p for host in opened for p in host.path("/tmp").glob("ran.*")]
        assert [path.read_text() for path in files] == ["x\n"] * 30
    wait_until(lambda: not any(map(list_left, opened)), 30)


def _is_lane(pid: int, host: Host) -> bool:
    """Whether the process above it is a runner, too."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:  # as its runner was just killed
        return True
    parent = int(status.split("PPid:")[1].split()[0])
    return "umpteen.runner.main" in host.find_processes().get(parent, "")


def test_host_that_is_cut_off_is_waited_for_and_what_it_did_comes_home(
    umpteen: Umpteen, hosts: Hosts
) -> None:
    opened = [hosts.open("h1"), hosts.open("h2")]
    # So that a lost connection is noticed soon.
    with hosts.config.open("a") as config:
        config.write("\nHost *\nServerAliveInterval 1\nServerAliveCountMax 2\nConnectTimeout 2\n")
    write_job(umpteen, opened, "echo x >> ran.{n}; sleep 0.3; echo a", 24)
    watcher = umpteen.start("run", "job.yaml")
    wait_until(lambda: len(read_stdouts(umpteen)) > 1, LIMIT_S)
    opened[0].cut()
    wait_until(lambda: len(list(opened[0].path("/tmp").glob("ran.*"))) >= 8, LIMIT_S)
    opened[0].mend()
    _, said = watcher.communicate(timeout=120)
    assert watcher.returncode == 0, said
    assert_once(umpteen, 24)
    files = [p for host in opened for p in host.path("/tmp").glob("ran.*")]
    assert [path.read_text() for path in files] == ["x\n"] * 24


def test_what_a_host_has_runs_elsewhere_when_it_is_not_heard_of(
    umpteen: Umpteen, hosts: Hosts
) -> None:
    opened = [hosts.open("h1"), hosts.open("h2")]
    with hosts.config.open("a") as config:
        config.write("\nHost *\nServerAliveInterval 1\nServerAliveCountMax 2\nConnectTimeout 2\n")
    write_job(umpteen, opened, "sleep 0.3; hostname", 24, more="patience: 5s")
    watcher = umpteen.start("run", "job.yaml")
    wait_until(lambda: len(read_stdouts(umpteen)) > 1, LIMIT_S)
    opened[0].cut()
    _, said = watcher.communicate(timeout=150)
    assert watcher.returncode == 0, said
    before = {path: path.read_text() for path in umpteen.store().glob("t*/stdout")}
    assert len(before) == 24
    opened[0].mend()
    done = umpteen("collect", "job")
    assert done.returncode == 0, done.stderr
    assert {path: path.read_text() for path in umpteen.store().glob("t*/stdout")} == before
    assert_once(umpteen, 24)


def test_host_that_loses_its_power_goes_on_when_it_is_back(umpteen: Umpteen, hosts: Hosts) -> None:
    opened = [hosts.open("h1")]
    with hosts.config.open("a") as config:
        config.write("\nHost *\nServerAliveInterval 1\nServerAliveCountMax 2\nConnectTimeout 2\n")
    write_job(umpteen, opened, "sleep 0.3; echo a", 20)
    watcher = umpteen.start("run", "job.yaml")
    wait_until(lambda: len(read_stdouts(umpteen)) > 1, LIMIT_S)
    opened[0].halt()
    opened[0].boot()
    _, said = watcher.communicate(timeout=150)
    assert watcher.returncode == 0, said
    assert len(read_stdouts(umpteen)) == 20


def test_cancel_reaches_the_hosts(umpteen: Umpteen, hosts: Hosts) -> None:
    opened = [hosts.open("h1"), hosts.open("h2")]
    write_job(umpteen, opened, "trap 'echo asked; exit 1' TERM; sleep 600 & wait", 30)
    assert umpteen("run", "job.yaml", "--detach").returncode == 0
    wait_until(lambda: all(any("sleep 600" in p for p in h.list_processes()) for h in opened), 60)
    done = umpteen("cancel", "job")
    assert done.returncode == 0, done.stderr
    states = {record["state"] for record in list_records(umpteen.store())}
    assert states == {"cancelled"}
    wait_until(lambda: not any(map(list_left, opened)), 30)


def test_host_that_is_not_reached_delays_nobody_and_is_named(
    umpteen: Umpteen, hosts: Hosts
) -> None:
    up, down = hosts.open("up"), hosts.open("down")
    down.halt()
    with hosts.config.open("a") as config:
        config.write("\nHost *\nServerAliveInterval 1\nServerAliveCountMax 2\nConnectTimeout 2\n")
    write_job(umpteen, [up, down], "echo a", 10)
    done = umpteen("run", "job.yaml")
    assert done.returncode == 0, done.stderr
    assert_once(umpteen, 10)
    up.halt()
    failed = umpteen("run", "job.yaml", "--rerun", "all")
    assert failed.returncode == 3
    assert "cannot reach" in failed.stderr


def test_tasks_go_where_what_they_need_is(umpteen: Umpteen, hosts: Hosts) -> None:
    plain, other = hosts.open("plain"), hosts.open("foam")
    umpteen.write(
        "job.yaml",
        f"""name: job
executor: {{ssh: {{hosts: [{plain.name}, {{host: {other.name}, capabilities: [foam]}}]}}}}
tasks:
  - {{name: 't{{n}}', command: hostname, cwd: /tmp, needs: [foam], matrix: {{n: 0..5}}}}
  - {{name: 'u{{n}}', command: hostname, cwd: /tmp, matrix: {{n: 0..5}}}}
""",
    )
    assert umpteen("run", "job.yaml").returncode == 0
    assert set(read_stdouts(umpteen)) == {"foam\n"}
    umpteen.write("job.yaml", (umpteen.folder / "job.yaml").read_text().replace("[foam]}]", "[]}]"))
    refused = umpteen("run", "job.yaml", "--rerun", "all")
    assert refused.returncode == 2
    assert "'foam'" in refused.stderr


def test_folders_are_synced_once_for_a_host(umpteen: Umpteen, hosts: Hosts) -> None:
    host = hosts.open("h1")
    umpteen.write("code/tool.sh", "echo tool-$1\n")
    umpteen.write("code/data", "x" * 100_000)
    job = "sh code/tool.sh {n}"
    done = umpteen("run", job, "n=1..4", "--hosts", host.name, "--sync", ".", "--name", "job")
    assert done.returncode == 0, done.stderr
    found = sorted(path.read_text() for path in umpteen.store().glob("*/stdout"))
    assert found == [f"tool-{n}\n" for n in range(1, 5)]


def test_only_logs_come_home_where_that_is_asked(umpteen: Umpteen, hosts: Hosts) -> None:
    host = hosts.open("h1")
    write_job(umpteen, [host], "echo a; echo b > $UMPTEEN_RESULTS_DIR/b", 4)
    done = umpteen("run", "job.yaml", "--pull", "logs")
    assert done.returncode == 0, done.stderr
    assert read_stdouts(umpteen) == ["a\n"] * 4
    assert not list(umpteen.store().glob("t*/results"))
    assert list(host.path("/var/tmp").glob("umpteen-*/jobs/*/t0/results/b"))


def test_hosts_that_see_the_folder_write_there_themselves(umpteen: Umpteen, hosts: Hosts) -> None:
    opened = [hosts.open(name, sees=str(umpteen.folder)) for name in ("h1", "h2")]
    write_job(umpteen, opened, "hostname", 12)
    done = umpteen("run", "job.yaml")
    assert done.returncode == 0, done.stderr
    assert_once(umpteen, 12)
    for host in opened:
        assert not list(host.path("/var/tmp").glob("umpteen-*/jobs/*"))


def test_failed_tasks_are_run_again_by_retry(umpteen: Umpteen, hosts: Hosts) -> None:
    host = hosts.open("h1")
    write_job(umpteen, [host], "echo a; test -e fixed", 6)
    assert umpteen("run", "job.yaml").returncode == 1
    host.run("touch /tmp/fixed")
    done = umpteen("retry", "job")
    assert done.returncode == 0, done.stderr
    assert_once(umpteen, 6)


def test_follow_shows_what_a_task_prints_on_its_host(umpteen: Umpteen, hosts: Hosts) -> None:
    host = hosts.open("h1")
    write_job(umpteen, [host], "echo first; until test -e go; do sleep 0.1; done; echo last", 1)
    assert umpteen("run", "job.yaml", "--detach").returncode == 0
    reader = umpteen.start("logs", "job", "t0", "--follow")
    assert reader.stdout
    assert reader.stdout.readline() == "first\n"
    host.run("touch /tmp/go")
    rest, _ = reader.communicate(timeout=60)
    assert rest == "last\n"
    assert umpteen("collect", "job").returncode == 0
    assert not list(umpteen.store().glob(".umpteen/follow/*"))


def test_cancel_reaches_the_hosts_of_a_head_that_is_dead(umpteen: Umpteen, hosts: Hosts) -> None:
    host = hosts.open("h1")
    write_job(umpteen, [host], "sleep 600", 8)
    assert umpteen("run", "job.yaml", "--detach").returncode == 0
    wait_until(lambda: any("sleep 600" in line for line in host.list_processes()), 60)
    os.kill(find_head(umpteen), signal.SIGKILL)
    done = umpteen("cancel", "job")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not any("sleep 600" in line for line in host.list_processes()), 30)


def test_outputs_that_cannot_be_read_and_many_middling_ones_hold_nothing_up(
    umpteen: Umpteen, hosts: Hosts
) -> None:
    host = hosts.open("h1")
    command = (
        "cd $UMPTEEN_RESULTS_DIR; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do "
        "head -c 1000000 /dev/zero > f$i; done; echo x > secret; chmod 000 secret; "
        "mkdir closed; echo x > closed/x; chmod 000 closed"
    )
    write_job(umpteen, [host], command, 3)
    done = umpteen("run", "job.yaml")
    assert done.returncode == 0, done.stderr
    assert_once(umpteen, 3)
    found = sorted(path.name for path in (umpteen.store() / "t1/results").iterdir())
    assert [name for name in found if name.startswith("f")] == sorted(f"f{i}" for i in range(1, 13))


def test_what_is_after_tasks_of_an_earlier_run_waits_for_them(
    umpteen: Umpteen, hosts: Hosts
) -> None:
    opened = [hosts.open("h1"), hosts.open("h2")]
    names = ", ".join(host.name for host in opened)
    text = (
        f"name: job\nexecutor: {{ssh: {{hosts: [{names}]}}}}\ntasks:\n"
        "  - {name: t0, command: 'until test -e go; do sleep 0.1; done', cwd: /tmp}\n"
    )
    umpteen.write("job.yaml", text)
    assert umpteen("run", "job.yaml", "--detach").returncode == 0
    umpteen.write("job.yaml", text + "  - {name: t1, command: 'echo b', cwd: /tmp, after: t0}\n")
    watcher = umpteen.start("run", "job.yaml")
    wait_until(lambda: any("test -e go" in p for h in opened for p in h.list_processes()), 60)
    for host in opened:
        host.run("touch /tmp/go")
    _, said = watcher.communicate(timeout=90)
    assert watcher.returncode == 0, said
    assert_once(umpteen, 2)


def test_head_that_is_new_waits_for_a_host_that_an_earlier_one_gave_tasks(
    umpteen: Umpteen, hosts: Hosts
) -> None:
    opened = [hosts.open("h1"), hosts.open("h2")]
    with hosts.config.open("a") as config:
        config.write("\nHost *\nServerAliveInterval 1\nServerAliveCountMax 2\nConnectTimeout 2\n")
    write_job(umpteen, opened, "echo x >> ran.{n}; sleep 1; echo a", 12)
    assert umpteen("run", "job.yaml", "--detach").returncode == 0
    wait_until(lambda: all(list(h.path("/tmp").glob("ran.*")) for h in opened), LIMIT_S)
    opened[0].cut()
    os.kill(find_head(umpteen), signal.SIGKILL)
    watcher = umpteen.start("collect", "job")
    wait_until(lambda: len(list(opened[1].path("/tmp").glob("ran.*"))) >= 4, LIMIT_S)
    opened[0].mend()
    _, said = watcher.communicate(timeout=120)
    assert watcher.returncode == 0, said
    assert_once(umpteen, 12)
    files = [p for host in opened for p in host.path("/tmp").glob("ran.*")]
    assert [path.read_text() for path in files] == ["x\n"] * 12
