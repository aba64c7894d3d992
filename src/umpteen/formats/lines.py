"""One command a line in, a Draft out; blank lines and those that begin with `#` are no tasks.

Knows nothing of settings or placeholders.
"""

from __future__ import annotations

import functools
import os

from umpteen.errors import InputError
from umpteen.formats.documents import Path, Place, Source, check_encoding
from umpteen.formats.entries import Draft

__all__ = ["find_interpreter", "read_lines"]

_INTERPRETERS = {
    ".py": "python3", ".R": "Rscript", ".r": "Rscript", ".jl": "julia", ".pl": "perl",
    ".rb": "ruby", ".js": "node", ".lua": "lua", ".m": "octave",
}  # fmt: skip


def read_lines(source: Source) -> Draft:
    """The commands; raises InputError, with the line, for bytes that are no text."""
    check_encoding(source)
    if program := find_interpreter(source):
        raise InputError(
            "is a script, not a list of commands",
            f"to run it as one task: umpteen run '{program} {source.name}'",
            file=source.name,
        )
    text = source.data.decode().replace("\r\n", "\n")
    stripped = [line.strip() for line in text.split("\n")]
    commands = [line for line in stripped if line and line[0] != "#"]
    return Draft(source, entries=list(commands), find=functools.partial(_find_line, source))


def find_interpreter(source: Source) -> str:
    """What runs the file, if it is a program: by its first line, or by its name."""
    if source.data.startswith(b"#!"):
        words = source.data[2:].split(b"\n", 1)[0].decode().split()
        word = words[1] if words[1:] and os.path.basename(words[0]) == "env" else words[0]
        return os.path.basename(word)
    return _INTERPRETERS.get(os.path.splitext(source.name)[1], "")


def _find_line(source: Source, path: Path) -> Place | None:
    seen = -1
    for number, line in enumerate(source.data.split(b"\n"), 1):
        stripped = line.strip()
        seen += bool(stripped) and not stripped.startswith(b"#")
        if path and seen == path[0]:
            return Place(number, stripped.decode(errors="replace"))
    return None
