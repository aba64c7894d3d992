"""What the arguments of `run` mean, and the bytes they name.

Tells job files from a command with values, opens files, and keeps a digest of all that was
read. Looks into no file.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Sequence
from typing import BinaryIO

from umpteen.errors import InputError, nearest_hint
from umpteen.formats.documents import Source
from umpteen.system.whole_files import read_file

__all__ = ["STDIN", "Inputs", "choose_job_name", "names_files"]

STDIN = "stdin"  # what standard input is called in messages

_JOB_EXTENSIONS = (".yaml", ".yml", ".json", ".jsonl", ".csv", ".txt", ".tsv")
_SCRIPT = re.compile(
    r"(?:.*/)?([^/]+)\.(?:py|sh|bash|zsh|fish|jl|R|r|pl|rb|m|js|mjs|ts|lua|php|tcl|do|sas|awk|ipynb|jar|exe)"
)
_VALUES = re.compile(r"[^\W\d][\w.-]*=.*", re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_FILE_HINT = "give a job file, or a command in quotes"
_BOM = b"\xef\xbb\xbf"
_PIPE = re.compile(r"/dev/(?:fd/\d+|stdin)|/proc/(?:self|\d+)/fd/\d+")
_MANY_BYTES = 1 << 22


class Inputs:
    """Opens what is named, once each, and remembers a digest of it."""

    def __init__(self, stdin: BinaryIO | None) -> None:
        self._stdin = stdin
        self._hash = hashlib.blake2b(digest_size=16)
        self._hashing: threading.Thread | None = None

    def add(self, data: bytes) -> None:
        """Takes the bytes into the digest; many of them beside what the caller does next."""
        self._wait()
        self._hash.update(len(data).to_bytes(8, "little"))
        if len(data) < _MANY_BYTES:
            self._hash.update(data)
        else:
            self._hashing = threading.Thread(target=self._hash.update, args=(data,))
            self._hashing.start()

    def digest(self) -> str:
        """Of all bytes so far."""
        self._wait()
        return self._hash.hexdigest()

    def _wait(self) -> None:
        if self._hashing:
            self._hashing.join()
            self._hashing = None

    def open(self, name: str, folder: str = "", hint: str = _FILE_HINT) -> Source:
        """The file, `-` for standard input; `folder` is where a relative name begins.

        Raises InputError where it cannot be read.
        """
        path = os.path.join(folder, name)
        try:
            data = self._read(name, path)
        except FileNotFoundError:
            raise _no_such_file(name, path, hint) from None
        except IsADirectoryError:
            raise InputError(f"{name!r} is a directory", hint) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{name!r} cannot be read: {reason}") from None
        self.add(data)
        # `<(command)` of a shell is a pipe whose name says nothing, as standard input is.
        is_pipe = name == "-" or _PIPE.fullmatch(name) is not None
        folder = "" if is_pipe else os.path.dirname(path)
        return Source(STDIN if is_pipe else name, data.removeprefix(_BOM), folder)

    def _read(self, name: str, path: str) -> bytes:
        if name == "-":
            return (self._stdin or sys.stdin.buffer).read()
        return read_file(path)


def names_files(arguments: Sequence[str]) -> bool:
    """Whether the arguments are job files, not a command with values.

    Raises InputError where a file seems to be meant that does not exist.
    """
    first = arguments[0]
    if first == "-" or (os.path.exists(first) and not os.path.isdir(first)):
        for other in arguments[1:]:
            if _VALUES.fullmatch(other) and not os.path.exists(other):
                if _is_program(first):
                    return False
                hint = f"values go with a command: umpteen run 'python sim.py {{x}}' {other}"
                raise InputError(f"{other!r} cannot stand beside the job file {first!r}", hint)
        return True
    if re.search(r"\s", first):
        return False
    if first.lower().endswith(_JOB_EXTENSIONS):
        raise _no_such_file(first, first)
    if shutil.which(first) or (len(arguments) > 1 and _VALUES.fullmatch(arguments[1])):
        return False
    if os.path.isdir(first):
        raise InputError(f"{first!r} is a directory", "give a job file, or a command")
    raise _no_such_file(first, first)


def _is_program(path: str) -> bool:
    is_job_file = path.lower().endswith(_JOB_EXTENSIONS)
    return not is_job_file and os.path.isfile(path) and os.access(path, os.X_OK)


def _no_such_file(name: str, path: str, hint: str = _FILE_HINT) -> InputError:
    try:
        os.stat(path)
    except PermissionError as error:
        return InputError(f"{name!r} cannot be read: {error.strerror}")
    except (OSError, ValueError):
        pass
    folder, base = os.path.split(path)
    try:
        beside = os.listdir(folder or ".")
    except OSError:
        beside = []
    if near := difflib.get_close_matches(base, beside, n=3, cutoff=0.6):
        shown = [os.path.join(os.path.dirname(name), other) for other in near]
        return InputError(
            f"no such file: {name!r}",
            nearest_hint(os.path.join(os.path.dirname(name), base), shown),
        )
    return InputError(f"no such file: {name!r}", hint)


def choose_job_name(command: str) -> str:
    """The stem of the first word that names a script, else of the program."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    plain = [word for word in words if "{" not in word and not _ASSIGNMENT.match(word)]
    for word in plain:
        if match := _SCRIPT.fullmatch(word):
            return _clean(match[1])
    return _clean(os.path.splitext(os.path.basename(plain[0]))[0]) if plain else "command"


def _clean(name: str) -> str:
    return re.sub(r"[^\w.+-]", "", name)[:100].strip(".") or "command"
