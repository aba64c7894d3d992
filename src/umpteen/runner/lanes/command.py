"""How a command is started: without a shell where none is needed, and in which environment.

Not here: which task it is of and what becomes of it (`attempt`). Standard library alone.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from umpteen.model.command import build_environment
from umpteen.model.reasons import Reason, write_reason
from umpteen.model.variables import WORKER_THREADS
from umpteen.store.address import OPTIONS_VARIABLE
from umpteen.system.spawn import Launch, Spawner, explain_shortage

__all__ = ["Command", "CommandStarter", "StartError", "is_plain", "resolve_program"]

# What a POSIX shell, dash or bash does itself, so that running a program of that name
# would not be the same.
_SHELL_WORDS = frozenset(
    ". : [ alias bg bind break builtin caller case cd chdir command compgen complete compopt"
    " continue coproc declare dirs disown do done echo elif else enable esac eval exec exit"
    " export false fc fg fi for function getopts hash help history if in jobs kill let local"
    " logout mapfile newgrp popd printf pushd pwd read readarray readonly return select set"
    " shift shopt source suspend test then time times trap true type typeset ulimit umask"
    " unalias unset until wait while".split()
)
_PLAIN_COMMAND = re.compile(r"[A-Za-z0-9_@%+:,./\-][A-Za-z0-9_@%+=:,./\- \t]*")
_WORD_MOST = 32 * os.sysconf("SC_PAGESIZE")  # bytes that Linux takes as one word or variable
_CANNOT_RUN, _NOT_FOUND = 126, 127  # exit codes, as a shell has them


class Command(NamedTuple):
    """What one attempt runs."""

    words: str | list[str]  # text for `sh -c`, or the words of a program
    variables: Sequence[bytes]  # what umpteen sets, as KEY=value
    env: Mapping[str, str]  # what the task declares; comes before all else
    cwd: str | None  # None: where the runner is


class StartError(Exception):
    """A command that could not be started; its text says why."""

    def __init__(self, reason: str, exit_code: int = _CANNOT_RUN) -> None:
        super().__init__(reason)
        self.exit_code = exit_code  # as a shell would have it


class CommandStarter:
    """Starts the commands of one lane."""

    def __init__(self) -> None:
        self._spawner = Spawner()
        self._path = os.environ.get("PATH", os.defpath)
        # By first word, PATH and folder: the program that needs no shell.
        self._programs: dict[tuple[str, str, str | None], str | None] = {}
        ours = {line.split(b"=")[0] for line in build_environment("", "", 0, 0, 0, "", "")}
        ours.add(OPTIONS_VARIABLE.encode())  # may have secrets
        ours.add(WORKER_THREADS.encode())
        self._inherited = [b"%s=%s" % pair for pair in os.environb.items() if pair[0] not in ours]
        self._limits = list(filter(None, os.environ.get(WORKER_THREADS, "").split(",")))

    def limit_threads(self, cpus: int) -> dict[str, str]:
        """The variables by which programs take no more cores than so many, where there are any."""
        return dict.fromkeys(self._limits, str(cpus))

    def start(self, command: Command, stdout: int, stderr: int) -> int:
        """The new process's pid; raises StartError, which is written to its stderr, too."""
        environment = self._build_environment(command)
        launch = Launch((), b"", environment, command.cwd, stdout, stderr)
        path = command.env.get("PATH", self._path)
        try:
            return self._spawn(command.words, path, launch)
        except (OSError, ValueError) as error:
            failure = _explain_failure(command, error, environment)
        os.write(stderr, f"umpteen: {failure}\n".encode("utf-8", "surrogateescape"))
        raise failure

    def read_late_failure(self) -> str:
        """Why a process ended with 255 before it became the program; empty where it became it."""
        failure = self._spawner.read_failure(None, b"")
        return write_reason(Reason.TOO_LONG, why=failure.strerror) if failure else ""

    def _build_environment(self, command: Command) -> list[bytes]:
        if not command.env:
            return [*self._inherited, *command.variables]
        declared = [
            f"{key}={value}".encode("utf-8", "surrogateescape")
            for key, value in command.env.items()
        ]
        names = {line.split(b"=", 1)[0] for line in declared}
        others = (*self._inherited, *command.variables)
        kept = (line for line in others if line.split(b"=", 1)[0] not in names)
        return [*kept, *declared]

    def _spawn(self, words: str | list[str], path: str, launch: Launch) -> int:
        """Start the command; `launch` is all but its words and its program."""
        start = self._spawner.start
        if not isinstance(words, str):
            found = os.fsencode(_find_program(words[0], path, launch.cwd))
            return start(Launch([os.fsencode(word) for word in words], found, *launch[2:]))
        text = words.encode("utf-8", "surrogateescape")
        program = self._find_plain(words, path, launch.cwd) if is_plain(words) else None
        if program:
            try:
                return start(Launch(text.split(), os.fsencode(program), *launch[2:]))
            except OSError as error:
                # A script without `#!`, or a program gone since: the shell knows what to do.
                is_for_shell = error.errno in (errno.ENOEXEC, errno.ENOENT)
                if not is_for_shell or error.filename == launch.cwd:
                    raise
        # A command that begins like a flag is none of the shell's.
        flags = [b"-c", b"--"] if text[:1] in (b"-", b"+") else [b"-c"]
        return start(Launch([b"sh", *flags, text], b"/bin/sh", *launch[2:]))

    def _find_plain(self, command: str, path: str, cwd: str | None) -> str | None:
        key = (command.split(None, 1)[0], path, cwd)
        if key not in self._programs:
            self._programs[key] = resolve_program(*key)
        return self._programs[key]


# --- which program ------------------------------------------------------------------------


def is_plain(command: str) -> bool:
    """Whether a command holds no shell syntax at all, so that blanks alone part its words."""
    return _PLAIN_COMMAND.fullmatch(command) is not None


def resolve_program(word: str, path: str, cwd: str | None) -> str | None:
    """The program that `sh` would start for the first word of a plain command.

    None where the shell would do something else: a builtin, an assignment, nothing found.
    """
    if "=" in word or word in _SHELL_WORDS:
        return None
    if "/" in word:
        full = word if word.startswith("/") or cwd is None else os.path.join(cwd, word)
        return word if _is_program(full) else None
    for folder in path.split(":"):
        if folder.startswith("/") and _is_program(f"{folder}/{word}"):
            return f"{folder}/{word}"
    return None


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _find_program(word: str, path: str, cwd: str | None) -> str:
    """The file that a list's first word names, as execvp would find it."""
    if "/" in word:
        return word
    for folder in path.split(":"):
        candidate = os.path.join(folder or ".", word)
        if os.access(os.path.join(cwd or "", candidate), os.X_OK) and not os.path.isdir(candidate):
            return candidate
    raise FileNotFoundError(errno.ENOENT, "no such program", word)


# --- why it cannot be started ---------------------------------------------------------------


def _explain_failure(
    command: Command, error: OSError | ValueError, environment: Sequence[bytes]
) -> StartError:
    if isinstance(error, ValueError):
        return StartError(write_reason(Reason.NUL_CHARACTER))
    if command.cwd is not None and error.filename == command.cwd:
        return StartError(write_reason(Reason.BAD_FOLDER, folder=command.cwd, why=error.strerror))
    if error.errno == errno.E2BIG:
        return StartError(
            write_reason(Reason.TOO_LONG, why=_explain_too_long(command.words, environment))
        )
    word = command.words if isinstance(command.words, str) else command.words[0]
    short = explain_shortage(OSError(error.errno, ""))
    exit_code = _NOT_FOUND if error.errno == errno.ENOENT else _CANNOT_RUN
    reason = write_reason(Reason.BAD_PROGRAM, program=word[:200], why=short or error.strerror)
    return StartError(reason, exit_code)


def _explain_too_long(words: str | list[str], environment: Sequence[bytes]) -> str:
    """What of a command and its environment is longer than the system takes."""
    for entry in environment:
        if len(entry) >= _WORD_MOST:
            name = os.fsdecode(entry.partition(b"=")[0])
            return f"the variable {name} is longer than {_WORD_MOST >> 10} KiB"
    if any(len(os.fsencode(word)) >= _WORD_MOST for word in _list_words(words)):
        return f"the command is longer than {_WORD_MOST >> 10} KiB: put it into a file"
    return "the command and its environment are longer together than this system takes"


def _list_words(words: str | list[str]) -> list[str]:
    return [words] if isinstance(words, str) else words
