"""Opens the file of machines in this user's editor, with a template in it where it is missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

from umpteen.errors import SettingsError
from umpteen.model.variables import EDITOR, VISUAL
from umpteen.system.whole_files import replace_file

__all__ = ["edit"]

_TEMPLATE = """\
# The machines that umpteen knows: a table for each, [machines.NAME]. Remove the '#' before what you
# fill in. `local` is this machine.

# [machines.local]
# path = "/scratch/me/work"              # the folder below which all work is
# account = "def-me"                     # of Slurm
# env_command = "source ~/venv/bin/activate"

# [machines.big]
# host = "big"                           # an alias of ~/.ssh/config, a host, or user@host
# key_path = "~/.ssh/id"
# path = "/scratch/me/work"
# account = "rrg-me"
# env_command = "conda activate e"
# [machines.big.slurm]                   # options of sbatch, by their long names
# partition = "gpu"
# time = "2h"
"""


def edit(path: str) -> None:
    """Have the user edit a file, and come back when the editor ends. Raises SettingsError."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not os.path.exists(path):
            replace_file(path, _TEMPLATE)
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error
    editor = _find_editor()
    # As git does: an editor may have arguments.
    code = subprocess.call(["sh", "-c", f'{editor} "$@"', editor, path])
    if code:
        raise SettingsError(f"the editor {editor!r} ended with {code}", f"edit {path} yourself")


def _find_editor() -> str:
    for variable in (VISUAL, EDITOR):
        if editor := os.environ.get(variable, "").strip():
            return editor
    with contextlib.suppress(OSError):  # no git here
        asked = subprocess.run(
            ["git", "config", "--get", "core.editor"], capture_output=True, text=True, check=False
        )
        if editor := asked.stdout.strip():
            return editor
    for editor in ("nano", "vi"):
        if shutil.which(editor):
            return editor
    raise SettingsError("there is no editor here", "set EDITOR to one")
