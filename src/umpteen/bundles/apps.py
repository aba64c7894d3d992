"""What a program is given: asked from the program's own parser, `PROGRAM-cli`."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from umpteen.bundles.bundle import Argument
from umpteen.bundles.bundle_file import check_arguments
from umpteen.errors import EXIT_SOME_FAILED, InputError, SettingsError

__all__ = ["ask_arguments"]


def ask_arguments(program: str, words: Sequence[str]) -> Mapping[str, Argument]:
    """By flag what a program would be given by these words, its defaults included.

    `PROGRAM-cli` parses them, and prints a JSON object. Raises SettingsError where one of the two
    is not there, and InputError where the parser refuses or prints something else.
    """
    parser = f"{program}-cli"
    for name in (program, parser):
        if not shutil.which(name):
            hint = f"any other command: umpteen schedule -- {shlex.join([program, *words])}"
            raise SettingsError(f"there is no program {name!r} on PATH", hint)
    command = [parser, *words]
    try:
        asked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot start {parser}: {error}") from error
    if asked.returncode:
        said = asked.stderr.decode(errors="replace").strip()
        refusal = InputError(f"{shlex.join(command)} ended with {asked.returncode}: {said}")
        refusal.exit_code = EXIT_SOME_FAILED
        raise refusal
    try:
        found = json.loads(asked.stdout)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        hint = "it has to print the arguments that it parsed, as a JSON object"
        raise InputError(f"{shlex.join(command)} prints no JSON object", hint)
    return check_arguments(found, parser)
