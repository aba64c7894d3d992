"""What a program is given: asked from the program's own parser, `PROGRAM-cli`."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from umpteen.bundles.bundle import Argument
from umpteen.bundles.bundle_file import check_arguments
from umpteen.errors import EXIT_SOME_FAILED, InputError, SettingsError

__all__ = ["ask_arguments", "find_known"]


def ask_arguments(program: str, words: Sequence[str]) -> Mapping[str, Argument]:
    """By flag what a program would be given by these words, its defaults included.

    `PROGRAM-cli` parses them, and prints a JSON object. Raises SettingsError where one of the two
    is not there, and InputError where the parser refuses or prints something else.
    """
    for name in (program, f"{program}-cli"):
        if not shutil.which(name):
            hint = f"any other command: umpteen schedule -- {shlex.join([program, *words])}"
            raise SettingsError(f"there is no program {name!r} on PATH", hint)
    answer = _ask(program, words)
    said = shlex.join([f"{program}-cli", *words])
    if answer.code:
        refusal = InputError(f"{said} ended with {answer.code}: {answer.said}")
        refusal.exit_code = EXIT_SOME_FAILED
        raise refusal
    if answer.found is None:
        hint = "it has to print the arguments that it parsed, as a JSON object"
        raise InputError(f"{said} prints no JSON object", hint)
    return check_arguments(answer.found, f"{program}-cli")


def find_known(program: str, words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Those of some flags that a program knows: its parser takes them, and makes something of them.

    words: what it is given beside them.
    """
    if not flags or not shutil.which(f"{program}-cli"):
        return []
    without = _ask(program, words).found
    asked = {flag: _ask(program, [*words, flag]).found for flag in flags}
    return [flag for flag, found in asked.items() if found is not None and found != without]


class _Answer(NamedTuple):
    code: int
    # What the parser prints; None where it refuses, or prints no JSON object.
    found: Mapping[str, Any] | None
    said: str


def _ask(program: str, words: Sequence[str]) -> _Answer:
    command = [f"{program}-cli", *words]
    try:
        asked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot start {command[0]}: {error}") from error
    found = None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(asked.stdout)
    is_answer = asked.returncode == 0 and isinstance(found, dict)
    said = asked.stderr.decode(errors="replace").strip()
    return _Answer(asked.returncode, found if is_answer else None, said)
