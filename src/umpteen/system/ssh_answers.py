"""Reads what the agent on a host behind ssh answers, and no more of it than can be meant.

An answer is a line of JSON and so many bytes behind it. Standard library alone.
"""

from __future__ import annotations

from typing import IO, Any, Callable, NamedTuple, Optional

from umpteen.model.forms import FormError, get, load_json, table_of, text, whole
from umpteen.system.host_agent import PART_BYTES

__all__ = ["Told", "parse_answer", "read_line"]

_BODY_BYTES = 2 * PART_BYTES
_LINE_BYTES = 1 << 26  # of a task with a million files
_LONG_BYTES = 1 << 29  # of a store with as many tasks
_ERRNO_MOST = 1 << 12
_REASON_LENGTH = 1000


class Told(NamedTuple):
    """The line of an answer."""

    number: int  # of what was asked
    size: int  # bytes that are behind it
    found: Any
    failure: Optional[OSError]  # noqa: UP045 -- Python 3.9


def read_line(source: IO[bytes], is_long: Callable[[], bool]) -> bytes:
    """The next line; nothing where no more comes. Raises FormError where it is too long.

    is_long: whether an answer is waited for that may be longer than others.
    """
    line = source.readline(_LINE_BYTES)
    if len(line) == _LINE_BYTES and line[-1:] != b"\n" and is_long():
        line += source.readline(_LONG_BYTES - _LINE_BYTES)
    if line and line[-1:] != b"\n":
        if len(line) < _LINE_BYTES:  # the connection ended in it
            return b""
        raise FormError("a line without an end")
    return line


def parse_answer(line: bytes) -> Told:
    """Raises FormError where it is none."""
    told = table_of(load_json(line))
    number, size = get(told, "id", whole), get(told, "size", whole, 0, _BODY_BYTES)
    if "errno" not in told:
        return Told(number, size, told.get("found"), None)
    code, reason = get(told, "errno", whole, 0, _ERRNO_MOST), get(told, "reason", text)
    shown = "".join(c if c.isprintable() else " " for c in reason[:_REASON_LENGTH])
    return Told(number, size, None, OSError(code, shown))
