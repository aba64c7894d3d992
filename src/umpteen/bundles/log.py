"""The log of a job of a bundle, where Slurm would write it. Pure.

umpteen keeps stdout and stderr apart, in its results; a shell script beside the scripts of the
bundle copies both into the log while they are written.
"""

from __future__ import annotations

import os
import re

from umpteen.config.machines import Machine

__all__ = ["RUN_SCRIPT", "build_log_word", "build_run_path", "show_log"]

# It lives on when it is asked to end, as what the script prints then is to be copied, too. What a
# script leaves running has its stdout, so the copying ends with a process of its own.
RUN_SCRIPT = """\
#!/bin/sh
# Written by umpteen. Runs a script, and copies what it prints: KIND LOG ERRORS SCRIPT.
kind=$1 log=$2 errors=$3 script=$4
if [ "$kind" != array ]; then  # those of the array that it is submitted in say nothing to it
    unset SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_ARRAY_TASK_COUNT SLURM_ARRAY_TASK_MIN \\
        SLURM_ARRAY_TASK_MAX SLURM_ARRAY_TASK_STEP
fi
out=$(readlink /proc/$$/fd/1) err=$(readlink /proc/$$/fd/2)
trap '' TERM INT HUP  # for what copies
sleep infinity & until=$!
copy() {
    to=$1
    shift
    (exec tail -q -n +1 -s 0.2 --pid=$until -f "$@" >>"$to") &
}
if [ "$errors" ]; then
    copy "$log" "$out"
    copy "$errors" "$err"
else
    copy "$log" "$out" "$err"
fi
trap : TERM INT HUP
bash "$script"
code=$?
kill -KILL $until
wait 2>/dev/null
exit $code
"""

_SIGN = re.compile(r"%(\d?)([%xjAauN])", re.ASCII)  # a digit: how many a number has at least
_SPECIAL = re.compile(r'(["\\$`])')
_VARIABLES = {"j": "SLURM_JOB_ID", "A": "SLURM_ARRAY_JOB_ID", "u": "USER", "N": "SLURMD_NODENAME"}


def build_run_path(machine: Machine) -> str:
    """Where RUN_SCRIPT lies on the machine."""
    return os.path.join(machine.folder, "slurm", "umpteen-run.sh")


def build_log_word(pattern: str, name: str, index: int | None) -> str:
    """What `--output` or `--error` says, as a word of shell that is read on the node.

    name: Slurm's of the job. index: in the array that it is an element of.
    """
    found, end = [], 0
    for sign in _SIGN.finditer(pattern):
        variable = _VARIABLES.get(sign[2])
        if variable and sign[1] and sign[2] in "jA":
            filled = f'$(printf %0{sign[1]}d "${{{variable}}}")'
        else:
            filled = f"${{{variable}}}" if variable else _escape(_fill(sign, name, index))
        found += [_escape(pattern[end : sign.start()]), filled]
        end = sign.end()
    return '"' + "".join([*found, _escape(pattern[end:])]) + '"'


def show_log(pattern: str, name: str, job: int) -> str:
    """The path of the log of a job that is no array, for people."""

    def fill(sign: re.Match[str]) -> str:
        is_number = sign[2] in "jA"
        return str(job).zfill(int(sign[1] or 0)) if is_number else _fill(sign, name, None)

    return _SIGN.sub(fill, pattern)


def _fill(sign: re.Match[str], name: str, index: int | None) -> str:
    number = "" if index is None else str(index).zfill(int(sign[1] or 0))
    return {"%": "%", "x": name, "a": number}.get(sign[2], sign[0])


def _escape(text: str) -> str:
    """For double quotes of a shell."""
    return _SPECIAL.sub(r"\\\1", text)
