"""Many short commands in Slurm's queue, beside one sbatch for each, and beside submitit's arrays.

A real slurmctld and two nodes on this machine. What takes minutes for a few hundred commands is
measured on these, and what that is a command is taken times the commands. The calls of Slurm's
own commands that umpteen made are counted.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.measuring import (
    ROOT,
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
from tests.support.slurm import SlurmCluster

_CPUS = 8  # of each of two nodes, as Slurm is told
_COMMANDS = ("sbatch", "squeue", "scontrol", "sinfo", "scancel", "sacct")
_COUNTING = """#!/bin/sh
echo {name} >> {folder}/calls
exec {program} "$@"
"""

# As people write it.
_LOOP = """\
for n in $(seq 1 {tasks}); do
  sbatch --parsable -o out/$n.txt --wrap "/bin/true $n" >> ids || exit 1
done
while [ "$(squeue -h | head -1)" ]; do sleep 0.2; done
"""
_SUBMITIT = """
    import subprocess, sys
    import submitit

    def run(number):
        return subprocess.run(["/bin/true", str(number)]).returncode

    executor = submitit.AutoExecutor(folder="log", cluster="slurm")
    executor.update_parameters(timeout_min=10, cpus_per_task=1, slurm_array_parallelism=1000)
    jobs = executor.map_array(run, list(range(int(sys.argv[1]))))
    assert [job.result() for job in jobs] == [0] * len(jobs)
"""


def run_umpteen(scratch: str, environment: Mapping[str, str], job: str, tasks: int) -> float:
    """Seconds, once it was checked that every task succeeded."""
    folder = fresh_folder(scratch, "run")
    os.link(job, f"{folder}/t.json")
    command = umpteen("run", "t.json", "-q", "--executor", "slurm")
    seconds = run_timed(command, folder, environment).seconds
    counts = read_status(f"{folder}/umpteen-results/t", folder, environment)
    if counts["succeeded"] != tasks:
        sys.exit(f"bench: records say {counts}")
    return seconds


def run_loop(scratch: str, environment: Mapping[str, str], tasks: int) -> float:
    """Seconds of a loop around sbatch, until the queue is empty."""
    folder = fresh_folder(scratch, "loop")
    os.mkdir(f"{folder}/out")
    return run_timed(["sh", "-c", _LOOP.format(tasks=tasks)], folder, environment).seconds


def run_submitit(scratch: str, environment: Mapping[str, str], tasks: int) -> float:
    """Seconds of one array of submitit, until it has all results."""
    folder = fresh_folder(scratch, "submitit")
    Path(folder, "each.py").write_text(textwrap.dedent(_SUBMITIT))
    command = [
        f"{ROOT}/.tools/bin/uv", "run", "--no-project", "--with", "submitit", "python", "each.py",
        str(tasks),
    ]  # fmt: skip
    return run_timed(command, folder, environment).seconds


def count_calls(folder: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which each call of Slurm's commands is written down in the folder."""
    for name in _COMMANDS:
        program = shutil.which(name)
        script = Path(folder, name)
        script.write_text(_COUNTING.format(name=name, folder=folder, program=program))
        script.chmod(0o755)
    return {**environment, "PATH": f"{folder}:{environment['PATH']}"}


def main() -> None:
    options = parse_options(__doc__, tasks=10_000, rounds=3, more={"few": 200})
    few = options.more["few"]
    cluster = SlurmCluster(cpus=_CPUS, array_size=options.tasks + 1)
    with open_scratch(options, "slurm") as scratch:
        environment = {**build_environment(scratch), **cluster.environment}
        calls_folder = fresh_folder(scratch, "calls")
        counting = count_calls(calls_folder, environment)
        job = f"{fresh_folder(scratch, 'job')}/short.json"
        write_job(job, options.tasks, lambda number: f"/bin/true {number}")
        try:
            cluster.start()
            run_submitit(scratch, environment, 1)  # which downloads it
            say(f"{options.tasks:,} commands by umpteen, {few} by the others")
            runs: dict[str, Callable[[], float]] = {
                "umpteen": functools.partial(run_umpteen, scratch, counting, job, options.tasks),
                "one sbatch each": functools.partial(run_loop, scratch, environment, few),
                "submitit": functools.partial(run_submitit, scratch, environment, few),
            }
            found = run_rounds([runs], options.rounds, lambda seconds: f"{seconds:.2f} s")
        finally:
            cluster.stop()
        counts = Counter(Path(calls_folder, "calls").read_text().split())
        said = ", ".join(
            f"{count / options.rounds:.0f} {name}" for name, count in sorted(counts.items())
        )
        rows = []
        for name, goal in (("one sbatch each", Goal(10, is_least=True)), ("submitit", None)):
            scaled = [seconds * options.tasks / few for seconds in found[name]]
            ratio = compare(scaled, found["umpteen"])
            judged = [str(goal), goal.judge(ratio.median)] if goal else ["", ""]
            rows.append([
                f"{options.tasks:,}", render_time(found["umpteen"], options.tasks), name,
                f"{render_time(found[name], few)} for {few}", str(ratio), *judged,
            ])  # fmt: skip
        head = ["`/bin/true`", "umpteen", "beside", "", "times as fast", "target", ""]
        lines = [*render_table(head, rows), "", f"Calls that umpteen made in a run: {said}."]
        publish("slurm", lines, scratch, options)


if __name__ == "__main__":
    main()
