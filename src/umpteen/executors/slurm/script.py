"""What sbatch is given: its options, and the script that runs one batch on a node. Pure.

The options stand in the head of the script for people, and on the command line, where variables
such as SBATCH_PARTITION do not win over them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from umpteen._version import __version__
from umpteen.executors.slurm.arrays import ArrayJob
from umpteen.job.slurm_options import (
    GPU_OPTIONS,
    MEMORY_OPTIONS,
    build_directive,
    lay_over,
)
from umpteen.model.command import RUNNER_VARIABLE
from umpteen.model.ranges import format_ranges

__all__ = [
    "NO_PYTHON",
    "UNSEEN",
    "ScriptPlaces",
    "build_elements",
    "build_job_name",
    "build_prefix",
    "build_sbatch_options",
    "build_script",
    "build_submitter",
    "build_submitter_options",
]

UNSEEN, NO_PYTHON = 66, 69  # exit codes of the script: it sees no results, it finds no Python
_USUAL_WARNING_S = 60  # of Slurm
_WARNING_S = 30  # before the time limit, for tasks to be ended kindly and outcomes recorded
_SHIFTS = {"K": 10, "": 20, "M": 20, "G": 30, "T": 40}
_ODD = re.compile(r"[^\w.+-]")

# Nothing of the folder that it is in comes before the standard library.
_PROGRAM = """\
import sys
if sys.version_info < (3, 9):
    sys.stderr.write("error: this Python is older than 3.9: %s\\n" % sys.executable)
    sys.exit(3)
sys.path[:] = list(filter(None, sys.path)) + [sys.argv.pop(1)]
from umpteen.runner.{module} import main
sys.exit(main())"""

_SCRIPT = """\
#!/bin/bash
# Written by umpteen {version}: {count}, one to each element of the array.
{head}

{until}trap '' USR1  # until the runner takes it, which is asked by it to look for a cancel mark
results={address}
runner={runner}
{batch}
[ -r "$runner" ] && exec >>"$results"/{logs}/"$batch.log" 2>&1 || exit {unseen}
{setup}command -v python3 >/dev/null || {{ echo "error: there is no python3"; exit {no_python}; }}

token=$(od -An -N6 -tx1 /dev/urandom | tr -d ' \\n')
export {variable}="$token"
exec python3 -S -E -c {program} "$runner" "$results" "$batch" \\
  --token="$token" --store={store} --slots={slots} --cpus={cpus}{memory}{told_until} --take-over
"""


_ONE_TASK = {"nodes": "1", "ntasks": "1"}
_SUBMITTER = """\
#!/bin/bash
# Written by umpteen {version}: submits the arrays of a job for which there was no room.
{head}

results={address}
runner={runner}
[ -r "$runner" ] && exec >>"$results"/{logs}/submitter.log 2>&1 || exit {unseen}
exec python3 -S -E -c {program} "$runner" "$results" {mark}
"""
# What of the user's options says where a job may run at all, and not what it needs there.
_WHERE = ("account", "partition", "qos", "reservation", "wckey", "export", "export-file")


class ScriptPlaces(NamedTuple):
    """Where a script finds what it needs, and writes what the runner says."""

    address: str  # of the store
    store: str  # the word that it is known by
    runner: str  # path of the zip file
    logs: str  # key of the folder


def build_prefix(name: str, mark: str) -> str:
    """Of Slurm's names for what is of a submission: nobody else's have its mark."""
    return f"{_ODD.sub('_', name)}-{mark}"


def build_job_name(name: str, mark: str, number: int) -> str:
    """Slurm's name of an array, by which it is known to be ours."""
    return f"{build_prefix(name, mark)}-{number}"


def build_sbatch_options(
    array: ArrayJob, given: Mapping[str, str], slots: int, name: str, dependencies: Sequence[str]
) -> dict[str, str]:
    """The options of sbatch for an array.

    given: for all arrays. name: by which the array is known to be ours; where its tasks say what
    Slurm is to call it, that is its name, and ours stands in its comment. Tasks of a bundle also
    say how many nodes they want, and how many elements may run at once (`array`: `%2`).
    """
    own = dict(array.needs.options)
    given = lay_over(given, own)
    wanted = {"signal": f"B:TERM@{_WARNING_S}", **given}
    if not {"requeue", "no-requeue"} & given.keys():
        wanted["requeue"] = ""
    if array.needs.memory and own.keys().isdisjoint(MEMORY_OPTIONS):
        wanted = {key: value for key, value in wanted.items() if key not in MEMORY_OPTIONS}
        wanted["mem"] = f"{-(-slots * array.needs.memory // (1 << 20))}M"
    if array.needs.gpus and not given.keys() & set(GPU_OPTIONS):
        wanted["gres"] = f"gpu:{slots * array.needs.gpus}"
    if dependencies:
        after = f"afterany:{':'.join(dependencies)}"
        wanted["dependency"] = f"{given['dependency']},{after}" if "dependency" in given else after
    if "job-name" in own:
        wanted["comment"] = " ".join(filter(None, [given.get("comment"), name]))
    last = len(array.batches) - 1
    return {
        **wanted,
        "job-name": own.get("job-name", name),
        "array": (f"0-{last}" if last else "0") + own.get("array", ""),
        **({} if any(key.startswith(("nodes", "ntasks")) for key in own) else _ONE_TASK),
        "cpus-per-task": str(count_cpus(array, given, slots)),
        "output": "/dev/null",
    }


def count_cpus(array: ArrayJob, given: Mapping[str, str], slots: int) -> int:
    """The cores of an element: enough for its tasks, or more where the user says so."""
    said = given.get("cpus-per-task", "")
    return max(slots * max(1, array.needs.cpus), int(said) if said.isdecimal() else 1)


def build_submitter_options(given: Mapping[str, str], name: str, minutes: int) -> dict[str, str]:
    """The options of sbatch for the job that submits others. given: by the user; name: Slurm's."""
    return {
        **{key: given[key] for key in _WHERE if key in given},
        "time": str(minutes),
        "requeue": "",
        "dependency": "singleton",
        "job-name": name,
        "array": "0",
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": "1",
        "mem": "100M",
        "output": "/dev/null",
    }


def build_submitter(options: Mapping[str, str], places: ScriptPlaces, mark: str) -> str:
    """The script of the job that submits others. mark: of the submission."""
    return _SUBMITTER.format(
        version=__version__,
        head="\n".join(build_directive(*each) for each in options.items()),
        address=shlex.quote(places.address),
        runner=shlex.quote(places.runner),
        logs=shlex.quote(places.logs),
        unseen=UNSEEN,
        program=shlex.quote(_PROGRAM.format(module="slurm.submitter")),
        mark=mark,
    )


def build_script(
    array: ArrayJob,
    options: Mapping[str, str],
    places: ScriptPlaces,
    slots: int,
    setup: Sequence[str] = (),
    limit_s: int = 0,
) -> str:
    """The script of an array. setup: lines of the user's, which come before the runner.

    limit_s: after which Slurm ends it; 0: that is not known.
    """
    count = len(array.batches)
    memory = count_memory(options.get("mem", ""))
    memory = max(memory, slots * array.needs.memory) if memory else 0
    left_s = limit_s - _count_warning(options["signal"])
    return _SCRIPT.format(
        version=__version__,
        count=f"{count:,} {'batches' if count > 1 else 'batch'} of a job",
        head="\n".join(build_directive(*each) for each in options.items()),
        address=shlex.quote(places.address),
        runner=shlex.quote(places.runner),
        batch=_build_choice(array.batches),
        logs=shlex.quote(places.logs),
        setup="".join(f"{line}\n" for line in setup),
        unseen=UNSEEN,
        no_python=NO_PYTHON,
        variable=RUNNER_VARIABLE,
        program=shlex.quote(_PROGRAM.format(module="main")),
        store=shlex.quote(places.store),
        slots=slots,
        cpus=options["cpus-per-task"],
        memory=f" --memory={memory}" if memory else "",
        until=f"until=$(($(date +%s) + {left_s}))  # when it is warned\n" if left_s > 0 else "",
        told_until=' --until="$until"' if left_s > 0 else "",
    )


def _count_warning(signal: str) -> int:
    """Seconds before the time limit, of what `--signal` takes; 60 where it does not say."""
    found = re.fullmatch(r".*@(\d+)", signal)
    return int(found[1]) if found else _USUAL_WARNING_S


def count_memory(text: str) -> int:
    """The bytes in what `--mem` takes, which is in MB where it does not say; 0: no limit."""
    found = re.fullmatch(r"(\d+)([KMGT]?)B?", text, re.IGNORECASE)
    return int(found[1]) << _SHIFTS[found[2].upper()] if found else 0


def _build_choice(batches: Sequence[str]) -> str:
    """The line that finds the batch of an element."""
    numbers = [int(batch) for batch in batches]
    first = numbers[0]
    if numbers == list(range(first, first + len(numbers))):
        return f"batch=$(({first} + SLURM_ARRAY_TASK_ID))"
    return f"batches=({' '.join(batches)})\nbatch=${{batches[$SLURM_ARRAY_TASK_ID]}}"


def build_elements(job: int, indices: Sequence[int]) -> str:
    """Some elements of an array, as scancel takes them."""
    return f"{job}_[{format_ranges(sorted(indices))}]"
