"""One command a line in, a Draft out; blank lines and those that begin with `#` are no tasks.

Knows nothing of settings or placeholders.
"""

from __future__ import annotations

import functools

from umpteen.errors import InputError
from umpteen.formats.documents import Path, Place, Source, check_encoding
from umpteen.formats.entries import Draft

__all__ = ["read_lines"]


def read_lines(source: Source) -> Draft:
    """The commands; raises InputError, with the line, for bytes that are no text."""
    check_encoding(source)
    if source.data.startswith(b"#!"):
        raise InputError(
            "is a script, not a list of commands",
            f"to run it as one task: umpteen run 'sh {source.name}'",
            file=source.name,
        )
    text = source.data.decode().replace("\r\n", "\n")
    stripped = [line.strip() for line in text.split("\n")]
    commands = [line for line in stripped if line and line[0] != "#"]
    return Draft(source, entries=list(commands), find=functools.partial(_find_line, source))


def _find_line(source: Source, path: Path) -> Place | None:
    seen = -1
    for number, line in enumerate(source.data.split(b"\n"), 1):
        stripped = line.strip()
        seen += bool(stripped) and not stripped.startswith(b"#")
        if path and seen == path[0]:
            return Place(number, stripped.decode(errors="replace"))
    return None
