"""`umpteen hosts` on real hosts: what they have, what is wrong, and what `clean` removes."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.hosts import Host, Hosts
from tests.support.wait import wait_until
from umpteen.model.archive import DIGEST_BYTES

pytestmark = [pytest.mark.root, pytest.mark.slow]

OWN = "/var/tmp/umpteen-42042"
DIGEST = "ab" * DIGEST_BYTES
JOB = '{"name": "sweep", "id": "0123456789abcdef"}'


def put_copy(host: Host, name: str, job: str = JOB, *, output: bool = True) -> Path:
    """A copy of a job as one is left by a head that was killed."""
    folder = f"{OWN}/jobs/{name}"
    host.run(f"mkdir -p {folder}/.umpteen/records/1; echo '{job}' >{folder}/.umpteen/job.json")
    if output:
        host.run(f"mkdir {folder}/task; head -c 5000 /dev/zero >{folder}/task/stdout")
    return host.path(folder)


def make_old(path: Path, days: float) -> None:
    then = time.time() - days * 86400
    for each in (path, *path.rglob("*")):
        os.utime(each, (then, then))


def clean(umpteen: Umpteen, *flags: str) -> tuple[int, list[tuple[str, str]]]:
    """The exit code, and kind and name of each that is said to be removed from h1."""
    done = umpteen("hosts", "clean", "h1", "--json", *flags)
    (told,) = json.loads(done.stdout)
    return done.returncode, [(item["kind"], item["name"]) for item in told["removed"]]


def test_hosts_are_shown_with_what_they_have_and_what_is_wrong(
    umpteen: Umpteen, hosts: Hosts
) -> None:
    hosts.open("h1", banner=True)
    hosts.open("h2", without=("python3", "python3.11"))
    hosts.open("h3").halt()
    hosts.open("h4", clock_s=3600, disk_bytes=64 << 20)
    began_s = time.monotonic()
    shown = umpteen("hosts", "h1", "h2", "h3", "h4")
    assert time.monotonic() - began_s < 60
    assert shown.returncode == 3, shown.stderr
    head, *rows = shown.stdout.splitlines()
    assert head.split()[:2] == ["host", "slots"]
    assert [row.split()[0] for row in rows] == ["h1", "h2", "h3", "h4"]
    assert rows[0].split()[1] == str(len(os.sched_getaffinity(0)))
    assert rows[0].endswith("-")
    assert rows[1].endswith("it has no python3")
    assert rows[2].endswith("it does not answer")
    assert "its disk is nearly full: " in rows[3]
    assert rows[3].endswith("its clock is 60 min ahead")
    assert re.match(r"waiting for [1-4] of 4 hosts: .*h3", shown.stderr)


def test_hosts_as_json_have_every_field(umpteen: Umpteen, hosts: Hosts) -> None:
    host = hosts.open("h1")
    hosts.open("h2").halt()
    put_copy(host, "0123456789abcdef-aa")
    shown = umpteen("hosts", "tester@h1", "h2", "--json")
    assert (shown.returncode, shown.stderr) == (3, "")
    one, other = json.loads(shown.stdout)
    assert other == {
        "host": "h2", "is_reached": False, "reason": "it does not answer",
        "hint": "check the network, and ssh h2", "wrong": ["it does not answer"],
    }  # fmt: skip
    assert one["host"] == "tester@h1"
    assert (one["name"], one["user"], one["folder"]) == ("h1", "tester", OWN)
    assert 0 < one["round_trip_ms"] < 60_000
    assert (one["runners"], one["clock_ahead_s"], one["is_reached"]) == ([], 0, True)
    (copy,) = one["copies"]
    assert copy["job"] == "sweep"
    assert copy["size_bytes"] == 5000 + len(JOB) + 1
    assert abs(copy["changed_s"] - time.time()) < 300
    assert (copy["has_runner"], copy["is_home"]) == (False, False)
    assert json.loads(umpteen("hosts", "h1", "--json").stdout)[0]["wrong"] == []


def test_hosts_of_a_job_are_found_by_its_file_and_its_name(umpteen: Umpteen, hosts: Hosts) -> None:
    opened = hosts.open("h1"), hosts.open("h2")
    umpteen.write(
        "sweep.yaml",
        "executor: {ssh: {hosts: [h1, {host: h2, slots: 3}]}}\n"
        "tasks:\n"
        "- cwd: /var/tmp\n"
        "  command: touch began; while [ ! -e go ]; do sleep 0.1; done\n",
    )
    by_file = umpteen("hosts", "sweep.yaml")
    assert by_file.returncode == 0, by_file.stderr
    assert "3 of " in by_file.stdout.splitlines()[2]
    running = umpteen.start("run", "sweep.yaml")
    (host,) = wait_until(lambda: [h for h in opened if h.path("/var/tmp/began").exists()], 120)
    found = {h["host"]: h for h in json.loads(umpteen("hosts", "sweep", "--json").stdout)}
    assert list(found) == ["h1", "h2"]
    (runner,) = found[host.name]["runners"]
    assert runner["job"] == "sweep"
    assert abs(runner["started_s"] - time.time()) < 300
    assert [copy["has_runner"] for copy in found[host.name]["copies"]] == [True]
    assert "sweep (for " in umpteen("hosts", host.name).stdout.splitlines()[1]
    # What runs is left alone, whatever is asked for.
    cleaned = json.loads(umpteen("hosts", "clean", "sweep", "--all", "--json").stdout)
    assert [h["removed"] for h in cleaned if h["host"] == host.name] == [[]]
    host.run("touch /var/tmp/go")
    assert running.wait(120) == 0, running.communicate()
    running.communicate()


def test_hosts_without_words_are_the_machines_of_the_config(umpteen: Umpteen, hosts: Hosts) -> None:
    none = umpteen("hosts")
    assert none.returncode == 2
    assert "no machine of umpteen config has a host" in none.stderr
    hosts.open("h1")
    config = umpteen.home / ".config/umpteen/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[machines.big]\nhost = "h1"\nuser = "tester"\n')
    for words in ((), ("big",)):
        shown = umpteen("hosts", *words)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.splitlines()[1].startswith("tester@h1 ")


def test_clean_removes_what_is_old_and_no_more(umpteen: Umpteen, hosts: Hosts) -> None:
    host = hosts.open("h1")
    umpteen("hosts", "h1")
    (present,) = host.path(OWN).glob("runner-*.zip")
    new, old = put_copy(host, "0123456789abcdef-aa"), put_copy(host, "0123456789abcdef-bb")
    host.run(f"echo 1 >{OWN}/runner-00aa.zip; mkdir -p {OWN}/synced/{DIGEST}/content")
    zip_file, synced = host.path(f"{OWN}/runner-00aa.zip"), host.path(f"{OWN}/synced/{DIGEST}")
    assert clean(umpteen) == (0, [])
    for path in (old, zip_file, synced, present):
        make_old(path, 31)
    expected = [("copy", old.name), ("runner", zip_file.name), ("synced", synced.name)]
    assert clean(umpteen, "--dry-run") == (0, expected)
    assert old.exists()
    assert clean(umpteen) == (0, expected)
    assert not any(path.exists() for path in (old, zip_file, synced))
    assert clean(umpteen) == (0, [])
    shown = umpteen("hosts", "clean", "h1", "--all")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines() == [
        "host  removed                               size",
        "h1    copy of sweep, 0123456789abcdef-aa  5.0 KB",
        "1 thing, 5.0 KB",
    ]
    assert not new.exists()
    assert present.exists()


def test_clean_removes_a_copy_that_is_home(umpteen: Umpteen, hosts: Hosts) -> None:
    host = hosts.open("h1")
    umpteen("run", "true", "--name", "small")
    source = umpteen.folder / "umpteen-results/small/.umpteen"
    home, is_open, has_outputs = copies = [
        put_copy(host, f"0123456789abcdef-{n}", output=n == "cc") for n in ("aa", "bb", "cc")
    ]
    for copy in copies:
        shutil.copytree(source, copy / ".umpteen", dirs_exist_ok=True)
        for path in copy.rglob("*"):
            os.chown(path, host.traits.user_id, host.traits.user_id)
    for records in is_open.glob(".umpteen/records/1/*"):
        records.unlink()
    assert clean(umpteen) == (0, [("copy", home.name)])
    assert has_outputs.exists()


def test_clean_says_what_could_not_be_reached_or_removed(umpteen: Umpteen, hosts: Hosts) -> None:
    host = hosts.open("h1")
    hosts.open("h2").halt()
    copy = put_copy(host, "0123456789abcdef-aa")
    os.chown(copy / "task", 0, 0)  # as a container leaves it
    done = umpteen("hosts", "clean", "h1", "h2", "--all")
    assert done.returncode == 3
    assert "Permission denied" in done.stdout.splitlines()[1]
    assert done.stdout.splitlines()[2].endswith("it does not answer")
    code, removed = clean(umpteen, "--all")
    assert (code, len(removed)) == (1, 1)


def test_flags_of_clean_need_it(umpteen: Umpteen) -> None:
    refused = umpteen("hosts", "h1", "--all")
    assert refused.returncode == 2
    assert "--all and --dry-run are for clean" in refused.stderr


def test_job_that_runs_elsewhere_has_no_hosts(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "small")
    refused = umpteen("hosts", "small")
    assert refused.returncode == 2
    assert "small runs with 'local', and not on hosts behind ssh" in refused.stderr


def test_file_that_is_not_there_is_no_host(umpteen: Umpteen) -> None:
    refused = umpteen("hosts", "sweep.yaml")
    assert refused.returncode == 2
    assert "there is no file sweep.yaml" in refused.stderr


def test_job_that_somebody_else_may_have_written_names_no_hosts(umpteen: Umpteen) -> None:
    umpteen.write("sweep.yaml", "tasks: ['true']\nname: sweep\n")
    umpteen("run", "sweep.yaml")
    (handed,) = umpteen.folder.glob("umpteen-results/sweep/.umpteen/handed/1.json")
    os.chown(handed, 42042, 42042)
    refused = umpteen("hosts", "sweep")
    assert refused.returncode == 3
    assert "may be somebody else's, so that the hosts that it names" in refused.stderr
