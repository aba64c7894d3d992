"""What is said where the system has no more of something."""

from __future__ import annotations

import errno
import os

import pytest

from umpteen.system.spawn import explain_shortage


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "memory"),
        (OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "processes"),
        (RuntimeError("can't start new thread"), "processes"),
    ],
)
def test_shortage_is_said_by_what_is_short(error: Exception, said: str) -> None:
    explained = explain_shortage(error)
    assert explained is not None
    assert said in explained.message
    assert explained.hint


@pytest.mark.parametrize(
    "error", [RuntimeError("other"), OSError(errno.EAGAIN, "again", "a file"), ValueError()]
)
def test_other_error_is_no_shortage(error: Exception) -> None:
    assert explain_shortage(error) is None
