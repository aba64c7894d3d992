"""Strike parts of a job on hosts behind ssh at random points, and check its store and the hosts.

    python -m tests.sweeps.hosts [--points 100] [--tasks 200] [--seed N] [--strike head]

Killed with signal 9 is the client, the head, the ssh of it, or on a host its agent, runner or a
lane. Or a host's cable is pulled for a while, its processes are stopped for a while, or its power
is cut. Each point strikes once or twice; `collect` goes on until all is done.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.command import Umpteen
from tests.support.hosts import Host, Hosts
from tests.support.wait import wait_until
from tests.sweeps.engines import check_winners
from tests.sweeps.points import run_points
from tests.sweeps.records import estimate_records, list_lost, read_record_lines

__all__ = ["TARGETS", "list_processes", "main", "run_hosts_point", "strike"]

TARGETS = (
    "client", "head", "ssh", "agent", "runner", "lane", "cable", "stopped", "power",
)  # fmt: skip
_AGAIN_MOST = 5  # collects, until all is done
_LIMIT_S = 300.0
_PATIENCE_S = 600  # nothing is to run elsewhere
_QUICK = "\nHost *\nServerAliveInterval 1\nServerAliveCountMax 3\nConnectTimeout 3\n"


def run_hosts_point(
    umpteen: Umpteen, strikes: Sequence[tuple[str, int]], tasks: int, pause_s: float
) -> list[str]:
    """Run a job on three hosts, strike the targets, and say what is wrong at the end.

    strikes: targets, each with how many tasks have ended by then. pause_s: how long a cable is
    pulled, and processes are stopped.
    """
    with Hosts(umpteen.folder.parent / "hosts") as hosts:
        opened = [hosts.open(name) for name in ("h1", "h2", "h3")]
        with hosts.config.open("a") as config:
            config.write(_QUICK)
        return _run_point(umpteen, hosts, opened, strikes, tasks, pause_s)


def _run_point(
    umpteen: Umpteen,
    hosts: Hosts,
    opened: Sequence[Host],
    strikes: Sequence[tuple[str, int]],
    tasks: int,
    pause_s: float,
) -> list[str]:
    command = (
        "sleep 0.03; echo {n}; mkdir $UMPTEEN_RESULTS_DIR/a; echo {n} > $UMPTEEN_RESULTS_DIR/n"
    )
    content = {
        "executor": {"ssh": {"hosts": [host.name for host in opened], "patience": _PATIENCE_S}},
        "tasks": [{"command": command.replace("{n}", str(n)), "cwd": "/tmp"} for n in range(tasks)],
    }
    (umpteen.folder / "job.json").write_text(json.dumps(content))
    store = umpteen.folder / "umpteen-results" / "job"
    client = umpteen.start("run", "job.json", "-q", env=hosts.environment)
    try:
        before = read_record_lines(store)
        for target, after in strikes:
            wait_until(lambda after=after: _has_come(store, after, client), 120)  # type: ignore[misc]
            before = read_record_lines(store)
            strike(target, umpteen, hosts, opened[after % len(opened)], client, pause_s)
        client.wait(_LIMIT_S)
        returned, said = client.returncode, client.communicate()
        for _ in range(_AGAIN_MOST):
            if returned == 0:
                break
            again = umpteen("collect", "job", "-q", timeout_s=_LIMIT_S, env=hosts.environment)
            returned, said = again.returncode, (again.stdout, again.stderr)
        faults = [f"ended with {returned}: {said}"] if returned else []
        faults += [*check_winners(store, tasks), *list_lost(before, store)]
        # A host that is stopped at the end is not waited for; `umpteen hosts clean` is for that.
        is_waited_for = strikes[-1][0] != "stopped"
        return [*faults, *(_list_left(opened) if is_waited_for else ())]
    except subprocess.TimeoutExpired:
        shown = umpteen("status", "job", env=hosts.environment).stdout
        return [f"it does not end: {shown}", *map(str, map(list_processes, opened))]
    finally:
        client.kill()
        client.communicate()
        _kill(find_heads(umpteen))


def _has_come(store: Path, after: int, client: subprocess.Popen[str]) -> bool:
    return estimate_records(store) >= after or client.poll() is not None


def strike(
    target: str,
    umpteen: Umpteen,
    hosts: Hosts,
    host: Host,
    client: subprocess.Popen[str],
    pause_s: float,
) -> None:
    """Do what a target's name says; a cable and what was stopped come back after a while."""
    if target == "client":
        client.kill()
    elif target == "head":
        _kill(find_heads(umpteen))
    elif target == "ssh":
        _kill(_find_here(f"ssh -F {hosts.config}"))
    elif target == "cable":
        host.cut()
        threading.Timer(pause_s, host.mend).start()
    elif target == "stopped":
        host.freeze()
        threading.Timer(pause_s, host.thaw).start()
    elif target == "power":
        host.halt()
        host.boot()
    else:
        _kill(_find_there(host, target)[:1])


def find_heads(umpteen: Umpteen) -> list[int]:
    """The process ids of heads that have a lease."""
    found = []
    for path in umpteen.leases.glob("*/runner.json"):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(json.loads(path.read_text())["pid"]))
    return found


def _find_here(words: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if words in path.read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                found.append(int(path.parent.name))
    return found


def _find_there(host: Host, target: str) -> list[int]:
    processes = host.find_processes()
    if target == "agent":
        return [pid for pid, line in processes.items() if "sys.stdin.buffer" in line]
    runners = {pid for pid, line in processes.items() if "umpteen.runner.main" in line}
    lanes = {pid for pid in runners if _find_parent(pid) in runners}
    return sorted(lanes if target == "lane" else runners - lanes)


def _find_parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("PPid:")[1].split()[0])
    return 0


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def list_processes(host: Host) -> list[str]:
    """What of umpteen runs on a host."""
    return [line[:100] for line in host.list_processes() if "umpteen" in line or "sleep" in line]


def _list_left(opened: Sequence[Host]) -> list[str]:
    """What is left on hosts at the end: processes, and files of the job."""

    def look() -> list[str]:
        return [
            f"{host.name} has {left} left"
            for host in opened
            for left in (*list_processes(host), *host.path("/var/tmp").glob("umpteen-*/jobs/*"))
        ]

    limit_s = time.monotonic() + 20
    while (left := look()) and time.monotonic() < limit_s:
        time.sleep(0.2)
    return left


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; 1 where a point had a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--strike", choices=TARGETS, help="this alone")
    options = parser.parse_args(arguments)
    generator = random.Random(options.seed)

    def run(_: int, umpteen: Umpteen) -> tuple[str, list[str]]:
        strikes = sorted(
            (
                (options.strike or generator.choice(TARGETS), generator.randrange(options.tasks))
                for _ in range(generator.choice((1, 1, 2)))
            ),
            key=lambda each: each[1],
        )
        pause_s = generator.uniform(2, 20)
        faults = run_hosts_point(umpteen, strikes, options.tasks, pause_s)
        named = " and ".join(f"{target} after {after}" for target, after in strikes)
        return f"{named}, {pause_s:.0f} s", faults

    return run_points(options.points, options.seed, run)


if __name__ == "__main__":
    sys.exit(main())
