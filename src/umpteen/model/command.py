"""What a command is: its digest, its shell words, and the environment that it sees."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence

from umpteen.model.variables import RUNNER

__all__ = [
    "RUNNER_VARIABLE",
    "build_digest",
    "build_environment",
    "join_option",
    "shell_command",
    "write_verb",
]


RUNNER_VARIABLE = RUNNER  # what the processes of a runner are found by


def build_digest(
    command: str | Sequence[str], env: Mapping[str, str] | None, cwd: str | None
) -> str:
    """16 hex digits of a task's command, declared environment and directory as written."""
    if isinstance(command, str) and not env and cwd is None:
        content = command
    else:
        content = "\0" + json.dumps([command, env or {}, cwd], sort_keys=True)
    return hashlib.blake2b(content.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def shell_command(command: str | Sequence[str]) -> str:
    """The command as text for `sh -c`; a list is quoted word by word."""
    return command if isinstance(command, str) else shlex.join(command)


def write_verb(verb: str, *names: str, flags: str = "") -> str:
    """What to type: `umpteen logs job 3 --stderr`,
    that works whatever jobs and tasks are called.
    """
    parts = ["umpteen", verb, shlex.join(names), flags]
    if any(name.startswith("-") for name in names):
        parts = ["umpteen", verb, flags, "--", shlex.join(names)]
    return " ".join(filter(None, parts))


def build_environment(
    job: str, task: str, index: int, attempt: int, slot: int, results_dir: str, output: str
) -> list[bytes]:
    """The variables a task finds beside those it inherits (store.md, section 8), as `KEY=value`.

    results_dir: the folder on this machine that it writes results to. output: the address
    of the folder of all its outputs. Programs written for `sc` expect a slash behind the former.
    """
    # The names as in model.variables, spelled out: this runs once a task, and is a third faster.
    text = (
        f"UMPTEEN_JOB={job}\0UMPTEEN_TASK={task}\0UMPTEEN_TASK_INDEX={index}\0"
        f"UMPTEEN_ATTEMPT={attempt}\0UMPTEEN_SLOT={slot}\0SATURN_RUN_LOCAL_RANK={slot}\0"
        f"UMPTEEN_RESULTS_DIR={results_dir}\0SATURN_RUN_LOCAL_RESULTS_DIR={results_dir}/\0"
        f"RESULTS_DIR={results_dir}\0UMPTEEN_OUTPUT={output}\0"
        f"SATURN_RUN_REMOTE_OUTPUT_PATH={output}"
    )
    return text.encode("utf-8", "surrogateescape").split(b"\0")


def join_option(name: str, value: str) -> str:
    """As sbatch is given it: `--time=10:00`, or `--hold` where it takes no value."""
    return f"--{name}={value}" if value else f"--{name}"
