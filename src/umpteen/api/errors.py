"""Errors as Python programs see them: with what the command line prints beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from umpteen.errors import BackendError, UmpteenError

__all__ = ["hinted"]


@contextlib.contextmanager
def hinted() -> Iterator[None]:
    """Have an error show what the command line prints with it: a runner's last words, the hint."""
    try:
        yield
    except UmpteenError as error:
        if isinstance(error, BackendError) and error.last_lines:
            error.add_note(error.last_lines)
        if error.hint:
            error.add_note(f"hint: {error.hint}")
        raise
