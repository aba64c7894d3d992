"""One command a line in, a ParsedFile out; blank lines and those that begin with `#` are no tasks.

A line that ends in a backslash goes on in the next.

Knows nothing of settings or placeholders.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Sequence

from umpteen.errors import InputError
from umpteen.formats.documents import Path, Source, SourcePosition, check_encoding, error_at
from umpteen.formats.tasks import ParsedFile
from umpteen.model.command import shell_command, write_verb

__all__ = ["find_interpreter", "read_lines", "refuse_makefile"]

_INTERPRETERS = {
    ".py": "python3", ".R": "Rscript", ".r": "Rscript", ".jl": "julia", ".pl": "perl",
    ".rb": "ruby", ".js": "node", ".lua": "lua", ".m": "octave",
}  # fmt: skip
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?(?=[\s,;|]|$)")
_OTHER_FORMATS = (
    ".md", ".rst", ".html", ".xml", ".toml", ".ini", ".cfg", ".conf", ".log", ".tex",
)  # fmt: skip


def read_lines(source: Source) -> ParsedFile:
    """The commands; raises InputError, with the line, for bytes that are no text."""
    check_encoding(source)
    _refuse_others(source)
    text = source.data.decode().replace("\r\n", "\n")
    if "\\\n" in text:
        commands = [command for _, command in _join_lines(text)]
    else:
        stripped = [line.strip() for line in text.split("\n")]
        commands = [line for line in stripped if line and line[0] != "#"]
    _refuse_table(source, commands)
    return ParsedFile(source, entries=list(commands), find=functools.partial(_find_line, source))


def _refuse_others(source: Source) -> None:
    """Raises InputError for a file that is known not to be a list of commands."""
    if program := find_interpreter(source):
        raise InputError(
            "is a script, not a list of commands",
            "to run it as one task: "
            + write_verb("run", f"{program} {shell_command([source.name])}"),
            file=source.name,
        )
    extension = os.path.splitext(source.name)[1]
    if extension.lower() in _OTHER_FORMATS:
        hint = "one that is may have any other name: cp it to commands.txt"
        message = f"is no list of commands, as its name ends in {extension}"
        raise InputError(message, hint, file=source.name)


def refuse_makefile(source: Source) -> None:
    """Raises InputError for a Makefile: its first line can be taken for a key of YAML."""
    stem, extension = os.path.splitext(os.path.basename(source.name).lower())
    if stem in ("makefile", "gnumakefile") or extension == ".mk":
        hint = "to run it as one task: "
        hint += write_verb("run", f"make -f {shell_command([source.name])}")
        raise InputError("is a Makefile, not a list of commands", hint, file=source.name)


def _refuse_table(source: Source, commands: Sequence[str]) -> None:
    """Raises InputError where one of the first two commands begins with a number, as rows do."""
    for position, command in enumerate(commands[:2]):
        if match := _NUMBER.match(command):
            hint = "a table of values goes with a command: umpteen run 'prog {x}' --from values.csv"
            message = f"no command is called {match[0]}"
            raise error_at(source, _find_line(source, [position]), message, hint)


def _join_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each command with its first line's number; what ends in a backslash goes on,
    as in a shell.
    """
    parts: list[str] = []
    begin = 0
    for number, line in enumerate(text.split("\n"), 1):
        begin = begin if parts else number
        if not parts and (not line.strip() or line.strip()[0] == "#"):
            continue
        goes_on = (len(line) - len(line.rstrip("\\"))) % 2
        parts.append(line[:-1] if goes_on else line)
        if not goes_on:
            yield begin, "".join(parts).strip()
            parts = []
    if parts:
        yield begin, "".join(parts).strip()


def find_interpreter(source: Source) -> str:
    """What runs the file, if it is a program: by its first line, or by its name."""
    if source.data.startswith(b"#!"):
        words = source.data[2:].split(b"\n", 1)[0].decode().split()
        word = words[1] if words[1:] and os.path.basename(words[0]) == "env" else words[0]
        return os.path.basename(word)
    return _INTERPRETERS.get(os.path.splitext(source.name)[1], "")


def _find_line(source: Source, path: Path) -> SourcePosition | None:
    text = source.data.decode(errors="replace").replace("\r\n", "\n")
    for position, (number, command) in enumerate(_join_lines(text)):
        if path and position == path[0]:
            return SourcePosition(number, command)
    return None
