"""The hosts behind ssh that tests are made with: real machines as far as umpteen can tell."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hosts import Host, Hosts, are_allowed
from tests.support.network import open_network
from tests.support.wait import wait_until

pytestmark = pytest.mark.root


def ssh(host: Host, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    words = shlex.split(os.environ["UMPTEEN_SSH"])
    return subprocess.run(
        [*words, *options, host.name, command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_hosts_have_names_ids_and_folders_of_their_own(hosts: Hosts) -> None:
    h1, h2 = hosts.open("h1"), hosts.open("h2", user="other")
    places = ["/tmp/here", "/var/tmp/here", "/home/tester/here"]
    assert ssh(h1, f"touch {' '.join(places)}; hostname; id -un; pwd").stdout.split() == [
        "h1",
        "tester",
        "/home/tester",
    ]
    assert ssh(h2, "hostname; id -un; pwd; ls /home /tmp /var/tmp").stdout.split() == [
        *("h2", "other", "/home/other"),
        *("/home:", "other", "/tmp:", "/var/tmp:"),
    ]
    for place in places:
        assert h1.path(place).exists()
        assert not Path(place).exists()
    ids = "cat /etc/machine-id /proc/sys/kernel/random/boot_id"
    known = [*h1.run(ids).split(), *h2.run(ids).split()]
    assert len(set(known)) == 4


def test_command_of_run_is_the_same_users_without_ssh(hosts: Hosts) -> None:
    host = hosts.open("h1")
    told = "id; pwd; hostname; echo $HOME $USER; readlink /proc/self/ns/pid"
    assert host.run(told) == ssh(host, told).stdout
    with pytest.raises(AssertionError, match="exit code 3\nwhy"):
        host.run("echo why >&2; exit 3")


def test_processes_are_listed_frozen_and_thawed(hosts: Hosts) -> None:
    host, other = hosts.open("h1"), hosts.open("h2")
    counting = "while :; do echo x >> counted; sleep 0.01; done"
    ssh(host, f"nohup setsid sh -c '{counting}' >/dev/null 2>&1 &")
    counted = host.path("/home/tester/counted")
    wait_until(counted.exists)
    assert f"sh -c {counting}" in host.list_processes()
    assert not [line for line in host.list_processes() if "sshd" in line]
    assert other.list_processes() == []
    host.freeze()
    size = counted.stat().st_size
    assert ssh(host, "echo on").stdout == "on\n"
    assert counted.stat().st_size == size
    host.thaw()
    wait_until(lambda: counted.stat().st_size > size)


def test_cut_host_is_silent_until_it_is_mended(hosts: Hosts) -> None:
    host, other = hosts.open("h1"), hosts.open("h2")
    own = ("-o", "ControlPath=none", "-o", "ConnectTimeout=1")
    host.cut()
    done = ssh(host, "true", *own)
    assert done.returncode == 255
    assert "timed out" in done.stderr, done.stderr
    assert ssh(other, "true", *own).returncode == 0
    assert host.run("echo on") == "on\n"
    host.mend()
    wait_until(lambda: ssh(host, "true", *own).returncode == 0)


def test_halted_host_has_files_but_no_processes_when_it_boots(hosts: Hosts) -> None:
    host = hosts.open("h1")
    boot = host.run("cat /proc/sys/kernel/random/boot_id")
    ssh(host, "touch kept; nohup sleep 600 >/dev/null 2>&1 &")
    pids = list(host.find_processes())
    assert host.list_processes() == ["sleep 600"]
    host.halt()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert host.path("/home/tester/kept").exists()
    assert ssh(host, "true", "-o", "ControlPath=none", "-o", "ConnectTimeout=1").returncode == 255
    host.boot()
    assert host.list_processes() == []
    assert host.run("ls; cat /proc/sys/kernel/random/boot_id") != f"kept\n{boot}"
    assert ssh(host, "ls", "-o", "ControlPath=none").stdout == "kept\n"


def test_host_has_another_python_in_login_shells(hosts: Hosts, need: Callable[[str], str]) -> None:
    need("pypy3")
    host = hosts.open("h1", python="pypy3")
    asked = "python3 -c 'import sys; print(sys.implementation.name)'"
    assert ssh(host, asked).stdout == "cpython\n"
    assert ssh(host, f"bash -lc {shlex.quote(asked)}").stdout == "pypy\n"


def test_host_prints_a_banner_before_what_it_is_asked(hosts: Hosts) -> None:
    host = hosts.open("h1", banner=True)
    done = ssh(host, "echo said")
    assert done.stdout == "Welcome to h1\nsaid\n"
    assert "nearly full" in done.stderr
    assert ssh(host, "bash -lc 'echo said'").stdout.endswith("Welcome to h1\nsaid\n")
    assert host.run("echo said") == "said\n"


def test_host_executes_nothing_in_its_folders_for_temporary_files(hosts: Hosts) -> None:
    host = hosts.open("h1", noexec_tmp=True)
    for folder, code in (("/tmp", 126), ("/var/tmp", 126), ("/home/tester", 0)):
        made = f"printf '#!/bin/sh\n' > {folder}/x && chmod +x {folder}/x && {folder}/x"
        assert ssh(host, made).returncode == code, folder


def test_host_has_a_small_disk(hosts: Hosts) -> None:
    host = hosts.open("h1", disk_bytes=1 << 20)
    done = ssh(host, "head -c 600000 /dev/zero > a && head -c 600000 /dev/zero > /var/tmp/b")
    assert "No space left" in done.stderr
    host.halt()
    assert host.path("/home/tester/a").stat().st_size == 600_000


def test_host_lacks_programs(hosts: Hosts, need: Callable[[str], str]) -> None:
    need("rsync")
    host, other = hosts.open("h1", without=("rsync", "bash")), hosts.open("h2")
    assert ssh(host, "rsync --version").returncode == 127
    assert ssh(host, "command -v bash; echo $0").stdout.split() == ["sh"]
    assert ssh(other, "rsync --version").returncode == 0
    assert shutil.which("rsync")


def test_host_has_a_wrong_clock(hosts: Hosts, need: Callable[[str], str]) -> None:
    need("cc")
    host = hosts.open("h1", clock_s=3600)
    asked = "date +%s; python3 -c 'import time; print(int(time.time()))'"
    for told in (ssh(host, asked).stdout, host.run(asked)):
        for seconds in map(int, told.split()):
            assert seconds == pytest.approx(time.time() + 3600, abs=600)


def test_wait_of_threads_is_no_longer_by_a_wrong_clock(
    hosts: Hosts, need: Callable[[str], str]
) -> None:
    need("cc")
    host = hosts.open("h1", clock_s=3600, python=need("pypy3"))
    code = "import threading as t; t.Thread(target=t.Event().wait, args=[0.2]).start()"
    assert ssh(host, f"bash -lc \"timeout 30 python3 -c '{code}'\"").returncode == 0


def test_closed_hosts_leave_no_process_network_mount_or_login(hosts: Hosts, tmp_path: Path) -> None:
    with Hosts(tmp_path / "more") as more:
        host = more.open("h1", disk_bytes=1 << 20)
        words = shlex.split(more.environment["UMPTEEN_SSH"])
        subprocess.run([*words, "h1", "nohup sleep 600 >/dev/null 2>&1 &"], check=True)
        (pid,) = host.find_processes()
        name = host.network.name
        assert str(host.folder) in Path("/proc/mounts").read_text()
        checking = subprocess.run([*words, "-O", "check", "h1"], capture_output=True, check=True)
        master = int(checking.stderr.partition(b"pid=")[2].split(b")")[0])
    assert hosts.config.exists()
    assert not Path(f"/proc/{pid}").exists()
    wait_until(lambda: not Path(f"/proc/{master}").exists())
    assert str(host.folder) not in Path("/proc/mounts").read_text()
    assert not Path(f"/sys/class/net/{name}").exists()
    assert not Path(f"/run/netns/{name}").exists()


def test_networks_of_two_runs_of_tests_share_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    if not are_allowed():
        pytest.skip("needs root, for networks of its own")
    taken = []
    with contextlib.ExitStack() as stack:
        for name in (11, 12):
            wanted = itertools.chain([name], itertools.count(4000))
            monkeypatch.setattr("tests.support.network._NUMBERS", wanted)
            taken.append(stack.enter_context(open_network()))
    first, second = taken
    assert {first.host, first.guest}.isdisjoint({second.host, second.guest})
