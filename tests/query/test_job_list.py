"""Jobs for which others are asked, in a list of them."""

from __future__ import annotations

import math
import threading
import time
from typing import cast

import pytest

from umpteen.query import job_list
from umpteen.query.job_list import Pending, read_far
from umpteen.query.status import UNREACHABLE, JobStatus, build_unread
from umpteen.store.base import Store


class _Slow:
    """A store that takes long to load what asks for it, and answers at once then."""

    heard_s, ready_s = -math.inf, math.inf

    def __init__(self) -> None:
        self.was_abandoned = threading.Event()

    def abandon(self) -> None:
        self.was_abandoned.set()


def _build_status(name: str) -> JobStatus:
    return build_unread(name, "s3://b/j", UNREACHABLE, name)


def test_an_endpoint_is_not_silent_while_this_machine_gets_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_list, "_LIMIT_S", 0.2)
    store = _Slow()

    def read() -> JobStatus:
        store.was_abandoned.wait(0.6)
        store.ready_s = time.monotonic()
        return _build_status("read")

    pending = Pending("s3", read, _build_status("silent"), [cast("Store", store)])
    assert [status.trouble for status in read_far([pending])] == ["read"]


def test_what_is_never_ready_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_list, "_LIMIT_S", 0.1)
    monkeypatch.setattr(job_list, "_READY_S", 0.1)
    store = _Slow()

    def read() -> JobStatus:
        store.was_abandoned.wait(30)
        return _build_status("read")

    pending = Pending("s3", read, _build_status("silent"), [cast("Store", store)])
    assert [status.trouble for status in read_far([pending])] == ["silent"]
