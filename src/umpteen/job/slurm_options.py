"""What a user says of Slurm, as options of sbatch.

For a job of umpteen any of them but those that are ours to set; for a script of his own these, too.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from umpteen.errors import SettingsError, nearest_hint
from umpteen.model.command import join_option
from umpteen.units import read_duration_s

__all__ = [
    "GPU_OPTIONS",
    "MEMORY_OPTIONS",
    "build_directive",
    "find_option",
    "lay_over",
    "list_options",
    "parse_options",
    "parse_script_options",
    "parse_time",
    "takes_value",
]

MEMORY_OPTIONS = ("mem", "mem-per-cpu", "mem-per-gpu")
GPU_OPTIONS = ("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres", "tres-per-task")
_ALIKE = MEMORY_OPTIONS, GPU_OPTIONS, ("requeue", "no-requeue")  # sbatch takes one of each

# Of Slurm 20.02 to 25.05. A release that does not know one says so.
_VALUES = frozenset(
    "account acctg-freq batch bb bbf begin chdir cluster-constraint comment constraint container "
    "container-id core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline "
    "delay-boot dependency distribution exclude export export-file extra extra-node-info gid "
    "gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint "
    "job-name kill-on-invalid-dep licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu "
    "mem-per-gpu mincpus network nodefile nodelist partition power prefer priority profile qos "
    "reservation resv-ports segment signal sockets-per-node switches thread-spec threads-per-core "
    "time time-min tmp tres-bind tres-per-task uid wait-all-nodes wckey".split()
)
_FLAGS = frozenset(
    "contiguous hold ignore-pbs no-requeue overcommit oversubscribe reboot requeue spread-job "
    "stepmgr use-min-nodes".split()
)
_EITHER = frozenset("exclusive get-user-env nice no-kill propagate".split())
_ONE_NODE = "each batch runs on one node, and its tasks get what they ask for by cpus and slots"
_KEPT = "what a task prints is kept with its results"
_OURS = {
    **dict.fromkeys(
        ("nodes", "ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node",
         "ntasks-per-socket"), _ONE_NODE,
    ),
    **dict.fromkeys(("output", "error", "input", "open-mode"), _KEPT),
    "array": "the batches of the job become an array",
    "clusters": "submit from a machine of that cluster",
    "wrap": "write commands as tasks of the job",
    **dict.fromkeys(("wait", "parsable", "test-only", "quiet", "verbose"), "leave it out"),
}  # fmt: skip
_TRUTH = {"true": True, "false": False}  # as files say it where all values are text
_TIMES = ("time", "time-min")
_TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}|infinite|unlimited", re.IGNORECASE)
_MEMORY = re.compile(r"\d+[KMGT]?B?", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# They change how sbatch itself behaves, and say nothing of the job.
_OF_THE_CALL = frozenset("clusters parsable quiet test-only verbose wait wrap".split())
_OF_A_SCRIPT = _VALUES | (_OURS.keys() - _OF_THE_CALL)
_EXECUTOR = "the executor 'slurm'"


def parse_options(given: Mapping[str, Any]) -> dict[str, str]:
    """By the long name of each option what it is set to; empty where it takes no value.

    `cpus_per_task` is `cpus-per-task`; what is false or null is left out. Raises SettingsError.
    """
    found: dict[str, str] = {}
    for key, value in given.items():
        name = str(key).replace("_", "-")
        if reason := _OURS.get(name):
            raise SettingsError(f"{_EXECUTOR} sets {key!r} itself", reason)
        _check_name(name, key, _VALUES, _EXECUTOR)
        said = _read_truth(name, value)
        if said is not None and said is not False:
            found[name] = _parse_value(name, said, _VALUES, _EXECUTOR)
    return found


def parse_script_options(given: Mapping[str, Any]) -> dict[str, str]:
    """The same of a script of the user's own, in which all options are his. Raises SettingsError.

    `tasks` is what milex-scheduler calls `ntasks`.
    """
    found: dict[str, str] = {}
    for key, value in given.items():
        name = find_option(str(key)) or str(key).replace("_", "-")
        _check_name(name, key, _OF_A_SCRIPT, "sbatch")
        if value is not None and value is not False:
            found[name] = _parse_value(name, value, _OF_A_SCRIPT, "sbatch")
    return found


def find_option(word: str) -> str | None:
    """The option of a script that a word names, with `-` or with `_`; None where it is none."""
    name = "ntasks" if word == "tasks" else word.replace("_", "-")
    return name if name in list_options() else None


def list_options() -> frozenset[str]:
    """Those of a script."""
    return _OF_A_SCRIPT | _FLAGS | _EITHER


def takes_value(name: str) -> bool:
    """Whether an option has to be followed by a value."""
    return name in _OF_A_SCRIPT


def build_directive(name: str, value: str) -> str:
    """The line of a script that says it: nothing in it is a line's end, as options have none."""
    text = join_option(name, value)
    is_plain = re.fullmatch(r"[\w@%+=:,./\[\]-]+", text)
    return f"#SBATCH {text if is_plain else shlex.quote(text)}"


def lay_over(given: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """More options over those given, of which none stays that says otherwise by another name."""
    replaced = {name for names in _ALIKE if not more.keys().isdisjoint(names) for name in names}
    return {**{name: v for name, v in given.items() if name not in replaced}, **more}


def _read_truth(name: str, value: Any) -> Any:
    """A truth value where a file has it as text, since all its values are."""
    return (
        _TRUTH.get(value, value) if isinstance(value, str) and name in _FLAGS | _EITHER else value
    )


def _check_name(name: str, key: object, values: frozenset[str], whose: str) -> None:
    valid = values | _FLAGS | _EITHER
    if name not in valid:
        raise SettingsError(f"{whose} has no option {key!r}", nearest_hint(name, valid))


def _parse_value(name: str, value: Any, values: frozenset[str], whose: str) -> str:
    if value is True:
        if name in values:
            raise SettingsError(f"{name!r} of {whose} needs a value")
        return ""
    if name in _FLAGS:
        raise SettingsError(f"{name!r} of {whose} is true or false, not {value!r}")
    parts = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(part, str | int | float) for part in parts):
        raise SettingsError(f"{name!r} of {whose} must be text or a number: {value!r}")
    text = ",".join(map(str, parts)).strip()
    if not text or _UNPRINTABLE.search(text):
        raise SettingsError(f"{name!r} of {whose} must be one line of text: {value!r}")
    if name in _TIMES:
        return parse_time(text, name)
    if name == "job-name" and "," in text:  # squeue takes several names with commas between
        raise SettingsError(f"{name!r} of {whose} must have no comma: {text!r}")
    if name in MEMORY_OPTIONS and not _MEMORY.fullmatch(text):
        raise SettingsError(
            f"{text!r} of {name!r} is no memory that Slurm knows", "write 500M or 4G"
        )
    return text


def parse_time(text: str, name: str = "time") -> str:
    """A time limit as Slurm writes it, which takes a bare number for minutes; `2h` is one, too.

    Raises SettingsError.
    """
    if _TIME.fullmatch(text):
        return text
    seconds = None if text.isdecimal() else read_duration_s(text)
    if seconds is None:
        raise SettingsError(
            f"{text!r} of {name!r} is no time that Slurm knows",
            "write 90 (minutes), 90s, 15m, 2h, 10:00 (ten minutes), 2:00:00 or 1-12:00:00",
        )
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
