"""Many short commands on four hosts behind ssh, beside this machine alone and other ways to them.

The hosts are namespaces of this machine with an sshd each, so that all share its cores: what is
measured is what the way to them costs. Needs root. What takes long for a few hundred commands is
measured on these, and what that is a command is taken times the commands.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.measuring import (
    Goal,
    build_environment,
    compare,
    fresh_folder,
    open_scratch,
    parse_options,
    publish,
    read_status,
    render_table,
    render_time,
    run_rounds,
    run_timed,
    say,
    umpteen,
    write_job,
)
from tests.support.hosts import Hosts

_HOSTS = ("h1", "h2", "h3", "h4")
_SLOTS = 2  # of each

# As people write it; all logins are there already.
_LOOP = """\
for n in $(seq 1 {tasks}); do
  ssh -F {config} h$((n % 4 + 1)) /bin/true $n >out/$n.txt 2>&1 </dev/null || exit 1
done
"""


def run_umpteen(
    scratch: str, environment: Mapping[str, str], job: str, tasks: int, *flags: str
) -> float:
    """Seconds, once it was checked that every task succeeded."""
    folder = fresh_folder(scratch, "run")
    os.link(job, f"{folder}/t.json")
    seconds = run_timed(umpteen("run", "t.json", "-q", *flags), folder, environment).seconds
    counts = read_status(f"{folder}/umpteen-results/t", folder, environment)
    if counts["succeeded"] != tasks:
        sys.exit(f"bench: records say {counts}")
    return seconds


def run_parallel(scratch: str, environment: Mapping[str, str], config: Path, tasks: int) -> float:
    """Seconds of GNU Parallel, which keeps what each command prints."""
    folder = fresh_folder(scratch, "parallel")
    Path(folder, "arguments").write_text("".join(f"{n}\n" for n in range(tasks)))
    command = [
        *("parallel", "--will-cite", f"-j{_SLOTS}", "--results", "out", "-a", "arguments"),
        *("--ssh", f"ssh -F {config}", "-S", ",".join(_HOSTS), "/bin/true"),
    ]
    return run_timed(command, folder, environment).seconds


def run_loop(scratch: str, environment: Mapping[str, str], config: Path, tasks: int) -> float:
    """Seconds of a loop around ssh."""
    folder = fresh_folder(scratch, "loop")
    os.mkdir(f"{folder}/out")
    command = ["sh", "-c", _LOOP.format(tasks=tasks, config=config)]
    return run_timed(command, folder, environment).seconds


def measure(scratch: str, hosts: Hosts, tasks: int, few: int, rounds: int) -> list[Sequence[str]]:
    """The rows of the table."""
    environment = {**build_environment(scratch), **hosts.environment}
    job = f"{fresh_folder(scratch, 'job')}/short.json"
    write_job(job, tasks, lambda number: f"/bin/true {number}")
    run = functools.partial(run_umpteen, scratch, environment, job, tasks)
    names = ",".join(_HOSTS)
    say(f"{tasks:,} commands by umpteen, {few} by the others")
    runs: dict[str, Callable[[], float]] = {
        "umpteen": functools.partial(run, "--hosts", names, "--slots", str(_SLOTS), "--cwd", "/"),
        "this machine alone": functools.partial(run, "--cwd", "/"),
        "parallel --sshlogin": functools.partial(
            run_parallel, scratch, environment, hosts.config, few
        ),
        "one ssh each": functools.partial(run_loop, scratch, environment, hosts.config, few),
    }
    found = run_rounds([runs], rounds, lambda seconds: f"{seconds:.2f} s")
    rows: list[Sequence[str]] = []
    goals = {
        "this machine alone": Goal(0.8, is_least=True),
        "parallel --sshlogin": Goal(5, is_least=True),
    }
    for name in ("this machine alone", "parallel --sshlogin", "one ssh each"):
        count = tasks if name == "this machine alone" else few
        scaled = [seconds * tasks / count for seconds in found[name]]
        ratio, goal = compare(scaled, found["umpteen"]), goals.get(name)
        judged = [str(goal), goal.judge(ratio.median)] if goal else ["", ""]
        rows.append([
            f"{tasks:,}", render_time(found["umpteen"], tasks), name,
            f"{render_time(found[name], count)} for {count:,}", str(ratio), *judged,
        ])  # fmt: skip
    return rows


def main() -> None:
    options = parse_options(__doc__, tasks=10_000, rounds=3, more={"few": 400})
    with open_scratch(options, "hosts") as scratch, Hosts(Path(scratch, "hosts")) as hosts:
        for name in _HOSTS:
            hosts.open(name)
        rows = measure(scratch, hosts, options.tasks, options.more["few"], options.rounds)
        head = ["`/bin/true`", "umpteen", "beside", "", "times as fast", "target", ""]
        publish("hosts", render_table(head, rows), scratch, options)


if __name__ == "__main__":
    main()
