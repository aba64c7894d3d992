"""Task names: which cannot be, and the automatic ones; and names of capabilities.

Takes names or parameters, gives what is wrong or a name. A task's name becomes a folder below the
job's address; nothing here looks at a disk. Standard library alone.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = [
    "OWN_FOLDER",
    "BadName",
    "NameProblem",
    "automatic_name",
    "encode_value",
    "find_bad_name",
    "find_malformed_name",
    "is_capability",
]

OWN_FOLDER = ".umpteen"  # of a job, beside the outputs of its tasks

_MAX_PART_BYTES = 255
_MAX_NAME_BYTES = 1000
_MAX_AUTOMATIC_BYTES = 200
_KEPT_BYTES = 180
_CHUNK = 20_000

_CONTROL_BYTES = bytes(range(0x20)) + b"\x7f"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ENCODED = re.compile(r"[\x00-\x1f\x7f/%]")
_CAPABILITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


class NameProblem(enum.Enum):
    """What is wrong with a name."""

    MALFORMED = "malformed"  # whatever the others are
    REPEATED = "repeated"  # another task has it, letter for letter
    CASE = "case"  # it differs from another by letter case alone
    NESTED = "nested"  # it would lie in the folder of another task


class BadName(NamedTuple):
    """The first name that cannot be: its position, what is wrong, and what to do."""

    position: int
    problem: NameProblem
    message: str
    hint: str


def find_bad_name(names: Sequence[str], *, case_sensitive: bool = True) -> BadName | None:
    """The first name that cannot be a task's, None where all can.

    With `case_sensitive=False` names that differ only by letter case are refused, too.
    """
    nested, known = False, set[str]()
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        joined = "\n".join(chunk)
        nested = nested or "/" in joined
        if bad := _find_malformed(chunk, joined, start):
            return bad
        known.update(chunk)
    return _find_clash(names, known, nested=nested, case_sensitive=case_sensitive)


def find_malformed_name(names: Sequence[str]) -> BadName | None:
    """The first name that cannot be by itself, whatever the others are; None where all can."""
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        if bad := _find_malformed(chunk, "\n".join(chunk), start):
            return bad
    return None


def _find_malformed(chunk: Sequence[str], joined: str, start: int) -> BadName | None:
    if not _are_well_formed(chunk, joined):
        for position, name in enumerate(chunk, start):
            if problem := _find_problem(name):
                message = f"{_show(name)} cannot be a task's name: {problem[0]}"
                return BadName(position, NameProblem.MALFORMED, message, problem[1])
    return None


def _are_well_formed(names: Sequence[str], joined: str) -> bool:
    """Whether no name is wrong by itself; only whole-text searches, which are fast."""
    parts = f"\n{joined}\n".replace("/", "\n")
    if "\n\n" in parts:
        return False
    if "\n." in parts and any(f"\n{part}\n" in parts for part in (".", "..", OWN_FOLDER)):
        return False
    try:
        data = joined.encode()
    except UnicodeEncodeError:
        return False
    if len(data) - len(data.translate(None, _CONTROL_BYTES)) != len(names) - 1:
        return False
    return max(map(len, names)) * 4 <= _MAX_PART_BYTES or all(map(_has_good_length, names))


def _has_good_length(name: str) -> bool:
    size = len(name.encode())
    if size <= _MAX_PART_BYTES:
        return True
    longest = max(len(part.encode()) for part in name.split("/"))
    return size <= _MAX_NAME_BYTES and longest <= _MAX_PART_BYTES


def _find_problem(name: str) -> tuple[str, str] | None:
    """What is wrong with one name by itself, and what to do."""
    parts = name.split("/")
    if not name:
        return "it is empty", "give it a name, or none at all"
    if name.startswith("/"):
        return "it begins with '/'", "names are folders below the results directory"
    if "" in parts:
        return "a part of it is empty", "write one '/' between two parts, and none at the end"
    if "." in parts or ".." in parts:
        return "it would leave the results directory", "'.' and '..' cannot be parts of a name"
    if match := _CONTROL.search(name):
        return f"it has the control character {match[0]!r}", "use letters, digits and '._-=/'"
    if parts[0] == OWN_FOLDER:
        return f"{OWN_FOLDER!r} is the folder of umpteen's own files", "use another first part"
    try:
        fits = _has_good_length(name)
    except UnicodeEncodeError:
        return "it is not UTF-8", "use letters, digits and '._-=/'"
    if not fits:
        limits = f"{_MAX_PART_BYTES} bytes a part, {_MAX_NAME_BYTES} in all"
        return f"its {len(name.encode())} bytes are too long", f"at most {limits}"
    return None


def _find_clash(
    names: Sequence[str], known: set[str], *, nested: bool, case_sensitive: bool
) -> BadName | None:
    """The first name that is another's, or lies below another task's folder."""
    if len(known) != len(names):
        position = _first_repeated(names)
        message = f"two tasks have the name {_show(names[position])}"
        return BadName(
            position, NameProblem.REPEATED, message, "every task needs a name of its own"
        )
    if not case_sensitive:
        folded = [name.casefold() for name in names]
        if len(set(folded)) != len(folded):
            position = _first_repeated(folded)
            message = f"the name {_show(names[position])} differs from another only by letter case"
            hint = "the results directory cannot keep the two apart"
            return BadName(position, NameProblem.CASE, message, hint)
        known, names = set(folded), folded
    return _find_nested(names, known) if nested else None


def _find_nested(names: Sequence[str], known: set[str]) -> BadName | None:
    for position, name in enumerate(names):
        end = name.find("/")
        while end >= 0:
            if name[:end] in known:
                message = (
                    f"the task {_show(name)} would lie in the folder of task {_show(name[:end])}"
                )
                hint = "no task's name may go on below another's"
                return BadName(position, NameProblem.NESTED, message, hint)
            end = name.find("/", end + 1)
    return None


def _first_repeated(names: Sequence[str]) -> int:
    seen: set[str] = set()
    for position, name in enumerate(names):
        if name in seen:
            return position
        seen.add(name)
    raise AssertionError("no name is repeated")


def _show(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:57] + "...")


def encode_value(value: str) -> str:
    """The value as a part of a name: `/`, `%` and control characters percent-encoded."""
    return _ENCODED.sub(lambda match: f"%{ord(match[0]):02X}", value)


# A product has far fewer values than rows.
@functools.lru_cache(maxsize=10_000)
def _encode_pair(key: str, value: str) -> str:
    return encode_value(f"{key}={value}")


def automatic_name(parameters: Mapping[str, str]) -> str:
    """`lr=0.1,seed=3`; what is over 200 bytes is cut, and told apart by its hash."""
    name = ",".join([_encode_pair(key, value) for key, value in parameters.items()])
    if len(name) * 4 <= _MAX_AUTOMATIC_BYTES:
        return name
    data = name.encode("utf-8", "surrogateescape")
    if len(data) <= _MAX_AUTOMATIC_BYTES:
        return name
    kept = data[:_KEPT_BYTES].decode(errors="ignore")
    return f"{kept}-{hashlib.blake2b(data, digest_size=6).hexdigest()}"


def is_capability(name: str) -> bool:
    """Whether it can be the name of something that a machine has, such as a program."""
    return _CAPABILITY.fullmatch(name) is not None
