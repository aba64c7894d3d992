"""Calls in threads, and processes that may outlive us."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from umpteen.errors import StoreError
from umpteen.system.background import BackgroundCall, BackgroundQueue, detach


def test_call_gives_its_answer_when_it_has_ended() -> None:
    may_end = threading.Event()
    call = BackgroundCall(lambda: may_end.wait() and 5)
    assert not call.is_over()
    may_end.set()
    assert call.take() == 5
    assert call.is_over()


def test_call_raises_what_it_raised() -> None:
    def fail() -> None:
        raise StoreError("gone")

    with pytest.raises(StoreError, match="gone"):
        BackgroundCall(fail).take()


def test_queue_does_one_after_the_other_whatever_a_store_says() -> None:
    done: list[int] = []

    def fail() -> None:
        done.append(2)
        raise StoreError("gone")

    waiting = BackgroundQueue()
    waiting.do(lambda: done.append(1))
    waiting.do(fail)
    waiting.do(lambda: done.append(3))
    waiting.finish()
    assert done == [1, 2, 3]


def test_detach_starts_a_session_of_its_own_with_what_it_is_given(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    program = f"import os; os.write({write_end}, str(os.getsid(0)).encode()); print(os.environ)"
    with open(tmp_path / "out", "wb") as out:
        command = [sys.executable, "-c", program]
        process = detach(command, output=out, errors=out, pass_fds=[write_end], env={"A": "1"})
    os.close(write_end)
    assert process.wait() == 0
    assert int(os.read(read_end, 99)) == process.pid
    os.close(read_end)
    assert "'A': '1'" in (tmp_path / "out").read_text()


def test_detach_of_what_still_runs_warns_of_nothing() -> None:
    process = detach(
        ["cat"], output=subprocess.DEVNULL, errors=subprocess.DEVNULL, stdin=subprocess.PIPE
    )
    stdin, pid = process.stdin, process.pid
    del process
    gc.collect()  # warnings are errors here
    os.kill(pid, 0)
    assert stdin is not None
    stdin.close()  # and cat ends
